"""Static hard negatives: what a warmed-up encoder ranks high, found once and then drawn from in every epoch.

Source: Zhan et al. 2021, Optimizing Dense Retrieval Model Training with Hard Negatives, arXiv:2104.08051 (STAR).
"""

from typing import Annotated, Literal

from pydantic import Field

from tamis.data import Qrels, Run
from tamis.training.negatives.base import Miner, answers


class STAR(Miner):
    """Keep everything within the first ranks that is no answer; fine-tuning draws of it anew in each epoch.

    The static half of STAR. The other half, random negatives that keep training stable, are the other queries'
    documents in the batch; its loss is an objective.

    Attributes:
      max_rank: ranks of the warmed-up encoder's run, from 1; 200 in the paper.
    """

    method: Literal["star"] = "star"
    max_rank: Annotated[int, Field(ge=1)] = 200

    def mine(self, run: Run, qrels: Qrels, *, seed: int) -> Run:
        """Return the pool of each query, hardest first; at most ``max_rank`` documents. O(N log N) for N rows.

        Args:
          run: ranking of the training queries by the encoder after its warm-up.
          qrels: answers.
          seed: unused here: the draw of an epoch is the training step's.
        """
        return run.filter(~answers(run, qrels) & (run.ranks <= self.max_rank))
