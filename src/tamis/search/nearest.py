"""Nearest: the query that stands for documents of an index, to find what is similar to them.

Source: tamis design; the mean of vectors, or the terms with the largest tf·idf.
"""

import numpy as np

from tamis.search.bm25 import BM25Index, Packed
from tamis.search.dense import DenseIndex

_NUM_TERMS = 25


def query_of(index: BM25Index | DenseIndex, rows: np.ndarray) -> Packed | np.ndarray:
    """Return the query that stands for the given rows of an index: their mean vector, or their telling terms."""
    if isinstance(index, DenseIndex):
        vectors = index.vectors[rows].astype(np.float64)
        return vectors.mean(axis=0, keepdims=True) if len(rows) else np.zeros((1, index.dim))
    starts, terms, counts = index.forward
    spans = [np.arange(starts[row], starts[row + 1]) for row in rows]
    inside = np.concatenate([np.zeros(0, np.int64), *spans])
    term, place = np.unique(terms[inside], return_inverse=True)
    df = index.starts[term + 1] - index.starts[term]
    weight = np.bincount(place, counts[inside], len(term)) * np.log1p(len(index) / np.maximum(df, 1))
    best = np.sort(np.lexsort((term, -weight))[:_NUM_TERMS])
    return np.array([0, len(best)], np.int64), term[best].astype(np.int64), weight[best]
