"""Which passages belong to which document: rows of an index over passages become rows of documents (MaxP).

Source: Dai, Callan 2019, *Deeper Text Understanding for IR*, arXiv:1905.09217; rows only, see `aggregate` for runs.
"""

import numpy as np

from tamis.ops.topk import select
from tamis.search.answers import Pairs, query_rows


class Parents:
    """The document of each passage.

    Attributes:
      of: int64 [P], document row of each passage row.
      starts: int64 [D + 1]; the passages of document d are order[starts[d]:starts[d + 1]].
      order: int64 [P], passage rows.
    """

    def __init__(self, of: np.ndarray, num_docs: int) -> None:
        """Sort the passages by their documents; O(P log P)."""
        self.of = np.asarray(of, dtype=np.int64)
        self.order = np.argsort(self.of, kind="stable")
        self.starts = np.searchsorted(self.of[self.order], np.arange(num_docs + 1)).astype(np.int64)

    def expand(self, pairs: Pairs) -> tuple[Pairs, np.ndarray]:
        """Turn (query, document) pairs into the pairs of all their passages.

        Returns:
          packed pairs of queries and passages, and the start of each document pair among them, int64 [n + 1].
        """
        starts, docs = pairs
        counts = self.starts[docs + 1] - self.starts[docs]
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        spread = np.arange(ends[-1]) + np.repeat(self.starts[docs] - ends[:-1], counts)
        return (ends[starts], self.order[spread]), ends

    def best(self, scores: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """float64 [n]: the largest score of each document pair's passages; 0 for a document without passages."""
        found, filled = np.zeros(len(ends) - 1), np.flatnonzero(np.diff(ends))
        if len(filled):
            found[filled] = np.maximum.reduceat(scores, ends[:-1][filled])
        return found

    def to_documents(
        self, rows_BK: np.ndarray, scores_BK: np.ndarray, ranks: np.ndarray, depth: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turn ranked passages into ranked documents.

        Args:
          rows_BK: passage rows, best first, -1 as padding.
          scores_BK: their scores.
          ranks: int64 [D], tie order of the documents.
          depth: documents to keep.

        Returns:
          document rows [B, depth] with -1 as padding, their scores, and how many there were before the cut, [B].
        """
        width = max(1, len(self.starts) - 1)
        listed = np.flatnonzero(rows_BK >= 0)
        queries = listed // max(1, rows_BK.shape[1])
        docs = self.of[rows_BK.ravel()[listed]]
        _, first = np.unique(queries * width + docs, return_index=True)  # the first of a document is its best
        queries, docs, values = queries[first], docs[first], scores_BK.ravel()[listed][first]
        rows = np.full((len(rows_BK), depth), -1, dtype=np.int64)
        scores = np.zeros((len(rows_BK), depth))
        select(queries, docs, values, ties=ranks[docs], rows=rows, scores=scores)
        return rows, scores, np.bincount(queries, minlength=len(rows_BK))


def unpack(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return query rows and document rows of packed pairs, int64 [n] each."""
    return query_rows(pairs[0]), pairs[1]
