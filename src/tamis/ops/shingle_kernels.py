"""Compiled loops for word shingles, band hashes and buckets; `tamis.ops.shingles` is the door to them.

Source: tamis design (method cards K5 and I5); Broder 1997 (MinHash); Leskovec, Rajaraman, Ullman (banding).
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import HALF, decode, longest, mix, shingle_hash
from tamis.ops.shingle_vectors import minima
from tamis.ops.shingle_words import ROOM, scratch, words

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.uint32(0xFFFFFFFF)
_BLOCK = 512  # shingles that are made at a time
_ONE = np.uint64(1)
_MARK_SHIFT, _BIT_SHIFT, _BIT_MASK = np.uint64(52), np.uint64(46), np.uint64(63)  # the top 18 bits of a shingle
_COUNT_SHIFT = np.uint64(45)  # the top 19 bits
_FULL = np.uint16(0xFFFF)
_MOST_PLACES, _MOST_EQUAL = 1 << 16, 32


@njit(cache=True, nogil=True)
def _shingled(tokens, start, num, width, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write `shingle_hash` of ``num`` shingles from tokens[start] on, at most _BLOCK of them.

    Horner's rule, a token of all shingles at a time, so that each loop runs over whole registers; for signed indices
    numba would add a test for negative values, and it would not.
    """
    first, count = np.uint64(start), np.uint64(num)
    for i in range(count):
        out[i] = tokens[first + i]
    for token in range(first + _ONE, first + np.uint64(width)):
        for i in range(count):
            out[i] = out[i] * _GOLDEN + tokens[token + i]
    for i in range(count):
        out[i] = mix(out[i])


@njit(cache=True, nogil=True)
def _slots_for(count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the size of an open-addressing table for ``count`` items: a power of two, at most half full."""
    size = np.int64(16)
    while size < 2 * count:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def fill_table(values, table, marks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Put distinct values into a zeroed open-addressing table and set the bit of their top 18 bits."""
    mask = np.uint64(len(table) - 1)
    for value in values:
        at = value & mask
        while table[at] != 0:
            at = (at + np.uint64(1)) & mask
        table[at] = value
        marks[value >> _MARK_SHIFT] |= _ONE << (value >> _BIT_SHIFT & _BIT_MASK)


@njit(cache=True, nogil=True)
def _is_common(g, table, marks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if marks[g >> _MARK_SHIFT] >> (g >> _BIT_SHIFT & _BIT_MASK) & _ONE == 0:  # nearly all that are not common
        return False
    mask = np.uint64(len(table) - 1)
    at = g & mask
    while table[at] != 0 and table[at] != g:
        at = (at + np.uint64(1)) & mask
    return table[at] == g


@njit(cache=True, nogil=True)
def count_shingles(tokens, starts, width, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Turn token sequences into shingles, in place, and count these, uint16 up to 65,535, by their top 19 bits.

    Sequence i becomes the shingles tokens[starts[i]:stops[i]]; returns stops int64 [n].
    """
    stops = starts[:-1].copy()
    block = np.empty(_BLOCK, np.uint64)
    for row in range(len(stops)):
        count = starts[row + 1] - starts[row]
        if count == 0:
            continue
        w = min(width, count)
        stops[row] += count - w + 1
        for start in range(starts[row], stops[row], _BLOCK):
            num = min(_BLOCK, stops[row] - start)
            _shingled(tokens, start, num, w, block)
            for i in range(num):
                place = block[i] >> _COUNT_SHIFT
                counts[place] += counts[place] != _FULL
                tokens[start + i] = block[i]  # the shingles that follow begin after it
    return stops


@njit(cache=True, nogil=True)
def select_counted(shingles, starts, stops, counts, minimum):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the distinct shingles of each sequence whose place in ``counts`` reaches ``minimum``."""
    room = 0
    for row in range(len(stops)):
        room += stops[row] - starts[row]
    out = np.empty(room, np.uint64)
    table, seen = np.empty(16, np.uint64), np.zeros(16, np.int64)
    total = 0
    for row in range(len(stops)):
        slots = _slots_for(stops[row] - starts[row])
        if slots > len(table):
            table, seen = np.empty(slots, np.uint64), np.zeros(slots, np.int64)
        for at in range(starts[row], stops[row]):
            g = shingles[at]
            if counts[g >> _COUNT_SHIFT] < minimum:
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
def _distinctive(tokens, count, width, table, marks, block, kept):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the high halves of the shingles that are not common into ``kept``; return how many."""
    found, w = 0, min(width, count)
    for start in range(0, count - w + 1, _BLOCK):
        num = min(_BLOCK, count - w + 1 - start)
        _shingled(tokens, start, num, w, block)
        for i in range(num):
            kept[found] = np.uint32(block[i] >> HALF)
            found += not _is_common(block[i], table, marks)
    return found


@njit(cache=True, nogil=True)
def band_hashes(data, offsets, classes, lowers, a, b, width, table, marks, num_bands, minimum):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return band hashes uint32 [n, bands], distinctive positions int32 [n] and tokens int32 [n].

    A band hash covers len(a) // bands positions of the signature over distinctive shingles; 64 divides len(a). Rows of
    texts with fewer than ``minimum`` distinctive positions are left at 2^32 - 1 and mean nothing.
    """
    num_texts, rows = len(offsets) - 1, len(a) // num_bands
    bands = np.full((num_texts, num_bands), _NONE, np.uint32)
    used = np.zeros(num_texts, np.int32)
    counts = np.zeros(num_texts, np.int32)
    size = longest(offsets) // 2 + 1  # words of one byte are apart
    tokens, kept = np.empty(size + ROOM, np.uint64), np.empty(size, np.uint32)
    block, signature = np.empty(_BLOCK, np.uint64), np.empty(len(a), np.uint32)
    room = scratch()
    for row in range(num_texts):
        count = words(data, offsets[row], offsets[row + 1], classes, lowers, room, tokens, 0)
        counts[row] = count
        if count == 0:
            continue
        found = _distinctive(tokens, count, width, table, marks, block, kept)
        used[row] = found
        if found < minimum:
            continue
        minima(kept, found, a, b, signature)
        for band in range(num_bands):
            h = np.uint64(0)
            for k in range(band * rows, (band + 1) * rows):
                h = h * _GOLDEN + np.uint64(signature[k])
            bands[row, band] = np.uint32(mix(h) >> HALF)
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
            out[total] = np.uint64(hashes[i]) << HALF | ranks[i]
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
        while stop < len(entries) and entries[stop] >> HALF == entries[start] >> HALF:
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
                    pairs[total] = member << HALF | representative
                total += 1
        start = stop
    return total, largest


@njit(cache=True, nogil=True)
def _sort_hashes(values, places, ordered):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Sort hashes in place: counted by their top bits, one to a place, and neighbours put in order.

    Where many have the same top bits, as in a text that repeats itself or is made to, by the general sort.
    """
    shift, slots = np.uint64(60), 16
    while slots < len(values) and 2 * slots < len(places):
        shift, slots = shift - _ONE, 2 * slots
    for slot in range(slots + 1):
        places[slot] = 0
    most = 0
    for value in values:
        places[(value >> shift) + _ONE] += 1
        most = max(most, places[(value >> shift) + _ONE])
    if len(values) < 3 or most > _MOST_EQUAL:
        values.sort()
        return
    for slot in range(slots):
        places[slot + 1] += places[slot]
    for value in values:
        ordered[places[value >> shift]] = value
        places[value >> shift] += 1
    values[0] = ordered[0]
    for at in range(1, len(values)):
        value, to = ordered[at], at
        while to > 0 and values[to - 1] > value:
            values[to] = values[to - 1]
            to -= 1
        values[to] = value


@njit(cache=True, nogil=True)
def _distinct(out, begin, end, places, ordered):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Sort out[begin:end] and move its distinct values to the front; return where they end."""
    _sort_hashes(out[begin:end], places, ordered)
    kept = begin
    for at in range(begin, end):
        if at == begin or out[at] != out[at - 1]:
            out[kept] = out[at]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def shingle_sets(tokens, starts, wanted, width, table, marks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return sorted distinct shingles that are not common of the ``wanted`` token sequences, and their starts [n + 1].

    Sequences that are not wanted get an empty set.
    """
    num_texts = len(starts) - 1
    size = longest(starts)
    places, ordered = np.empty(min(2 * size, _MOST_PLACES) + 17, np.int32), np.empty(size, np.uint64)
    room = 0
    for row in range(num_texts):
        if wanted[row]:
            room += starts[row + 1] - starts[row]
    out, block = np.empty(room, np.uint64), np.empty(_BLOCK, np.uint64)
    stops = np.zeros(num_texts + 1, np.int64)
    total = 0
    for row in range(num_texts):
        count = starts[row + 1] - starts[row]
        begin = total
        if wanted[row] and count > 0:
            w = min(width, count)
            for start in range(starts[row], starts[row + 1] - w + 1, _BLOCK):
                num = min(_BLOCK, starts[row + 1] - w + 1 - start)
                _shingled(tokens, start, num, w, block)
                for i in range(num):
                    out[total] = block[i]
                    total += len(table) == 0 or not _is_common(block[i], table, marks)
            total = _distinct(out, begin, total, places, ordered)
        stops[row + 1] = total
    return out[:total].copy(), stops


@njit(cache=True, nogil=True)
def character_sets(data, offsets, lowers, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the sorted distinct hashes of ``width`` lower-cased characters in a row, and each text's start [n + 1]."""
    num_texts = len(offsets) - 1
    most = longest(offsets)
    places, ordered = np.empty(min(2 * most, _MOST_PLACES) + 17, np.int32), np.empty(most, np.uint64)
    codes = np.empty(most, np.uint64)
    out = np.empty(offsets[num_texts] - offsets[0], np.uint64)
    stops = np.zeros(num_texts + 1, np.int64)
    total = 0
    for row in range(num_texts):
        at, count, begin = offsets[row], 0, total
        while at < offsets[row + 1]:
            code, size = decode(data, at, offsets[row + 1])
            codes[count] = np.uint64(lowers[code]) if code < 0x10000 else np.uint64(code)
            at += size
            count += 1
        w = min(width, count)
        for start in range(count - w + 1 if count > 0 else 0):
            out[total] = shingle_hash(codes, start, w)
            total += 1
        total = _distinct(out, begin, total, places, ordered)
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
