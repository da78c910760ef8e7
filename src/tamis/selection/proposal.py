"""Proposals: mixture weights of low predicted loss that stay near the prior and repeat no domain too often.

Source: allenai/olmix (loss plus KL to the prior, with repetition caps); Liu et al. 2024, RegMix, arXiv:2407.01492
(mean of the best of 100,000 Dirichlet draws).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data.settings import Settings
from tamis.errors import DataError, UsageError
from tamis.selection.mixture_laws import FittedLaw
from tamis.selection.mixture_regressors import LogLinearFit, Regression
from tamis.selection.swarm import checked_prior, dirichlet, named

_MAX_STEPS = 20_000
_STILL = 1e-12
_ROUNDING = 1e-9
_TINY = 1e-200


@dataclass(frozen=True)
class Proposed:
    """A mixture, and what the law says of it beside the mixtures it has to beat.

    Attributes:
      domains: D names.
      weights: float64 [D].
      prior: float64 [D].
      caps: float64 [D], 1 where none was given.
      losses: name to float64 [M], predicted: "proposed", "prior", "uniform", "best_run" (of the swarm; predicted too).
      low: float64 [M], lower end of the 90 % interval of the proposal's losses, for runs of the swarm's size.
      high: float64 [M], its upper end.
      kl: of the proposal to the prior, nats.
      fold_weights: float64 [5, D], the proposals of the five laws that had not seen a fifth of the runs.
      nearest_run: smallest L1 distance to a run of the swarm, 0 to 2; large means extrapolation.
    """

    domains: tuple[str, ...]
    weights: np.ndarray
    prior: np.ndarray
    caps: np.ndarray
    losses: dict[str, np.ndarray]
    low: np.ndarray
    high: np.ndarray
    kl: float
    fold_weights: np.ndarray
    nearest_run: float


def repetition_caps(available: np.ndarray, budget: float, max_epochs: float = 4.0) -> np.ndarray:
    """Return the largest weight of each domain: available·max_epochs / budget, at most 1.

    Args:
      available: float64 [D], size of each domain (words, bytes), the unit of the budget.
      budget: size of the training set.
      max_epochs: how often a text may be seen.

    Raises:
      UsageError: budget or max_epochs not above 0.
    """
    if budget <= 0 or max_epochs <= 0:
        raise UsageError(f"caps: budget {budget}, max_epochs {max_epochs}. Give numbers above 0.")
    caps: np.ndarray = np.minimum(np.asarray(available, np.float64) * max_epochs / budget, 1.0)
    return caps


class _Proposal(Settings):
    def propose(
        self,
        law: FittedLaw,
        prior: np.ndarray,
        caps: np.ndarray | None = None,
        slice_weights: np.ndarray | None = None,
        *,
        seed: int,
    ) -> Proposed:
        """Propose weights, from the law and from each of its fold laws.

        Args:
          law: fitted to a swarm over the same domains.
          prior: float64 [D], shares of the data, none 0.
          caps: float64 [D] largest weights (`repetition_caps`); None: no bound.
          slice_weights: float64 [M], importance of each slice, >= 0; None: equal.
          seed: of random draws, where the method draws.

        Raises:
          DataError: prior or caps refused, caps that sum below 1, a law or slice weights this method cannot use.
        """
        prior_D = checked_prior(prior, law.domains)
        if len(prior_D) != len(law.domains):
            raise DataError(f"prior: {len(prior_D)} shares for {len(law.domains)} domains. Give one a domain.")
        caps_D = checked_caps(caps, law.domains)
        mass_M = _checked_importance(slice_weights, len(law.slices))
        model_sets = [law.models, *law.fold_models]
        weights_D, *folds = self.solve(model_sets, mass_M, prior_D, caps_D, law.domains, seed=seed)
        best_run = law.weights_ND[np.argmin(law.losses_NM @ mass_M)]
        uniform_D = np.full(len(prior_D), 1 / len(prior_D))
        mixtures = {"proposed": weights_D, "prior": prior_D, "uniform": uniform_D, "best_run": best_run}
        losses = {name: law.predict(mixture).reshape(-1) for name, mixture in mixtures.items()}
        low, high = (side.reshape(-1) for side in law.interval(weights_D, 0.9))
        return Proposed(
            domains=law.domains,
            weights=weights_D,
            prior=prior_D,
            caps=caps_D,
            losses=losses,
            low=low,
            high=high,
            kl=kl_divergence(weights_D, prior_D),
            fold_weights=np.array(folds),
            nearest_run=float(np.abs(law.weights_ND - weights_D).sum(axis=1).min()),
        )

    @abstractmethod
    def solve(
        self,
        model_sets: Sequence[Sequence[Regression]],
        mass_M: np.ndarray,
        prior_D: np.ndarray,
        caps_D: np.ndarray,
        domains: Sequence[str],
        *,
        seed: int,
    ) -> list[np.ndarray]:
        """Return weights [D] for each set of one model a slice."""


class KLProposal(_Proposal):
    """The exact optimum of predicted loss + kl · KL(w ‖ prior) under the caps; needs a log-linear law.

    Attributes:
      kl: price of a nat of distance to the prior, in units of the loss; 0 goes to a corner, large stays at the prior.
    """

    method: Literal["kl_proposal"] = "kl_proposal"
    kl: Annotated[float, Field(ge=0)] = 0.1

    def solve(
        self,
        model_sets: Sequence[Sequence[Regression]],
        mass_M: np.ndarray,
        prior_D: np.ndarray,
        caps_D: np.ndarray,
        domains: Sequence[str],
        *,
        seed: int,
    ) -> list[np.ndarray]:
        """Return weights [D] a set; the sum of exponentials is convex: one optimum. ``domains``, ``seed``: unused."""
        found = []
        for models in model_sets:
            slopes = [model.slope_D for model in models if isinstance(model, LogLinearFit)]
            if len(slopes) < len(models):
                raise DataError(
                    "proposal: the law is not log-linear, so the optimum is not known to be the only one. "
                    "Fit LogLinear, or take DirichletProposal."
                )
            found.append(minimise(mass_M, np.array(slopes), prior_D, caps_D, self.kl))
        return found


class DirichletProposal(_Proposal):
    """The mean of the best of many Dirichlet(prior) draws, as RegMix; any law.

    Attributes:
      num_draws: the paper uses 100,000.
      num_best: how many of them are averaged; the paper uses 128.
      strength: of the Dirichlet distribution; 1 as in the paper draws few domains at a time.
    """

    method: Literal["dirichlet_proposal"] = "dirichlet_proposal"
    num_draws: Annotated[int, Field(ge=1)] = 100_000
    num_best: Annotated[int, Field(ge=1)] = 128
    strength: Annotated[float, Field(gt=0)] = 1.0

    def solve(
        self,
        model_sets: Sequence[Sequence[Regression]],
        mass_M: np.ndarray,
        prior_D: np.ndarray,
        caps_D: np.ndarray,
        domains: Sequence[str],
        *,
        seed: int,
    ) -> list[np.ndarray]:
        """Return weights [D] a set: draws above a cap are left out, ties go to the earlier draw."""
        alpha = np.broadcast_to(self.strength * prior_D, (self.num_draws, len(prior_D)))
        drawn_ND = dirichlet(alpha, domains, seed, "proposal")
        drawn_ND = drawn_ND[(drawn_ND <= caps_D + _ROUNDING).all(axis=1)]
        if len(drawn_ND) < self.num_best:
            raise DataError(
                f"proposal: {len(drawn_ND)} of {self.num_draws} draws respect the caps, {self.num_best} are averaged. "
                "Raise strength or num_draws, or take KLProposal."
            )
        found = []
        for models in model_sets:
            loss_N = sum(mass * model.predict(drawn_ND) for mass, model in zip(mass_M, models, strict=True))
            found.append(drawn_ND[np.argsort(loss_N, kind="stable")[: self.num_best]].mean(axis=0))
        return found


def checked_caps(caps: np.ndarray | None, domains: Sequence[str]) -> np.ndarray:
    """Return caps float64 [D] in [0, 1].

    Raises:
      DataError: another length, a cap that is negative or not finite, or caps that sum below 1.
    """
    if caps is None:
        return np.ones(len(domains))
    caps_D = np.minimum(np.asarray(caps, dtype=np.float64), 1.0)
    if caps_D.shape != (len(domains),):
        raise DataError(f"caps: shape {caps_D.shape} for {len(domains)} domains. Give one a domain.")
    bad = np.flatnonzero(~(caps_D >= 0))
    if len(bad):
        raise DataError(
            f"caps: {named(domains, int(bad[0]))} has {caps_D[bad[0]]}. Give the largest weight, from 0 to 1."
        )
    if caps_D.sum() < 1 - _ROUNDING:
        raise DataError(
            f"caps: they sum to {caps_D.sum():.4f}, below 1: {1 - caps_D.sum():.1%} of the budget cannot be filled. "
            "Lower the budget, raise max_epochs, or add data."
        )
    return caps_D


def _checked_importance(slice_weights: np.ndarray | None, num_slices: int) -> np.ndarray:
    if slice_weights is None:
        return np.full(num_slices, 1 / num_slices)
    mass_M = np.asarray(slice_weights, dtype=np.float64)
    if mass_M.shape != (num_slices,) or not np.isfinite(mass_M).all() or mass_M.min() < 0 or mass_M.sum() <= 0:
        raise DataError(
            f"slice_weights: {np.asarray(slice_weights).tolist()} for {num_slices} slices. "
            "Give one number of 0 or more a slice, not all 0."
        )
    unit: np.ndarray = mass_M / mass_M.sum()
    return unit


def kl_divergence(weights_D: np.ndarray, prior_D: np.ndarray) -> float:
    """KL(weights ‖ prior) in nats."""
    used = weights_D > 0
    return float((weights_D[used] * np.log(weights_D[used] / prior_D[used])).sum())


def capped(log_mass_D: np.ndarray, caps_D: np.ndarray) -> np.ndarray:
    """Return min(cap, z·exp(log_mass)) with the z that makes it sum to 1: the KL projection onto the caps. O(D²).

    The caps sum to 1 or more.
    """
    with np.errstate(divide="ignore"):
        order = np.argsort(log_mass_D - np.log(caps_D), kind="stable")[::-1]  # the first to reach its cap is first
    weights_D = caps_D.copy()
    for at in range(len(order)):
        free = order[at:]
        mass = np.exp(log_mass_D[free] - log_mass_D[free].max())  # by the largest that is free: none underflows
        share = mass / mass.sum() * (1 - caps_D[order[:at]].sum())
        if share[0] <= caps_D[free[0]]:
            weights_D[free] = np.minimum(share, caps_D[free])
            break
    return weights_D


def minimise(
    mass_M: np.ndarray, slopes_MD: np.ndarray, prior_D: np.ndarray, caps_D: np.ndarray, kl: float
) -> np.ndarray:
    """Minimise Σ_k mass_k·exp(w·slope_k) + kl·KL(w ‖ prior) over the simplex under caps.

    Mirror descent: each step minimises the linearised loss, the KL term itself and the KL distance to the last point,
    in closed form; its length is halved until the loss is below its bound, so the objective never rises.
    """
    log_prior_D = np.log(prior_D)
    weights_D = capped(log_prior_D, caps_D)
    rate = 1.0
    for _ in range(_MAX_STEPS):
        terms_M = mass_M * np.exp(slopes_MD @ weights_D)
        gradient_D = terms_M @ slopes_MD
        now_D = np.maximum(weights_D, _TINY)
        while True:
            next_D = capped((np.log(now_D) / rate + kl * log_prior_D - gradient_D) / (1 / rate + kl), caps_D)
            step_D = next_D - weights_D
            change_M = slopes_MD @ step_D
            above = float(terms_M @ (np.expm1(change_M) - change_M))  # loss over its linearisation, no cancellation
            ratio_D = np.maximum(step_D / now_D, -1 + _STILL)
            distance = float((now_D * ((1 + ratio_D) * np.log1p(ratio_D) - ratio_D)).sum())
            if above * rate <= distance or rate < _STILL or np.abs(step_D).max() < _STILL:
                break
            rate /= 2
        weights_D = next_D
        if np.abs(step_D).max() < _STILL:
            break
        rate *= 1.5
    return weights_D
