"""Corpus: documents over Arrow, in memory or as sharded Parquet; it streams and never needs to fit in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.data import columns as rules
from tamis.data.artefact import Staging
from tamis.errors import DataError

TEXT = rules.TEXT
DOCUMENT_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),  # opaque, 1 to 512 bytes of UTF-8 without controls
        ("title", TEXT),  # "" where there is none
        ("text", TEXT),  # never empty
        ("source", TEXT),  # file it was read from, relative to the root given
        ("metadata", TEXT),  # the record's other fields: one JSON object
        ("group_id", TEXT),  # doc_id of the first document with an equal text; its own when unique
    ]
)
PASSAGE_SCHEMA = pa.schema(
    [
        *DOCUMENT_SCHEMA,
        ("parent_doc_id", TEXT),
        ("ordinal", pa.int32()),  # position among the passages of its parent
        ("start", pa.int64()),  # characters of the parent's text
        ("stop", pa.int64()),  # exclusive
        ("section", TEXT),  # headings above it, "A > B"; "" where there is none
    ]
)
ROW_GROUP_DOCS = 4096
SHARD_DOCS = 25 * ROW_GROUP_DOCS
SHARD_BYTES = 256 << 20
_DEFAULTS = {"title": "", "source": "", "metadata": "{}"}


class Documents(Protocol):
    """What methods need of a corpus that may be too big to hold: a `Corpus` has it, and so has a pool of raw files."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of the documents."""

    def __len__(self) -> int:
        """Number of documents."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the documents in order."""

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the given rows in the given order."""


class Corpus:
    """Documents in a fixed order. Columns as in DOCUMENT_SCHEMA; passages have PASSAGE_SCHEMA.

    Make one with `from_table`, `from_records` or `open`. All verbs read it in batches.
    """

    def __init__(
        self, *, table: pa.Table | None = None, files: Sequence[Path] = (), schema: pa.Schema | None = None
    ) -> None:
        """Wrap a table, or Parquet files of one schema; use the class methods instead."""
        self._table = table
        self._files = list(files)
        self._held: dict[Path, pa.NativeFile] = {}
        self.schema: pa.Schema = table.schema if table is not None else (schema or DOCUMENT_SCHEMA)

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Wrap an Arrow table; columns that DOCUMENT_SCHEMA has and the table lacks get their defaults.

        A null takes the default as well.

        Raises:
          DataError: no ``doc_id`` or ``text`` column, a row without them, an id that is refused or occurs
            twice, a column of another type.
        """
        columns = {}
        for name in ("doc_id", "text"):
            if name not in table.column_names:
                raise DataError(f"table: no column {name!r} (has: {', '.join(table.column_names)}).")
        with rules.conversion("table"):
            for field in PASSAGE_SCHEMA:
                if field.name in table.column_names:
                    columns[field.name] = table[field.name].cast(field.type)
        for name, default in _DEFAULTS.items():
            column = columns.get(name, pa.chunked_array([pa.nulls(len(table), TEXT)]))
            columns[name] = pc.fill_null(column, default)
        columns["group_id"] = pc.coalesce(columns.get("group_id", columns["doc_id"]), columns["doc_id"])
        schema = pa.schema([field for field in PASSAGE_SCHEMA if field.name in columns])
        table = rules.conform(pa.table(columns), schema, "table")
        rules.check_ids(table["doc_id"], "table")
        rules.check_distinct(table["doc_id"], "table")
        return cls(table=table)

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> Self:
        """Make a corpus in memory from mappings with doc_id, text and any other column of the schema."""
        rows = list(records)
        names = [n for n in PASSAGE_SCHEMA.names if n in {"doc_id", "text"} or any(n in row for row in rows)]
        with rules.conversion("records"):
            data = {n: pa.array([row.get(n) for row in rows], PASSAGE_SCHEMA.field(n).type) for n in names}
        return cls.from_table(pa.table(data))

    @classmethod
    def open(cls, folder: Path | str, *, hold: bool = False) -> Self:
        """Open the Parquet parts of an artefact folder, in name order. Reads no documents.

        Args:
          folder: the artefact.
          hold: keep the files open, so that they can be read on when a build has replaced the folder.

        Raises:
          DataError: no parts there, or they lack a column of DOCUMENT_SCHEMA.
          ArtefactError: the first part is damaged.
        """
        files = sorted(Path(folder).glob("part-*.parquet"))
        if not files:
            raise DataError(f"{folder}: no part-*.parquet there. Is it a corpus folder?")
        with rules.parquet(files[0]):
            schema = pq.read_schema(files[0]).remove_metadata()
        missing = [name for name in DOCUMENT_SCHEMA.names if name not in schema.names]
        if missing:
            raise DataError(
                f"{files[0]}: no column {missing[0]!r} (has: {', '.join(schema.names)}). Is it a corpus folder?"
            )
        corpus = cls(files=files, schema=schema)
        for file in files if hold else []:
            with rules.parquet(file):
                corpus._held[file] = pa.OSFile(str(file))
        return corpus

    def __len__(self) -> int:
        """Number of documents."""
        return int(self._group_stops[-1]) if len(self._group_stops) else 0

    @property
    def is_passages(self) -> bool:
        """Whether the rows are passages of longer documents."""
        return "parent_doc_id" in self.schema.names

    @cached_property
    def _groups(self) -> list[tuple[Path, int]]:
        return [(file, group) for file, sizes in self._group_sizes for group in range(len(sizes))]

    @cached_property
    def _group_sizes(self) -> list[tuple[Path, list[int]]]:
        found = []
        for file in self._files:
            with rules.parquet(file):
                meta = pq.read_metadata(self._held.get(file, file))
            found.append((file, [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]))
        return found

    @cached_property
    def _group_stops(self) -> np.ndarray:
        if self._table is not None:
            return np.array([len(self._table)])
        return np.cumsum(np.array([n for _, sizes in self._group_sizes for n in sizes], dtype=np.int64))

    def _read_group(self, file: Path, group: int, columns: Sequence[str] | None) -> pa.Table:
        names = list(columns) if columns is not None else self.schema.names
        source = self._held.get(file, file)
        with rules.parquet(file), pq.ParquetFile(source, page_checksum_verification=True) as parquet:
            return parquet.read_row_group(group, columns=names).select(names)

    def batches(
        self, columns: Sequence[str] | None = None, *, batch_docs: int = ROW_GROUP_DOCS
    ) -> Iterator[pa.RecordBatch]:
        """Yield the documents in order, at most ``batch_docs`` a batch; memory is one row group."""
        if self._table is not None:
            table = self._table if columns is None else self._table.select(list(columns))
            yield from table.combine_chunks().to_batches(max_chunksize=batch_docs)
            return
        for file, group in self._groups:
            yield from self._read_group(file, group, columns).combine_chunks().to_batches(max_chunksize=batch_docs)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Load the given columns (all by default) of all documents."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(c) for c in columns])
        return pa.Table.from_batches(list(self.batches(columns)), schema=schema).combine_chunks()

    @cached_property
    def doc_ids(self) -> pa.LargeStringArray:
        """All ids in document order, one Arrow array."""
        return self.table(["doc_id"])["doc_id"].combine_chunks()

    @cached_property
    def id_ranks(self) -> np.ndarray:
        """int64[D]: rank of each document's id in UTF-8 byte order; the order in which ties are broken."""
        ranks = np.empty(len(self), dtype=np.int64)
        ranks[pc.sort_indices(self.doc_ids.cast(pa.large_binary())).to_numpy()] = np.arange(len(self))
        return ranks

    def rows_of(self, doc_ids: Sequence[str] | pa.Array) -> np.ndarray:
        """Return int64 rows of the given ids, -1 where an id is unknown. O(D + ids)."""
        wanted = doc_ids if isinstance(doc_ids, pa.Array) else pa.array(list(doc_ids), TEXT)
        found = pc.index_in(wanted.cast(TEXT), value_set=self.doc_ids)
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the given rows in the given order; reads only the row groups that hold them.

        Raises:
          DataError: a row is below 0 (`rows_of` says -1 for an unknown id) or past the last document.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise DataError(f"row {outside[0]} of {len(self)} documents: rows count from 0. Look for an unknown id.")
        names = list(columns) if columns is not None else self.schema.names
        if self._table is not None:
            return self._table.select(names).take(pa.array(wanted))
        groups = np.searchsorted(self._group_stops, wanted, side="right")
        parts, positions = [], []
        for group in np.unique(groups):
            file, index = self._groups[group]
            start = int(self._group_stops[group - 1]) if group else 0
            table = self._read_group(file, index, names)
            inside = np.flatnonzero(groups == group)
            parts.append(table.take(pa.array(wanted[inside] - start)))
            positions.append(inside)
        if not parts:
            return pa.Table.from_batches([], schema=pa.schema([self.schema.field(n) for n in names]))
        order = np.argsort(np.concatenate(positions), kind="stable")
        return pa.concat_tables(parts).take(pa.array(order)).combine_chunks()

    def select(self, rows: np.ndarray | Sequence[int]) -> "Corpus":
        """Return the given rows as a corpus in memory."""
        return Corpus(table=self.take(rows))

    def document(self, doc_id: str) -> dict[str, Any]:
        """Return one document as a dict.

        Raises:
          DataError: no such id.
        """
        with rules.conversion("doc_id"):
            row = int(self.rows_of([doc_id])[0])
        if row < 0:
            raise DataError(f"no document {doc_id!r} among {len(self)}. Ids are case-sensitive.")
        document: dict[str, Any] = self.take([row]).to_pylist()[0]
        return document

    def write(self, staging: Staging) -> None:
        """Write the corpus into a staging folder as part-*.parquet."""
        with CorpusWriter(staging, self.schema) as writer:
            for batch in self.batches():
                writer.append(batch)


class CorpusWriter:
    """Streams record batches of one schema into ``part-00000.parquet`` ... of a staging folder.

    The bytes depend on the rows alone, not on how they were cut into batches.
    """

    def __init__(self, staging: Staging, schema: pa.Schema, prefix: str = "part") -> None:
        """Write parts named ``prefix-NNNNN.parquet`` into ``staging``."""
        self._staging, self._schema, self._prefix = staging, schema, prefix
        self._pending: list[pa.RecordBatch] = []
        self._num_pending = self._num_parts = self._part_docs = self._part_bytes = 0
        self._part = ExitStack()
        self._writer: pq.ParquetWriter | None = None
        self.num_rows = 0

    def __enter__(self) -> Self:
        """Start; nothing is created before the first row group."""
        return self

    def append(self, batch: pa.RecordBatch) -> None:
        """Add rows; whole row groups are written at once."""
        self._pending.append(batch.select(self._schema.names).cast(self._schema))
        self._num_pending += len(batch)
        while self._num_pending >= ROW_GROUP_DOCS:
            self._write_group(ROW_GROUP_DOCS)

    def _write_group(self, num_rows: int) -> None:
        table = pa.Table.from_batches(self._pending, schema=self._schema)
        group, rest = table.slice(0, num_rows), table.slice(num_rows)
        self._pending = rest.to_batches()  # slices, no copy
        self._num_pending -= num_rows
        if self._writer is None:
            sink = self._part.enter_context(self._staging.create(f"{self._prefix}-{self._num_parts:05d}.parquet"))
            writer = pq.ParquetWriter(sink, self._schema, compression="zstd", write_page_checksum=True)
            self._writer = self._part.enter_context(writer)
        self._writer.write_table(group.combine_chunks(), row_group_size=max(1, num_rows))
        self.num_rows += num_rows
        self._part_docs += num_rows
        self._part_bytes += _text_bytes(group)
        if self._part_docs >= SHARD_DOCS or self._part_bytes >= SHARD_BYTES:
            self._finish_part()

    def _finish_part(self) -> None:
        self._writer = None
        self._part.close()
        self._num_parts += 1
        self._part_docs = self._part_bytes = 0

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:  # noqa: ANN401 - context protocol
        """Write what is left; an empty corpus still gets one part, so that it opens."""
        if kind is not None:
            self._part.__exit__(kind, error, trace)
            return
        with self._part:
            if self._num_pending or (self._num_parts == 0 and self._writer is None):
                self._write_group(self._num_pending)


@dataclass(frozen=True)
class Sifted:
    """What a sieve kept and what it dropped; dropped rows carry a ``reason`` column."""

    kept: Corpus
    dropped: pa.Table


def _text_bytes(table: pa.Table) -> int:
    """Bytes of the strings: unlike ``nbytes`` the same however the rows were cut into chunks."""
    return sum(pc.sum(pc.binary_length(column)).as_py() or 0 for column in table.columns if column.type == TEXT)
