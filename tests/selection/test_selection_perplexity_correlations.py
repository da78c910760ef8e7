import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tamis.errors import DataError, UsageError
from tamis.selection.perplexity_correlations import (
    PerplexityCorrelations,
    bits_per_byte,
    fill,
    nearest,
    token_caps,
)

BITS = np.array([[1.2, 1.1, 1.0, 0.9], [0.9, 1.1, 1.0, 1.2], [1.2, 1.0, 1.0, 0.9]]).T
ERROR = np.array([0.6, 0.5, 0.4, 0.3])


@pytest.mark.parametrize(
    ("estimator", "wanted"),
    [
        ("sign_sign", [1, -0.6667, 0.8333]),
        ("sign_cdf", [0.41667, -0.33333, 0.375]),  # mid-ranks of the tie in the third; by position it would be .33333
        ("spearman", [1, -0.8, 0.9487]),  # by position .8
    ],
)
def test_hand_worked(estimator, wanted):
    assert PerplexityCorrelations(estimator=estimator).estimate(BITS, ERROR) == pytest.approx(wanted, abs=1e-4)


def test_hand_worked_projection_and_unit():
    weights = fill(np.array([0.2, -0.4, 0.9, 0.5]), np.array([0.5, 0.6, 0.3, 0.4]))
    assert weights == pytest.approx([0.3, 0, 0.3, 0.4])
    assert bits_per_byte(2.0, 200, 800) == pytest.approx(0.72135, abs=1e-5)
    assert token_caps(np.array([10, 30, 60]), 0.5) == pytest.approx([0.2, 0.6, 1.0])
    with pytest.raises(UsageError, match="keep_frac 0"):
        token_caps(np.ones(2), 0)


@given(hnp.arrays(float, (6, 3), elements=st.integers(0, 4)), st.permutations(range(6)))
def test_estimators_against_loops(bits, order):
    error = np.array([0.1, 0.3, 0.3, 0.5, 0.6, 0.9])
    ranks = np.array([[(column < x).sum() + ((column == x).sum() + 1) / 2 for x in column] for column in bits.T]).T / 6
    sign, cdf = np.zeros(3), np.zeros(3)
    for g in range(6):
        for k in range(g):
            sign += np.sign(error[g] - error[k]) * np.sign(bits[g] - bits[k]) / 15
            cdf += np.sign(error[g] - error[k]) * (ranks[g] - ranks[k]) / 15
    assert PerplexityCorrelations(estimator="sign_sign").estimate(bits, error) == pytest.approx(sign)
    assert PerplexityCorrelations(estimator="sign_cdf").estimate(bits, error) == pytest.approx(cdf)
    turned = np.array(order)
    for name in ("spearman", "sign_sign", "sign_cdf"):
        method = PerplexityCorrelations(estimator=name, num_bootstraps=5)
        caps = np.full(3, 0.5)
        one, two = method.fit(bits, error, caps, seed=0), method.fit(bits[turned], error[turned], caps, seed=0)
        assert one.estimates == pytest.approx(two.estimates)
        assert one.weights == pytest.approx(two.weights)
        assert one.rank_low.tolist() == two.rank_low.tolist()
        assert one.rank_high.tolist() == two.rank_high.tolist()


@given(hnp.arrays(float, 5, elements=st.floats(-1, 1)), hnp.arrays(float, 5, elements=st.floats(0.25, 1)))
def test_projections_are_feasible_and_l2_is_nearest(estimates, caps):
    for project in (fill, nearest):
        weights = project(estimates, caps)
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()
        assert (weights <= caps + 1e-12).all()
    best = ((nearest(estimates, caps) - estimates) ** 2).sum()
    rng = np.random.Generator(np.random.Philox(1))
    for _ in range(20):
        other = fill(rng.random(5), caps)
        assert best <= ((other - estimates) ** 2).sum() + 1e-9


def test_useful_domains_are_found_and_noise_has_wide_ranks():
    rng = np.random.Generator(np.random.Philox(3))
    error = np.linspace(0.2, 0.8, 20)
    bits = 1 + rng.normal(size=(20, 6)) * 0.05
    bits[:, 2] += error
    bits[:, 4] -= error
    found = PerplexityCorrelations().fit(bits, error, np.full(6, 0.4), seed=0)
    assert (found.rank_low[2], found.rank_high[2], found.rank_high[4]) == (1, 1, 6)
    assert (found.weights[2], found.weights[4]) == (0.4, 0)
    assert (found.rank_high - found.rank_low)[[0, 1, 3, 5]].mean() > 2
    control = PerplexityCorrelations().fit(bits, rng.permutation(error), np.full(6, 0.4), seed=0)
    assert control.estimates[2] < 0.6 < found.estimates[2]
    flat = PerplexityCorrelations(projection="l2").fit(bits, error, np.full(6, 0.4), seed=0)
    assert flat.weights[2] == pytest.approx(0.4)


def test_incomplete_models_are_left_out_and_named():
    bits, error = np.vstack([BITS, [[np.nan, 1, 1]], [[1, 1, 1]]]), np.r_[ERROR, 0.2, np.nan]
    found = PerplexityCorrelations().fit(bits, error, np.ones(3), seed=0)
    assert found.skipped == (4, 5)
    assert found.estimates == pytest.approx([1, -0.8, 0.9487], abs=1e-4)
    with pytest.raises(DataError, match=r"3 of 6 models are complete; 4 are needed\. 2 models lack domain 'b'"):
        bits[0, 1] = np.nan
        bits[4, 1] = np.nan
        PerplexityCorrelations().fit(bits, error, np.ones(3), seed=0, domains=["a", "b", "c"])


def test_bad_input():
    fit = PerplexityCorrelations().fit
    with pytest.raises(DataError, match=r"sum to 0\.6000, below 1"):
        fit(BITS, ERROR, np.full(3, 0.2), seed=0)
    with pytest.raises(DataError, match="all 4 models have error 1"):
        fit(BITS, np.ones(4), np.ones(3), seed=0)
    with pytest.raises(DataError, match="Give \\[models, domains\\]"):
        fit(BITS, ERROR[:3], np.ones(3), seed=0)
    with pytest.raises(DataError, match="for 2 domains"):
        fit(BITS, ERROR, np.ones(3), seed=0, domains=["a", "b"])
    assert fit(np.ones((4, 3)), ERROR, np.ones(3), seed=0).estimates.tolist() == [0, 0, 0]
