"""Compiled reading of plain JSON lines: three strings of each record, straight into the buffers of Arrow columns.

Source: RFC 8259 (JSON), RFC 3629 (UTF-8); tamis design (card K8).

Nothing doubtful is accepted: what is not surely an object that orjson reads, flat or shallow, with the fields as
strings, makes the whole block go the slow way, which decides. So a block gives the same documents by both.
"""

import numpy as np
from numba import njit

_MAX_DEPTH = 32
_MAX_NUMBER = 18  # characters: an int64, or a float far from any bound
_MAX_ID = 128
_QUOTE, _ESCAPE, _OPEN, _CLOSE, _LIST, _END, _COMMA, _COLON = 34, 92, 123, 125, 91, 93, 44, 58
_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def _plain_bytes():  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Return uint8 [256]: 1 for bytes that stand for themselves within a string."""
    plain = np.zeros(256, np.uint8)
    plain[0x20:0x80] = 1
    plain[_QUOTE], plain[_ESCAPE] = 0, 0
    return plain


@njit(cache=True, nogil=True)
def _blanks(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    while at < stop and (data[at] == 32 or data[at] == 9 or data[at] == 13):
        at += 1
    return at


@njit(cache=True, nogil=True)
def _multibyte(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the length of the well-formed UTF-8 sequence at a byte above 0x7F, or 0."""
    lead = data[at]
    if lead < 0xC2 or lead > 0xF4:
        return 0
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if at + size > stop:
        return 0
    low = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
    high = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
    if data[at + 1] < low or data[at + 1] > high:
        return 0
    for i in range(2, size):
        if data[at + i] & 0xC0 != 0x80:
            return 0
    return size


@njit(cache=True, nogil=True)
def _unit(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    r"""Return the value of \uXXXX at its backslash, or -1."""
    if at + 6 > stop or data[at] != _ESCAPE or data[at + 1] != 117:
        return -1
    value = 0
    for i in range(2, 6):
        c = np.int64(data[at + i])
        if 48 <= c <= 57:
            digit = c - 48
        elif 97 <= (c | 32) <= 102:
            digit = (c | 32) - 87
        else:
            return -1
        value = int(value * 16 + digit)
    return value


@njit(cache=True, nogil=True)
def _put_code(code, out, num):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write a code point as UTF-8; return where it ends."""
    if code < 0x80:
        out[num] = code
        return num + 1
    if code < 0x800:
        out[num], out[num + 1] = 0xC0 | code >> 6, 0x80 | code & 0x3F
        return num + 2
    if code < 0x10000:
        out[num], out[num + 1], out[num + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
        return num + 3
    out[num], out[num + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 0x3F
    out[num + 2], out[num + 3] = 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
    return num + 4


@njit(cache=True, nogil=True)
def _escaped(data, at, stop, out, num):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Decode one escape at its backslash; return where reading goes on (-1 if it is none) and writing ends."""
    if at + 1 >= stop:
        return -1, num
    c = data[at + 1]
    if c == 110:
        out[num] = 10
    elif c in (_QUOTE, _ESCAPE, 47):
        out[num] = c
    elif c == 116:
        out[num] = 9
    elif c == 114:
        out[num] = 13
    elif c == 98:
        out[num] = 8
    elif c == 102:
        out[num] = 12
    else:
        code, size = _unit(data, at, stop), 6
        if 0xD800 <= code < 0xDC00:
            low = _unit(data, at + 6, stop)
            if not 0xDC00 <= low < 0xE000:
                return -1, num
            code, size = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), 12
        elif code < 0 or 0xDC00 <= code < 0xE000:
            return -1, num
        return at + size, _put_code(code, out, num)
    return at + 2, num + 1


@njit(cache=True, nogil=True)
def _string(data, at, stop, plain, out, num):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Decode the string whose opening quote is at ``at``; return where reading goes on (-1: odd) and writing ends."""
    if at >= stop or data[at] != _QUOTE:
        return -1, num
    at += 1
    while True:
        here, there, end = np.uint64(at), np.uint64(num), np.uint64(stop)  # unsigned: no test for negative indices
        while here < end and plain[data[here]] != 0:
            out[there] = data[here]
            here += _ONE
            there += _ONE
        at, num = np.int64(here), np.int64(there)
        if at >= stop or data[at] < 0x20:
            return -1, num
        if data[at] == _QUOTE:
            return at + 1, num
        if data[at] == _ESCAPE:
            at, num = _escaped(data, at, stop, out, num)
            if at < 0:
                return -1, num
            continue
        size = _multibyte(data, at, stop)
        if size == 0:
            return -1, num
        for i in range(size):
            out[num + i] = data[at + i]
        at, num = at + size, num + size


@njit(cache=True, nogil=True)
def _word(data, at, stop, word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if at + len(word) > stop:
        return -1
    for i in range(len(word)):
        if data[at + i] != word[i]:
            return -1
    return at + len(word)


@njit(cache=True, nogil=True)
def _digits(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    while at < stop and 48 <= data[at] <= 57:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _scalar(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return where a number or literal ends, -1 where it is none or a number is long or has an exponent."""
    if at >= stop:
        return -1
    first = data[at]
    if first == 116:
        return _word(data, at, stop, (116, 114, 117, 101))
    if first == 102:
        return _word(data, at, stop, (102, 97, 108, 115, 101))
    if first == 110:
        return _word(data, at, stop, (110, 117, 108, 108))
    begin = at + 1 if first == 45 else at
    end = _digits(data, begin, stop)
    if end == begin or (data[begin] == 48 and end > begin + 1):
        return -1
    if end < stop and data[end] == 46:
        begin, end = end + 1, _digits(data, end + 1, stop)
        if end == begin:
            return -1
    return end if end - at <= _MAX_NUMBER and (end >= stop or data[end] | 32 != 101) else -1


@njit(cache=True, nogil=True)
def _integer(data, at, stop, out, num):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Copy a whole number as `str` writes it; return where reading goes on (-1: it is none) and writing ends."""
    end = _scalar(data, at, stop)
    if data[at] == 45 and end == at + 2 and data[at + 1] == 48:
        return -1, num
    for i in range(at, end):
        if not (48 <= data[i] <= 57 or data[i] == 45):
            return -1, num
        out[num] = data[i]
        num += 1
    return end, num


@njit(cache=True, nogil=True)
def _key(data, at, stop, plain, out, num):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Decode a key and its colon; return where the value begins (-1: odd) and where the key ends in ``out``."""
    at, num = _string(data, at, stop, plain, out, num)
    if at < 0:
        return -1, num
    at = _blanks(data, at, stop)
    if at >= stop or data[at] != _COLON:
        return -1, num
    return _blanks(data, at + 1, stop), num


@njit(cache=True, nogil=True)
def _skip(data, at, stop, plain, scratch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0912
    """Return where the value at ``at`` ends, -1 where it is odd or deep."""
    depth, objects = 0, np.uint64(0)  # a bit a level: whether it is an object
    while True:
        if at >= stop:
            return -1
        is_done = True
        if data[at] in (_OPEN, _LIST):
            is_object = data[at] == _OPEN
            depth += 1
            if depth > _MAX_DEPTH:
                return -1
            bit = _ONE << np.uint64(depth)
            objects = objects | bit if is_object else objects & ~bit
            at = _blanks(data, at + 1, stop)
            if at < stop and data[at] == (_CLOSE if is_object else _END):
                depth -= 1
                at += 1
            else:
                is_done = False
                if is_object:
                    at, _ = _key(data, at, stop, plain, scratch, 0)
        elif data[at] == _QUOTE:
            at, _ = _string(data, at, stop, plain, scratch, 0)
        else:
            at = _scalar(data, at, stop)
        while is_done and at >= 0 and depth > 0:
            at = _blanks(data, at, stop)
            is_object = (objects >> np.uint64(depth)) & _ONE == _ONE
            if at < stop and data[at] == _COMMA:
                is_done = False
                at = _blanks(data, at + 1, stop)
                if is_object:
                    at, _ = _key(data, at, stop, plain, scratch, 0)
            elif at < stop and data[at] == (_CLOSE if is_object else _END):
                depth -= 1
                at += 1
            else:
                return -1
        if at < 0 or is_done:
            return at


@njit(cache=True, nogil=True)
def _which(scratch, num, names, stops):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the position of a key among the names, or -1."""
    begin = 0
    for position in range(len(stops)):
        if stops[position] - begin == num:
            i = 0
            while i < num and scratch[i] == names[begin + i]:
                i += 1
            if i == num:
                return position
        begin = stops[position]
    return -1


@njit(cache=True, nogil=True)
def _record(data, at, stop, names, stops, plain, out, ends, scratch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0912
    """Append one line's fields to the columns and move their ``ends``; say whether it was plain.

    The columns are text, title and, with three names, id. A title of another kind is empty.
    """
    at = _blanks(data, at, stop)
    if at >= stop or data[at] != _OPEN:
        return False
    at, seen = _blanks(data, at + 1, stop), 0
    while True:
        at, num = _key(data, at, stop, plain, scratch, 0)
        if at < 0 or at >= stop:
            return False
        field = _which(scratch, num, names, stops)
        if field >= 0:
            if seen >> field & 1:
                return False
            seen |= 1 << field
        if field >= 0 and data[at] == _QUOTE:
            at, ends[field] = _string(data, at, stop, plain, out[field], ends[field])
        elif field == 2:
            at, ends[2] = _integer(data, at, stop, out[2], ends[2])
        elif field == 0:
            return False
        else:
            at = _skip(data, at, stop, plain, scratch)
        if at < 0:
            return False
        at = _blanks(data, at, stop)
        if at >= stop:
            return False
        if data[at] == _CLOSE:
            break
        if data[at] != _COMMA:
            return False
        at = _blanks(data, at + 1, stop)
    wanted = 1 if len(stops) == 2 else 5
    return seen & wanted == wanted and _blanks(data, at + 1, stop) == stop


@njit(cache=True, nogil=True)
def _is_identifier(out, begin, end):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if not 1 <= end - begin <= _MAX_ID:
        return False
    for i in range(begin, end):  # noqa: SIM110 - a compiled loop
        if out[i] < 0x20 or out[i] > 0x7E:
            return False
    return True


@njit(cache=True, nogil=True)
def _may_be_blank(out, begin, end):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Say whether no character of a text is printable ASCII: most end here at their first."""
    for i in range(begin, end):  # noqa: SIM110 - a compiled loop
        if 0x20 < out[i] < 0x7F:
            return False
    return True


@njit(cache=True, nogil=True)
def line_columns(data, starts, sizes, names, stops, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Read lines of JSON objects.

    Args:
      data: uint8, the lines and whatever is between them.
      starts: int64 [n] in ``data``.
      sizes: int64 [n] bytes, without the ends.
      names: uint8, the names of the fields one after another: text, title and, if there are ids, id.
      stops: int64 [2 or 3] where each name ends.
      out: uint8 [fields, len(data)] to fill: the columns' bytes.

    Returns:
      (how many lines were plain; all n, or nothing else is of use; offsets int64 [fields, n + 1]; uint8 [n], 1 where
      a text has no printable ASCII).
    """
    num_fields, num_lines = len(stops), len(starts)
    offsets = np.zeros((num_fields, num_lines + 1), np.int64)
    blank = np.zeros(num_lines, np.uint8)
    ends, plain = np.zeros(num_fields, np.int64), _plain_bytes()
    longest = np.int64(0)  # in a loop: numba's max() of an array would import SciPy when this is loaded
    for size in sizes:
        longest = max(longest, size)
    scratch = np.empty(longest, np.uint8)
    for line in range(num_lines):
        at, stop = starts[line], starts[line] + sizes[line]
        if not _record(data, at, stop, names, stops, plain, out, ends, scratch):
            return line, offsets, blank
        for field in range(num_fields):
            offsets[field, line + 1] = ends[field]
        if num_fields == 3 and not _is_identifier(out[2], offsets[2, line], ends[2]):
            return line, offsets, blank
        blank[line] = _may_be_blank(out[0], offsets[0, line], ends[0])
    return num_lines, offsets, blank
