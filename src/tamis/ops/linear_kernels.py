"""Compiled loops that train linear models on hashed n-grams and make tf-idf rows; `tamis.ops.linear` is the door.

Source: tamis design (method card C3); AdaGrad: Duchi, Hazan, Singer 2011; fastText features: Joulin et al. 2016,
arXiv:1607.01759.
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import longest, mix
from tamis.ops.ngram_kernels import bucket_of, pair_hash, scan_tokens, steps_of


@njit(cache=True, nogil=True)
def _features(data, at, stop, classes, lowers, steps, tokens, m, order, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the buckets of one text's features, in text order; return how many. ``tokens`` is scratch."""
    num = scan_tokens(data, at, stop, classes, lowers, steps, tokens)
    before, count = np.uint64(0), 0
    for i in range(num):
        h = mix(tokens[i])
        out[count] = bucket_of(h, m)
        count += 1
        if order == 2 and i > 0:
            out[count] = bucket_of(pair_hash(before, h), m)
            count += 1
        before = h
    return count


@njit(cache=True, nogil=True)
def adagrad_epoch(  # type: ignore[no-untyped-def]  # noqa: ANN201
    data,  # noqa: ANN001
    offsets,  # noqa: ANN001
    classes,  # noqa: ANN001
    lowers,  # noqa: ANN001
    rows,  # noqa: ANN001
    labels,  # noqa: ANN001
    importance,  # noqa: ANN001
    rate,  # noqa: ANN001
    order,  # noqa: ANN001
    weights,  # noqa: ANN001
    squares,  # noqa: ANN001
    bias,  # noqa: ANN001
    buckets,  # noqa: ANN001
):
    """Take one step for each of ``rows`` in their order, changing weights and squares; return the new bias."""
    m = np.uint64(len(weights))
    steps, tokens = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    for row in rows:
        count = _features(data, offsets[row], offsets[row + 1], classes, lowers, steps, tokens, m, order, buckets)
        if count == 0:
            continue
        total, root = 0.0, np.sqrt(count)
        for f in range(count):
            total += weights[buckets[f]]
        gradient = importance[row] * (1.0 / (1.0 + np.exp(-(total / root + bias))) - labels[row])
        part = gradient / root
        for f in range(count):  # a repeated feature takes a step each time it occurs
            bucket = buckets[f]
            squares[bucket] += part * part
            weights[bucket] -= rate * part / np.sqrt(squares[bucket] + 1e-8)
        bias -= 0.01 * gradient
    return bias


@njit(cache=True, nogil=True)
def document_frequencies(data, offsets, classes, lowers, num_buckets, order, buckets):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return in how many texts each bucket occurs, int64 [num_buckets]."""
    m = np.uint64(num_buckets)
    counts = np.zeros(num_buckets, np.int64)
    last = np.full(num_buckets, -1, np.int64)  # the latest text that was counted
    steps, tokens = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    for row in range(len(offsets) - 1):
        count = _features(data, offsets[row], offsets[row + 1], classes, lowers, steps, tokens, m, order, buckets)
        for f in range(count):
            bucket = buckets[f]
            if last[bucket] != row:
                last[bucket] = row
                counts[bucket] += 1
    return counts


@njit(cache=True, nogil=True)
def tfidf_rows(data, offsets, classes, lowers, idf, order, buckets):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return unit rows of (1 + ln tf) * idf: buckets int32 [Z], values float64 [Z], starts int64 [n + 1].

    Within a row buckets stand in the order of their first occurrence; a row of weight 0 stays empty.
    """
    m = np.uint64(len(idf))
    num_texts = len(offsets) - 1
    room = 1024
    columns, values = np.empty(room, np.int32), np.empty(room, np.float64)
    starts = np.zeros(num_texts + 1, np.int64)
    place = np.full(len(idf), -1, np.int64)
    total = 0
    steps, tokens = steps_of(classes, lowers), np.empty(longest(offsets) + 1, np.uint64)
    for row in range(num_texts):
        count = _features(data, offsets[row], offsets[row + 1], classes, lowers, steps, tokens, m, order, buckets)
        if total + count > room:
            room = max(2 * room, total + count)
            wider, longer = np.empty(room, np.int32), np.empty(room, np.float64)
            wider[:total], longer[:total] = columns[:total], values[:total]
            columns, values = wider, longer
        begin = total
        for f in range(count):
            bucket = buckets[f]
            if idf[bucket] == 0.0:
                continue
            if place[bucket] < begin:
                place[bucket] = total
                columns[total], values[total] = bucket, 0.0
                total += 1
            values[place[bucket]] += 1.0
        norm = 0.0
        for at in range(begin, total):
            values[at] = (1.0 + np.log(values[at])) * idf[columns[at]]
            norm += values[at] * values[at]
        for at in range(begin, total):
            values[at] /= np.sqrt(norm)
        starts[row + 1] = total
    return columns[:total].copy(), values[:total].copy(), starts
