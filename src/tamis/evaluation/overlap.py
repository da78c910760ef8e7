"""Overlap of a pool with a target: how much of the target's wording the pool holds, and how far apart they are.

Source: the KL of Xie et al. 2023, DSIR, arXiv:2302.03169 (method card C1, step 6); the shares are tamis design.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.corpus import Documents
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.evaluation.keyed_sample import KeyCounts, pieces
from tamis.ops.bytes import token_hashes
from tamis.ops.hashing import array_keys
from tamis.ops.ngrams import count_ngrams
from tamis.ops.text import joined

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_FILTER_BITS = 22
_SMOOTH = 1e-10


class SeenShare(Settings):
    """How much of the target's n-grams of one width the pool holds.

    Attributes:
      width: words in an n-gram.
      num_ngrams: different n-grams of the target (estimated where only a share of them is counted).
      seen_frac: share of the different ones that occur in the pool; nan is never stored: 0 where there are none.
      seen_occurrences_frac: the same, each weighted by its occurrences in the target.
    """

    width: int
    num_ngrams: int
    seen_frac: float
    seen_occurrences_frac: float


class OverlapFacts(Settings):
    """Pool against target.

    Attributes:
      num_target_docs: documents of the target; ``num_target_words`` their words.
      num_copied: documents of the target whose title and text stand in the pool, letter for letter.
      seen: by width of n-gram.
      kl: KL(target || pool) of hashed words and pairs, in nats, as in the paper (1e-10 added inside the logarithms).
      kl_prior: the same, the target first mixed half and half with the pool: not ruled by what a small target lacks.
    """

    num_target_docs: int
    num_target_words: int
    num_copied: int
    seen: tuple[SeenShare, ...]
    kl: float
    kl_prior: float


class TargetOverlap(Settings):
    """Compare a pool with a target by n-grams and by their distributions.

    Attributes:
      widths: n-grams looked up, in words.
      num_buckets: of the hashed words and pairs for the KL; the paper has 10,000.
      max_ngrams: different n-grams of the target looked up a width; of more, a keyed share.
    """

    method: Literal["target_overlap"] = "target_overlap"
    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1)] = (1, 2, 3, 5)
    num_buckets: Annotated[int, Field(ge=1, le=1 << 24)] = 1 << 18
    max_ngrams: Annotated[int, Field(ge=1000)] = 2_000_000

    def report(self, corpus: Documents, target: Documents, *, seed: int) -> OverlapFacts:
        """Read the target, then the pool, once each. About 50 MB/s a core.

        Args:
          corpus: the pool.
          target: documents of the kind that is wanted.
          seed: of the share of n-grams, where there are too many.

        Raises:
          DataError: the target is empty.
        """
        if not len(target):
            raise DataError("the target has no documents: the overlap needs at least one. Give some, or leave it out.")
        counters = [KeyCounts(self.max_ngrams, seed=seed) for _ in self.widths]
        counts_T = np.zeros(self.num_buckets, np.int64)
        keys: list[np.ndarray] = []
        num_words = 0
        for texts in _texts(target):
            counts_T += count_ngrams(texts, self.num_buckets)
            keys.append(array_keys(texts))
            hashes, starts = token_hashes(texts)
            num_words += len(hashes)
            for width, counter in zip(self.widths, counters, strict=True):
                counter.add(ngram_hashes(hashes, starts, width))
        searches = [_Search(counter) for counter in counters]
        target_keys = np.concatenate(keys)
        copied = np.zeros(len(target_keys), bool)
        counts_R = np.zeros(self.num_buckets, np.int64)
        for texts in _texts(corpus):
            counts_R += count_ngrams(texts, self.num_buckets)
            copied |= np.isin(target_keys, array_keys(texts))
            hashes, starts = token_hashes(texts)
            for width, search in zip(self.widths, searches, strict=True):
                search.look_in(ngram_hashes(hashes, starts, width))
        return OverlapFacts(
            num_target_docs=len(target),
            num_target_words=num_words,
            num_copied=int(copied.sum()),
            seen=tuple(search.share(width) for width, search in zip(self.widths, searches, strict=True)),
            kl=kl_divergence(counts_T, counts_R),
            kl_prior=kl_divergence(counts_T, counts_R, prior=1.0),
        )


def _texts(corpus: Documents) -> Iterator[pa.Array]:
    for batch in corpus.batches(["title", "text"]):
        yield from map(joined, pieces(batch))


def ngram_hashes(hashes: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """Return uint64 hashes of all runs of ``width`` words that lie within one document, in reading order."""
    if width == 1:
        return hashes
    num = len(hashes) - width + 1
    if num <= 0:
        return np.zeros(0, np.uint64)
    mixed = np.zeros(num, np.uint64)
    with np.errstate(over="ignore"):
        for k in range(width):
            mixed *= _GOLDEN
            mixed += hashes[k : k + num]
        mixed ^= mixed >> _HALF
        mixed *= _MIX
        mixed ^= mixed >> _HALF
    begins = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    within: np.ndarray = mixed[begins[:num] == begins[width - 1 :]]
    return within


class _Search:
    """Which of the target's n-grams have been seen: only those not yet seen are looked for."""

    def __init__(self, counter: KeyCounts) -> None:
        self._keys, self._counts = counter.counts()
        self._frac = counter.frac
        self._left = np.arange(len(self._keys))
        self._make_filter()

    def _make_filter(self) -> None:
        self._filter = np.zeros(1 << _FILTER_BITS, bool)
        self._filter[self._keys[self._left] >> np.uint64(64 - _FILTER_BITS)] = True

    def look_in(self, ngrams: np.ndarray) -> None:
        if not len(self._left):
            return
        likely = ngrams[self._filter[ngrams >> np.uint64(64 - _FILTER_BITS)]]
        if not len(likely):
            return
        wanted = self._keys[self._left]
        places = np.minimum(np.searchsorted(wanted, likely), len(wanted) - 1)
        found = np.zeros(len(wanted), bool)
        found[places[wanted[places] == likely]] = True
        if found.any():
            self._left = self._left[~found]
            self._make_filter()

    def share(self, width: int) -> SeenShare:
        total, num = int(self._counts.sum()), len(self._keys)
        missing = int(self._counts[self._left].sum())
        return SeenShare(
            width=width,
            num_ngrams=round(num / self._frac),
            seen_frac=(num - len(self._left)) / max(1, num),
            seen_occurrences_frac=(total - missing) / max(1, total),
        )


def kl_divergence(counts_target: np.ndarray, counts_pool: np.ndarray, *, prior: float = 0.0) -> float:
    """KL(target || pool) in nats of two count vectors of one length.

    Args:
      counts_target: int64 [V].
      counts_pool: int64 [V].
      prior: weight of the pool's distribution mixed into the target's, 1 for as much as the target itself.

    Returns:
      sum of p (ln(p + 1e-10) - ln(q + 1e-10)); 0 where either side has no counts.
    """
    total_T, total_R = int(counts_target.sum()), int(counts_pool.sum())
    if not total_T or not total_R:
        return 0.0
    q = counts_pool / total_R
    p = (counts_target + prior * total_T * q) / (total_T * (1 + prior))
    return math.fsum((p * (np.log(p + _SMOOTH) - np.log(q + _SMOOTH))).tolist())
