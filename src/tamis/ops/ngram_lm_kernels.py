"""Compiled loops of the hashed n-gram language model; `tamis.ops.ngram_lm` is the door to them.

Source: tamis design (method card C6); interpolation: Jelinek, Mercer 1980.

A model is counts int32 [order, m]: of single tokens, pairs and triples, each in its own row of m = 2^bits buckets.
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import longest, mix
from tamis.ops.ngram_kernels import pair_hash, scan_tokens, steps_of


@njit(cache=True, nogil=True)
def _slots(data, at, stop, classes, lowers, steps, hashes, shift, order, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the bucket of each token's n-grams, shortest first, -1 where the text is too short; return the tokens.

    ``hashes`` is for what `scan_tokens` writes.
    """
    one, two = np.uint64(0), np.uint64(0)  # hashes of the token before, and of the pair before
    num = scan_tokens(data, at, stop, classes, lowers, steps, hashes)
    for count in range(num):
        h = mix(hashes[count])
        pair = pair_hash(one, h)
        out[count, 0] = np.int32(h >> shift)
        if order > 1:
            out[count, 1] = np.int32(pair >> shift) if count > 0 else -1
        if order > 2:
            out[count, 2] = np.int32(pair_hash(two, h) >> shift) if count > 1 else -1
        one, two = h, pair
    return num


@njit(cache=True, nogil=True)
def _add(slots, count, sign, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(count):
        for n in range(slots.shape[1]):
            if slots[i, n] >= 0:
                counts[n, slots[i, n]] += sign


@njit(cache=True, nogil=True)
def _ratio(slots, i, n, counts, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return c(h w) / c(h) of the n-gram of n + 1 tokens that ends at i; 0 for an unseen history, at most 1."""
    if slots[i, n] < 0:
        return 0.0
    whole = counts[n, slots[i, n]]
    history = total if n == 0 else np.int64(counts[n - 1, slots[i - 1, n - 1]])
    if whole <= 0 or history <= 0:
        return 0.0
    return min(1.0, whole / history)  # buckets may be shared, so a ratio may come out above 1


@njit(cache=True, nogil=True)
def count(data, offsets, classes, lowers, shift, slots, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add all texts' n-grams to counts; return the number of tokens."""
    total = np.int64(0)
    order = counts.shape[0]
    steps, hashes = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    for row in range(len(offsets) - 1):
        num = _slots(data, offsets[row], offsets[row + 1], classes, lowers, steps, hashes, shift, order, slots)
        _add(slots, num, 1, counts)
        total += num
    return total


@njit(cache=True, nogil=True)
def held_out_ratios(data, offsets, classes, lowers, shift, slots, counts, total, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return float64 [tokens, order]: the ratios of each token under counts without its own text, longest first.

    Stops after the text with which ``limit`` tokens are reached. Counts are as before when it returns.
    """
    order = counts.shape[0]
    steps, hashes = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    ratios = np.empty((limit + slots.shape[0], order), np.float64)
    filled = 0
    for row in range(len(offsets) - 1):
        num = _slots(data, offsets[row], offsets[row + 1], classes, lowers, steps, hashes, shift, order, slots)
        _add(slots, num, -1, counts)
        for i in range(num):
            for n in range(order):
                ratios[filled, order - 1 - n] = _ratio(slots, i, n, counts, total - num)
            filled += 1
        _add(slots, num, 1, counts)
        if filled >= limit:
            break
    return ratios[:filled].copy()


@njit(cache=True, nogil=True)
def bits(data, offsets, classes, lowers, shift, slots, counts, total, lambdas, floor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the sum of -log2 p over each text's tokens float64 [n], and the number of tokens int32 [n]."""
    order = counts.shape[0]
    steps, hashes = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    sums = np.zeros(len(offsets) - 1, np.float64)
    tokens = np.zeros(len(offsets) - 1, np.int32)
    for row in range(len(offsets) - 1):
        num = _slots(data, offsets[row], offsets[row + 1], classes, lowers, steps, hashes, shift, order, slots)
        for i in range(num):
            p = floor
            for n in range(order):
                p += lambdas[order - 1 - n] * _ratio(slots, i, n, counts, total)
            sums[row] -= np.log2(p)
        tokens[row] = num
    return sums, tokens
