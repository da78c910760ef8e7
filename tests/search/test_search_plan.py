"""Plans: weights by query length, plans for engines with passages, samples for tuning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Corpus
from tamis.search.fit import Point
from tamis.search.layout import sample, weights, with_passages
from tamis.search.plan import MAX_SHARE, Plan, spread


def test_hand_worked_length_factors():
    # factor .5 up to 4 words, 1.25 at 8, 2 from 12 on; a share of .25 becomes .125, .3125, .5
    found = spread(np.array([0.25, 0.5, 0.25]), np.array([True, False, False]), np.array([1, 4, 8, 12, 40]))
    assert found[0].tolist() == [0.125, 0.125, 0.3125, 0.5, 0.5]
    assert found[1].tolist() == pytest.approx([0.875 * 2 / 3, 0.875 * 2 / 3, 0.6875 * 2 / 3, 1 / 3, 1 / 3])


def test_the_share_is_capped_and_edges_are_legal():
    assert spread(np.array([0.4, 0.6]), np.array([True, False]), np.array([20]))[0, 0] == pytest.approx(MAX_SHARE)
    assert spread(np.array([1.0, 0.0]), np.array([True, False]), np.array([1]))[:, 0].tolist() == [1.0, 0.0]
    assert spread(np.array([0.0, 1.0]), np.array([True, False]), np.array([9]))[:, 0].tolist() == [0.0, 1.0]


@given(
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    st.lists(st.integers(0, 60), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_totals_stay_and_longer_queries_never_lower_the_share(given_weights, lengths, flags):
    weight, flag = np.array(given_weights), np.array(flags)
    found = spread(weight, flag, np.array(sorted(lengths)))
    assert np.allclose(found.sum(axis=0), weight.sum())
    assert (np.diff(found[flag].sum(axis=0)) >= -1e-9).all()


def test_a_plan_weighs_by_length_only_what_it_names():
    plan = Plan(weights={"words": 0.75, "dense": 0.25}, by_length=("dense",))
    assert plan.weights_by_query(["dense", "words"], np.array([4, 12])).tolist() == [[0.125, 0.5], [0.875, 0.5]]
    plain = Plan(weights={"words": 0.75, "dense": 0.25})
    assert plain.weights_by_query(["dense", "words"], np.array([4, 12])).tolist() == [[0.25, 0.25], [0.75, 0.75]]


def test_with_passages_shares_lexical_arms_with_their_twins():
    plan = with_passages(Plan(weights=weights(0.5, 0.2, 0.0)))
    assert plan.weights == {
        "dense": 0.2,
        "words": 0.2,
        "words/passages": 0.2,
        "grams": 0.2,
        "grams/passages": 0.2,
    }


def test_distance_prices_the_dense_weight_most():
    prior = Point(0.5, 0.2, 0.0)
    assert Point(0.6, 0.2, 0.0).distance(prior) == pytest.approx(0.0025)
    assert Point(0.5, 0.3, 0.0).distance(prior) == pytest.approx(0.01)
    assert Point(0.5, 0.2, 0.5).distance(prior) == pytest.approx(0.0225)


def test_a_sample_keeps_what_is_asked_for_in_corpus_order():
    corpus = Corpus.from_records({"doc_id": f"d{n}", "title": f"t{n}", "text": f"x{n}"} for n in range(20))
    keys = np.arange(20)[::-1] / 20
    found = sample(corpus, ["d3", "d0"], 4, keys, titles=False)
    assert found.doc_ids.to_pylist() == ["d0", "d3", "d18", "d19"]
    assert found.table(["title"])["title"].to_pylist() == [""] * 4
    assert sample(corpus, [], 100, keys, titles=True).table(["title"])["title"].to_pylist()[5] == "t5"
    assert len(sample(corpus, [f"d{n}" for n in range(9)], 4, keys, titles=True)) == 9
