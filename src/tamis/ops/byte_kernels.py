"""Compiled loops over the bytes of Arrow strings; `tamis.ops.bytes` is the door to them.

Source: tamis design (method cards K3 and K5); FNV-1a (Fowler, Noll, Vo), MinHash (Broder 1997).

Importing this compiles nothing but takes about a second (numba), so `tamis.ops.bytes` imports it on use.
"""

import numpy as np
from numba import njit

from tamis.ops.shingle_vectors import LANES, minima

FNV = np.uint64(0xCBF29CE484222325)
PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0xD6E8FEB86659FD93)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)


@njit(cache=True, nogil=True, inline="always")
def mix(h):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return a hash with its bits mixed: the finisher of token hashes."""
    h ^= h >> HALF
    h *= _MIX
    h ^= h >> HALF
    return h


@njit(cache=True, nogil=True)
def decode(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return code point and length in bytes; a sequence cut off by ``stop`` counts as one odd byte."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        if at + 2 > stop:
            return np.int64(0xFFFD), 1
        return (lead & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, 2
    if lead < 0xF0:
        if at + 3 > stop:
            return np.int64(0xFFFD), 1
        return (lead & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, 3
    if at + 4 > stop:
        return np.int64(0xFFFD), 1
    high = (lead & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
    return high | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F, 4


@njit(cache=True, nogil=True)
def class_of(code, classes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the class of a code point: 0 for blanks, 1 word, 2 mark, 3 a word of its own."""
    if code < 0x10000:
        return np.int64(classes[code])
    if 0x20000 <= code < 0x40000:
        return np.int64(3)
    if 0x1F000 <= code < 0x1FB00:
        return np.int64(2)
    return np.int64(1)


@njit(cache=True, nogil=True)
def add_code(h, code):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add the UTF-8 bytes of one code point to an FNV-1a hash."""
    if code < 0x80:
        return (h ^ np.uint64(code)) * PRIME
    if code < 0x800:
        h = (h ^ np.uint64(0xC0 | code >> 6)) * PRIME
    else:
        if code < 0x10000:
            h = (h ^ np.uint64(0xE0 | code >> 12)) * PRIME
        else:
            h = (h ^ np.uint64(0xF0 | code >> 18)) * PRIME
            h = (h ^ np.uint64(0x80 | (code >> 12 & 0x3F))) * PRIME
        h = (h ^ np.uint64(0x80 | (code >> 6 & 0x3F))) * PRIME
    return (h ^ np.uint64(0x80 | (code & 0x3F))) * PRIME


@njit(cache=True, nogil=True)
def next_token(data, at, stop, classes, lowers, words_only):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return where the next token ends, its hash and its class; class 0 when there is none."""
    kind = np.int64(0)
    code, size = np.int64(0), 0
    while at < stop:
        code, size = decode(data, at, stop)
        kind = class_of(code, classes)
        if kind != 0 and (kind != 2 or not words_only):
            break
        kind = np.int64(0)
        at += size
    if kind == 0:
        return at, np.uint64(0), kind
    h = FNV ^ np.uint64(kind)
    while True:
        h = add_code(h, np.int64(lowers[code]) if code < 0x10000 else code)
        at += size
        if kind == 3 or at >= stop:
            break
        code, size = decode(data, at, stop)
        if class_of(code, classes) != kind:
            break
    return at, mix(h), kind


@njit(cache=True, nogil=True)
def _document(data, at, stop, classes, lowers, words_only, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the token hashes of one text into ``out``; return how many, and how many are spaceless."""
    count, num_spaceless = 0, 0
    while True:
        at, h, kind = next_token(data, at, stop, classes, lowers, words_only)
        if kind == 0:
            return count, num_spaceless
        out[count] = h
        count += 1
        if kind == 3:
            num_spaceless += 1


@njit(cache=True, nogil=True)
def longest(offsets):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the bytes of the longest text, at least 1: room for every token of any one text."""
    most = np.int64(1)
    for row in range(len(offsets) - 1):
        most = max(most, offsets[row + 1] - offsets[row])
    return most


@njit(cache=True, nogil=True)
def token_hashes(data, offsets, classes, lowers, words_only):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the hashes of all tokens uint64 [T] and where each text's begin int64 [n + 1]."""
    num_texts = len(offsets) - 1
    out = np.empty(offsets[num_texts] - offsets[0], np.uint64)
    starts = np.zeros(num_texts + 1, np.int64)
    total = 0
    for row in range(num_texts):
        count, _ = _document(data, offsets[row], offsets[row + 1], classes, lowers, words_only, out[total:])
        total += count
        starts[row + 1] = total
    return out[:total].copy(), starts


@njit(cache=True, nogil=True)
def text_hashes(data, offsets, classes, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return one hash of each text's word tokens, their number, and how many of them are spaceless."""
    num_texts = len(offsets) - 1
    hashes = np.zeros(num_texts, np.uint64)
    counts = np.zeros(num_texts, np.int32)
    spaceless = np.zeros(num_texts, np.int32)
    for row in range(num_texts):
        at, stop, g = offsets[row], offsets[row + 1], np.uint64(0)
        while True:
            at, h, kind = next_token(data, at, stop, classes, lowers, True)
            if kind == 0:
                break
            g = g * GOLDEN + h
            counts[row] += 1
            if kind == 3:
                spaceless[row] += 1
        if counts[row] > 0:
            hashes[row] = mix(g)
    return hashes, counts, spaceless


@njit(cache=True, nogil=True)
def _is_member(value, ordered):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    at = np.searchsorted(ordered, value)
    return at < len(ordered) and ordered[at] == value


@njit(cache=True, nogil=True)
def shingle_hash(tokens, start, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Hash of ``width`` consecutive token hashes."""
    g = np.uint64(0)
    for i in range(start, start + width):
        g = g * GOLDEN + tokens[i]
    return mix(g)


@njit(cache=True, nogil=True)
def minhash(data, offsets, classes, lowers, a, b, width, common):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return signatures uint32 [n, K] and shingle positions used int32 [n]."""
    num_texts, num_hashes = len(offsets) - 1, len(a)
    lanes = (num_hashes + LANES - 1) // LANES * LANES
    factors, summands, signature = np.zeros(lanes, np.uint32), np.zeros(lanes, np.uint32), np.empty(lanes, np.uint32)
    factors[:num_hashes], summands[:num_hashes] = a, b
    signatures = np.empty((num_texts, num_hashes), np.uint32)
    used = np.zeros(num_texts, np.int32)
    tokens, kept = np.empty(longest(offsets), np.uint64), np.empty(longest(offsets), np.uint32)
    for row in range(num_texts):
        count, _ = _document(data, offsets[row], offsets[row + 1], classes, lowers, True, tokens)
        w, found = min(width, count), 0
        for start in range(count - w + 1 if count > 0 else 0):
            g = shingle_hash(tokens, start, w)
            kept[found] = np.uint32(g >> HALF)
            found += len(common) == 0 or not _is_member(g, common)
        used[row] = found
        minima(kept, found, factors, summands, signature)
        signatures[row] = signature[:num_hashes]
    return signatures, used


@njit(cache=True, nogil=True)
def _matches(tokens, start, count, phrase, begin, end):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if start + end - begin > count:
        return False
    for i in range(end - begin):  # noqa: SIM110 - a compiled loop
        if tokens[start + i] != phrase[begin + i]:
            return False
    return True


@njit(cache=True, nogil=True)
def find_phrases(data, offsets, classes, lowers, phrases, starts, order, heads, filter_bits, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return for each phrase the row of the first text that holds it as consecutive words, or -1.

    ``heads`` are the sorted hashes of the phrases' first ``width`` tokens, ``order`` the phrase of each;
    ``filter_bits`` marks the top 16 bits of the heads, so that nearly all positions are left at once.
    """
    found = np.full(len(starts) - 1, -1, np.int64)
    tokens = np.empty(longest(offsets), np.uint64)
    for row in range(len(offsets) - 1):
        count, _ = _document(data, offsets[row], offsets[row + 1], classes, lowers, True, tokens)
        for start in range(count - width + 1):
            g = shingle_hash(tokens, start, width)
            if filter_bits[np.int64(g >> np.uint64(48))] == 0:
                continue
            at = np.searchsorted(heads, g)
            while at < len(heads) and heads[at] == g:
                phrase = order[at]
                if found[phrase] < 0 and _matches(tokens, start, count, phrases, starts[phrase], starts[phrase + 1]):
                    found[phrase] = row
                at += 1
    return found
