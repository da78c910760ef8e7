"""Export: documents of a pool or corpus to the formats that other tools read, and scores beside them.

Source: JSON lines as in BEIR; folder layout of Hugging Face datasets; attributes of dolma (Soldaini et al. 2024,
arXiv:2402.00159).
"""

import posixpath
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, get_args

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from tamis.data.artefact import Staging
from tamis.data.corpus import ROW_GROUP_DOCS, CorpusWriter, Documents
from tamis.data.durable import HashedFile
from tamis.errors import DataError, UsageError
from tamis.ingestion.pool import Pool
from tamis.ingestion.pool_pieces import records
from tamis.ingestion.pool_settle import KEPT, LOST
from tamis.ingestion.sources import PACKINGS

Format = Literal["jsonl", "jsonl.zst", "parquet", "hf"]
SHARD_BYTES = 256 << 20
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 6
_BLOCK_BYTES = 1 << 20
_SCORE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

{num} documents, chosen by tamis. Columns: {columns}. `metadata` is one JSON object a document.
"""


def export(documents: Documents, kept: np.ndarray, staging: Staging, *, format: Format) -> dict[str, int]:
    """Write the documents that are kept, in their order. The bytes do not depend on how batches are cut.

    - "jsonl", "jsonl.zst": documents.jsonl[.zst]; of a Pool the lines of JSON lines files as they stand, else
      records with _id, title, text and metadata.
    - "parquet": part-*.parquet, which `Corpus.open` reads.
    - "hf": data/train-NNNNN-of-NNNNN.parquet and README.md, which ``datasets.load_dataset`` reads.

    Args:
      documents: a Corpus or a Pool. Memory: a batch, for Parquet a row group.
      kept: bool [D], or int64 [K] ascending rows.
      staging: where to write; its count ``documents`` is set.
      format: see above.

    Returns:
      Counts: documents and files.

    Raises:
      DataError: a row that is not there, or rows that do not ascend.
      UsageError: no such format.
    """
    mask = _mask(kept, len(documents))
    if format in ("jsonl", "jsonl.zst"):
        with _line_file(staging, f"documents.{format}", "zst" if format.endswith("zst") else "") as lines:
            for record in _raw(documents, mask):
                lines.write(record + b"\n")
        num_files = 1
    elif format == "parquet":
        with CorpusWriter(staging, documents.schema) as writer:
            for batch in _chosen(documents, mask, documents.schema.names):
                writer.append(batch)
        num_files = len(list(staging.folder.glob("part-*.parquet")))
    elif format == "hf":
        num_files = _write_hub_folder(documents, mask, staging)
    else:
        raise UsageError(f"format {format!r}: none of {', '.join(get_args(Format))}. Choose one of these.")
    num = staging.counts["documents"] = int(mask.sum())
    return {"documents": num, "files": num_files}


def export_attributes(
    documents: Documents, scores: Mapping[str, np.ndarray], staging: Staging, *, name: str
) -> dict[str, int]:
    """Write scores as dolma attributes: attributes/NAME/FILE.jsonl.gz, a line for each document that was read.

    Each line holds ``id`` and spans ``[[0, n, score]]`` over the n characters of the text, under NAME__SCORE.
    A Pool's documents that were dropped get a line without spans, so that lines stay aligned with the files'
    documents (lines that were rejected as unreadable have none).

    Args:
      documents: a Corpus or a Pool; ``source`` names the file.
      scores: name -> float64 [D], finite.
      staging: where to write.
      name: of the attribute folder.

    Returns:
      Counts: documents and files.

    Raises:
      DataError: a score is missing or not finite, documents of a file are not together, or two files would
        get one name.
      UsageError: a name that could not be a folder's.
    """
    for each in (name, *scores):
        if not _SCORE_NAME.fullmatch(each):
            raise UsageError(f"name {each!r}: use letters, digits and _ . - only, not at the start.")
    for key, values in scores.items():
        if len(values) != len(documents) or not np.isfinite(values).all():
            raise DataError(
                f"score {key!r}: {len(values)} values, {int((~np.isfinite(values)).sum())} of them not finite, for "
                f"{len(documents)} documents. Give each document one finite score."
            )
    taken: dict[str, str] = {}  # path -> the file it is of
    num = 0
    for source, rows in groupby(_attributes(documents, scores, name), key=itemgetter(0)):
        with _line_file(staging, _attribute_path(source, name, taken), "gz") as lines:
            for _, row in rows:
                lines.write(orjson.dumps(row) + b"\n")
                num += 1
    staging.counts["documents"] = num
    return {"documents": num, "files": len(taken)}


def _mask(kept: np.ndarray, num_docs: int) -> np.ndarray:
    """Bool [D] of a mask or of ascending rows."""
    chosen = np.asarray(kept)
    if chosen.dtype == bool:
        if len(chosen) != num_docs:
            raise DataError(f"a mask of {len(chosen)} values for {num_docs} documents. Give one value a document.")
        return chosen
    rows = chosen.astype(np.int64)
    if len(rows) and (rows[0] < 0 or rows[-1] >= num_docs or (np.diff(rows) <= 0).any()):
        raise DataError(f"rows to export must ascend from 0 to {num_docs - 1}, each once. Sort them, or give a mask.")
    mask = np.zeros(num_docs, dtype=bool)
    mask[rows] = True
    return mask


def _chosen(documents: Documents, mask: np.ndarray, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the kept documents batch by batch; a batch without any is not looked at further."""
    first = 0
    if isinstance(documents, Pool):  # costly columns are made for what is kept alone
        for rows in np.array_split(np.flatnonzero(mask), max(1, int(mask.sum()) // ROW_GROUP_DOCS)):
            yield from documents.take(rows, columns).to_batches()
        return
    for batch in documents.batches(columns):
        inside = mask[first : first + len(batch)]
        first += len(batch)
        if inside.any():
            yield batch.filter(pa.array(inside))


def _raw(documents: Documents, mask: np.ndarray) -> Iterator[bytes]:
    if isinstance(documents, Pool):
        yield from documents.raw(np.flatnonzero(mask))
        return
    for batch in _chosen(documents, mask, ("doc_id", "title", "text", "metadata")):
        yield from records(batch)


class _Lines:
    """Gathers lines into blocks of one size, so that packed bytes do not depend on how they came."""

    def __init__(self, file: HashedFile, packer: Any) -> None:  # noqa: ANN401 - zlib's or zstandard's
        self._file, self._packer = file, packer
        self._block = bytearray()

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._block += data
        while len(self._block) >= _BLOCK_BYTES:
            self._put(bytes(self._block[:_BLOCK_BYTES]))
            del self._block[:_BLOCK_BYTES]

    def finish(self) -> None:
        """Write what is left."""
        self._put(bytes(self._block))
        if self._packer is not None:
            self._file.write(self._packer.flush())

    def _put(self, block: bytes) -> None:
        self._file.write(block if self._packer is None else self._packer.compress(block))


@contextmanager
def _line_file(staging: Staging, name: str, packing: str) -> Iterator[_Lines]:
    """Open a file of lines, packed as "gz" (no name, no time inside), "zst" or ""."""
    packer: Any = None
    if packing == "gz":
        packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    elif packing == "zst":
        packer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    with staging.create(name) as file:
        lines = _Lines(file, packer)
        yield lines
        lines.finish()


def _write_hub_folder(documents: Documents, mask: np.ndarray, staging: Staging) -> int:
    """Write Parquet shards of about SHARD_BYTES of text, cut by bytes, and the card that names them."""
    sizes = [np.zeros(0, np.int64)]
    for batch in documents.batches(["title", "text"]):
        sizes.append(sum(pc.binary_length(column).to_numpy() for column in batch.columns))
    before = np.cumsum(np.concatenate(sizes)[mask])
    total = int(before[-1]) if len(before) else 0
    num_shards = max(1, -(-total // SHARD_BYTES))
    shard_of = np.minimum(before * num_shards // max(1, total + 1), num_shards - 1)
    counts = np.unique(shard_of, return_counts=True)[1].tolist() or [0]
    groups = [
        (shard, min(ROW_GROUP_DOCS, count - start))
        for shard, count in enumerate(counts)
        for start in range(0, max(1, count), ROW_GROUP_DOCS)
    ]
    names = documents.schema.names
    tables = _cut(_chosen(documents, mask, names), [num for _, num in groups], documents.schema)
    for shard, run in groupby(zip((shard for shard, _ in groups), tables, strict=True), key=itemgetter(0)):
        with (
            staging.create(f"data/train-{shard:05d}-of-{len(counts):05d}.parquet") as sink,
            pq.ParquetWriter(sink, documents.schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            for _, table in run:
                writer.write_table(table, row_group_size=max(1, len(table)))
    staging.write_bytes("README.md", _CARD.format(num=int(mask.sum()), columns=", ".join(names)).encode())
    return len(counts)


def _cut(batches: Iterator[pa.RecordBatch], sizes: Sequence[int], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield tables of exactly these numbers of rows."""
    pending = schema.empty_table()
    for size in sizes:
        parts = [pending]
        while sum(map(len, parts)) < size:
            parts.append(pa.Table.from_batches([next(batches)], schema=schema))
        whole = pa.concat_tables(parts)
        yield whole.slice(0, size).combine_chunks()
        pending = whole.slice(size)


def _attributes(
    documents: Documents, scores: Mapping[str, np.ndarray], name: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file, attribute row) of each document that was read."""
    row = 0
    for batch, kept in _seen(documents):
        columns = (batch["doc_id"], batch["source"], pc.utf8_length(batch["text"]))
        for at, (doc_id, source, num_chars) in enumerate(zip(*(c.to_pylist() for c in columns), strict=True)):
            spans = {}
            if kept[at]:
                spans = {f"{name}__{key}": [[0, num_chars, float(values[row])]] for key, values in scores.items()}
                row += 1
            yield source, {"id": doc_id, "attributes": spans}


def _seen(documents: Documents) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Yield (documents, which of them are kept); of a pool those that were dropped as well."""
    columns = ["doc_id", "source", "text"]
    if not isinstance(documents, Pool):
        for batch in documents.batches(columns):
            yield batch, np.ones(len(batch), dtype=bool)
        return
    for piece in documents.pieces():
        for batch, reasons in piece.seen(columns):
            believed = reasons != LOST
            yield batch.filter(pa.array(believed)), reasons[believed] == KEPT


def _attribute_path(source: str, name: str, taken: dict[str, str]) -> str:
    """Return attributes/NAME/FILE.gz for a source."""
    stem, suffix = posixpath.splitext(source)
    path = f"attributes/{name}/{stem if suffix in PACKINGS else source}.gz"
    if not source or posixpath.normpath(path) != path or ".." in path.split("/"):
        raise DataError(f"source {source!r}: no relative path of a file. Attributes are written file by file.")
    if path in taken:
        other = taken[path]
        why = "its documents are not together" if other == source else f"{other!r} would get the same name"
        raise DataError(f"source {source!r}: {why}. Export the attributes of each file by itself.")
    taken[path] = source
    return path
