"""Word shingles of many texts: which are common, band hashes over the others, exact sets.

Source: Broder 1997 (MinHash), Leskovec, Rajaraman, Ullman (banding); leaving out common shingles: tamis,
method cards K5 and I5.
"""

import numpy as np
import pyarrow as pa

from tamis.ops.bytes import Texts, character_tables, minhash_parameters, text_buffers

NUM_HASHES = 256


class CommonShingles:
    """Shingles that too many documents share to tell documents apart; membership in a few nanoseconds."""

    def __init__(self, values: np.ndarray) -> None:
        """Prepare ``values``: uint64 shingle hashes, in any order."""
        from tamis.ops import shingle_kernels

        self.values = np.unique(np.ascontiguousarray(values, np.uint64))
        self.table = np.zeros(1 << (4 * len(self.values) + 16).bit_length(), np.uint64)
        self.marks = np.zeros(1 << 12, np.uint64)  # 2^18 bits
        shingle_kernels.fill_table(self.values[self.values != 0], self.table, self.marks)  # 0: a free place


def word_hashes(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return `tamis.ops.bytes.token_hashes` of the words: uint64 [T] and starts int64 [n + 1]. 380 MB/s a core."""
    from tamis.ops import shingle_words

    hashes, starts = shingle_words.word_hashes(*text_buffers(texts), *character_tables())
    return hashes, starts


class ShingleCounts:
    """Counts in how many texts each shingle occurs, exactly, for those that occur often. 8 bytes a word held."""

    def __init__(self, width: int) -> None:
        """Count shingles of ``width`` words; a shorter text is one shingle."""
        self._width = width
        self._counts = np.zeros(1 << 19, np.uint16)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, tokens: np.ndarray, starts: np.ndarray) -> None:
        """Take in what `word_hashes` gave for some texts; ``tokens`` is overwritten."""
        from tamis.ops import shingle_kernels

        stops = shingle_kernels.count_shingles(tokens, starts, self._width, self._counts)
        self._parts.append((tokens, starts, stops))

    def frequent(self, minimum: int) -> np.ndarray:
        """Return the shingles of at least ``minimum`` texts, uint64, sorted.

        The counts by the top 19 bits leave out nearly all rare shingles before the exact count.
        """
        from tamis.ops import shingle_kernels

        likely = [shingle_kernels.select_counted(*part, self._counts, minimum) for part in self._parts]
        found, times = np.unique(np.concatenate([np.zeros(0, np.uint64), *likely]), return_counts=True)
        frequent: np.ndarray = found[times >= minimum]
        return frequent


def band_hashes(
    texts: Texts, *, bands: int, width: int, seed: int, common: CommonShingles, minimum: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one hash a band of each text's MinHash signature over the shingles that are not common.

    Two texts whose sets have Jaccard similarity J agree in a given band with probability J^rows,
    rows = 256 // bands.

    Args:
      texts: n strings.
      bands: how many, 1 to 256.
      width: words in a shingle.
      seed: of the hash functions.
      common: shingles to leave out.
      minimum: a text with fewer positions left gets no signature.

    Returns:
      hashes uint32 [n, bands], positions left int32 [n], words int32 [n]. 180 MB/s a core.
    """
    from tamis.ops import shingle_kernels

    a, b = minhash_parameters(NUM_HASHES, seed)
    hashes, used, counts = shingle_kernels.band_hashes(
        *text_buffers(texts), *character_tables(), a, b, width, common.table, common.marks, bands, minimum
    )
    return hashes, used, counts


def shingle_sets(
    tokens: np.ndarray, starts: np.ndarray, wanted: np.ndarray, width: int, common: CommonShingles | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct shingles of token sequences, without the common ones, and where each set starts.

    Args:
      tokens: uint64 [T] token hashes of all sequences.
      starts: int64 [n + 1].
      wanted: bool [n]; the others get an empty set.
      width: words in a shingle.
      common: shingles to leave out.

    Returns:
      values uint64 [S], starts int64 [n + 1].
    """
    from tamis.ops import shingle_kernels

    table = np.zeros(0, np.uint64) if common is None else common.table
    marks = np.zeros(0, np.uint64) if common is None else common.marks
    sets, stops = shingle_kernels.shingle_sets(tokens, starts, wanted, width, table, marks)
    return sets, stops


def character_sets(texts: Texts, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct hashes of runs of ``width`` lower-cased characters, and starts int64 [n + 1]."""
    from tamis.ops import shingle_kernels

    sets, stops = shingle_kernels.character_sets(*text_buffers(texts), character_tables()[1], width)
    return sets, stops


def bucket_pairs(
    hashes: np.ndarray, ranks: np.ndarray, *, num_fixed: int, max_representatives: int
) -> tuple[np.ndarray, int]:
    """Return (member, representative) codes of one band's buckets, uint64, and the size of the largest bucket.

    Args:
      hashes: uint32 [n], one band's hash of each document; equal ones form a bucket.
      ranks: uint64 [n], place of each document in the global order, below 2^32.
      num_fixed: ranks below it are representatives alone, and then the only ones; 0: everyone may be either.
      max_representatives: the first so many of a bucket, in the global order.

    Returns:
      codes with the member's rank in the high half, the representative's in the low half.
    """
    from tamis.ops import shingle_kernels

    cells = np.zeros(1 << (8 * len(hashes) + 1).bit_length(), np.uint8)
    entries = shingle_kernels.crowded(hashes, ranks, cells)
    entries.sort()
    pairs = np.empty(len(entries), np.uint64)
    total, largest = shingle_kernels.bucket_pairs(entries, num_fixed, max_representatives, pairs)
    if total > len(pairs):
        pairs = np.empty(total, np.uint64)
        shingle_kernels.bucket_pairs(entries, num_fixed, max_representatives, pairs)
    return pairs[:total], int(largest)


def num_chars(texts: pa.Array) -> np.ndarray:
    """int64 [n]: characters of each text."""
    import pyarrow.compute as pc

    return np.asarray(pc.utf8_length(texts).to_numpy(zero_copy_only=False), dtype=np.int64)


def keep_walk(members: np.ndarray, representatives: np.ndarray, is_protected: np.ndarray) -> np.ndarray:
    """Return for each document the edge by which it is removed, or -1: no chain of edges counts, only kept ends. O(E).

    Documents are walked by rank; one is removed when one of its edges leads to a document that is still kept.

    Args:
      members: int64 [E] ranks, ascending; of a member's edges the first that serves is taken.
      representatives: int64 [E] ranks, each below its member.
      is_protected: bool [n] by rank: never removed.

    Returns:
      int64 [n].
    """
    from tamis.ops import shingle_kernels

    chosen = np.full(len(is_protected), -1, np.int64)
    shingle_kernels.keep_walk(members, representatives, is_protected, chosen)
    return chosen
