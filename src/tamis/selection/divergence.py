"""KL reduction: how much nearer to the target a selection's words are than the pool's.

Source: Xie et al. 2023, arXiv:2302.03169 (KL reduction); the raw prior: tamis design (method card C1).
"""

import numpy as np

NUM_BUCKETS = 1 << 18
"""Buckets that the figures of all methods are made on, unigrams and bigrams. Read a figure beside its uniform
control: a small selection lacks many buckets whatever it is, and both lose by that."""
_EPS = 1e-10


def smoothed(counts_V: np.ndarray, raw_V: np.ndarray, prior: float) -> np.ndarray:
    """Return float64 [V]: the distribution of ``counts_V`` with ``prior`` times its mass spread as the pool is.

    Without this a bucket not seen in a small set would decide everything; with it, it costs ln(prior / (1 + prior)).

    Args:
      counts_V: int64 feature counts, not all 0.
      raw_V: int64 feature counts of the pool, not all 0.
      prior: a, at least 0; 0 is the plain distribution.
    """
    total = int(counts_V.sum())
    spread = raw_V / int(raw_V.sum())
    mixed: np.ndarray = (counts_V + prior * total * spread) / (total * (1.0 + prior))
    return mixed


def divergence(p_V: np.ndarray, q_V: np.ndarray) -> float:
    """Return KL(p || q) in nats, each probability raised by 1e-10 as in the paper."""
    return float(np.sum(p_V * (np.log(p_V + _EPS) - np.log(q_V + _EPS))))


def kl_reduction(raw_V: np.ndarray, target_V: np.ndarray, selected_V: np.ndarray, prior: float = 1.0) -> float:
    """Return KL(target || pool) - KL(target || selected) in nats; above 0 the selection is nearer than the pool.

    Args:
      raw_V: int64 feature counts of the pool.
      target_V: of the target.
      selected_V: of what was selected.
      prior: as in `smoothed`; 0 for the paper's form.
    """
    target = smoothed(target_V, raw_V, prior)
    return divergence(target, smoothed(raw_V, raw_V, 0.0)) - divergence(target, smoothed(selected_V, raw_V, prior))
