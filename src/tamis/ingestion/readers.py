"""Readers: a unit of input (a file, or a byte range of one) to documents and rejects, streaming.

Source: tamis design (reliability section 2(e), D1 to D4): orjson line by line, every line bounded.
"""

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from tamis.ingestion import readers_html, readers_parquet, readers_python, readers_table, readers_text
from tamis.ingestion.decompress import ByteStream, open_stream
from tamis.ingestion.records import MAX_DOCUMENT_BYTES, Fields, Record, Reject, choose_fields, clip, to_document
from tamis.ingestion.sources import SourceFile

MAX_LINE_BYTES = 16 << 20
SNIFF_RECORDS = 100
SNIFF_BYTES = 64 << 20
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF16_STARTS = (b"{\0", b"[\0", b"\0{", b"\0[")
_BLANK = b" \t\r\n"


@dataclass(frozen=True)
class Unit:
    """A piece of work: a source, or the lines of it whose first byte is in [start, stop).

    Attributes:
      source: the file.
      start: first byte of the range; 0 for a whole file.
      stop: end of the range, exclusive; -1 for a whole file.
    """

    source: SourceFile
    start: int = 0
    stop: int = -1


@dataclass(frozen=True)
class FieldNames:
    """The fields a person named; None where they are to be detected."""

    doc_id: str | None = None
    text: str | None = None
    title: str | None = None


@dataclass
class Reading:
    """What a reader reports beside its rows; complete when the iterator has ended.

    Attributes:
      num_lines: lines of the range, so that the next range's line numbers can follow.
      fields: the fields chosen; None for files without records.
    """

    num_lines: int = 0
    fields: Fields | None = field(default=None)


def read(unit: Unit, names: FieldNames, reading: Reading) -> Iterator[Record | Reject]:
    """Read a unit, in order, with bounded memory; never raises for what the file holds."""
    source = unit.source
    try:
        if source.kind == "parquet":
            yield from _read_parquet(source, names, reading)
            return
        with open_stream(source) as raw:
            yield from _read_stream(unit, raw, names, reading)
    except OSError as error:
        yield Reject(0, 0, "unreadable", clip(str(error.strerror or error)))


def _read_stream(unit: Unit, raw: ByteStream, names: FieldNames, reading: Reading) -> Iterator[Record | Reject]:
    source = unit.source
    if source.kind == "jsonl":
        yield from _read_lines(unit, raw, names, reading)
    elif source.kind == "json":
        yield from _read_json(unit, raw, names, reading)
    elif source.kind in ("csv", "tsv"):
        lines = LineReader(raw)
        yield from readers_table.read_table(lines, source.kind, lambda rows: _choose(rows, names, reading))
        reading.num_lines = lines.line
    else:
        yield from _read_whole(source, raw)
    if raw.problem and source.kind in ("jsonl", "json", "csv", "tsv"):
        yield Reject(
            reading.num_lines + 1, raw.num_out, raw.problem[0], clip(f"{raw.problem[1]}; what follows was not read")
        )


def _choose(rows: list[dict[str, object]], names: FieldNames, reading: Reading) -> Fields:
    reading.fields = choose_fields(rows, names.doc_id, names.text, names.title)
    return reading.fields


class LineReader:
    """Bounded line loop over a stream: a line beyond the bound is skipped in constant memory.

    Attributes:
      line: number of the line last given, from 1.
      offset: byte at which it starts.
    """

    def __init__(self, raw: ByteStream, *, max_line_bytes: int = MAX_LINE_BYTES, start: int = 0) -> None:
        """Read lines from ``raw``, which stands at byte ``start``."""
        self.raw = raw
        self._buffer = io.BufferedReader(raw, 1 << 16)
        self._max = max_line_bytes
        self.line = 0
        self.offset = self._next_offset = start

    def __iter__(self) -> Iterator[bytes | Reject]:
        """Yield each line without its end, or a reject. The last line needs no end unless the stream was cut."""
        while chunk := self._buffer.readline(self._max + 1):
            self.line += 1
            self.offset = self._next_offset
            self._next_offset += len(chunk)
            if not chunk.endswith(b"\n"):
                if len(chunk) > self._max:
                    del chunk  # 16 MiB less while the rest of the line goes by
                    self._skip_rest()
                    yield self.reject(
                        "line_too_long", f"{self._next_offset - self.offset} bytes, the bound is {self._max}"
                    )
                    continue
                if self.raw.problem:
                    self.line -= 1  # a torn line: part of what the stream's own reject stands for
                    return
            yield chunk.rstrip(b"\r\n")

    def _skip_rest(self) -> None:
        while chunk := self._buffer.readline(1 << 16):
            self._next_offset += len(chunk)
            if chunk.endswith(b"\n"):
                return

    def skip_partial(self) -> None:
        """Pass over the rest of a line that began before; its bytes count, the line does not."""
        self._skip_rest()
        self.offset = self._next_offset

    @property
    def next_offset(self) -> int:
        """Byte at which the next line starts."""
        return self._next_offset

    def reject(self, reason: str, detail: str) -> Reject:
        """Make a reject for the current line."""
        return Reject(self.line, self.offset, reason, clip(detail))


def parse_line(line: bytes) -> dict[str, object] | tuple[str, str]:
    """Parse one JSON line to an object, or return (reason, detail)."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _json_problem(line, error)
    if isinstance(value, dict):
        return value
    return "not_an_object", f"{line[:60].decode('utf-8', 'replace')!r}: a line must be one JSON object"


def _json_problem(line: bytes, error: orjson.JSONDecodeError) -> tuple[str, str]:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as problem:
        return "invalid_utf8", f"byte {line[problem.start]:#04x} at byte {problem.start} of the line"
    if "surrogate" in error.msg:
        return "lone_surrogate", str(error)
    if "depth" in error.msg or "recursion" in error.msg.lower():
        return "too_deep", str(error)
    return "invalid_json", str(error)


def _read_lines(unit: Unit, raw: ByteStream, names: FieldNames, reading: Reading) -> Iterator[Record | Reject]:
    head = _peek(unit.source)
    if head.startswith(UTF16_MARKS) or head.startswith(_UTF16_STARTS):
        if unit.start == 0:
            yield Reject(1, 0, "utf16", "the file is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
        return
    fields = _choose(list(sniff(unit.source)), names, reading)
    if unit.start:
        raw.seek_plain(unit.start - 1)  # the byte before says whether a line begins at start
    lines = LineReader(raw, start=max(0, unit.start - 1))
    if unit.start:
        lines.skip_partial()
    if 0 <= unit.stop <= lines.next_offset:
        return
    for line in lines:
        reading.num_lines = lines.line
        if isinstance(line, Reject):
            yield line
        else:
            if lines.offset == 0 and line.startswith(codecs.BOM_UTF8):
                line = line[3:]  # noqa: PLW2901 - the mark is no part of the line
            if line.strip(_BLANK):
                yield _to_row(line, fields, lines)
        if 0 <= unit.stop <= lines.next_offset:
            return


def _to_row(line: bytes, fields: Fields, lines: LineReader) -> Record | Reject:
    values = parse_line(line)
    if isinstance(values, tuple):
        return lines.reject(*values)
    return to_document(values, fields, lines.line, lines.offset)


def _peek(source: SourceFile) -> bytes:
    with open_stream(source) as raw:
        return io.BufferedReader(raw, 1 << 12).read(4)


def sniff(source: SourceFile) -> Iterator[dict[str, object]]:
    """Yield the first objects of a JSON lines file: at most SNIFF_RECORDS, of its first SNIFF_BYTES."""
    found = 0
    with open_stream(source) as raw:
        lines = LineReader(raw)
        for line in lines:
            if isinstance(line, bytes) and line.strip(_BLANK):
                values = parse_line(line.removeprefix(codecs.BOM_UTF8) if lines.offset == 0 else line)
                if isinstance(values, dict):
                    yield values
                    found += 1
            if found == SNIFF_RECORDS or lines.next_offset > SNIFF_BYTES:
                return


def _read_json(unit: Unit, raw: ByteStream, names: FieldNames, reading: Reading) -> Iterator[Record | Reject]:
    """Read ``.json``: JSON lines, or one array of objects of bounded size."""
    with open_stream(unit.source) as start:
        head = io.BufferedReader(start, 1 << 12).read(1 << 10).removeprefix(codecs.BOM_UTF8).lstrip(_BLANK)
    if not head.startswith(b"["):
        first = next(iter(_sniff_first(unit.source)), b"{}")
        if not isinstance(parse_line(first), dict) and not head.startswith((*UTF16_MARKS, *_UTF16_STARTS)):
            yield Reject(1, 0, "not_json_lines", "neither one object a line nor an array of objects")
            return
        yield from _read_lines(unit, raw, names, reading)
        return
    data = io.BufferedReader(raw).read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        yield Reject(1, 0, "array_too_long", f"more than {MAX_DOCUMENT_BYTES} bytes; write one object a line (.jsonl)")
        return
    try:
        values = orjson.loads(data.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        if raw.problem is None:
            yield Reject(1, 0, *(clip(part) for part in _json_problem(data, error)))
        return
    fields = _choose([v for v in values[:SNIFF_RECORDS] if isinstance(v, dict)], names, reading)
    for number, value in enumerate(values, 1):
        reading.num_lines = number
        if isinstance(value, dict):
            yield to_document(value, fields, number, 0)
        else:
            yield Reject(number, 0, "not_an_object", f"element {number} of the array")


def _sniff_first(source: SourceFile) -> Iterator[bytes]:
    with open_stream(source) as raw:
        for line in LineReader(raw):
            if isinstance(line, Reject):
                yield b""
            elif line.removeprefix(codecs.BOM_UTF8).strip(_BLANK):
                yield line.removeprefix(codecs.BOM_UTF8)


def _read_whole(source: SourceFile, raw: ByteStream) -> Iterator[Record | Reject]:
    """Read a file that is one document (Python: several)."""
    data = io.BufferedReader(raw).read(MAX_DOCUMENT_BYTES + 1)
    if raw.problem:
        yield Reject(0, raw.num_out, raw.problem[0], clip(raw.problem[1]))
        return
    if len(data) > MAX_DOCUMENT_BYTES:
        yield Reject(0, 0, "document_too_long", f"more than {MAX_DOCUMENT_BYTES} bytes; split the file")
        return
    if data.startswith(UTF16_MARKS):
        yield Reject(1, 0, "utf16", "the file is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
        return
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield Reject(line, error.start, "invalid_utf8", f"byte {data[error.start]:#04x}")
        return
    if source.kind == "py":
        yield from readers_python.read_python(text, source.label)
    elif source.kind == "html":
        yield readers_html.read_html(text, source.label)
    elif source.kind == "md":
        yield readers_text.read_markdown(text, source.label)
    else:
        yield readers_text.read_plain(text, source.label)


def _read_parquet(source: SourceFile, names: FieldNames, reading: Reading) -> Iterator[Record | Reject]:
    if source.packing:
        yield Reject(0, 0, "packed_parquet", "Parquet is compressed inside; unpack the file")
        return
    for row in readers_parquet.read_parquet(source.path, lambda rows: _choose(rows, names, reading)):
        reading.num_lines = max(reading.num_lines, row.line)
        yield row
