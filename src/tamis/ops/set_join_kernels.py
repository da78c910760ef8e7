"""Compiled loops that compare texts as sets; `tamis.ops.set_join` is the door to them.

Source: Chaudhuri, Ganti, Kaushik 2006 (prefix filter); Bayardo, Ma, Srikant 2007 (All-Pairs, rarest first).
"""

import numpy as np
from numba import njit

from tamis.ops.alignment_kernels import num_shared
from tamis.ops.byte_kernels import add_code, decode, longest, mix
from tamis.ops.overlap_kernels import next_word, place_in

_FNV = np.uint64(0xCBF29CE484222325)


@njit(cache=True, nogil=True)
def char_grams(data, offsets, classes, lowers, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return hashes of ``size`` consecutive characters of each text's lower-cased words, joined by one blank.

    A text of fewer characters, if it has any, is one gram.
    """
    hashes = np.empty(max(np.int64(1), offsets[-1] - offsets[0] + len(offsets)), np.uint64)
    starts = np.zeros(len(offsets), np.int64)
    codes = np.empty(2 * longest(offsets) + 1, np.int64)
    total = 0
    for row in range(len(offsets) - 1):
        at, stop, count = offsets[row], offsets[row + 1], 0
        while True:
            begin, end = next_word(data, at, stop, classes)
            if begin == end:
                break
            if count > 0:
                codes[count] = 0x20
                count += 1
            at = begin
            while at < end:
                code, num_bytes = decode(data, at, end)
                codes[count] = np.int64(lowers[code]) if code < 0x10000 else code
                count += 1
                at += num_bytes
        w = min(size, count)
        for start in range(count - w + 1 if count else 0):
            h = _FNV
            for i in range(start, start + w):
                h = add_code(h, codes[i])
            hashes[total] = mix(h)
            total += 1
        starts[row + 1] = total
    return hashes[:total].copy(), starts


@njit(cache=True, nogil=True)
def distinct(values, starts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return each text's values ascending and without repeats, and where each text's begin."""
    out, out_starts = np.empty(len(values), values.dtype), np.zeros(len(starts), np.int64)
    total = 0
    for row in range(len(starts) - 1):
        ordered = np.sort(values[starts[row] : starts[row + 1]])
        for i in range(len(ordered)):
            if i == 0 or ordered[i] != ordered[i - 1]:
                out[total] = ordered[i]
                total += 1
        out_starts[row + 1] = total
    return out[:total].copy(), out_starts


@njit(cache=True, nogil=True)
def most_similar(values, starts, vocabulary, ranks, sets, set_starts, posting_starts, postings, min_jaccard):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return for each text the set of the highest Jaccard similarity, the first of equals, or -1; and that value.

    Args: ``values`` distinct a text; ``vocabulary`` the sets' values ascending, ``ranks`` of each, rarest 0;
    ``sets`` the ranks of each set ascending; ``postings`` the sets that hold a rank in their prefix.
    """
    num_texts, num_sets = len(starts) - 1, len(set_starts) - 1
    best, best_score = np.full(num_texts, -1, np.int64), np.zeros(num_texts)
    seen = np.full(num_sets, -1, np.int64)
    for row in range(num_texts):
        size = starts[row + 1] - starts[row]
        known, num_known = np.empty(size, np.int64), 0
        for i in range(starts[row], starts[row + 1]):
            at = place_in(values[i], vocabulary)
            if at >= 0:
                known[num_known] = ranks[at]
                num_known += 1
        known = np.sort(known[:num_known])
        # What no set has counts as rarest of all: it uses up the prefix and matches nothing.
        prefix = size - np.int64(np.ceil(min_jaccard * size - 1e-9)) + 1 - (size - num_known)
        for k in range(min(prefix, num_known)):
            for p in range(posting_starts[known[k]], posting_starts[known[k] + 1]):
                other = postings[p]
                if seen[other] == row:
                    continue
                seen[other] = row
                members = sets[set_starts[other] : set_starts[other + 1]]
                if min(size, len(members)) < min_jaccard * max(size, len(members)) - 1e-9:
                    continue
                shared = num_shared(known, members)
                score = shared / (size + len(members) - shared)
                if score >= min_jaccard and (
                    score > best_score[row] or (score == best_score[row] and other < best[row])
                ):
                    best[row], best_score[row] = other, score
    return best, best_score
