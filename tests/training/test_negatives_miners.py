"""TopK, PositiveAware, Sampled, STAR: worked by hand, against the slow obvious version, and on planted answers."""

import gzip

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.errors import DataError, RecipeError
from tamis.ops.hashing import text_keys
from tamis.search.bm25 import BM25
from tamis.training.negatives import STAR, PositiveAware, Sampled, TopK, suspected

DOCS = [f"d{i:02d}" for i in range(14)]
scores = st.dictionaries(st.sampled_from(DOCS), st.integers(-8, 8).map(lambda n: n / 4), min_size=1)


def mined(miner, ranked, relevant, seed=0):
    qrels = Qrels.from_dict({"q": dict.fromkeys(relevant, 1)})
    return [d for d, _ in miner.mine(Run.from_dict({"q": ranked}), qrels, seed=seed).ranked("q")]


def test_top_k_by_hand():
    ranked = {"a": 4.0, "b": 3.0, "c": 3.0, "d": 2.0, "e": 1.0}
    assert mined(TopK(num_negatives=2), ranked, ["b"]) == ["a", "c"]
    assert mined(TopK(num_negatives=2, skip=2), ranked, ["a"]) == ["c", "d"]  # ranks 1 and 2 are a and b
    assert mined(TopK(num_negatives=9), ranked, ["a", "e"]) == ["b", "c", "d"]
    assert mined(TopK(num_negatives=9, skip=5), ranked, []) == []


def test_a_document_judged_0_may_be_a_negative():
    run, qrels = Run.from_dict({"q": {"a": 2.0, "b": 1.0}}), Qrels.from_dict({"q": {"a": 0, "b": 1}})
    assert TopK().mine(run, qrels, seed=0).to_dict() == {"q": {"a": 2.0}}


def test_answers_of_another_query_are_no_answers_of_this():
    run = Run.from_dict({"p": {"a": 1.0}, "q": {"a": 1.0}})
    assert TopK().mine(run, Qrels.from_dict({"p": {"a": 1}}), seed=0).to_dict() == {"p": {}, "q": {"a": 1.0}}


def test_positive_aware_by_hand():
    # the card's: the answer scores .80, 5 % of it is .04, so the ceiling is .76
    assert mined(PositiveAware(), {"p": 0.80, "x": 0.79, "y": 0.76, "z": 0.5}, ["p"]) == ["y", "z"]
    # in binary numbers, two answers: the weaker sets it. 0.5 - 0.25 * 0.5 = 0.375, and a tie with it stays
    ranked = {"p": 2.0, "r": 0.5, "a": 0.5, "b": 0.375, "c": 0.3125}
    assert mined(PositiveAware(margin_frac=0.25), ranked, ["p", "r"]) == ["b", "c"]
    # a negative answer's ceiling is lower, not higher: -2 - 0.25 * 2 = -2.5
    assert mined(PositiveAware(margin_frac=0.25), {"p": -2.0, "a": -2.25, "b": -2.5}, ["p"]) == ["b"]
    assert mined(PositiveAware(margin_frac=0.0), {"p": 1.0, "a": 1.0, "b": 2.0}, ["p"]) == ["a"]


@given(scores, st.sets(st.sampled_from(DOCS), min_size=1), st.integers(1, 5), st.sampled_from([0.0, 0.125, 0.5]))
def test_positive_aware_is_the_slow_one(ranked, relevant, num, margin):
    found = [ranked[d] for d in relevant if d in ranked]
    if not found:
        with pytest.raises(DataError, match="query q: none of its answers is among its"):
            mined(PositiveAware(), ranked, relevant)
        return
    ceiling = min(found) - margin * abs(min(found))
    in_order = sorted(ranked, key=lambda d: (-ranked[d], d))
    slow = [d for d in in_order if d not in relevant and ranked[d] <= ceiling][:num]
    assert mined(PositiveAware(num_negatives=num, margin_frac=margin), ranked, relevant) == slow


@given(scores, st.sets(st.sampled_from(DOCS)), st.integers(1, 5), st.integers(0, 4))
def test_top_k_and_star_are_the_slow_ones(ranked, relevant, num, skip):
    in_order = sorted(ranked, key=lambda d: (-ranked[d], d))
    slow = [d for d in in_order[skip:] if d not in relevant][:num]
    assert mined(TopK(num_negatives=num, skip=skip), ranked, relevant) == slow
    assert mined(STAR(max_rank=num), ranked, relevant) == [d for d in in_order[:num] if d not in relevant]


def test_a_query_whose_answer_has_no_score_is_refused_by_name():
    run = Run.from_dict({"q1": {"a": 1.0}, "q2": {"b": 1.0, "c": 0.5}, "q3": {}})
    with pytest.raises(DataError, match=r"query q2: none of its answers is among its 2 candidates \(1 of 3") as raised:
        PositiveAware().mine(run, Qrels.from_dict({"q1": {"a": 1}, "q2": {"zz": 1}}), seed=0)
    assert "include=qrels" in str(raised.value)


def test_the_lowest_numbers_are_no_error():
    low = -1.7e308
    assert mined(PositiveAware(), {"p": low, "a": 0.0}, ["p"]) == []
    for seed in range(20):  # quotients that are too large for a number
        coldest = Sampled(min_rank=1, temperature=1e-320, num_negatives=1)
        assert mined(coldest, {"a": -low, "b": low, "c": low}, [], seed) == ["a"]
        assert mined(coldest, {"a": 2.0, "b": 1.0, "c": 1.5}, [], seed) == ["a"]
    equal = Sampled(min_rank=1, temperature=1.0, num_negatives=1)  # equally large scores stay equally likely
    assert {mined(equal, dict.fromkeys("abc", 1e20), [], seed)[0] for seed in range(40)} == set("abc")


def test_sampled_draws_only_from_its_window():
    ranked = {d: -float(i) for i, d in enumerate(DOCS)}
    for seed in range(30):
        found = mined(Sampled(num_negatives=3, min_rank=3, max_rank=8), ranked, ["d04"], seed)
        assert len(found) == 3
        assert set(found) <= {"d02", "d03", "d05", "d06", "d07"}  # ranks 3 to 8 without the answer
        assert found == sorted(found)  # best-scored first
    assert mined(Sampled(num_negatives=9, min_rank=12, max_rank=90), ranked, []) == DOCS[11:]
    assert mined(Sampled(num_negatives=9, min_rank=3, max_rank=5), ranked, []) == DOCS[2:5]
    with pytest.raises(RecipeError, match="max_rank 3 is below min_rank 4"):
        Sampled(min_rank=4, max_rank=3)


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_sampled_has_the_odds_it_says(temperature):
    num = 4000
    ranked = {"a": 1.5, "b": 1.0, "c": 0.5, "p": 3.0}
    run = Run.from_dict({f"q{i}": ranked for i in range(num)})
    qrels = Qrels.from_dict({f"q{i}": {"p": 1} for i in range(num)})
    miner = Sampled(num_negatives=1, min_rank=1, temperature=temperature)
    drawn = miner.mine(run, qrels, seed=3)
    hits = [drawn.doc_column.to_pylist().count(d) for d in "abc"]
    assert sum(hits) == num
    weights = np.exp(np.array([1.5, 1.0, 0.5]) / temperature) if temperature else np.ones(3)
    assert stats.chisquare(hits, num * weights / weights.sum()).pvalue > 1e-3
    other = miner.mine(run, qrels, seed=4)
    assert (np.array(other.doc_column.to_pylist()) != np.array(drawn.doc_column.to_pylist())).mean() > 0.3


def test_planted_answers_score_like_answers_and_are_left_out():
    """Per query an answer, ten plain documents, and an unjudged twin of the answer that scores as high."""
    rng = np.random.default_rng(0)
    run, grades = {}, {}
    for i in range(200):
        answer = rng.uniform(0.5, 0.9)
        plain = {f"plain{i}-{j}": answer - rng.uniform(0.1, 0.4) for j in range(10)}
        run[f"q{i}"] = {f"answer{i}": answer, f"twin{i}": answer * rng.uniform(0.97, 1.05), **plain}
        grades[f"q{i}"] = {f"answer{i}": 1}
    run, qrels = Run.from_dict(run), Qrels.from_dict(grades)
    naive = TopK(num_negatives=4).mine(run, qrels, seed=0)
    aware = PositiveAware(num_negatives=4).mine(run, qrels, seed=0)
    twins = [sum(d.startswith("twin") for d in found.doc_column.to_pylist()) for found in (naive, aware)]
    assert twins == [200, 0]
    report = suspected(naive, run, qrels, num_negatives=4)
    assert sorted(report.pairs.doc_column.to_pylist()) == sorted(f"twin{i}" for i in range(200))
    assert (report.num_mined, report.num_judged, report.suspected_frac, report.num_short) == (800, 800, 0.25, 0)


@pytest.mark.data
def test_answers_held_back_are_mined_less_often_by_positive_aware(shared):
    """Cranfield with half of each query's judgements held back: they are false negatives, and real ones."""
    folder = shared / "cranfield"
    with gzip.open(folder / "corpus.jsonl.gz") as file:
        rows = [orjson.loads(line) for line in file]
    corpus = Corpus.from_records({"doc_id": r["_id"], "text": r["text"] or r["title"] or "none"} for r in rows)
    queries, qrels = Queries.read(folder / "queries.jsonl.gz"), Qrels.read(folder / "qrels" / "test.tsv")
    keys = text_keys([f"{r['query_id']} {r['doc_id']}" for r in qrels.table.to_pylist()])
    known, held = Qrels(qrels.table.filter(keys % 2 == 0)), Qrels(qrels.table.filter(keys % 2 == 1))
    asked = queries.select(np.array([bool(known.relevant(q)) for q in queries.ids]))
    run = BM25().index(corpus, seed=0).search(asked, k=100, include=known)
    wrong = {}
    for name, miner in {"top_k": TopK(), "aware": PositiveAware(), "sampled": Sampled()}.items():
        found = miner.mine(run, known, seed=0)
        pairs = [(q, d) for q, ranked in found.to_dict().items() for d in ranked]
        wrong[name] = sum(d in held.relevant(q) for q, d in pairs) / len(pairs)
    assert wrong["top_k"] > 0.05  # there is something to avoid
    assert wrong["aware"] < 0.5 * wrong["top_k"]
    assert wrong["sampled"] < 0.5 * wrong["top_k"]
