"""One file of a finished engine is damaged, a thousand times: it is named, or the answers are what they were."""

import functools
import json
import shutil
from pathlib import Path

import crash_kit
import numpy as np
import pipeline_job
import pytest

from tamis.data import artefact
from tamis.engine import Engine, verify
from tamis.errors import ArtefactError

BATCH = 50


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "engine"
    pipeline_job.build(folder)
    return folder


def some_answers(folder: Path) -> list[list[object]]:
    engine = Engine(folder)
    hits = [hit for text in pipeline_job.QUERIES[:2] for hit in engine.search(text, 5)] + engine.similar("doc 3", 2)
    return [[hit.doc_id, hit.score, hit.title, hit.snippet] for hit in hits]


def wrong(folder: Path, file: Path, expected: list[list[object]]) -> str:
    """Say what is wrong with how a damaged file is dealt with; "" where all is well."""
    named = any(str(file) in line for line in verify(folder, deep=True))
    if not named and len(file.relative_to(folder).parts) > 1:  # recipe.toml and log.jsonl are for people
        return "verify does not name it"
    try:
        return "" if some_answers(folder) == expected else "another answer"
    except ArtefactError as error:
        return "" if str(file) in str(error) else f"the error does not name it: {error}"


def damage_files(folder: Path, seed: int, num_mutations: int, out: Path) -> None:
    """Damage files of an engine one at a time; write what went wrong as JSON. Runs in a child process."""
    rng = np.random.default_rng(seed)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name)
    expected = some_answers(folder)
    found = []
    for number in range(num_mutations):
        file = files[int(rng.integers(len(files)))]
        manifest = artefact.read_manifest(file.parent) if file.name == artefact.MANIFEST else None
        pointer = file.read_text() if file.name == crash_kit.POINTER else None
        data = crash_kit.mutate(file, rng)
        harmless = file.read_bytes() == data
        if manifest is not None and not harmless:  # a blank more or less
            try:
                harmless = artefact.read_manifest(file.parent) == manifest
            except ArtefactError:
                harmless = False
        elif pointer is not None:
            harmless = file.read_bytes().strip() == pointer.strip().encode()
        problem = "" if harmless and some_answers(folder) == expected else wrong(folder, file, expected)
        if problem:
            found.append(f"mutation {number} (seed {seed}) of {file.relative_to(folder)}: {problem}")
        file.write_bytes(data)
    if some_answers(folder) != expected:
        found.append(f"seed {seed}: the engine is not what it was before the first mutation")
    out.write_text(json.dumps(found))


def check(built: Path, tmp_path: Path, num_batches: int, first_seed: int) -> None:
    for seed in range(first_seed, first_seed + num_batches):
        folder, out = shutil.copytree(built, tmp_path / f"engine-{seed}"), tmp_path / f"{seed}.json"
        work = functools.partial(damage_files, folder, seed, BATCH, out)
        child = crash_kit._process(work, __name__)
        child.start()
        child.join(300)
        assert child.exitcode == 0, (
            f"seed {seed}: the child ended with {child.exitcode} (a negative number is a signal)"
        )
        assert json.loads(out.read_text()) == []
        shutil.rmtree(folder)


def test_damaged_files_are_named_and_never_change_an_answer(built, tmp_path):
    check(built, tmp_path, 5, first_seed=100)


@pytest.mark.slow
def test_a_thousand_damaged_files(built, tmp_path):
    check(built, tmp_path, 1000 // BATCH, first_seed=0)


@pytest.mark.parametrize("kind", ["delete", "add", "rename", "swap", "link", "folder"])
def test_missing_foreign_and_swapped_files_are_named(built, tmp_path, kind):
    """Every file once: gone, renamed, replaced by another of the engine or by a link; every folder with one too many."""
    folder = shutil.copytree(built, tmp_path / "engine")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.parent != folder and p.name != crash_kit.POINTER)
    for number, file in enumerate(files):
        if file.parent.parent.name == "ledger" and number % 8:  # 32 of a kind
            continue
        data, other = file.read_bytes(), files[number - 1]
        if kind == "add":
            (file.parent / "foreign.bin").write_bytes(b"1")
        elif kind == "swap":
            file.write_bytes(other.read_bytes())
        else:
            file.unlink()
        if kind == "rename":
            file.with_name(file.name + ".bak").write_bytes(data)
        elif kind == "link":
            file.symlink_to(shutil.copy(other, tmp_path / "outside"))
        elif kind == "folder":
            file.mkdir()
        named = file.parent / "foreign.bin" if kind == "add" else file
        found = verify(folder)
        if file.name == artefact.MANIFEST and kind != "add":
            assert any(str(file.parent) in line for line in found), file
        elif kind == "swap" and other.stat().st_size == len(data):
            assert data == other.read_bytes() or any(str(file) in line for line in verify(folder, deep=True)), file
        else:
            assert any(str(named) in line for line in found), (file, found)
        if folder / "index" in file.parents and not (kind == "swap" and data == other.read_bytes()):
            with pytest.raises(ArtefactError):
                Engine(folder)
        if kind == "add":
            named.unlink()
        elif kind == "folder":
            file.rmdir()
        elif kind == "rename":
            file.with_name(file.name + ".bak").unlink()
        elif file.is_symlink():
            file.unlink()
        file.write_bytes(data)
    assert verify(folder, deep=True) == []
