"""Shards: a killed job goes on where it was, with the same bytes; stale and damaged shards are made again."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tamis.engines.local import map_ordered
from tamis.engines.threads import map_threads
from tamis.errors import DataError
from tamis.pipeline.shards import map_shards

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
NUM = 12


def work(task: tuple[int, str]) -> pa.Table:
    """Return some rows; leave a mark for each time it ran."""
    number, folder = task
    with (Path(folder) / f"ran-{number}").open("a") as file:
        file.write("x")
    if (Path(folder) / "refuse").exists() and number == 5:
        raise DataError("task 5 is refused")
    return pa.table({"row": np.arange(number * 3), "value": np.full(number * 3, number / 7)})


ONE = functools.partial(map_threads, workers=1)


def tasks(marks: Path) -> list[tuple[int, str]]:
    marks.mkdir(exist_ok=True)
    return [(number, str(marks)) for number in range(NUM)]


def run(folder, marks, *, fingerprint="f", engine=ONE):
    return list(map_shards(work, tasks(marks), folder, fingerprint, engine))


def ran(marks):
    return {int(p.name[4:]): len(p.read_text()) for p in marks.glob("ran-*")}


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("engine", [map_threads, map_ordered])
def test_every_engine_gives_the_same_tables_and_files(tmp_path, engine):
    plain = run(tmp_path / "a", tmp_path / "marks")
    two = run(tmp_path / "b", tmp_path / "marks", engine=functools.partial(engine, workers=2))
    assert [t.num_rows for t in plain] == [3 * n for n in range(NUM)]
    assert all(x.equals(y) for x, y in zip(plain, two, strict=True))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert sorted(files(tmp_path / "a"))[:2] == ["000000.arrow", "000000.json"]


def test_a_finished_job_is_read_from_the_disk(tmp_path):
    first = run(tmp_path / "a", tmp_path / "marks")
    again = run(tmp_path / "a", tmp_path / "marks")
    assert ran(tmp_path / "marks") == dict.fromkeys(range(NUM), 1)
    assert all(x.equals(y) for x, y in zip(first, again, strict=True))


def test_a_failed_task_leaves_the_finished_ones(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    (marks / "refuse").touch()
    with pytest.raises(DataError, match="task 5"):
        run(tmp_path / "a", marks)
    (marks / "refuse").unlink()
    run(tmp_path / "a", marks)
    assert ran(marks) == {n: 2 if n == 5 else 1 for n in range(NUM)}


def test_another_fingerprint_starts_again(tmp_path):
    run(tmp_path / "a", tmp_path / "marks")
    (tmp_path / "a" / "000099.arrow").write_bytes(b"of a longer job")
    (tmp_path / "a" / "notes.txt").write_bytes(b"not ours")
    run(tmp_path / "a", tmp_path / "marks", fingerprint="g")
    assert ran(tmp_path / "marks") == dict.fromkeys(range(NUM), 2)
    assert "000099.arrow" not in files(tmp_path / "a") and "notes.txt" in files(tmp_path / "a")


@pytest.mark.parametrize("damage", ["cut", "flip", "no arrow", "no json", "bad json"])
def test_a_damaged_shard_is_made_again(tmp_path, damage):
    folder, marks = tmp_path / "a", tmp_path / "marks"
    run(folder, marks)
    whole = files(folder)
    arrow, entry = folder / "000004.arrow", folder / "000004.json"
    data = arrow.read_bytes()
    if damage == "cut":
        arrow.write_bytes(data[:-9])
    elif damage == "flip":
        arrow.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    elif damage == "no arrow":
        arrow.unlink()
    elif damage == "no json":
        entry.unlink()
    else:
        entry.write_bytes(b"[")
    run(folder, marks)
    assert files(folder) == whole
    assert ran(marks) == {n: 2 if n == 4 else 1 for n in range(NUM)}


@pytest.mark.parametrize("survivors", [1, 7])
def test_a_killed_job_resumes_with_the_same_bytes(tmp_path, survivors):
    """The child kills itself with SIGKILL after it was given some results; nothing finished is computed twice."""
    folder, marks = tmp_path / "a", tmp_path / "marks"
    script = (
        "import os, signal, sys\n"
        f"sys.path[:0] = [{SOURCE!r}, {str(Path(__file__).parent)!r}]\n"
        "from pathlib import Path\n"
        "from test_pipeline_shards import ONE, tasks, work, map_shards\n"
        f"results = map_shards(work, tasks(Path({str(marks)!r})), Path({str(folder)!r}), 'f', ONE)\n"
        f"for number, _ in enumerate(results, 1):\n    if number == {survivors}: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(folder.glob("*.arrow"))) == survivors
    run(folder, marks)
    assert ran(marks) == dict.fromkeys(range(NUM), 1)
    run(tmp_path / "b", tmp_path / "others")
    assert files(folder) == files(tmp_path / "b")
