"""CSV and TSV reader: a header, then one record a row; every row bounded.

Source: RFC 4180; IANA text/tab-separated-values (no quoting). Reliability D15.
"""

import codecs
import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from tamis.ingestion.records import MAX_DOCUMENT_BYTES, Fields, Record, Reject, clip, to_document

MAX_COLUMNS = 4096
_SNIFF_ROWS = 100
Chooser = Callable[[list[dict[str, object]]], Fields]


class Lines(Protocol):
    """A bounded line loop (`readers.LineReader`)."""

    line: int
    offset: int

    def __iter__(self) -> Iterator[bytes | Reject]: ...
    def reject(self, reason: str, detail: str) -> Reject: ...  # noqa: D102


class _Feed:
    """Physical lines for the csv module, remembering where the current row began and what was wrong in it."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.begin()

    def begin(self) -> None:
        """Start a row: the next line given is its first."""
        self.first_line = self.first_offset = -1
        self.num_bytes = 0
        self.fault: Reject | None = None

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            if self.first_line < 0:
                self.first_line, self.first_offset = self._lines.line, self._lines.offset
            if isinstance(line, Reject):
                self.fault = line
                yield "\n"
                continue
            self.num_bytes += len(line)
            if self.num_bytes > MAX_DOCUMENT_BYTES:
                raise csv.Error("row larger than the bound")
            if self._lines.offset == 0:
                line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901 - the mark is no part of the line
            yield line.decode("utf-8", "surrogateescape") + "\n"

    def reject(self, reason: str, detail: str) -> Reject:
        """Make a reject for the current row."""
        return Reject(max(1, self.first_line), max(0, self.first_offset), reason, clip(detail))


def read_table(lines: Lines, kind: str, choose: Chooser) -> Iterator[Record | Reject]:
    """Read a CSV ("csv") or TSV ("tsv") file row by row.

    A quote that is never closed ends the file: one reject says how many lines it swallowed.
    """
    feed = _Feed(lines)
    rows = _rows(feed, kind)
    header = next(rows, None)
    if header is None or isinstance(header, Reject):
        yield header or feed.reject("no_header", "the file is empty")
        return
    problem = _header_problem(header)
    if problem:
        yield feed.reject(*problem)
        return
    pending: list[tuple[dict[str, object], int, int] | Reject] = []
    fields: Fields | None = None
    for row in _records(rows, header, feed):
        if fields is not None:
            yield row if isinstance(row, Reject) else to_document(row[0], fields, row[1], row[2])
            continue
        pending.append(row)
        if len(pending) == _SNIFF_ROWS:
            fields = _settle(choose, header, pending)
            yield from _flush(pending, fields)
            pending = []
    if fields is None:
        yield from _flush(pending, _settle(choose, header, pending))


def _settle(choose: Chooser, header: list[str], pending: list[tuple[dict[str, object], int, int] | Reject]) -> Fields:
    rows = [row[0] for row in pending if not isinstance(row, Reject)]
    return choose(rows or [dict.fromkeys(header, "")])


def _flush(pending: Iterable[tuple[dict[str, object], int, int] | Reject], fields: Fields) -> Iterator[Record | Reject]:
    for row in pending:
        yield row if isinstance(row, Reject) else to_document(row[0], fields, row[1], row[2])


def _rows(feed: _Feed, kind: str) -> Iterator[list[str] | Reject]:
    csv.field_size_limit(min(MAX_DOCUMENT_BYTES, sys.maxsize))
    if kind == "tsv":
        reader = csv.reader(feed, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(feed, strict=True)
    while True:
        feed.begin()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            first, last = feed.reject("", ""), feed._lines.line
            for _ in feed._lines:  # to the end, so that the count of lines is right
                last = feed._lines.line
            reason = "unbalanced_quote" if "expected after" not in str(error) else "misplaced_quote"
            detail = f"{error}; lines {first.line} to {last} were not read"
            yield Reject(first.line, first.offset, reason, clip(detail))
            return
        if feed.fault is not None:
            yield feed.fault
        elif row:
            yield row


def _header_problem(header: list[str]) -> tuple[str, str] | None:
    if len(header) > MAX_COLUMNS:
        return "too_many_columns", f"{len(header)} columns, the bound is {MAX_COLUMNS}"
    if "\0" in header[0]:
        return "utf16", "the file looks like UTF-16; convert it to UTF-8"
    try:
        "".join(header).encode()
    except UnicodeEncodeError:
        return "utf16" if header[0][:1] in "\udcff\udcfe" else "invalid_utf8", "the header is not UTF-8"
    repeated = sorted({name for name in header if header.count(name) > 1}) if len(set(header)) < len(header) else []
    if repeated:
        return "repeated_column", f"{', '.join(repeated[:5])} stand(s) more than once in the header"
    return None


def _records(
    rows: Iterator[list[str] | Reject], header: list[str], feed: _Feed
) -> Iterator[tuple[dict[str, object], int, int] | Reject]:
    width = len(header)
    for row in rows:
        if isinstance(row, Reject):
            yield row
        elif len(row) != width:
            reason = "too_many_columns" if len(row) > width else "too_few_columns"
            yield feed.reject(reason, f"{len(row)} fields, the header has {width}")
        else:
            record: dict[str, object] = dict(zip(header, row, strict=True))
            if all(value.isascii() for value in row) or _is_utf8(row):
                yield record, feed.first_line, feed.first_offset
            else:
                yield feed.reject("invalid_utf8", "a field is not UTF-8")


def _is_utf8(row: list[str]) -> bool:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True
