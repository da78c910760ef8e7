"""Candidates: several searches joined into one run to mine from, and one scorer's scores for all of them.

Source: tamis design (training engine); the sum of reciprocal ranks: Cormack, Clarke, Büttcher 2009, with k = 0.
"""

import numpy as np
import pyarrow as pa

from tamis.data import Run
from tamis.data.run import Ids, align
from tamis.errors import DataError, UsageError
from tamis.ops.topk import exact_scores
from tamis.training.negatives.base import places, refuse_unknown


def candidates(*runs: Run) -> Run:
    """Join rankings of the same queries, a lexical one and the current encoder's for one, into one of all documents.

    A document's score is the sum of 1 / rank over the runs that hold it: the heads of all runs come first, in turn,
    and what several find before what one finds. So `TopK` of two joined runs takes about half of each. Scores are
    ranks only: for `PositiveAware` have one scorer score the pairs (`rescored`, or a teacher).
    O(rows log rows). The order of the runs does not matter, but for that of the queries.

    Args:
      runs: one or more, cut to the depth wanted; answers that were scored whatever their rank stay.

    Raises:
      UsageError: no run.
    """
    if not runs:
        raise UsageError("candidates: no run given. Give one or more.")
    query_ids, doc_ids, rows = align(runs)
    keys = np.concatenate([queries * max(1, len(doc_ids)) + docs for queries, docs in rows])
    parts = np.concatenate([1.0 / run.ranks for run in runs])
    order = np.lexsort((parts, keys))  # summed from the smallest, whichever run it is of
    every, place = np.unique(keys[order], return_inverse=True)
    total = np.bincount(place, parts[order], len(every))
    queries, docs = np.divmod(every, max(1, len(doc_ids)))
    return Run(query_ids, doc_ids, queries, docs, total)


def rescored(run: Run, query_ids: Ids, query_QH: np.ndarray, doc_ids: Ids, document_DH: np.ndarray) -> Run:
    """Return the pairs of a run with the cosines of given vectors. O(N·H), N rows of the run.

    Args:
      run: candidates; its scores are not read.
      query_ids: of ``query_QH``, those of the run among them.
      query_QH: float [Q, H], any norm; a zero vector has cosine 0 with everything.
      doc_ids: of ``document_DH``, those of the run among them.
      document_DH: float [D, H].

    Raises:
      DataError: an id of the run has no vector, shapes do not fit, or a vector is not finite.
    """
    vectors = []
    for ids, wanted, given, what in (
        (query_ids, run.query_ids, query_QH, "query"),
        (doc_ids, run.doc_ids, document_DH, "document"),
    ):
        rows = places(wanted, as_ids(ids))
        refuse_unknown(rows, wanted, f"{what} vectors", f"Give a vector of every {what} of the run.")
        vectors.append(unit(table(given, len(ids), f"{what} vectors")[rows], f"{what} vectors"))
    if vectors[0].shape[1] != vectors[1].shape[1]:
        raise DataError(
            f"queries have {vectors[0].shape[1]} dimensions, documents {vectors[1].shape[1]}. Use one encoder for both."
        )
    return run.with_scores(exact_scores(vectors[0], vectors[1], run.query_rows, run.docs))


def as_ids(ids: Ids) -> pa.Array:
    """Return ids as one Arrow array of large strings."""
    return (ids if isinstance(ids, pa.Array) else pa.array(list(ids), pa.large_string())).cast(pa.large_string())


def table(vectors_nH: np.ndarray, num: int, what: str) -> np.ndarray:
    """Return the array if it has ``num`` rows.

    Raises:
      DataError: it has another shape.
    """
    if np.ndim(vectors_nH) != 2 or len(vectors_nH) != num:
        raise DataError(f"{what}: {num} rows are needed, got shape {np.shape(vectors_nH)}. Give one row an id.")
    return np.asarray(vectors_nH)


def unit(vectors_nH: np.ndarray, what: str) -> np.ndarray:
    """Return float32 rows of norm 1; zero rows stay zero.

    Raises:
      DataError: a row is not finite.
    """
    vectors = np.asarray(vectors_nH, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    damaged = np.flatnonzero(~np.isfinite(norms))
    if len(damaged):
        raise DataError(f"{what}: row {damaged[0]} holds NaN or infinity. Its text or the encoder is damaged.")
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
