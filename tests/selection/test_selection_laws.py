import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import DataError, MissingExtra, UsageError
from tamis.selection.mixture_laws import (
    AutoLaw,
    Boosted,
    GaussianProcess,
    LogLinear,
    Ridge,
    shuffled,
    spearman,
)
from tamis.selection.mixture_regressors import LogLinearFit, fit_gaussian_process, fit_log_linear, fit_ridge
from tamis.selection.swarm import Swarm, SwarmDesign, dirichlet

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "regmix"


def mixtures(num_runs, num_domains, seed=0):
    rng = np.random.Generator(np.random.Philox(seed))
    return rng.dirichlet(np.full(num_domains, 0.7), num_runs)


def truth(weights, slope, floor=2.0):
    return floor + np.exp(weights @ slope)


SLOPE = np.array([-1.0, 0.5, 1.0, 0.2])


def test_log_linear_hand_worked():
    fit = LogLinearFit(np.log(2.0), np.array([-1.0, 0.5]))
    assert fit.predict(np.array([[0.5, 0.5]])) == pytest.approx([2.77880], abs=1e-5)


def test_data_from_the_law_is_recovered():
    learn, new = mixtures(40, 4), mixtures(200, 4, seed=1)
    law = LogLinear().fit(learn, truth(learn, SLOPE), seed=0)
    assert spearman(law.predict(new), truth(new, SLOPE)) > 0.9999
    assert np.abs(law.predict(new) - truth(new, SLOPE)).max() < 5e-3


@pytest.mark.parametrize("law", [LogLinear(), GaussianProcess(), Ridge()])
def test_order_of_domains_and_runs_changes_nothing(law):
    weights = mixtures(30, 4)
    losses = truth(weights, SLOPE) + 0.05 * np.sin(np.arange(30) * 7)
    new = mixtures(9, 4, seed=2)
    plain = law.fit(weights, losses, seed=3)
    columns, rows = np.array([2, 0, 3, 1]), np.arange(30)[::-1]
    turned = law.fit(weights[rows][:, columns], losses[rows], seed=3)
    # the likelihood is flat along some lengths: the optimiser stops within its tolerance, not at the same bits
    assert turned.predict(new[:, columns]) == pytest.approx(plain.predict(new), abs=2e-3)
    assert turned.interval(new[:, columns])[0] == pytest.approx(plain.interval(new)[0], abs=2e-2)


def test_same_seed_same_bytes():
    weights = mixtures(24, 4)
    losses = truth(weights, SLOPE)
    one, two = (GaussianProcess().fit(weights, losses, seed=5) for _ in range(2))
    assert one.residuals_NM.tobytes() == two.residuals_NM.tobytes()
    assert one.predict(weights).tobytes() == two.predict(weights).tobytes()


def test_every_run_is_held_out_once():
    weights = mixtures(23, 4)
    losses = np.column_stack([truth(weights, SLOPE), truth(weights, -SLOPE)])
    law = Ridge().fit(weights, losses, seed=1)
    order = shuffled(law.weights_ND, 1, 1)
    held = np.array_split(order, 5)
    assert sorted(np.concatenate(held).tolist()) == list(range(23))
    for rows, fold in zip(held, law.fold_models, strict=True):
        for m in range(2):
            learn = np.setdiff1d(np.arange(23), rows)
            again = fit_ridge(law.weights_ND[learn], losses[learn, m])
            assert fold[m].predict(law.weights_ND) == pytest.approx(again.predict(law.weights_ND))
            assert law.residuals_NM[rows, m] == pytest.approx(losses[rows, m] - again.predict(law.weights_ND[rows]))
    assert law.predict(weights).shape == (23, 2)


def test_interval_is_the_conformal_quantile_of_residuals():
    weights = mixtures(20, 3)
    law = Ridge().fit(weights, truth(weights, SLOPE[:3]), seed=0)
    low, high = law.interval(weights[:2], 0.9)
    size = np.sort(np.abs(law.residuals_NM[:, 0]))[18]  # ceil(21 * .9) = 19th of 20
    assert (high - low) / 2 == pytest.approx([size, size])
    with pytest.raises(UsageError, match="coverage 90"):
        law.interval(weights, 90)


def test_log_linear_gradient_by_differences(monkeypatch):
    from scipy import optimize

    seen = []

    def spy(objective, start, **options):
        seen.append(objective)
        return real(objective, start, **options)

    real = optimize.minimize
    monkeypatch.setattr(optimize, "minimize", spy)
    weights = mixtures(20, 3)
    losses = truth(weights, SLOPE[:3]) + 0.03 * np.cos(np.arange(20) * 5)
    fit_log_linear(weights, losses, 0.02, 1e-3)
    fit_gaussian_process(weights, losses, None)
    points = [np.array([0.1, 0.3, -0.2, 0.4]), np.array([0.2, 0.5, -0.1, 0.3, -2.0])]
    for objective, at in zip([seen[0], seen[-1]], points, strict=True):
        wanted = optimize.approx_fprime(at, lambda x, f=objective: f(x)[0], 1e-6)
        assert objective(at)[1] == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_gaussian_process_against_scikit_learn():
    gp = pytest.importorskip("sklearn.gaussian_process")
    kernels = gp.kernels
    weights = mixtures(25, 3)
    losses = truth(weights, SLOPE[:3])
    ours = fit_gaussian_process(weights, losses, None)
    kernel = kernels.ConstantKernel(ours.amplitude) * kernels.RBF(1 / ours.inverse_length_D) + kernels.WhiteKernel(
        float(np.exp(ours.theta[-1])) + 1e-9
    )
    logs = np.log(weights + 1e-3)
    peer = gp.GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True, alpha=0)
    peer.fit((logs - logs.mean(0)) / logs.std(0), losses)
    new = mixtures(10, 3, seed=4)
    wanted = peer.predict((np.log(new + 1e-3) - logs.mean(0)) / logs.std(0))
    assert ours.predict(new) == pytest.approx(wanted, abs=1e-6)


def test_ridge_penalty_is_the_best_of_leave_one_out():
    linear = pytest.importorskip("sklearn.linear_model")
    weights = mixtures(12, 3)
    losses = truth(weights, SLOPE[:3]) + 0.1 * np.sin(np.arange(12) * 3)
    ours = fit_ridge(weights, losses)
    features = (np.hstack([np.sqrt(weights), weights]) - ours.center) / ours.spread
    errors = {}
    for ridge in np.geomspace(1e-6, 1e3, 28):
        held = [np.setdiff1d(np.arange(12), [i]) for i in range(12)]
        # leave-one-out with the standardisation of all rows, as the closed form has it
        got = [
            linear.Ridge(ridge).fit(features[rows], losses[rows]).predict(features[[i]])[0]
            for i, rows in enumerate(held)
        ]
        errors[ridge] = float(((losses - got) ** 2).mean())
    best = min(errors, key=errors.get)
    peer = linear.Ridge(best).fit(features, losses)
    assert ours.coefficients == pytest.approx(peer.coef_, rel=1e-4, abs=1e-6)


def test_auto_takes_the_gaussian_process_below_32_runs():
    weights = mixtures(40, 4)
    losses = truth(weights, SLOPE)
    assert isinstance(AutoLaw().fit(weights[:31], losses[:31], seed=0).settings, GaussianProcess)
    assert isinstance(AutoLaw().fit(weights[:32], losses[:32], seed=0).settings, LogLinear)
    assert isinstance(AutoLaw().choice(40, 40), GaussianProcess)


def test_ablation_ranks_the_rest():
    weights = mixtures(40, 4)
    law = LogLinear().fit(weights, truth(weights, SLOPE), seed=0)
    table = law.ablation([10, 20], repeats=2, seed=0)
    assert table["n"].to_pylist() == [10, 20, 10, 20]
    assert table["num_held_out"].to_pylist() == [30, 20, 30, 20]
    assert min(table["spearman"].to_pylist()) > 0.99
    with pytest.raises(UsageError, match="n = 33 of 40"):
        law.ablation([33], seed=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w, y: (w * 1.1, y), "12 of 12 rows do not sum to 1, first row 0: 1.1000"),
        (
            lambda w, y: (np.where(np.eye(12, 3) > 0, -0.1, w), y),
            "3 weights are negative or not finite, first in row 0",
        ),
        (lambda w, y: (w, np.where(np.arange(12) < 2, np.nan, y)), r"2 losses are not finite \('cc': 2\), in 2 of 12"),
        (lambda w, y: (w[:6], y[:6]), "6 runs"),
        (lambda w, y: (w[:, :2] / w[:, :2].sum(1, keepdims=True), y), "2 weights a row for 3 domains"),
        (lambda w, y: (w, y[:5]), "for 12 runs"),
        (lambda w, y: (w, y - 9), "losses are 0 or less"),
        (lambda w, y: (np.c_[w[:, :2] / w[:, :2].sum(1, keepdims=True), np.zeros(12)], y), "first 'c'"),
    ],
)
def test_bad_swarms(change, words):
    weights = mixtures(12, 3)
    weights, losses = change(weights, truth(weights, SLOPE[:3]))
    with pytest.raises(DataError, match=words):
        LogLinear().fit(weights, losses, seed=0, domains=["a", "b", "c"], slices=["cc"])


def test_fewer_runs_than_parameters():
    weights = mixtures(10, 12)
    losses = np.linspace(3, 4, 10)
    with pytest.raises(DataError, match="10 runs for 13 parameters"):
        LogLinear().fit(weights, losses, seed=0)
    assert np.isfinite(LogLinear(allow_underdetermined=True).fit(weights, losses, seed=0).predict(weights)).all()


def test_boosted_without_lightgbm(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    weights = mixtures(80, 3)
    with pytest.raises(MissingExtra, match=r"pip install 'tamis\[mixture\]'"):
        Boosted().fit(weights, truth(weights, SLOPE[:3]), seed=0)


def test_boosted():
    pytest.importorskip("lightgbm")
    weights, new = mixtures(200, 3), mixtures(100, 3, seed=1)
    law = Boosted().fit(weights, truth(weights, SLOPE[:3]), seed=0)
    again = Boosted().fit(weights, truth(weights, SLOPE[:3]), seed=0)
    assert spearman(law.predict(new), truth(new, SLOPE[:3])) > 0.95
    assert law.predict(new).tobytes() == again.predict(new).tobytes()
    with pytest.raises(DataError, match="no tree splits below 64 runs"):
        Boosted().fit(weights[:40], truth(weights[:40], SLOPE[:3]), seed=0)


def test_swarm_files(tmp_path):
    swarm = Swarm(("r1", "r2"), ("a", "b"), ("x",), np.array([[0.25, 0.75], [1, 0]]), np.array([[2.5], [np.nan]]))
    swarm.write(tmp_path)
    read = Swarm.read(tmp_path / "ratios.csv", tmp_path / "metrics.csv")
    assert (read.runs, read.domains, read.slices) == (swarm.runs, swarm.domains, swarm.slices)
    assert read.weights.tolist() == swarm.weights.tolist()
    kept, lost = read.complete()
    assert (kept.runs, lost) == (("r1",), ("r2",))
    ratios, metrics = tmp_path / "ratios.csv", tmp_path / "metrics.csv"
    metrics.write_text("run_id,x\nr2,1\nr1,2\n")
    assert Swarm.read(ratios, metrics).losses[:, 0].tolist() == [2, 1]  # joined, not zipped
    metrics.write_text("run_id,x\nr2,1\nr3,2\n")
    with pytest.raises(DataError, match="2 runs are in one file only, first 'r1'"):
        Swarm.read(ratios, metrics)
    metrics.write_text("run_id,x\nr2,1\nr2,2\n")
    with pytest.raises(DataError, match="'r2' occurs twice"):
        Swarm.read(ratios, metrics)
    metrics.write_text("id,x\nr2,1\n")
    with pytest.raises(DataError, match="no run column in common"):
        Swarm.read(ratios, metrics)


def test_dirichlet_has_the_moments_of_the_distribution():
    alpha = np.array([0.5, 2.0, 0.02])
    drawn = dirichlet(np.tile(alpha, (20_000, 1)), ["a", "b", "c"], 0, "test")
    mean = alpha / alpha.sum()
    assert drawn.sum(axis=1) == pytest.approx(np.ones(20_000))
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.01)
    assert drawn.var(axis=0) == pytest.approx(mean * (1 - mean) / (alpha.sum() + 1), rel=0.1)
    corners = dirichlet(np.full((300, 3), 1e-4), ["a", "b", "c"], 0, "test")  # gamma draws below the smallest float
    assert np.sort(corners, axis=1)[:, 2] == pytest.approx(np.ones(300), abs=1e-3)
    assert corners.mean(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=0.1)
    turned = dirichlet(np.tile(alpha[::-1], (50, 1)), ["c", "b", "a"], 0, "test")
    assert turned[:, ::-1] == pytest.approx(drawn[:50])


def test_design_keeps_the_bounds():
    prior = np.array([0.6, 0.3, 0.08, 0.02])
    runs = SwarmDesign().design(prior, 16, seed=0, domains=["a", "b", "c", "d"])
    assert runs.shape == (16, 4)
    assert runs[0] == pytest.approx(prior)
    assert runs[1:5].tolist() == np.eye(4).tolist()
    assert runs.sum(axis=1) == pytest.approx(np.ones(16))
    assert runs[5:, 3].max() <= 15 * 0.02 / (1 - 3 * 2e-4)
    free = runs[runs > 0]
    assert free.min() >= 2e-4
    gaps = np.abs(runs[:, None] - runs).sum(-1) + np.eye(16)
    assert gaps.min() > 1e-5
    with pytest.raises(DataError, match="1 domains have share 0, first 'c'"):
        SwarmDesign().design(np.array([0.5, 0.5, 0]), 4, seed=0, domains=["a", "b", "c"])
    with pytest.raises(DataError, match="draws respect max_upsampling"):
        SwarmDesign(max_upsampling=1).design(prior, 8, seed=0)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_spearman_against_scipy(values, random):
    from scipy.stats import spearmanr

    left = np.array(values, float)
    right = left.copy()
    random.shuffle(right)
    if np.ptp(left) == 0:
        assert np.isnan(spearman(left, right))
    else:
        assert spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="shared data absent")
def test_sixty_four_small_runs_rank_large_ones():
    train = Swarm.read(DATA / "train_mixture_1m.csv", DATA / "train_pile_loss_1m.csv")
    large = Swarm.read(DATA / "test_mixture_1B.csv", DATA / "test_pile_loss_1B.csv")
    same = Swarm.read(DATA / "test_mixture_1m.csv", DATA / "test_pile_loss_1m.csv")
    at = train.slices.index("metric/the_pile_pile_cc_val_loss")
    rows = shuffled(train.weights, 0, 99)[:64]
    law = LogLinear().fit(train.weights[rows], train.losses[rows, at], seed=0)
    assert spearman(law.predict(large.weights), large.losses[:, at]) >= 0.97
    low, high = law.interval(same.weights)
    assert 0.85 <= np.mean((low <= same.losses[:, at]) & (same.losses[:, at] <= high)) <= 0.97
    control = []  # whose loss is whose
    for turn in range(1, 5):
        mixed = LogLinear().regress(train.weights[rows], train.losses[np.roll(rows, 7 * turn), at], seed=0)
        control.append(spearman(mixed.predict(large.weights), large.losses[:, at]))
    assert abs(np.mean(control)) < 0.6
