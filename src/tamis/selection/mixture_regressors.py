"""Regressions from mixture weights to one loss: log-linear, Gaussian process, ridge, boosted trees.

Source: Ye et al. 2024, Data Mixing Laws, arXiv:2403.16952 (log-linear form; Huber loss as in allenai/olmix);
Rasmussen, Williams 2006 (Gaussian process); Liu et al. 2024, RegMix, arXiv:2407.01492 (LightGBM).
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from tamis.errors import MissingExtra

_FLOORS = (0.05, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Starts of the log-linear fit: the share of the lowest loss that no mixture removes."""
_FIRST_STEPS, _LAST_STEPS = 100, 2000
_LOG_SHIFT = 1e-3
_MAX_EXPONENT = 60.0
_RIDGES = np.geomspace(1e-6, 1e3, 28)


class Regression(Protocol):
    """Predicts a loss from mixtures."""

    def predict(self, weights_KD: np.ndarray) -> np.ndarray:
        """Return float64 [K]."""
        ...


@dataclass(frozen=True)
class LogLinearFit:
    """L(w) = exp(offset) + exp(w · slope_D)."""

    offset: float
    slope_D: np.ndarray

    @property
    def theta(self) -> np.ndarray:
        """Offset and slopes in one array, a start for further fits."""
        theta: np.ndarray = np.r_[self.offset, self.slope_D]
        return theta

    def predict(self, weights_KD: np.ndarray) -> np.ndarray:
        """Return float64 [K]."""
        predicted: np.ndarray = np.exp(self.offset) + np.exp(np.minimum(weights_KD @ self.slope_D, _MAX_EXPONENT))
        return predicted


def fit_log_linear(
    weights_ND: np.ndarray, losses_N: np.ndarray, huber_delta: float, ridge: float, start: np.ndarray | None = None
) -> LogLinearFit:
    """Minimise the mean Huber loss plus ridge·|slope - its mean|² by L-BFGS. O(N·D) a step.

    The penalty pulls to the mean slope, not to 0: a domain that the runs say little of is taken as an average one.

    Args:
      weights_ND: mixtures.
      losses_N: their losses, above 0.
      huber_delta: loss at which an error begins to count linearly.
      ridge: of the penalty.
      start: offset and slopes to begin from; None: the best of six after 100 steps, each of which fixes a floor and
        solves log(loss - floor) = w·slope by ridge regression: no random numbers, and another order of domains
        permutes the starts.
    """
    from scipy.optimize import minimize

    num_runs, num_domains = weights_ND.shape

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        floor = np.exp(min(theta[0], _MAX_EXPONENT))
        growth_N = np.exp(np.minimum(weights_ND @ theta[1:], _MAX_EXPONENT))
        error_N = floor + growth_N - losses_N
        size_N = np.abs(error_N)
        huber = np.where(size_N <= huber_delta, error_N**2 / 2, huber_delta * (size_N - huber_delta / 2)).mean()
        deviation_D = theta[1:] - theta[1:].mean()
        pull_N = np.clip(error_N, -huber_delta, huber_delta) / num_runs
        gradient = np.r_[pull_N.sum() * floor, weights_ND.T @ (pull_N * growth_N) + 2 * ridge * deviation_D]
        return (huber + ridge * float(deviation_D @ deviation_D)) / huber_delta, gradient / huber_delta

    gram_DD = weights_ND.T @ weights_ND + 1e-3 * np.eye(num_domains)

    def descend(begin: np.ndarray, steps: int) -> Any:  # noqa: ANN401 - scipy's result
        options = {"maxiter": steps, "maxfun": 2 * steps, "ftol": 1e-11}
        return minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)

    if start is None:
        starts = []
        for floor in losses_N.min() * np.array(_FLOORS):
            slope_D = np.linalg.solve(gram_DD, weights_ND.T @ np.log(losses_N - floor))
            starts.append(np.r_[np.log(floor), slope_D])
        start = min((descend(begin, _FIRST_STEPS) for begin in starts), key=lambda result: float(result.fun)).x
    best = descend(start, _LAST_STEPS).x
    return LogLinearFit(float(best[0]), best[1:])


@dataclass(frozen=True)
class GaussianProcessFit:
    """Posterior mean of a Gaussian process over standardised log(w + 1e-3)."""

    inputs_ND: np.ndarray
    center_D: np.ndarray
    spread_D: np.ndarray
    inverse_length_D: np.ndarray
    amplitude: float
    dual_N: np.ndarray
    mean: float
    theta: np.ndarray

    def predict(self, weights_KD: np.ndarray) -> np.ndarray:
        """Return float64 [K]."""
        inputs_KD = (np.log(weights_KD + _LOG_SHIFT) - self.center_D) / self.spread_D
        kernel_KN = _rbf(inputs_KD * self.inverse_length_D, self.inputs_ND * self.inverse_length_D)
        predicted: np.ndarray = self.mean + self.amplitude * (kernel_KN @ self.dual_N)
        return predicted


def _rbf(left_KD: np.ndarray, right_ND: np.ndarray) -> np.ndarray:
    squares = (left_KD**2).sum(1)[:, None] + (right_ND**2).sum(1) - 2 * left_KD @ right_ND.T
    kernel: np.ndarray = np.exp(-0.5 * np.maximum(squares, 0))
    return kernel


def fit_gaussian_process(weights_ND: np.ndarray, losses_N: np.ndarray, start: np.ndarray | None) -> GaussianProcessFit:
    """Maximise the marginal likelihood of constant x RBF (one length a domain) + white noise. O(N³ + N²·D) a step.

    Args:
      weights_ND: mixtures.
      losses_N: their losses.
      start: log amplitude, D log lengths, log noise to begin from; None: three starts of equal lengths.
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    logs_ND = np.log(weights_ND + _LOG_SHIFT)
    center_D, spread_D = logs_ND.mean(axis=0), logs_ND.std(axis=0)
    spread_D = np.where(spread_D > 0, spread_D, 1.0)
    inputs_ND = (logs_ND - center_D) / spread_D
    num_runs, num_domains = inputs_ND.shape
    mean, scale = losses_N.mean(), losses_N.std() or 1.0
    target_N = (losses_N - mean) / scale

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        amplitude, inverse_D, noise = np.exp(theta[0]), np.exp(-theta[1:-1]), np.exp(theta[-1])
        scaled_ND = inputs_ND * inverse_D
        kernel_NN = amplitude * _rbf(scaled_ND, scaled_ND)
        factor = cho_factor(kernel_NN + (noise + 1e-9) * np.eye(num_runs), lower=True)
        dual_N = cho_solve(factor, target_N)
        value = 0.5 * target_N @ dual_N + np.log(np.diag(factor[0])).sum()
        pull_NN = 0.5 * (cho_solve(factor, np.eye(num_runs)) - np.outer(dual_N, dual_N))
        felt_NN = pull_NN * kernel_NN
        # sum_ij felt_ij (x_i - x_j)^2 without an N x N x D array
        lengths_D = 2 * (felt_NN.sum(1) @ scaled_ND**2 - (scaled_ND * (felt_NN @ scaled_ND)).sum(0))
        return float(value), np.r_[felt_NN.sum(), lengths_D, noise * np.trace(pull_NN)]

    bounds = [(-5.0, 7.0), *[(-2.0, 7.0)] * num_domains, (-12.0, 1.0)]
    starts = (
        [start]
        if start is not None
        else [
            np.r_[0.0, np.full(num_domains, length), noise] for length, noise in ((1.0, -3.0), (2.0, -5.0), (0.5, -1.0))
        ]
    )
    found = [
        minimize(objective, s, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}) for s in starts
    ]
    theta = min(found, key=lambda result: float(result.fun)).x
    amplitude, inverse_D, noise = np.exp(theta[0]), np.exp(-theta[1:-1]), np.exp(theta[-1])
    kernel_NN = amplitude * _rbf(inputs_ND * inverse_D, inputs_ND * inverse_D) + (noise + 1e-9) * np.eye(num_runs)
    dual_N = scale * cho_solve(cho_factor(kernel_NN, lower=True), target_N)
    return GaussianProcessFit(
        inputs_ND, center_D, spread_D, inverse_D, float(amplitude), dual_N, float(mean), np.asarray(theta)
    )


@dataclass(frozen=True)
class RidgeFit:
    """Linear in the square roots of the weights and the weights."""

    center: np.ndarray
    spread: np.ndarray
    coefficients: np.ndarray
    mean: float

    def predict(self, weights_KD: np.ndarray) -> np.ndarray:
        """Return float64 [K]."""
        features = (np.hstack([np.sqrt(weights_KD), weights_KD]) - self.center) / self.spread
        predicted: np.ndarray = self.mean + features @ self.coefficients
        return predicted


def fit_ridge(weights_ND: np.ndarray, losses_N: np.ndarray) -> RidgeFit:
    """Ridge regression; the penalty of lowest leave-one-out error among 28, in closed form. O(N·D² + D³)."""
    features = np.hstack([np.sqrt(weights_ND), weights_ND])
    center, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    features = (features - center) / spread
    mean = losses_N.mean()
    left, singular, right = np.linalg.svd(features, full_matrices=False)
    seen = left.T @ (losses_N - mean)
    best = (np.inf, 0.0)
    for ridge in _RIDGES:
        shrunk = singular**2 / (singular**2 + ridge)
        leverage_N = (left**2 * shrunk).sum(axis=1) + 1 / len(losses_N)
        errors_N = (losses_N - mean - left @ (shrunk * seen)) / np.maximum(1 - leverage_N, 1e-9)
        best = min(best, (float((errors_N**2).mean()), float(ridge)))
    coefficients = right.T @ (singular / (singular**2 + best[1]) * seen)
    return RidgeFit(center, spread, coefficients, float(mean))


@dataclass(frozen=True)
class BoostedFit:
    """LightGBM trees as text: picklable, and the same on every machine."""

    trees: str

    def predict(self, weights_KD: np.ndarray) -> np.ndarray:
        """Return float64 [K]."""
        return np.asarray(lightgbm().Booster(model_str=self.trees).predict(weights_KD, num_threads=1), np.float64)


def fit_boosted(
    weights_ND: np.ndarray,
    losses_N: np.ndarray,
    is_held_N: np.ndarray,
    options: dict[str, Any],
    rounds: int,
    patience: int,
) -> BoostedFit:
    """Boost on the runs not held, stop on the held ones, then boost on all for as many rounds.

    Raises:
      MissingExtra: LightGBM is not installed.
    """
    library = lightgbm()
    fixed = {
        "objective": "regression",
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    # LightGBM asks for data_random_seed and the like only where rows or columns are sampled: they are not
    learn = library.Dataset(weights_ND[~is_held_N], losses_N[~is_held_N])
    check = library.Dataset(weights_ND[is_held_N], losses_N[is_held_N], reference=learn)
    stop = library.early_stopping(patience, verbose=False)
    tried = library.train({**fixed, **options}, learn, rounds, valid_sets=[check], callbacks=[stop])
    whole = library.Dataset(weights_ND, losses_N)
    trees = library.train({**fixed, **options}, whole, max(1, tried.best_iteration))
    return BoostedFit(trees.model_to_string())


def lightgbm() -> Any:  # noqa: ANN401 - a module without types
    """Return the LightGBM module.

    Raises:
      MissingExtra: it is not installed.
    """
    try:
        return import_module("lightgbm")
    except ImportError as error:
        raise MissingExtra(
            "Boosted needs LightGBM, which is not installed: pip install 'tamis[mixture]'. "
            "LogLinear and GaussianProcess need nothing more and rank better from few runs."
        ) from error
