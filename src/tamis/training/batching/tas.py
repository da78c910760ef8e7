"""Topic-aware batches: queries about one topic together, and for each a pair whose margin is as likely easy as hard.

Source: Hofstätter et al. 2021, Efficiently Teaching an Effective Dense Retriever with Balanced Topic Aware Sampling,
arXiv:2104.06967 (TAS-Balanced).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ops.hashing import draws, splitmix64
from tamis.training.finetune.pairs import Lists

_ROUNDS = 20
_QUERIES_PER_CENTRE = 256


class TASBalanced(Settings):
    """Draw a cluster of queries for each batch, and for each query a pair from an evenly drawn bin of margins.

    Queries of one topic have answers that look like each other's, so in-batch negatives are hard; many are unjudged
    answers as well. Use it with a teacher that scores in-batch pairs (Margin-MSE), not with InfoNCE alone. Every
    cluster is as likely as another, so queries of small clusters come more often: meant so by the paper.

    Attributes:
      size: queries of a batch; 32 in the paper, 256 its best.
      num_clusters: of `topics`; None: one for 64 queries, 8 at least. The paper has 2000 for 400,000 queries.
      num_bins: of equal width between a query's smallest and largest margin; 10 in the paper.
    """

    method: Literal["tas_balanced"] = "tas_balanced"
    size: Annotated[int, Field(ge=2)] = 32
    num_clusters: Annotated[int, Field(ge=1)] | None = None
    num_bins: Annotated[int, Field(ge=1)] = 10

    def topics(self, query_QH: np.ndarray, keys: np.ndarray, *, seed: int) -> np.ndarray:
        """Cluster queries by spherical k-means, 20 rounds on at most 256 a cluster. O(Q·H·num_clusters).

        Args:
          query_QH: float [Q, H] of a baseline encoder, norm 1.
          keys: uint64 [Q], hashes of the texts: the result does not depend on the order of the rows.
          seed: of the first centres.

        Returns:
          int64 [Q] cluster of each query.

        Raises:
          DataError: a vector is not finite, or shapes do not fit.
        """
        import faiss
        from threadpoolctl import threadpool_limits

        vectors = checked(query_QH, keys)
        distinct = np.unique(keys, return_index=True)[1]  # in the order of the keys; copies have no vote
        num = min(self.num_clusters or max(8, len(vectors) // 64), len(distinct))
        if num <= 1:
            return np.zeros(len(vectors), dtype=np.int64)
        drawn = distinct[np.argsort(draws(keys[distinct], seed, "centers"), kind="stable")[: num * _QUERIES_PER_CENTRE]]
        means = faiss.Kmeans(
            vectors.shape[1],
            num,
            niter=_ROUNDS,
            spherical=True,
            seed=seed % 2**31,
            min_points_per_centroid=1,
            max_points_per_centroid=len(drawn),
        )
        with threadpool_limits(1):  # the sums of several threads would depend on their number
            means.train(vectors[drawn], init_centroids=vectors[drawn[:num]])
            labels = means.index.search(vectors, 1)[1][:, 0]
        return np.asarray(labels, dtype=np.int64)

    def queries(self, query_cluster: np.ndarray, *, seed: int, epoch: int) -> list[np.ndarray]:
        """Return int64 query rows of each batch of an epoch, as many batches as would show each query once.

        A batch takes queries of a cluster drawn evenly, none twice; what it lacks comes from a second one, and so on.
        O(batches · clusters · log clusters).

        Args:
          query_cluster: int [Q], the cluster of each query, 0 and up.
          seed: of the run.
          epoch: from 0; another epoch has other batches.

        Raises:
          DataError: a cluster number below 0.
        """
        clusters = np.asarray(query_cluster, dtype=np.int64)
        if (clusters < 0).any():
            row = int(np.flatnonzero(clusters < 0)[0])
            raise DataError(f"tas_balanced: query {row} has cluster {clusters[row]}. Number clusters from 0.")
        members = np.argsort(clusters, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(clusters[members]) > 0)) if len(members) else members
        sizes = np.diff(np.append(starts, len(members)))
        num_batches = -(-len(clusters) // self.size)
        return [self._batch(members, starts, sizes, stream(seed, epoch, number)) for number in range(num_batches)]

    def _batch(self, members: np.ndarray, starts: np.ndarray, sizes: np.ndarray, key: int) -> np.ndarray:
        order = np.argsort(draws(np.arange(len(starts), dtype=np.uint64), key, "batch"), kind="stable")
        chosen = order[: int(np.searchsorted(np.cumsum(sizes[order]), self.size)) + 1]
        firsts = np.cumsum(sizes[chosen]) - sizes[chosen]
        rows = members[np.repeat(starts[chosen] - firsts, sizes[chosen]) + np.arange(sizes[chosen].sum())]
        owners = np.repeat(np.arange(len(chosen)), sizes[chosen])
        shuffled = np.lexsort((draws(rows.astype(np.uint64), key, "sample"), owners))
        return np.asarray(rows[shuffled[: self.size]])

    def batches(
        self, query_cluster: np.ndarray, pair_query: np.ndarray, pair_margin: np.ndarray, *, seed: int, epoch: int
    ) -> list[np.ndarray]:
        """Return int64 pair rows of each batch: for each drawn query one pair, from a bin of margins drawn evenly.

        A query without a pair is never drawn; one whose margins are all equal has a single bin.

        Args:
          query_cluster: int [Q], the cluster of each query.
          pair_query: int [P], the query of each pair of an answer and a negative.
          pair_margin: float [P], the teacher's score of the answer minus that of the negative.
          seed: of the run.
          epoch: from 0.

        Raises:
          DataError: there is no pair, a margin is not finite, or a pair's query is not among the clusters.
        """
        if not len(pair_query):
            raise DataError(
                "tas_balanced: no pair to draw from. Score answers and negatives of the queries by a teacher."
            )
        bins = margin_bins(pair_query, pair_margin, self.num_bins, len(query_cluster))
        order = np.argsort(pair_query, kind="stable")
        asked = np.unique(pair_query)
        starts = np.searchsorted(pair_query[order], asked)
        sizes = np.diff(np.append(starts, len(order)))
        made = []
        for number, places in enumerate(self.queries(np.asarray(query_cluster)[asked], seed=seed, epoch=epoch)):
            key = stream(seed, epoch, number)
            firsts = np.cumsum(sizes[places]) - sizes[places]
            pairs = order[np.repeat(starts[places] - firsts, sizes[places]) + np.arange(sizes[places].sum())]
            owners = np.repeat(np.arange(len(places)), sizes[places])
            in_bin = draws((asked[places][owners] * self.num_bins + bins[pairs]).astype(np.uint64), key, "mine")
            first = np.lexsort((draws(pairs.astype(np.uint64), key, "negatives"), in_bin, owners))
            made.append(pairs[first[firsts]])
        return made


@dataclass(frozen=True)
class MarginPairs:
    """Pairs of an answer and a negative that a teacher scored both.

    Attributes:
      queries: int64 [P] rows of queries.
      positives: int64 [P] rows of documents; ``negatives`` likewise.
      margins: float64 [P], the teacher's score of the answer minus that of the negative.
    """

    queries: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    margins: np.ndarray

    @classmethod
    def of(cls, positives: Lists, scored: Lists, scores: np.ndarray) -> "MarginPairs":
        """Return every pair of a scored answer and a scored document that is none, of the same query. O(pairs).

        Args:
          positives: answers of each query, rows of documents.
          scored: what the teacher scored of each query, rows of documents, none twice.
          scores: float, as long as ``scored.values``.
        """
        owners = np.repeat(np.arange(len(scored)), scored.sizes)
        width = 1 + max(int(positives.values.max(initial=0)), int(scored.values.max(initial=0)))
        answers = np.repeat(np.arange(len(positives)), positives.sizes) * width + positives.values
        is_answer = np.isin(owners * width + scored.values, answers)
        others = np.flatnonzero(~is_answer)
        starts = np.searchsorted(owners[others], np.arange(len(scored) + 1))
        right = np.flatnonzero(is_answer)
        counts = np.diff(starts)[owners[right]]
        firsts = np.cumsum(counts) - counts
        left = np.repeat(right, counts)
        negative = others[np.repeat(starts[owners[right]] - firsts, counts) + np.arange(counts.sum())]
        margins = scores[left].astype(np.float64) - scores[negative]
        return cls(owners[left], scored.values[left], scored.values[negative], margins)


def margin_bins(pair_query: np.ndarray, pair_margin: np.ndarray, num_bins: int, num_queries: int) -> np.ndarray:
    """Return int64 [P]: which of ``num_bins`` equal parts of its query's range of margins each pair falls into.

    Raises:
      DataError: a margin is not finite, or a query is not one of ``num_queries``.
    """
    queries, margins = np.asarray(pair_query), np.asarray(pair_margin, dtype=np.float64)
    if queries.shape != margins.shape or ((queries < 0) | (queries >= num_queries)).any():
        raise DataError(
            f"tas_balanced: {len(queries)} queries of pairs for {len(margins)} margins, rows {queries.min(initial=0)} "
            f"to {queries.max(initial=0)} of {num_queries} queries. Give each pair a query and a margin."
        )
    if not np.isfinite(margins).all():
        raise DataError(f"tas_balanced: pair {np.flatnonzero(~np.isfinite(margins))[0]} has no finite margin.")
    low, high = np.full(num_queries, np.inf), np.full(num_queries, -np.inf)
    halves = margins / 2  # the difference of two large numbers may be too large for one
    np.minimum.at(low, queries, halves)
    np.maximum.at(high, queries, halves)
    width = high[queries] - low[queries]
    share = np.divide(halves - low[queries], width, out=np.zeros(len(halves)), where=width > 0)
    bins: np.ndarray = np.minimum((share * num_bins).astype(np.int64), num_bins - 1)
    return bins


def stream(seed: int, epoch: int, number: int) -> int:
    """Return a seed of one batch of one epoch."""
    mixed = splitmix64((seed & 0xFFFFFFFFFFFFFFFF) ^ int(splitmix64((epoch << 32) + number)))
    return int(mixed)


def checked(query_QH: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return float32 vectors, contiguous.

    Raises:
      DataError: shapes do not fit, or a vector is not finite; names its row.
    """
    vectors = np.ascontiguousarray(query_QH, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(keys):
        raise DataError(f"query vectors: {len(keys)} rows are needed, got shape {vectors.shape}. Give one row a query.")
    damaged = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(damaged):
        raise DataError(f"query vectors: row {damaged[0]} holds NaN or infinity. Its text or the encoder is damaged.")
    return vectors
