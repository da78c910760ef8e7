"""Compiled loops over hashed n-grams; `tamis.ops.ngrams` is the door to them.

Source: tamis design (method card K4); features of DSIR (Xie et al. 2023, arXiv:2302.03169).

Sums run in float64, one document at a time, in the order of its text: a score does not depend on its batch.

The scanner finds the tokens that `byte_kernels` defines. It is a machine of four states, the class of the character
before; ASCII is read without a jump a byte, as jumps at the ends of tokens cannot be foreseen. Its indices are
unsigned: for signed ones numba adds a test for negative values to each access.
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import FNV, GOLDEN, HALF, PRIME, add_code, class_of, decode, longest, mix

_ZERO, _ONE = np.uint64(0), np.uint64(1)
_ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
_ROW = 128  # ASCII characters, a row of the tables for each class of the character before


@njit(cache=True, nogil=True)
def steps_of(classes, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the scanner's tables.

    At 128 * (class before) + character: the bits of the hash that stay (all within a token, none where one begins),
    what is added to it, and 1 where a token has ended. For each character: 128 * its class.
    """
    stay, add = np.zeros(4 * _ROW, np.uint64), np.zeros(4 * _ROW, np.uint64)
    ends, rows = np.zeros(4 * _ROW, np.uint8), np.zeros(_ROW, np.uint16)
    for c in range(_ROW):
        rows[c] = _ROW * classes[c]
        for before in range(4):
            at, is_same = _ROW * before + c, before == classes[c]
            stay[at] = _ALL_BITS if is_same else _ZERO
            add[at] = np.uint64(lowers[c]) ^ (_ZERO if is_same else FNV ^ np.uint64(classes[c]))
            ends[at] = before != 0 and not is_same
    return stay, add, ends, rows


@njit(cache=True, nogil=True)
def scan_tokens(data, begin, end, classes, lowers, steps, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the hashes of one text's tokens, marks too, into ``out``; return how many. They still have to be mixed.

    ``out`` has room for one value more than there are tokens. A character that belongs to no token changes the
    hash as well, and the first of the next token resets it.
    """
    stay, add, ends, rows = steps
    at, stop = np.uint64(begin), np.uint64(end)
    count, row, h = _ZERO, _ZERO, _ZERO
    while at < stop:
        byte = data[at]
        if byte < 0x80:
            step = row + np.uint64(byte)
            out[count] = h  # counts when a token has ended
            h = ((h & stay[step]) ^ add[step]) * PRIME
            count += np.uint64(ends[step])
            row = np.uint64(rows[byte])
            at += _ONE
            continue
        code, size = decode(data, np.int64(at), np.int64(stop))
        kind = np.uint64(class_of(code, classes))
        if kind * np.uint64(_ROW) != row or kind == 3:
            out[count] = h
            count += np.uint64(row != 0)
            h = FNV ^ kind
        h = add_code(h, np.int64(lowers[code]) if code < 0x10000 else code)
        row = kind * np.uint64(_ROW)
        at += np.uint64(size)
    out[count] = h
    return np.int64(count + np.uint64(row != 0))


@njit(cache=True, nogil=True, inline="always")
def bucket_of(h, num_buckets):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Scale the high 32 bits (FNV's low bits are weak) to [0, num_buckets) without a division."""
    return (h >> HALF) * num_buckets >> HALF


@njit(cache=True, nogil=True, inline="always")
def pair_hash(before, h):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the hash of a pair: that of the token before, and that of the token."""
    return mix(before * GOLDEN ^ h)


@njit(cache=True, nogil=True)
def count_ngrams(data, offsets, classes, lowers, order, counts, others):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add how often each bucket occurs in all texts together to ``counts`` and, by its own number, to ``others``.

    Both are int64; the length is the number of buckets, and ``others`` may have none.
    """
    m, n = np.uint64(len(counts)), np.uint64(len(others))
    steps, tokens = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    for row in range(len(offsets) - 1):
        num = scan_tokens(data, offsets[row], offsets[row + 1], classes, lowers, steps, tokens)
        before = _ZERO
        for i in range(num):
            h = mix(tokens[i])
            counts[bucket_of(h, m)] += 1
            if n > 0:
                others[bucket_of(h, n)] += 1
            if order == 2 and i > 0:
                g = pair_hash(before, h)
                counts[bucket_of(g, m)] += 1
                if n > 0:
                    others[bucket_of(g, n)] += 1
            before = h


@njit(cache=True, nogil=True)
def score_ngrams(data, offsets, classes, lowers, weights, order):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return each text's sum of bucket weights float64 [n] and its number of tokens int32 [n]."""
    m = np.uint64(len(weights))
    sums = np.zeros(len(offsets) - 1, np.float64)
    counts = np.zeros(len(offsets) - 1, np.int32)
    steps, tokens = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    for row in range(len(offsets) - 1):
        num = scan_tokens(data, offsets[row], offsets[row + 1], classes, lowers, steps, tokens)
        before, total = _ZERO, 0.0
        for i in range(num):
            h = mix(tokens[i])
            total += weights[bucket_of(h, m)]
            if order == 2 and i > 0:
                total += weights[bucket_of(pair_hash(before, h), m)]
            before = h
        sums[row] = total
        counts[row] = num
    return sums, counts


@njit(cache=True, nogil=True)
def feature_buckets(data, offsets, classes, lowers, num_buckets, order):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the bucket of every feature int32 [F] in text order, and where each text's begin int64 [n + 1]."""
    m = np.uint64(num_buckets)
    num_texts = len(offsets) - 1
    out = np.empty(2 * (offsets[num_texts] - offsets[0]), np.int32)  # a token has at least one byte
    starts = np.zeros(num_texts + 1, np.int64)
    steps, tokens = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    total = 0
    for row in range(num_texts):
        num = scan_tokens(data, offsets[row], offsets[row + 1], classes, lowers, steps, tokens)
        before = _ZERO
        for i in range(num):
            h = mix(tokens[i])
            out[total] = bucket_of(h, m)
            total += 1
            if order == 2 and i > 0:
                out[total] = bucket_of(pair_hash(before, h), m)
                total += 1
            before = h
        starts[row + 1] = total
    return out[:total].copy(), starts


@njit(cache=True, nogil=True)
def count_words(data, offsets, classes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return each text's number of word tokens int64 [n]: as the tokeniser counts, without hashing."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    words = np.zeros(_ROW, np.uint64)
    for c in range(_ROW):
        words[c] = classes[c] == 1
    for row in range(len(offsets) - 1):
        at, stop = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        count, inside = _ZERO, _ZERO
        while at < stop:
            byte = data[at]
            if byte < 0x80:
                word = words[byte]
                count += word & (inside ^ _ONE)
                inside = word
                at += _ONE
                continue
            code, size = decode(data, np.int64(at), np.int64(stop))
            kind = class_of(code, classes)
            count += np.uint64(kind == 3 or (kind == 1 and inside == 0))
            inside = np.uint64(kind == 1)
            at += np.uint64(size)
        counts[row] = count
    return counts
