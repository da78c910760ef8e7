"""Joined runs, their pairs scored anew, and the report on what may be an answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Qrels, Run
from tamis.errors import DataError, UsageError
from tamis.training.negatives import PositiveAware, TopK, candidates, rescored, suspected

runs = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from(list("abcdefgh")), st.integers(-3, 3), max_size=6),
    max_size=3,
).map(Run.from_dict)


def test_two_searches_take_turns_and_agreement_comes_first():
    lexical = Run.from_dict({"q": {"a": 30.0, "b": 20.0, "c": 10.0}})
    dense = Run.from_dict({"q": {"x": 0.9, "b": 0.5, "y": 0.4, "z": 0.3}})
    joined = candidates(lexical, dense)
    # ranks: a 1, x 1, b 2 and 2, c 3, y 3, z 4
    assert joined.ranked("q") == [("a", 1.0), ("b", 1.0), ("x", 1.0), ("c", 1 / 3), ("y", 1 / 3), ("z", 0.25)]
    assert candidates(dense, lexical) == joined
    assert candidates(lexical).ranked("q") == [("a", 1.0), ("b", 0.5), ("c", 1 / 3)]
    with pytest.raises(UsageError, match="no run given"):
        candidates()


@settings(max_examples=60)
@given(st.lists(runs, min_size=1, max_size=3))
def test_joining_is_the_slow_one(given_runs):
    slow = {}
    for run in given_runs:
        for query_id in run.query_ids.to_pylist():
            of_query = slow.setdefault(query_id, {})
            for rank, (doc_id, _) in enumerate(run.ranked(query_id), 1):
                of_query.setdefault(doc_id, []).append(1 / rank)
    slow = {q: {d: sum(sorted(parts)) for d, parts in docs.items()} for q, docs in slow.items()}
    joined = candidates(*given_runs)
    assert joined == Run.from_dict(slow)
    assert joined.to_dict() == candidates(*given_runs[::-1]).to_dict()


def test_pairs_scored_anew():
    run = Run.from_dict({"q": {"a": 1.0, "b": 5.0, "z": 9.0}})
    vectors = [[3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [9.0, 9.0]]
    made = rescored(run, ["x", "q"], [[0.0, 1.0], [2.0, 0.0]], ["a", "z", "b", "unused"], vectors)
    assert made.ranked("q") == [("b", 1.0), ("a", pytest.approx(0.6, abs=1e-7)), ("z", 0.0)]
    with pytest.raises(DataError, match=r"document vectors: 1 of 3 are unknown, first z"):
        rescored(run, ["q"], [[1.0, 0.0]], ["a", "b"], [[1.0, 0.0]] * 2)
    with pytest.raises(DataError, match="query vectors: 1 of 1 are unknown, first q"):
        rescored(run, ["p"], [[1.0, 0.0]], ["a", "b", "z"], [[1.0, 0.0]] * 3)
    with pytest.raises(DataError, match="queries have 1 dimensions, documents 2"):
        rescored(run, ["q"], [[1.0]], ["a", "b", "z"], [[1.0, 0.0]] * 3)
    with pytest.raises(DataError, match="document vectors: row 2 holds NaN or infinity"):
        rescored(run, ["q"], [[1.0]], ["a", "b", "z"], [[1.0], [1.0], [np.inf]])
    with pytest.raises(DataError, match=r"3 rows are needed, got shape \(3,\)"):
        rescored(run, ["q"], [[1.0]], ["a", "b", "z"], [1.0, 2.0, 3.0])
    empty = Run.from_dict({"q": {}})
    assert rescored(empty, ["q"], [[1.0]], [], np.zeros((0, 1))) == empty


def test_suspicion_by_hand():
    """q1's answer scores 1.0, so with a margin of 1/4 what is above .75 is suspected; q2 has no scored answer."""
    scored = Run.from_dict({"q1": {"p": 1.0, "a": 2.0, "b": 0.875, "c": 0.75, "d": 0.5}, "q2": {"a": 1.0}})
    mined = Run.from_dict({"q2": {"a": 1.0}, "q1": {"a": -1.0, "b": -2.0, "c": -3.0, "e": -4.0}, "q3": {}})
    qrels = Qrels.from_dict({"q1": {"p": 1}, "q2": {"zz": 1}})
    report = suspected(mined, scored, qrels, margin_frac=0.25, num_negatives=4)
    assert report.pairs.to_dict() == {"q2": {}, "q1": {"a": 2.0, "b": 0.875}, "q3": {}}
    assert (report.num_queries, report.num_mined, report.num_judged, report.num_short) == (3, 5, 3, 2)
    assert report.suspected_frac == 2 / 3
    nothing = suspected(Run.from_dict({}), Run.from_dict({}), qrels)
    assert (nothing.suspected_frac, nothing.num_mined, len(nothing.pairs)) == (0.0, 0, 0)


@settings(max_examples=60)
@given(
    ranked=st.dictionaries(st.sampled_from(list("abcdefgh")), st.integers(-8, 8).map(lambda n: n / 4), min_size=1),
    margin=st.sampled_from([0.0, 0.25]),
    data=st.data(),
)
def test_what_positive_aware_keeps_is_not_suspected_and_the_rest_of_top_k_is(ranked, margin, data):
    relevant = data.draw(st.sets(st.sampled_from(sorted(ranked)), min_size=1))
    run, qrels = Run.from_dict({"q": ranked}), Qrels.from_dict({"q": dict.fromkeys(relevant, 1)})
    every = TopK(num_negatives=99).mine(run, qrels, seed=0)
    kept = PositiveAware(num_negatives=99, margin_frac=margin).mine(run, qrels, seed=0)
    told = suspected(every, run, qrels, margin_frac=margin)
    assert told.num_judged == len(every)
    assert set(told.pairs.to_dict()["q"]) == set(every.to_dict()["q"]) - set(kept.to_dict()["q"])
    assert len(suspected(kept, run, qrels, margin_frac=margin).pairs) == 0
