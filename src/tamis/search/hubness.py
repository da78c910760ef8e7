"""Hubness correction: documents that crowd into everybody's results are pushed down.

Source: Bogolin et al. 2022, *Cross Modal Retrieval with Querybank Normalisation*, arXiv:2112.12777 (QB-Norm); CSLS:
Conneau et al. 2018, arXiv:1710.04087. Both come down to one number a document that is added to its score.
"""

from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from tamis.data import Qrels, Queries
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ops.hashing import draws, text_keys
from tamis.search.dense import DenseIndex
from tamis.search.fuse import Convex, FusionTuner

_BLOCK_DOCS = 8192


class Correction(Settings):
    """What both kinds share: a bank of queries in the users' style, and a gate."""

    num_bank: Annotated[int, Field(ge=1)] = 2000
    min_gain: Annotated[float, Field(ge=0)] = 0.0

    @abstractmethod
    def bias_of(self, score_BD: np.ndarray) -> np.ndarray:
        """Return the bias [D] of documents from the bank's scores [B, D]."""

    def fit(self, index: DenseIndex, bank: Queries, *, seed: int) -> np.ndarray:
        """Return the bias float64 [D] to give to `DenseIndex.corrected`. |bank|·D·H operations.

        Args:
          index: without a correction of its own.
          bank: queries in the style of the real ones, never those of an evaluation.
          seed: of the sample of ``num_bank`` of them.

        Raises:
          DataError: no query of the bank has any weight.
        """
        order = np.argsort(draws(text_keys(bank.ids), seed, "select"), kind="stable")[: self.num_bank]
        query = index.encode(bank.select(np.sort(order)))
        norms = np.linalg.norm(query.astype(np.float64), axis=1)
        if not (norms > 0).any():
            raise DataError(f"hubness: none of the {len(bank)} queries of the bank has any weight. Give other queries.")
        query = query[norms > 0].astype(np.float64) / norms[norms > 0, None]
        bias = np.zeros(len(index))
        with threadpool_limits(1):  # the last bits of a product depend on the number of threads
            for low in range(0, len(index), _BLOCK_DOCS):
                block = index.vectors[low : low + _BLOCK_DOCS].astype(np.float64)
                bias[low : low + len(block)] = self.bias_of(query @ block.T)
        return bias

    def keeps(self, index: DenseIndex, bias: np.ndarray, queries: Queries, qrels: Qrels) -> bool:
        """Say whether held-out queries gain nDCG@10 by more than ``min_gain`` and their results crowd less."""
        measured = []
        for candidate in (index, index.corrected(bias)):
            run = candidate.search(queries, 10)
            values = FusionTuner(Convex(depth=10).pool([run]), qrels).evaluate(np.ones((1, 1)))
            measured.append((float(values.mean()) if values.size else 0.0, skewness(run.docs, len(index))))
        (plain, crowd), (corrected, less) = measured
        return corrected - plain > self.min_gain and less < crowd


class QueryBank(Correction):
    """Take from a document's score the soft maximum of its scores for a bank of queries.

    Attributes:
      beta: 1 / temperature of the soft maximum; high values make new hubs.
      num_bank: queries of the bank that are used.
      min_gain: nDCG@10 that held-out queries must gain.
    """

    method: Literal["query_bank"] = "query_bank"
    beta: Annotated[float, Field(gt=0)] = 10.0

    def bias_of(self, score_BD: np.ndarray) -> np.ndarray:
        """Return -logsumexp(beta · scores) / beta, [D]."""
        top = score_BD.max(axis=0)
        soft: np.ndarray = -(top + np.log(np.exp(self.beta * (score_BD - top)).sum(axis=0)) / self.beta)
        return soft


class CSLS(Correction):
    """Take from a document's score half the mean of its k largest scores for a bank of queries.

    Attributes:
      k: bank queries that count for a document.
      num_bank: queries of the bank that are used.
      min_gain: nDCG@10 that held-out queries must gain.
    """

    method: Literal["csls"] = "csls"
    k: Annotated[int, Field(ge=1)] = 10

    def bias_of(self, score_BD: np.ndarray) -> np.ndarray:
        """Return minus half the mean of the k largest, [D]."""
        half: np.ndarray = -np.sort(score_BD, axis=0)[-self.k :].mean(axis=0) / 2
        return half


def skewness(docs: np.ndarray, num_docs: int) -> float:
    """Skewness of how often each document occurs among the results; 0 when all occur equally."""
    counts = np.bincount(docs, minlength=num_docs).astype(np.float64)
    deviation = counts.std() if num_docs else 0.0
    return float((((counts - counts.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0


Hubness = Annotated[QueryBank | CSLS, Field(discriminator="method")]
