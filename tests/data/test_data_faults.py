"""Refused or damaged at any point: exit 4, nothing half-made in sight, and damage is named."""

import errno
import os
import tempfile
from pathlib import Path

import crash_kit
import pyarrow as pa
import pytest
from crash_job import DOCS, one_of_each, replace_index, two_stages

from tamis.data import Corpus, artefact, durable
from tamis.errors import ArtefactError, ResourceError


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


def test_every_refused_operation_of_a_first_run(tmp_path):
    assert crash_kit.exhaustive_faults(one_of_each, tmp_path) >= 60


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EROFS, errno.EACCES])
def test_other_reasons_to_refuse(tmp_path, number):
    assert crash_kit.exhaustive_faults(one_of_each, tmp_path, number=number, stride=7) >= 10


def test_every_refused_operation_of_a_replacement_leaves_an_index_that_serves(tmp_path, older):
    assert crash_kit.exhaustive_faults(two_stages, tmp_path, start=older, check=old_or_new_serves) >= 60


def test_every_refused_operation_where_names_cannot_be_swapped(tmp_path, older, monkeypatch):
    monkeypatch.setattr(durable, "exchange", lambda first, second: False)
    assert crash_kit.exhaustive_faults(replace_index, tmp_path, start=older, check=old_or_new_serves) >= 24


def test_the_kit_notices_a_job_that_writes_in_place(tmp_path):
    def careless(folder):
        (folder / "index").mkdir(exist_ok=True)
        durable.write_bytes(folder / "index" / "a.bin", b"1")
        two_stages(folder, docs=3)

    with pytest.raises(AssertionError, match="in no artefact"):
        crash_kit.exhaustive_faults(careless, tmp_path)


def test_1000_mutations_are_all_found(tmp_path):
    two_stages(tmp_path)
    for name in ("corpus", "index", "ledger/1-index"):
        assert crash_kit.undetected_mutations(tmp_path / name, num_mutations=334, seed=7) == []


def test_a_damaged_part_never_reads_as_other_text(tmp_path):
    two_stages(tmp_path)
    part = tmp_path / "corpus" / "part-00000.parquet"
    rng = crash_kit.np.random.default_rng(11)
    whole = Corpus.open(tmp_path / "corpus").table()
    for _ in range(150):
        data = crash_kit.mutate(part, rng)
        try:
            assert Corpus.open(tmp_path / "corpus").table() == whole
        except ArtefactError as error:
            assert str(part) in str(error)
        part.write_bytes(data)


def test_a_full_disk_in_the_middle_of_a_write(tmp_path, monkeypatch):
    """The buffered rest fails again when the file is closed; the first error must win, as a ResourceError."""

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.HashedFile, "write", full)
    with (
        pytest.raises(ResourceError, match=r"write .*part-00000\.parquet: No space left .* MiB are free"),
        artefact.stage(tmp_path / "c", "corpus", settings={}, inputs={}, seed=1) as staging,
    ):
        Corpus.from_records(DOCS).write(staging)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_really_full_disk(tmp_path):
    (tmp_path / "x").symlink_to("/dev/full")

    class Full(durable.HashedFile):
        def __init__(self, path):
            super().__init__(path)
            self._file.close()
            self._file = Path("/dev/full").open("wb")  # noqa: SIM115 - closed by create()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "HashedFile", Full)
        with (
            pytest.raises(ResourceError, match=r"finish .*small.*No space left"),
            durable.create(tmp_path / "small") as file,
        ):
            file.write(b"in the buffer until it is synced")
        with (
            pytest.raises(ResourceError, match=r"write .*large.*No space left"),
            durable.create(tmp_path / "large") as file,
        ):
            file.write(b"x" * 10_000_000)


def test_a_library_that_fails_to_write_names_the_artefact(tmp_path):
    with (
        pytest.raises(ResourceError, match=r"cannot make .*index: No space"),
        artefact.stage(tmp_path / "index", "index", settings={}, inputs={}, seed=1) as staging,
    ):
        (staging.folder / "half").write_bytes(b"1")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_stage_gives_its_space_back(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        artefact.stage(tmp_path / "c", "corpus", settings={}, inputs={}, seed=1) as staging,
    ):
        Corpus.from_table(pa.table({"doc_id": ["a"], "text": ["b"]})).write(staging)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
