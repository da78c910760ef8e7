"""What is learned from: copies, rules and a target leave documents out of learning, never out of the index."""

import numpy as np
import orjson
import pipeline_job
import pytest

import tamis
from tamis import pipeline
from tamis.data import Corpus, Ledger, Qrels, Queries, artefact
from tamis.engine import verify
from tamis.errors import DataError, RecipeError, UsageError
from tamis.pipeline import collection, selecting
from tamis.recipe import Recipe, Select

PROSE = (
    "The keeper of the lighthouse climbs one hundred and twelve steps before dusk and trims the wick with care. "
    "He writes the hour, the wind and every passing sail into a book bound in green cloth. On clear nights a second "
    "lamp answers from the far cape, and the fishermen steer between both until the harbour bell is heard."
)


def corpus_of(*texts, groups=None):
    rows = [{"doc_id": f"d{n}", "text": text, "source": "a.jsonl"} for n, text in enumerate(texts)]
    for row, group in zip(rows, groups or [], strict=False):
        row["group_id"] = group
    return Corpus.from_records(rows)


def edited(text, word, other):
    assert word in text
    return text.replace(word, other)


def test_near_copies_are_learned_from_once_and_exact_copies_share_their_fate():
    near = edited(PROSE, "green cloth", "blue")  # one word less: the shorter
    corpus = corpus_of(PROSE, near, PROSE, near, "Something else about bread.", groups=["d0", "d1", "d0", "d1", "d4"])
    found = selecting.choose(corpus, Select(), seed=0)
    assert found.kept.tolist() == [True, False, True, False, True]
    assert found.reasons.tolist() == ["", "near_copy", "", "near_copy", ""]
    assert found.others[1] in {"d0", "d2"}
    assert found.group_ids.to_pylist()[1] == found.group_ids.to_pylist()[3] == found.others[1]
    assert found.counts() == {"documents": 3, "dropped_near_copy": 2}


def test_off_means_everything():
    corpus = corpus_of(PROSE, edited(PROSE, "green", "blue"), "x")
    found = selecting.choose(corpus, Select(near_copies=False), seed=0)
    assert found.kept.all()
    assert found.counts() == {"documents": 3}


def test_a_source_of_near_copies_alone_is_learned_from_with_a_note():
    rng = np.random.default_rng(0)
    pages = [pipeline_job._sentences(rng, sorted(pipeline_job.TOPICS)[n % 5], 5) for n in range(3)]
    corpus = corpus_of(*(f"{page} Revision {n}." for page in pages for n in range(15)))
    found = selecting.choose(corpus, Select(), seed=0)
    assert found.kept.all()
    assert any("a.jsonl" in note for note in found.notes)


def test_rules_name_their_reason():
    corpus = corpus_of(PROSE, "buy now " * 60)
    found = selecting.choose(corpus, Select(quality="documents"), seed=0)
    assert found.kept.tolist() == [True, False]
    assert found.reasons[1].startswith(("duplicate", "top"))


def test_a_target_under_a_budget_keeps_what_is_like_it(tmp_path):
    topics = pipeline_job.TOPICS
    rng = np.random.default_rng(0)
    texts = [pipeline_job._sentences(rng, topic, 6) for topic in ("sailing", "baking") for _ in range(30)]
    (tmp_path / "target.txt").write_text(" ".join(topics["baking"].split()) + " and " + texts[31], encoding="utf-8")
    settings = Select(targets=(str(tmp_path / "target.txt"),), budget="30%")
    found = selecting.choose(corpus_of(*texts), settings, seed=0)
    assert 10 < found.kept.sum() < 20
    assert not found.kept[:30].any()
    assert set(found.reasons[~found.kept]) == {"over_budget"}
    assert found.figures["target"]["kl_reduction"] > found.figures["target"]["kl_reduction_uniform"]


@pytest.mark.parametrize("workers", [2, 8])
def test_workers_change_nothing(workers):
    rows = [f"{PROSE} Page {n}: {'calm ' * (n % 7)}" for n in range(50)] + ["buy now " * 40]
    settings = Select(quality="documents", budget="50%", by="uniform")
    one, more = (selecting.choose(corpus_of(*rows), settings, seed=3, workers=w) for w in (1, workers))
    assert one.kept.tolist() == more.kept.tolist()
    assert one.reasons.tolist() == more.reasons.tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"targets": ("a",)}, "without a budget"),
        ({"budget": "lots", "by": "uniform"}, "write 5%"),
        ({"budget": "0%", "by": "uniform"}, "above 0"),
        ({"quality": "strict"}, "off"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        Select(**values)


def test_a_target_without_words_and_a_budget_without_documents_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"text": "..."}\n', encoding="utf-8")
    with pytest.raises(DataError, match="no words"):
        selecting.choose(corpus_of(PROSE), Select(targets=(str(tmp_path / "empty.jsonl"),), budget="50%"), seed=0)
    with pytest.raises(UsageError, match="budget"):
        selecting.choose(corpus_of(PROSE), Select(by="uniform", budget="1words"), seed=0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """An engine of 200 documents, half of them left out of learning."""
    work = tmp_path_factory.mktemp("selecting")
    sources = pipeline_job.write_sources(work / "sources")
    pipeline.build(str(sources), work / "engine", pipeline_job.recipe(select={"by": "uniform", "budget": "50%"}))
    return work / "engine"


def test_what_is_left_out_of_learning_is_still_found(engine):
    told = Ledger(engine / "ledger")
    opened = tamis.open(engine)
    kept = selecting.read_kept(engine / "selected")
    documents = Corpus.open(engine / "corpus")
    assert len(kept) == len(documents)
    assert 0 < kept.sum() < len(documents)
    left_out = documents.doc_ids.filter(~kept).to_pylist()
    for doc_id in left_out[:3]:
        stages = [(d["stage"], d["decision"], d["reason"]) for d in told.why(doc_id)]
        assert ("select", "dropped", "over_budget") in stages
        assert any(stage == "index" and decision == "indexed" for stage, decision, _ in stages)
        text = documents.document(doc_id)["text"]
        assert doc_id in {hit.doc_id for hit in opened.search(text[:200], k=5)}
    assert verify(engine, deep=True) == []


def test_queries_are_made_of_nothing_that_was_left_out(engine):
    documents = Corpus.open(engine / "corpus")
    kept = set(documents.doc_ids.filter(selecting.read_kept(engine / "selected")).to_pylist())
    parents = {}
    if (engine / "passages").is_dir():
        passages = Corpus.open(engine / "passages").table(["doc_id", "parent_doc_id"])
        parents = dict(zip(passages["doc_id"].to_pylist(), passages["parent_doc_id"].to_pylist(), strict=True))
    judged = Qrels.read(engine / "collection" / "qrels" / "train.tsv").table["doc_id"].to_pylist()
    judged += Qrels.read(engine / "collection" / "qrels" / "dev.tsv").table["doc_id"].to_pylist()
    assert judged
    assert {parents.get(doc_id, doc_id) for doc_id in judged} <= kept


def test_the_report_of_the_stage_is_written(engine):
    facts = orjson.loads((engine / "selected" / "report.json").read_bytes())
    manifest = artefact.read_manifest(engine / "selected")
    assert facts["counts"] == manifest.counts
    assert facts["counts"]["dropped_over_budget"] > 0
    assert facts["figures"]["target"]["num_kept"] > 0


def test_an_engine_of_a_version_without_the_stage_gets_its_ledgers_renumbered(engine, tmp_path):
    stale = engine / "ledger" / "3-synthesize"
    stale.mkdir()
    (stale / "part-00000.parquet").write_bytes(b"old")
    sources = engine.parent / "sources"
    recipe = pipeline_job.recipe(select={"by": "uniform", "budget": "50%"})
    built = pipeline.build(str(sources), engine, recipe)
    assert all(stage.status == "kept" for stage in built.stages)
    assert not stale.exists()


def test_the_default_recipe_groups_near_copies_alone():
    assert Recipe().select == Select(near_copies=True, quality="off", budget=None)


def test_queries_of_the_user_that_were_learned_are_counted(engine, tmp_path):
    made = collection.read(engine / "collection")
    query = made.train_queries.table.to_pylist()[0]
    doc_id = next(r["doc_id"] for r in made.train_qrels.table.to_pylist() if r["query_id"] == query["query_id"])
    if (engine / "passages" / "part-00000.parquet").is_file():
        doc_id = Corpus.open(engine / "passages").document(doc_id)["parent_doc_id"]
    own = Queries.from_texts({"same": query["text"].upper(), "new": "where do the swallows of the old mill go"})
    with (tmp_path / "q.jsonl").open("wb") as file:
        own.write(file)
    with (tmp_path / "r.tsv").open("wb") as file:
        Qrels.from_dict({"same": {doc_id: 1}, "new": {doc_id: 1}}).write(file)
    recipe = pipeline_job.recipe(select={"by": "uniform", "budget": "50%"})
    sources = engine.parent / "sources"
    pipeline.build(str(sources), engine, recipe, queries=tmp_path / "q.jsonl", qrels=tmp_path / "r.tsv")
    checks = orjson.loads((engine / "report" / "report.json").read_bytes())["leakage"]
    found = next(c for c in checks if c["name"].startswith("your queries"))
    assert (found["num_found"], found["num_checked"]) == (1, 2)
