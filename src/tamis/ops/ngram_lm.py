"""A hashed n-gram language model: interpolated counts of words, pairs and triples; bits per token.

Source: tamis design (method card C6); interpolation and its weights by expectation maximisation: Jelinek, Mercer 1980.

p(w | h) = sum over n of lambda_n c(h_n w) / c(h_n) + lambda_0 / 2^bits; an unseen history adds nothing.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from tamis.errors import UsageError
from tamis.ops.bytes import Texts, character_tables, text_buffers

DEFAULT_LAMBDAS = {1: (0.95, 0.05), 2: (0.6, 0.35, 0.05), 3: (0.4, 0.3, 0.25, 0.05)}
"""By order, the longest n-gram first and the floor last; for texts too few to fit them."""
_EM_TOKENS = 200_000
_EM_ROUNDS = 100
_MIN_FLOOR = 1e-3


@dataclass(frozen=True)
class NgramModel:
    """Counts of a text and the weights of their interpolation.

    Attributes:
      counts: int32 [order, 2^bits].
      num_tokens: tokens that were counted.
      lambdas: float64 [order + 1], longest first, the floor last; they sum to 1.
    """

    counts: np.ndarray
    num_tokens: int
    lambdas: np.ndarray

    @classmethod
    def train(cls, texts: Texts, *, order: int, bits: int, lambdas: tuple[float, ...] | None = None) -> Self:
        """Count the texts; without ``lambdas`` fit them on each text with its own counts taken out.

        Args:
          texts: n strings; their order changes nothing but which of them the weights are fitted on, when they hold
            more than 200,000 tokens (the first).
          order: 1 to 3.
          bits: 2^bits buckets for each length, 1 to 26; 4 bytes a bucket.
          lambdas: order + 1 weights that sum to 1, longest n-gram first.

        Raises:
          UsageError: order, bits or lambdas out of range.
        """
        from tamis.ops import ngram_lm_kernels

        if order not in DEFAULT_LAMBDAS or not 1 <= bits <= 26:
            raise UsageError(f"order {order}, bits {bits}: give an order of 1 to 3 and 1 to 26 bits.")
        if lambdas is not None:
            _check_lambdas(lambdas, order)
        data, offsets = text_buffers(texts)
        counts, slots = np.zeros((order, 1 << bits), np.int32), _slots(offsets, order)
        view = (data, offsets, *character_tables(), np.uint64(64 - bits), slots, counts)
        total = int(ngram_lm_kernels.count(*view))
        if lambdas is None:
            ratios = ngram_lm_kernels.held_out_ratios(*view, total, _EM_TOKENS)
            lambdas = fit_lambdas(ratios, 2.0**-bits) if len(offsets) > 2 else DEFAULT_LAMBDAS[order]
        return cls(counts, total, np.array(lambdas, np.float64))

    def bits_per_token(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of -log2 p over each text's tokens float64 [n] (0 without any), and num_tokens int32 [n]."""
        from tamis.ops import ngram_lm_kernels

        data, offsets = text_buffers(texts)
        order, num_buckets = self.counts.shape
        shift = np.uint64(64 - (num_buckets.bit_length() - 1))
        view = (data, offsets, *character_tables(), shift, _slots(offsets, order), self.counts)
        floor = float(self.lambdas[-1]) / num_buckets
        sums, tokens = ngram_lm_kernels.bits(*view, self.num_tokens, self.lambdas, floor)
        return sums / np.maximum(tokens, 1), tokens


def fit_lambdas(ratios: np.ndarray, uniform: float) -> tuple[float, ...]:
    """Return the weights under which tokens are likeliest, by expectation maximisation.

    Args:
      ratios: float64 [tokens, order], c(h w) / c(h) of each token, longest history first.
      uniform: what the floor gives every word.

    Returns:
      order + 1 weights, longest first, the floor last and at least 0.001, so that no word is impossible.
    """
    parts = np.concatenate([ratios, np.full((len(ratios), 1), uniform)], axis=1)
    lambdas = np.array(DEFAULT_LAMBDAS[ratios.shape[1]])
    for _ in range(_EM_ROUNDS if len(ratios) else 0):
        shares = parts * lambdas
        shares /= shares.sum(axis=1, keepdims=True)
        before, lambdas = lambdas, shares.mean(axis=0)
        lambdas[-1] = max(lambdas[-1], _MIN_FLOOR)
        lambdas /= lambdas.sum()
        if np.abs(lambdas - before).max() < 1e-6:
            break
    return tuple(lambdas.tolist())


def _check_lambdas(lambdas: tuple[float, ...], order: int) -> None:
    usable = len(lambdas) == order + 1 and min(lambdas) >= 0 and lambdas[-1] > 0 and abs(sum(lambdas) - 1) < 1e-9
    if not usable:
        raise UsageError(
            f"lambdas {lambdas}: give {order + 1} weights that sum to 1, longest n-gram first, "
            f"the last above 0; for example {DEFAULT_LAMBDAS[order]}."
        )


def _slots(offsets: np.ndarray, order: int) -> np.ndarray:
    """Return space for the buckets of the longest text: a token has at least one byte."""
    return np.empty((int(np.diff(offsets).max(initial=0)) + 1, order), np.int32)
