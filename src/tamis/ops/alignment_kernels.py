"""Compiled loops that compare token sequences; `tamis.ops.alignment` is the door to them.

Source: Myers 1999 (bit-parallel edit distance) in the blocks of Hyyrö 2003; Ukkonen 1985 (the band, and the furthest
row of each diagonal).
"""

import numpy as np
from numba import njit

_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_FEW_EDITS = 1024  # looked for by diagonals
_MOST_COUNTS = 1 << 20


@njit(cache=True, nogil=True)
def num_shared(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count the pairs of equal elements of two sorted arrays, each element in one pair at most."""
    i, j, shared = 0, 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            shared += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return shared


@njit(cache=True, nogil=True)
def sorted_intersection(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count the common elements of two sorted arrays without repetitions; gallops when one is 10 times longer."""
    if len(a) > len(b):
        a, b = b, a
    common, j = 0, 0
    if len(b) > 10 * len(a):
        for x in a:
            j += np.searchsorted(b[j:], x)
            if j == len(b):
                break
            common += b[j] == x
        return common
    return num_shared(a, b)


@njit(cache=True, nogil=True)
def bag_distance(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return max(|a - b|, |b - a|) of two sorted multisets: never above their edit distance."""
    return max(len(a), len(b)) - num_shared(a, b)


@njit(cache=True, nogil=True)
def _slots_for(count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    size = np.int64(16)
    while size < 2 * count:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def _slot(table, heads, token, slots):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return where ``token`` is in the table, or the free slot where it belongs (its head is -2)."""
    at = np.int64(token & np.uint64(slots - 1))
    while heads[at] != -2 and table[at] != token:
        at = (at + 1) & (slots - 1)
    return at


@njit(cache=True, nogil=True)
def _add_counts(tokens, change, counts, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for token in tokens:
        counts[token & mask] += change


@njit(cache=True, nogil=True)
def _num_taken(tokens, counts, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return how many tokens find one of their own in ``counts``, at least: tokens may share a place.

    Takes each out; `_add_counts` puts them back.
    """
    taken = 0
    for token in tokens:
        counts[token & mask] -= 1
        taken += counts[token & mask] >= 0
    return taken


@njit(cache=True, nogil=True)
def _few_edits(a, b, most, limit, reached):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the edit distance of a (rows) and b (columns) if it is at most ``most``, else any larger number.

    Ukkonen 1985: for 0, 1, 2 ... edits the last row that they reach on each diagonal (column - row); ``most`` is at
    most ``limit``. Diagonals from which the end is more than limit edits away are left out. O(n + distance^2).
    """
    m, n = len(a), len(b)
    end = n - m
    middle = most + 1
    for place in range(2 * middle + 1):
        reached[place] = -2 * middle  # not reached
    for edits in range(most + 1):
        low = max(-edits, end - (limit - edits), -m)
        high = min(edits, end + (limit - edits), n)
        left = reached[np.uint64(middle + low - 1)]
        here = reached[np.uint64(middle + low)]
        for diagonal in range(low, high + 1):
            right = reached[np.uint64(middle + diagonal + 1)]
            row = min(max(left, here + 1, right + 1), m, n - diagonal) if edits > 0 else 0
            if row >= 0 and row + diagonal >= 0:
                i, j = np.uint64(row), np.uint64(row + diagonal)
                while i < np.uint64(m) and j < np.uint64(n) and a[i] == b[j]:
                    i += _ONE
                    j += _ONE
                row = np.int64(i)
            if diagonal == end and row == m:
                return edits
            left, here = here, right
            reached[np.uint64(middle + diagonal)] = row
    return most + 1


@njit(cache=True, nogil=True)
def _within_band(a, b, band, table, heads, following, vp, vn, equal):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the edit distance of a (rows) and b (columns) if it is at most ``band``, else any larger number.

    64 rows are one word of the vertical differences (vp: +1, vn: -1). Only words that meet the band are
    computed; what lies outside is replaced by bounds from above, which no path within the band can use.
    The positions of a token in a are a chain; as the band only moves down, its passed part is cut off for good.
    """
    m, n = len(a), len(b)
    slots = _slots_for(m)
    heads[:slots] = -2
    for row in range(m - 1, -1, -1):
        at = _slot(table, heads, a[row], slots)
        following[row] = heads[at] if heads[at] != -2 else -1
        table[at], heads[at] = a[row], row
    last = -1
    score = np.int64(0)
    for column in range(n):
        low = max(0, column - band)  # rows of the band
        first, final = low >> 6, min(m - 1, column + band) >> 6
        while last < final:
            last += 1
            vp[last], vn[last] = _ALL, np.uint64(0)
            score += min(64, m - 64 * last)
        lowest = np.uint64(min(64, m - 64 * last) - 1)  # row of the band's lower end in its last word
        at = _slot(table, heads, b[column], slots)
        row = heads[at]
        while row >= 0 and row < 64 * first:
            row = following[row]
        if heads[at] != -2:
            heads[at] = row
        while row >= 0 and row < 64 * (last + 1):
            equal[row >> 6] |= _ONE << np.uint64(row & 63)
            row = following[row]
        plus, minus = _ONE, np.uint64(0)  # horizontal difference above the first word
        for word in range(first, last + 1):
            p, q, e = vp[word], vn[word], equal[word]
            equal[word] = np.uint64(0)
            x = e | q
            e |= minus
            h = (((e & p) + p) ^ p) | e
            up, down = q | ~(h | p), p & h
            bottom = np.uint64(63) if word < last else lowest
            up_out, down_out = up >> bottom & _ONE, down >> bottom & _ONE
            up, down = up << _ONE | plus, down << _ONE | minus
            vp[word], vn[word] = down | ~(x | up), up & x
            plus, minus = up_out, down_out
        score += np.int64(plus) - np.int64(minus)
    return score


@njit(cache=True, nogil=True)
def _distance(a, b, limit, max_steps, table, heads, following, vp, vn, equal, reached):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the edit distance, limit + 1 when it is larger, or -1 when finding out would take too long."""
    start, stop = 0, min(len(a), len(b))
    while start < stop and a[start] == b[start]:
        start += 1
    tail = 0
    while tail < stop - start and a[len(a) - 1 - tail] == b[len(b) - 1 - tail]:
        tail += 1
    a, b = a[start : len(a) - tail], b[start : len(b) - tail]
    if len(a) == 0 or len(b) == 0:
        return max(len(a), len(b))  # at most the limit: it is the difference of the lengths
    reach = min(limit, max(len(a), len(b)))
    few = min(reach, _FEW_EDITS)
    found = _few_edits(a, b, few, reach, reached)
    if found <= few:
        return found
    if few == reach:
        return limit + 1
    band = reach if len(a) <= 512 else min(2 * few, reach)
    while True:
        if len(b) * (2 * band // 64 + 2) > max_steps:
            return -1
        if abs(len(a) - len(b)) <= band:
            found = _within_band(a, b, band, table, heads, following, vp, vn, equal)
            if found <= band:
                return found
        if band >= reach:
            return limit + 1
        band = min(4 * band, reach)


@njit(cache=True, nogil=True)
def _longest(starts, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    most = np.int64(1)
    for row in rows:
        most = max(most, starts[row + 1] - starts[row])
    return most


@njit(cache=True, nogil=True)
def pair_distances(tokens, starts, left, right, limits, max_steps):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return `_distance` for each pair of rows, int64 [P].

    Most pairs are left by their counts of tokens: max(n, m) minus the tokens in common is never above the distance.
    The counts of the right sequence serve for all pairs in a row that have it.
    """
    longest = _longest(starts, left)
    slots = _slots_for(longest)
    table, heads = np.empty(slots, np.uint64), np.empty(slots, np.int64)
    following = np.empty(slots, np.int64)
    words = longest // 64 + 1
    vp, vn, equal = np.empty(words, np.uint64), np.empty(words, np.uint64), np.zeros(words, np.uint64)
    reached = np.empty(2 * _FEW_EDITS + 8, np.int64)
    counts = np.zeros(min(2 * _slots_for(_longest(starts, right)), _MOST_COUNTS), np.int32)
    mask, counted, b = np.uint64(0), -1, tokens[:0]
    out = np.empty(len(left), np.int64)
    for pair in range(len(left)):
        a = tokens[starts[left[pair]] : starts[left[pair] + 1]]
        limit, num = limits[pair], starts[right[pair] + 1] - starts[right[pair]]
        out[pair] = limit + 1
        if abs(len(a) - num) > limit:
            continue
        if right[pair] != counted:
            _add_counts(b, -1, counts, mask)
            b, counted = tokens[starts[right[pair]] : starts[right[pair] + 1]], right[pair]
            mask = np.uint64(min(2 * _slots_for(num), len(counts)) - 1)
            _add_counts(b, 1, counts, mask)
        common = _num_taken(a, counts, mask)
        _add_counts(a, 1, counts, mask)
        if max(len(a), num) - common <= limit:
            out[pair] = _distance(a, b, limit, max_steps, table, heads, following, vp, vn, equal, reached)
    return out


@njit(cache=True, nogil=True)
def pair_intersections(values, starts, left, right):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return `sorted_intersection` for each pair of rows, int64 [P]."""
    out = np.empty(len(left), np.int64)
    for pair in range(len(left)):
        out[pair] = sorted_intersection(
            values[starts[left[pair]] : starts[left[pair] + 1]], values[starts[right[pair]] : starts[right[pair] + 1]]
        )
    return out


@njit(cache=True, nogil=True)
def pair_contains(tokens, starts, left, right):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return for each pair whether the left sequence occurs in the right one as consecutive tokens, bool [P].

    Knuth, Morris, Pratt 1977: linear in both lengths, whatever repeats.
    """
    borders = np.empty(_longest(starts, left), np.int64)
    out = np.zeros(len(left), np.bool_)
    for pair in range(len(left)):
        a = tokens[starts[left[pair]] : starts[left[pair] + 1]]
        b = tokens[starts[right[pair]] : starts[right[pair] + 1]]
        if len(a) == 0 or len(a) > len(b):
            out[pair] = len(a) == 0
            continue
        border = np.int64(0)
        borders[0] = 0
        for i in range(1, len(a)):
            while border > 0 and a[i] != a[border]:
                border = borders[border - 1]
            border += a[i] == a[border]
            borders[i] = border
        matched = 0
        for j in range(len(b)):
            while matched > 0 and b[j] != a[matched]:
                matched = borders[matched - 1]
            matched += b[j] == a[matched]
            if matched == len(a):
                out[pair] = True
                break
    return out
