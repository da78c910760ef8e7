"""Compiled loops that sample windows of words and extend what two texts share; `tamis.ops.winnow` is the door to them.

Source: Schleimer, Wilkerson, Aiken 2003, Winnowing: Local Algorithms for Document Fingerprinting (robust form).
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import class_of, decode, mix

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def select(hashes, width, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the ascending positions that winnowing keeps into ``out``; return how many.

    Of each ``width`` consecutive hashes a least one is kept: the one kept before while nothing smaller came, else the
    right-most. Fewer hashes count as one window.
    """
    count = 0
    kept = np.int64(-1)
    for stop in range(min(width, len(hashes)), len(hashes) + 1):
        start = max(np.int64(0), stop - width)
        if stop == 0:
            break
        if kept < start:
            kept = np.int64(stop - 1)
            for at in range(stop - 2, start - 1, -1):
                if hashes[at] < hashes[kept]:
                    kept = np.int64(at)
        elif hashes[stop - 1] < hashes[kept]:
            kept = np.int64(stop - 1)
        else:
            continue
        out[count] = kept
        count += 1
    return count


@njit(cache=True, nogil=True)
def _windows(tokens, width, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the hash of every window of ``width`` of a text's words into ``out``; return how many."""
    g, factor = np.uint64(0), np.uint64(1)  # factor: of the oldest word of a window
    for i in range(width - 1):
        g = g * _GOLDEN + tokens[i]
        factor *= _GOLDEN
    num = len(tokens) - width + 1
    for start in range(num):
        g = g * _GOLDEN + tokens[start + width - 1]
        out[start] = mix(g)
        g -= factor * tokens[start]
    return num


@njit(cache=True, nogil=True)
def samples(tokens, starts, width, part, num_parts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return hash uint64, text uint32 and first word uint32 of the sampled windows with hash % num_parts == part.

    Args:
      tokens: uint64 word hashes of all texts.
      starts: int64 [n + 1], where each text's words begin.
      width: words in a window.
      part: below num_parts.
      num_parts: how many there are.
    """
    size = np.int64(1)
    for row in range(len(starts) - 1):
        size = max(size, starts[row + 1] - starts[row])
    windows, kept = np.empty(size, np.uint64), np.empty(size, np.int64)
    room = 2 * len(tokens) // width + 64
    hashes, rows, positions = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    total = 0
    for row in range(len(starts) - 1):
        if starts[row + 1] - starts[row] < width:
            continue
        num = _windows(tokens[starts[row] : starts[row + 1]], width, windows)
        num = select(windows[:num], width, kept)
        if total + num > len(hashes):
            room = 2 * (total + num)
            hashes, rows, positions = _longer(hashes, room), _longer(rows, room), _longer(positions, room)
        for at in kept[:num]:
            if windows[at] % np.uint64(num_parts) == np.uint64(part):
                hashes[total], rows[total], positions[total] = windows[at], row, at
                total += 1
    return hashes[:total].copy(), rows[:total].copy(), positions[:total].copy()


@njit(cache=True, nogil=True)
def word_bytes(data, offsets, classes, num_words):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return first byte and end int64 of each of the ``num_words`` words of all texts, as bytes of ``data``."""
    begins, ends = np.empty(num_words, np.int64), np.empty(num_words, np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        at, stop = offsets[row], offsets[row + 1]
        while at < stop:
            code, size = decode(data, at, stop)
            kind = class_of(code, classes)
            if kind not in (1, 3):
                at += size
                continue
            begins[count] = at
            at += size
            while kind == 1 and at < stop:
                code, size = decode(data, at, stop)
                if class_of(code, classes) != 1:
                    break
                at += size
            ends[count] = at
            count += 1
    return begins, ends


@njit(cache=True, nogil=True)
def _longer(values, room):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    out = np.empty(room, values.dtype)
    out[: len(values)] = values
    return out


@njit(cache=True, nogil=True)
def crowded(hashes, cells, shift):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the positions of hashes that share their cell with another: all that occur twice, and a few more.

    ``cells`` is uint8, zeroed, of 2^(64 - shift); the product spreads minima, which all have small values.
    """
    for h in hashes:
        cell = np.int64((h * _GOLDEN) >> np.uint64(shift))
        cells[cell] = min(cells[cell] + 1, 2)
    total = 0
    for h in hashes:
        total += cells[np.int64((h * _GOLDEN) >> np.uint64(shift))] == 2
    out = np.empty(total, np.int64)
    total = 0
    for i in range(len(hashes)):
        if cells[np.int64((hashes[i] * _GOLDEN) >> np.uint64(shift))] == 2:
            out[total] = i
            total += 1
    return out


@njit(cache=True, nogil=True)
def _same(data, words, one, other, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether two words are equal: by hash, and character by character after lower-casing."""
    if words[0][one] != words[0][other]:
        return False
    at, twin_at, stop, twin_stop = words[1][one], words[1][other], words[2][one], words[2][other]
    while at < stop and twin_at < twin_stop:
        if data[at] == data[twin_at] and data[at] < 0x80:
            at += 1
            twin_at += 1
            continue
        code, size = decode(data, at, stop)
        twin, twin_size = decode(data, twin_at, twin_stop)
        if (np.int64(lowers[code]) if code < 0x10000 else code) != (np.int64(lowers[twin]) if twin < 0x10000 else twin):
            return False
        at += size
        twin_at += twin_size
    return at == stop and twin_at == twin_stop


@njit(cache=True, nogil=True)
def extend(data, words, starts, lowers, members, positions, others, other_positions, width, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Extend shared windows to shared runs; return how many runs, and how many windows were not equal after all.

    One pass over each pair of texts, whatever they hold: a window inside a run of its pair that was found before is
    left out, and a run is extended to the left only over words that no run has.

    Args:
      data: bytes of the texts.
      words: hash uint64, first byte and end int64 of each word of all texts.
      starts: int64 [n + 1], where each text's words begin.
      lowers: lower case of each character.
      members: int64 [E], text; members and others stand in runs of equal pairs, positions ascending in each.
      positions: int64 [E], first word of the window in the member.
      others: int64 [E], the text it is compared with.
      other_positions: int64 [E].
      width: words in a window.
      found: int64 [E, 4] to fill: entry, first word, end in the member, first word in the other.
    """
    num, unequal = 0, 0
    covered = np.int64(0)
    for e in range(len(members)):
        if e == 0 or members[e] != members[e - 1] or others[e] != others[e - 1]:
            covered = np.int64(0)
        here, there = starts[members[e]], starts[others[e]]
        size, other_size = starts[members[e] + 1] - here, starts[others[e] + 1] - there
        start, shift = positions[e], other_positions[e] - positions[e]
        stop = start
        if start + width <= covered:
            continue
        while stop < size and stop + shift < other_size:
            if not _same(data, words, here + stop, there + stop + shift, lowers):
                break
            stop += 1
        if stop - start < width:
            unequal += 1
            continue
        while start > covered and start + shift > 0:
            if not _same(data, words, here + start - 1, there + start - 1 + shift, lowers):
                break
            start -= 1
        found[num, 0], found[num, 1], found[num, 2], found[num, 3] = e, start, stop, start + shift
        num += 1
        covered = stop
    return num, unequal


@njit(cache=True, nogil=True)
def _push(rows, count, start, stop, keeper, keeper_start, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append a part of a text that ``keeper`` keeps, unless it is too short; return the rows and how many."""
    if stop - start < width:
        return rows, count
    if count == len(rows):
        more = np.empty((2 * count, 4), np.int64)
        more[:count] = rows
        rows = more
    rows[count, 0], rows[count, 1], rows[count, 2], rows[count, 3] = start, stop, keeper, keeper_start
    return rows, count + 1


@njit(cache=True, nogil=True)
def _kept_parts(run, pieces, first, last, width, rows, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append the parts of a run that its other text keeps, and those that a piece of that text says who keeps."""
    shift, begin, stop = run[1] - run[4], run[4], run[4] + run[2] - run[1]
    low, high = first, last
    while low < high:  # the first piece that ends after the run begins
        middle = (low + high) // 2
        if pieces[middle, 2] > begin:
            high = middle
        else:
            low = middle + 1
    at = begin
    for p in range(low, last):
        if pieces[p, 1] >= stop:
            break
        rows, count = _push(rows, count, at + shift, pieces[p, 1] + shift, run[3], at, width)
        start, end = max(pieces[p, 1], begin), min(pieces[p, 2], stop)
        there = pieces[p, 4] + start - pieces[p, 1]
        rows, count = _push(rows, count, start + shift, end + shift, pieces[p, 3], there, width)
        at = pieces[p, 2]
    return _push(rows, count, at + shift, stop + shift, run[3], at, width)


@njit(cache=True, nogil=True)
def _cover(rows, count, member, pieces, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append the fewest parts that cover what all parts of a member cover; starts and ends ascend."""
    order = np.argsort(rows[:count, 0], kind="mergesort")
    i = 0
    reach = np.int64(-1)
    while i < count:
        reach = max(reach, rows[order[i], 0])
        best = np.int64(-1)
        while i < count and rows[order[i], 0] <= reach:
            c = order[i]
            i += 1
            if best < 0 or rows[c, 1] > rows[best, 1] or (rows[c, 1] == rows[best, 1] and rows[c, 2] < rows[best, 2]):
                best = c
        if rows[best, 1] <= reach:
            continue
        if total == len(pieces):
            more = np.empty((2 * total, 5), np.int64)
            more[:total] = pieces
            pieces = more
        pieces[total, 0] = member
        pieces[total, 1:] = rows[best]
        total += 1
        reach = rows[best, 1]
    return pieces, total


@njit(cache=True, nogil=True)
def settle(runs, num_texts, width, are_cut):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Walk the texts in order and return the pieces of each that another one ahead keeps; int64 [P, 5].

    Args:
      runs: int64 [R, 5], sorted: member, first word, end, a text ahead of it, first word there.
      num_texts: texts are numbered in the order in which they are kept.
      width: words of the shortest piece.
      are_cut: pieces are cut from their texts, so that what a run refers to may have been cut.
    """
    pieces, total = np.empty((len(runs) + 16, 5), np.int64), 0
    first, last = np.zeros(num_texts, np.int64), np.zeros(num_texts, np.int64)
    rows = np.empty((64, 4), np.int64)
    at = 0
    while at < len(runs):
        member, count = runs[at, 0], 0
        while at < len(runs) and runs[at, 0] == member:
            other = runs[at, 3] if are_cut else member  # a member has no pieces yet: all is kept
            rows, count = _kept_parts(runs[at], pieces, first[other], last[other], width, rows, count)
            at += 1
        first[member] = total
        pieces, total = _cover(rows, count, member, pieces, total)
        last[member] = total
    return pieces[:total].copy()
