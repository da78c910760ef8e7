"""Hashed unigrams and bigrams at memory speed: histograms, linear scores, feature lists.

Source: tamis design (method card K4); features of DSIR (Xie et al. 2023, arXiv:2302.03169): WordPunct tokens of the
lower-cased text (marks included), and pairs of neighbours. A text of n >= 1 tokens has 2n - 1 features at order 2.
"""

import numpy as np

from tamis.errors import UsageError
from tamis.ops.bytes import Texts, character_tables, text_buffers

NGRAM_VERSION = 1
"""Of tokens, hashes and buckets: weights are good for one version."""


def count_ngrams(texts: Texts, num_buckets: int, order: int = 2) -> np.ndarray:
    """Return how often each bucket occurs in all texts together. About 500 MB/s a core.

    Args:
      texts: n strings; null is empty.
      num_buckets: V, from 1 to 2^32.
      order: 1 for unigrams, 2 for unigrams and bigrams.

    Returns:
      int64 [V]; counts of two batches add up to those of their union.

    Raises:
      UsageError: another order or number of buckets.
    """
    return count_ngrams_twice(texts, num_buckets, 0, order)[0]


def count_ngrams_twice(
    texts: Texts, num_buckets: int, num_others: int, order: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Return `count_ngrams` for two numbers of buckets, in one pass over the texts.

    Args:
      texts: n strings; null is empty.
      num_buckets: V, from 1 to 2^32.
      num_others: W, from 0 to 2^32.
      order: 1 for unigrams, 2 for unigrams and bigrams.

    Returns:
      int64 [V] and int64 [W].

    Raises:
      UsageError: another order or number of buckets.
    """
    from tamis.ops import ngram_kernels

    check_buckets(num_buckets, order)
    check_buckets(num_others or 1, order)
    counts, others = np.zeros(num_buckets, np.int64), np.zeros(num_others, np.int64)
    ngram_kernels.count_ngrams(*text_buffers(texts), *character_tables(), order, counts, others)
    return counts, others


def score_ngrams(texts: Texts, weights_V: np.ndarray, order: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return each text's sum of the weights of its features. About 500 MB/s a core.

    Args:
      texts: n strings; null is empty.
      weights_V: one weight a bucket, read as float64.
      order: as the weights were made.

    Returns:
      sums float64 [n], added in text order; num_tokens int32 [n] (tokens, not features).

    Raises:
      UsageError: another order or number of buckets.
    """
    from tamis.ops import ngram_kernels

    check_buckets(len(weights_V), order)
    weights = np.ascontiguousarray(weights_V, np.float64)
    sums, tokens = ngram_kernels.score_ngrams(*text_buffers(texts), *character_tables(), weights, order)
    return sums, tokens


def feature_buckets(texts: Texts, num_buckets: int, order: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return the bucket of every feature, for sets that fit in memory: 4 bytes a feature.

    Args:
      texts: n strings; null is empty.
      num_buckets: V, from 1 to 2^31.
      order: 1 or 2.

    Returns:
      buckets int32 [F], in the order of the text (each bigram after its second word), and starts int64 [n + 1]:
      text i has buckets[starts[i]:starts[i + 1]].

    Raises:
      UsageError: another order or number of buckets.
    """
    from tamis.ops import ngram_kernels

    check_buckets(num_buckets, order, most=1 << 31)
    buckets, starts = ngram_kernels.feature_buckets(*text_buffers(texts), *character_tables(), num_buckets, order)
    return buckets, starts


def count_words(texts: Texts) -> np.ndarray:
    """Return int64 [n]: word tokens of each text (marks left out; a character each where no blanks are written)."""
    from tamis.ops import ngram_kernels

    data, offsets = text_buffers(texts)
    counts: np.ndarray = ngram_kernels.count_words(data, offsets, character_tables()[0])
    return counts


def check_buckets(num_buckets: int, order: int, most: int = 1 << 32) -> None:
    """Refuse a number of buckets or an order that the kernels do not have."""
    if order not in {1, 2}:
        raise UsageError(f"n-grams of order {order}: 1 (words) or 2 (words and pairs) can be counted.")
    if not 1 <= num_buckets <= most:
        raise UsageError(f"{num_buckets} buckets: give 1 to {most}; 2**18 is usual.")
