"""Runs of words that documents share: sampled windows, grouped by hash, compared on the texts.

Source: Lee et al. 2021, arXiv:2107.06499 (what is looked for); winnowing in place of a suffix array: tamis, method
card I7.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import Documents
from tamis.engines.threads import map_threads
from tamis.ingestion.spans import TEXT
from tamis.ops import winnow
from tamis.ops.hashing import array_keys

BATCH_BYTES = 16 << 20
PART_SAMPLES = 1 << 26
_BYTES_A_WORD = 4


class Outline(NamedTuple):
    """What is held of n documents."""

    ids: pa.Array
    keys: np.ndarray  # uint64 [n]: XXH3-64 of the text
    num_chars: np.ndarray  # int64 [n]
    num_bytes: np.ndarray  # int64 [n]


class Windows(NamedTuple):
    """Windows of words that a document shares with the first one of the global order that has them."""

    members: np.ndarray  # uint32 [W] rows
    positions: np.ndarray  # uint32: first word in the member
    others: np.ndarray  # uint32: rows of the first documents
    other_positions: np.ndarray  # uint32: first word there
    num_samples: int  # windows sampled from all documents


class Found(NamedTuple):
    """Runs of equal words, each of a member and a document ahead of it in the global order."""

    runs: np.ndarray  # int64 [R, 5]: member's row, first word, end, other's row, first word there
    num_unequal: int  # windows with equal hashes and other words


def outline(documents: Documents, *, workers: int) -> Outline:
    """Read every document once and note what orders it."""

    def note(batch: pa.RecordBatch) -> Outline:
        sizes = (count(batch["text"]) for count in (pc.utf8_length, pc.binary_length))
        chars, size = (np.asarray(pc.fill_null(s, 0).to_numpy(zero_copy_only=False), np.int64) for s in sizes)
        return Outline(batch["doc_id"].cast(TEXT), array_keys(batch["text"]), chars, size)

    notes = list(map_threads(note, documents.batches(["doc_id", "text"]), workers=workers))
    empty = Outline(pa.array([], TEXT), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    ids, *numbers = zip(empty, *notes, strict=True)
    return Outline(pa.concat_arrays(ids), *(np.concatenate(column) for column in numbers))


def global_order(noted: Outline) -> np.ndarray:
    """Return the rows, those that are kept rather first: the longest, then by content, then by doc_id.

    The order in which `MinHash` keeps the longest.
    """
    by_key = np.argsort(noted.keys, kind="stable")
    same = np.flatnonzero(noted.keys[by_key][1:] == noted.keys[by_key][:-1])
    tied = by_key[np.union1d(same, same + 1)]  # ids only decide between equal contents
    ids = np.zeros(len(by_key), np.int64)
    by_id = pc.sort_indices(noted.ids.take(pa.array(tied)).cast(pa.large_binary())).to_numpy()
    ids[tied[by_id]] = np.arange(len(tied))
    return np.lexsort([ids, noted.keys, -noted.num_chars])


def num_parts(noted: Outline, width: int) -> int:
    """Return how many times the texts are read so that about 2^26 samples are held at once."""
    expected = int(noted.num_bytes.sum()) // _BYTES_A_WORD * 2 // (width + 1)
    return 1 + expected // PART_SAMPLES


def shared_windows(documents: Documents, ranks: np.ndarray, width: int, *, parts: int, workers: int) -> Windows:
    """Sample windows of all documents and chain those of equal hash to the first document that has one.

    Reads the texts once a part; 16 bytes a sample of the part and 16 a shared one. A window shared by k documents
    gives k - 1 entries, however many there are.

    Args:
      documents: n documents.
      ranks: int64 [n], place of each in the global order.
      width: words in a window.
      parts: ranges of hashes, one after another.
      workers: threads.
    """
    found, total = [], 0
    for part in range(parts):

        def sample(texts: pa.Array, part: int = part) -> tuple[winnow.Samples, int]:
            return winnow.samples(texts, width, part=part, num_parts=parts), len(texts)

        taken, start = [], 0
        texts = (batch["text"] for batch in documents.batches(["text"]))
        for samples, num_docs in map_threads(sample, texts, workers=workers):
            taken.append(samples._replace(rows=samples.rows + np.uint32(start)))
            start += num_docs
            total += len(samples.hashes)
        found.append(_chained(_together(taken), ranks))
    members, positions, others, other_positions = (np.concatenate(column) for column in zip(*found, strict=True))
    return Windows(members, positions, others, other_positions, total)


def _together(taken: list[winnow.Samples]) -> winnow.Samples:
    kinds = (np.uint64, np.uint32, np.uint32)
    columns = [np.concatenate([np.zeros(0, kind), *(t[i] for t in taken)]) for i, kind in enumerate(kinds)]
    taken.clear()
    return winnow.Samples(*columns)


def _chained(samples: winnow.Samples, ranks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return row and position of every sample with an equal one in an earlier document, and those of the first."""
    near = winnow.crowded(samples.hashes)
    hashes, rows, positions = (column[near] for column in samples)
    order = np.lexsort((positions, ranks[rows], hashes))
    hashes, rows, positions = hashes[order], rows[order], positions[order]
    new = np.r_[True, hashes[1:] != hashes[:-1]][: len(hashes)]
    first = np.flatnonzero(new)[np.cumsum(new) - 1]
    shared = np.flatnonzero(rows != rows[first])
    return rows[shared], positions[shared], rows[first[shared]], positions[first[shared]]


def shared_runs(documents: Documents, noted: Outline, windows: Windows, width: int, *, workers: int) -> Found:
    """Compare the documents of each window word by word and return the whole runs around the windows.

    Texts are read again in batches of at most 16 MiB, or one pair; 24 bytes a word of a batch are held with them.
    """
    order = np.lexsort((windows.positions, windows.members, windows.others))
    members, positions, others, other_positions = (column[order].astype(np.int64) for column in windows[:4])

    def compare(batch: tuple[pa.Array, np.ndarray, slice]) -> tuple[np.ndarray, int]:
        texts, rows, part = batch
        places = np.searchsorted(rows, members[part]), np.searchsorted(rows, others[part])
        found = winnow.runs(texts, places[0], positions[part], places[1], other_positions[part], width=width)
        entry = found.entries
        columns = (members[part][entry], found.starts, found.stops, others[part][entry], found.other_starts)
        return np.stack(columns, axis=1), found.num_unequal

    def batches() -> Iterator[tuple[pa.Array, np.ndarray, slice]]:
        for part in _batches(members, others, noted.num_bytes):
            rows = np.unique(np.concatenate([members[part], others[part]]))
            yield documents.take(rows, ["text"])["text"].combine_chunks(), rows, part

    results = list(map_threads(compare, batches(), workers=workers))
    runs = np.concatenate([np.zeros((0, 5), np.int64), *(runs for runs, _ in results)])
    return Found(runs, sum(unequal for _, unequal in results))


def _batches(members: np.ndarray, others: np.ndarray, num_bytes: np.ndarray) -> list[slice]:
    """Cut entries, which stand by pair, into batches of whole pairs and bounded size."""
    new_other = np.r_[True, others[1:] != others[:-1]][: len(others)]
    new_pair = new_other | np.r_[True, members[1:] != members[:-1]][: len(members)]
    size = np.where(new_pair, num_bytes[members], 0) + np.where(new_other, num_bytes[others], 0)
    number = np.cumsum(size) // BATCH_BYTES
    cuts = np.flatnonzero(np.diff(number) > 0) + 1  # sizes stand at the first entry of a pair: so do the cuts
    edges = [0, *cuts.tolist(), len(members)]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]
