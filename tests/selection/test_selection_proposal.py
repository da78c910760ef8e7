import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize as slsqp

from tamis.errors import DataError, UsageError
from tamis.selection.mixture_laws import GaussianProcess, LogLinear
from tamis.selection.proposal import DirichletProposal, KLProposal, capped, kl_divergence, minimise, repetition_caps


def swarm(num_runs=30):
    rng = np.random.Generator(np.random.Philox(0))
    weights = rng.dirichlet(np.full(4, 0.7), num_runs)
    slopes = np.array([[-1.0, 0.5, 1.0, 0.2], [0.3, -0.8, 0.1, 0.4]])
    return weights, 2 + np.exp(weights @ slopes.T)


PRIOR = np.array([0.4, 0.3, 0.2, 0.1])


def test_hand_worked():
    weights = minimise(np.ones(1), np.array([[-1.0, 0.0]]), np.full(2, 0.5), np.ones(2), 0.1)
    assert weights[0] == pytest.approx(0.97732, abs=1e-5)
    assert np.exp(-weights[0]) + 0.1 * kl_divergence(weights, np.full(2, 0.5)) == pytest.approx(0.43480, abs=1e-5)
    assert np.exp(-weights[0]) == pytest.approx(0.1 * np.log(weights[0] / weights[1]), abs=1e-9)  # stationary


def test_projection_hand_worked():
    # equal masses, caps .2, 1, 1: the first stops at its cap, the others share .8
    assert capped(np.zeros(3), np.array([0.2, 1, 1])) == pytest.approx([0.2, 0.4, 0.4])
    assert capped(np.array([0.0, -2000.0, -2001.0]), np.array([0.5, 1, 1])).sum() == pytest.approx(1)
    assert capped(np.zeros(2), np.array([0.0, 1.0])) == pytest.approx([0, 1])


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(-2.5, 1))
def test_optimum_against_a_general_solver(seed, log_kl):
    rng = np.random.Generator(np.random.Philox(seed))
    slopes, mass, kl = rng.normal(size=(3, 5)) * 2, rng.random(3), 10**log_kl
    prior = rng.dirichlet(np.ones(5)) * 0.95 + 0.01
    caps = np.minimum(1, prior * 2 + 0.1)

    def objective(w):
        return (mass * np.exp(slopes @ w)).sum() + kl * kl_divergence(np.maximum(w, 1e-300), prior)

    ours = minimise(mass, slopes, prior, caps, kl)
    assert ours.sum() == pytest.approx(1)
    assert (ours <= caps + 1e-9).all()
    peer = slsqp(
        objective,
        capped(np.log(prior), caps),
        bounds=[(1e-12, c) for c in caps],
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert objective(ours) <= peer.fun + 1e-8
    order = np.array([3, 1, 4, 0, 2])
    assert minimise(mass, slopes[:, order], prior[order], caps[order], kl) == pytest.approx(ours[order], abs=1e-6)


def test_large_kl_returns_the_prior_and_no_kl_goes_to_a_corner():
    slopes = np.array([[-1.0, 0.0, 0.5]])
    prior = np.array([0.2, 0.3, 0.5])
    assert minimise(np.ones(1), slopes, prior, np.ones(3), 1e6) == pytest.approx(prior, abs=1e-5)
    assert minimise(np.ones(1), slopes, prior, np.ones(3), 0) == pytest.approx([1, 0, 0], abs=1e-6)
    assert minimise(np.ones(1), slopes, prior, np.array([0.4, 0.5, 1]), 0) == pytest.approx([0.4, 0.5, 0.1], abs=1e-6)


def test_proposal_beats_its_controls_by_its_own_law():
    weights, losses = swarm()
    law = LogLinear().fit(weights, losses, seed=0, domains=list("abcd"), slices=["x", "y"])
    found = KLProposal(kl=0.01).propose(law, PRIOR, seed=0)
    for control in ("prior", "uniform"):
        assert found.losses["proposed"].mean() < found.losses[control].mean()
    assert found.fold_weights.shape == (5, 4)
    assert found.fold_weights == pytest.approx(np.tile(found.weights, (5, 1)), abs=0.05)
    assert (found.low < found.losses["proposed"]).all()
    assert found.kl == pytest.approx(kl_divergence(found.weights, PRIOR))
    one = KLProposal(kl=0.01).propose(law, PRIOR, slice_weights=np.array([1, 0]), seed=0)
    assert one.weights[0] > found.weights[0]
    assert one.losses["proposed"][0] < found.losses["proposed"][0]


def test_dirichlet_mode():
    weights, losses = swarm()
    law = LogLinear().fit(weights, losses[:, 0], seed=0)
    exact = KLProposal(kl=0).propose(law, PRIOR, seed=0)
    drawn = DirichletProposal(num_draws=4000, num_best=16).propose(law, PRIOR, seed=0)
    assert drawn.losses["proposed"][0] == pytest.approx(exact.losses["proposed"][0], abs=0.02)
    assert (
        drawn.weights.tolist()
        == DirichletProposal(num_draws=4000, num_best=16).propose(law, PRIOR, seed=0).weights.tolist()
    )
    caps = np.array([0.5, 1, 1, 1])
    assert DirichletProposal(num_draws=4000, num_best=16).propose(law, PRIOR, caps, seed=0).weights[0] <= 0.5
    with pytest.raises(DataError, match="draws respect the caps, 16 are averaged"):
        DirichletProposal(num_draws=20, num_best=16).propose(law, PRIOR, np.full(4, 0.3), seed=0)
    gp = GaussianProcess().fit(weights, losses[:, 0], seed=0)
    assert DirichletProposal(num_draws=500, num_best=9).propose(gp, PRIOR, seed=0).weights.sum() == pytest.approx(1)
    with pytest.raises(DataError, match="the law is not log-linear"):
        KLProposal().propose(gp, PRIOR, seed=0)


def test_bad_priors_caps_and_slice_weights():
    weights, losses = swarm()
    law = LogLinear().fit(weights, losses, seed=0, domains=list("abcd"))
    with pytest.raises(DataError, match="domains have share 0, first 'd'"):
        KLProposal().propose(law, np.array([0.5, 0.3, 0.2, 0]), seed=0)
    with pytest.raises(DataError, match=r"sum to 0\.8000, below 1: 20\.0% of the budget"):
        KLProposal().propose(law, PRIOR, np.full(4, 0.2), seed=0)
    with pytest.raises(DataError, match="'b' has nan"):
        KLProposal().propose(law, PRIOR, np.array([1, np.nan, 1, 1]), seed=0)
    with pytest.raises(DataError, match=r"slice_weights: \[0, 0\]"):
        KLProposal().propose(law, PRIOR, slice_weights=np.array([0, 0]), seed=0)
    with pytest.raises(DataError, match="shape"):
        KLProposal().propose(law, PRIOR, np.ones(3), seed=0)


def test_repetition_caps():
    assert repetition_caps(np.array([10, 100, 1000]), 400, 4).tolist() == [0.1, 1, 1]
    with pytest.raises(UsageError, match="budget 0"):
        repetition_caps(np.ones(2), 0)
