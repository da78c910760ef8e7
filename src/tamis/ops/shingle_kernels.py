"""Compiled loops for word shingles, band hashes and buckets; `tamis.ops.shingles` is the door to them.

Source: tamis design (method cards K5 and I5); Broder 1997 (MinHash); Leskovec, Rajaraman, Ullman (banding).
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import _FNV, _HALF, _PRIME, _decode, _mix, _next_token, longest, shingle_hash

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.uint32(0xFFFFFFFF)
_FIRST = _FNV ^ np.uint64(1)  # the class of word characters
_BLOCK = 64
_MARK_SHIFT = np.uint64(46)  # the top 18 bits of a shingle
_COUNT_SHIFT = np.uint64(44)  # the top 20 bits


@njit(cache=True, nogil=True)
def _folded(classes, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return for each ASCII character its lower case if it belongs to words, else 0; uint64 [128]."""
    fold = np.zeros(128, np.uint64)
    for c in range(128):
        if classes[c] == 1:
            fold[c] = lowers[c]
    return fold


@njit(cache=True, nogil=True)
def _words(data, at, stop, fold, classes, lowers, out, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the word hashes of one text into ``out`` from ``count`` on; return where they end.

    The same hashes as `byte_kernels.token_hashes`. ASCII is read without a jump a byte, as jumps at the ends of
    words cannot be foreseen; a word with any other byte is read again by the general rule.
    """
    begin = at
    while True:
        inside, h = np.int64(0), _FIRST
        while at < stop and data[at] < 0x80:
            letter = fold[data[at]]
            word = np.int64(letter != 0)
            out[count] = _mix(h)  # counts when a word has ended
            count += inside & (1 - word)
            h = (h ^ letter) * _PRIME if word else _FIRST
            inside = word
            at += 1
        if at >= stop:
            out[count] = _mix(h)
            return count + inside
        while inside and at > begin and data[at - 1] < 0x80 and fold[data[at - 1]] != 0:
            at -= 1
        at, g, kind = _next_token(data, at, stop, classes, lowers, True)
        begin = at
        if kind == 0:
            return count
        out[count] = g
        count += 1


@njit(cache=True, nogil=True)
def word_hashes(data, offsets, classes, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the hashes of all words uint64 [T] and where each text's begin int64 [n + 1]."""
    num_texts = len(offsets) - 1
    fold = _folded(classes, lowers)
    out = np.empty((offsets[num_texts] - offsets[0] + num_texts) // 2 + 1, np.uint64)  # words of one byte are apart
    starts = np.zeros(num_texts + 1, np.int64)
    for row in range(num_texts):
        starts[row + 1] = _words(data, offsets[row], offsets[row + 1], fold, classes, lowers, out, starts[row])
    return out[: starts[num_texts]], starts


@njit(cache=True, nogil=True)
def _begun(tokens, start, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the hash of ``width`` - 1 tokens, not mixed, and the factor of the oldest token of a shingle.

    With them the next shingle costs one step: g = g * GOLDEN + newest token, then mix(g) is `shingle_hash`,
    then g -= factor * oldest token.
    """
    g, factor = np.uint64(0), np.uint64(1)
    for i in range(start, start + width - 1):
        g = g * _GOLDEN + tokens[i]
        factor *= _GOLDEN
    return g, factor


@njit(cache=True, nogil=True)
def _slots_for(count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the size of an open-addressing table for ``count`` items: a power of two, at most half full."""
    size = np.int64(16)
    while size < 2 * count:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def fill_table(values, table, marks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Put distinct values into a zeroed open-addressing table and mark their top 18 bits."""
    mask = np.uint64(len(table) - 1)
    for value in values:
        at = value & mask
        while table[at] != 0:
            at = (at + np.uint64(1)) & mask
        table[at] = value
        marks[value >> _MARK_SHIFT] = 1


@njit(cache=True, nogil=True)
def _is_common(g, table, marks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if marks[g >> _MARK_SHIFT] == 0:  # nearly all that are not common
        return False
    mask = np.uint64(len(table) - 1)
    at = g & mask
    while table[at] != 0 and table[at] != g:
        at = (at + np.uint64(1)) & mask
    return table[at] == g


@njit(cache=True, nogil=True)
def count_shingles(tokens, starts, width, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Turn token sequences into shingles, in place, and count these by their top 20 bits.

    Sequence i becomes the shingles tokens[starts[i]:stops[i]]; returns stops int64 [n].
    """
    stops = starts[:-1].copy()
    for row in range(len(stops)):
        count = starts[row + 1] - starts[row]
        w = min(width, count)
        if count == 0:
            continue
        g, factor = _begun(tokens, starts[row], w)
        for start in range(starts[row], starts[row + 1] - w + 1):
            g = g * _GOLDEN + tokens[start + w - 1]
            mixed, oldest = _mix(g), tokens[start]
            counts[np.int64(mixed >> _COUNT_SHIFT)] += 1
            tokens[start] = mixed  # the shingles that follow begin after it
            g -= factor * oldest
        stops[row] += count - w + 1
    return stops


@njit(cache=True, nogil=True)
def select_counted(shingles, starts, stops, counts, minimum):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the distinct shingles of each sequence whose place in ``counts`` reaches ``minimum``."""
    total = 0
    for row in range(len(stops)):
        for at in range(starts[row], stops[row]):
            total += counts[np.int64(shingles[at] >> _COUNT_SHIFT)] >= minimum
    out = np.empty(total, np.uint64)
    table, seen = np.empty(16, np.uint64), np.zeros(16, np.int64)
    total = 0
    for row in range(len(stops)):
        slots = _slots_for(stops[row] - starts[row])
        if slots > len(table):
            table, seen = np.empty(slots, np.uint64), np.zeros(slots, np.int64)
        for at in range(starts[row], stops[row]):
            g = shingles[at]
            if counts[np.int64(g >> _COUNT_SHIFT)] < minimum:
                continue
            slot = np.int64(g & np.uint64(slots - 1))
            while seen[slot] == row + 1 and table[slot] != g:
                slot = (slot + 1) & (slots - 1)
            if seen[slot] != row + 1:
                seen[slot], table[slot] = row + 1, g
                out[total] = g
                total += 1
    return out[:total].copy()


@njit(cache=True, nogil=True)
def _minima(values, a, b, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the least (a_k x + b_k) mod 2^32 over the values into ``out``; as many k as 4 divides.

    The values are the inner loop and four minima stay in registers: twice as fast as the other way round.
    numba widens uint32 * uint32: without the casts every value would be wrong.
    """
    for k in range(0, len(out), 4):
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        m0, m1, m2, m3 = _NONE, _NONE, _NONE, _NONE
        for i in range(len(values)):
            x = values[i]
            m0, m1 = min(m0, np.uint32(a0 * x + b0)), min(m1, np.uint32(a1 * x + b1))
            m2, m3 = min(m2, np.uint32(a2 * x + b2)), min(m3, np.uint32(a3 * x + b3))
        out[k], out[k + 1], out[k + 2], out[k + 3] = m0, m1, m2, m3


@njit(cache=True, nogil=True)
def band_hashes(data, offsets, classes, lowers, a, b, width, table, marks, num_bands, minimum):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return band hashes uint32 [n, bands], distinctive positions int32 [n] and tokens int32 [n].

    A band hash covers len(a) // bands positions of the signature over distinctive shingles. Rows of texts with fewer
    than ``minimum`` distinctive positions are left at 2^32 - 1 and mean nothing.
    """
    num_texts, rows = len(offsets) - 1, len(a) // num_bands
    bands = np.full((num_texts, num_bands), _NONE, np.uint32)
    used = np.zeros(num_texts, np.int32)
    counts = np.zeros(num_texts, np.int32)
    fold, size = _folded(classes, lowers), longest(offsets)
    tokens, kept = np.empty(size, np.uint64), np.empty(size + _BLOCK, np.uint32)
    signature = np.empty(len(a), np.uint32)
    for row in range(num_texts):
        count = _words(data, offsets[row], offsets[row + 1], fold, classes, lowers, tokens, 0)
        counts[row] = count
        if count == 0:
            continue
        w, found = min(width, count), 0
        g, factor = _begun(tokens, 0, w)
        for start in range(count - w + 1):
            g = g * _GOLDEN + tokens[start + w - 1]
            mixed = _mix(g)
            kept[found] = np.uint32(mixed >> _HALF)
            found += not _is_common(mixed, table, marks)
            g -= factor * tokens[start]
        used[row] = found
        if found < minimum:
            continue
        room = (found + _BLOCK - 1) // _BLOCK * _BLOCK
        kept[found:room] = kept[found - 1]  # whole blocks: a repetition does not change a minimum
        _minima(kept[:room], a, b, signature)
        for band in range(num_bands):
            h = np.uint64(0)
            for k in range(band * rows, (band + 1) * rows):
                h = h * _GOLDEN + np.uint64(signature[k])
            bands[row, band] = np.uint32(_mix(h) >> _HALF)
    return bands, used, counts


@njit(cache=True, nogil=True)
def crowded(hashes, ranks, cells):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return hash << 32 | rank of the entries that share their cell with another; most of the others are left out.

    ``cells`` is uint8, zeroed, of a power of two.
    """
    mask = np.uint32(len(cells) - 1)
    for i in range(len(hashes)):
        cell = hashes[i] & mask
        cells[cell] = min(cells[cell] + 1, 2)
    total = 0
    for i in range(len(hashes)):
        total += cells[hashes[i] & mask] == 2
    out = np.empty(total, np.uint64)
    total = 0
    for i in range(len(hashes)):
        if cells[hashes[i] & mask] == 2:
            out[total] = np.uint64(hashes[i]) << _HALF | ranks[i]
            total += 1
    return out


@njit(cache=True, nogil=True)
def bucket_pairs(entries, num_fixed, max_representatives, pairs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write (member, representative) codes of one band's buckets; return how many there are and the largest bucket.

    Args:
      entries: sorted uint64, band hash in the high half and rank in the global order in the low half.
      num_fixed: ranks below it are representatives alone, and then the only ones; 0: everyone may be either.
      max_representatives: the first so many of a bucket, in the global order.
      pairs: uint64 to fill, member rank in the high half; when it is too short, nothing past its end is written.
    """
    total, largest, start = 0, 0, 0
    low = np.uint64(0xFFFFFFFF)
    while start < len(entries):
        stop = start + 1
        while stop < len(entries) and entries[stop] >> _HALF == entries[start] >> _HALF:
            stop += 1
        largest = max(largest, stop - start)
        for at in range(start + 1, stop):
            member = entries[at] & low
            if num_fixed > 0 and np.int64(member) < num_fixed:
                continue
            for other in range(start, min(at, start + max_representatives)):
                representative = entries[other] & low
                if num_fixed > 0 and np.int64(representative) >= num_fixed:
                    break
                if total < len(pairs):
                    pairs[total] = member << _HALF | representative
                total += 1
        start = stop
    return total, largest


@njit(cache=True, nogil=True)
def shingle_sets(tokens, starts, wanted, width, table, marks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return sorted distinct shingles that are not common of the ``wanted`` token sequences, and their starts [n + 1].

    Sequences that are not wanted get an empty set.
    """
    num_texts = len(starts) - 1
    room = 0
    for row in range(num_texts):
        if wanted[row]:
            room += starts[row + 1] - starts[row]
    out = np.empty(room, np.uint64)
    stops = np.zeros(num_texts + 1, np.int64)
    total = 0
    for row in range(num_texts):
        count = starts[row + 1] - starts[row]
        begin = total
        if wanted[row] and count > 0:
            w = min(width, count)
            for start in range(starts[row], starts[row + 1] - w + 1):
                g = shingle_hash(tokens, start, w)
                if len(table) == 0 or not _is_common(g, table, marks):
                    out[total] = g
                    total += 1
            out[begin:total].sort()
            kept = begin
            for at in range(begin, total):
                if at == begin or out[at] != out[at - 1]:
                    out[kept] = out[at]
                    kept += 1
            total = kept
        stops[row + 1] = total
    return out[:total].copy(), stops


@njit(cache=True, nogil=True)
def character_sets(data, offsets, lowers, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the sorted distinct hashes of ``width`` lower-cased characters in a row, and each text's start [n + 1]."""
    num_texts = len(offsets) - 1
    codes = np.empty(longest(offsets), np.uint64)
    out = np.empty(offsets[num_texts] - offsets[0], np.uint64)
    stops = np.zeros(num_texts + 1, np.int64)
    total = 0
    for row in range(num_texts):
        at, count, begin = offsets[row], 0, total
        while at < offsets[row + 1]:
            code, size = _decode(data, at, offsets[row + 1])
            codes[count] = np.uint64(lowers[code]) if code < 0x10000 else np.uint64(code)
            at += size
            count += 1
        w = min(width, count)
        for start in range(count - w + 1 if count > 0 else 0):
            out[total] = shingle_hash(codes, start, w)
            total += 1
        out[begin:total].sort()
        kept = begin
        for i in range(begin, total):
            if i == begin or out[i] != out[i - 1]:
                out[kept] = out[i]
                kept += 1
        total = kept
        stops[row + 1] = total
    return out[:total].copy(), stops


@njit(cache=True, nogil=True)
def keep_walk(members, representatives, is_protected, chosen):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Walk the documents in the global order; one goes when an edge leads to a document that is still kept.

    Args:
      members: int64 [E] ranks, ascending; a member's edges are in the order in which they are tried.
      representatives: int64 [E] ranks, each below its member.
      is_protected: bool [n] by rank: never goes.
      chosen: int64 [n], all -1; set to the edge by which a document went.
    """
    for edge in range(len(members)):
        member = members[edge]
        if chosen[member] < 0 and not is_protected[member] and chosen[representatives[edge]] < 0:
            chosen[member] = edge
