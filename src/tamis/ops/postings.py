"""Weighted sparse queries over an inverted file: compiled loops, exact top-k with a tie rank.

Source: the eager impacts of Lù 2024, *BM25S*, arXiv:2407.03618; term-at-a-time accumulation is textbook.

Layout: term t holds docs[starts[t]:starts[t + 1]] (int32, rows) with impacts (float32); a query is a list of
(term, weight). Scores are float64 sums in the order of the query's terms. Compiled on first import (about a second).
"""

import numpy as np
from numba import njit

_EMPTY = np.zeros(0, np.int64)


@njit(cache=True, nogil=True)
def _accumulate(starts, docs, impacts, terms, weights, accumulator, touched):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add one query's impacts; return how many documents it touched (their rows are in ``touched``)."""
    count = 0
    for i in range(len(terms)):
        term, weight = terms[i], weights[i]
        for at in range(starts[term], starts[term + 1]):
            doc = docs[at]
            if np.isnan(accumulator[doc]):  # NaN marks what no term has touched
                accumulator[doc] = 0.0
                touched[count] = doc
                count += 1
            accumulator[doc] += weight * impacts[at]
    return count


@njit(cache=True, nogil=True)
def _worse(scores, ties, a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return scores[a] < scores[b] or (scores[a] == scores[b] and ties[a] > ties[b])


@njit(cache=True, nogil=True)
def _sink(rows, scores, ties, at, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Restore the heap whose worst entry is on top, from ``at`` downwards."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _worse(scores, ties, child + 1, child):
            child += 1
        if not _worse(scores, ties, child, at):
            return
        rows[at], rows[child] = rows[child], rows[at]
        scores[at], scores[child] = scores[child], scores[at]
        ties[at], ties[child] = ties[child], ties[at]
        at = child


@njit(cache=True, nogil=True)
def _keep_best(accumulator, touched, count, ranks, rows, scores, ties):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Fill rows and scores with the best of the touched documents above 0, best first; return how many."""
    size, k = 0, len(rows)
    for i in range(count):
        doc = touched[i]
        score = accumulator[doc]
        if not score > 0.0:
            continue
        if size < k:
            rows[size], scores[size], ties[size] = doc, score, ranks[doc]
            size += 1
            if size == k:
                for at in range(k // 2 - 1, -1, -1):
                    _sink(rows, scores, ties, at, k)
        elif score > scores[0] or (score == scores[0] and ranks[doc] < ties[0]):
            rows[0], scores[0], ties[0] = doc, score, ranks[doc]
            _sink(rows, scores, ties, 0, k)
    if size < k:
        for at in range(size // 2 - 1, -1, -1):
            _sink(rows, scores, ties, at, size)
    for last in range(size - 1, 0, -1):  # heap sort: the worst goes to the end
        rows[0], rows[last] = rows[last], rows[0]
        scores[0], scores[last] = scores[last], scores[0]
        ties[0], ties[last] = ties[last], ties[0]
        _sink(rows, scores, ties, 0, last)
    return size


@njit(cache=True, nogil=True)
def _search(starts, docs, impacts, ranks, q_starts, q_terms, q_weights, p_starts, p_docs, rows_BK, scores_BK, p_scores):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    num_docs, k = len(ranks), rows_BK.shape[1]
    accumulator = np.full(num_docs, np.nan)
    touched = np.empty(num_docs, np.int32)
    ties = np.empty(k, np.int64)
    for query in range(len(q_starts) - 1):
        first, stop = q_starts[query], q_starts[query + 1]
        count = _accumulate(starts, docs, impacts, q_terms[first:stop], q_weights[first:stop], accumulator, touched)
        if k > 0:
            _keep_best(accumulator, touched, count, ranks, rows_BK[query], scores_BK[query], ties)
        for at in range(p_starts[query], p_starts[query + 1]):
            value = accumulator[p_docs[at]]
            p_scores[at] = 0.0 if np.isnan(value) else value
        for i in range(count):
            accumulator[touched[i]] = np.nan


def search(
    index: tuple[np.ndarray, np.ndarray, np.ndarray],
    ranks: np.ndarray,
    queries: tuple[np.ndarray, np.ndarray, np.ndarray],
    k: int,
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k best documents above 0 for each query, and the scores of any pairs asked for.

    O(postings of the query's terms + results · log k) a query; memory 12 bytes a document.

    Args:
      index: starts int64 [V + 1], docs int32 [N], impacts float32 [N].
      ranks: int64 [D], tie order.
      queries: starts int64 [B + 1], terms int [n] below V, weights float64 [n]; a term at most once a query.
      k: results a query.
      pairs: starts int64 [B + 1] and documents int [P]: also score these, whatever their rank.

    Returns:
      rows int64 [B, min(k, D)] with -1 as padding, scores float64 (0 at padding), pair scores float64 [P]
      (0 where no term matches).
    """
    q_starts, q_terms, q_weights = queries
    num_queries, depth = len(q_starts) - 1, max(0, min(k, len(ranks)))
    p_starts, p_docs = pairs if pairs is not None else (np.zeros(num_queries + 1, np.int64), _EMPTY)
    rows = np.full((num_queries, depth), -1, dtype=np.int64)
    scores = np.zeros((num_queries, depth))
    pair_scores = np.zeros(len(p_docs))
    _search(
        *_plain(index),
        _read_only(ranks, np.int64),
        _read_only(q_starts, np.int64),
        _read_only(q_terms, np.int64),
        _read_only(q_weights, np.float64),
        _read_only(p_starts, np.int64),
        _read_only(p_docs, np.int64),
        rows,
        scores,
        pair_scores,
    )
    return rows, scores, pair_scores


def _plain(index: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts, docs, impacts = index
    return _read_only(starts, np.int64), _read_only(docs, np.int32), _read_only(impacts, np.float32)


def _read_only(array: np.ndarray, dtype: type) -> np.ndarray:
    """A read-only base array: one compiled variant for fresh and for memory-mapped arrays."""
    view = np.ascontiguousarray(array, dtype=dtype).view(np.ndarray)[:]
    view.flags.writeable = False
    return view


@njit(cache=True, nogil=True)
def _transpose(starts, columns, counts, num_columns, c_starts, c_rows, c_counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for at in range(len(columns)):
        c_starts[columns[at] + 1] += 1
    for column in range(num_columns):
        c_starts[column + 1] += c_starts[column]
    fill = c_starts[:-1].copy()
    for row in range(len(starts) - 1):
        for at in range(starts[row], starts[row + 1]):
            column = columns[at]
            c_rows[fill[column]] = row
            c_counts[fill[column]] = counts[at]
            fill[column] += 1


def transpose(
    starts: np.ndarray, columns: np.ndarray, counts: np.ndarray, num_columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn rows of (column, count) into columns of (row, count), rows ascending. O(N), a counting sort.

    Args:
      starts: int64 [R + 1].
      columns: int32 [N], below num_columns.
      counts: int32 [N].
      num_columns: C.

    Returns:
      starts int64 [C + 1], rows int32 [N], counts int32 [N].
    """
    c_starts = np.zeros(num_columns + 1, np.int64)
    c_rows, c_counts = np.empty(len(columns), np.int32), np.empty(len(columns), np.int32)
    rows = _read_only(starts, np.int64), _read_only(columns, np.int32), _read_only(counts, np.int32)
    _transpose(*rows, num_columns, c_starts, c_rows, c_counts)
    return c_starts, c_rows, c_counts
