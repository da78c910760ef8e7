"""Candidates for near copies: what is noted of each document, common shingles, band buckets, pairs.

Source: Broder 1997 (MinHash); Leskovec, Rajaraman, Ullman (banding); signatures over shingles that are not
common: tamis, method card I5.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import durable
from tamis.data.corpus import Documents as AnyDocuments
from tamis.engines.engine import Engine, batches_of, tasks
from tamis.ops import shingles
from tamis.ops.bytes import text_hashes
from tamis.ops.hashing import array_keys, draws
from tamis.ops.text import joined

SAMPLE_DOCS = 30_000
SAMPLE_BYTES = 32 << 20
MIN_SHINGLES = 10
"""A document with fewer shingles that are not common takes no part."""
MAX_BUCKET_REPRESENTATIVES = 64
MAX_MEMBER_REPRESENTATIVES = 32
MEMORY_DOCS = 200_000
_PENDING_PAIRS = 1 << 22
TEXT = pa.large_string()


@dataclass(frozen=True)
class Documents:
    """The documents of a corpus, and after them those of another one that is only compared with.

    Attributes:
      corpora: one or two.
      text_only: compare the text alone; else title and text joined.
    """

    corpora: Sequence[AnyDocuments]
    text_only: bool

    def __len__(self) -> int:
        """Documents of all corpora."""
        return sum(len(corpus) for corpus in self.corpora)

    def tasks(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield all documents in order, as tasks for an engine."""
        for corpus in self.corpora:
            yield from tasks(corpus, columns)

    @property
    def columns(self) -> list[str]:
        """What `compared` needs."""
        return ["text"] if self.text_only else ["title", "text"]

    def compared(self, batch: pa.RecordBatch | pa.Table) -> pa.Array:
        """Return what is compared of each document."""
        return compared(batch, self.columns)

    def take(self, rows: np.ndarray) -> pa.Array:
        """Return what is compared of the given rows, which ascend."""
        parts, start = [], 0
        for corpus in self.corpora:
            inside = rows[(rows >= start) & (rows < start + len(corpus))] - start
            if len(inside):
                parts.append(self.compared(corpus.take(inside, self.columns)).cast(TEXT))
            start += len(corpus)
        return pa.concat_arrays(parts) if parts else pa.array([], TEXT)


def compared(batch: pa.RecordBatch | pa.Table, columns: Sequence[str]) -> pa.Array:
    """Return what is compared of each document, for a worker that has `Documents.columns` alone."""
    return joined(batch.select(list(columns))).cast(TEXT)


@dataclass(frozen=True)
class Outline:
    """What is held of n documents; 40 bytes each, ids and sources besides.

    Attributes:
      ids: doc_id.
      sources: source.
      keys: uint64 [n], XXH3-64 of what is compared.
      titles: uint64 [n], hash of the title's words, 0 where it has none.
      num_chars: int64 [n] of what is compared.
      num_bytes: int64 [n].
    """

    ids: pa.Array
    sources: pa.Array
    keys: np.ndarray
    titles: np.ndarray
    num_chars: np.ndarray
    num_bytes: np.ndarray


def outline(documents: Documents, *, engine: Engine = map) -> Outline:
    """Read every document once and note what orders and groups it."""
    whole = documents.tasks(["doc_id", "title", "text", "source"])
    return _concatenated(list(engine(partial(_noted, documents.columns), whole)))


def _noted(columns: Sequence[str], task: Any) -> Outline:  # noqa: ANN401 - a batch or a piece
    notes = []
    for batch in batches_of(task, ["doc_id", "title", "text", "source"]):
        texts = compared(batch, columns)
        notes.append(
            Outline(
                batch["doc_id"].cast(TEXT),
                batch["source"].cast(TEXT),
                array_keys(texts),
                text_hashes(batch["title"])[0],
                pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64),
                pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64),
            )
        )
    return _concatenated(notes)


def _concatenated(notes: Sequence[Outline]) -> Outline:
    none = pa.array([], TEXT)
    return Outline(
        pa.concat_arrays([none, *(note.ids for note in notes)]),
        pa.concat_arrays([none, *(note.sources for note in notes)]),
        np.concatenate([np.zeros(0, np.uint64), *(note.keys for note in notes)]),
        np.concatenate([np.zeros(0, np.uint64), *(note.titles for note in notes)]),
        np.concatenate([np.zeros(0, np.int64), *(note.num_chars for note in notes)]),
        np.concatenate([np.zeros(0, np.int64), *(note.num_bytes for note in notes)]),
    )


def common_shingles(
    documents: Documents, noted: Outline, width: int, frac: float, seed: int, engine: Engine = map
) -> np.ndarray:
    """Return the shingles of at least max(20, frac x sample) documents of a sample of distinct contents.

    The sample has the smallest draws of the content keys: at most 30,000 documents and 32 MiB of text. Copies
    of one text count once, else a text that occurs often would make itself common.
    """
    keys, first = np.unique(noted.keys, return_index=True)
    drawn = np.argsort(draws(keys, seed, "minhash"), kind="stable")[:SAMPLE_DOCS]
    rows = first[drawn]
    rows = rows[: max(1, int(np.searchsorted(np.cumsum(noted.num_bytes[rows]), SAMPLE_BYTES, side="right")))]
    in_sample = np.zeros(len(documents), np.bool_)
    in_sample[rows] = True

    def chosen() -> Iterator[tuple[Any, np.ndarray]]:
        start = 0
        for task in documents.tasks(documents.columns):
            mask = in_sample[start : start + len(task)]
            start += len(task)
            if mask.any():
                yield task, mask

    counts = shingles.ShingleCounts(width)
    for tokens, starts in engine(partial(_sampled_words, documents.columns), chosen()):
        counts.add(np.require(tokens, requirements="W"), starts)  # from another process arrays come read-only
    return counts.frequent(max(20, int(np.ceil(len(rows) * frac))))


def _sampled_words(columns: Sequence[str], task: tuple[Any, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the word hashes of the rows of a task that are in the sample, and where each document's start."""
    whole, mask = task
    texts, start = [], 0
    for batch in batches_of(whole, columns):
        texts.append(compared(batch, columns).filter(pa.array(mask[start : start + len(batch)])))
        start += len(batch)
    return shingles.word_hashes(pa.concat_arrays(texts))


class BandStore:
    """Band hashes uint32 of n documents: in memory, or in one scratch file where a folder is given."""

    def __init__(self, bands: int, scratch: Path | None) -> None:
        """Hold ``bands`` hashes a document; the file is ``scratch``/bands.u32, which must not exist."""
        self._bands, self._path = bands, scratch / "bands.u32" if scratch is not None else None
        self._blocks: list[np.ndarray] = []
        self._sizes: list[int] = []

    def fill(self, blocks: Iterator[np.ndarray]) -> None:
        """Take in blocks uint32 [documents, bands], in the order of the documents."""
        if self._path is None:
            for block in blocks:
                self._sizes.append(len(block))
                self._blocks.append(np.ascontiguousarray(block.T))
            return
        with durable.create(self._path) as file:
            for block in blocks:
                self._sizes.append(len(block))
                file.write(np.ascontiguousarray(block.T))

    def band(self, number: int) -> np.ndarray:
        """Return one band's hashes uint32 [n]. Reads n x 4 bytes."""
        if self._path is None:
            return np.concatenate([np.zeros(0, np.uint32), *(block[number] for block in self._blocks)])
        out, at, start = np.empty(sum(self._sizes), np.uint32), 0, 0
        with self._path.open("rb") as file:
            for size in self._sizes:
                file.seek(4 * (start * self._bands + number * size))
                out[at : at + size] = np.frombuffer(file.read(4 * size), np.uint32)
                at += size
                start += size
        return out

    def close(self) -> None:
        """Remove the scratch file."""
        self._blocks = []
        if self._path is not None:
            durable.remove(self._path)


@dataclass(frozen=True)
class Candidates:
    """Pairs of ranks in the global order that share a bucket, the representative ahead of the member.

    Attributes:
      members: int64 [P], ascending.
      representatives: int64 [P].
      largest_bucket: documents in the fullest bucket.
      num_cut: pairs left out because a member had more than 32 representatives.
    """

    members: np.ndarray
    representatives: np.ndarray
    largest_bucket: int
    num_cut: int


def candidates(store: BandStore, bands: int, ranks: np.ndarray, num_fixed: int) -> Candidates:
    """Return the pairs that share at least one bucket. O(bands n log n); memory 12 bytes a document and 12 a pair.

    Args:
      store: band hashes of all documents.
      bands: how many.
      ranks: int64 [n] place of each document in the global order, -1 for those that take no part.
      num_fixed: ranks below it are representatives alone, and then the only ones.

    Returns:
      At most 64 representatives a bucket, the first in the global order, and 32 a member, those with the most
      shared bands.
    """
    rows = np.flatnonzero(ranks >= 0)
    low = ranks[rows].astype(np.uint64)
    codes, shared = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    pending: list[np.ndarray] = []
    largest = num_pending = 0
    for band in range(bands):
        found, size = shingles.bucket_pairs(
            store.band(band)[rows], low, num_fixed=num_fixed, max_representatives=MAX_BUCKET_REPRESENTATIVES
        )
        largest = max(largest, size)
        pending.append(found)
        num_pending += len(found)
        if num_pending > _PENDING_PAIRS or band == bands - 1:
            codes, shared = _counted(codes, shared, np.concatenate(pending))
            pending, num_pending = [], 0
    members = (codes >> np.uint64(32)).astype(np.int64)
    representatives = (codes & np.uint64(0xFFFFFFFF)).astype(np.int64)
    order = np.lexsort((representatives, -shared, members))
    members, representatives = members[order], representatives[order]
    first = np.searchsorted(members, members, side="left")
    near = np.arange(len(members)) - first < MAX_MEMBER_REPRESENTATIVES
    return Candidates(members[near], representatives[near], largest, int((~near).sum()))


def _counted(codes: np.ndarray, counts: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add codes to a table of sorted distinct codes and their counts."""
    more, times = np.unique(more, return_counts=True)
    if not len(codes):
        return more, times
    both, inverse = np.unique(np.concatenate([codes, more]), return_inverse=True)
    total = np.zeros(len(both), np.int64)
    np.add.at(total, inverse, np.concatenate([counts, times]))
    return both, total
