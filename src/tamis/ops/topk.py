"""Exact top-k of inner products in blocks: the reference every index is tested against, and fast enough to be one.

Source: tamis design (method card B1). float32 products choose candidates with a margin that covers their
rounding; the candidates' scores are then recomputed in float64 and ordered by (score descending, tie rank
ascending), so that block size, thread count and BLAS change nothing.
"""

from typing import NamedTuple

import numpy as np

_PAIR_FLOATS = 1 << 24
_QUERY_ROWS = 256


def top_k(
    query_BH: np.ndarray,
    vector_DH: np.ndarray,
    k: int,
    *,
    ranks: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    max_norm: float | None = None,
    block_docs: int = 65_536,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best rows for each query. 2·B·D·H operations; memory: one block of scores.

    Args:
      query_BH: float32 [B, H], finite.
      vector_DH: float32 or float16 [D, H], finite; may be memory-mapped.
      k: results a query; fewer where D (or the allowed rows) are fewer.
      ranks: int64 [D], which of two equally scored rows comes first; row order without it.
      allowed: bool [D], rows that may be returned; all without it.
      bias: float64 [D] added to every score of a row; finite.
      max_norm: a bound on the length of every row (1 for unit rows) spares a pass over them; computed without it.
      block_docs: rows scored at once; no effect on the result.

    Returns:
      rows int64 [B, min(k, D)], -1 as padding, and their scores float64 (0 at padding), best first.
    """
    num_docs, depth = len(vector_DH), max(0, min(k, len(vector_DH)))
    ties = np.arange(num_docs) if ranks is None else np.asarray(ranks, dtype=np.int64)
    rows_BK = np.full((len(query_BH), depth), -1, dtype=np.int64)
    scores_BK = np.zeros((len(query_BH), depth), dtype=np.float64)
    if depth == 0:
        return rows_BK, scores_BK
    for start in range(0, len(query_BH), _QUERY_ROWS):
        part = slice(start, start + _QUERY_ROWS)
        query = np.ascontiguousarray(query_BH[part], dtype=np.float32)
        for low in range(0, num_docs, block_docs):
            inside = slice(low, low + block_docs)
            block = _Block(
                np.asarray(vector_DH[inside], dtype=np.float32),
                None if allowed is None else allowed[inside],
                None if bias is None else bias[inside],
                max_norm,
                low,
            )
            block.merge(query, ties, rows_BK[part], scores_BK[part])
    return rows_BK, scores_BK


class _Block(NamedTuple):
    """Rows low, low + 1, ... of the vectors."""

    vector_DH: np.ndarray
    allowed: np.ndarray | None
    bias: np.ndarray | None
    max_norm: float | None
    low: int

    def products(self, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 scores [B, D] (-inf where not allowed), and by how much each query's may be off."""
        vector = self.vector_DH
        product = query @ vector.T if len(query) > 1 else (vector @ query[0])[None, :]
        longest = self.max_norm
        if longest is None:
            longest = float(np.sqrt(np.einsum("dh,dh->d", vector, vector).max(initial=0.0)))
        # twice the worst rounding of a float32 dot product: the k-th value and the candidate both carry it
        norms = np.sqrt(np.einsum("bh,bh->b", query, query, dtype=np.float64)) * longest * 1.01
        margin = norms * (vector.shape[1] + 8) * 2.0**-22 + 1e-30
        if self.bias is not None:
            product += self.bias.astype(np.float32)
            margin += (np.abs(self.bias).max(initial=0.0) + norms) * 2.0**-21
        if self.allowed is not None:
            product[:, ~self.allowed] = -np.inf
        return product, margin

    def merge(self, query: np.ndarray, ties: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        """Replace the running top-k (rows, scores) of each query by that of it and this block."""
        depth = rows.shape[1]
        product, margin = self.products(query)
        floor = np.where(rows[:, -1] >= 0, scores[:, -1], -np.inf)
        if depth < product.shape[1] and np.isinf(floor).any():
            kth = np.partition(product, product.shape[1] - depth, axis=1)[:, product.shape[1] - depth]
            floor = np.maximum(floor, kth)
        threshold = np.nextafter((floor - margin).astype(np.float32), np.float32(-np.inf))
        found = (product >= threshold[:, None]) & np.isfinite(product)
        queries, columns = np.divmod(np.flatnonzero(found), product.shape[1])
        if not len(queries):
            return
        values = exact_scores(query, self.vector_DH, queries, columns)
        if self.bias is not None:
            values += self.bias[columns]
        old_queries, old_slots = np.nonzero(rows >= 0)
        all_queries = np.concatenate([old_queries, queries])
        all_rows = np.concatenate([rows[old_queries, old_slots], columns + self.low])
        all_scores = np.concatenate([scores[old_queries, old_slots], values])
        select(all_queries, all_rows, all_scores, ties=ties[all_rows], rows=rows, scores=scores)


def select(
    queries: np.ndarray,
    candidates: np.ndarray,
    values: np.ndarray,
    *,
    ties: np.ndarray,
    rows: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Fill rows and scores [B, K] with each query's best candidates, all given as parallel arrays; -1 and 0 pad."""
    order = np.lexsort((ties, -values, queries))
    queries, candidates, values = queries[order], candidates[order], values[order]
    starts = np.searchsorted(queries, np.arange(len(rows)))
    slots = np.arange(len(queries)) - starts[queries]
    kept = slots < rows.shape[1]
    rows.fill(-1)
    scores.fill(0.0)
    rows[queries[kept], slots[kept]] = candidates[kept]
    scores[queries[kept], slots[kept]] = values[kept]


def exact_scores(query_BH: np.ndarray, vector_DH: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 [P]: inner products of the given (query, row) pairs; the same for a pair in whatever company. O(P·H)."""
    from tamis.ops.topk_kernels import pair_scores

    query_BH = np.ascontiguousarray(query_BH, dtype=np.float32)
    values = np.empty(len(queries), dtype=np.float64)
    step = max(1, _PAIR_FLOATS // max(1, vector_DH.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        gathered = np.ascontiguousarray(vector_DH[rows[part]], dtype=np.float32)
        pair_scores(query_BH, np.asarray(queries[part], dtype=np.int64), gathered, values[part])
    return values
