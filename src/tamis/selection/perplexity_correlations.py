"""Perplexity correlations: weight the domains on which a lower loss goes with a better model, none beyond its cap.

Source: Thrush, Potts, Hashimoto 2024, Improving Pretraining Data Using Perplexity Correlations, arXiv:2409.05816.
Ties get mid-ranks here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data.settings import Settings
from tamis.errors import DataError, UsageError
from tamis.ops.hashing import uniform
from tamis.selection.proposal import checked_caps
from tamis.selection.swarm import named

_MIN_MODELS = 4


def bits_per_byte(loss: np.ndarray, num_tokens: np.ndarray, num_bytes: np.ndarray) -> np.ndarray:
    """Return (tokens / bytes) · loss / ln 2: comparable between tokenizers. ``loss`` is the mean a token, in nats."""
    bits: np.ndarray = np.asarray(num_tokens, np.float64) / np.asarray(num_bytes) * np.asarray(loss) / np.log(2)
    return bits


def token_caps(num_tokens: np.ndarray, keep_frac: float) -> np.ndarray:
    """Return each domain's largest weight when a share of all tokens is kept and none is repeated.

    Raises:
      UsageError: keep_frac not above 0 and up to 1.
    """
    if not 0 < keep_frac <= 1:
        raise UsageError(f"caps: keep_frac {keep_frac}. Give a share above 0 and up to 1.")
    tokens = np.asarray(num_tokens, np.float64)
    caps: np.ndarray = np.minimum(tokens / tokens.sum() / keep_frac, 1.0)
    return caps


@dataclass(frozen=True)
class DomainWeights:
    """Weights of domains and how sure their order is.

    Attributes:
      weights: float64 [D], sum to 1, none above its cap.
      estimates: float64 [D], -1 to 1: higher where the loss rises with the error.
      rank_low: int64 [D], 5 % quantile of the domain's rank (1 is best) over bootstraps of the models.
      rank_high: int64 [D], 95 % quantile.
      skipped: rows of models that were left out, for a value that is not finite.
    """

    weights: np.ndarray
    estimates: np.ndarray
    rank_low: np.ndarray
    rank_high: np.ndarray
    skipped: tuple[int, ...]


class PerplexityCorrelations(Settings):
    """Correlate each domain's loss with the models' error, then fill domains up to their caps, best first.

    Attributes:
      estimator: "spearman"; "sign_sign" and "sign_cdf" of the paper, over pairs of models.
      projection: "linear" fills the best domains to their caps; "l2" takes the nearest feasible weights.
      num_bootstraps: of the models, for the ranks' intervals.
    """

    method: Literal["perplexity_correlations"] = "perplexity_correlations"
    estimator: Literal["spearman", "sign_sign", "sign_cdf"] = "spearman"
    projection: Literal["linear", "l2"] = "linear"
    num_bootstraps: Annotated[int, Field(ge=1)] = 200

    def fit(
        self,
        bits: np.ndarray,
        error: np.ndarray,
        caps: np.ndarray,
        *,
        seed: int,
        domains: Sequence[str] | None = None,
    ) -> DomainWeights:
        """Fit. O(bootstraps · M² · D) for the pair estimators, O(bootstraps · M log M · D) for spearman.

        Args:
          bits: float64 [M, D], bits per byte of M models on D domains.
          error: float64 [M], of each model, lower is better (1 - nDCG@10).
          caps: float64 [D], largest weights (`token_caps`), summing to 1 or more.
          seed: of the bootstraps.
          domains: D names, for errors.

        Raises:
          DataError: shapes that do not fit, fewer than 4 complete models, errors all equal, caps refused.
        """
        bits_MD, error_M = np.asarray(bits, np.float64), np.asarray(error, np.float64)
        if bits_MD.ndim != 2 or error_M.shape != bits_MD.shape[:1] or not bits_MD.size:
            raise DataError(f"losses of shape {bits_MD.shape} for errors {error_M.shape}. Give [models, domains].")
        names = list(domains) if domains is not None else [str(at) for at in range(bits_MD.shape[1])]
        if len(names) != bits_MD.shape[1]:
            raise DataError(f"losses: {bits_MD.shape[1]} columns for {len(names)} domains. Give one a domain.")
        caps_D = checked_caps(caps, names)
        good = np.isfinite(bits_MD).all(axis=1) & np.isfinite(error_M)
        if good.sum() < _MIN_MODELS:
            gaps = (~np.isfinite(bits_MD)).sum(axis=0)
            worst = named(names, int(np.argmax(gaps)))
            raise DataError(
                f"losses: {int(good.sum())} of {len(good)} models are complete; {_MIN_MODELS} are needed. "
                f"{int(gaps.max())} models lack domain {worst}: compute it, or leave it out."
            )
        bits_MD, error_M = bits_MD[good], error_M[good]
        if np.ptp(error_M) == 0:
            raise DataError(f"losses: all {len(error_M)} models have error {error_M[0]:g}. Give models that differ.")
        order = np.lexsort((*bits_MD.T[::-1], error_M))  # the bootstrap does not hang on the order of models
        bits_MD, error_M = bits_MD[order], error_M[order]
        estimates = self.estimate(bits_MD, error_M)
        ranks = self._bootstrapped(bits_MD, error_M, seed)
        weights = fill(estimates, caps_D) if self.projection == "linear" else nearest(estimates, caps_D)
        low, high = np.quantile(ranks, [0.05, 0.95], axis=0, method="inverted_cdf")
        skipped = tuple(np.flatnonzero(~good).tolist())
        return DomainWeights(weights, estimates, low.astype(np.int64), high.astype(np.int64), skipped)

    def estimate(self, bits_MD: np.ndarray, error_M: np.ndarray) -> np.ndarray:
        """Return the correlation of each domain [D]; 0 for a domain whose losses are all equal."""
        from scipy.stats import rankdata

        num_models = len(error_M)
        if self.estimator == "spearman":
            left_MD = rankdata(bits_MD, axis=0) - (num_models + 1) / 2
            right_M = rankdata(error_M) - (num_models + 1) / 2
            norm_D = np.sqrt((left_MD**2).sum(axis=0) * (right_M**2).sum())
            spearman: np.ndarray = np.where(norm_D > 0, right_M @ left_MD / np.where(norm_D > 0, norm_D, 1), 0)
            return spearman
        ranks_MD = rankdata(bits_MD, axis=0) / num_models
        total_D = np.zeros(bits_MD.shape[1])
        for at in range(1, num_models):
            gaps_MD = ranks_MD[at] - ranks_MD[:at]
            total_D += np.sign(error_M[at] - error_M[:at]) @ (
                np.sign(gaps_MD) if self.estimator == "sign_sign" else gaps_MD
            )
        mean: np.ndarray = total_D * 2 / (num_models * (num_models - 1))
        return mean

    def _bootstrapped(self, bits_MD: np.ndarray, error_M: np.ndarray, seed: int) -> np.ndarray:
        """Return ranks [bootstraps, D], 1 for the highest estimate, mid-ranks rounded down."""
        from scipy.stats import rankdata

        num_models = len(error_M)
        keys = np.arange(self.num_bootstraps * num_models, dtype=np.uint64)
        rows_BM = (uniform(keys, seed, "mixture") * num_models).astype(np.int64).reshape(-1, num_models)
        return np.array([rankdata(-self.estimate(bits_MD[rows], error_M[rows])) for rows in rows_BM])


def fill(estimates: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Give the best domains their caps until the sum is 1; the last gets the rest. Equal estimates: by position."""
    order = np.argsort(-estimates, kind="stable")
    before = np.r_[0.0, np.cumsum(caps[order])[:-1]]
    weights = np.empty(len(caps))
    weights[order] = np.clip(1 - before, 0, caps[order])
    return weights


def nearest(estimates: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Return the weights nearest to the estimates in L2: clip(estimate + c, 0, cap) with the c that sums to 1."""
    low, high = -float(estimates.max()) - 1, 1 - float(estimates.min()) + float(caps.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(estimates + middle, 0, caps).sum() < 1 else (low, middle)
    weights: np.ndarray = np.clip(estimates + high, 0, caps)
    return weights
