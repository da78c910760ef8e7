"""Odd corpora end in an engine or in one clear error; hostile ids go through; one writer; a stop is clean."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import crash_kit
import numpy as np
import pipeline_job
import pytest

from tamis import pipeline
from tamis.data import Queries, Run, artefact
from tamis.engine import Engine, verify
from tamis.errors import DataError, LockedError, RecipeError, UsageError
from tamis.recipe import Recipe

TAMIS = [sys.executable, "-c", "from tamis.cli import main; main()"]


def write(folder: Path, rows: list[dict[str, object]], name: str = "docs.jsonl") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


def engine_of(tmp_path: Path, rows: list[dict[str, object]], recipe: Recipe | None = None) -> Engine:
    pipeline.build(write(tmp_path / "in", rows), tmp_path / "engine", recipe or pipeline_job.recipe())
    assert verify(tmp_path / "engine", deep=True) == []
    return Engine(tmp_path / "engine")


NOTHING = {
    "no folder": (None, "no such|does not exist|nothing"),
    "an empty folder": ([], "no file"),
    "an empty file": ([""], "no document is left"),
    "blank lines": (["", "  "], "no document is left|rejected"),
    "no JSON": (["{", "nope"], "2 of 2 records rejected"),
    "empty texts": (['{"id": 1, "text": ""}', '{"id": 2, "text": " "}'], "no document is left.*empty"),
    "no text": (['{"id": 1, "size": 2, "summary": "words here"}'], "no field 'text'.*--text-field summary"),
    "one id, two texts": (['{"id": 1, "text": "a b"}', '{"id": "1", "text": "c d"}'], "on-duplicate"),
}


@pytest.mark.parametrize("what", NOTHING)
def test_nothing_to_index_is_refused_and_leaves_no_engine(tmp_path, what):
    lines, says = NOTHING[what]
    if lines is not None:
        (tmp_path / "in").mkdir()
        if lines:
            (tmp_path / "in" / "docs.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"(?s){says}") as caught:
        pipeline.build(str(tmp_path / "in"), tmp_path / "engine", pipeline_job.recipe())
    assert caught.value.exit_code == 3
    left = {p.name for p in (tmp_path / "engine").rglob("*")} if (tmp_path / "engine").exists() else set()
    assert left <= {"log.jsonl", "recipe.toml", ".lock", "ledger"}


def test_a_refused_update_leaves_the_old_engine_serving(tmp_path):
    engine_of(tmp_path, [{"id": "a", "text": "one small text about anchors"}])
    write(tmp_path / "in", [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}])
    with pytest.raises(DataError):
        pipeline.build(str(tmp_path / "in"), tmp_path / "engine", pipeline_job.recipe())
    assert Engine(tmp_path / "engine").search("anchors")[0].doc_id == "a"
    assert verify(tmp_path / "engine", deep=True) == []


FEW = {
    "one document": [{"id": "a", "title": "Anchors", "text": "An anchor holds the ship. It is heavy."}],
    "one word": [{"id": "a", "text": "anchor"}],
    "two documents": [{"id": "a", "text": "An anchor holds."}, {"id": "b", "text": "Dough rises."}],
    "only copies": [{"id": f"d{n}", "text": "the very same anchor"} for n in range(50)],
    "one id again and again": [{"id": "a", "text": "the very same anchor"} for _ in range(50)],
    "no words": [{"id": "a", "text": "anchor"}, {"id": "b", "text": "!!! ???"}, {"id": "c", "text": "🙂🙂"}],
    "stop words": [{"id": "a", "text": "anchor"}, {"id": "b", "text": "to be or not to be that is the"}],
    "numbers": [{"id": n, "text": f"anchor {n} {n * n}"} for n in range(20)],
}


@pytest.mark.parametrize("what", FEW)
def test_a_tiny_corpus_works_end_to_end(tmp_path, what):
    recipe = Recipe()
    engine = engine_of(tmp_path, FEW[what], recipe)
    hits = engine.search("anchor", 3)
    first = engine.corpus.document(hits[0].doc_id)
    assert "anchor" in (first["title"] + first["text"]).lower()
    for mode in pipeline_job.MODES:
        engine.search("anchor holds nothing", 5, mode)
    assert len(engine.similar(hits[0].doc_id)) < len(engine.corpus)
    assert engine.why(hits[0].doc_id)[0]["decision"] == "kept"
    built = pipeline.build(str(tmp_path / "in"), tmp_path / "engine", recipe)
    assert {stage.status for stage in built.stages} == {"kept"}


def test_one_document_says_that_nothing_is_known_of_its_quality(tmp_path):
    built = pipeline.build(write(tmp_path / "in", FEW["one word"]), tmp_path / "engine")
    assert "nothing is known" in built.verdict


def _long(number: int, words: int) -> str:
    rng = np.random.default_rng(number)
    vocabulary = pipeline_job.TOPICS[sorted(pipeline_job.TOPICS)[number]].split()
    return " ".join(
        vocabulary[int(i)] + ("." if n % 17 == 0 else "") for n, i in enumerate(rng.integers(16, size=words))
    )


KINDS = {
    "no titles": ([{"id": f"d{n}", "text": row["text"]} for n, row in enumerate(pipeline_job.records()[:60])], "flour"),
    "Japanese": (
        [
            {
                "id": f"j{n}",
                "title": f"{a}の話 {n}",
                "text": f"{a}は{b}の近くにあります。{c}も{a}と{b}を使います。それは{n}番です。",
            }
            for n, (a, b, c) in enumerate(
                zip("山川海空森石火水木金" * 6, "猫犬鳥魚馬牛羊豚兎亀虎" * 6, "茶酒米塩油" * 12, strict=False)
            )
        ],
        "山の近くの猫",
    ),
    "code": (
        [
            {
                "id": f"c{n}",
                "text": f'def load_{n}(path):\n    """Read table {n} of the store."""\n    return open_file(path, {n})\n',
            }
            for n in range(40)
        ],
        "load_7",
    ),
    "five very long documents": (
        [{"id": f"l{n}", "title": f"Book {n}", "text": _long(n, 20_000)} for n in range(5)],
        "quartz",
    ),
    "one endless word": ([{"id": "w", "text": "x" * 300_000}, {"id": "v", "text": "anchor " * 5}], "anchor"),
    "markup and controls": (
        [
            {
                "id": f"m{n}",
                "title": "<b>&amp;</b>",
                "text": f"<script>alert({n})</script> \u202e anchor \x1b[31m {{{{7*7}}}}",
            }
            for n in range(9)
        ],
        "alert",
    ),
}


@pytest.mark.parametrize("what", KINDS)
def test_corpora_of_many_kinds_are_searched(tmp_path, what):
    rows, question = KINDS[what]
    engine = engine_of(tmp_path, rows)
    hits = engine.search(question, 5)
    assert hits, what
    assert question.split()[0][0] in hits[0].title + hits[0].snippet
    assert all(np.isfinite(hit.score) for hit in hits)


HOSTILE = [
    "../x",
    "/etc/passwd",
    "a b",
    " lead and trail ",
    "=cmd()",
    "1" * 512,  # a passage of it has a longer one
    "ünï",
    "u\u0308",
    "%41",
    "%20",
    "100%",
    "'; DROP TABLE x; --",
    "<script>alert(1)</script>",
    "a\u00a0b",
    "日本",
    "🙂",
    "NaN",
    "null",
    "-",
    "Q0",
    "a#0",
    "#",
    "\\",
    "C:\\x",
    'quo"te',
    "~2",
]


def test_hostile_ids_go_through_build_search_run_and_why(tmp_path):
    ids: list[object] = [*HOSTILE, 2**63 - 1, -5]
    topics = sorted(pipeline_job.TOPICS)
    rng = np.random.default_rng(0)
    rows = [
        {"id": i, "title": f"word{n}word", "text": pipeline_job._sentences(rng, topics[n % 5], 12 if n % 9 == 0 else 2)}
        for n, i in enumerate(ids)
    ]
    engine = engine_of(tmp_path, rows)
    known = [str(i) for i in ids]
    assert engine.corpus.doc_ids.to_pylist() == known
    queries = Queries.from_texts({doc_id: f"word{n}word" for n, doc_id in enumerate(known)})
    run = engine.run(queries, k=len(known))
    rows_of = {(row["query_id"], row["rank"]): row["doc_id"] for row in run.to_table().to_pylist()}
    for n, doc_id in enumerate(known):
        assert engine.search(f"word{n}word", 1)[0].doc_id == doc_id
        assert rows_of[doc_id, 1] == doc_id
        assert engine.why(doc_id)
        assert doc_id not in [hit.doc_id for hit in engine.similar(doc_id, 5)]
    with (tmp_path / "run.trec").open("wb") as file:
        run.write_trec(file)
    again = Run.read_trec(tmp_path / "run.trec").to_table().to_pylist()
    assert [(r["query_id"], r["doc_id"]) for r in again] == [
        (r["query_id"], r["doc_id"]) for r in run.to_table().to_pylist()
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["engine", "in", "run.trec"]


@pytest.mark.parametrize("name", ["sum\nmary", "a" * 2000, "query_id", "../x", "", "e\u0301", "a.b:c", "doc_id", "<b>"])
def test_hostile_field_names_go_through(tmp_path, name):
    rows: list[dict[str, object]] = pipeline_job.records()[:60]
    for row in rows:
        row[name] = row.pop("summary")
    engine = engine_of(tmp_path, rows)
    assert engine.search("anchor on a tide", 3)
    assert name in json.loads(engine.corpus.document("doc 3")["metadata"]) or name == "doc_id"


def test_ids_that_cannot_be_are_rejected_with_a_count(tmp_path):
    bad = ["", "a\nb", "a\tb", "a\u2028b", "x" * 513, "y" * 1_000_000, None, 1.5, ["a"], 2**70, True]
    rows: list[dict[str, object]] = [{"id": i, "text": f"anchor {n}"} for n, i in enumerate(bad)]
    rows += [{"id": f"good{n}", "text": f"anchor dough {n}"} for n in range(5)]
    with pytest.raises(DataError, match=r"of 16 records rejected"):
        engine_of(tmp_path, rows)
    engine = engine_of(tmp_path, rows, pipeline_job.recipe(ingestion={"max_reject_frac": 0.9}))
    counts = artefact.read_manifest(engine.folder / "corpus").counts
    assert counts["documents"] + counts["rejected"] == 16
    rejects = (engine.folder / "dropped" / "rejects.jsonl").read_text().splitlines()
    assert len(rejects) == counts["rejected"] >= 8


@pytest.fixture
def judged(tmp_path):
    """Sources, and queries with judgements of one's own."""
    sources = pipeline_job.write_sources(tmp_path / "sources")
    rows = pipeline_job.records()
    titled = [row for row in rows if "title" in row][:30]
    queries = [{"_id": f"mine {n}", "text": row["title"]} for n, row in enumerate(titled)]
    write(tmp_path / "judged", queries, "queries.jsonl")
    lines = ["query-id\tcorpus-id\tscore", *(f"mine {n}\t{row['id']}\t1" for n, row in enumerate(titled))]
    (tmp_path / "judged" / "qrels.tsv").write_text("\n".join(lines) + "\n")
    return str(sources), tmp_path / "judged" / "queries.jsonl", tmp_path / "judged" / "qrels.tsv"


def test_judgements_of_ones_own_are_reported_and_choose_nothing(tmp_path, judged):
    sources, queries, qrels = judged
    pipeline.build(sources, tmp_path / "without", pipeline_job.recipe())
    built = pipeline.build(sources, tmp_path / "with", pipeline_job.recipe(), queries=queries, qrels=qrels)
    assert "on 30 your judgements" in built.verdict
    first, second = artefact.hash_tree(tmp_path / "without"), artefact.hash_tree(tmp_path / "with")
    assert {name.split("/")[0] for name in first if first[name] != second.get(name)} == {"report"}
    report = json.loads((tmp_path / "with" / "report" / "report.json").read_text())
    assert {judgement["judged_on"] for judgement in report["judgements"]} == {"judgements", "pseudo-queries"}
    qrels.write_text(qrels.read_text() + "mine 1\tdoc 5\t1\n")
    again = pipeline.build(sources, tmp_path / "with", pipeline_job.recipe(), queries=queries, qrels=qrels)
    assert [stage.name for stage in again.stages if stage.status == "made"] == ["report"]


def test_arguments_that_cannot_be_meant_write_nothing(tmp_path, judged):
    sources, queries, qrels = judged
    out = tmp_path / "engine"
    with pytest.raises(UsageError, match="belong together"):
        pipeline.build(sources, out, queries=queries)
    with pytest.raises(UsageError, match="no such stage"):
        pipeline.build(sources, out, force=["everything"])
    with pytest.raises(RecipeError, match=r"cannot read the recipe"):
        pipeline.build(sources, out, tmp_path / "no.toml")
    assert not out.exists()
    with pytest.raises(DataError, match="no-queries"):
        pipeline.build(sources, out, pipeline_job.recipe(), queries=tmp_path / "no-queries", qrels=qrels)
    with pytest.raises(UsageError, match="no-encoder"):
        pipeline.build(sources, out, pipeline_job.recipe(encoder=str(tmp_path / "no-encoder")))


def test_the_engine_may_not_stand_where_a_file_is(tmp_path):
    (tmp_path / "engine").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        pipeline.build(write(tmp_path / "in", FEW["two documents"]), tmp_path / "engine")
    assert (tmp_path / "engine").read_text() == "mine"


def test_a_rebuild_does_not_read_the_engine_as_documents(tmp_path):
    """The engine folder may stand inside the folder of documents."""
    write(tmp_path / "in", FEW["two documents"])
    for _ in range(2):
        built = pipeline.build(str(tmp_path / "in"), tmp_path / "in" / "engine", pipeline_job.recipe())
    assert built.stages[0].counts["documents"] == 2
    assert {stage.status for stage in built.stages} == {"kept"}


def _hold(folder: Path, sources: str, ready: Path) -> None:
    def wait(*_: object) -> None:
        ready.touch()
        time.sleep(60)

    pipeline.build(sources, folder, pipeline_job.recipe(), progress=wait)


def test_a_second_writer_is_told_who_holds_the_folder_and_a_kill_frees_it(tmp_path):
    sources, out, ready = str(pipeline_job.write_sources(tmp_path / "in")), tmp_path / "engine", tmp_path / "ready"
    child = crash_kit._process(functools.partial(_hold, out, sources, ready), __name__)
    child.start()
    try:
        _wait_for(ready)
        with pytest.raises(LockedError, match=f"held by pid {child.pid} on host .* since 20") as caught:
            pipeline.build(sources, out, pipeline_job.recipe())
        assert caught.value.exit_code == 4
    finally:
        child.kill()
        child.join()
    pipeline.build(sources, out, pipeline_job.recipe())
    assert verify(out, deep=True) == []


def _wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def test_a_signal_stops_a_build_with_130_and_the_same_command_continues(tmp_path):
    sources = pipeline_job.write_sources(tmp_path / "in")
    (tmp_path / "recipe.toml").write_text(pipeline_job.recipe().to_toml())
    command = [*TAMIS, "build", "in", "--out", "engine", "--recipe", "recipe.toml", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rng = np.random.default_rng(8)
    stopped = 0
    for number in range(5):
        folder = tmp_path / "engine"
        log = folder / "log.jsonl"
        told_before = log.stat().st_size if log.exists() else 0
        child = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        while child.poll() is None and (not log.exists() or log.stat().st_size == told_before):
            time.sleep(0.01)  # until the build says that it started, Python is starting: nothing to stop yet
        time.sleep(float(rng.uniform(0, 0.6)))
        sent = time.monotonic()
        sign = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP][number % 3]
        child.send_signal(sign)
        _, told = child.communicate(timeout=30)
        assert time.monotonic() - sent < 5
        if child.returncode == -sign:  # it met an interpreter on its way out: the build had ended
            assert json.loads(log.read_text().splitlines()[-1])["event"] == "end", told
            continue
        assert child.returncode in {0, 130}, told
        if child.returncode:
            stopped += 1
            assert "Run the same command again" in told
            assert "Traceback" not in told
        assert crash_kit.broken(folder) == []
    assert stopped >= 1
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0
    pipeline.build(str(sources), tmp_path / "fresh", pipeline_job.recipe())
    assert artefact.hash_tree(tmp_path / "engine") == artefact.hash_tree(tmp_path / "fresh")
    assert crash_kit.leftovers(tmp_path / "engine") == []
