"""Compiled loops that look protected texts up in documents; `tamis.ops.overlap` is the door to them.

Source: 13-gram overlap (Brown et al. 2020, arXiv:2005.14165).

A text is held as prefix hashes P[i + 1] = P[i] * g + token[i] modulo 2^64, so that the hash of any run of n tokens
is P[i + n] - P[i] * g^n. Token hashes are mixed already: the high bits of the sum are fit for filters.
"""

import numpy as np
from numba import njit

from tamis.ops.byte_kernels import FNV, PRIME, add_code, class_of, decode, longest, mix, next_token
from tamis.ops.ngram_kernels import steps_of

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_ROW = np.uint64(128)
_LOW = np.uint64(63)
_SIX = np.uint64(6)


@njit(cache=True, nogil=True, inline="always")
def _has_bit(bits, value, shift):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    at = value >> np.uint64(shift)
    return (bits[np.int64(at >> _SIX)] >> (at & _LOW)) & _ONE != np.uint64(0)


@njit(cache=True, nogil=True)
def bitmap(values, log_bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return uint64 words with one bit set for the top ``log_bits`` bits of each value."""
    bits = np.zeros(1 << (log_bits - 6), np.uint64)
    for value in values:
        at = value >> np.uint64(64 - log_bits)
        bits[np.int64(at >> _SIX)] |= _ONE << (at & _LOW)
    return bits


@njit(cache=True, nogil=True)
def _powers(most):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return g^0 to g^most modulo 2^64."""
    powers = np.ones(most + 1, np.uint64)
    for i in range(most):
        powers[i + 1] = powers[i] * _GOLDEN
    return powers


@njit(cache=True, nogil=True)
def _word_steps(classes, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the tables of `ngram_kernels.steps_of` for words alone: marks are between words, as blanks are."""
    plain = np.zeros(128, np.uint8)
    for c in range(128):
        plain[c] = classes[c] if classes[c] != 2 else 0
    return steps_of(plain, lowers)


@njit(cache=True, nogil=True)
def _scan_words(data, begin, end, classes, lowers, steps, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the hashes of one text's words from out[1] on, not mixed yet, with room for one more; return how many.

    The machine of `ngram_kernels.scan_tokens`, which knows no text without marks.
    """
    stay, add, ends, rows = steps
    at, stop = np.uint64(begin), np.uint64(end)
    count, row, h = _ONE, _ZERO, _ZERO
    while at < stop:
        byte = data[at]
        if byte < 0x80:
            step = row + np.uint64(byte)
            out[count] = h  # counts when a word has ended
            h = ((h & stay[step]) ^ add[step]) * PRIME
            count += np.uint64(ends[step])
            row = np.uint64(rows[byte])
            at += _ONE
            continue
        code, size = decode(data, np.int64(at), np.int64(stop))
        kind = np.uint64(class_of(code, classes))
        if kind == 2:
            kind = _ZERO
        if kind * _ROW != row or kind == 3:
            out[count] = h
            count += np.uint64(row != 0)
            h = FNV ^ kind
        h = add_code(h, np.int64(lowers[code]) if code < 0x10000 else code)
        row = kind * _ROW
        at += np.uint64(size)
    out[count] = h
    return np.int64(count + np.uint64(row != 0)) - 1


@njit(cache=True, nogil=True)
def _prefixes(data, begin, end, classes, lowers, steps, prefix):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Fill ``prefix`` with the prefix hashes of the words of one text; return how many words."""
    count = _scan_words(data, begin, end, classes, lowers, steps, prefix)
    g = _ZERO
    prefix[0] = g
    for i in range(1, count + 1):
        g = g * _GOLDEN + mix(prefix[i])
        prefix[i] = g
    return count


@njit(cache=True, nogil=True)
def _spans(data, at, stop, classes, lowers, hashes, begins, ends, letters):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write hash, first byte, end and whether it holds a letter of each word; return how many."""
    count = 0
    while at < stop:
        code, size = decode(data, at, stop)
        kind = class_of(code, classes)
        if kind in (0, 2):
            at += size
            continue
        end, h, _ = next_token(data, at, stop, classes, lowers, True)
        hashes[count], begins[count], ends[count], letters[count] = h, at, end, 0
        for i in range(at, end):
            if data[i] >= 0x80 or 0x41 <= data[i] <= 0x5A or 0x61 <= data[i] <= 0x7A:
                letters[count] = 1
        count += 1
        at = end
    return count


@njit(cache=True, nogil=True)
def word_spans(data, offsets, classes, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return hashes, byte spans and letter flags of the words of all texts, and where each text's begin."""
    size = offsets[-1] - offsets[0]
    hashes, begins, ends = np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int64)
    letters = np.empty(size, np.uint8)
    starts = np.zeros(len(offsets), np.int64)
    total = 0
    for row in range(len(offsets) - 1):
        total += _spans(
            data,
            offsets[row],
            offsets[row + 1],
            classes,
            lowers,
            hashes[total:],
            begins[total:],
            ends[total:],
            letters[total:],
        )
        starts[row + 1] = total
    return hashes[:total].copy(), begins[:total].copy(), ends[:total].copy(), letters[:total].copy(), starts


@njit(cache=True, nogil=True)
def item_grams(hashes, letters, starts, width, min_letters):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return item, first token and hash of each gram that holds ``min_letters`` words with a letter.

    An item of at least ``width`` words has one gram a position, a shorter one its whole sequence.
    """
    items = np.empty(len(hashes) + len(starts), np.int32)
    begins = np.empty(len(items), np.int64)
    grams = np.empty(len(items), np.uint64)
    total = 0
    for item in range(len(starts) - 1):
        count = starts[item + 1] - starts[item]
        w = min(width, count)
        for start in range(starts[item], starts[item + 1] - w + 1):
            g, num_letters = np.uint64(0), 0
            for i in range(start, start + w):
                g = g * _GOLDEN + hashes[i]
                num_letters += letters[i]
            if w > 0 and num_letters >= min_letters:
                items[total], begins[total], grams[total] = item, start, g
                total += 1
    return items[:total].copy(), begins[:total].copy(), grams[:total].copy()


@njit(cache=True, nogil=True)
def head_hashes(hashes, starts, items, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the hash of the first ``width`` words of each of the given items."""
    heads = np.zeros(len(items), np.uint64)
    for i in range(len(items)):
        for k in range(width):
            heads[i] = heads[i] * _GOLDEN + hashes[starts[items[i]] + k]
    return heads


@njit(cache=True, nogil=True)
def place_in(value, ordered):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the place of a value among ascending ones, -1 where it is not there."""
    at = np.searchsorted(ordered, value)
    if at < len(ordered) and ordered[at] == value:
        return at
    return -1


@njit(cache=True, nogil=True)
def _push(values, count, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append to a buffer that doubles when it is full."""
    if count == len(values):
        grown = np.empty(2 * count, values.dtype)
        grown[:count] = values
        values = grown
    values[count] = value
    return values


@njit(cache=True, nogil=True)
def _settle(found, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Bring the first ``total`` values in order without repeats; return how many are left."""
    if total < 2:
        return total
    found[:total].sort()
    last = 0
    for i in range(1, total):
        if found[i] != found[last]:
            last += 1
            found[last] = found[i]
    return last + 1


@njit(cache=True, nogil=True)
def _short_grams(prefix, start, count, head, index, powers, found, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add the short items that begin at ``start``, where the text has the head of at least one."""
    lengths = index.head_lengths[head]
    w = 0
    while lengths >> w > 0 and start + w <= count:
        if lengths >> w & 1:
            at = place_in(prefix[start + w] - prefix[start] * powers[w], index.grams)
            if at >= 0:
                found = _push(found, total, at)
                total += 1
        w += 1
    return found, total


@njit(cache=True, nogil=True)
def _document_grams(prefix, count, index, powers, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the distinct numbers of the items' grams that a text holds, ascending; return buffer and number."""
    total = 0
    width, head_width = index.width, index.head_width
    power, head_power = powers[width], powers[head_width]
    # Two loops, not one: measured 10 % faster.
    if len(index.bits) > 1:
        for start in range(count - width + 1):
            g = prefix[start + width] - prefix[start] * power
            if _has_bit(index.bits, g, index.shift):
                at = place_in(g, index.grams)
                if at >= 0:
                    found = _push(found, total, at)
                    total += 1
    if len(index.heads) > 0:
        for start in range(count - head_width + 1):
            g = prefix[start + head_width] - prefix[start] * head_power
            if _has_bit(index.head_bits, g, index.head_shift):
                head = place_in(g, index.heads)
                if head >= 0:
                    found, total = _short_grams(prefix, start, count, head, index, powers, found, total)
    return found, _settle(found, total)


@njit(cache=True, nogil=True)
def grams_in(data, offsets, classes, lowers, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the distinct (row, gram) pairs of a batch, ascending."""
    rows, grams = np.empty(64, np.int64), np.empty(64, np.int64)
    found = np.empty(64, np.int64)
    prefix = np.empty(longest(offsets) + 2, np.uint64)
    powers, steps = _powers(index.width), _word_steps(classes, lowers)
    total = 0
    for row in range(len(offsets) - 1):
        count = _prefixes(data, offsets[row], offsets[row + 1], classes, lowers, steps, prefix)
        found, num = _document_grams(prefix, count, index, powers, found)
        for i in range(num):
            rows = _push(rows, total, row)
            grams = _push(grams, total, found[i])
            total += 1
    return rows[:total].copy(), grams[:total].copy()


@njit(cache=True, nogil=True)
def _is_common(gram, source, common):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if common.anywhere[gram]:
        return True
    run = common.grams[common.starts[source] : common.starts[source + 1]]
    at = np.searchsorted(run, gram)
    return at < len(run) and run[at] == gram


@njit(cache=True, nogil=True)
def pairs_in(data, offsets, classes, lowers, index, sources, common, needed):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return row, item, matched grams that are evidence, and matched grams, where the latter reach ``needed``."""
    rows, items = np.empty(64, np.int64), np.empty(64, np.int32)
    evidence, matched = np.empty(64, np.int32), np.empty(64, np.int32)
    found = np.empty(64, np.int64)
    touched = np.empty(64, np.int32)
    counts = np.zeros((len(needed), 2), np.int32)
    prefix = np.empty(longest(offsets) + 2, np.uint64)
    powers, steps = _powers(index.width), _word_steps(classes, lowers)
    total = 0
    for row in range(len(offsets) - 1):
        count = _prefixes(data, offsets[row], offsets[row + 1], classes, lowers, steps, prefix)
        found, num = _document_grams(prefix, count, index, powers, found)
        num_touched = 0
        for i in range(num):
            is_evidence = not _is_common(found[i], sources[row], common)
            for p in range(index.starts[found[i]], index.starts[found[i] + 1]):
                item = index.items[p]
                if counts[item, 1] == 0:
                    touched = _push(touched, num_touched, item)
                    num_touched += 1
                counts[item, 1] += 1
                counts[item, 0] += 1 if is_evidence else 0
        touched[:num_touched].sort()
        for i in range(num_touched):
            item = touched[i]
            if counts[item, 1] >= needed[item]:
                rows = _push(rows, total, row)
                items = _push(items, total, item)
                evidence = _push(evidence, total, counts[item, 0])
                matched = _push(matched, total, counts[item, 1])
                total += 1
            counts[item, 0] = 0
            counts[item, 1] = 0
    return rows[:total].copy(), items[:total].copy(), evidence[:total].copy(), matched[:total].copy()


@njit(cache=True, nogil=True)
def same_words(data, at, stop, other, other_at, other_stop, classes, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Whether two byte spans hold the same words, character by character after lower-casing."""
    while True:
        begin, end = next_word(data, at, stop, classes)
        other_begin, other_end = next_word(other, other_at, other_stop, classes)
        if begin == end or other_begin == other_end:
            return begin == end and other_begin == other_end
        at, other_at = begin, other_begin
        while at < end and other_at < other_end:
            code, size = decode(data, at, end)
            twin, twin_size = decode(other, other_at, other_end)
            if (np.int64(lowers[code]) if code < 0x10000 else code) != (
                np.int64(lowers[twin]) if twin < 0x10000 else twin
            ):
                return False
            at += size
            other_at += twin_size
        if at < end or other_at < other_end:
            return False


@njit(cache=True, nogil=True)
def next_word(data, at, stop, classes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return where the next word begins and ends; both ``stop`` when there is none."""
    begin, kind = stop, np.int64(0)
    while at < stop:
        code, size = decode(data, at, stop)
        here = class_of(code, classes)
        if kind == 0 and here in (1, 3):
            begin, kind = at, here
        elif kind != 0 and (here != kind or kind == 3):
            return begin, at
        at += size
    return begin, stop


@njit(cache=True, nogil=True)
def locate(data, start, stop, classes, lowers, index, item, source, common, with_common, item_bytes, spans):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the byte span of the longest run of one item's grams in one text, and whether its bytes agree.

    ``spans`` are the first bytes and the ends of all items' words; ``with_common`` counts common grams too.
    """
    room = stop - start
    hashes, begins, ends = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.int64)
    count = _spans(data, start, stop, classes, lowers, hashes, begins, ends, np.empty(room, np.uint8))
    width = np.int64(index.item_widths[item])
    best, best_posting, best_run, run, posting = -1, -1, 0, 0, -1
    for at in range(count - width + 1):
        g = np.uint64(0)
        for i in range(at, at + width):
            g = g * _GOLDEN + hashes[i]
        gram, here = place_in(g, index.grams), -1
        if gram >= 0 and (with_common or not _is_common(gram, source, common)):
            here = place_in(item, index.items[index.starts[gram] : index.starts[gram + 1]])
        if here < 0:
            run = 0
            continue
        run += 1
        if run == 1:
            posting = index.starts[gram] + here
        if run > best_run:
            best, best_run, best_posting = at - run + 1, run, posting
    if best < 0:
        return start, start, False
    token = index.begins[best_posting]
    agrees = same_words(
        data,
        begins[best],
        ends[best + width - 1],
        item_bytes,
        spans[0, token],
        spans[1, token + width - 1],
        classes,
        lowers,
    )
    return begins[best], ends[best + best_run + width - 2], agrees
