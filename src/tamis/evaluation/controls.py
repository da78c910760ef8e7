"""The random run: what a measure is worth when nothing was searched.

Source: tamis design (method card E3, the control row of every table).
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tamis.data import Qrels, Run
from tamis.errors import DataError
from tamis.ops.hashing import draws, splitmix64, text_keys

RANDOM = "random"
"""Name of the random run among the systems: reports draw it apart, for it lies far from the others."""
_STREAM = "select"
_USE = np.uint64(0x72616E646F6D)  # keeps these draws apart from those of a random selection


def random_run(query_ids: Sequence[str], doc_ids: Sequence[str] | pa.Array, *, k: int, seed: int) -> Run:
    """Return a run of k random documents a query, different for each. O(D log D + Q k).

    Documents stand in a seeded hash order; a query walks through it from a keyed start with a keyed
    stride that has no common divisor with D. Every document is equally likely, none comes twice, and the
    answer does not depend on the order of queries or documents.

    Args:
      query_ids: distinct ids [Q].
      doc_ids: distinct ids [D].
      k: documents a query; all of them where D is smaller.
      seed: of the hash.

    Raises:
      DataError: no documents.
    """
    ids = doc_ids.to_pylist() if isinstance(doc_ids, pa.Array) else list(doc_ids)
    if not ids:
        raise DataError("random run: there are no documents to draw from.")
    num_docs, depth = len(ids), min(k, len(ids))
    order = np.lexsort((np.array(ids, dtype=object), draws(text_keys(ids) ^ _USE, seed, _STREAM)))
    keys = draws(text_keys(query_ids) ^ _USE, seed, _STREAM)
    starts = (keys % np.uint64(num_docs)).astype(np.int64)
    strides = _coprime((splitmix64(keys) % np.uint64(num_docs)).astype(np.int64), num_docs)
    rows_QK = order[(starts[:, None] + strides[:, None] * np.arange(depth)) % num_docs]
    scores_QK = np.broadcast_to(np.arange(depth, 0, -1, dtype=np.float64), rows_QK.shape)
    return Run.from_blocks(list(query_ids), ids, rows_QK, scores_QK)


def _coprime(strides: np.ndarray, num_docs: int) -> np.ndarray:
    """Raise each stride to the next one that visits all documents."""
    strides = np.maximum(strides, 1)
    while len(wrong := np.flatnonzero(np.gcd(strides, num_docs) != 1)):
        strides[wrong] += 1
    return strides


def random_expectation(qrels: Qrels, num_docs: int, *, k: int) -> dict[str, float]:
    """Return the random run's expected R@k, P@k and nDCG@k, in closed form.

    R@k is k / D whatever the judgements; P@k is (relevant documents) / D; the DCG is that of the mean gain
    at every rank. Means over the queries with a grade above 0.

    Args:
      qrels: the judgements; the judged documents are among the D.
      num_docs: D.
      k: cutoff.

    Raises:
      DataError: no query has a grade above 0, or there are no documents.
    """
    gains = [sorted((g for g in docs.values() if g > 0), reverse=True) for docs in qrels.grades.values()]
    gains = [ranked for ranked in gains if ranked]
    if not gains or num_docs < 1:
        raise DataError(f"random run: {len(gains)} queries with a relevant document, {num_docs} documents.")
    depth = min(k, num_docs)
    discounts = 1 / np.log2(np.arange(k) + 2)
    ideals = [float(np.dot(ranked[:k], discounts[: len(ranked[:k])])) for ranked in gains]
    expected = [sum(ranked) / num_docs * float(discounts[:depth].sum()) for ranked in gains]
    return {
        f"R@{k}": depth / num_docs,
        f"P@{k}": float(np.mean([len(ranked) for ranked in gains])) / num_docs * depth / k,
        f"nDCG@{k}": float(np.mean([value / ideal for value, ideal in zip(expected, ideals, strict=True)])),
    }
