"""Parts: the first pass of ingestion. A task reads and cleans its units and stages them as one Arrow file.

Source: tamis design. Staged files are memory-mapped by the second pass: any row can be looked at again for nothing.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from tamis.data import durable
from tamis.ingestion.cleaning import Unicode
from tamis.ingestion.exact import content_key
from tamis.ingestion.readers import FieldNames, Reading, Unit, read
from tamis.ingestion.records import Fields, Record, Reject

TEXT = pa.large_string()
STAGED_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),  # null: made from label and line when the line is known
        ("title", TEXT),
        ("text", TEXT),
        ("metadata", TEXT),
        ("unit", pa.int32()),  # position among the task's units
        ("line", pa.int64()),  # within the unit
        ("changed", pa.int64()),  # characters and marks that cleaning touched
        ("reason", TEXT),  # why it is dropped at once; "" when it goes on
        ("id_key", pa.uint64()),
        ("content_key", pa.binary(16)),
    ]
)
BATCH_DOCS = 4096
BATCH_CHARS = 8 << 20


@dataclass(frozen=True)
class Task:
    """Units that one worker reads into one staged file.

    Attributes:
      number: position among the tasks; names the staged files.
      units: in the order of the corpus.
      names: fields a person named.
      unicode: cleaning; None to leave texts as they are.
      folder: where to stage.
      batch_docs: most documents an Arrow batch holds.
    """

    number: int
    units: tuple[Unit, ...]
    names: FieldNames
    unicode: Unicode | None
    folder: str
    batch_docs: int = BATCH_DOCS

    def __str__(self) -> str:
        """Name the files of the task, for messages."""
        return ", ".join(u.source.path for u in self.units[:3]) + (" ..." if len(self.units) > 3 else "")


@dataclass
class UnitSummary:
    """What one unit gave."""

    num_docs: int = 0
    num_lines: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    fields: Fields | None = None
    has_changed: bool = False
    died: str = ""


@dataclass
class Part:
    """A task's result: summaries in the order of its units, sizes of its staged batches, changes by class."""

    number: int
    units: list[UnitSummary]
    batch_sizes: list[int]
    changes: Counter[str]


def documents_file(folder: str | Path, number: int) -> Path:
    """Return the staged documents of a task."""
    return Path(folder) / f"{number:06d}.arrow"


def rejects_file(folder: str | Path, number: int) -> Path:
    """Return the staged rejects of a task: a JSON array [unit, line, offset, reason, detail] a line."""
    return Path(folder) / f"{number:06d}.rejects"


def stage_part(task: Task) -> Part:
    """Read, clean and stage a task's units; memory is one batch.

    Raises:
      ResourceError: the staged files cannot be written.
    """
    part = Part(task.number, [], [], Counter())
    with (
        durable.create(documents_file(task.folder, task.number)) as documents,
        durable.create(rejects_file(task.folder, task.number)) as rejects,
        pa.ipc.new_file(documents, STAGED_SCHEMA) as sink,
    ):
        stager = _Stager(task, sink, part)
        for number, unit in enumerate(task.units):
            summary = UnitSummary()
            reading = Reading()
            for row in read(unit, task.names, reading):
                if isinstance(row, Reject):
                    summary.rejects[row.reason] += 1
                    rejects.write(orjson.dumps([number, *row]) + b"\n")
                else:
                    summary.num_docs += 1
                    stager.add(row, number)
            summary.num_lines, summary.fields = reading.num_lines, reading.fields
            summary.has_changed = unit.source.has_changed()
            part.units.append(summary)
        stager.flush()
    return part


def died(task: Task, cause: str) -> Part:
    """Return the part of a task whose process died: its files are rejected, what it staged is removed."""
    for path in (documents_file(task.folder, task.number), rejects_file(task.folder, task.number)):
        durable.remove(path)
    return Part(task.number, [UnitSummary(died=f"the reader's process {cause}") for _ in task.units], [], Counter())


class _Stager:
    """Cleans documents and writes them in batches."""

    def __init__(self, task: Task, sink: Any, part: Part) -> None:  # noqa: ANN401 - an Arrow writer
        self._task, self._sink, self._part = task, sink, part
        self._unicode = task.unicode
        self._code = task.unicode.model_copy(update={"keep_tabs": True}) if task.unicode else None
        self._rows: list[tuple[Any, ...]] = []
        self._num_chars = 0

    def add(self, record: Record, unit: int) -> None:
        """Clean one document and put it into the batch."""
        title, text, reason, changed = record.title, record.text, "", 0
        method = self._code if self._task.units[unit].source.kind == "py" else self._unicode
        if method is not None:
            text, changes, stable = method.clean(text)
            title, title_changes, title_stable = method.clean(title)
            changes += title_changes
            reason = "" if stable and title_stable else "unstable_text"
            changed = changes.total()  # blanks trimmed at line ends are no news
            self._part.changes += changes
        if not text.strip():
            reason = reason or "empty_text"
        id_key = 0 if record.doc_id is None else xxhash.xxh3_64_intdigest(record.doc_id.encode())
        key = content_key(title, text)
        row = (record.doc_id, title, text, record.metadata, unit, record.line, changed, reason, id_key, key)
        self._rows.append(row)
        self._num_chars += len(text) + len(record.metadata)
        if len(self._rows) >= self._task.batch_docs or self._num_chars >= BATCH_CHARS:
            self.flush()

    def flush(self) -> None:
        """Write the batch."""
        if not self._rows:
            return
        columns = [pa.array(c, f.type) for c, f in zip(zip(*self._rows, strict=True), STAGED_SCHEMA, strict=True)]
        self._sink.write_batch(pa.record_batch(columns, schema=STAGED_SCHEMA))
        self._part.batch_sizes.append(len(self._rows))
        self._rows, self._num_chars = [], 0


class Staged:
    """All staged documents in order, memory-mapped; rows are numbered across the parts."""

    def __init__(self, folder: Path, parts: Sequence[Part]) -> None:
        """Wrap the finished parts, in the order of their numbers."""
        self._folder = folder
        self._batches = [(part.number, i) for part in parts for i in range(len(part.batch_sizes))]
        sizes = [size for part in parts for size in part.batch_sizes]
        self._stops = np.cumsum(np.array(sizes, dtype=np.int64)).tolist()
        self._open = lru_cache(maxsize=64)(self._reader)
        self._batch = lru_cache(maxsize=1024)(self._mapped)  # views of mapped pages: the system takes them back

    def __len__(self) -> int:
        """Number of documents."""
        return self._stops[-1] if self._stops else 0

    def _reader(self, number: int) -> Any:  # noqa: ANN401 - an Arrow reader
        return pa.ipc.open_file(pa.memory_map(str(documents_file(self._folder, number))))

    def _mapped(self, number: int, index: int) -> pa.RecordBatch:
        return self._open(number).get_batch(index)

    def batches(self) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """Yield (task number, first row, batch)."""
        first = 0
        for (number, index), stop in zip(self._batches, self._stops, strict=True):
            yield number, first, self._open(number).get_batch(index)
            first = stop

    def row(self, row: int, columns: Sequence[str] = ("doc_id", "unit", "line")) -> dict[str, Any]:
        """Return the named columns of one document, and its ``task``."""
        at = bisect_right(self._stops, row)
        number, index = self._batches[at]
        batch = self._batch(number, index)
        inside = row - (self._stops[at - 1] if at else 0)
        return {"task": number, **{name: batch[name][inside].as_py() for name in columns}}
