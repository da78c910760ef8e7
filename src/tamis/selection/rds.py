"""RDS+: the documents nearest to the target's examples, which take them in turn.

Source: Ivison et al. 2025, Large-Scale Data Selection for Instruction Tuning, arXiv:2503.01807 (RDS+); the order by
content and the figures of the target: tamis design (method card D3).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tamis.data.corpus import Documents
from tamis.errors import DataError
from tamis.models.encoder import Encoder
from tamis.ops.hashing import array_keys, draws
from tamis.ops.text import joined
from tamis.selection.choice import TEXT, seen
from tamis.selection.vectors import (
    STEPS,
    PoolScores,
    VectorPool,
    VectorSelector,
    encoded,
    in_steps,
    lengths,
    nearest_squared,
)

_BLOCK = 2048
_TARGET_BLOCK = 64
_MIN_DEPTH = 64


@dataclass(frozen=True)
class Examples:
    """The target's examples in the order of their turns: vectors in steps float64 [T, H], and whose turn, int64 [T].

    Keys are those of all its documents, uint64, also of those that have no vector or were not drawn.
    """

    points_TH: np.ndarray
    owners_T: np.ndarray
    keys: np.ndarray


class RDSPlus(VectorSelector):
    """Let each example of the target take, in turn, the document of the pool nearest to it that is still there.

    Exact: cosines are compared as whole numbers, and equally near documents go by content. No example can fill the
    budget with its own kind, as the mean or the best cosine lets the commonest do. Pool documents that are in the
    target word for word are left out. Vectors are the encoder's own (the paper pools a causal model's states by
    position). Figures beside those of `VectorSelector`: ``target_distance_mean`` and ``target_distance_max``, of an
    example to the nearest kept document, each also ``_uniform``; ``num_examples``. O(n·T·H).

    Attributes:
      turns: who takes in turn: each "example", or each "source" of the target with the largest cosine to any of
        its examples.
      max_targets: distinct examples used at most, drawn by content.
    """

    needs_target: ClassVar[bool] = True
    excludes_target: ClassVar[bool] = True

    method: Literal["rds_plus"] = "rds_plus"
    turns: Literal["example", "source"] = "example"
    max_targets: Annotated[int, Field(ge=1)] = 1000

    def fit(self, pool: VectorPool, target: Documents, *, seed: int) -> PoolScores:
        """Score by the turn: 0 for the first document taken, -1 for the second and so on.

        What no turn reached within the budget stands below: minus the number of turns, minus 1, plus the largest
        cosine to an example.

        Args:
          pool: prepared.
          target: the examples.
          seed: of the draw of examples.

        Raises:
          DataError: no document of the target has a vector.
        """
        from tamis.selection.rds_kernels import take_in_turn

        examples = self._examples(pool.encoder, target, seed)
        scores = np.full(len(pool.keys), -np.inf)
        rows = pool.canonical(pool.refused == 0)
        free = rows[~pool.taken[rows] & ~np.isin(pool.keys[rows], examples.keys)]
        limit = self.budget.limit(int(pool.sizes.sum()))
        num_turns = int(examples.owners_T[-1]) + 1
        num_docs = min(len(free), 1 + int(np.searchsorted(np.cumsum(np.sort(pool.sizes[free])), limit, "right")))
        depth = max(_MIN_DEPTH, -(-2 * num_docs // num_turns))
        while True:
            lists_TK, best_N = _nearest(pool, free, examples, depth)
            picks, ended = take_in_turn(lists_TK, len(free), pool.sizes[free], limit)
            if not ended:
                break
            depth *= 4
        scores[rows] = -len(picks) - 1.0  # in the target, or taken: they have no turn
        scores[free] = best_N / STEPS**2 - len(picks) - 1.0
        scores[free[picks]] = -np.arange(len(picks), dtype=np.float64)
        return PoolScores(pool.doc_ids, scores)

    def coverage(
        self, pool: VectorPool, target: Documents, kept: dict[str, np.ndarray], *, seed: int
    ) -> dict[str, float]:
        """Return the figures of coverage, of the pool and of the target."""
        figures = super().coverage(pool, target, kept, seed=seed)
        points_TH = self._examples(pool.encoder, target, seed).points_TH
        for ending, mask in kept.items():
            if mask.any():
                distances = lengths(nearest_squared(points_TH, pool, np.flatnonzero(mask)))
                figures[f"target_distance_mean{ending}"] = float(distances.mean())
                figures[f"target_distance_max{ending}"] = float(distances.max())
        return figures | {"num_examples": float(len(points_TH))}

    def _examples(self, encoder: Encoder, target: Documents, seed: int) -> Examples:
        """Return the distinct examples that have a vector, those of one turn together, turns by content."""
        keys, vectors, sources = [np.zeros(0, np.uint64)], [np.zeros((0, encoder.dim), np.float32)], [""][:0]
        for batch in target.batches(seen(target)):
            texts = joined(batch)
            keys.append(array_keys(texts))
            vectors.append(encoded(encoder, texts, batch.column("doc_id").cast(TEXT)))
            named = self.turns == "source" and "source" in batch.schema.names
            sources += batch.column("source").to_pylist() if named else [""] * len(batch)
        all_keys, all_vectors = np.concatenate(keys), np.concatenate(vectors)
        _, distinct = np.unique(all_keys, return_index=True)
        distinct = distinct[all_vectors[distinct].any(axis=1)]
        if not len(distinct):
            raise DataError(
                f"none of the {len(all_keys)} documents of the target has a vector: the encoder knows none of their "
                "words. Give other examples, or an encoder trained on such texts."
            )
        drawn = np.sort(np.argsort(draws(all_keys[distinct], seed, "sample"), kind="stable")[: self.max_targets])
        rows = distinct[drawn]  # by key
        if self.turns == "example":
            return Examples(in_steps(all_vectors[rows]), np.arange(len(rows)), all_keys)
        names = [sources[row] or "" for row in rows.tolist()]
        place = {name: turn for turn, name in enumerate(dict.fromkeys(names))}  # the source of the smallest key first
        owners = np.array([place[name] for name in names])
        order = np.argsort(owners, kind="stable")
        return Examples(in_steps(all_vectors[rows[order]]), owners[order], all_keys)


def _nearest(pool: VectorPool, rows: np.ndarray, examples: Examples, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each turn the ``depth`` nearest of some rows, and each row's best inner product with any example.

    Args:
      pool: its rows are compared.
      rows: int64 [N], in the order that decides between equally near ones.
      examples: of the target.
      depth: documents a turn, at most N.

    Returns:
      int64 [turns, min(depth, N)], places in ``rows``; float64 [N].
    """
    starts = np.flatnonzero(np.r_[True, np.diff(examples.owners_T) > 0])
    depth = min(depth, len(rows))
    lists_TK = np.empty((len(starts), depth), np.int64)
    best_N = np.full(len(rows), -np.inf)
    for first in range(0, len(starts), _TARGET_BLOCK):
        begins = starts[first : first + _TARGET_BLOCK]
        last = first + len(begins)
        stop = starts[last] if last < len(starts) else len(examples.owners_T)
        near_TN = np.empty((len(begins), len(rows)))
        for at in range(0, len(rows), _BLOCK):
            part = slice(at, at + _BLOCK)
            products = examples.points_TH[begins[0] : stop] @ pool.points(rows[part]).T
            near_TN[:, part] = np.maximum.reduceat(products, begins - begins[0], axis=0)
        best_N = np.maximum(best_N, near_TN.max(axis=0, initial=-np.inf))
        for turn, near in enumerate(near_TN):
            lists_TK[first + turn] = _leading(near, depth)
    return lists_TK, best_N


def _leading(values: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the ``count`` largest values, largest first, of equal ones the earlier."""
    places = np.arange(len(values))
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count]
        places = np.flatnonzero(values >= least)
    order: np.ndarray = places[np.argsort(-values[places], kind="stable")][:count]
    return order
