"""Shared pool: some random documents in every batch, encoded once and a negative of all its queries.

Source: Je et al. 2023, Unifying Structure and Language Semantic for Efficient Contrastive Knowledge Graph Completion
with Structured Entity Anchors, arXiv:2311.04250 (its additional random negatives).
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data.settings import Settings
from tamis.ops.hashing import draws, splitmix64

_SORTED = 4
"""From a quarter of all documents upwards, all are put in order; below, draws that fall twice are drawn again."""


class SharedPool(Settings):
    """Add random documents to the columns of a batch. Most useful where batches are small: they have few columns.

    It is no miner: its documents belong to a batch, not to a query, so B queries share M forwards. Right answers
    among them are masked with those of the batch.

    Attributes:
      num_docs: documents a batch gets, M; 64 to 1024. 0 is no pool.
    """

    method: Literal["shared_pool"] = "shared_pool"
    num_docs: Annotated[int, Field(ge=0)] = 256

    def draw(self, num_documents: int, taken: np.ndarray, *, seed: int, step: int) -> np.ndarray:
        """Return int64 rows, ascending, drawn without replacement from those a batch does not hold.

        The same for equal (num_documents, set of taken, seed, step). O(M + taken), not O(num_documents).

        Args:
          num_documents: the pool is drawn from rows 0 to this.
          taken: rows that the batch holds anyway: answers and mined negatives.
          seed: of the run.
          step: of the run; another step has another pool.

        Returns:
          ``num_docs`` rows, or all that are left where those are fewer.
        """
        held = np.unique(taken[(taken >= 0) & (taken < num_documents)])
        wanted = min(self.num_docs, num_documents - len(held))
        if wanted <= 0:
            return np.zeros(0, dtype=np.int64)
        key = int(splitmix64(seed & 0xFFFFFFFFFFFFFFFF)) ^ step
        if _SORTED * (wanted + len(held)) >= num_documents:
            rows = np.argsort(draws(np.arange(num_documents, dtype=np.uint64), key, "negatives"), kind="stable")
            return np.sort(rows[~np.isin(rows, held)][:wanted])
        # less than a quarter is ever refused, so twice as many draws are nearly always enough
        count = 2 * wanted
        while True:
            rows = (draws(np.arange(count, dtype=np.uint64), key, "negatives") % np.uint64(num_documents)).astype(
                np.int64
            )
            rows = rows[np.sort(np.unique(rows, return_index=True)[1])]
            rows = rows[~np.isin(rows, held)]
            if len(rows) >= wanted:
                return np.sort(rows[:wanted])
            count *= 2
