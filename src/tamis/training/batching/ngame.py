"""Mining-aware batches: a batch is many small clusters of queries that the model takes for alike just now.

Source: Dahiya et al. 2023, NGAME: Negative Mining-aware Mini-batching for Extreme Classification, arXiv:2207.04452;
integer arithmetic, ties and copies: tamis.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from tamis.data.settings import Settings
from tamis.errors import DataError, RecipeError
from tamis.ops.hashing import draws
from tamis.training.batching.random import RandomOrder, cut
from tamis.training.batching.tas import checked

_ROUNDS = 10


class NGAME(Settings):
    """Cluster the queries by the current encoder, shuffle the clusters, cut batches: hard negatives without a search.

    Each query meets the few others of its cluster, whose answers are hard for it, and many that are easy. Random
    order at first, while the vectors say little.

    Attributes:
      size: queries of a batch.
      start_epoch: first epoch (from 0) in clusters.
      refresh_every: epochs from one clustering to the next.
      cluster_sizes: queries of a cluster at the first clustering, the second, and so on; the last stays. Where the
        number of queries is no multiple, some have one less. None above size / 4: batches of few topics are unstable.
    """

    method: Literal["ngame"] = "ngame"
    size: Annotated[int, Field(ge=8)] = 128
    start_epoch: Annotated[int, Field(ge=0)] = 1
    refresh_every: Annotated[int, Field(ge=1)] = 1
    cluster_sizes: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (2, 4, 8)

    @model_validator(mode="after")
    def _check(self) -> "NGAME":
        if 4 * max(self.cluster_sizes) > self.size:
            raise RecipeError(
                f"ngame: a cluster of {max(self.cluster_sizes)} in batches of {self.size}. "
                f"Give clusters of at most {self.size // 4}, a quarter, or larger batches."
            )
        return self

    def refresh_of(self, epoch: int) -> int | None:
        """Return the epoch whose clustering an epoch uses; None before the first."""
        return None if epoch < self.start_epoch else epoch - (epoch - self.start_epoch) % self.refresh_every

    def clusters(self, query_nH: np.ndarray, keys: np.ndarray, *, epoch: int) -> np.ndarray:
        """Cluster queries by halving again and again; each half is the nearer to one of two means.

        The same in whatever order the rows come. Of equal texts the first alone is clustered; a copy is a cluster by
        itself, for it would be a negative that is right. O(n·H·log(n / cluster size)), 10 rounds a halving.

        Args:
          query_nH: float [n, H] of the current encoder, any norm.
          keys: uint64 [n], hashes of the texts.
          epoch: whose cluster size is used.

        Returns:
          int64 [n] cluster of each query; sizes of clusters of distinct texts differ by 1 at most.

        Raises:
          DataError: a vector is not finite, or shapes do not fit.
        """
        from tamis.training.batching.ngame_kernels import halve

        vectors = checked(query_nH, keys)
        distinct = np.unique(keys, return_index=True)[1]
        turn = max(0, epoch - self.start_epoch) // self.refresh_every
        num = -(-len(distinct) // self.cluster_sizes[min(turn, len(self.cluster_sizes) - 1)])
        points, members, parts = in_steps(vectors[distinct]), np.arange(len(distinct)), np.array([0, num])
        while np.diff(parts).max() > 1:
            parts = halve(points, members, parts, num, _ROUNDS)
        labels = np.full(len(keys), -1, dtype=np.int64)
        labels[distinct[members]] = np.repeat(np.arange(num), np.diff(np.arange(num + 1) * len(members) // max(1, num)))
        copies = np.flatnonzero(labels < 0)
        labels[copies] = num + np.arange(len(copies))
        return labels

    def order(self, query_nH: np.ndarray, keys: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """Return int64 [n], every query once, clusters of the given vectors end to end in an order drawn anew."""
        return shuffled(self.clusters(query_nH, keys, epoch=epoch), seed=seed, epoch=epoch)

    def sampler(self, vectors: Callable[[int], np.ndarray], keys: np.ndarray) -> "NGAMEBatches":
        """Return the batches of a run.

        Args:
          vectors: from the number of an epoch to float [n, H] of all queries by the encoder as it stands; called when
            the batches of an epoch that clusters anew are asked for.
          keys: uint64 [n], hashes of the queries' texts.
        """
        return NGAMEBatches(self, vectors, keys)


@dataclass
class NGAMEBatches:
    """An `NGAME` with its data. Ask for an epoch when it begins, not before: the encoder is asked then.

    Attributes:
      settings: of the batches.
      vectors: see `NGAME.sampler`.
      keys: uint64 [n].
      labels: epoch of a clustering -> int64 [n] clusters. Only the last is held; a run that is to go on in the middle
        of an epoch must keep it with its checkpoint, for by then the encoder is another.
    """

    settings: NGAME
    vectors: Callable[[int], np.ndarray]
    keys: np.ndarray
    labels: dict[int, np.ndarray] = field(default_factory=dict)

    def batches(self, num: int, seed: int, epoch: int) -> list[np.ndarray]:
        """Return int64 rows of each batch; every row of ``num`` once, and as many batches in every epoch.

        Raises:
          DataError: ``num`` is not the number of queries, or their vectors are not usable.
        """
        if num != len(self.keys):
            raise DataError(f"ngame: batches of {num} queries are wanted, {len(self.keys)} are known. Give all.")
        asked = self.settings.refresh_of(epoch)
        if asked is None:
            return RandomOrder(size=self.settings.size).batches(num, seed, epoch)
        if asked not in self.labels:
            self.labels = {asked: self.settings.clusters(self.vectors(asked), self.keys, epoch=asked)}
        return cut(shuffled(self.labels[asked], seed=seed, epoch=epoch), self.settings.size)


def shuffled(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Return int64 [n]: rows with those of one cluster together, clusters in an order drawn by seed and epoch."""
    drawn = draws(labels.astype(np.uint64), seed + (epoch << 32), "batch")
    return np.lexsort((np.arange(len(labels)), labels, drawn))


def in_steps(vectors_nH: np.ndarray) -> np.ndarray:
    """Return int16 [n, H]: vectors of norm 1 in steps of 1/2048: sums of products are exact; zero rows stay zero."""
    from tamis.training.batching.ngame_kernels import LENGTH

    norms = np.linalg.norm(vectors_nH.astype(np.float64), axis=1, keepdims=True)
    return np.rint(vectors_nH * (LENGTH / np.where(norms > 0, norms, 1))).astype(np.int16)
