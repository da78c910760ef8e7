"""Compiled loops over the words, lines and n-grams of each document; `tamis.ops.textstats` is the door to them.

Source: tamis design (method card I2); statistics of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), C4
(Raffel et al. 2020, arXiv:1910.10683) and FineWeb (Penedo et al. 2024, arXiv:2406.17557).
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import FNV, GOLDEN, PRIME, add_code, class_of, decode, mix, next_token

NUM_FIELDS = 30
_SHORT_LINE_CHARS = 30
_LOREM = np.frombuffer(b"lorem ipsum", np.uint8)


@njit(cache=True, nogil=True)
def _seen_before(key, keys, stamps, counts, stamp, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Count ``key`` in the open table of this ``stamp``; return its count. Older stamps are empty slots."""
    slot = np.int64(key >> np.uint64(20)) & mask
    while stamps[slot] == stamp:
        if keys[slot] == key:
            counts[slot] += 1
            return counts[slot]
        slot = (slot + 1) & mask
    stamps[slot] = stamp
    keys[slot] = key
    counts[slot] = 1
    return 1


@njit(cache=True, nogil=True)
def _ends(data, at, stop, classes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether the text up to ``stop`` ends a sentence, and whether it ends in an ellipsis."""
    last = data[stop - 1]
    if last < 0x80:
        dots = last == 46 and stop - at >= 3 and data[stop - 2] == 46 and data[stop - 3] == 46
        return last in (33, 34, 39, 46, 63), dots
    start = stop - 1
    while start > at and data[start] & 0xC0 == 0x80:
        start -= 1
    code, _ = decode(data, start, stop)
    is_mark = code in (0x2019, 0x201D, 0x2026, 0x3002, 0xFF01, 0xFF1F, 0x061F, 0x06D4, 0x0964)
    return is_mark, code == 0x2026


@njit(cache=True, nogil=True)
def _lines(data, begin, end, classes, hashes, chars, blank_before, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Hash the lines that are not blank and write the line statistics; return how many lines."""
    count = bullets = ellipses = terminals = shorts = line_ends = 0
    blank = True
    at = begin
    while at <= end:
        stop = at
        while stop < end and data[stop] != 10:
            stop += 1
        first, last = at, stop
        while first < last and data[first] in (32, 9, 13):
            first += 1
        while last > first and data[last - 1] in (32, 9, 13):
            last -= 1
        if first == last:
            blank = True
        else:
            h, num = FNV, 0
            for i in range(first, last):
                h = (h ^ np.uint64(data[i])) * PRIME
                num += data[i] & 0xC0 != 0x80
            hashes[count], chars[count], blank_before[count] = mix(h), num, blank
            blank = False
            is_terminal, is_ellipsis = _ends(data, first, last, classes)
            terminals += is_terminal
            ellipses += is_ellipsis
            shorts += num <= _SHORT_LINE_CHARS
            is_bullet = data[first] == 0xE2 and last - first > 2 and data[first + 1] == 0x80 and data[first + 2] == 0xA2
            bullets += data[first] == 45 or is_bullet
            count += 1
        line_ends += stop < end
        at = stop + 1
    lines = max(count, 1)
    out[8], out[9], out[10] = count, bullets / lines, ellipses / lines
    out[11], out[12], out[13] = terminals / lines, shorts / lines, line_ends
    return count


@njit(cache=True, nogil=True)
def _words(data, at, stop, classes, lowers, stop_words, hashes, chars, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0915
    """Hash the words and write the word statistics; return how many words."""
    count = spaceless = alphabetic = num_hashes = ellipses = sentences = braces = total = word_chars = 0
    found = np.int64(0)
    dots = 0
    in_mark = False
    while at < stop:
        code, size = decode(data, at, stop)
        kind = class_of(code, classes)
        total += 1
        if kind in (0, 2):
            num_hashes += code == 35
            braces += code == 123
            dots = dots + 1 if code == 46 else 0
            ellipses += code == 0x2026 or dots == 3
            if kind == 0 and in_mark:
                sentences += 1
                in_mark = False
            elif code in (33, 46, 63):
                in_mark = True
            elif code in (0x3002, 0xFF01, 0xFF1F, 0x0964, 0x06D4, 0x061F):
                sentences += 1
                in_mark = False
            elif code not in (34, 39, 41, 93, 0x2019, 0x201D):
                in_mark = False
            at += size
            continue
        dots, in_mark = 0, False
        h, num, letters = FNV ^ np.uint64(kind), 0, False
        while True:
            h = add_code(h, np.int64(lowers[code]) if code < 0x10000 else code)
            num += 1
            letters |= code >= 0x80 or code >= 97 or 65 <= code <= 90
            at += size
            if kind == 3 or at >= stop:
                break
            code, size = decode(data, at, stop)
            if class_of(code, classes) != kind:
                break
        total += num - 1
        word_chars += num
        alphabetic += letters
        spaceless += kind == 3
        h = mix(h)
        hashes[count], chars[count] = h, num
        count += 1
        for i in range(len(stop_words)):
            if stop_words[i] == h:
                found |= 1 << i
    words = max(count, 1)
    out[0], out[1], out[2], out[3] = total, count, spaceless, word_chars / words
    out[4], out[5], out[6] = num_hashes / words, ellipses / words, alphabetic / words
    while found:
        out[7] += found & 1
        found >>= 1
    out[13] = out[13] / words
    out[27], out[28] = sentences + in_mark, braces
    return count


@njit(cache=True, nogil=True)
def _repeated_lines(count, hashes, chars, blank_before, keys, stamps, counts, stamp, mask, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the shares of lines, and of paragraphs, that an earlier one equals, by number and by characters."""
    repeats = repeated_chars = total = 0
    for i in range(count):
        total += chars[i]
        if _seen_before(hashes[i], keys, stamps, counts, stamp, mask) > 1:
            repeats += 1
            repeated_chars += chars[i]
    out[14], out[15] = repeats / max(count, 1), repeated_chars / max(total, 1)
    repeats = repeated_chars = paragraphs = 0
    i = 0
    while i < count:
        h, num = hashes[i], chars[i]
        i += 1
        while i < count and not blank_before[i]:
            h = h * GOLDEN + hashes[i]
            num += chars[i]
            i += 1
        paragraphs += 1
        if _seen_before(mix(h), keys, stamps, counts, stamp + 1, mask) > 1:
            repeats += 1
            repeated_chars += num
    out[16], out[17] = repeats / max(paragraphs, 1), repeated_chars / max(total, 1)


@njit(cache=True, nogil=True)
def _repeated_ngrams(count, hashes, chars, grams, keys, stamps, counts, stamp, mask, total, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0912
    """Write the character shares of the top 2- to 4-grams and of repeated 5- to 10-grams.

    A longer n-gram repeats only where a shorter one does, so most documents stop early.
    """
    for i in range(count):
        grams[i] = hashes[i]
    for n in range(2, 11):
        if count < n:
            return
        for i in range(count - n + 1):
            grams[i] = grams[i] * GOLDEN + hashes[i + n - 1]
        if n <= 4:
            most, most_chars = 1, 0
            for i in range(count - n + 1):
                seen = _seen_before(mix(grams[i]), keys, stamps, counts, stamp + n, mask)
                if seen >= most and seen > 1:
                    num = n - 1
                    for k in range(i, i + n):
                        num += chars[k]
                    most_chars = max(most_chars, num) if seen == most else num
                    most = seen
            if most < 2:
                return
            out[16 + n] = min(1.0, most * most_chars / total)
            continue
        repeated = 0
        i = 0
        while i < count - n + 1:
            if _seen_before(mix(grams[i]), keys, stamps, counts, stamp + n, mask) > 1:
                for k in range(i, i + n):
                    repeated += chars[k]
                i += n
            else:
                i += 1
        if repeated == 0:
            return
        out[16 + n] = repeated / total


@njit(cache=True, nogil=True)
def _has_lorem(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(at, stop - len(_LOREM) + 1):
        if data[i] | 32 != 108:
            continue
        k = 1
        while k < len(_LOREM) and data[i + k] | 32 == _LOREM[k]:
            k += 1
        if k == len(_LOREM):
            return True
    return False


@njit(cache=True, nogil=True)
def statistics(data, offsets, classes, lowers, stop_words):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return float32 [n, NUM_FIELDS], columns as in `tamis.ops.textstats.FIELDS`."""
    num_texts = len(offsets) - 1
    result = np.zeros((num_texts, NUM_FIELDS), np.float32)
    out = np.zeros(NUM_FIELDS, np.float64)
    room, slots, stamp = np.int64(0), np.int64(0), np.int64(0)
    hashes, grams = np.empty(room, np.uint64), np.empty(room, np.uint64)
    chars, blank_before = np.empty(room, np.int64), np.empty(room, np.bool_)
    keys, stamps, counts = np.empty(slots, np.uint64), np.zeros(slots, np.int64), np.empty(slots, np.int32)
    for row in range(num_texts):
        at, stop = offsets[row], offsets[row + 1]
        if stop - at + 1 > room:  # a word or line has at least one byte
            room = max(2 * room, stop - at + 1)
            hashes, grams = np.empty(room, np.uint64), np.empty(room, np.uint64)
            chars, blank_before = np.empty(room, np.int64), np.empty(room, np.bool_)
        out[:] = 0.0
        num_lines = _lines(data, at, stop, classes, hashes, chars, blank_before, out)
        size = np.int64(64)
        while size < 2 * num_lines:
            size *= 2
        if size > slots:
            slots, stamp = size, np.int64(0)
            keys, stamps, counts = np.empty(slots, np.uint64), np.zeros(slots, np.int64), np.empty(slots, np.int32)
        stamp += 16
        _repeated_lines(num_lines, hashes, chars, blank_before, keys, stamps, counts, stamp, size - 1, out)
        num_words = _words(data, at, stop, classes, lowers, stop_words, hashes, chars, out)
        size = np.int64(64)
        while size < 2 * num_words:
            size *= 2
        if size > slots:
            slots, stamp = size, np.int64(16)
            keys, stamps, counts = np.empty(slots, np.uint64), np.zeros(slots, np.int64), np.empty(slots, np.int32)
        total = max(out[0], 1.0)
        _repeated_ngrams(num_words, hashes, chars, grams, keys, stamps, counts, stamp, size - 1, total, out)
        out[29] = _has_lorem(data, at, stop)
        for field in range(NUM_FIELDS):
            result[row, field] = out[field]
    return result


@njit(cache=True, nogil=True)
def stop_word_counts(data, offsets, classes, lowers, keys, lists, num_lists):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return int32 [n, num_lists]: tokens of each text on each list; and int32 [n]: words.

    ``keys`` is an open table (0 is free) of token hashes, ``lists`` the bits of the lists that hold each.
    """
    num_texts = len(offsets) - 1
    counts, words = np.zeros((num_texts, num_lists), np.int32), np.zeros(num_texts, np.int32)
    mask = len(keys) - 1
    for row in range(num_texts):
        at, stop = offsets[row], offsets[row + 1]
        while True:
            at, h, kind = next_token(data, at, stop, classes, lowers, True)
            if kind == 0:
                break
            words[row] += 1
            slot = np.int64(h >> np.uint64(20)) & mask
            while keys[slot] != 0 and keys[slot] != h:
                slot = (slot + 1) & mask
            if keys[slot] == h:
                bits = lists[slot]
                for i in range(num_lists):
                    counts[row, i] += (bits >> i) & 1
    return counts, words


@njit(cache=True, nogil=True)
def script_counts(data, offsets, classes, starts, stops, scripts, num_scripts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return int32 [n, num_scripts]: letters of each text in each script; the ranges are sorted, 0 is Latin."""
    num_texts = len(offsets) - 1
    counts = np.zeros((num_texts, num_scripts), np.int32)
    for row in range(num_texts):
        at, stop = offsets[row], offsets[row + 1]
        while at < stop:
            byte = data[at]
            if byte < 0x80:
                at += 1
                counts[row, 0] += 97 <= byte <= 122 or 65 <= byte <= 90
                continue
            code, size = decode(data, at, stop)
            at += size
            kind = class_of(code, classes)
            if kind in (1, 3):
                i = np.searchsorted(starts, code, side="right") - 1
                if i >= 0 and code <= stops[i]:
                    counts[row, scripts[i]] += 1
    return counts
