"""Cached kernels are loaded without the compiler, and everything else of numba works as before."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from numba.core.caching import Cache

from tamis.ops.kernel_cache import load_without_compiler

PROGRAM = """
import sys
import numpy as np
from tamis.ops.kernel_cache import load_without_compiler
assert load_without_compiler() and load_without_compiler()
from numba import njit
from tamis.ops.byte_kernels import longest
offsets = np.array([0, 3, 10])
print(longest(offsets), sum(longest.stats.cache_hits.values()), "numba.np.arraymath" in sys.modules)
@njit
def later(values):  # never cached: the compiler has to know everything now, and to call what was loaded before
    return longest(values) + values.sum() + np.sort(values)[-1]
print(later(offsets), "numba.np.arraymath" in sys.modules)
"""


def test_a_kernel_is_compiled_once_and_then_loaded_without_the_compiler(tmp_path):
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True, text=True, check=True,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert outputs[0] == ["7", "0", "True", "30", "True"]
    assert outputs[1] == ["7", "1", "False", "30", "True"]


@pytest.fixture
def usual(monkeypatch):
    """A numba whose way to load is known, and is put back afterwards."""
    monkeypatch.setattr(Cache, "load_overload", lambda self, sig, context: ("usual", sig))


def test_functions_of_other_packages_are_loaded_as_ever(usual):
    assert load_without_compiler()
    for name in ("elsewhere.kernels", "tamistry.kernels", None):
        other = SimpleNamespace(_py_func=SimpleNamespace(__module__=name))
        assert Cache.load_overload(other, "signature", None) == ("usual", "signature")
    assert Cache.load_overload(SimpleNamespace(), "signature", None) == ("usual", "signature")


def test_a_numba_that_is_built_otherwise_stays_as_it_is(usual, monkeypatch):
    before = Cache.load_overload
    monkeypatch.delattr(Cache, "_load_overload")
    assert not load_without_compiler()
    assert Cache.load_overload is before
