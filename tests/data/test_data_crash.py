"""Killed at any point: a reader sees whole artefacts, and the next run ends as an undisturbed one."""

import os
import tempfile
from pathlib import Path

import crash_kit
import pytest
from crash_job import one_of_each, replace_index, two_stages

from tamis.data import Corpus, artefact


@pytest.fixture
def tmp_path():
    """In memory where the machine has that: on a disk, these tests would do little else than fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def older(tmp_path_factory):
    """A folder that holds the artefacts of 20 documents, to be replaced by those of 60."""
    folder = tmp_path_factory.mktemp("older") / "engine"
    two_stages(folder, docs=20)
    return folder


def old_or_new_serves(folder: Path) -> None:
    assert len(Corpus.open(folder / "corpus")) in {20, 60}
    artefact.open_verified(folder / "index", "index")


def test_every_crash_point_of_a_first_run(tmp_path):
    assert crash_kit.exhaustive_crashes(one_of_each, tmp_path) >= 60


def test_every_crash_point_of_a_replacement_leaves_an_index_that_serves(tmp_path, older):
    assert crash_kit.exhaustive_crashes(replace_index, tmp_path, start=older, check=old_or_new_serves) >= 24


def test_random_kills_one_after_another_on_one_folder(tmp_path):
    assert crash_kit.random_kills(one_of_each, tmp_path, num_kills=25, seed=3, longest_seconds=0.1) >= 3


def test_a_kill_between_the_two_renames_is_put_right(tmp_path, older):
    (older / "index").rename(older / ".index.old")  # what a kill leaves where names cannot be swapped
    artefact.sweep(older)
    artefact.open_verified(older / "index", "index")
    (older / "index").rename(older / ".index.old")
    with pytest.raises(KeyError), artefact.stage(older / "index", "index", settings={}, inputs={}, seed=1):
        artefact.open_verified(older / "index", "index")  # serves while its successor is made
        raise KeyError
    artefact.open_verified(older / "index", "index")
