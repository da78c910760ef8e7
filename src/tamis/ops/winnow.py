"""Long runs of words that texts share: sampled windows that find them, and their exact extent.

Source: Schleimer, Wilkerson, Aiken 2003, Winnowing: Local Algorithms for Document Fingerprinting (robust form).

Words are those of `tamis.ops.bytes`: case, marks and blanks do not tell runs apart.
"""

from typing import NamedTuple

import numpy as np

from tamis.ops import shingles
from tamis.ops.bytes import Texts, character_tables, text_buffers


class Samples(NamedTuple):
    """Windows that winnowing keeps; texts ascend, and positions within a text."""

    hashes: np.ndarray  # uint64 [S]
    rows: np.ndarray  # uint32: position of the text in the batch
    positions: np.ndarray  # uint32: first word of the window


class Runs(NamedTuple):
    """R runs of equal words in two texts."""

    entries: np.ndarray  # int64 [R]: the shared window the run was extended from
    starts: np.ndarray  # int64: first word in the member
    stops: np.ndarray  # int64, exclusive
    other_starts: np.ndarray  # int64: first word in the other text
    num_unequal: int  # windows with equal hashes and other words


def samples(texts: Texts, width: int, *, part: int = 0, num_parts: int = 1) -> Samples:
    """Return a sample of the windows of ``width`` words, about two in ``width`` + 1. 230 MB/s a core.

    Of each ``width`` windows in a row one with the least hash is kept. So of two texts that share a run of at least
    2 * width - 1 words, the windows kept in one text have hashes kept in the other, and the kept windows of the run
    overlap or touch: together they leave out fewer than ``width`` words at either end of the run.

    Args:
      texts: n strings; those with fewer words than ``width`` have no sample, those with 2 * width - 2 or fewer one.
      width: words in a window.
      part: return only hashes with hash % num_parts == part.
      num_parts: how many parts there are.
    """
    from tamis.ops import winnow_kernels

    return Samples(*winnow_kernels.samples(*shingles.word_hashes(texts), width, part, num_parts))


def crowded(hashes: np.ndarray) -> np.ndarray:
    """Return positions int64, ascending: of all hashes that occur twice or more, and few others. O(n), 16 n bytes."""
    from tamis.ops import winnow_kernels

    log_cells = max(10, (8 * len(hashes)).bit_length())
    found: np.ndarray = winnow_kernels.crowded(hashes, np.zeros(1 << log_cells, np.uint8), 64 - log_cells)
    return found


def runs(
    texts: Texts,
    members: np.ndarray,
    positions: np.ndarray,
    others: np.ndarray,
    other_positions: np.ndarray,
    *,
    width: int,
) -> Runs:
    """Extend shared windows to the whole runs of equal words around them, compared word by word. O(words).

    A run that lies in another one of its pair is left out. Where a run stands several times in the other text its
    ends may be cut by fewer than ``width`` words, as one place is compared.

    Args:
      texts: n strings.
      members: int64 [E], text of the window; equal (member, other) pairs stand together, positions ascending.
      positions: int64 [E], first word of the window.
      others: int64 [E], the text it is compared with.
      other_positions: int64 [E], first word there.
      width: words in a window.
    """
    from tamis.ops import winnow_kernels

    data, offsets = text_buffers(texts)
    classes, lowers = character_tables()
    hashes, starts = shingles.word_hashes(texts)
    begins, ends = winnow_kernels.word_bytes(data, offsets, classes, starts[-1])
    found = np.empty((len(members), 4), np.int64)
    entries = (np.ascontiguousarray(x, np.int64) for x in (members, positions, others, other_positions))
    words = (hashes, begins, ends)
    num, unequal = winnow_kernels.extend(data, words, starts, lowers, *entries, width, found)
    entry, start, stop, other_start = found[:num].T.copy()
    return Runs(entry, start, stop, other_start, int(unequal))


def located(texts: Texts, rows: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of runs of words: where the first word begins and the last one ends, int64 [R] each.

    Args:
      texts: n strings.
      rows: int64 [R], text of the run.
      starts: int64 [R], first word.
      stops: int64 [R], exclusive, above starts.
    """
    from tamis.ops import winnow_kernels

    data, offsets = text_buffers(texts)
    first = shingles.word_hashes(texts)[1]
    begins, ends = winnow_kernels.word_bytes(data, offsets, character_tables()[0], first[-1])
    return begins[first[rows] + starts] - offsets[rows], ends[first[rows] + stops - 1] - offsets[rows]


def settle(runs: np.ndarray, num_texts: int, *, width: int, are_cut: bool) -> np.ndarray:
    """Return the pieces of each text that a text ahead of it keeps as they are, at least ``width`` words each.

    Texts are walked in order. What a run's other text has lost itself is looked up in the text that keeps it, so a
    piece always names one text that keeps all of it; what no such text keeps in one piece of ``width`` words stays.

    Args:
      runs: int64 [R, 5] in any order: member, first word, end (exclusive), a text ahead of the member, first word
        there. Texts are numbered in the order in which they are rather kept.
      num_texts: how many.
      width: words of the shortest piece.
      are_cut: pieces are cut from their texts; else every text keeps everything.

    Returns:
      int64 [P, 5] with the columns of ``runs``; members ascend, and first words and ends within a member. Pieces may
      overlap by two. O(R log R).
    """
    from tamis.ops import winnow_kernels

    runs = np.ascontiguousarray(runs[np.lexsort(runs.T[::-1])], np.int64)
    pieces: np.ndarray = winnow_kernels.settle(runs, num_texts, width, are_cut)
    return pieces
