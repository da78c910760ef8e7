"""A build is killed, or its disk fills up, at any operation: an engine that serves, and the next run ends the same."""

import errno
import functools
import os
import tempfile
from pathlib import Path

import crash_kit
import pipeline_job
import pytest

from tamis.data import artefact
from tamis.engine import Engine
from tamis.errors import ArtefactError, ResourceError

WRITES = {"create", "finish", "make folder", "link", "adopt"}


@pytest.fixture
def tmp_path():
    """In memory where the machine has that: on a disk, these tests would do little else than fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        pipeline_job.write_sources(Path(folder) / "job-sources")
        pipeline_job.write_sources(Path(folder) / "other-sources", seed=2)
        yield Path(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished engine."""
    folder = tmp_path_factory.mktemp("finished") / "engine"
    pipeline_job.build(folder)
    return folder


@pytest.fixture(scope="module")
def old_and_new(tmp_path_factory, finished):
    """What a finished engine answers, and what it answers once it has been built from other documents."""
    new = tmp_path_factory.mktemp("new") / "engine"
    pipeline_job.rebuild(new)
    return [some_answers(finished), some_answers(new)]


def some_answers(folder: Path) -> list[tuple[str, float, str, str]]:
    engine = Engine(folder)
    hits = [hit for text in pipeline_job.QUERIES[:2] for hit in engine.search(text, 3)]
    return [(hit.doc_id, hit.score, hit.title, hit.snippet) for hit in hits]


def unfinished_or_right(known, folder: Path) -> None:
    """An engine that was never finished says so; what was finished answers as it did, or as its successor does."""
    if (folder / "index" / "CURRENT").is_file():
        assert some_answers(folder) in known
    else:
        with pytest.raises(ArtefactError, match="no finished index"):
            Engine(folder)


def check_crashes(tmp_path, finished, old_and_new, stride):
    check = functools.partial(unfinished_or_right, old_and_new)
    kills = crash_kit.exhaustive_crashes(pipeline_job.build, tmp_path, check=check, stride=stride)
    assert kills * stride >= 600


def check_replacement(tmp_path, finished, old_and_new, stride):
    def serves(folder: Path) -> None:
        assert some_answers(folder) in old_and_new

    kills = crash_kit.exhaustive_crashes(
        pipeline_job.rebuild, tmp_path, start=finished, check=serves, stride=stride, also={"CURRENT", "v0001", "v0002"}
    )
    assert kills * stride >= 600


def check_faults(tmp_path, finished, old_and_new, stride, number=errno.ENOSPC):
    check = functools.partial(unfinished_or_right, old_and_new)
    faults = crash_kit.exhaustive_faults(pipeline_job.build, tmp_path, number=number, check=check, stride=stride)
    assert faults * stride >= 600


def check_full_disk(tmp_path, finished, old_and_new, stride):
    """From some operation on nothing can be written any more, until space is freed."""
    (tmp_path / "full").mkdir()
    clean = tmp_path / "clean"
    listed = crash_kit.operations(pipeline_job.build, clean)
    expected = artefact.hash_tree(clean)
    last = max(at for at, (name, _) in enumerate(listed) if name in WRITES)  # after it nothing needs room
    for start in range(0, last + 1, stride):
        run = tmp_path / f"full-{start}"
        seen = 0

        def refuse(when: str, name: str, path: Path, start: int = start) -> None:
            nonlocal seen
            seen += when == "before"
            if when == "before" and seen > start and name in WRITES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with crash_kit._Observed(refuse), pytest.raises(ResourceError, match="No space left") as caught:
            pipeline_job.build(run)
        assert caught.value.exit_code == 4
        assert not crash_kit.broken(run) if run.exists() else True
        pipeline_job.build(run)
        assert artefact.hash_tree(run) == expected, f"full from operation {start} {listed[start]}"
        assert not crash_kit.leftovers(run)


CHECKS = [check_crashes, check_replacement, check_faults, check_full_disk]


@pytest.mark.parametrize(("check", "stride"), list(zip(CHECKS, (101, 151, 67, 71), strict=True)))
def test_some_operations(tmp_path, finished, old_and_new, check, stride):
    check(tmp_path, finished, old_and_new, stride)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_other_refusals_of_the_system(tmp_path, finished, old_and_new, number):
    check_faults(tmp_path, finished, old_and_new, 151, number)


def test_a_few_kills_at_random_times(tmp_path):
    assert crash_kit.random_kills(pipeline_job.build, tmp_path, num_kills=5, seed=4, longest_seconds=1.2) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_every_operation(tmp_path, finished, old_and_new, check):
    check(tmp_path, finished, old_and_new, 1)


@pytest.mark.slow
def test_fifty_kills_at_random_times(tmp_path):
    assert crash_kit.random_kills(pipeline_job.build, tmp_path, num_kills=100, seed=5, longest_seconds=1.2) >= 50
