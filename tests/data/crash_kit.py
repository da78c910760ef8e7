"""Kill a job at every durable operation, refuse every one, damage every file: what is left must be whole.

A *job* is ``work(folder)``: it writes artefacts below ``folder`` and continues where a killed run
stopped. For killing, it runs in a child process, so it must be importable (a module's function or a
functools.partial of one). ``exhaustive_crashes(work, folder)`` and ``exhaustive_faults(work, folder)``
are all that a test needs; each works in subfolders of ``folder`` of its own.
"""

import errno
import functools
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Container
from multiprocessing import forkserver
from pathlib import Path

import numpy as np

from tamis.data import artefact, durable
from tamis.errors import ArtefactError, ResourceError

Work = Callable[[Path], object]
KILLED = 137
POINTER = "CURRENT"  # names the version that serves; replaced in one step, so whole by itself
LEFTOVERS = (".partial", ".old", ".new")


def operations(work: Work, folder: Path) -> list[tuple[str, Path]]:
    """Run a job to its end; return its durable operations (name, path) in order."""
    seen: list[tuple[str, Path]] = []

    def record(when: str, name: str, path: Path) -> None:
        if when == "before":
            seen.append((name, path))

    with _Observed(record):
        work(folder)
    return seen


class _Observed:
    def __init__(self, observer: durable.Observer) -> None:
        self._observer = observer

    def __enter__(self) -> None:
        durable.observer = self._observer

    def __exit__(self, *_: object) -> None:
        durable.observer = None


def _at(index: int, when: str, act: Callable[[], None]) -> durable.Observer:
    """Observer that acts once, before or after the operation with this index (operations may nest)."""
    count = {"before": 0, "after": 0}
    open_operations: list[int] = []

    def observe(moment: str, name: str, path: Path) -> None:
        if moment == "before":
            open_operations.append(count["before"])
            count["before"] += 1
        number = open_operations[-1] if moment == "before" else open_operations.pop()
        if number == index and moment == when:
            act()

    return observe


def _killed_at(work: Work, folder: Path, index: int, when: str) -> None:
    with _Observed(_at(index, when, lambda: os._exit(KILLED))):
        work(folder)


def _process(target: Callable[..., object], module: str) -> multiprocessing.Process:
    # A fork server holds the imports and no threads: children start in milliseconds and cannot inherit a held lock.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crash_kit", "tamis.data.lock", "tamis.data.ledger", module])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the server itself is not given our path before Python 3.12
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context.Process(target=target)


def _module(work: Work) -> str:
    while isinstance(work, functools.partial):
        work = work.func
    return work.__module__


def kill_at(work: Work, folder: Path, index: int, when: str) -> int:
    """Run a job in a child that dies at an operation; return the child's exit code (137: it died there)."""
    child = _process(functools.partial(_killed_at, work, folder, index, when), _module(work))
    child.start()
    child.join(300)
    assert child.exitcode is not None, f"the job hangs at operation {index}"
    return child.exitcode


def broken(folder: Path) -> list[str]:
    """Say what a reader could see that is not whole: files of a visible subfolder without a sound manifest."""
    found = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = file.relative_to(folder).parts
        if len(parts) == 1 or file.name == POINTER or any(part.startswith(".") for part in parts):
            continue
        home = next((p for p in file.parents if (p / artefact.MANIFEST).is_file()), None)
        if home is None or not home.is_relative_to(folder):
            found.append(f"{file}: in no artefact")
    for manifest in sorted(folder.rglob(artefact.MANIFEST)):
        if any(part.startswith(".") for part in manifest.relative_to(folder).parts):
            continue
        try:
            found += artefact.problems(manifest.parent, artefact.read_manifest(manifest.parent), deep=True)
        except ArtefactError as error:
            found.append(str(error))
    return found


def leftovers(folder: Path) -> list[str]:
    """Hidden names that an interrupted write left behind."""
    return sorted(p.name for p in folder.rglob(".*") if p.name.endswith(LEFTOVERS))


def _visited(listed: list[tuple[str, Path]], stride: int, also: Container[str]) -> list[int]:
    return [n for n, (_, path) in enumerate(listed) if n % stride == 0 or path.name in also]


def exhaustive_crashes(
    work: Work,
    folder: Path,
    *,
    start: Path | None = None,
    check: Callable[[Path], None] | None = None,
    stride: int = 1,
    also: Container[str] = (),
) -> int:
    """Kill a job before and after every durable operation, run it again, compare with an undisturbed run.

    Args:
      work: the job.
      folder: an empty folder for the runs.
      start: a folder whose copy each run starts from (an older artefact to be replaced); None for nothing.
      check: called with each run's folder after the kill, before the second run: what a reader finds then.
      stride: visit every stride-th operation; 1 is exhaustive.
      also: file names whose operations are visited whatever the stride.

    Returns:
      Number of kills; 0 of them differ, or this raises AssertionError naming the operation.
    """
    clean = _begin(folder / "clean", start)
    listed = operations(work, clean)
    expected = artefact.hash_tree(clean)
    assert listed and expected, "the job writes no artefact"
    num_kills = 0
    for index in _visited(listed, stride, also):
        for when in ("before", "after"):
            name, path = listed[index]
            where = f"killed {when} operation {index} ({name} {path.name})"
            run = _begin(folder / f"kill-{index:04d}-{when}", start)
            code = kill_at(work, run, index, when)
            assert code == KILLED, f"{where}: the child ended with {code}"
            _compare(work, run, expected, where, check)
            num_kills += 1
    return num_kills


def exhaustive_faults(
    work: Work,
    folder: Path,
    *,
    number: int = errno.ENOSPC,
    start: Path | None = None,
    check: Callable[[Path], None] | None = None,
    stride: int = 1,
) -> int:
    """As `exhaustive_crashes`, but the system refuses the operation (before or after it): ResourceError, exit 4."""
    clean = _begin(folder / "clean", start)
    listed = operations(work, clean)
    expected = artefact.hash_tree(clean)
    num_faults = 0
    for index in range(0, len(listed), stride):
        for when in ("before", "after"):
            name, path = listed[index]
            where = f"{errno.errorcode[number]} {when} operation {index} ({name} {path.name})"
            run = _begin(folder / f"fault-{index:04d}-{when}", start)

            def refuse() -> None:
                raise OSError(number, os.strerror(number))

            with _Observed(_at(index, when, refuse)):
                try:
                    work(run)
                except ResourceError as error:
                    assert error.exit_code == 4
                    assert os.strerror(number) in str(error), f"{where}: the message lacks the reason: {error}"
                else:
                    raise AssertionError(f"{where}: the job went on")
            _compare(work, run, expected, where, check)
            num_faults += 1
    return num_faults


def random_kills(work: Work, folder: Path, *, num_kills: int, seed: int, longest_seconds: float) -> int:
    """SIGKILL a job at random times, again and again on one folder, then let it end; return how many hit it alive."""
    expected_folder = _begin(folder / "clean", None)
    work(expected_folder)
    expected = artefact.hash_tree(expected_folder)
    rng = np.random.default_rng(seed)
    run = _begin(folder / "killed", None)
    num_hit = 0
    for number in range(num_kills):
        child = _process(functools.partial(work, run), _module(work))
        child.start()
        time.sleep(float(rng.uniform(0, longest_seconds)))
        assert child.pid is not None
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        num_hit += child.exitcode == -signal.SIGKILL
        assert not broken(run), f"after kill {number} (seed {seed}): {broken(run)}"
        if artefact.hash_tree(run) == expected:  # it had ended: begin anew
            run = _begin(folder / f"killed-{number}", None)
    _compare(work, run, expected, f"after {num_kills} random kills (seed {seed})", None)
    return num_hit


def _begin(run: Path, start: Path | None) -> Path:
    if start is None:
        run.mkdir(parents=True)
    else:
        shutil.copytree(start, run)
    return run


def _compare(work: Work, run: Path, expected: dict[str, str], where: str, check: Callable[[Path], None] | None) -> None:
    assert not broken(run), f"{where}: a reader sees {broken(run)}"
    if check is not None:
        check(run)
    work(run)
    assert not leftovers(run), f"{where}: left behind {leftovers(run)}"
    assert not broken(run), f"{where}, run again: {broken(run)}"
    assert artefact.hash_tree(run) == expected, f"{where}, run again: another result"
    shutil.rmtree(run)  # kept when an assertion fails


def mutate(file: Path, rng: np.random.Generator) -> bytes:
    """Damage a file in place, half the time cut short, else 1, 4 or 32 bytes replaced; return what it held.

    Half of the replaced stretches begin in the first 512 bytes, where the headers are.
    """
    data = file.read_bytes()
    if not data:
        file.write_bytes(b"\0")
    elif rng.random() < 0.5:
        file.write_bytes(data[: int(rng.integers(len(data)))])
    else:
        limit = min(512, len(data)) if rng.random() < 0.5 else len(data)
        offset = int(rng.integers(limit))
        fresh = rng.bytes(int(rng.choice([1, 4, 32])))[: len(data) - offset]
        file.write_bytes(data[:offset] + fresh + data[offset + len(fresh) :])
    return data


def undetected_mutations(folder: Path, *, num_mutations: int, seed: int) -> list[str]:
    """Damage the files of one artefact folder, one at a time; return the cases that verification missed.

    A case is missed when the folder verifies (manifest included) although a byte differs, or when the
    damaged file is not named.
    """
    rng = np.random.default_rng(seed)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    whole = artefact.read_manifest(folder)
    missed = []
    for number in range(num_mutations):
        file = files[int(rng.integers(len(files)))]
        data = mutate(file, rng)
        try:
            manifest = artefact.read_manifest(folder)
            found = artefact.problems(folder, manifest, deep=True)
        except ArtefactError as error:
            manifest, found = None, [str(error)]
        harmless = file.read_bytes() == data or (file.name == artefact.MANIFEST and manifest == whole)
        if not harmless and not any(str(file) in line or str(file.parent) in line for line in found):
            missed.append(f"mutation {number} (seed {seed}) of {file.name}")
        file.write_bytes(data)
    return missed
