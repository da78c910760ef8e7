"""Budgets and quotas, the order of keeping, and the figure of divergence: what every selection is made with."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import RecipeError
from tamis.selection import Budget, Uniform, kl_reduction
from tamis.selection.budget import prefix, quotas
from tamis.selection.choice import Measures


def test_budget_stops_before_the_first_that_does_not_fit():
    sizes = np.array([5, 3, 9, 1])
    assert Budget(words=9).keep(np.array([1, 0, 2, 3]), sizes).tolist() == [True, True, False, False]
    assert Budget(words=8).keep(np.array([1, 0, 2, 3]), sizes).tolist() == [True, True, False, False]
    assert Budget(words=7).keep(np.array([1, 0, 2, 3]), sizes).tolist() == [False, True, False, False]
    assert Budget(frac=0.5).keep(np.array([2, 3, 1]), sizes).tolist() == [False, False, True, False]
    assert prefix(np.array([], np.int64), sizes, 4).tolist() == [False] * 4


def test_a_share_is_taken_as_it_is_written():
    assert 0.29 * 100 < 29  # what floats would do
    assert Budget(frac=0.29).limit(100) == 29
    assert Budget(frac=1.0).limit(7) == 7


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 400), st.integers(0, 400), st.randoms())
def test_prefixes_are_nested(sizes, one, other, random):
    order = list(range(len(sizes)))
    random.shuffle(order)
    kept = [prefix(np.array(order), np.array(sizes), limit) for limit in sorted([one, other])]
    assert (kept[0] <= kept[1]).all()
    assert kept[0] @ np.array(sizes) <= min(one, other)


def test_worked_quotas():
    assert quotas(7, np.array([50, 30, 20])).tolist() == [4, 2, 1]
    assert quotas(3, np.array([1, 1])).tolist() == [2, 1]
    assert quotas(10, np.array([0.25, 0.75])).tolist() == [3, 7]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=8).filter(any), st.integers(0, 10**12))
def test_quotas_add_up_and_are_within_one(weights, total):
    shared = quotas(total, np.array(weights))
    assert shared.sum() == total
    assert all(abs(q * sum(weights) - total * w) < sum(weights) for q, w in zip(shared.tolist(), weights, strict=True))


def test_units_of_a_budget():
    batch = next(iter(Corpus.from_records([{"doc_id": "a", "title": "Ab", "text": "c, dé!"}]).batches()))
    assert Budget(docs=1).sizes(batch).tolist() == [1]
    assert Budget(words=1).sizes(batch).tolist() == Budget(frac=1.0).sizes(batch).tolist() == [3]
    assert Budget(bytes=1).sizes(batch).tolist() == [len("Ab\nc, dé!".encode())]


@pytest.mark.parametrize(
    ("given_budget", "match"),
    [({}, "got none"), ({"docs": 3, "frac": 0.5}, "got docs and frac"), ({"docs": 0}, "greater"), ({"frac": 1.5}, "1")],
)
def test_budgets_that_cannot_be_meant(given_budget, match):
    with pytest.raises(RecipeError, match=match):
        Budget(**given_budget)
    with pytest.raises(RecipeError, match="budget"):
        Uniform()


def test_ties_are_broken_by_key_and_then_by_id():
    ids = pa.array(["é", "b", "a", "z", "c"], pa.large_string())
    measures = Measures(ids, np.array([1.0, 1, 1, 1, 2]), np.array([3, 3, 3, 1, 9], np.uint64), np.ones(5, np.int64))
    assert measures.order(np.arange(5)).tolist() == [4, 3, 2, 1, 0]
    assert measures.order(np.array([0, 2, 1])).tolist() == [2, 1, 0]


def test_worked_kl_reduction():
    raw, target = np.array([4, 2, 1, 1]), np.array([1, 0, 3, 0])
    x, y = np.array([2, 0, 1, 0]), np.array([0, 1, 2, 0])
    assert kl_reduction(raw, target, x, prior=0.0) == pytest.approx(0.80754, abs=5e-6)
    assert kl_reduction(raw, target, y, prior=0.0) == pytest.approx(-4.32769, abs=5e-6)
    assert kl_reduction(raw, target, x) == pytest.approx(0.19303, abs=5e-6)
    assert kl_reduction(raw, target, y) == pytest.approx(0.22031, abs=5e-6)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=2, max_size=6).filter(
        lambda r: any(t for _, t in r)
    )
)
def test_the_whole_pool_reduces_nothing_and_the_target_itself_reduces_most(rows):
    raw, target = np.array([r for r, _ in rows]), np.array([t for _, t in rows])
    assert kl_reduction(raw, target, raw) == pytest.approx(0, abs=1e-12)
    assert kl_reduction(raw, target, 3 * target) >= max(kl_reduction(raw, target, raw), -1e-9) - 1e-9
