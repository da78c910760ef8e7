"""Compiled scanner of words for shingles: the hashes of `byte_kernels.token_hashes`, at four times its speed.

Source: tamis design (method cards K3 and K5).

FNV-1a hashes a byte after the other, and where a word ends cannot be foreseen, so a plain loop waits for each byte.
Here a piece of text is first written out in lower case with zeros between the words, then the places where words begin
and end are read off bit masks, then 8 words are hashed side by side, 8 bytes in one go; longer words come again.
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import FNV, class_of, decode, mix, next_token
from tamis.ops.shingle_vectors import add_bytes, fold_bytes, lowest_bit, occupied

_ZERO, _ONE, _TWO, _STEP, _BLOCK = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(8), np.uint64(64)
_LAST_BIT = np.uint64(63)
_FIRST = FNV ^ np.uint64(1)  # the class of word characters
_SPACELESS = np.uint8(1 ^ 3)  # makes of a first byte after _FIRST what it is after the start of class 3
_SHORT = np.uint32(8)
PIECE = 1 << 15
"""Bytes of text that are scanned at a time."""
ROOM = 8
"""`words` may write so many values past the last one."""


@njit(cache=True, nogil=True)
def scratch():  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Return what `words` works in: letters, bounds of words, bounds, numbers and hashes of the longer ones.

    A byte becomes two letters at most: a spaceless character of two bytes gets a zero on each side.
    """
    return (
        np.empty(2 * PIECE + 160, np.uint8),
        np.empty(PIECE + 64, np.uint32),
        np.empty(PIECE // 4 + 64, np.uint32),
        np.empty(PIECE // 8 + 32, np.uint32),
        np.empty(PIECE // 8 + 32, np.uint64),
    )


@njit(cache=True, nogil=True)
def _put(code, letters, to):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the UTF-8 bytes of one code point; return where they end."""
    if code < 0x80:
        letters[to] = code
        return to + _ONE
    if code < 0x800:
        letters[to] = 0xC0 | code >> 6
    else:
        if code < 0x10000:
            letters[to] = 0xE0 | code >> 12
        else:
            letters[to] = 0xF0 | code >> 18
            to += _ONE
            letters[to] = 0x80 | (code >> 12 & 0x3F)
        to += _ONE
        letters[to] = 0x80 | (code >> 6 & 0x3F)
    letters[to + _ONE] = 0x80 | (code & 0x3F)
    return to + _TWO


@njit(cache=True, nogil=True)
def _put_character(data, at, stop, classes, lowers, letters, to):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write one character of any kind; return where the next one is read and written."""
    code, size = decode(data, np.int64(at), np.int64(stop))
    kind = class_of(code, classes)
    lower = np.int64(lowers[code]) if code < 0x10000 else np.int64(code)
    if kind == 1:
        to = _put(lower, letters, to)
    else:
        letters[to] = 0
        to += _ONE
        if kind == 3:  # a word of its own
            end = _put(lower, letters, to)
            letters[to] ^= _SPACELESS
            letters[end] = 0
            to = end + _ONE
    return at + np.uint64(size), to


@njit(cache=True, nogil=True)
def _written(data, begin, end, classes, lowers, letters):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the letters of a piece of text, zeros between its words and behind them; return their number."""
    at, stop, size, to = np.uint64(begin), np.uint64(end), np.uint64(len(data)), _ZERO
    while at < stop and at + _BLOCK <= size:  # the block may reach into what follows the piece
        high = fold_bytes(data, at, letters, to)
        plain = lowest_bit(high) if high != 0 else _BLOCK
        at += plain
        to += plain
        while at < stop and data[at] >= 0x80:
            at, to = _put_character(data, at, stop, classes, lowers, letters, to)
    if at > stop:
        to -= at - stop
    while at < stop:
        at, to = _put_character(data, at, stop, classes, lowers, letters, to)
    for i in range(_BLOCK + _STEP):
        letters[to + i] = 0
    return to


@njit(cache=True, nogil=True)
def _bounded(letters, size, bounds):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write begin and end of each word, and 8 words of no length; return the number of words."""
    count, before, at = _ZERO, _ZERO, _ZERO
    while at <= size:
        mask = occupied(letters, at)
        edges = mask ^ (mask << _ONE | before)
        before = mask >> _LAST_BIT
        while edges != 0:
            bounds[count] = at + lowest_bit(edges)
            count += _ONE
            edges &= edges - _ONE
        at += _BLOCK
    for i in range(_TWO * _STEP):
        bounds[count + i] = 0
    return count >> _ONE


@njit(cache=True, nogil=True)
def _hash_words(letters, num, room, out, first):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the hashes of ``num`` words from out[first] on."""
    _, bounds, long_bounds, numbers, hashes = room
    for i in range(num + _STEP):
        out[first + i] = _FIRST
    at, left = _ZERO, _ZERO
    while at < num:
        add_bytes(letters, bounds, at, out, first + at)
        at += _STEP
    for number in range(num):
        begin, end = bounds[_TWO * number], bounds[_TWO * number + _ONE]
        numbers[left], hashes[left] = number, out[first + number]
        long_bounds[_TWO * left], long_bounds[_TWO * left + _ONE] = begin + _SHORT, end
        left += np.uint64(end - begin > _SHORT)
    while left > 0:
        for i in range(_TWO * left, _TWO * (left + _STEP)):
            long_bounds[i] = 0
        at = _ZERO
        while at < left:
            add_bytes(letters, long_bounds, at, hashes, at)
            at += _STEP
        count, left = left, _ZERO
        for place in range(count):
            begin, end = long_bounds[_TWO * place], long_bounds[_TWO * place + _ONE]
            number, h = numbers[place], hashes[place]
            out[first + np.uint64(number)] = h
            numbers[left], hashes[left] = number, h
            long_bounds[_TWO * left], long_bounds[_TWO * left + _ONE] = begin + _SHORT, end
            left += np.uint64(end - begin > _SHORT)
    for number in range(num):
        out[first + number] = mix(out[first + number])


@njit(cache=True, nogil=True)
def _cut(data, begin, end):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return where the last blank of data[begin:end] ends, or ``begin`` if there is none: no word lies across."""
    while end > begin and data[end - 1] > 0x20:
        end -= 1
    return end


@njit(cache=True, nogil=True)
def words(data, begin, end, classes, lowers, room, out, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the word hashes of one text into ``out`` from ``count`` on; return where they end.

    ``out`` has ROOM values more than there are words; ``room`` is of `scratch`.
    """
    at = begin
    while at < end:
        stop = end if end - at <= PIECE else _cut(data, at, at + PIECE)
        if stop == at:  # no blank anywhere: by the general rule, up to the end of a word
            stop = at + PIECE
            while at < stop:
                at, h, kind = next_token(data, at, end, classes, lowers, True)
                if kind == 0:
                    return count
                out[count] = h
                count += 1
            continue
        size = _written(data, at, stop, classes, lowers, room[0])
        num = _bounded(room[0], size, room[1])
        _hash_words(room[0], num, room, out, np.uint64(count))
        count += np.int64(num)
        at = stop
    return count


@njit(cache=True, nogil=True)
def word_hashes(data, offsets, classes, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the hashes of all words uint64 [T] and where each text's begin int64 [n + 1]."""
    num_texts = len(offsets) - 1
    room = scratch()
    size = (offsets[num_texts] - offsets[0] + num_texts) // 2 + 1  # words of one byte are apart
    out = np.empty(size + ROOM, np.uint64)
    starts = np.zeros(num_texts + 1, np.int64)
    for row in range(num_texts):
        starts[row + 1] = words(data, offsets[row], offsets[row + 1], classes, lowers, room, out, starts[row])
    return out[: starts[num_texts]], starts
