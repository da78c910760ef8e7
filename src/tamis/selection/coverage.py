"""Coverage: keep documents that together stand near all others, by clusters or by the farthest point.

Source: Yu et al. 2024, Diversify and Conquer, arXiv:2409.11378 (clusters); Gonzalez 1985 and Wu et al. 2023,
Self-Evolved Diverse Data Sampling, arXiv:2311.08182 (k-center greedy); trimming and order by content: tamis design
(method card D6).
"""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tamis.data.corpus import Documents
from tamis.ops.hashing import draws, splitmix64, uniform
from tamis.selection.vectors import (
    PoolScores,
    VectorPool,
    VectorSelector,
    in_steps,
    lengths,
    nearest_squared,
    squared_distances,
)

_ROUNDS = 20
_DOCS_PER_CENTRE = 256
_NUM_NEIGHBOURS = 10
_CANDIDATES = 256
_BLOCK = 2048
_NEIGHBOUR_BLOCK = 512
_FIRST = 3.0
"""Score of the document that k-center starts with: above every distance of unit vectors."""


class ClusterCoverage(VectorSelector):
    """Keep a share of each cluster of the pool, so that rare kinds of text are not drowned by common ones.

    Spherical k-means on distinct contents (20 rounds on at most 256 a cluster, first centres spread out); then the
    clusters give in turn: next is always the one that has given least, measured in the budget's unit and divided by
    its weight. So a larger budget keeps what a smaller one keeps, and what a small cluster cannot give goes to the
    others. Further copies of a content come after everything else of their cluster. Further figures:
    ``num_clusters``, ``clusters_hit`` and ``clusters_hit_uniform``, the share of clusters with a kept document.
    O(n·H·num_clusters).

    Attributes:
      num_clusters: at most; fewer where there are fewer distinct contents. Above the number of documents kept, a
        cluster may be left out, and the gain over a uniform draw goes.
      share: weights: "equal" (kinds count, not how common they are) or "sqrt", the root of a cluster's size.
      within: a cluster gives by a "random" draw keyed by content, which finds more rare kinds, or first what is
        "nearest" to its centre, which stands nearer to all the others in the mean.
    """

    method: Literal["cluster_coverage"] = "cluster_coverage"
    num_clusters: Annotated[int, Field(ge=1)] = 128
    share: Literal["equal", "sqrt"] = "equal"
    within: Literal["nearest", "random"] = "random"

    def prepare(self, pool: VectorPool, *, seed: int) -> VectorPool:
        """Find the clusters."""
        pool = super().prepare(pool, seed=seed)
        rows = pool.canonical(pool.refused == 0)
        labels, closeness = np.full(len(pool.keys), -1, np.int64), np.zeros(len(pool.keys))
        if len(rows):
            distinct = rows[np.unique(pool.keys[rows], return_index=True)[1]]  # copies have no vote
            num_clusters = min(self.num_clusters, len(distinct))
            drawn = np.argsort(draws(pool.keys[distinct], seed, "centers"))[: num_clusters * _DOCS_PER_CENTRE]
            learned = distinct[np.sort(drawn)]
            centres_CH = _kmeans(pool.vectors_NH[learned], pool.keys[learned], num_clusters, seed)
            for start in range(0, len(rows), _BLOCK):
                part = rows[start : start + _BLOCK]
                products = pool.points(part) @ centres_CH.T
                labels[part], closeness[part] = np.argmax(products, axis=1), products.max(axis=1)
        return replace(pool, labels=labels, closeness=closeness)

    def fit(self, pool: VectorPool, target: Documents, *, seed: int) -> PoolScores:
        """Score by the turn: 0 for a cluster's first, else minus what it gave before, over its weight.

        Args:
          pool: prepared.
          target: unused.
          seed: of the draws where ``within`` is "random", and of the first centres.
        """
        rows = pool.canonical(pool.labels >= 0)
        labels, keys = pool.labels[rows], pool.keys[rows]
        sizes = np.where(pool.taken[rows], 0, pool.sizes[rows])
        first = uniform(keys, seed, "select") if self.within == "random" else -pool.closeness[rows]
        order = np.lexsort((np.arange(len(rows)), first, _copies(keys), labels))
        before = np.cumsum(sizes[order]) - sizes[order]
        totals = np.bincount(labels, weights=sizes)
        starts = np.concatenate([np.zeros(1), np.cumsum(totals)[:-1]])
        weights = np.sqrt(np.maximum(totals, 1.0)) if self.share == "sqrt" else np.ones(len(totals))
        scores = np.full(len(pool.keys), -np.inf)
        scores[rows[order]] = -(before - starts[labels[order]]) / weights[labels[order]]
        return PoolScores(pool.doc_ids, scores)

    def coverage(
        self, pool: VectorPool, target: Documents, kept: dict[str, np.ndarray], *, seed: int
    ) -> dict[str, float]:
        """Return the figures of coverage, and those of clusters."""
        figures = super().coverage(pool, target, kept, seed=seed)
        clusters = set(pool.labels[pool.labels >= 0].tolist())
        for ending, mask in kept.items():
            figures[f"clusters_hit{ending}"] = len(set(pool.labels[mask].tolist()) & clusters) / max(1, len(clusters))
        return figures | {"num_clusters": float(len(clusters))}


class KCenter(VectorSelector):
    """Keep, again and again, the document farthest from all that are kept: the largest gap is always closed next.

    Greedy, within a factor of 2 of the smallest possible radius. The start is drawn by content; a document equal to
    a kept one comes last. Outliers are what it would pick first: documents far from their 10 nearest are refused
    as ``outlier``. A pool above ``max_docs`` is drawn down by content, the rest is ``not_drawn``; figures are of the
    whole pool. O(n·H·(n + kept)) for n up to ``max_docs``: 12 s of one core for 2,000 of 20,000 (H = 256).

    Attributes:
      outlier_frac: share of the documents refused for the largest mean distance to their 10 nearest; 0 for none.
      max_docs: documents chosen from at most.
    """

    reasons: ClassVar[tuple[str, ...]] = ("zero_vector", "not_drawn", "outlier")

    method: Literal["k_center"] = "k_center"
    outlier_frac: Annotated[float, Field(ge=0, lt=1)] = 0.01
    max_docs: Annotated[int, Field(ge=1)] = 20_000

    def prepare(self, pool: VectorPool, *, seed: int) -> VectorPool:
        """Draw the documents that are compared, and find outliers among them."""
        pool = super().prepare(pool, seed=seed)
        rows = pool.canonical(pool.refused == 0)
        drawn = np.sort(np.argsort(draws(pool.keys[rows], seed, "centers"), kind="stable")[: self.max_docs])
        refused = pool.refused.copy()
        refused[rows] = 1 + self.reasons.index("not_drawn")
        rows = rows[drawn]
        refused[rows] = 0
        num_outliers = int(self.outlier_frac * len(rows))
        if num_outliers:
            far = far_from_nearest(pool.points(rows), num_outliers)
            refused[rows[far]] = 1 + self.reasons.index("outlier")
        return replace(pool, refused=refused)

    def fit(self, pool: VectorPool, target: Documents, *, seed: int) -> PoolScores:
        """Score by the distance to the nearest document kept before, 0 to 2; 3 for the start.

        Args:
          pool: prepared.
          target: unused.
          seed: of the start.
        """
        scores = np.full(len(pool.keys), -np.inf)
        rows = pool.canonical((pool.refused == 0) & ~pool.taken)
        if not len(rows):
            scores[pool.refused == 0] = 0.0
            return PoolScores(pool.doc_ids, scores)
        start = int(np.argmin(draws(pool.keys[rows], seed, "centers")))
        limit = self.budget.limit(int(pool.sizes.sum()))
        picks, radii, nearest = farthest_first(pool.points(rows), start, pool.sizes[rows], limit)
        scores[rows] = lengths(nearest)
        scores[rows[picks]] = lengths(radii)
        scores[rows[start]] = _FIRST
        others = np.flatnonzero((pool.refused == 0) & pool.taken)
        scores[others] = lengths(nearest_squared(pool.points(others), pool, rows[picks]))
        return PoolScores(pool.doc_ids, scores)


def farthest_first(
    points_NH: np.ndarray, start: int, sizes: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pick the point farthest from all picked ones until the next does not fit; equally far: the earlier row.

    Exactly the greedy order, in blocks: distances only shrink, so as long as the best of the farthest 256 is not
    below what the next one had before, no other point can be farther. O(N·H) a pick, by matrix products.

    Args:
      points_NH: float64 [N, H]; whole numbers make the result exact.
      start: the first pick.
      sizes: int64 [N].
      limit: for the sum of the picked sizes.

    Returns:
      picks int64 [P] in order; float64 [P], the squared distance of each to the nearest pick before it (inf for the
      start); float64 [N], the squared distance of each point to the nearest pick (0 for picks).
    """
    nearest = np.full(len(points_NH), np.inf)
    open_ = np.ones(len(points_NH), bool)
    picks, radii, amount, new = [start], [np.inf], int(sizes[start]), [start]
    fits = True
    while True:
        for at in range(0, len(points_NH) if new else 0, _BLOCK):
            part = slice(at, at + _BLOCK)
            closest = squared_distances(points_NH[part], points_NH[new]).min(axis=1)
            nearest[part] = np.minimum(nearest[part], closest)
        open_[new] = False
        left = np.flatnonzero(open_)
        if not fits or not len(left):
            return np.array(picks), np.array(radii), nearest
        leading = _farthest(left, nearest, _CANDIDATES + 1)
        candidates, bar = np.sort(leading[:_CANDIDATES]), (-1.0, 0)
        if len(leading) > _CANDIDATES:
            bar = (nearest[leading[-1]], -int(leading[-1]))
        among = squared_distances(points_NH[candidates], points_NH[candidates])
        fresh, new = nearest[candidates].copy(), []
        while True:
            best = int(np.argmax(fresh))  # the earlier row of equal ones
            row = int(candidates[best])
            if fresh[best] < 0 or (fresh[best], -row) < bar:
                break
            amount += int(sizes[row])
            fits = amount <= limit
            if not fits:
                break
            picks.append(row)
            radii.append(float(fresh[best]))
            new.append(row)
            np.minimum(fresh, among[best], out=fresh)
            fresh[best] = -1.0


def far_from_nearest(points_NH: np.ndarray, num_far: int) -> np.ndarray:
    """Return the points with the largest mean distance to their 10 nearest, int64: at most ``num_far``.

    Points as far as the first that may stay, stay too, so none of equal points goes. O(N²·H).
    """
    num_near = min(_NUM_NEIGHBOURS, len(points_NH) - 1)
    if num_near < 1:
        return np.zeros(0, np.int64)
    means = np.empty(len(points_NH))
    for start in range(0, len(points_NH), _NEIGHBOUR_BLOCK):
        part = slice(start, start + _NEIGHBOUR_BLOCK)
        squared = np.partition(squared_distances(points_NH[part], points_NH), num_near, axis=1)[:, : num_near + 1]
        means[part] = np.sqrt(np.sort(squared, axis=1)).sum(axis=1) / num_near  # its own distance is 0
    threshold = np.partition(means, len(means) - num_far - 1)[len(means) - num_far - 1]
    return np.flatnonzero(means > threshold)


def _farthest(rows: np.ndarray, nearest: np.ndarray, count: int) -> np.ndarray:
    """Return the ``count`` of the rows with the largest values, largest first, of equal ones the earlier."""
    if len(rows) > count:
        least = np.partition(nearest[rows], len(rows) - count)[len(rows) - count]
        rows = rows[nearest[rows] >= least]
    return rows[np.argsort(-nearest[rows], kind="stable")][:count]


def _copies(keys: np.ndarray) -> np.ndarray:
    """Return int64 [n]: how many equal keys stand before each of the sorted keys."""
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    before: np.ndarray = np.arange(len(keys)) - np.repeat(first, counts)
    return before


def _kmeans(vectors_NH: np.ndarray, keys: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Return unit centres float64 [C, H] in steps, at most ``num_clusters``; equal vectors share one.

    One thread: the sums of several would depend on their number.
    """
    import faiss
    from threadpoolctl import threadpool_limits

    first = _spread(in_steps(vectors_NH), keys, num_clusters, seed)
    means = faiss.Kmeans(
        vectors_NH.shape[1],
        len(first),
        niter=_ROUNDS,
        spherical=True,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors_NH),
    )
    with threadpool_limits(1):
        means.train(np.ascontiguousarray(vectors_NH), init_centroids=vectors_NH[first])
    return in_steps(np.asarray(means.centroids))


def _spread(points_NH: np.ndarray, keys: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw rows one by one with probability proportional to the squared distance to those drawn, int64 [<= count].

    k-means++ (Arthur, Vassilvitskii 2007): uniform first centres fall into the large kinds and leave rare ones
    without. The smallest of Exp(1) / weight is such a draw.
    """
    drawn = [int(np.argmin(draws(keys, seed, "centers")))]
    nearest = np.full(len(points_NH), np.inf)
    while True:
        nearest = np.minimum(nearest, squared_distances(points_NH, points_NH[drawn[-1:]])[:, 0])
        if len(drawn) == count or not nearest.any():
            return np.array(drawn)
        waits = -np.log(uniform(keys ^ splitmix64(len(drawn)), seed, "centers"))
        drawn.append(int(np.argmin(np.divide(waits, nearest, out=np.full(len(keys), np.inf), where=nearest > 0))))
