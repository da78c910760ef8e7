"""Pieces of a pool: ranges of staged batches that any worker can read, as documents or as the bytes of the files.

Source: tamis design (card K1: a worker owns whole pieces; card K8).
"""

import codecs
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import DOCUMENT_SCHEMA
from tamis.errors import DataError
from tamis.ingestion.decompress import ByteStream, open_stream
from tamis.ingestion.pool_lines import TEXT
from tamis.ingestion.pool_reader import POOL_SCHEMA, read_staged
from tamis.ingestion.readers import parse_line
from tamis.ingestion.records import encode_metadata
from tamis.ingestion.sources import SourceFile

_STORED = {
    "doc_id": ("doc_id", "unit", "line"),
    "group_id": ("doc_id", "unit", "line"),
    "title": ("title",),
    "text": ("text",),
    "source": ("unit",),
    "metadata": ("metadata", "unit", "offset", "num_bytes"),
}
_WHERE = ("unit", "offset", "num_bytes")
_ALL = ("doc_id", "title", "text", "metadata")
_SKIP_BYTES = 1 << 20


class UnitPlace(NamedTuple):
    """Where a unit stands: its file, the lines of the file before it, and which fields are not metadata."""

    source: SourceFile
    line_base: int
    fields: tuple[str | None, str, str]  # id, text, title


@dataclass(frozen=True)
class Piece:
    """Consecutive documents of a pool; small, picklable, readable by any process that sees the scratch folder.

    Attributes:
      path: the staged file.
      start: its first batch.
      stop: exclusive.
      first: row in the pool of the piece's first document.
      num_docs: documents kept.
      units: of the file, by position.
      reasons: a byte for each staged row, 0 where it is kept; empty when all are.
    """

    path: str
    start: int
    stop: int
    first: int
    num_docs: int
    units: tuple[UnitPlace, ...]
    reasons: bytes = b""

    def __len__(self) -> int:
        """Number of documents."""
        return self.num_docs

    def read(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the documents in order, a few MiB of text a batch.

        Args:
          columns: of DOCUMENT_SCHEMA; all by default. ``metadata`` of JSON lines is parsed from the files only
            when it is asked for.

        Raises:
          DataError: no such column; a file has changed since the pool was opened.
          ResourceError: the scratch file is gone.
        """
        for batch, reasons in self.seen(columns):
            kept = batch if not reasons.any() else batch.filter(pa.array(reasons == 0))
            if len(kept):
                yield kept

    def seen(self, columns: Sequence[str] | None = None) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield (all documents that were read, kept or not; uint8 reason of each, 0 for kept)."""
        names = list(columns) if columns is not None else DOCUMENT_SCHEMA.names
        first = 0
        with RawLines() as lines:
            for batch in self.stored(stored_columns(names)):
                reasons = self._reasons(first, len(batch))
                yield complete(batch, names, self.units, lines), reasons
                first += len(batch)

    def stored(self, columns: Sequence[str], batches: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield staged batches with some columns of POOL_SCHEMA; all of the piece by default."""
        file, reader = read_staged(self.path, columns)
        with file:
            for number in range(self.start, self.stop) if batches is None else batches:
                batch = reader.get_batch(number)
                # Arrow keeps room for the columns that were not read: without the texts a copy is far smaller
                yield batch if "text" in columns else batch.take(pa.array(np.arange(len(batch))))

    def kept(self, first: int, num: int) -> np.ndarray:
        """Return int64 positions, within ``num`` staged rows from ``first``, of the documents kept."""
        return np.flatnonzero(self._reasons(first, num) == 0)

    def _reasons(self, first: int, num: int) -> np.ndarray:
        if not self.reasons:
            return np.zeros(num, np.uint8)
        return np.frombuffer(self.reasons, np.uint8)[first : first + num]


class RawLines:
    """Reads records of files by offset; one file is open at a time, a packed one only forwards."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._source: SourceFile | None = None
        self._descriptor = -1
        self._stream: io.BufferedReader | None = None
        self._position = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._stream is not None:
            self._stream.close()
        self._source, self._descriptor, self._stream = None, -1, None

    def read(self, source: SourceFile, offset: int, num_bytes: int) -> bytes:
        """Return a line without its end and byte order mark. In a packed file O(distance), backwards from the start.

        Raises:
          DataError: the file is not what it was when the pool was opened.
        """
        if source != self._source or (source.packing and offset < self._position):
            self._open(source)
        if self._stream is None:
            data = os.pread(self._descriptor, num_bytes, offset)
        else:
            while skipped := self._stream.read(min(offset - self._position, _SKIP_BYTES)):
                self._position += len(skipped)
            data = self._stream.read(num_bytes) if self._position == offset else b""
            self._position += len(data)
        if len(data) != num_bytes:
            raise _changed(source)
        return (data.removeprefix(codecs.BOM_UTF8) if offset == 0 else data).rstrip(b"\r")

    def _open(self, source: SourceFile) -> None:
        self.__exit__()
        if source.has_changed():
            raise _changed(source)
        try:
            if source.packing:
                stream: ByteStream = open_stream(source)
                self._stream, self._position = io.BufferedReader(stream, 1 << 16), 0
            else:
                self._descriptor = os.open(source.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _changed(source) from error
        self._source = source


def _changed(source: SourceFile) -> DataError:
    return DataError(f"{source.path}: changed since the pool was opened. Run again when nothing writes to it.")


def stored_columns(columns: Sequence[str]) -> list[str]:
    """Return the columns of POOL_SCHEMA that columns of DOCUMENT_SCHEMA are made of.

    Raises:
      DataError: no such column.
    """
    for name in columns:
        if name not in _STORED:
            raise DataError(f"pool: no column {name!r} (has: {', '.join(_STORED)}).")
    wanted = {stored for name in columns for stored in _STORED[name]} or {"unit"}
    return [name for name in POOL_SCHEMA.names if name in wanted]


def complete(
    batch: pa.RecordBatch, columns: Sequence[str], units: Sequence[UnitPlace], lines: RawLines
) -> pa.RecordBatch:
    """Turn staged rows into documents with the given columns."""
    made = {}
    for name in columns:
        if name == "source":
            labels = pa.array([unit.source.label for unit in units], TEXT)
            made[name] = labels.take(batch["unit"])
        elif name in ("doc_id", "group_id"):
            made[name] = _ids(batch, units)
        elif name == "metadata":
            made[name] = _metadata(batch, units, lines)
        else:
            made[name] = batch[name]
    schema = pa.schema([DOCUMENT_SCHEMA.field(name) for name in columns])
    return pa.record_batch([made[name] for name in columns], schema=schema)


def _ids(batch: pa.RecordBatch, units: Sequence[UnitPlace]) -> pa.Array:
    """Ids as they were read; made from label and line where there are none."""
    ids = batch["doc_id"]
    if not ids.null_count:
        return ids
    labels = pa.array([unit.source.label for unit in units], TEXT).take(batch["unit"])
    bases = np.array([unit.line_base for unit in units], dtype=np.int64)[batch["unit"].to_numpy()]
    numbers = pa.array(bases + batch["line"].to_numpy()).cast(TEXT)
    made = pc.binary_join_element_wise(labels, numbers, pa.scalar(":", TEXT))
    return pc.coalesce(ids, made)


def _metadata(batch: pa.RecordBatch, units: Sequence[UnitPlace], lines: RawLines) -> pa.Array:
    stored = batch["metadata"]
    if not stored.null_count:
        return stored
    found = stored.to_pylist()
    where = zip(*(batch[name].to_pylist() for name in _WHERE), strict=True)
    for at, (unit, offset, num_bytes) in enumerate(where):
        if found[at] is None:
            source, _, (id_field, text_field, title_field) = units[unit]
            line = lines.read(source, offset, num_bytes)
            values = parse_line(line)
            if not isinstance(values, dict):
                raise _changed(source)
            title = values.get(title_field)
            used = {text_field, id_field, title_field if title is None or isinstance(title, str) else None}
            found[at] = encode_metadata({k: v for k, v in values.items() if k not in used})
    return pa.array(found, TEXT)


def raw_records(piece: Piece, number: int, rows: np.ndarray, lines: RawLines) -> Iterator[bytes]:
    """Yield the records of some rows of one staged batch: lines of JSON lines files as they stand, others as JSON."""
    taken = next(piece.stored(_WHERE, [number])).take(pa.array(rows))
    units, offsets, sizes = (taken[name].to_pylist() for name in _WHERE)
    if all(sizes):
        for unit, offset, num_bytes in zip(units, offsets, sizes, strict=True):
            yield lines.read(piece.units[unit].source, offset, num_bytes)
        return
    whole = next(piece.stored([*_ALL, *_WHERE, "line"], [number])).take(pa.array(rows))
    made = records(complete(whole, _ALL, piece.units, lines))
    for unit, offset, num_bytes, record in zip(units, offsets, sizes, made, strict=True):
        yield lines.read(piece.units[unit].source, offset, num_bytes) if num_bytes else record


def records(batch: pa.RecordBatch | pa.Table) -> Iterator[bytes]:
    """Yield each document as one JSON object with _id, title, text and metadata (the layout of BEIR)."""
    columns = (batch[name].to_pylist() for name in _ALL)
    for doc_id, title, text, metadata in zip(*columns, strict=True):
        record = {"_id": doc_id, "title": title, "text": text, "metadata": orjson.Fragment(metadata)}
        yield orjson.dumps(record)
