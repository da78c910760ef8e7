"""Compiled loops over the lines of documents; `tamis.ops.lines` is the door to them.

Source: line normalisation of CCNet (Wenzek et al. 2019, arXiv:1911.00359), in the form of method card K6; line rules
of C4 (Raffel et al. 2020, arXiv:1910.10683).
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import FNV, PRIME, class_of, decode, mix

TERMINAL, FEW_WORDS, LONG_WORD, FIRST_PHRASE, OTHER_PHRASE = 1, 2, 4, 8, 16


@njit(cache=True, nogil=True)
def count_lines(data, offsets):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return int64 [n + 1]: number of the first line of each text; a text has one more line than line ends."""
    first = np.zeros(len(offsets), np.int64)
    for row in range(len(offsets) - 1):
        count = np.int64(1)
        for at in range(offsets[row], offsets[row + 1]):
            count += data[at] == 10
        first[row + 1] = first[row] + count
    return first


@njit(cache=True, nogil=True)
def scan_lines(data, offsets, first):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return each line's hash uint64, start and stop int64 (bytes of its text), characters int32, is-blank bool."""
    num = first[-1]
    hashes, chars, blank = np.zeros(num, np.uint64), np.zeros(num, np.int32), np.ones(num, np.bool_)
    starts, stops = np.empty(num, np.int64), np.empty(num, np.int64)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        at = begin
        for line in range(first[row], first[row + 1]):
            starts[line] = at - begin
            h, kept, num_chars, trailing = FNV, 0, 0, 0
            is_blank = True
            while at < end and data[at] != 10:
                byte = data[at]
                at += 1
                if byte >= 0x80:
                    h = (h ^ np.uint64(byte)) * PRIME
                    kept += 1
                    num_chars += byte & 0xC0 != 0x80
                    is_blank, trailing = False, 0
                    continue
                if byte in (32, 9, 13):
                    num_chars += not is_blank  # blanks at both ends are no characters of the line
                    trailing += not is_blank
                    continue
                num_chars += 1
                is_blank, trailing = False, 0
                if 65 <= byte <= 90:
                    byte |= 32
                elif 48 <= byte <= 57:
                    byte = 48
                elif not (97 <= byte <= 122 or byte == 95):
                    continue
                h = (h ^ np.uint64(byte)) * PRIME
                kept += 1
            stops[line] = at - begin
            at += 1
            chars[line], blank[line] = num_chars - trailing, is_blank
            if kept:
                hashes[line] = mix(h)
    return hashes, starts, stops, chars, blank


@njit(cache=True, nogil=True)
def mark_runs(frequent, chars, blank, first, min_chars, min_run):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return bool [L]: frequent lines that are long, or stand in a run of ``min_run``; blank lines inside a run too."""
    marked = np.zeros(len(frequent), np.bool_)
    for row in range(len(first) - 1):
        line = first[row]
        while line < first[row + 1]:
            if not frequent[line]:
                line += 1
                continue
            start = last = line
            run = 0
            while line < first[row + 1] and (frequent[line] or blank[line]):
                if frequent[line]:
                    run += 1
                    last = line
                line += 1
            if run >= min_run:
                marked[start : last + 1] = True
                continue
            for k in range(start, last + 1):  # min_run above 2: a short run with long lines in it
                marked[k] = frequent[k] and chars[k] >= min_chars
    return marked


@njit(cache=True, nogil=True)
def cut(data, offsets, rows, begins, ends):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return bytes uint8 and offsets int64 [n + 1] of the texts without the spans, which ascend and do not overlap."""
    out = np.empty(offsets[-1] - offsets[0], np.uint8)
    new = np.zeros(len(offsets), np.int64)
    total, span = 0, 0
    for row in range(len(offsets) - 1):
        at = offsets[row]
        while span < len(rows) and rows[span] == row:
            stop = offsets[row] + begins[span]
            out[total : total + stop - at] = data[at:stop]
            total += stop - at
            at = offsets[row] + ends[span]
            span += 1
        out[total : total + offsets[row + 1] - at] = data[at : offsets[row + 1]]
        total += offsets[row + 1] - at
        new[row + 1] = total
    return out[:total].copy(), new


@njit(cache=True, nogil=True)
def _holds(data, at, stop, phrases, phrase_starts, which):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether a phrase (lower-case ASCII letters and blanks) begins at ``at``, in any case."""
    start, end = phrase_starts[which], phrase_starts[which + 1]
    if at + end - start > stop:
        return False
    for k in range(end - start):  # noqa: SIM110 - a compiled loop
        if data[at + k] | 32 != phrases[start + k]:
            return False
    return True


@njit(cache=True, nogil=True)
def line_flags(data, offsets, first, starts, stops, classes, phrases, phrase_starts, begins, min_words, max_word_chars):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return uint8 [L]: what C4 asks of each line; ``begins`` marks the first letters of the phrases."""
    flags = np.zeros(first[-1], np.uint8)
    for row in range(len(offsets) - 1):
        for line in range(first[row], first[row + 1]):
            at, stop = offsets[row] + starts[line], offsets[row] + stops[line]
            while stop > at and data[stop - 1] in (32, 9, 13):
                stop -= 1
            flag = 0
            dots = stop - at >= 3 and data[stop - 1] == 46 and data[stop - 2] == 46 and data[stop - 3] == 46
            if stop > at and data[stop - 1] in (33, 34, 39, 46, 63) and not dots:
                flag |= TERMINAL
            words, run = 0, 0
            while at < stop:
                if begins[data[at] | 32]:
                    for which in range(len(phrase_starts) - 1):
                        if _holds(data, at, stop, phrases, phrase_starts, which):
                            flag |= FIRST_PHRASE if which == 0 else OTHER_PHRASE
                code, size = decode(data, at, stop)
                if class_of(code, classes) == 0:
                    run = 0
                else:
                    words += run == 0
                    run += 1
                    if run > max_word_chars:
                        flag |= LONG_WORD
                at += size
            flags[line] = flag | FEW_WORDS if words < min_words else flag
    return flags
