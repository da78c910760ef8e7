"""Slices: the worked flag, counts that add up, planted and random dates, and measures by slice of the queries."""

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Qrels, Run
from tamis.errors import DataError, UsageError
from tamis.evaluation.document_dates import NO_DATE, parse_day
from tamis.evaluation.measures import evaluate
from tamis.evaluation.slices import Slices, age_check, dropping, wilson
from tamis.evaluation.slicing import by_quantiles, largest_first


class Cut:
    """A corpus read in another order and in other batches."""

    def __init__(self, corpus, size, order=None):
        self.table = corpus.table().take(pa.array(np.arange(len(corpus)) if order is None else order))
        self.size = size

    def __len__(self):
        return len(self.table)

    def batches(self, columns):
        yield from self.table.select(columns).combine_chunks().to_batches(max_chunksize=self.size)


def corpus_of(sources, dates=None):
    return Corpus.from_records(
        {"doc_id": f"d{i}", "text": f"word {i} " * (1 + i % 90), "source": s,
         "metadata": orjson.dumps({"date": dates[i]} if dates and dates[i] else {}).decode()}
        for i, s in enumerate(sources)
    )  # fmt: skip


def decisions_of(rows):
    names = ("doc_id", "stage", "decision", "reason")
    return pa.table({n: pa.array([r[i] for r in rows], pa.large_string()) for i, n in enumerate(names)})


def dropped(ids, reason="bad"):
    return pa.table({"doc_id": pa.array(list(ids), pa.large_string()), "reason": [reason] * len(ids)})


def row_of(facts, kind, name):
    return next(row for row in facts.rows if (row.kind, row.name) == (kind, name))


def test_the_worked_example_is_flagged():
    corpus = corpus_of(["a"] * 50 + ["b"] * 950)
    table = dropped([f"d{i}" for i in range(40)] + [f"d{i}" for i in range(100, 160)])
    facts = Slices().report(corpus, table, seed=0)
    a, b = row_of(facts, "source", "a"), row_of(facts, "source", "b")
    assert (a.num_docs, a.num_dropped, a.drop_frac) == (50, 40, 0.8)
    assert a.ratio == pytest.approx(8)
    assert a.ratio_low == pytest.approx(a.low * 10)
    assert (a.flagged, b.flagged) == (True, False)
    assert [row.name for row in facts.rows if row.flagged and row.kind == "source"] == ["a"]
    assert not row_of(Slices(min_docs=51).report(corpus, table, seed=0), "source", "a").flagged
    assert not row_of(Slices(max_ratio=8).report(corpus, table, seed=0), "source", "a").flagged
    assert not row_of(Slices(max_frac=0.8).report(corpus, table, seed=0), "source", "a").flagged


def test_what_chance_explains_is_not_flagged():
    corpus = corpus_of(["alone"] + ["b"] * 99)
    facts = Slices(min_docs=1).report(corpus, dropped([f"d{i}" for i in range(30)]), seed=0)
    row = row_of(facts, "source", "alone")
    assert (row.drop_frac, row.ratio > 3, row.low < 0.3, row.flagged) == (1.0, True, True, False)


def test_the_interval_of_wilson():
    low, high = wilson(40, 50)
    assert (low, high) == (pytest.approx(0.66962, abs=1e-4), pytest.approx(0.88757, abs=1e-4))
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_document_is_dropped_once_and_stands_under_each_reason():
    corpus = corpus_of(["a"] * 6)
    table = decisions_of(
        [("d0", "clean", "dropped", "short"), ("d0", "dedup", "grouped", "copy"), ("d0", "dedup", "grouped", "copy"),
         ("d1", "clean", "dropped", "short"), ("d2", "clean", "kept", "fine"), ("line 7", "read", "rejected", "no_json"),
         ("d3", "dedup", "grouped", "copy")]
    )  # fmt: skip
    facts = Slices().report(corpus, table, seed=0)
    words = [2 * (1 + i) for i in range(6)]
    assert (facts.num_dropped, facts.num_strangers, facts.num_kept_words) == (3, 1, words[2] + words[4] + words[5])
    row = row_of(facts, "source", "a")
    assert [(d.stage, d.reason, d.num_docs) for d in row.drops] == [("clean", "short", 2), ("dedup", "copy", 2)]
    plan = {(a.stage, a.reason): (a.num_docs, a.num_words, a.num_kept_words) for a in facts.ablations}
    kept = facts.num_kept_words
    assert plan[("clean", "short")] == (1, words[1], kept + words[1])  # d0 would still be a copy
    assert plan[("dedup", "copy")] == (1, words[3], kept + words[3])
    assert plan[("read", "no_json")] == (0, 0, kept)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, "2001", "2002-03", "2003-04-05"]), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
)
def test_slices_add_up_and_are_free_of_order_and_batches(documents, size, random):
    corpus = corpus_of([d[0] for d in documents], [d[1] for d in documents])
    ids = [f"d{i}" for i, d in enumerate(documents) if d[2]]
    scores = pa.table(
        {"doc_id": [f"d{i}" for i in range(len(documents))], "score": [0.1 * (i % 7) for i in range(len(documents))]}
    )
    facts = Slices(num_slices=3).report(corpus, dropped(ids), seed=0, scores=scores)
    for kind in {row.kind for row in facts.rows}:
        rows = [row for row in facts.rows if row.kind == kind]
        assert sum(row.num_docs for row in rows) == len(corpus)
        assert sum(row.num_dropped for row in rows) == len(ids) == facts.num_dropped
        assert sum(row.num_words for row in rows) == facts.num_kept_words + sum(2 * (1 + int(i[1:]) % 90) for i in ids)
    order = list(range(len(documents)))
    random.shuffle(order)
    random.shuffle(ids)
    assert Slices(num_slices=3).report(Cut(corpus, size, order), dropped(ids), seed=0, scores=scores) == facts


def test_mean_scores_do_not_depend_on_the_order_of_addition():
    values = [1e16, 1.0, -1e16, 1.0] * 25
    corpus = corpus_of(["a"] * 100)
    scores = pa.table({"doc_id": [f"d{i}" for i in range(100)], "score": values})
    facts = Slices().report(corpus, seed=0, scores=scores)
    assert row_of(facts, "source", "a").mean_score == 0.5
    with pytest.raises(DataError, match="more than one score"):
        Slices().report(corpus, seed=0, scores=pa.concat_tables([scores, scores]))
    with pytest.raises(DataError, match="no column 'score'"):
        Slices().report(corpus, seed=0, scores=scores.drop_columns("score"))


def test_a_planted_year_moves_its_slice_and_random_dates_move_none():
    rng = np.random.default_rng(0)
    num = 1200
    dates = [f"2010-{m:02d}-{d:02d}" for m, d in zip(rng.integers(1, 13, num), rng.integers(1, 28, num), strict=True)]
    lost = rng.random(num) < 0.1
    dates[:300] = ["1999-05-05"] * 300
    lost[:300] = rng.random(300) < 0.9
    ids = [f"d{i}" for i in np.flatnonzero(lost)]
    planted = Slices().report(corpus_of(["a"] * num, dates), dropped(ids), seed=0)
    flagged = [row.name for row in planted.rows if row.flagged and row.kind == "age"]
    assert flagged == ["1999-05-05 to 1999-05-05"]
    false_alarms = 0
    for _ in range(20):
        shuffled = [dates[i] for i in rng.permutation(num)]
        facts = Slices().report(corpus_of(["a"] * num, shuffled), dropped(ids), seed=0)
        false_alarms += any(row.flagged for row in facts.rows if row.kind == "age")
    assert false_alarms <= 1


def test_missing_dates_and_scores_are_slices_of_their_own():
    corpus = corpus_of(["a"] * 8, ["2001", None, "2003", None, "2005", "2007", "2009", None])
    scores = pa.table({"doc_id": ["d0", "d5"], "score": [1.0, 2.0]})
    facts = Slices().report(corpus, seed=0, scores=scores)
    assert row_of(facts, "age", "no date").num_docs == 3
    assert row_of(facts, "quality", "no score").num_docs == 6
    assert not [r for r in Slices().report(corpus_of(["a"]), seed=0).rows if r.kind == "age"]


def test_cuts_at_quantiles_keep_equal_values_together():
    kind = by_quantiles("k", np.array([1.0, 1, 1, 1, 2, 3, np.nan, 4]), 4, "none", str)
    assert kind.codes.tolist() == [0, 0, 0, 0, 2, 2, 4, 3]
    assert kind.names == ("1.0 to 1.0", "", "2.0 to 3.0", "4.0 to 4.0", "none")
    top = largest_first("s", np.array([0, 1, 1, 2, 2, 3]), ("x", "b", "a", "y"), 2)
    assert [top.names[c] for c in top.codes] == ["(others)", "b", "b", "a", "a", "(others)"]
    assert top.names == ("a", "b", "(others)")


def test_the_age_warning():
    days = np.array([parse_day(f"{y}-06-01") for y in (2001, 2002, 2003)] + [NO_DATE], np.int32)
    far = age_check(days, ["2010-01-01", "2011-01-01", "2012-01-01"])
    assert (far.median_docs, far.median_queries, far.num_docs) == ("2002-06-01", "2011-01-01", 3)
    assert far.gap_days == parse_day("2011-01-01") - parse_day("2002-06-01")
    assert (far.near_frac, far.warned) == (0.0, True)
    near = age_check(days, ["2002-07-01"])
    assert (near.near_frac, near.warned, near.gap_days) == (
        pytest.approx(2 / 3),
        False,
        30,
    )  # 2001: 395 days, over a year
    many = np.array([parse_day("2000")] * 4 + [parse_day("2010")] * 1 + [parse_day("2020")] * 5, np.int32)
    assert age_check(many, ["2010-01-01"]).warned
    assert age_check(days, []) is None
    assert age_check(days[3:], ["2001"]) is None
    with pytest.raises(DataError, match="query date 'soon'"):
        age_check(days, ["2001", "soon"])


def test_decisions_need_their_columns():
    with pytest.raises(DataError, match="no column 'reason'"):
        dropping(pa.table({"doc_id": ["a"]}))
    table = dropping(pa.table({"doc_id": ["a"], "reason": pa.array([None], pa.string())}))
    assert table.to_pylist() == [{"doc_id": "a", "stage": "", "reason": ""}]


def test_measures_by_slice_are_the_means_of_their_queries():
    corpus = corpus_of(["a"] * 30 + ["b"] * 30)
    grades = {f"q{i}": {f"d{i}": 1} for i in range(60)} | {"lost": {"elsewhere": 1}}
    run = Run.from_dict({f"q{i}": {f"d{i}": 2.0 if i < 30 else 0.5, f"d{(i + 1) % 60}": 1.0} for i in range(60)})
    qrels = Qrels.from_dict(grades)
    coverage = {f"q{i}": "tail" if i % 2 else "head" for i in range(60)}
    facts = Slices().report(corpus, None, {"run": run}, qrels, seed=0, coverage=coverage)
    found = {(row.kind, row.name): row for row in facts.queries}
    assert found["source", "a"].means["nDCG@10"].mean == 1.0
    assert found["source", "b"].means["nDCG@10"].mean == pytest.approx(1 / np.log2(3))
    assert found["all", "all"].num_queries == 61
    assert found["all", "all"].means["R@100"].mean == pytest.approx(60 / 61)
    assert (found["source", "a"].few, found["coverage", "unknown"].few) == (False, True)
    assert found["source", "not in the pool"].num_queries == 1
    for row in facts.queries:
        for mean in row.means.values():
            assert mean.low <= mean.mean <= mean.high
    whole = evaluate(run, qrels, ["nDCG@10"]).aggregate["nDCG@10"]
    assert found["all", "all"].means["nDCG@10"].mean == pytest.approx(whole)
    assert sum(r.num_queries for r in facts.queries if r.kind == "coverage") == 61
    with pytest.raises(UsageError, match="without qrels"):
        Slices().report(corpus, None, {"run": run}, seed=0)


def test_a_query_belongs_to_the_slice_of_its_best_document():
    corpus = corpus_of(["a"] * 5 + ["b"] * 5)
    qrels = Qrels.from_dict({"q0": {"d1": 1, "d7": 2}, "q1": {"d8": 2, "d3": 2}, "q2": {"d9": 1}})
    run = Run.from_dict({"q0": {"d7": 1.0}})
    rows = Slices().report(corpus, None, {"run": run}, qrels, seed=0).queries
    assert {row.name: row.num_queries for row in rows if row.kind == "source"} == {"a": 1, "b": 2}
    assert {row.name: row.means["nDCG@10"].mean > 0 for row in rows if row.kind == "source"} == {"a": False, "b": True}
