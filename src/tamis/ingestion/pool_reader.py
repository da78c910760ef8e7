"""Pool reader: raw files to Arrow batches on a scratch disk, JSON lines by whole blocks; texts stay as they are.

Source: tamis design (reliability 2(e), D1 to D4; card K8). Reasons of rejects and rules of ids are those of `ingest`.
"""

import io
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from tamis.data import durable
from tamis.ingestion import readers
from tamis.ingestion.decompress import open_stream
from tamis.ingestion.parts import Part, Task, UnitSummary, documents_file, rejects_file
from tamis.ingestion.pool_lines import TEXT, Columns, LineBlocks, Lines, parse_columns, parse_each
from tamis.ingestion.records import Fields, Record, Reject, choose_fields, clip
from tamis.ops.hashing import array_keys

POOL_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),  # null: made from label and line when the line is known
        ("title", TEXT),
        ("text", TEXT),
        ("metadata", TEXT),  # null: in the line of the file, read again when it is asked for
        ("unit", pa.int32()),  # position among the task's units
        ("line", pa.int64()),  # within the unit
        ("offset", pa.int64()),  # of the record's first byte in the decompressed file
        ("num_bytes", pa.int64()),  # of the record's line without its end; 0 where records are no lines
    ]
)
_ROWS_CHARS = 4 << 20
_ROWS_DOCS = 4096
_AHEAD = 1  # blocks that wait for the parser


@dataclass
class PoolPart(Part):
    """A staged task.

    Attributes:
      keys: uint64 [n]; XXH3-64 of each id, 0 where it has none yet.
      made: bool [n]; whether the id is made from label and line.
      empty: bool [n]; whether the text is empty or blank.
      num_bytes: UTF-8 bytes of titles and texts.
      digest: of everything that was read.
    """

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    made: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    empty: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    num_bytes: int = 0
    digest: str = ""


@contextmanager
def scratch_file(path: Path) -> Iterator[pa.NativeFile]:
    """Open a new scratch file: not awaited and not hashed, because nothing reads it after this run.

    Raises:
      ResourceError: the system refused; names the path.
    """
    with durable.operation("write", path), pa.OSFile(str(path), "wb") as file:
        yield file


def read_staged(path: str, columns: Sequence[str]) -> tuple[pa.NativeFile, Any]:
    """Open a staged file for plain reads of some columns; return (file to close, reader of record batches).

    Raises:
      ResourceError: it is gone, or cannot be read.
    """
    options = pa.ipc.IpcReadOptions(included_fields=sorted(POOL_SCHEMA.get_field_index(c) for c in columns))
    with durable.operation("read", Path(path)):
        file = pa.OSFile(path)  # not mapped: mapped pages would count as memory in use
        return file, pa.ipc.open_file(file, options=options)


def stage_pool(task: Task) -> PoolPart:
    """Read a task's units into one Arrow file of POOL_SCHEMA and one of rejects. Memory: a few blocks.

    Raises:
      ResourceError: the scratch files cannot be written.
    """
    part = PoolPart(task.number, [], [], Counter())
    with (
        scratch_file(documents_file(task.folder, task.number)) as documents,
        scratch_file(rejects_file(task.folder, task.number)) as rejects,
        pa.ipc.new_file(documents, POOL_SCHEMA) as sink,
        ThreadPoolExecutor(1, thread_name_prefix="tamis-spool") as spool,
    ):
        stager = _Stager(sink, rejects, spool, part)
        for number, unit in enumerate(task.units):
            summary, reading = UnitSummary(), readers.Reading()
            part.units.append(summary)
            if unit.source.kind == "jsonl":
                stager.flush()
                _stage_lines(unit, number, task.names, reading, stager)
            else:
                for row in readers.read(unit, task.names, reading):
                    stager.add_row(row, number)
            summary.num_lines, summary.fields = reading.num_lines, reading.fields
            summary.has_changed = unit.source.has_changed()
        stager.finish()
    return part


def died(task: Task, cause: str) -> PoolPart:
    """Return the part of a task whose process died: what it staged is removed."""
    for path in (documents_file(task.folder, task.number), rejects_file(task.folder, task.number)):
        durable.remove(path)
    return PoolPart(task.number, [UnitSummary(died=f"the reader's process {cause}") for _ in task.units], [], Counter())


def _stage_lines(
    unit: readers.Unit, number: int, names: readers.FieldNames, reading: readers.Reading, stager: "_Stager"
) -> None:
    """Stage a JSON lines unit by blocks: the rows and rejects that `readers.read` gives."""
    try:
        with open_stream(unit.source) as raw:
            head = io.BufferedReader(raw, 1 << 12).read(4)
        if b"\0" in head or head.startswith(readers.UTF16_MARKS):
            for row in readers.read(unit, names, reading):
                stager.add_row(row, number)
            return
        fields = reading.fields = choose_fields(list(readers.sniff(unit.source)), names.doc_id, names.text, names.title)
        with open_stream(unit.source) as raw:
            blocks = LineBlocks(raw, unit.start, unit.stop)
            for block, columns in _parsed(blocks, fields):
                if isinstance(block, Reject):
                    reading.num_lines = block.line
                    stager.reject(block, number)
                else:
                    reading.num_lines = block.first + len(block) - 1
                    stager.add_lines(block, columns, number, fields)
            stager.note(blocks.digest.digest())
            if raw.problem:
                detail = clip(f"{raw.problem[1]}; what follows was not read")
                stager.reject(Reject(reading.num_lines + 1, raw.num_out, raw.problem[0], detail), number)
    except OSError as error:
        stager.reject(Reject(0, 0, "unreadable", clip(str(error.strerror or error))), number)


def _parsed(blocks: LineBlocks, fields: Fields) -> Iterator[tuple[Lines | Reject, Columns | None]]:
    """Yield what the blocks give, in order, parsed by another thread while the next are read."""
    waiting: deque[tuple[Lines | Reject, Future[Columns | None] | None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="tamis-parse") as parser:
        for block in blocks:
            waiting.append((block, parser.submit(parse_columns, block, fields) if isinstance(block, Lines) else None))
            if len(waiting) > _AHEAD:
                first, columns = waiting.popleft()
                yield first, None if columns is None else columns.result()
        for first, columns in waiting:
            yield first, None if columns is None else columns.result()


class _Stager:
    """Makes batches of POOL_SCHEMA and hands them to one thread that writes them."""

    def __init__(self, sink: Any, rejects: pa.NativeFile, spool: ThreadPoolExecutor, part: PoolPart) -> None:  # noqa: ANN401 - an Arrow writer
        self._sink, self._rejects, self._spool, self._part = sink, rejects, spool, part
        self._writing: deque[Future[None]] = deque()
        self._rows: list[tuple[Record, int]] = []
        self._num_chars = 0
        self._digest = xxhash.xxh3_128()
        self._keys: list[np.ndarray] = []
        self._made: list[np.ndarray] = []
        self._empty: list[np.ndarray] = []

    def note(self, digest: bytes) -> None:
        """Add the digest of a unit's bytes to that of the part."""
        self._digest.update(digest)

    def reject(self, row: Reject, unit: int) -> None:
        """Note what could not be read."""
        self._part.units[unit].rejects[row.reason] += 1
        self._rejects.write(orjson.dumps([unit, *row]) + b"\n")

    def add_lines(self, block: Lines, columns: Columns | None, unit: int, fields: Fields) -> None:
        """Stage the documents of a block of JSON lines; their other fields stay in the file.

        Args:
          block: the lines.
          columns: what `parse_columns` made of them.
          unit: whose they are.
          fields: what the columns were made from.
        """
        if columns is not None:
            self._put(columns, None, unit, np.arange(len(block)) + block.first, block.starts, block.sizes)
            return
        found: list[Record] = []
        at: list[int] = []
        for position, row in parse_each(block, fields):
            if isinstance(row, Reject):
                self.reject(row, unit)
            else:
                found.append(row)
                at.append(position)
        if found:
            chosen = np.array(at, dtype=np.int64)
            made = Columns.of([r.doc_id for r in found], [r.title for r in found], [r.text for r in found])
            self._put(made, None, unit, chosen + block.first, block.starts[chosen], block.sizes[chosen])

    def add_row(self, row: Record | Reject, unit: int) -> None:
        """Stage one document of another format, or a reject."""
        if isinstance(row, Record):
            problem = _surrogate(row)
            if problem:
                row = Reject(row.line, row.offset, "invalid_utf8", problem)
        if isinstance(row, Reject):
            self.reject(row, unit)
            return
        self._rows.append((row, unit))
        self._num_chars += len(row.text) + len(row.metadata)
        if len(self._rows) >= _ROWS_DOCS or self._num_chars >= _ROWS_CHARS:
            self.flush()

    def flush(self) -> None:
        """Make a batch of the rows that wait."""
        if not self._rows:
            return
        rows = [row for row, _ in self._rows]
        units = np.array([unit for _, unit in self._rows], dtype=np.int32)
        zeros = np.zeros(len(rows), dtype=np.int64)
        lines = np.array([row.line for row in rows], dtype=np.int64)
        columns = Columns.of([r.doc_id for r in rows], [r.title for r in rows], [r.text for r in rows])
        for row in rows:
            self._digest.update(orjson.dumps(list(row)))
        self._put(columns, [r.metadata for r in rows], units, lines, zeros, zeros)
        self._rows, self._num_chars = [], 0

    def _put(
        self,
        columns: Columns,
        metadata: list[str] | None,
        unit: int | np.ndarray,
        lines: np.ndarray,
        starts: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        num = len(columns.texts)
        made = np.asarray(columns.ids.is_null())
        self._keys.append(np.where(made, np.uint64(0), array_keys(columns.ids)))
        self._made.append(made)
        self._empty.append(columns.empty)
        units = np.broadcast_to(np.asarray(unit, dtype=np.int32), num)
        for number, count in zip(*np.unique(units, return_counts=True), strict=True):
            self._part.units[int(number)].num_docs += int(count)
        staged = [columns.ids, columns.titles, columns.texts]
        staged.append(pa.nulls(num, TEXT) if metadata is None else pa.array(metadata, TEXT))
        staged += [pa.array(np.ascontiguousarray(c)) for c in (units, lines, starts, sizes)]
        self._part.num_bytes += sum(pc.sum(pc.binary_length(c)).as_py() for c in staged[1:3])
        self._part.batch_sizes.append(num)
        self._writing.append(self._spool.submit(self._sink.write_batch, pa.record_batch(staged, schema=POOL_SCHEMA)))
        if len(self._writing) > 2:
            self._writing.popleft().result()

    def finish(self) -> None:
        """Write what waits and complete the part."""
        self.flush()
        while self._writing:
            self._writing.popleft().result()
        part = self._part
        part.keys = np.concatenate([np.zeros(0, np.uint64), *self._keys])
        part.made = np.concatenate([np.zeros(0, bool), *self._made])
        part.empty = np.concatenate([np.zeros(0, bool), *self._empty])
        part.digest = self._digest.hexdigest()


def _surrogate(row: Record) -> str:
    """Say where a record holds half a surrogate pair, which UTF-8 cannot; "" where it does not."""
    for name, value in (("text", row.text), ("title", row.title)):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                return clip(f"{name}: {value[error.start]!r} at character {error.start} is half a pair")
    return ""
