"""Measures: the card's hand-worked figures, parity with trec_eval, and what must not change a value."""

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Qrels, Queries, Run
from tamis.errors import DataError, UsageError
from tamis.evaluation import evaluate

NDCG = ["nDCG@10"]


def value(run, grades, measures=NDCG, **rest):
    return evaluate(Run.from_dict(run), Qrels.from_dict(grades), measures, **rest).aggregate


def test_hand_worked_ndcg():
    grades = {"q": {"a": 1, "b": 3}}
    run = {"q": {"a": 2.0, "b": 1.0}}
    assert value(run, grades)["nDCG@10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)), abs=1e-9)
    assert value(run, grades)["nDCG@10"] == pytest.approx(0.796708, abs=5e-7)
    four = {"q": {"w": 4.0, "b": 3.0, "x": 2.0, "a": 1.0}}
    assert value(four, grades)["nDCG@10"] == pytest.approx(2.323466 / 3.630930, abs=1e-6)
    exponential = value(run, grades, ["nDCG(gains={1:1,2:3,3:7})@10"])
    assert next(iter(exponential.values())) == pytest.approx(0.709810, abs=5e-7)


def test_the_query_set_is_that_of_the_judgements():
    grades = {"zero": {"a": 0}, "unanswered": {"a": 1}, "second": {"b": 1}}
    run = Run.from_dict({"second": {"x": 2.0, "b": 1.0}, "zero": {"a": 1.0}, "stranger": {"a": 1.0}})
    found = evaluate(run, Qrels.from_dict(grades), NDCG)
    assert found.aggregate["nDCG@10"] == pytest.approx(0.6309298 / 2, abs=1e-6)
    assert found.query_ids.to_pylist() == ["second", "unanswered"]
    counts = (found.num_queries, found.num_unanswered, found.num_unjudged, found.num_without_relevant)
    assert counts == (2, 1, 2, 1)
    assert found.to_dict()["measures"] == found.aggregate
    assert found.per_query.to_pylist()[1] == {"query_id": "unanswered", "measure": "nDCG@10", "value": 0.0}


def test_a_query_of_the_run_without_documents_is_unanswered():
    found = evaluate(Run.from_dict({"q": {}}), Qrels.from_dict({"q": {"a": 1}}), ["RR", "RR@10", "Judged@5"])
    assert found.num_unanswered == 1
    assert set(found.aggregate.values()) == {0.0}


def test_ties_fall_the_same_way_for_every_measure():
    run = {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}
    found = value(run, {"q": {"b": 1}}, ["RR", "RR@10", "nDCG@10", "P@1"])
    assert (found["RR"], found["RR@10"], found["P@1"]) == (0.5, 0.5, 0.0)
    assert found["nDCG@10"] == pytest.approx(1 / math.log2(3), abs=1e-9)


def test_scores_are_not_compared_as_32_bit_floats():
    found = value({"q": {"a": 1.0 - 1e-9, "b": 1.0}}, {"q": {"b": 1}}, ["RR", "RR@10"])
    assert set(found.values()) == {1.0}


def test_a_querys_own_document_is_left_out():
    run = {"q": {"q": 9.0, "x": 2.0, "b": 1.0}}
    found = evaluate(Run.from_dict(run), Qrels.from_dict({"q": {"b": 1}}), ["RR"])
    assert (found.aggregate["RR"], found.num_excluded) == (0.5, 1)
    queries = Queries.from_records([{"query_id": "q", "text": "t", "source_doc_id": "x"}])
    found = evaluate(Run.from_dict(run), Qrels.from_dict({"q": {"b": 1}}), ["RR"], queries=queries)
    assert (found.aggregate["RR"], found.num_excluded) == (1.0, 2)


def test_a_source_that_is_the_answer_stays():
    queries = Queries.from_records([{"query_id": "q", "text": "t", "source_doc_id": "x"}])
    found = evaluate(Run.from_dict({"q": {"x": 1.0}}), Qrels.from_dict({"q": {"x": 1}}), ["RR"], queries=queries)
    assert (found.aggregate["RR"], found.num_excluded) == (1.0, 0)


def test_ids_that_only_coincide_exclude_nothing():
    grades = {"1": {"1": 1, "2": 1}, "2": {"7": 1}}
    found = evaluate(Run.from_dict({"1": {"1": 1.0}, "2": {"2": 2.0, "7": 1.0}}), Qrels.from_dict(grades), ["RR"])
    assert (found.aggregate["RR"], found.num_excluded) == (0.75, 0)


@pytest.mark.parametrize("name", ["nonsense@3", "nDCG@0", "ERR@10", "nDCG(dcg='exp-log2')@10", "", "__import__('os')"])
def test_a_measure_that_is_not_known_is_refused_with_examples(name):
    with pytest.raises(UsageError, match=r"Try one of nDCG@10"):
        value({"q": {"a": 1.0}}, {"q": {"a": 1}}, [name])


def test_no_measure_no_relevant_and_absurd_grades_are_refused():
    with pytest.raises(UsageError, match="no measure"):
        value({"q": {"a": 1.0}}, {"q": {"a": 1}}, [])
    with pytest.raises(DataError, match="none of 1 judged"):
        value({"q": {"a": 1.0}}, {"q": {"a": 0}})
    with pytest.raises(DataError, match="2000000000"):
        value({"q": {"a": 1.0}}, {"q": {"a": 2_000_000_000}})


def test_an_alias_and_a_repeated_name_give_one_column():
    found = value({"q": {"a": 1.0}}, {"q": {"a": 1}}, ["MRR@10", "RR@10"])
    assert found == {"RR@10": 1.0}


def collection(seed, num_queries=40, num_docs=60, depth=30):
    rng = np.random.default_rng(seed)
    run, grades = {}, {}
    for q in range(num_queries):
        docs = rng.permutation(num_docs)[:depth]
        run[f"q{q}"] = {f"d{d}": float(s) for d, s in zip(docs, rng.permutation(depth), strict=True)}
        grades[f"q{q}"] = {
            f"d{d}": int(g) for d, g in zip(rng.permutation(num_docs)[:12], rng.integers(0, 4, 12), strict=True)
        }
        grades[f"q{q}"][f"d{docs[0]}"] = 1
    return run, grades


def test_parity_with_trec_eval_on_runs_without_ties():
    run, grades = collection(0)
    found = evaluate(Run.from_dict(run), Qrels.from_dict(grades), ["nDCG@10", "R@10", "P@5", "AP", "RR", "Success@5"])
    names = ["ndcg_cut_10", "recall_10", "P_5", "map", "recip_rank", "success_5"]
    theirs = pytrec_eval.RelevanceEvaluator(
        grades, {"ndcg_cut.10", "recall.10", "P.5", "map", "recip_rank", "success.5"}
    )
    answers = theirs.evaluate(run)
    assert len(answers) == 40
    for ours, name in zip(found.values.values(), names, strict=True):
        expected = [answers[q][name] for q in found.query_ids.to_pylist()]
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        assert len(set(expected)) > 3 or name in {"success_5", "recip_rank"}


def test_blocks_of_queries_give_what_one_block_gives(monkeypatch):
    run, grades = collection(1)
    whole = evaluate(Run.from_dict(run), Qrels.from_dict(grades))
    monkeypatch.setattr("tamis.evaluation.measures._BLOCK_QUERIES", 7)
    assert evaluate(Run.from_dict(run), Qrels.from_dict(grades)).per_query.equals(whole.per_query)


@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_rows_and_documents_below_the_cutoff_change_nothing(random, seed):
    run, grades = collection(seed, num_queries=4, depth=12)
    before = evaluate(Run.from_dict(run), Qrels.from_dict(grades), NDCG).per_query

    def shuffled(table):
        return {
            q: dict(random.sample(list(d.items()), len(d))) for q, d in random.sample(list(table.items()), len(table))
        }

    longer = {q: d | {f"z{i}": -1.0 - i for i in range(5)} for q, d in run.items()}
    assert evaluate(Run.from_dict(shuffled(longer)), Qrels.from_dict(shuffled(grades)), NDCG).per_query.equals(before)
