"""Compiled kernels without their compiler: a program that starts often reads machine code and goes to work.

Source: tamis design.

Before numba takes a kernel from its cache it registers everything it could compile, and imports SciPy's linear
algebra to see whether it is there: a fifth of the time of a `tamis select` of few documents. Machine code needs
none of it. A kernel that is not in the cache is compiled as ever: the compiler registers what it needs by itself.
"""

from typing import Any

_NEEDED = ("_load_overload", "_guard_against_spurious_io_errors", "load_overload")
_OURS = "tamis."


def load_without_compiler() -> bool:
    """Let kernels of this package be loaded before numba has prepared to compile.

    It changes a method of numba's for the whole process, so it is for programs, never for ``import tamis``. Other
    packages' functions are loaded as ever. Calling it again changes nothing.

    Returns:
      Whether it is so now; False for a numba that is built otherwise: then nothing has changed.
    """
    try:
        from numba.core.caching import Cache
        from numba.core.runtime import rtsys
    except ImportError:
        return False
    if not all(callable(getattr(Cache, name, None)) for name in _NEEDED) or not hasattr(rtsys, "initialize"):
        return False
    usual = Cache.load_overload
    if getattr(usual, "is_quick", False):
        return True

    def load_overload(self: Any, sig: Any, target_context: Any) -> Any:  # noqa: ANN401 - numba's own
        if not str(getattr(getattr(self, "_py_func", None), "__module__", "")).startswith(_OURS):
            return usual(self, sig, target_context)
        rtsys.initialize(target_context)  # arrays that kernels make are counted by numba's run time
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    load_overload.is_quick = True  # type: ignore[attr-defined]
    Cache.load_overload = load_overload
    return True
