"""Exact comparisons of token sequences: word edit distance, multiset distance, set intersection.

Source: Myers 1999, A Fast Bit-Vector Algorithm for Approximate String Matching; Hyyrö 2003 (blocks);
Ukkonen 1985 (band); method card K6.
"""

import numpy as np

MAX_STEPS = 1 << 32
"""Words of 64 cells that one comparison may take, about 15 seconds; two texts of 100 MB reach it."""


def word_distance(a: np.ndarray, b: np.ndarray, max_distance: int) -> int:
    """Return how many tokens must be inserted, deleted or replaced to make b of a.

    Args:
      a: uint64 [n] token hashes.
      b: uint64 [m] token hashes.
      max_distance: no larger distance is of interest.

    Returns:
      The distance, or max_distance + 1 when it is larger. O(n (distance / 32 + 2)).
    """
    tokens = np.concatenate([a, b]).astype(np.uint64)
    starts = np.array([0, len(a), len(a) + len(b)], np.int64)
    pair = np.zeros(1, np.int64)
    return int(distances(tokens, starts, pair, pair + 1, np.array([max_distance], np.int64), max_steps=2**62)[0])


def distances(
    tokens: np.ndarray,
    starts: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    limits: np.ndarray,
    *,
    max_steps: int = MAX_STEPS,
) -> np.ndarray:
    """Return the word distance of many pairs, int64 [P]: limit + 1 where it is larger than the pair's limit.

    Args:
      tokens: uint64 [T] hashes of all sequences, as `tamis.ops.bytes.token_hashes` gives them.
      starts: int64 [n + 1]; sequence i is tokens[starts[i]:starts[i + 1]].
      left: int64 [P], sequences.
      right: int64 [P], sequences.
      limits: int64 [P], largest distance of interest, at least 0.
      max_steps: a pair that would take more words of 64 cells gets -1.

    Returns:
      int64 [P].
    """
    from tamis.ops import alignment_kernels

    found: np.ndarray = alignment_kernels.pair_distances(
        tokens, starts, *(np.ascontiguousarray(x, np.int64) for x in (left, right, limits)), max_steps
    )
    return found


def bag_distance(a: np.ndarray, b: np.ndarray) -> int:
    """Return max(|a - b|, |b - a|) of two sorted multisets, uint64: a bound of the word distance from below."""
    from tamis.ops import alignment_kernels

    return int(alignment_kernels.bag_distance(np.asarray(a, np.uint64), np.asarray(b, np.uint64)))


def sorted_intersection(a: np.ndarray, b: np.ndarray) -> int:
    """Return |a and b| of two sorted arrays of distinct uint64. O(shorter x log) where one is 10 times longer."""
    from tamis.ops import alignment_kernels

    return int(alignment_kernels.sorted_intersection(np.asarray(a, np.uint64), np.asarray(b, np.uint64)))


def intersections(values: np.ndarray, starts: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return `sorted_intersection` of many pairs of sets, int64 [P]; set i is values[starts[i]:starts[i + 1]]."""
    from tamis.ops import alignment_kernels

    found: np.ndarray = alignment_kernels.pair_intersections(
        values, starts, np.ascontiguousarray(left, np.int64), np.ascontiguousarray(right, np.int64)
    )
    return found


def contains(tokens: np.ndarray, starts: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return for each pair whether the left sequence occurs in the right one as consecutive tokens, bool [P]."""
    from tamis.ops import alignment_kernels

    found: np.ndarray = alignment_kernels.pair_contains(
        tokens, starts, np.ascontiguousarray(left, np.int64), np.ascontiguousarray(right, np.int64)
    )
    return found
