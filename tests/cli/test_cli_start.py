"""The command line starts without what it does not use, and ends without tidying what ends with the process."""

import json
import subprocess
import sys

PROGRAM = """
import atexit, gc, json, sys
atexit.register(lambda: print(json.dumps([gc.get_freeze_count(), sorted(sys.modules)])))
sys.argv = ["tamis", *sys.argv[1:]]
from tamis.cli import main
main()
"""
UNUSED = {"scipy.linalg", "numba.np.arraymath", "numba.np.linalg", "torch", "faiss"}


def ended(*args):
    """Run a command in a process of its own: objects that its end passed over, and modules."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, args)], capture_output=True, text=True, check=True
    )  # fmt: skip
    frozen, modules = json.loads(done.stdout.splitlines()[-1])
    return frozen, set(modules)


def test_select_loads_its_kernels_without_the_compiler(tmp_path):
    lines = [json.dumps({"_id": str(n), "text": f"key number {n} opens the door {n % 7}"}) for n in range(300)]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "target.jsonl").write_text("\n".join(lines[:20]) + "\n")
    args = ("select", tmp_path / "pool.jsonl", "--target", tmp_path / "target.jsonl", "--budget", "9docs", "-q")
    args += ("--settings", tmp_path / "settings.toml")
    (tmp_path / "settings.toml").write_text("min_tokens = 1\n")
    ended(*args, "--out", tmp_path / "first")  # compiles what this machine has not compiled yet
    frozen, modules = ended(*args, "--out", tmp_path / "second")
    assert {"numba", "tamis.ops.ngram_kernels", "tamis.ingestion.pool_kernels"} <= modules
    assert not UNUSED & modules
    assert frozen > 10_000


def test_a_command_without_kernels_loads_none():
    assert "numba" not in ended("doctor", "-q")[1]
