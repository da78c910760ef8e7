"""Selection by vectors: the pool is encoded once and compared in whole numbers, so that no rounding decides.

Source: tamis design (method card D6); Ivison et al. 2025, arXiv:2503.01807 (always beside a uniform control).

A unit vector times 2^24, rounded, has inner products below 2^48: float64 sums them without error in any order. What
is chosen therefore depends neither on block sizes nor on the threads of a matrix product.
"""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import Documents
from tamis.errors import DataError, UsageError
from tamis.models.encoder import Encoder
from tamis.ops.hashing import array_keys, draws, uniform
from tamis.ops.text import joined
from tamis.selection.budget import prefix
from tamis.selection.choice import TEXT, Engine, Measures, batches_of, tasks
from tamis.selection.selector import Selector

STEPS = 2.0**24
"""Whole numbers to a unit of length."""
_SURVEYED_DOCS = 4096
_ENCODED_DOCS = 1024
_BLOCK = 2048
_LENGTH_TOLERANCE = 1e-3


@dataclass(frozen=True)
class VectorPool:
    """What is held of a pool to select from it by vectors, n rows in corpus order; no texts.

    Attributes:
      doc_ids: large_string [n].
      vectors_NH: float32 [n, H], rows of length 1 or 0.
      keys: uint64 [n], hashes of title and text.
      sizes: int64 [n] in the budget's unit.
      encoder: what made the vectors.
      refused: int8 [n], 0 or 1 + the place of a reason in the method's ``reasons``.
      taken: bool [n], given to another target.
      labels: int64 [n] clusters, -1 for none; without rows where the method has no clusters.
      closeness: float64 [n], inner products with the clusters' centres, in steps.
      prepared_by: the method and the seed that `refused`, `labels` and `closeness` are of; None before `prepare`.
    """

    doc_ids: pa.Array
    vectors_NH: np.ndarray
    keys: np.ndarray
    sizes: np.ndarray
    encoder: Encoder
    refused: np.ndarray
    taken: np.ndarray
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    closeness: np.ndarray = field(default_factory=lambda: np.zeros(0))
    prepared_by: tuple[str, str, int] | None = None

    @property
    def has_vector(self) -> np.ndarray:
        """Whether a row has a direction, bool [n]."""
        return np.asarray(self.vectors_NH.any(axis=1))

    def canonical(self, mask: np.ndarray) -> np.ndarray:
        """Return the rows of a mask by content and then doc_id, int64: whatever the order of the corpus."""
        zeros = np.zeros(len(self.keys))
        return Measures(self.doc_ids, zeros, self.keys, self.sizes).order(np.flatnonzero(mask))

    def points(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of some rows in whole numbers, float64 [m, H]."""
        return in_steps(self.vectors_NH[rows])


@dataclass(frozen=True)
class PoolScores:
    """The score of each document of a pool, which hangs on all the others: doc_ids [n] and float64 [n]."""

    doc_ids: pa.Array
    scores: np.ndarray


@dataclass(frozen=True)
class _InVectors(Measures):
    """Measures with the pool they are of, for the figures of coverage."""

    pool: VectorPool | None = None


class VectorSelector(Selector):
    """Base of the methods that choose by an encoder's vectors. Subclasses give `fit`, and `prepare` where they look.

    Figures beside those of every selection, over up to 4,096 documents drawn by content: ``coverage_mean`` and
    ``coverage_max``, the Euclidean distance of a document's unit vector to the nearest kept one (0 to 2, less is
    better), and the same with ``_uniform`` for a uniform draw of the same budget. Documents without a vector (no
    word the encoder knows) have the reason ``zero_vector``.
    """

    needs_target: ClassVar[bool] = False
    refusal: ClassVar[str] = "zero_vector"
    reasons: ClassVar[tuple[str, ...]] = ("zero_vector",)
    """Why a document may be refused; those after the first are found by `prepare`."""

    def embed(self, corpus: Documents, encoder: Encoder | None) -> VectorPool:
        """Encode a pool, batch by batch, in this process: an encoder has threads, or a device, of its own.

        Raises:
          UsageError: no encoder.
          DataError: a vector that is not finite, or of a length other than 0 and 1.
        """
        if encoder is None:
            raise UsageError(
                f"{type(self).__name__} selects by vectors and got no encoder. Give one: load_encoder(folder), or one "
                "trained on the pool itself, StaticSVD().pretrain(None, pool, seed=0).encoder."
            )
        ids, keys, sizes, vectors = [], [], [], []
        for task in tasks(corpus):
            for batch in batches_of(task):
                texts, own = joined(batch), batch.column("doc_id").cast(TEXT)
                ids.append(own)
                keys.append(array_keys(texts))
                sizes.append(self.budget.sizes(batch))
                vectors.append(encoded(encoder, texts, own))
        num_docs = sum(map(len, ids))
        none = (np.zeros(num_docs, np.int8), np.zeros(num_docs, bool))
        return VectorPool(
            pa.concat_arrays(ids), np.concatenate(vectors), np.concatenate(keys), np.concatenate(sizes), encoder, *none
        )

    def prepare(self, pool: VectorPool, *, seed: int) -> VectorPool:
        """Return the pool with what the method finds out before it scores: who is refused, and clusters."""
        return replace(pool, refused=np.where(pool.has_vector, 0, 1).astype(np.int8))

    @abstractmethod
    def fit(self, pool: VectorPool, target: Documents, *, seed: int) -> PoolScores:
        """Return the scores of a prepared pool: the higher, the earlier a document is kept; -inf where refused."""

    def score(self, batch: pa.RecordBatch, model: PoolScores) -> np.ndarray:
        """Return float64 [n]: what `fit` found for these documents of the pool.

        Raises:
          DataError: a document that the pool did not have.
        """
        ids = batch.column("doc_id").cast(TEXT)
        rows = pc.index_in(ids, value_set=model.doc_ids)
        if rows.null_count:
            strange = ids.filter(pc.is_null(rows))[0].as_py()
            raise DataError(f"document {strange!r} was not in the pool: {type(self).__name__} has no score for it.")
        scores: np.ndarray = model.scores[rows.to_numpy()]
        return scores

    def study(self, corpus: Documents, encoder: Encoder | None, *, seed: int, engine: Engine = map) -> VectorPool:
        """Encode and prepare a pool: all that does not depend on a target. ``engine`` is unused."""
        return self._prepared(self.embed(corpus, encoder), seed)

    def measure(
        self,
        corpus: Documents,
        target: Documents,
        encoder: Encoder | None,
        *,
        seed: int,
        engine: Engine = map,
        pool: Any = None,  # noqa: ANN401
    ) -> Measures:
        """Score every document, in one pass; none where ``pool`` is there, the result of `study` or of `embed`."""
        pool = self._prepared(self.embed(corpus, encoder) if pool is None else pool, seed)
        scores = self.fit(pool, target, seed=seed).scores
        return _InVectors(pool.doc_ids, scores, pool.keys, pool.sizes, refused=pool.refused, pool=pool)

    def _prepared(self, pool: VectorPool, seed: int) -> VectorPool:
        """Return the pool as `prepare` makes it, which is done once for all budgets of one unit, and all targets."""
        mark = (type(self).__qualname__, self.model_dump_json(exclude={"budget"}), seed)
        return pool if pool.prepared_by == mark else replace(self.prepare(pool, seed=seed), prepared_by=mark)

    def _without(self, pool: VectorPool, taken: np.ndarray | None) -> VectorPool:
        return replace(pool, taken=np.zeros(len(pool.keys), bool) if taken is None else taken)

    def _beside(
        self, measures: Measures, target: Documents, kept: np.ndarray, free: np.ndarray, *, seed: int
    ) -> dict[str, float]:
        """Return the figures of coverage, of what is kept and of a uniform draw from all with a vector."""
        if not isinstance(measures, _InVectors) or measures.pool is None:
            return {}
        pool = measures.pool
        uniformly = measures.order(np.flatnonzero(pool.has_vector & free), uniform(pool.keys, seed, "sample"))
        control = prefix(uniformly, pool.sizes, self.budget.limit(int(pool.sizes.sum())))
        return self.coverage(pool, target, {"": kept, "_uniform": control}, seed=seed)

    def coverage(
        self, pool: VectorPool, target: Documents, kept: dict[str, np.ndarray], *, seed: int
    ) -> dict[str, float]:
        """Return the figures of coverage. Up to 4,096 x kept x H operations.

        Args:
          pool: prepared.
          target: unused here.
          kept: bool [n] by the ending of the figures' names.
          seed: of the draw of documents.
        """
        rows = pool.canonical(pool.has_vector)
        rows = rows[np.argsort(draws(pool.keys[rows], seed, "coverage"), kind="stable")[:_SURVEYED_DOCS]]
        points, figures = pool.points(rows), {}
        for ending, mask in kept.items():
            chosen = np.flatnonzero(mask)
            if len(chosen):
                distances = lengths(nearest_squared(points, pool, chosen))
                figures[f"coverage_mean{ending}"] = float(distances.mean())
                figures[f"coverage_max{ending}"] = float(distances.max())
        return figures


def encoded(encoder: Encoder, texts: pa.Array, names: pa.Array) -> np.ndarray:
    """Return the documents' vectors float32 [n, H].

    Raises:
      DataError: a row that is not finite, or of a length other than 0 and 1; names the document.
    """
    parts = [np.zeros((0, encoder.dim), np.float32)]
    for start in range(0, len(texts), _ENCODED_DOCS):
        block = texts.slice(start, _ENCODED_DOCS).fill_null("").to_pylist()
        parts.append(np.asarray(encoder.encode_documents(block), np.float32))
    vectors = np.concatenate(parts)
    norms = np.linalg.norm(vectors, axis=1)
    strange = np.flatnonzero(~((norms == 0) | (np.abs(norms - 1) < _LENGTH_TOLERANCE)))
    if len(strange):
        row = int(strange[0])
        raise DataError(
            f"document {names[row].as_py()!r}: the encoder gave a vector of length {norms[row]:.4g}. "
            "Vectors must have length 1, or 0 where there is nothing to encode."
        )
    return vectors


def in_steps(vectors: np.ndarray) -> np.ndarray:
    """Return unit vectors times 2^24, rounded, as float64: inner products of such rows are exact."""
    steps: np.ndarray = np.rint(np.asarray(vectors, np.float64) * STEPS)
    return steps


def lengths(squared: np.ndarray) -> np.ndarray:
    """Return distances in the vectors' own unit from squared ones in steps."""
    distances: np.ndarray = np.sqrt(squared) / STEPS
    return distances


def squared_distances(one_NH: np.ndarray, other_MH: np.ndarray) -> np.ndarray:
    """Return float64 [N, M] squared distances: a² + b² - 2ab, exact and so never negative for rows in steps."""
    products = one_NH @ other_MH.T
    products *= -2.0
    products += np.einsum("nh,nh->n", one_NH, one_NH)[:, None]
    products += np.einsum("mh,mh->m", other_MH, other_MH)
    clamped: np.ndarray = np.maximum(products, 0.0, out=products)  # points that are not in steps round
    return clamped


def nearest_squared(points_NH: np.ndarray, pool: VectorPool, rows: np.ndarray) -> np.ndarray:
    """Return float64 [N]: the squared distance of each point to the nearest of some rows; inf where there are none."""
    nearest = np.full(len(points_NH), np.inf)
    for start in range(0, len(rows), _BLOCK):
        others = pool.points(rows[start : start + _BLOCK])
        for at in range(0, len(points_NH), _BLOCK):
            part = slice(at, at + _BLOCK)
            nearest[part] = np.minimum(nearest[part], squared_distances(points_NH[part], others).min(axis=1))
    return nearest
