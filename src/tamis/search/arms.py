"""Arms: one index of an engine, lexical or dense, over documents or over their passages.

Source: tamis design (method cards B1 and B4).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tamis.errors import UsageError
from tamis.search.answers import Pairs
from tamis.search.bm25 import BM25Index, Packed
from tamis.search.dense import DenseIndex

Asked = Packed | np.ndarray
"""What an arm is asked: packed terms and weights, or vectors [B, H]."""

PASSAGES = "/passages"
"""Ends the name of a word arm over passages; what is before it names its twin over documents."""


@dataclass(frozen=True)
class Arm:
    """One index over the documents, or over their passages."""

    index: BM25Index | DenseIndex
    over: Literal["documents", "passages"] = "documents"

    @property
    def is_lexical(self) -> bool:
        """Whether it matches words."""
        return isinstance(self.index, BM25Index)


def search_one(index: BM25Index | DenseIndex, asked: Asked, k: int, pairs: Pairs | None) -> tuple[np.ndarray, ...]:
    """Return rows [B, K], scores [B, K] and the scores of ``pairs`` of one index.

    Raises:
      UsageError: a lexical index was asked with vectors.
    """
    if isinstance(index, BM25Index):
        if not isinstance(asked, tuple):
            raise UsageError("a lexical arm was asked with vectors.")
        return index.search_packed(asked, k, pairs)
    return index.search_rows(np.asarray(asked), k, pairs)
