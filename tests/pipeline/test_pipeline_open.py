"""An engine, opened: it searches, it is tied to its encoder and documents, and it outlives a rebuild."""

import errno
import functools
import os
import shutil
import stat
import threading
from itertools import pairwise
from pathlib import Path

import crash_kit
import pipeline_job
import pytest

import tamis
from tamis import pipeline
from tamis.data import Queries, Run, artefact
from tamis.engine import Engine, current_index, verify
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.models import load_encoder
from tamis.search.index import SearchIndex


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "engine"
    pipeline_job.build(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """An engine of other documents, by another seed."""
    folder = tmp_path_factory.mktemp("other") / "engine"
    pipeline_job.rebuild(folder)
    return folder


@pytest.fixture
def folder(tmp_path, built):
    pipeline_job.write_sources(tmp_path / "other-sources", seed=2)
    return shutil.copytree(built, tmp_path / "engine")


@pytest.mark.parametrize("mode", pipeline_job.MODES)
def test_every_mode_finds_the_document_that_holds_the_words(built, mode):
    engine = tamis.open(built)
    document = engine.corpus.document("doc 17")
    hits = engine.search(f"{document['title']} {document['text'][:80]}", 10, mode)
    assert "doc 17" in [hit.doc_id for hit in (hits if mode in {"dense", "rrf"} else hits[:1])]  # 16 dimensions
    assert [hit.rank for hit in hits] == list(range(1, 11))
    assert all(a.score >= b.score for a, b in pairwise(hits))
    for hit in hits:
        text = engine.corpus.document(hit.doc_id)["text"]
        assert text[hit.start : hit.stop] == hit.snippet
        assert all(0 <= start < stop <= len(hit.snippet) for start, stop in hit.highlights)


def test_fewer_results_are_the_first_of_more(built):
    engine = Engine(built)
    for text in pipeline_job.QUERIES:
        ids = [hit.doc_id for hit in engine.search(text, 50)]
        assert len(set(ids)) == len(ids)
        assert [hit.doc_id for hit in engine.search(text, 7)] == ids[:7]


def test_more_results_than_documents(built):
    engine = Engine(built)
    hits = engine.search("the anchor of number", 10_000)
    assert len(hits) <= len(engine.corpus) == 200
    assert len({hit.doc_id for hit in hits}) == len(hits)


@pytest.mark.parametrize(
    ("text", "k", "says"),
    [("", 1, "empty"), (" \n", 1, "empty"), ("x" * 8193, 1, "at most 8192"), ("rye", 0, "at least 1")],
)
def test_questions_that_cannot_be_meant(built, text, k, says):
    with pytest.raises(UsageError, match=says):
        Engine(built).search(text, k)


@pytest.mark.parametrize("text", ["\x00", "🙂", "a\u202eb", "%s", "' OR 1=1 --", "x" * 8192, "é" * 100, "“”", "the"])
def test_odd_questions_have_some_answer(built, text):
    engine = Engine(built)
    for mode in pipeline_job.MODES:
        assert len(engine.search(text, 3, mode)) <= 3


def test_similar_leaves_out_the_document_itself_and_finds_its_copy(built):
    engine = Engine(built)
    hits = engine.similar("doc 7", 5)
    assert hits[0].doc_id == "copy-1"
    assert "doc 7" not in [hit.doc_id for hit in hits]
    assert hits == Engine(built).similar("doc 7", 5)


@pytest.mark.parametrize("doc_id", ["doc 1 ", "DOC 1", "", "../corpus", "doc 7#0"])
def test_an_unknown_document(built, doc_id):
    with pytest.raises(DataError, match="no document"):
        Engine(built).similar(doc_id)
    with pytest.raises(DataError, match="no document"):
        Engine(built).why(doc_id)


def test_a_run_goes_through_a_trec_file(built, tmp_path):
    queries = Queries.from_texts({f"q {number}": text for number, text in enumerate(pipeline_job.QUERIES)})
    run = Engine(built).run(queries, k=20)
    with (tmp_path / "run.trec").open("wb") as file:
        run.write_trec(file)
    again = Run.read_trec(tmp_path / "run.trec")
    first, second = (r.to_table().to_pylist() for r in (run, again))
    assert [(row["query_id"], row["doc_id"]) for row in first] == [(row["query_id"], row["doc_id"]) for row in second]
    assert {row["query_id"] for row in first} <= {f"q {number}" for number in range(6)}


def test_a_single_search_is_that_query_of_a_run(built):
    engine = Engine(built)
    queries = Queries.from_texts({str(number): text for number, text in enumerate(pipeline_job.QUERIES)})
    rows = engine.run(queries, k=5).to_table().to_pylist()
    for number, text in enumerate(pipeline_job.QUERIES):
        alone = [(hit.doc_id, hit.score) for hit in engine.search(text, 5)]
        assert alone == [(row["doc_id"], row["score"]) for row in rows if row["query_id"] == str(number)]


def test_why_tells_what_became_of_every_document(built):
    engine = Engine(built)
    made = set()
    for doc_id in engine.corpus.doc_ids.to_pylist():
        decisions = engine.why(doc_id)
        assert decisions[0]["stage"] == "ingest"
        made |= {(d["stage"], d["decision"]) for d in decisions}
    assert ("ingest", "kept") in made


def test_another_encoder_is_refused(built, other, folder):
    version, foreign = current_index(folder), current_index(other)
    with pytest.raises(ArtefactError, match=r"made with the encoder .*, opened with "):
        SearchIndex.load(version, load_encoder(other / "encoder"))
    weights = next((version / "encoder").rglob("*.safetensors"))
    shutil.copy(next((foreign / "encoder").rglob("*.safetensors")), weights)
    with pytest.raises(ArtefactError, match=str(weights)):
        Engine(folder)


def test_a_changed_encoder_beside_the_index_is_named_and_changes_no_answer(built, other, folder):
    shutil.rmtree(folder / "encoder")
    shutil.copytree(other / "encoder", folder / "encoder")
    assert any("made from another encoder" in line for line in verify(folder))
    assert pipeline_job.answers(Engine(folder)) == pipeline_job.answers(Engine(built))


@pytest.mark.parametrize("part", ["corpus", "arm-0", "arm-5"])
def test_a_part_of_another_index_is_refused(other, folder, part):
    version, foreign = current_index(folder), current_index(other)
    shutil.rmtree(version / part)
    shutil.copytree(foreign / part, version / part)
    with pytest.raises(ArtefactError, match=str(version / part)):
        Engine(folder)


@pytest.mark.parametrize("what", ["file", "nothing", "empty folder", "documents"])
def test_what_is_no_engine_says_so(tmp_path, what):
    path = tmp_path / "place"
    if what == "file":
        path.write_text("x")
    elif what == "empty folder":
        path.mkdir()
    elif what == "documents":
        pipeline_job.write_sources(path)
    with pytest.raises(ArtefactError, match="tamis build"):
        Engine(path)
    assert verify(path)


@pytest.mark.parametrize("pointer", ["v0002", "../v0001", "v0001/../v0001", "", "v" * 1000, "v99999999999"])
def test_a_pointer_to_nowhere_is_named(folder, pointer):
    (folder / "index" / "CURRENT").write_text(pointer + "\n")
    with pytest.raises(ArtefactError, match="CURRENT"):
        Engine(folder)
    assert any("CURRENT" in line for line in verify(folder))


def test_reading_writes_nothing_and_needs_no_permission_to(folder, built):
    files = sorted(folder.rglob("*"))
    for path in files:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    folder.chmod(0o555)
    before = [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in files]
    try:
        assert pipeline_job.answers(Engine(folder)) == pipeline_job.answers(Engine(built))
        assert Engine(folder).why("doc 1")
        assert verify(folder, deep=True) == []
        assert [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))] == before
    finally:
        for path in (folder, *files):
            path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o200)


def test_a_moved_engine_answers_and_is_continued(folder, built, tmp_path):
    moved = folder.rename(tmp_path / "another name")
    assert pipeline_job.answers(Engine(moved)) == pipeline_job.answers(Engine(built))
    pipeline_job.write_sources(tmp_path / "job-sources")
    pipeline_job.build(moved)
    assert verify(moved, deep=True) == []


def test_an_index_version_stores_no_document_twice(built):
    for name in ("corpus", "encoder"):
        for file in (current_index(built) / name).rglob("*.*"):
            assert file.samefile(built / name / file.relative_to(current_index(built) / name))


def test_without_links_an_index_version_holds_copies(built, tmp_path, monkeypatch):
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    pipeline_job.build(tmp_path / "engine")
    assert artefact.hash_tree(tmp_path / "engine") == artefact.hash_tree(built)
    part = Path("corpus") / "part-00000.parquet"
    assert not (current_index(tmp_path / "engine") / part).samefile(tmp_path / "engine" / part)


def test_a_damaged_artefact_does_not_get_into_an_index_version(folder, tmp_path):
    part = folder / "corpus" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-9] + b"x" + part.read_bytes()[-8:])
    with (
        pytest.raises(ArtefactError, match=str(part)),
        artefact.stage(tmp_path / "v0001", "index", settings={}, inputs={}, seed=0) as staging,
    ):
        staging.include(folder / "corpus", "corpus")
    assert not (tmp_path / "v0001").exists()


def test_an_open_engine_answers_on_after_a_rebuild(folder, other):
    engine, untouched = Engine(folder), Engine(folder)
    before = pipeline_job.answers(engine)
    pipeline_job.rebuild(folder)
    assert pipeline_job.answers(engine) == before
    assert pipeline_job.answers(untouched) == before  # it had read no document yet
    assert pipeline_job.answers(Engine(folder)) == pipeline_job.answers(Engine(other))
    assert [p.name for p in (folder / "index").glob("v*")] == ["v0002"]


def test_engines_opened_during_rebuilds_are_one_or_the_other(folder, other):
    known = [pipeline_job.answers(Engine(folder)), pipeline_job.answers(Engine(other))]
    child = crash_kit._process(functools.partial(rebuild_there_and_back, folder), __name__)
    child.start()
    seen = {0: 0, 1: 0}
    while child.is_alive():
        seen[known.index(pipeline_job.answers(Engine(folder)))] += 1
    child.join()
    assert child.exitcode == 0
    assert min(seen.values()) > 0


def test_a_version_that_is_replaced_while_it_is_being_opened(folder, other, monkeypatch):
    verified, num_opened = artefact.open_verified, 0

    def rebuilt_after(version: Path, kind: str) -> artefact.Manifest:
        nonlocal num_opened
        manifest = verified(version, kind)
        num_opened += 1
        if num_opened == 1:
            pipeline_job.rebuild(folder)
        return manifest

    monkeypatch.setattr(artefact, "open_verified", rebuilt_after)
    assert pipeline_job.answers(Engine(folder)) == pipeline_job.answers(Engine(other))
    assert num_opened == 3


def rebuild_there_and_back(folder: Path) -> None:
    pipeline_job.rebuild(folder)
    pipeline_job.build_again(folder)


def test_threads_share_an_engine(built):
    engine = Engine(built)
    expected = pipeline_job.answers(Engine(built))
    found: list[object] = []

    def ask() -> None:
        try:
            found.append(pipeline_job.answers(engine) == expected)
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_opening_leaves_no_file_open(built):
    counted = Path("/proc/self/fd")
    if not counted.is_dir():
        pytest.skip("needs /proc")
    Engine(built).search("rye")
    before = len(list(counted.iterdir()))
    for _ in range(10):
        Engine(built).search("rye")
    assert len(list(counted.iterdir())) <= before + 1


def test_build_returns_what_it_did(tmp_path):
    sources = pipeline_job.write_sources(tmp_path / "sources")
    told: list[tuple[str, int, int | None]] = []
    built = pipeline.build(
        str(sources), tmp_path / "e", pipeline_job.recipe(), progress=lambda *facts: told.append(facts)
    )
    facts = built.to_dict()
    assert [stage["name"] for stage in facts["stages"]] == list(pipeline.STAGES)
    assert {stage["status"] for stage in facts["stages"]} == {"made"}
    assert "200 documents" in built.line()
    assert "8 exact copies" in built.stages[0].summary
    assert built.verdict.startswith("nDCG@10")
    assert {"ingest", "passages"} <= {stage for stage, _, _ in told}
    assert [done for stage, done, _ in told if stage == "ingest"][-1] == 200
