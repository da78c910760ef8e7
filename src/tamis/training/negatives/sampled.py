"""Sampled negatives: drawn from a window of ranks, so that no few documents are pushed away all the time.

Source: Moreira et al. 2024, NV-Retriever, arXiv:2407.15831 (sampling among the top k, uniform or by softmax);
drawing by perturbed scores: Gumbel 1954, Vieira 2014.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from tamis.data import Qrels, Run
from tamis.errors import RecipeError
from tamis.ops.hashing import array_keys, gumbel, splitmix64
from tamis.training.negatives.base import Miner, answers


class Sampled(Miner):
    """Draw negatives without replacement from ranks ``min_rank`` to ``max_rank``, both counted from 1 and included.

    A draw belongs to (seed, query id, document id): another query changes nothing, and of one more negative the
    others are a part.

    Attributes:
      num_negatives: documents drawn for each query; fewer where the window holds fewer.
      min_rank: 10 for small collections, 30 for large ones.
      max_rank: 100 for small collections, 200 for large ones.
      temperature: probabilities are proportional to exp(score / temperature), in the scores' own unit; None: equal.
    """

    method: Literal["sampled"] = "sampled"
    num_negatives: Annotated[int, Field(ge=1)] = 7
    min_rank: Annotated[int, Field(ge=1)] = 10
    max_rank: Annotated[int, Field(ge=1)] = 100
    temperature: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Sampled":
        if self.max_rank < self.min_rank:
            raise RecipeError(f"sampled: max_rank {self.max_rank} is below min_rank {self.min_rank}.")
        return self

    def mine(self, run: Run, qrels: Qrels, *, seed: int) -> Run:
        """Return each query's draws, best-scored first. O(N log N) for N rows.

        Args:
          run: candidates of any search.
          qrels: answers.
          seed: of the draws.
        """
        window = (run.ranks >= self.min_rank) & (run.ranks <= self.max_rank) & ~answers(run, qrels)
        rows = np.flatnonzero(window)
        queries = run.query_rows[rows]
        owners = splitmix64(array_keys(run.query_ids))[queries]
        value = gumbel(owners ^ array_keys(run.doc_ids)[run.docs[rows]], seed, "mine")
        if self.temperature is not None:
            # against the first of the run: beside a large quotient the draw would be rounded away
            top = run.scores[run.offsets[:-1][queries]]
            with np.errstate(over="ignore"):
                value += (run.scores[rows] - top) / self.temperature
        order = np.lexsort((np.arange(len(rows)), -value, queries))
        place = np.arange(len(rows)) - np.searchsorted(queries[order], queries[order])
        chosen = np.zeros(len(run), dtype=bool)
        chosen[rows[order[place < self.num_negatives]]] = True
        return run.filter(chosen)
