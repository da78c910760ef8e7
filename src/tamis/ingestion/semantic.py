"""Semantic duplicates: documents whose vectors are nearly parallel, one kept of each such neighbourhood.

Source: Abbas et al. 2023, SemDeDup, arXiv:2303.09540; no chain of removed documents counts: tamis, method card I5.

Never a default: a cosine verifies nothing. Texts of one template or subject are parallel to most encoders though
they say different things; look at pairs before trusting a threshold, and prefer `MinHash` for copies.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus, Sifted
from tamis.data.settings import Settings
from tamis.errors import UsageError
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.text import joined

_BLOCK = 1024
_ROUNDS = 20
TEXT = pa.large_string()


@dataclass(frozen=True)
class SemanticGroups:
    """What was found among n documents.

    Attributes:
      removed: int64 [R] rows to leave out, ascending.
      representatives: int64 [R] rows of the kept documents they are parallel to.
      scores: float64 [R], the cosine.
      group_ids: n strings: doc_id of each document's representative, its own when it is kept.
      num_clusters: parts of the partition, each compared within itself alone.
      num_compared: pairs of vectors compared.
      counts: how many documents would go by the cosine of the nearest document ahead that is kept at the set
        threshold: cosine (0.01 apart, from the threshold) to documents at or above it.
    """

    removed: np.ndarray
    representatives: np.ndarray
    scores: np.ndarray
    group_ids: pa.Array
    num_clusters: int
    num_compared: int
    counts: dict[float, int]


class SemanticDuplicates(Settings):
    """Remove documents whose vector is nearly parallel to that of a document which stays.

    Attributes:
      min_cosine: at or above it two documents are taken for one; the paper's useful range is about 0.9 to 0.99.
      num_clusters: k-means parts that are compared within themselves, as in the paper (it has 11,000 to 50,000 for
        millions); pairs across parts are missed. 1 compares everything.
      keep: of a group the document "farthest" from the centroid of its part (the paper's), the "nearest", or the
        "longest".
    """

    method: Literal["semantic"] = "semantic"
    min_cosine: Annotated[float, Field(gt=0, le=1)] = 0.95
    num_clusters: Annotated[int, Field(ge=1)] = 1
    keep: Literal["farthest", "nearest", "longest"] = "farthest"

    def sift(self, corpus: Corpus, *, seed: int, vectors: np.ndarray) -> Sifted:
        """Drop semantic duplicates with reason ``semantic_copy``; kept documents are loaded into memory.

        Args:
          corpus: n documents.
          seed: of the first centroids.
          vectors: float32 [n, H], one a document, of any encoder.

        Returns:
          kept, and dropped with ``other_id`` (the kept document), ``score`` (cosine) and ``group_id``.

        Raises:
          UsageError: vectors of another shape, or without direction.
        """
        found = self.find(corpus, seed=seed, vectors=vectors)
        is_kept = np.ones(len(corpus), np.bool_)
        is_kept[found.removed] = False
        parts = []
        for rows in (np.flatnonzero(is_kept), found.removed):
            table = corpus.take(rows, corpus.schema.names)
            place = table.column_names.index("group_id")
            parts.append(table.set_column(place, "group_id", found.group_ids.take(pa.array(rows))))
        kept, dropped = parts
        dropped = dropped.append_column("reason", pa.array(["semantic_copy"] * len(dropped), TEXT))
        dropped = dropped.append_column("other_id", dropped["group_id"])
        return Sifted(Corpus.from_table(kept), dropped.append_column("score", pa.array(found.scores, pa.float64())))

    def find(self, corpus: Corpus, *, seed: int, vectors: np.ndarray) -> SemanticGroups:
        """Find semantic duplicates. O(n^2 H / num_clusters), and 20 rounds of k-means where num_clusters > 1.

        The documents of a part are walked in the order of ``keep`` (ties: content, then doc_id); one is removed
        when its cosine to a document that is still kept reaches the threshold. Permuting rows permutes the result.

        Args:
          corpus: n documents.
          seed: of the first centroids.
          vectors: float32 [n, H].

        Raises:
          UsageError: vectors of another shape, or without direction.
        """
        unit = _unit(vectors, len(corpus))
        keys, lengths, ids = _contents(corpus)
        ranks = np.argsort(np.argsort(np.array([i.encode() for i in ids.to_pylist()], dtype=object), kind="stable"))
        canonical = np.lexsort((ranks, keys))  # sums of floats depend on their order
        unit, keys, lengths = unit[canonical], keys[canonical], lengths[canonical]
        num_clusters = min(self.num_clusters, max(1, len(unit)))
        centroids, labels = _kmeans(unit, keys, num_clusters, seed)
        to_centroid = np.einsum("nh,nh->n", unit, centroids[labels]) if len(unit) else np.zeros(0)
        best = {"farthest": to_centroid, "nearest": -to_centroid, "longest": -lengths}[self.keep]
        representative, cosine = np.full(len(unit), -1, np.int64), np.full(len(unit), -1.0)
        num_compared = 0
        for part in range(num_clusters):
            rows = np.flatnonzero(labels == part)
            rows = rows[np.argsort(best[rows], kind="stable")]
            num_compared += _walk(unit, rows, self.min_cosine, representative, cosine)
        back = np.empty(len(unit), np.int64)
        back[canonical] = np.arange(len(unit))
        leads = np.where(representative >= 0, canonical[representative], canonical)[back]
        removed = np.flatnonzero(leads != np.arange(len(unit)))
        levels = [round(level / 100, 2) for level in range(int(np.ceil(self.min_cosine * 100 - 1e-9)), 101)]
        gone = cosine[representative >= 0]
        return SemanticGroups(
            removed=removed,
            representatives=leads[removed],
            scores=cosine[back][removed],
            group_ids=ids.take(pa.array(leads)),
            num_clusters=num_clusters,
            num_compared=num_compared,
            counts={level: int((gone >= level).sum()) for level in levels},
        )


def _unit(vectors: np.ndarray, num_docs: int) -> np.ndarray:
    """Return the vectors scaled to length 1, float32.

    Raises:
      UsageError: another shape, a vector that is zero or not finite.
    """
    if np.ndim(vectors) != 2 or len(vectors) != num_docs:
        raise UsageError(
            f"vectors of shape {np.shape(vectors)}: give one row a document, shape ({num_docs}, H). "
            "Encode the corpus in its own order."
        )
    lengths = np.linalg.norm(np.asarray(vectors, np.float32), axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if len(bad):
        raise UsageError(
            f"vectors: {len(bad)} of {num_docs} are zero or not finite, the first in row {bad[0]}; they have no "
            "direction. Drop these documents, or encode them again."
        )
    unit: np.ndarray = np.asarray(vectors, np.float32) / lengths
    return unit


def _contents(corpus: Corpus) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Return content keys uint64 [n], bytes int64 [n] and ids."""
    keys, lengths, ids = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [pa.array([], TEXT)]
    for batch in corpus.batches(["doc_id", "title", "text"]):
        texts = joined(batch)
        keys.append(array_keys(texts))
        lengths.append(pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64))
        ids.append(batch["doc_id"].cast(TEXT))
    return np.concatenate(keys), np.concatenate(lengths), pa.concat_arrays(ids)


def _kmeans(unit: np.ndarray, keys: np.ndarray, num_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit centroids float32 [k, H] and each vector's part int64 [n]; starts at drawn documents."""
    first = np.argsort(uniform(keys, seed, "centers"), kind="stable")[:num_clusters]
    centroids, labels = unit[np.sort(first)].copy(), np.zeros(len(unit), np.int64)
    for _ in range(_ROUNDS):
        before = labels
        blocks = [np.argmax(unit[at : at + _BLOCK] @ centroids.T, axis=1) for at in range(0, len(unit), _BLOCK)]
        labels = np.concatenate([np.zeros(0, np.int64), *blocks])
        sums = np.zeros(centroids.shape, np.float64)
        np.add.at(sums, labels, unit)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        moved = lengths[:, 0] > 0  # an empty part keeps its centroid
        centroids[moved] = (sums[moved] / lengths[moved]).astype(np.float32)
        if np.array_equal(labels, before) and num_clusters > 1:
            break
    return centroids, labels


def _walk(unit: np.ndarray, rows: np.ndarray, minimum: float, representative: np.ndarray, cosine: np.ndarray) -> int:
    """Fill in representative and cosine of the rows that go, walked in order; return how many pairs were compared.

    A block is compared with the kept vectors before it by one product, and within itself row by row.
    """
    kept = np.zeros(0, np.int64)
    num_compared = 0
    for at in range(0, len(rows), _BLOCK):
        block = rows[at : at + _BLOCK]
        if len(kept):
            ahead = unit[block] @ unit[kept].T
            nearest = np.argmax(ahead, axis=1)
            cosine[block] = ahead[np.arange(len(block)), nearest]
            representative[block] = kept[nearest]
            num_compared += ahead.size
        own = unit[block] @ unit[block].T
        num_compared += own.size // 2
        stays = np.zeros(len(block), np.bool_)
        for i, row in enumerate(block.tolist()):
            among = np.flatnonzero(stays[:i])
            if len(among):
                j = among[np.argmax(own[i, among])]
                if own[i, j] > cosine[row]:
                    cosine[row], representative[row] = own[i, j], block[j]
            stays[i] = cosine[row] < minimum
            if stays[i]:
                representative[row] = -1
        kept = np.concatenate([kept, block[stays]])
    return num_compared
