"""Mixture laws: from a table of small runs to the loss of any mixture, with intervals and an ablation in the runs.

Source: Liu et al. 2024, RegMix, arXiv:2407.01492 (Boosted is its mode); Ye et al. 2024, Data Mixing Laws,
arXiv:2403.16952 (LogLinear); Diao et al. 2025, CLIMB, arXiv:2504.13161; intervals and the switch by number of runs:
measured, docs/evidence.md.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.settings import Settings
from tamis.errors import DataError, UsageError
from tamis.ops.hashing import splitmix64, uniform
from tamis.selection.mixture_regressors import (
    LogLinearFit,
    Regression,
    fit_boosted,
    fit_gaussian_process,
    fit_log_linear,
    fit_ridge,
    lightgbm,
)
from tamis.selection.swarm import checked_losses, checked_weights, named, run_keys

NUM_FOLDS = 5
MIN_RUNS = 8
GP_BELOW = 32
_MAX_GP_RUNS = 4096
_FOLDS_SALT, _ABLATION_SALT, _STOP_SALT = 1, 2, 3


def shuffled(weights_ND: np.ndarray, seed: int, salt: int) -> np.ndarray:
    """Return rows in a keyed random order that does not depend on the order of rows or domains; int64 [N]."""
    order: np.ndarray = np.argsort(uniform(run_keys(weights_ND) ^ splitmix64(salt), seed, "mixture"), kind="stable")
    return order


class Law(Settings):
    """Base of the laws: `fit` checks the table, fits each slice, and fits again without each fifth of the runs."""

    def fit(
        self,
        weights: np.ndarray,
        losses: np.ndarray,
        *,
        seed: int,
        domains: Sequence[str] | None = None,
        slices: Sequence[str] | None = None,
    ) -> "FittedLaw":
        """Fit one law a slice, and five more a slice for the intervals.

        Args:
          weights: float64 [N, D], rows sum to 1.
          losses: float64 [N], or [N, M] for M dev slices; lower is better (1 - nDCG for a measure).
          seed: of the folds.
          domains: D names, for errors and proposals.
          slices: M names, for errors.

        Raises:
          DataError: weights or losses refused, fewer runs than the law needs, a domain in no run.
          MissingExtra: the law needs a package that is not installed.
        """
        weights_ND = checked_weights(weights, domains, "swarm")
        losses_NM = checked_losses(losses, len(weights_ND), slices, "swarm")
        self.check(weights_ND, losses_NM)
        unseen = np.flatnonzero(weights_ND.max(axis=0) == 0)
        if len(unseen):
            raise DataError(
                f"swarm: {len(unseen)} domains have weight 0 in all {len(weights_ND)} runs, first "
                f"{named(domains, int(unseen[0]))}: nothing can be said about it. Add a run with it, or leave it out."
            )
        num_slices = losses_NM.shape[1]
        models = tuple(self.regress(weights_ND, losses_NM[:, m], seed=seed) for m in range(num_slices))
        order = shuffled(weights_ND, seed, _FOLDS_SALT)
        residuals_NM = np.empty_like(losses_NM)
        fold_models = []
        for held in np.array_split(order, NUM_FOLDS):
            learn = np.setdiff1d(order, held)
            fold = tuple(
                self.regress(weights_ND[learn], losses_NM[learn, m], seed=seed, near=models[m])
                for m in range(num_slices)
            )
            residuals_NM[held] = losses_NM[held] - np.column_stack([f.predict(weights_ND[held]) for f in fold])
            fold_models.append(fold)
        return FittedLaw(
            settings=self,
            domains=tuple(domains) if domains is not None else tuple(str(d) for d in range(weights_ND.shape[1])),
            slices=tuple(slices) if slices is not None else tuple(str(m) for m in range(num_slices)),
            weights_ND=weights_ND,
            losses_NM=losses_NM,
            models=models,
            fold_models=tuple(fold_models),
            residuals_NM=residuals_NM,
            is_single=np.ndim(losses) == 1,
        )

    def check(self, weights_ND: np.ndarray, losses_NM: np.ndarray) -> None:
        """Refuse a swarm this law cannot be fitted to."""
        if len(weights_ND) < MIN_RUNS:
            raise DataError(f"swarm: {len(weights_ND)} runs. A law and its interval need {MIN_RUNS} or more.")

    @abstractmethod
    def regress(
        self, weights_ND: np.ndarray, losses_N: np.ndarray, *, seed: int, near: Regression | None = None
    ) -> Regression:
        """Fit one slice, unchecked; ``near`` is the fit to more of the same runs, where one is at hand."""


class LogLinear(Law):
    """L(w) = exp(c) + exp(w·t): convex in the weights, so a proposal from it has one optimum.

    On RegMix's tables it ranks large models best for the broad slice (Pile-CC); for narrow slices, whose loss falls
    steeply with the first few percent of their own domain, GaussianProcess does (docs/evidence.md, mixtures).

    Attributes:
      huber_delta: loss at which an error begins to count linearly; allenai/olmix uses 0.02.
      ridge: penalty on the spread of t over the domains, for those that never get much weight.
      allow_underdetermined: fit although there are fewer runs than the D + 1 parameters; the ridge then decides.
    """

    method: Literal["log_linear"] = "log_linear"
    huber_delta: Annotated[float, Field(gt=0)] = 0.02
    ridge: Annotated[float, Field(ge=0)] = 1e-6
    allow_underdetermined: bool = False

    def check(self, weights_ND: np.ndarray, losses_NM: np.ndarray) -> None:
        """Refuse losses of 0 and below, which no exponential reaches, and fewer runs than parameters."""
        super().check(weights_ND, losses_NM)
        num_runs, num_parameters = len(weights_ND), weights_ND.shape[1] + 1
        if losses_NM.min() <= 0:
            raise DataError(
                f"swarm: {int((losses_NM <= 0).sum())} losses are 0 or less, lowest {losses_NM.min():g}. "
                "Give losses above 0, lower is better (1 - nDCG for a measure)."
            )
        if num_runs < num_parameters and not self.allow_underdetermined:
            raise DataError(
                f"swarm: {num_runs} runs for {num_parameters} parameters of a log-linear law. "
                "Add runs, join domains, or take GaussianProcess."
            )

    def regress(
        self, weights_ND: np.ndarray, losses_N: np.ndarray, *, seed: int, near: Regression | None = None
    ) -> LogLinearFit:
        """Fit one slice; from the parameters of ``near`` where given."""
        return fit_log_linear(weights_ND, losses_N, self.huber_delta, self.ridge, getattr(near, "theta", None))


class GaussianProcess(Law):
    """Gaussian process over log weights, one length scale a domain: the better fit to runs of the swarm's own size.

    It needs few runs; its order carries over to larger models less well than LogLinear's on a broad slice, better on
    narrow ones.
    """

    method: Literal["gaussian_process"] = "gaussian_process"

    def check(self, weights_ND: np.ndarray, losses_NM: np.ndarray) -> None:
        """Refuse what would take hours."""
        super().check(weights_ND, losses_NM)
        if len(weights_ND) > _MAX_GP_RUNS:
            raise DataError(
                f"swarm: {len(weights_ND)} runs; a Gaussian process grows with their cube, at most {_MAX_GP_RUNS}. "
                "Take LogLinear."
            )

    def regress(
        self, weights_ND: np.ndarray, losses_N: np.ndarray, *, seed: int, near: Regression | None = None
    ) -> Regression:
        """Fit one slice; from the hyperparameters of ``near`` where given."""
        return fit_gaussian_process(weights_ND, losses_N, getattr(near, "theta", None))


class Ridge(Law):
    """Control: ridge regression on the weights and their square roots."""

    method: Literal["ridge"] = "ridge"

    def regress(
        self, weights_ND: np.ndarray, losses_N: np.ndarray, *, seed: int, near: Regression | None = None
    ) -> Regression:
        """Fit one slice."""
        return fit_ridge(weights_ND, losses_N)


class Boosted(Law):
    """LightGBM, as RegMix: needs hundreds of runs, and the extra ``mixture``.

    The paper stops boosting on its test runs; here every fifth run of the swarm decides how long.

    Attributes:
      rounds: at most; the paper uses 1000.
      learning_rate: the paper uses 0.01.
      patience: rounds without a better held-out error before it stops; RegMix 3, CLIMB 20.
      min_leaf_runs: RegMix 20 (the library's default), CLIMB 5.
      max_depth: of a tree, -1 is unlimited; CLIMB 4.
      penalty: L1 and L2, both; 0 in RegMix.
    """

    method: Literal["boosted"] = "boosted"
    rounds: Annotated[int, Field(ge=1)] = 1000
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    patience: Annotated[int, Field(ge=1)] = 3
    min_leaf_runs: Annotated[int, Field(ge=1)] = 20
    max_depth: Annotated[int, Field(ge=-1)] = -1
    penalty: Annotated[float, Field(ge=0)] = 0.0

    def check(self, weights_ND: np.ndarray, losses_NM: np.ndarray) -> None:
        """Refuse a swarm so small that no tree can split and every mixture gets the same prediction."""
        lightgbm()
        super().check(weights_ND, losses_NM)
        # two leaves of the runs that are left when a fold and the runs that stop the boosting are out
        needed = int(np.ceil(2 * self.min_leaf_runs / 0.8 / 0.8)) + 1
        if len(weights_ND) < needed:
            raise DataError(
                f"swarm: {len(weights_ND)} runs; with {self.min_leaf_runs} a leaf no tree splits below {needed} runs "
                "and every prediction is the mean. Lower min_leaf_runs, or take LogLinear."
            )

    def regress(
        self, weights_ND: np.ndarray, losses_N: np.ndarray, *, seed: int, near: Regression | None = None
    ) -> Regression:
        """Fit one slice."""
        order = shuffled(weights_ND, seed, _STOP_SALT)
        is_held_N = np.zeros(len(order), dtype=bool)
        is_held_N[order[: max(1, len(order) // NUM_FOLDS)]] = True
        options: dict[str, Any] = {
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_leaf_runs,
            "max_depth": self.max_depth,
            "lambda_l1": self.penalty,
            "lambda_l2": self.penalty,
        }
        return fit_boosted(weights_ND, losses_N, is_held_N, options, self.rounds, self.patience)


class AutoLaw(Law):
    """GaussianProcess below 32 runs or below the log-linear law's D + 1 parameters, else LogLinear."""

    method: Literal["auto"] = "auto"

    def choice(self, num_runs: int, num_domains: int) -> "LogLinear | GaussianProcess":
        """Return the law for a swarm of this size."""
        return GaussianProcess() if num_runs < max(GP_BELOW, num_domains + 1) else LogLinear()

    def fit(
        self,
        weights: np.ndarray,
        losses: np.ndarray,
        *,
        seed: int,
        domains: Sequence[str] | None = None,
        slices: Sequence[str] | None = None,
    ) -> "FittedLaw":
        """Fit the law of choice; ``settings`` of the result says which it was."""
        table_ND = checked_weights(weights, domains, "swarm")
        return self.choice(*table_ND.shape).fit(table_ND, losses, seed=seed, domains=domains, slices=slices)

    def regress(
        self, weights_ND: np.ndarray, losses_N: np.ndarray, *, seed: int, near: Regression | None = None
    ) -> Regression:
        """Fit one slice with the law of choice."""
        return self.choice(*weights_ND.shape).regress(weights_ND, losses_N, seed=seed, near=near)


MixtureLaw = Annotated[AutoLaw | LogLinear | GaussianProcess | Ridge | Boosted, Field(discriminator="method")]


@dataclass(frozen=True)
class FittedLaw:
    """A law fitted to a swarm, one model a slice.

    Attributes:
      settings: the law; for AutoLaw the one it chose.
      domains: D names.
      slices: M names.
      weights_ND: the swarm's mixtures.
      losses_NM: their losses.
      models: one a slice.
      fold_models: five times one a slice, each fitted without a fifth of the runs.
      residuals_NM: loss minus the prediction of the fold that had not seen the run.
      is_single: the losses were given as a vector, and predictions are vectors.
    """

    settings: Law
    domains: tuple[str, ...]
    slices: tuple[str, ...]
    weights_ND: np.ndarray
    losses_NM: np.ndarray
    models: tuple[Regression, ...]
    fold_models: tuple[tuple[Regression, ...], ...]
    residuals_NM: np.ndarray
    is_single: bool

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """Return losses float64 [K], or [K, M] where the law was fitted to M slices.

        Raises:
          DataError: weights [K, D] refused.
        """
        weights_KD = checked_weights(weights, self.domains, "mixtures")
        losses_KM = np.column_stack([model.predict(weights_KD) for model in self.models])
        return losses_KM[:, 0] if self.is_single else losses_KM

    def interval(self, weights: np.ndarray, coverage: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Return low and high, shaped as `predict`: the prediction and a quantile of the out-of-fold errors' sizes.

        They speak of further runs drawn like the swarm's and of the swarm's size, not of a larger model, whose losses
        lie elsewhere while their order stays.

        Raises:
          UsageError: coverage not between 0 and 1.
        """
        if not 0 < coverage < 1:
            raise UsageError(f"interval: coverage {coverage}. Give a share between 0 and 1, such as 0.9.")
        num_runs = len(self.residuals_NM)
        rank = min(int(np.ceil((num_runs + 1) * coverage)), num_runs)  # conformal: one more run is as likely anywhere
        half_M = np.sort(np.abs(self.residuals_NM), axis=0)[rank - 1]
        mean = self.predict(weights)
        half = half_M[0] if self.is_single else half_M
        return mean - half, mean + half

    def ablation(self, ns: Sequence[int], repeats: int = 3, *, seed: int = 0) -> pa.Table:
        """Fit to n of the swarm's runs, rank the rest: is the swarm large enough?

        Args:
          ns: sizes, each at least MIN_RUNS and leaving 8 runs to rank.
          repeats: keyed random subsets a size.
          seed: of the subsets.

        Returns:
          slice, n, repeat, num_held_out, spearman (NaN where the law predicts one value for all).

        Raises:
          UsageError: a size out of range.
        """
        num_runs = len(self.weights_ND)
        wrong = [n for n in ns if not MIN_RUNS <= n <= num_runs - MIN_RUNS]
        if wrong:
            raise UsageError(
                f"ablation: n = {wrong[0]} of {num_runs} runs. Give sizes from {MIN_RUNS} to {num_runs - MIN_RUNS}: "
                f"at least {MIN_RUNS} runs are left to rank."
            )
        rows = []
        for repeat in range(repeats):
            order = shuffled(self.weights_ND, seed, _ABLATION_SALT + 64 * (repeat + 1))
            for n in ns:
                learn, rest = order[:n], order[n:]
                for m, name in enumerate(self.slices):
                    model = self.settings.regress(self.weights_ND[learn], self.losses_NM[learn, m], seed=seed)
                    rho = spearman(model.predict(self.weights_ND[rest]), self.losses_NM[rest, m])
                    rows.append({"slice": name, "n": n, "repeat": repeat, "num_held_out": len(rest), "spearman": rho})
        return pa.Table.from_pylist(rows, schema=_ABLATION_SCHEMA)


_ABLATION_SCHEMA = pa.schema(
    [
        ("slice", pa.large_string()),
        ("n", pa.int32()),
        ("repeat", pa.int32()),
        ("num_held_out", pa.int32()),
        ("spearman", pa.float64()),
    ]
)


def spearman(left_N: np.ndarray, right_N: np.ndarray) -> float:
    """Return the rank correlation with mid-ranks; NaN where one side has one value only."""
    from scipy.stats import rankdata

    ranks = [rankdata(side) - (len(left_N) + 1) / 2 for side in (left_N, right_N)]
    norm = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float(ranks[0] @ ranks[1] / norm) if norm > 0 else float("nan")
