"""PreSelect over a pool: losses of models label documents, a classifier learns the labels, the pool is ranked by it."""

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.data import Corpus, Ledger, artefact
from tamis.errors import DataError, UsageError
from tamis.ingestion.pool import Pool
from tamis.pipeline import predictive
from tamis.pipeline.curation import verify
from tamis.selection import Budget, HashedClassifier, PreSelect

SEA = ["anchor", "bowline", "canvas", "dinghy", "ebb", "fender", "halyard", "jib", "keel"]
LAND = ["acre", "barn", "clover", "drill", "elm", "fence", "grain", "hedge", "ivy"]
ABILITY = {"small": 0.1, "mid": 0.3, "big": 0.5}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """120 documents, the even ones of the sea."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    rows = [{"id": f"d{n}", "text": " ".join(rng.choice(LAND if n % 2 else SEA, 12))} for n in range(120)]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def losses(path, num=40, extra=()):
    """Better models have lower losses on the sea, and no better ones on the land; of the first ``num`` documents."""
    rows = [
        {"doc_id": f"d{n}", "model": name, "bits_per_byte": 1.0 + (at if n % 2 else -at) / 10}
        for n in range(num)
        for at, name in enumerate(ABILITY)
    ]
    pq.write_table(pa.Table.from_pylist([*rows, *extra]), path)
    return path


@pytest.fixture
def table(tmp_path):
    return losses(tmp_path / "losses.parquet")


def learner(num_docs=30, **given):
    return HashedClassifier(budget=Budget(docs=num_docs), **given)


def test_what_better_models_predict_better_is_kept(pool, table, tmp_path):
    out = tmp_path / "out"
    found = predictive.preselect(str(pool), out, learner(), table, ABILITY, format="jsonl")
    kept = [orjson.loads(line)["id"] for line in (out / "documents" / "documents.jsonl").read_bytes().splitlines()]
    assert len(kept) == 30 and all(int(i[1:]) % 2 == 0 for i in kept)
    assert any(int(i[1:]) >= 40 for i in kept)  # documents without losses too
    assert found.figures["num_positives_learnt"] == found.figures["num_negatives_learnt"] == 20
    assert found.figures["label_max_strength"] == 1.0
    strength = {r["doc_id"]: r["strength"] for r in pq.read_table(out / "report" / "strength.parquet").to_pylist()}
    assert strength["d0"] == 1.0 and strength["d1"] == 0.0 and len(strength) == 40
    pairs = pq.read_table(out / "report" / "pairs.parquet").to_pylist()
    assert {"weaker": "small", "abler": "big"} in pairs and len(pairs) == 3
    decision = Ledger(out / "ledger").why("d1")[-1]
    assert (decision["decision"], decision["reason"], decision["method"]) == ("dropped", "over_budget", "preselect")
    assert verify(out, deep=True) == []


def test_the_classifier_learns_from_the_labelled_documents_alone(pool, table, tmp_path):
    """Scores are those of the library, of positives against labelled negatives, whatever else is in the pool."""
    rows = [{"doc_id": r["id"], "text": r["text"]} for r in map(orjson.loads, pool.read_bytes().splitlines())]
    whole = Corpus.from_records(rows)
    sides = [Corpus.from_records(row for row in rows[:40] if int(row["doc_id"][1:]) % 2 == odd) for odd in (0, 1)]
    method = learner(num_negatives=20)
    wanted = method.choose(whole, sides[0], seed=4, pool=method.survey(sides[1], seed=4))
    labelled = PreSelect().label(pq.read_table(table), ABILITY, seed=4)
    with Pool.open([str(pool)], scratch=tmp_path / "scratch") as opened:
        found = predictive.choose_predictive(opened, learner(), labelled, 4, map)
    assert np.array_equal(found.scores, wanted.scores) and np.array_equal(found.kept, wanted.kept)


def test_the_labels_decide_which_side_is_kept(pool, table, tmp_path):
    upside_down = {name: -value for name, value in ABILITY.items()}
    predictive.preselect(str(pool), tmp_path / "out", learner(), table, upside_down, format="jsonl")
    lines = (tmp_path / "out" / "documents" / "documents.jsonl").read_bytes().splitlines()
    assert all(int(orjson.loads(line)["id"][1:]) % 2 for line in lines)


def test_the_same_call_keeps_and_workers_change_nothing(pool, table, tmp_path):
    first = predictive.preselect(str(pool), tmp_path / "out", learner(), table, ABILITY)
    again = predictive.preselect(str(pool), tmp_path / "out", learner(), table, ABILITY)
    assert (first.status, again.status) == ("made", "kept")
    predictive.preselect(str(pool), tmp_path / "three", learner(), table, ABILITY, workers=3)
    assert artefact.hash_tree(tmp_path / "out") == artefact.hash_tree(tmp_path / "three")
    other = predictive.preselect(str(pool), tmp_path / "out", learner(), table, {**ABILITY, "big": 0.6})
    assert other.status == "made"


def test_documents_that_cannot_be_used_are_named(pool, tmp_path):
    extra = [{"doc_id": "elsewhere", "model": name, "bits_per_byte": 1.0} for name in ABILITY]
    extra += [{"doc_id": "d41", "model": "big", "bits_per_byte": 1.0}]
    table = losses(tmp_path / "t.parquet", extra=extra)
    found = predictive.preselect(str(pool), tmp_path / "out", learner(), table, ABILITY)
    skipped = {r["doc_id"]: r["reason"] for r in pq.read_table(tmp_path / "out/report/skipped.parquet").to_pylist()}
    assert skipped == {"d41": "missing_model", "elsewhere": "not_in_pool"}
    assert "1 documents with losses are not in the pool" in " ".join(found.notes)


def test_losses_by_chance_are_told(pool, tmp_path):
    rng = np.random.default_rng(1)
    rows = [
        {"doc_id": f"d{n}", "model": name, "bits_per_byte": float(at - 1 if n else -at) + 0.1 * rng.random()}
        for n in range(40)
        for at, name in enumerate(ABILITY)
    ]  # one document in 40 at the top, one in six would be by chance
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = predictive.preselect(str(pool), tmp_path / "out", learner(5), tmp_path / "t.parquet", ABILITY)
    assert "say nothing about the models" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("ability", "kind", "words"),
    [
        ({"small": 0.1, "mid": 0.2}, DataError, "no ability for 1 models, first 'big'"),
        ({**ABILITY, "huge": 1.0}, UsageError, "'huge'"),
        (dict.fromkeys(ABILITY, 0.5), DataError, "no two of 3 models"),
    ],
)
def test_abilities_that_do_not_fit_are_refused(pool, table, tmp_path, ability, kind, words):
    with pytest.raises(kind, match=words):
        predictive.preselect(str(pool), tmp_path / "out", learner(), table, ability)


def test_losses_of_another_pool_are_refused(pool, tmp_path):
    rows = [{"doc_id": f"x{n}", "model": m, "bits_per_byte": float(n * at)} for n in range(9) for at, m in enumerate(ABILITY)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"none of .* documents is in the pool; its documents are called 'd0'"):
        predictive.preselect(str(pool), tmp_path / "out", learner(), tmp_path / "t.parquet", ABILITY, PreSelect())
    assert not (tmp_path / "out" / "documents").exists()
    (tmp_path / "t.csv").write_text("doc_id,model\nd0,small\n")
    with pytest.raises(DataError, match="no column 'bits_per_byte'"):
        predictive.preselect(str(pool), tmp_path / "out", learner(), tmp_path / "t.csv", {"small": 1.0})
