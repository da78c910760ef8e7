"""Split: which documents are held out, decided by cluster before anything is made from them.

Source: tamis design; near-duplicates by MinHash (Broder 1997) with banding, joined by connected components.
Closure is too coarse for removing documents, but here it only decides that near copies stay on one side.
"""

from typing import Annotated, Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus
from tamis.data.settings import Settings
from tamis.ops.bytes import minhash
from tamis.ops.hashing import text_keys, uniform

NUM_HASHES, BAND_ROWS = 128, 4
_NEAR, _VERY_NEAR = 0.6, 0.85
_MIN_PARENTS = 20
_MAX_FRAC = 0.5


def clusters(corpus: Corpus) -> np.ndarray:
    """Group documents that must not be on two sides: exact copies, near copies, passages of one document.

    Near copies share at least 60 % of their word triples by a 128-hash estimate. Where that would put half
    of the corpus into one cluster (a template), only what shares 85 % is joined, then, for passages, parents
    are let apart, then only exact copies stay together. Passages of fewer than 20 documents are not joined by
    document: there would be nothing to split.

    Args:
      corpus: documents or passages; 512 bytes of signature each in memory, 150 MB of text a second.

    Returns:
      int64 [D]: the lowest row of each document's cluster. The grouping does not depend on row order.
    """
    num_docs = len(corpus)
    if num_docs == 0:
        return np.zeros(0, np.int64)
    copies = _same(corpus, "group_id")
    parents = np.zeros((0, 2), np.int64)
    if corpus.is_passages:
        parents = _same(corpus, "parent_doc_id")
        if num_docs - len(parents) < _MIN_PARENTS:
            parents = parents[:0]
    edges, similarity = _near_edges(corpus)
    close, closer = edges[similarity >= _NEAR], edges[similarity >= _VERY_NEAR]
    labels = np.arange(num_docs)
    for joined in ((copies, close, parents), (copies, closer, parents), (copies, closer), (copies,)):
        labels = _components(np.concatenate(joined), num_docs)
        if np.bincount(labels).max() <= max(2, _MAX_FRAC * num_docs):
            break
    return labels


def _same(corpus: Corpus, column: str) -> np.ndarray:
    """Edges int64 [E, 2] from the first row of each value of a column to its other rows."""
    values = pc.rank(corpus.table([column])[column], tiebreaker="min").to_numpy()
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rows = np.arange(len(values))
    heads = first[inverse]
    edges: np.ndarray = np.stack([heads, rows], axis=1)[heads != rows]
    return edges


def _near_edges(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Candidate pairs int64 [E, 2] from the bands and the share of equal hashes of each."""
    parts, used = [], []
    for batch in corpus.batches(["text"]):
        signatures, num_shingles = minhash(batch.column(0), num_hashes=NUM_HASHES)
        parts.append(signatures)
        used.append(num_shingles)
    signatures_DK = np.concatenate(parts)
    rows = np.flatnonzero(np.concatenate(used) > 0)
    rows = rows[np.argsort(corpus.id_ranks[rows], kind="stable")]  # the order of comparison is that of the ids
    found = [np.zeros((0, 2), np.int64)]
    for band in range(0, NUM_HASHES, BAND_ROWS):
        block = np.ascontiguousarray(signatures_DK[rows, band : band + BAND_ROWS])
        _, bucket = np.unique(block.view(f"V{4 * BAND_ROWS}").ravel(), return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(bucket[order]) > 0])
        heads = np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        places = np.arange(len(order))
        other = places != heads
        for before in (heads[other], places[other] - 1):  # with the first of the bucket and with the one before
            pair = np.stack([rows[order[before]], rows[order[places[other]]]], axis=1)
            found.append(np.sort(pair, axis=1))
    edges = np.unique(np.concatenate(found), axis=0)
    similarity = np.zeros(len(edges))
    for start in range(0, len(edges), 65536):
        a, b = edges[start : start + 65536].T
        similarity[start : start + 65536] = (signatures_DK[a] == signatures_DK[b]).mean(axis=1)
    return edges, similarity


def _components(edges: np.ndarray, num_docs: int) -> np.ndarray:
    """Lowest row of each row's connected component."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    graph = sparse.coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(num_docs, num_docs))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    lowest: np.ndarray = first[label].astype(np.int64)
    return lowest


class Split(Settings):
    """Choose the held-out documents, whole clusters at a time.

    Attributes:
      dev_frac: share of the documents that is held out.
      min_dev_docs: documents held out in a small corpus, as far as half of it allows.
      max_dev_docs: documents held out at most.
    """

    method: Literal["split"] = "split"
    dev_frac: Annotated[float, Field(gt=0, lt=1)] = 0.1
    min_dev_docs: Annotated[int, Field(ge=1)] = 30
    max_dev_docs: Annotated[int, Field(ge=1)] = 1000

    def sides(self, corpus: Corpus, *, seed: int) -> np.ndarray:
        """Say for each document whether it is held out, by a keyed draw of its cluster.

        A cluster too large for what is still wanted is passed over. A corpus of one cluster is held out whole.

        Args:
          corpus: documents or passages.
          seed: of the draws.

        Returns:
          bool [D], the same for each document whatever the order of rows.
        """
        labels = clusters(corpus)
        if len(labels) == 0:
            return np.zeros(0, bool)
        doc_keys = text_keys(corpus.doc_ids.to_pylist())
        heads, cluster, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        keys = np.full(len(heads), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(keys, cluster, doc_keys)
        draws = uniform(keys, seed, "split")
        if len(heads) == 1:
            return np.ones(len(labels), bool)
        wanted = min(max(round(self.dev_frac * len(labels)), self.min_dev_docs), self.max_dev_docs)
        wanted = max(1, min(wanted, len(labels) // 2))
        slack, taken, held = wanted // 4, 0, np.zeros(len(heads), bool)
        for number in np.argsort(draws, kind="stable"):
            if taken >= wanted:
                break
            if taken + sizes[number] <= wanted + slack:
                held[number] = True
                taken += int(sizes[number])
        if not taken:  # every cluster is larger than wanted
            held[np.lexsort((draws, sizes))[0]] = True
        chosen: np.ndarray = held[cluster]
        return chosen
