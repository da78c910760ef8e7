"""The same seed gives the same bytes, wherever and however; a change remakes what depends on it and nothing else."""

import re
import shutil
from pathlib import Path

import orjson
import pipeline_job
import pytest

from tamis import pipeline
from tamis.data import artefact
from tamis.engine import Engine, verify
from tamis.errors import ArtefactError
from tamis.models import load_encoder
from tamis.pipeline import STAGES

CHANGES = {
    "search": ({"search": {**pipeline_job.RECIPE["search"], "dense": 0.4}}, "tune"),
    "encoder": ({"scratch": {**pipeline_job.RECIPE["scratch"], "dim": 8}}, "encode"),
    "synthesis": ({"synthesis": {**pipeline_job.RECIPE["synthesis"], "max_dev_queries": 30}}, "synthesize"),
    "passages": ({"passages": {"max_words": 120, "target_words": 60}}, "passages"),
    "ingestion": ({"ingestion": {"exclude": ["note-0.md"]}}, "ingest"),
    "select": ({"select": {"budget": "90%", "by": "uniform"}}, "select"),
    "seed": ({"seed": 6}, "select"),
}
"""what is changed -> (recipe, first stage that has to be made again)"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return pipeline_job.write_sources(tmp_path_factory.mktemp("job") / "sources")


@pytest.fixture(scope="module")
def built(tmp_path_factory, sources):
    folder = tmp_path_factory.mktemp("built") / "engine"
    pipeline.build(str(sources), folder, pipeline_job.recipe())
    return folder


@pytest.fixture
def engine(tmp_path, built):
    return shutil.copytree(built, tmp_path / "engine")


def tree(folder: Path) -> dict[str, str]:
    """The hash tree; which number the index version has depends on how often it was made."""
    names = artefact.hash_tree(folder)
    return {re.sub(r"^index/v\d+/", "index/", name): digest for name, digest in names.items()}


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files but the log: bytes and time of change."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    settled = {n: p for n, p in files.items() if n not in {"log.jsonl", "recipe.toml"} and ".lock" not in n}
    return {name: (path.read_bytes(), path.stat().st_mtime_ns) for name, path in settled.items()}


def made(sources: Path, folder: Path, **more: object) -> list[str]:
    recipe = more.pop("recipe", pipeline_job.recipe())
    built = pipeline.build(str(sources), folder, recipe, **more)
    assert [stage.name for stage in built.stages] == list(STAGES)
    return [stage.name for stage in built.stages if stage.status == "made"]


def test_another_folder_another_place_and_two_workers(tmp_path, sources, built, monkeypatch):
    shutil.copytree(sources, tmp_path / "elsewhere" / "sources")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert made("sources", Path("other name"), workers=2) == list(STAGES)
    assert artefact.hash_tree(tmp_path / "elsewhere" / "other name") == artefact.hash_tree(built)


def test_no_file_names_the_place_it_was_made_in(built, sources):
    outside = {"log.jsonl", "recipe.toml", ".lock"}
    for path in built.rglob("*"):
        if path.is_file() and path.name not in outside:
            assert str(sources).encode() not in path.read_bytes(), path
            assert str(built).encode() not in path.read_bytes(), path


def test_again_keeps_every_stage_and_every_byte(engine, sources):
    before = everything(engine)
    assert made(sources, engine) == []
    assert everything(engine) == before
    assert verify(engine, deep=True) == []


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_setting_remakes_what_depends_on_it(tmp_path, engine, built, sources, what):
    changes, first = CHANGES[what]
    recipe = pipeline_job.recipe(**changes)
    again = made(sources, engine, recipe=recipe)
    assert again[0] == first
    assert again == [s for s in STAGES[STAGES.index(first) :] if (first, s) != ("passages", "select")]
    made(sources, tmp_path / "fresh", recipe=recipe)
    assert tree(engine) == tree(tmp_path / "fresh")
    assert tree(engine) != tree(built)
    assert verify(engine, deep=True) == []


def test_back_to_the_old_settings_is_back_to_the_old_bytes(engine, built, sources):
    again = made(sources, engine, recipe=pipeline_job.recipe(**CHANGES["passages"][0]))
    assert made(sources, engine) == again
    assert tree(engine) == tree(built)


def test_a_given_encoder_is_taken_as_it_is_and_its_change_is_seen(tmp_path, engine, built, sources):
    given = shutil.copytree(built / "encoder", tmp_path / "given")
    recipe = pipeline_job.recipe(encoder=str(given))
    assert made(sources, engine, recipe=recipe) == list(STAGES[STAGES.index("encode") :])
    assert made(sources, engine, recipe=recipe) == []
    assert verify(engine, deep=True) == []
    assert load_encoder(engine / "encoder").fingerprint == load_encoder(given).fingerprint
    (given / "config_sentence_transformers.json").write_text('{"prompts": {"query": "anchor ", "document": ""}}')
    assert made(sources, engine, recipe=recipe) == list(STAGES[STAGES.index("encode") :])
    assert load_encoder(engine / "encoder").fingerprint == load_encoder(given).fingerprint


def test_a_setting_that_changes_nothing_stops_the_work_there(engine, built, sources):
    recipe = pipeline_job.recipe(ingestion={"max_reject_frac": 0.5})
    assert made(sources, engine, recipe=recipe) == ["ingest"]
    changed = {name for name, digest in tree(engine).items() if tree(built)[name] != digest}
    assert changed == {"corpus/manifest.json", "dropped/manifest.json", "ledger/1-ingest/manifest.json"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_forced_stage_is_made_again_alone(engine, built, sources, stage):
    assert made(sources, engine, force=[stage]) == [stage]
    assert artefact.hash_tree(engine) == artefact.hash_tree(built)


def test_a_changed_input_is_seen(tmp_path, engine, sources):
    changed = shutil.copytree(sources, tmp_path / "sources")
    with (changed / "note-1.md").open("a") as file:
        file.write("\n\nOne more line about the oven.\n")
    assert made(changed, engine) == list(STAGES)
    made(changed, tmp_path / "fresh")
    assert tree(engine) == tree(tmp_path / "fresh")


FOLDERS = {
    "corpus": "ingest",
    "dropped": "ingest",
    "ledger/1-ingest": "ingest",
    "passages": "passages",
    "collection": "synthesize",
    "pairs": "synthesize",
    "selected": "select",
    "ledger/2-passages": "passages",
    "ledger/3-select": "select",
    "ledger/4-synthesize": "synthesize",
    "ledger/5-index": "index",
    "encoder": "encode",
    "runs": "tune",
    "index/v0001": "index",
    "report": "report",
}


@pytest.mark.parametrize("damage", ["delete", "flip", "extra", "manifest"])
def test_a_missing_or_damaged_folder_is_made_again_alone(engine, built, sources, damage):
    for folder, stage in FOLDERS.items():
        path = engine / folder
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != artefact.MANIFEST)
        largest = max(files, key=lambda p: p.stat().st_size)
        if damage == "delete":
            shutil.rmtree(path)
        elif damage == "flip":  # as many bytes as before: only the contents tell
            data = bytearray(largest.read_bytes())
            data[len(data) // 2] ^= 1
            largest.unlink()  # the file may have a second name
            largest.write_bytes(data)
        elif damage == "extra":
            (path / "extra").write_bytes(b"1")
        else:
            (path / artefact.MANIFEST).write_bytes(b"{}")
        assert verify(engine, deep=True), folder
        assert made(sources, engine) == [stage], folder
        assert verify(engine, deep=True) == []
        assert tree(engine) == tree(built)


def test_a_lost_pointer_is_written_again(engine, sources):
    (engine / "index" / "CURRENT").unlink()
    with pytest.raises(ArtefactError, match="no finished index"):
        Engine(engine)
    assert made(sources, engine) == []
    assert Engine(engine).search("rye starter")


@pytest.mark.parametrize("folder", ["index/v0001", "encoder"])
def test_an_artefact_of_a_newer_tamis_is_refused(engine, folder):
    path = engine / folder / artefact.MANIFEST
    values = orjson.loads(path.read_bytes())
    values["format"] = artefact.FORMAT + 1
    path.write_bytes(orjson.dumps(values))
    message = f"made by format {artefact.FORMAT + 1}, this reads up to {artefact.FORMAT}"
    assert any(message in line for line in verify(engine))
    if folder.startswith("index"):
        with pytest.raises(ArtefactError, match=message):
            Engine(engine)


def test_an_interrupted_rebuild_is_named_while_the_old_index_serves(tmp_path, engine):
    before = pipeline_job.answers(Engine(engine))
    other = pipeline_job.write_sources(tmp_path / "other", seed=2)

    def interrupt(stage: str, *_: object) -> None:
        if stage == "passages":  # the new corpus stands, the rest is of the old one
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.build(str(other), engine, pipeline_job.recipe(), progress=interrupt)
    assert any("made from another corpus" in line and "passages" in line for line in verify(engine))
    assert pipeline_job.answers(Engine(engine)) == before
    assert made(other, engine) == list(STAGES[1:])
    assert verify(engine, deep=True) == []
    assert pipeline_job.answers(Engine(engine)) != before
