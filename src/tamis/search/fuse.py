"""Fusion: two searches are better than one.

Source: Cormack, Clarke, Büttcher 2009 (reciprocal rank); Bruch, Gai, Ingber 2022, *An Analysis of Fusion Functions
for Hybrid Retrieval*, arXiv:2210.11934 (convex combination).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data import Qrels, Run
from tamis.data.run import align
from tamis.data.settings import Settings
from tamis.errors import UsageError

Weight = Annotated[float, Field(ge=0)]
Normalise = Literal["padded", "zscore", "minmax"]


@dataclass(frozen=True)
class Pool:
    """Candidates of each query with what every arm says about each of them.

    Attributes:
      query_ids: Arrow strings [B].
      doc_ids: Arrow strings [D] in byte order.
      starts: int64 [B + 1]; candidates of query b are starts[b]:starts[b + 1].
      docs: int64 [P] rows of doc_ids, ascending within a query.
      z_AP: float64 [A, P], the arms' comparable scores.
      names: of the arms.
    """

    query_ids: pa.Array
    doc_ids: pa.Array
    starts: np.ndarray
    docs: np.ndarray
    z_AP: np.ndarray
    names: tuple[str, ...] = ()

    def fuse(self, weights: Sequence[float] | np.ndarray) -> Run:
        """Return the run of the weighted sums. The order of the arms does not matter, not even in the last bit.

        Args:
          weights: one for each arm [A], or for each arm and query [A, B].
        """
        queries = np.repeat(np.arange(len(self.query_ids)), np.diff(self.starts))
        weight = np.asarray(weights, dtype=np.float64)
        parts = np.sort((weight[:, None] if weight.ndim == 1 else weight[:, queries]) * self.z_AP, axis=0)
        total = np.zeros(self.z_AP.shape[1])
        for part in parts:
            total += part
        return Run(self.query_ids, self.doc_ids, queries, self.docs, total)


class ReciprocalRank(Settings):
    """Sum of weight / (k + rank), rank from 1; a run that lacks a document adds nothing.

    It trusts every arm: drop or weight down those near random.

    Attributes:
      k: 60 in the paper; small values favour first places.
      weights: one for each run; equal without.
      depth: documents of each run that take part.
    """

    method: Literal["reciprocal_rank"] = "reciprocal_rank"
    k: Annotated[int, Field(ge=0)] = 60
    weights: tuple[Weight, ...] | None = None
    depth: Annotated[int, Field(ge=1)] = 1000

    def fuse(self, runs: Sequence[Run], *, seed: int) -> Run:
        """Fuse runs. O(rows log rows).

        Args:
          runs: any queries and documents; scores count by their order alone.
          seed: unused; every fuser takes it.

        Raises:
          UsageError: no run, or another number of weights than runs.
        """
        weights = _weights(self.weights, len(runs), 1.0)
        cut = [run.truncate(self.depth) for run in runs]
        values = [1.0 / (self.k + run.ranks) for run in cut]
        return _pool(cut, values, [np.zeros(len(run.query_ids)) for run in cut]).fuse(weights)


class Convex(Settings):
    """Weighted sum of scores that were made comparable for each query.

    Attributes:
      weights: one for each run, zero is legal; equal without.
      normalise: ``zscore`` over a run's first documents, absent documents get its lowest; ``padded`` the same
        with a list shorter than ``depth`` filled up with zero scores (what a lexical index means by absence),
        absent documents of such a list count as zero; ``minmax`` to [0, 1], absent 0.
      depth: documents of each run that take part.
    """

    method: Literal["convex"] = "convex"
    weights: tuple[Weight, ...] | None = None
    normalise: Normalise = "zscore"
    depth: Annotated[int, Field(ge=1)] = 100

    def fuse(self, runs: Sequence[Run], *, seed: int) -> Run:
        """Fuse runs. O(rows log rows).

        Args:
          runs: any queries and documents; a run without a query contributes nothing to it.
          seed: unused; every fuser takes it.

        Raises:
          UsageError: no run, or another number of weights than runs.
        """
        weights = _weights(self.weights, len(runs), 1.0 / max(1, len(runs)))
        return self.pool(runs).fuse(weights)

    def pool(self, runs: Sequence[Run]) -> Pool:
        """Return the candidates of all runs with their normalised scores, for fusing with many weights."""
        cut = [run.truncate(self.depth) for run in runs]
        size = min(self.depth, len(align(cut)[1])) if cut else 0
        scales = [scale_of(run.scores, run.offsets, self.normalise, size) for run in cut]
        values = [
            (run.scores - s.mean[run.query_rows]) * s.factor[run.query_rows] for run, s in zip(cut, scales, strict=True)
        ]
        if self.normalise == "minmax":  # a single value or equal ones: 1 where present
            values = [np.where(s.factor[r.query_rows] > 0, v, 1.0) for v, s, r in zip(values, scales, cut, strict=True)]
        return _pool(cut, values, [s.absent for s in scales])


@dataclass(frozen=True)
class Scale:
    """How one arm's scores become comparable, for each query: (score - mean) · factor; float64 [B] each."""

    mean: np.ndarray
    factor: np.ndarray
    absent: np.ndarray


def scale_of(scores: np.ndarray, offsets: np.ndarray, normalise: Normalise, size: int) -> Scale:
    """Fit a scale to ranked lists.

    Args:
      scores: float64 [N], best first within each list.
      offsets: int64 [B + 1].
      normalise: see `Convex`.
      size: documents a full list would have; used by ``padded``.

    Returns:
      The scale; factor 0 (everything 0) for lists that are empty or of one value.
    """
    counts = np.diff(offsets)
    query = np.repeat(np.arange(len(counts)), counts)
    low, high = np.zeros(len(counts)), np.zeros(len(counts))
    answered = np.flatnonzero(counts)
    high[answered], low[answered] = scores[offsets[answered]], scores[offsets[answered + 1] - 1]
    if normalise == "minmax":
        width = high - low
        factor = np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)
        return Scale(low, factor, np.zeros_like(low))
    full = np.maximum(counts, max(1, size) if normalise == "padded" else 1)
    mean = np.bincount(query, scores, len(counts)) / full
    square = np.bincount(query, (scores - mean[query]) ** 2, len(counts)) + (
        (full - counts) * mean**2 if normalise == "padded" else 0.0
    )
    deviation = np.sqrt(square / full)
    usable = (deviation > 1e-9 * np.maximum(1.0, np.abs(mean))) & (counts > 0)
    factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=usable)
    floor = np.where(counts < full, 0.0, low) if normalise == "padded" else low
    return Scale(mean, factor, (floor - mean) * factor)


def _weights(weights: Sequence[float] | None, num_runs: int, default: float) -> Sequence[float]:
    if num_runs == 0:
        raise UsageError("fuse: no run given. Give one or more.")
    if weights is None:
        return [default] * num_runs
    if len(weights) != num_runs:
        raise UsageError(f"fuse: {len(weights)} weights for {num_runs} runs. Give one weight a run.")
    return weights


def _pool(runs: Sequence[Run], values: Sequence[np.ndarray], absent: Sequence[np.ndarray]) -> Pool:
    """Bring values of runs to common candidates; a document a run lacks gets ``absent`` of the run's query."""
    query_ids, doc_ids, rows = align(runs)
    width = max(1, len(doc_ids))
    keys = [query * width + doc for query, doc in rows]
    every = np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.int64)
    queries, docs = np.divmod(every, width)
    z = np.zeros((len(runs), len(every)))
    for arm, run in enumerate(runs):
        floor = np.zeros(len(query_ids))
        places = {q: i for i, q in enumerate(query_ids.to_pylist())}
        floor[[places[q] for q in run.query_ids.to_pylist()]] = absent[arm]
        z[arm] = floor[queries]
        z[arm, np.searchsorted(every, keys[arm])] = values[arm]
    starts = np.searchsorted(queries, np.arange(len(query_ids) + 1)).astype(np.int64)
    return Pool(query_ids, doc_ids, starts, docs, z)


class FusionTuner:
    """nDCG@k of many weightings of one pool.

    Attributes:
      query_ids: the judged queries, in the pool's order; those it does not answer count 0.
      rows: int64 [B], their places among the pool's queries.
    """

    def __init__(self, pool: Pool, qrels: Qrels, k: int = 10) -> None:
        """Look up the gains of the candidates once. Queries without a relevant document are left out."""
        grades = qrels.grades
        ids = pool.query_ids.to_pylist()
        judged = [row for row, q in enumerate(ids) if any(g > 0 for g in grades.get(q, {}).values())]
        self.rows = np.array(judged, dtype=np.int64)
        self.query_ids = [ids[row] for row in judged]
        self._discounts = 1.0 / np.log2(np.arange(2, k + 2))
        sizes = np.diff(pool.starts)[judged]
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        inside = np.concatenate(
            [np.arange(pool.starts[r], pool.starts[r + 1]) for r in judged] or [np.zeros(0, np.int64)]
        )
        self._z = np.ascontiguousarray(pool.z_AP[:, inside])
        doc_ids = pool.doc_ids.take(pa.array(pool.docs[inside])).to_pylist()
        of = [grades[q] for q, size in zip(self.query_ids, sizes, strict=True) for _ in range(size)]
        self._gains = np.array([max(0, g.get(d, 0)) for g, d in zip(of, doc_ids, strict=True)], dtype=np.float64)
        ideal = [sorted((g for g in grades[q].values() if g > 0), reverse=True)[:k] for q in self.query_ids]
        self._ideal = np.array([float(np.dot(g, self._discounts[: len(g)])) for g in ideal])

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """float64 [G, B]: nDCG@k of each weighting for each judged query. G·P·A operations, about 2 ns each.

        Args:
          weights: [G, A], or [G, B, A] where they differ between queries.
        """
        from tamis.search.fuse_kernels import ndcg_grid

        given = np.asarray(weights, dtype=np.float64)
        shape = (len(given), len(self.query_ids), len(self._z))
        every = np.ascontiguousarray(np.broadcast_to(given[:, None] if given.ndim == 2 else given, shape))
        out = np.zeros(shape[:2])
        ndcg_grid(self._starts, self._z, self._gains, every, self._discounts, self._ideal, out)
        return out
