"""Positive-aware negatives: the top of a run, minus what scores like an answer.

Source: Moreira et al. 2024, NV-Retriever, arXiv:2407.15831 (its TopK-PercPos).
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data import Qrels, Run
from tamis.errors import DataError
from tamis.training.negatives.base import Miner, answers, ceilings, first


class PositiveAware(Miner):
    """Keep the best-scored documents that stay a margin below the weakest answer.

    An unjudged document that scores as an answer does is often one; training would push it away, and the encoder
    would learn the mistake. Scores must be those of one scorer (`rescored`, or a teacher's), for a fused run has none.

    Attributes:
      num_negatives: documents kept of each query; fewer when its run is short.
      margin_frac: gap to the weakest answer, as a share of |its score|; 0.05 in the paper.
    """

    method: Literal["positive_aware"] = "positive_aware"
    num_negatives: Annotated[int, Field(ge=1)] = 7
    margin_frac: Annotated[float, Field(ge=0, lt=1)] = 0.05

    def mine(self, run: Run, qrels: Qrels, *, seed: int) -> Run:
        """Return each query's first negatives below its ceiling. O(N log N) for N rows.

        Args:
          run: candidates, the answers among them; scores on any scale that has a zero, higher is better.
          qrels: answers.
          seed: unused; every miner takes it.

        Raises:
          DataError: a query has candidates but no scored answer, which sets the ceiling; names it.
        """
        is_answer = answers(run, qrels)
        ceiling = ceilings(run, is_answer, self.margin_frac)
        open_ = np.flatnonzero(np.isnan(ceiling) & (np.diff(run.offsets) > 0))
        if len(open_):
            row = int(open_[0])
            raise DataError(
                f"positive_aware: query {run.query_ids[row]}: none of its answers is among its "
                f"{run.offsets[row + 1] - run.offsets[row]} candidates ({len(open_)} of {len(ceiling)} queries have "
                "none). Have the search score answers whatever their rank (include=qrels), or leave such queries out."
            )
        return first(run, ~is_answer & (run.scores <= ceiling[run.query_rows]), self.num_negatives)
