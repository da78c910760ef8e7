"""Lines of a pool: whole blocks of JSON lines at once, each line bounded; odd lines are looked at one by one.

Source: tamis design (reliability 2(e), D1 to D4). A block without oddities gives what `readers.read` gives, faster.
"""

import codecs
import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from tamis.ingestion import readers
from tamis.ingestion.decompress import ByteStream
from tamis.ingestion.records import Fields, Record, Reject, clip, to_document

TEXT = pa.large_string()
BLOCK_BYTES = 4 << 20
_NEWLINE = 10
_PLAIN_LINE_BYTES = 3 << 20  # other fields written again grow at most 4.5 times (1e15): no document past the bound
_NESTING = frozenset({list, dict})
_PLAIN_BRACKETS = 254  # what orjson writes again; more brackets than that may be nested deeper
_PLAIN_ID_CHARS = 128  # at most 512 bytes
_INT64_BOUND = 1 << 63


class Lines:
    """Whole lines of a file, without their ends.

    Attributes:
      first: number of the first line, from 1.
      starts: int64 [n], where each starts in the file.
      sizes: int64 [n], bytes.
      data: the lines and what is between them.
    """

    def __init__(self, lines: list[bytes], first: int, starts: np.ndarray, sizes: np.ndarray) -> None:
        """Hold lines that are apart already."""
        self.first, self.starts, self.sizes, self.data = first, starts, sizes, b"\n".join(lines)

    @classmethod
    def cut(cls, data: bytes, first: int, offset: int, ends: np.ndarray) -> Self:
        """Hold the lines of ``data``, which is at ``offset`` of the file; int64 ``ends`` in it, one a line."""
        block = cls.__new__(cls)
        begins = np.r_[np.int64(0), ends[:-1] + 1][: len(ends)]
        block.first, block.starts, block.sizes, block.data = first, begins + offset, ends - begins, data
        return block

    def __len__(self) -> int:
        """Number of lines."""
        return len(self.sizes)

    @cached_property
    def begins(self) -> np.ndarray:
        """int64 [n]: where each starts in ``data``."""
        begins: np.ndarray = self.starts - self.starts[:1]
        return begins

    @cached_property
    def lines(self) -> list[bytes]:
        """The lines, one by one."""
        begins = self.begins
        pairs = zip(begins.tolist(), (begins + self.sizes).tolist(), strict=True)
        return [self.data[begin:end] for begin, end in pairs]


class Columns(NamedTuple):
    """Documents of a block of lines, n rows.

    Attributes:
      ids: large_string, null where an id is made later.
      titles: large_string, "" where there is none.
      texts: large_string.
      empty: bool, where a text is empty or blank.
    """

    ids: pa.Array
    titles: pa.Array
    texts: pa.Array
    empty: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[str | None] | None, titles: Sequence[str], texts: Sequence[str]) -> Self:
        """Return the columns of Python values."""
        empty = np.fromiter((not t or t.isspace() for t in texts), bool, len(texts))
        column = pa.nulls(len(texts), TEXT) if ids is None else pa.array(ids, TEXT)
        return cls(column, pa.array(titles, TEXT), pa.array(texts, TEXT), empty)


class LineBlocks:
    """The lines of a stream whose first byte lies in [start, stop), many at once; one beyond the bound is a reject.

    Memory: a block, or the longest line. A line that is too long is passed over in constant memory.

    Attributes:
      digest: XXH3-128 of the bytes read so far.
    """

    def __init__(
        self,
        raw: ByteStream,
        start: int = 0,
        stop: int = -1,
        *,
        block_bytes: int = BLOCK_BYTES,
        max_line_bytes: int = readers.MAX_LINE_BYTES,
    ) -> None:
        """Read ``raw``, which stands at its beginning and is plain when ``start`` is above 0; stop -1: its end."""
        self._raw, self._stop = raw, stop
        self._block_bytes, self._max = block_bytes, max_line_bytes
        self._num_lines = 0
        self._offset = max(0, start - 1)  # the byte before says whether a line begins at start
        self._carry = b""
        self._skips, self._skipped = start > 0, 0  # passing over a line: of the range before, or too long
        self.digest = xxhash.xxh3_128()
        if start:
            raw.seek_plain(start - 1)

    def __iter__(self) -> Iterator[Lines | Reject]:
        """Yield blocks and rejects in the order of the file."""
        buffer = io.BufferedReader(self._raw, 1 << 16)
        while chunk := buffer.read(self._block_bytes):
            self.digest.update(chunk)
            if self._skips:
                rest = self._skip(chunk)
                if rest is None:
                    continue
                chunk = rest
                if self._num_lines:
                    yield self._too_long()
                self._offset, self._skipped = self._offset + self._skipped, 0
            if self._is_past_end():
                return
            block = self._split(chunk)
            if len(block):
                yield block
            if self._is_past_end():
                return
            if len(self._carry) > self._max:
                self._num_lines += 1
                self._skips, self._skipped, self._carry = True, len(self._carry), b""
        if self._skips and self._num_lines:
            yield self._too_long()
        elif self._carry and not self._raw.problem:  # a torn line is part of what the stream's own reject stands for
            ends = np.array([len(self._carry)], np.int64)
            yield Lines.cut(self._carry, self._num_lines + 1, self._offset, ends)

    def _is_past_end(self) -> bool:
        return 0 <= self._stop <= self._offset

    def _skip(self, chunk: bytes) -> bytes | None:
        """Pass over the rest of a line; return what follows it, None when the line goes on."""
        cut = chunk.find(b"\n") + 1
        self._skips = cut == 0
        self._skipped += cut or len(chunk)
        return chunk[cut:] if cut else None

    def _too_long(self) -> Reject:
        detail = f"{self._skipped} bytes, the bound is {self._max}"
        return Reject(self._num_lines, self._offset, "line_too_long", detail)

    def _split(self, chunk: bytes) -> Lines:
        data = self._carry + chunk if self._carry else chunk
        cut = data.rfind(b"\n", len(self._carry)) + 1
        self._carry = data[cut:]
        ends = np.flatnonzero(np.frombuffer(data or b"\0", np.uint8)[:cut] == _NEWLINE)
        block = Lines.cut(data, self._num_lines + 1, self._offset, ends)
        if len(ends) and self._stop >= 0:
            ends = ends[: int(np.searchsorted(block.starts, self._stop))]
            block = Lines.cut(data, self._num_lines + 1, self._offset, ends)
        self._num_lines += len(ends)
        self._offset += cut
        return block


def parse_columns(block: Lines, fields: Fields) -> Columns | None:
    """Return the documents of a block of lines without any oddity, None when one has to be looked at by itself.

    Compiled code reads what is as plain as can be, and lets other threads run meanwhile.
    """
    from tamis.ingestion.pool_kernels import line_columns

    names = [fields.text, fields.title] + ([fields.doc_id] if fields.doc_id is not None else [])
    if int(block.sizes.max()) > _PLAIN_LINE_BYTES:
        return None
    if len(set(names)) == len(names):
        data, begins = np.frombuffer(block.data, np.uint8), block.begins
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        stops = np.cumsum([len(name) for name in encoded])
        name_bytes = np.frombuffer(b"".join(encoded), np.uint8)
        room = pa.allocate_buffer(len(names) * len(data))
        out = np.frombuffer(room, np.uint8).reshape(len(names), -1)
        num, offsets, blank = line_columns(data, begins, block.sizes, name_bytes, stops, out)
        if num == len(block):
            arrays = [
                pa.LargeStringArray.from_buffers(num, pa.py_buffer(ends), room.slice(row * len(data), int(ends[-1])))
                for row, ends in enumerate(offsets)
            ]
            doubtful = np.flatnonzero(blank)
            empty = np.zeros(num, bool)
            empty[doubtful] = [not t or t.isspace() for t in arrays[0].take(pa.array(doubtful)).to_pylist()]
            return Columns(arrays[2] if len(arrays) == 3 else pa.nulls(num, TEXT), arrays[1], arrays[0], empty)
    plain = parse_plain(block, fields)
    return None if plain is None else Columns.of(*plain)


def parse_plain(block: Lines, fields: Fields) -> tuple[list[str] | None, list[str], list[str]] | None:
    """Return (ids, titles, texts) of lines without any oddity; None when one has to be looked at by itself."""
    if int(block.sizes.max()) > _PLAIN_LINE_BYTES:
        return None
    loads, text_field, title_field, id_field = orjson.loads, fields.text, fields.title, fields.doc_id
    ids: list[Any] = []
    titles: list[Any] = []
    texts: list[Any] = []
    try:
        for line in block.lines:
            values = loads(line)
            texts.append(values[text_field])
            titles.append(values.get(title_field, ""))
            if id_field is not None:
                ids.append(values[id_field])
            for value in values.values():
                if type(value) in _NESTING and _may_be_deep(value, line):
                    return None
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    if set(map(type, texts)) != {str} or (id_field is not None and not _are_plain(ids)):
        return None
    if set(map(type, titles)) != {str}:
        titles = [title if isinstance(title, str) else "" for title in titles]
    return (list(map(str, ids)) if id_field is not None else None), titles, texts


def _may_be_deep(value: Any, line: bytes) -> bool:  # noqa: ANN401 - an object or a list
    """Say whether a field may hold more levels than can be written as metadata; cheap for what is flat or short."""
    inner = value.values() if isinstance(value, dict) else value
    if _NESTING.isdisjoint(map(type, inner)) or line.count(b"[") + line.count(b"{") <= _PLAIN_BRACKETS:
        return False
    try:
        orjson.dumps([value])
    except TypeError:
        return True
    return False


def _are_plain(ids: list[Any]) -> bool:
    """Say whether `records.identifier` would take every id: short and printable, or an int64."""
    kinds = set(map(type, ids))
    if kinds == {int}:
        return bool(min(ids) >= -_INT64_BOUND and max(ids) < _INT64_BOUND)
    return (
        kinds == {str}
        and min(map(len, ids)) > 0
        and max(map(len, ids)) <= _PLAIN_ID_CHARS
        and "".join(ids).isprintable()
    )


def parse_each(block: Lines, fields: Fields) -> Iterator[tuple[int, Record | Reject]]:
    """Yield (position in the block, row) line by line; blank lines give none."""
    for at, (whole, offset) in enumerate(zip(block.lines, block.starts.tolist(), strict=True)):
        number = block.first + at
        if len(whole) > readers.MAX_LINE_BYTES:
            detail = f"{len(whole) + 1} bytes, the bound is {readers.MAX_LINE_BYTES}"
            yield at, Reject(number, offset, "line_too_long", detail)
            continue
        line = whole.rstrip(b"\r")
        if offset == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip(b" \t\r\n"):
            values = readers.parse_line(line)
            if isinstance(values, tuple):
                yield at, Reject(number, offset, values[0], clip(values[1]))
            else:
                yield at, to_document(values, fields, number, offset)
