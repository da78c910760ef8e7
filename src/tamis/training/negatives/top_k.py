"""Top-k negatives: the best-ranked documents that are no answers. The control of every other miner.

Source: Karpukhin et al. 2020, Dense Passage Retrieval, arXiv:2004.04906 (BM25 negatives).
"""

from typing import Annotated, Literal

from pydantic import Field

from tamis.data import Qrels, Run
from tamis.training.negatives.base import Miner, answers, first


class TopK(Miner):
    """Keep the first documents that are no answers, hardest first.

    Many of the very first are answers that nobody judged: `PositiveAware` leaves those out by their score, ``skip``
    by their rank.

    Attributes:
      num_negatives: documents kept of each query; fewer when its run is short.
      skip: ranks of the run left out at its head, answers counted.
    """

    method: Literal["top_k"] = "top_k"
    num_negatives: Annotated[int, Field(ge=1)] = 7
    skip: Annotated[int, Field(ge=0)] = 0

    def mine(self, run: Run, qrels: Qrels, *, seed: int) -> Run:
        """Return each query's first negatives. O(N log N) for N rows.

        Args:
          run: candidates of any search; their order alone counts.
          qrels: answers.
          seed: unused; every miner takes it.
        """
        return first(run, ~answers(run, qrels) & (run.ranks > self.skip), self.num_negatives)
