"""Corpus: documents over Arrow, in memory or as sharded Parquet; it streams and never needs to fit in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.data.artefact import Staging
from tamis.errors import DataError

TEXT = pa.large_string()
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


class Corpus:
    """Documents in a fixed order. Columns as in DOCUMENT_SCHEMA; passages have PASSAGE_SCHEMA.

    Make one with `from_table`, `from_records` or `open`. All verbs read it in batches.
    """

    def __init__(self, *, table: pa.Table | None = None, files: Sequence[Path] = (), schema: pa.Schema | None = None) -> None:
        """Wrap a table, or Parquet files of one schema; use the class methods instead."""
        self._table = table
        self._files = list(files)
        self.schema: pa.Schema = table.schema if table is not None else (schema or DOCUMENT_SCHEMA)

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Wrap an Arrow table; columns that DOCUMENT_SCHEMA has and the table lacks get their defaults.

        Raises:
          DataError: no ``doc_id`` or ``text`` column.
        """
        for name in ("doc_id", "text"):
            if name not in table.column_names:
                raise DataError(f"table: no column {name!r} (has: {', '.join(table.column_names)}).")
        defaults = {"title": "", "source": "", "metadata": "{}"}
        columns = {}
        for field in DOCUMENT_SCHEMA:
            if field.name in table.column_names:
                columns[field.name] = table[field.name].cast(field.type)
            elif field.name in defaults:
                columns[field.name] = pa.chunked_array([pa.array([defaults[field.name]] * len(table), TEXT)])
        columns.setdefault("group_id", columns["doc_id"])
        for field in PASSAGE_SCHEMA:
            if field.name in table.column_names and field.name not in columns:
                columns[field.name] = table[field.name].cast(field.type)
        return cls(table=pa.table({name: columns[name] for name in PASSAGE_SCHEMA.names if name in columns}))

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> Self:
        """Make a corpus in memory from mappings with doc_id, text and any other column of the schema."""
        rows = list(records)
        names = [n for n in PASSAGE_SCHEMA.names if n in {"doc_id", "text"} or any(n in row for row in rows)]
        defaults = {"title": "", "source": "", "metadata": "{}"}
        data = {n: pa.array([row.get(n, defaults.get(n)) for row in rows], PASSAGE_SCHEMA.field(n).type) for n in names}
        return cls.from_table(pa.table(data))

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open the Parquet parts of an artefact folder, in name order. Reads no documents."""
        files = sorted(Path(folder).glob("part-*.parquet"))
        if not files:
            raise DataError(f"{folder}: no part-*.parquet there. Is it a corpus folder?")
        return cls(files=files, schema=pq.read_schema(files[0]).remove_metadata())

    def __len__(self) -> int:
        """Number of documents."""
        return int(self._group_stops[-1]) if len(self._group_stops) else 0

    @property
    def is_passages(self) -> bool:
        """Whether the rows are passages of longer documents."""
        return "parent_doc_id" in self.schema.names

    @cached_property
    def _groups(self) -> list[tuple[Path, int]]:
        return [(f, g) for f in self._files for g in range(pq.read_metadata(f).num_row_groups)]

    @cached_property
    def _group_stops(self) -> np.ndarray:
        if self._table is not None:
            return np.array([len(self._table)])
        sizes = []
        for file in self._files:
            meta = pq.read_metadata(file)
            sizes += [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        return np.cumsum(np.array(sizes, dtype=np.int64))

    def batches(self, columns: Sequence[str] | None = None, *, batch_docs: int = ROW_GROUP_DOCS) -> Iterator[pa.RecordBatch]:
        """Yield the documents in order, at most ``batch_docs`` a batch; memory is one row group."""
        if self._table is not None:
            table = self._table if columns is None else self._table.select(list(columns))
            yield from table.combine_chunks().to_batches(max_chunksize=batch_docs)
            return
        for file in self._files:
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                for group in range(parquet.num_row_groups):
                    table = parquet.read_row_group(group, columns=None if columns is None else list(columns))
                    table = table.select(list(columns) if columns is not None else self.schema.names)
                    yield from table.combine_chunks().to_batches(max_chunksize=batch_docs)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Load the given columns (all by default) of all documents."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(c) for c in columns])
        return pa.Table.from_batches(list(self.batches(columns)), schema=schema).combine_chunks()

    @cached_property
    def doc_ids(self) -> pa.LargeStringArray:
        """All ids in document order, one Arrow array."""
        return _one_chunk(self.table(["doc_id"])["doc_id"])

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
        """Return the given rows in the given order; reads only the row groups that hold them."""
        wanted = np.asarray(rows, dtype=np.int64)
        names = list(columns) if columns is not None else self.schema.names
        if self._table is not None:
            return self._table.select(names).take(pa.array(wanted))
        groups = np.searchsorted(self._group_stops, wanted, side="right")
        parts, positions = [], []
        for group in np.unique(groups):
            file, index = self._groups[group]
            start = int(self._group_stops[group - 1]) if group else 0
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                table = parquet.read_row_group(index, columns=names).select(names)
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
        self._context: Any = None
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
        self._pending = rest.combine_chunks().to_batches()
        self._num_pending -= num_rows
        if self._writer is None:
            self._context = self._staging.create(f"{self._prefix}-{self._num_parts:05d}.parquet")
            sink = self._context.__enter__()
            self._writer = pq.ParquetWriter(sink, self._schema, compression="zstd", write_page_checksum=True)
        self._writer.write_table(group.combine_chunks(), row_group_size=num_rows)
        self.num_rows += num_rows
        self._part_docs += num_rows
        self._part_bytes += group.nbytes
        if self._part_docs >= SHARD_DOCS or self._part_bytes >= SHARD_BYTES:
            self._finish_part()

    def _finish_part(self, *error: Any) -> None:  # noqa: ANN401 - an exception triple
        if self._writer is None:
            return
        self._writer.close()
        self._context.__exit__(*(error or (None, None, None)))
        self._writer, self._context = None, None
        self._num_parts += 1
        self._part_docs = self._part_bytes = 0

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:  # noqa: ANN401 - context protocol
        """Write what is left; an empty corpus still gets one part, so that it opens."""
        if kind is not None:
            if self._context is not None:
                self._context.__exit__(kind, error, trace)
            return
        if self._num_pending or self._num_parts == 0 and self._writer is None:
            self._write_group(self._num_pending)
        self._finish_part()


@dataclass(frozen=True)
class Sifted:
    """What a sieve kept and what it dropped; dropped rows carry a ``reason`` column."""

    kept: Corpus
    dropped: pa.Table


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return combined.chunk(0) if combined.num_chunks else pa.array([], combined.type)
    return combined
