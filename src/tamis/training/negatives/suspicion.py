"""Suspected: how many mined negatives score like an answer, and so may be answers that nobody judged.

Source: tamis design (training engine), by the criterion of Moreira et al. 2024, arXiv:2407.15831.
"""

from dataclasses import dataclass

import numpy as np

from tamis.data import Qrels, Run
from tamis.training.negatives.base import answers, ceilings, pair_keys, places


@dataclass(frozen=True)
class Suspicion:
    """What may be wrong with mined negatives.

    Attributes:
      num_queries: queries of the mined run.
      num_short: of them, those with fewer negatives than wanted.
      num_mined: mined pairs.
      num_judged: of them, pairs whose score and whose query's worst answer's are both known.
      pairs: judged pairs that score above their ceiling, with those scores; look at some.
    """

    num_queries: int
    num_short: int
    num_mined: int
    num_judged: int
    pairs: Run

    @property
    def suspected_frac(self) -> float:
        """Share of the judged pairs that are suspected; 0 where none could be judged."""
        return len(self.pairs) / max(1, self.num_judged)


def suspected(mined: Run, scored: Run, qrels: Qrels, *, margin_frac: float = 0.05, num_negatives: int = 1) -> Suspicion:
    """Report which mined negatives score within a margin of their query's worst answer, or above it.

    Args:
      mined: negatives; its own scores are not read.
      scored: scores of one scorer for negatives and answers, the run mined from for one. A stronger scorer than the
        one that mined, a reranker, tells more.
      qrels: answers.
      margin_frac: of |the answer's score|; what `PositiveAware` with the same margin keeps is never suspected.
      num_negatives: how many were wanted of each query.
    """
    ceiling = ceilings(scored, answers(scored, qrels), margin_frac)
    keys = pair_keys(mined, scored.query_ids, scored.doc_ids)
    scored_keys = scored.query_rows * max(1, len(scored.doc_ids)) + scored.docs
    order = np.argsort(scored_keys)
    at = np.minimum(np.searchsorted(scored_keys, keys, sorter=order), max(0, len(order) - 1))
    found = (keys >= 0) & (scored_keys[order][at] == keys) if len(order) else np.zeros(len(mined), dtype=bool)
    values = np.zeros(len(mined))
    values[found] = scored.scores[order[at[found]]]
    limit = np.append(ceiling, np.nan)[places(mined.query_ids, scored.query_ids)][mined.query_rows]
    judged = found & ~np.isnan(limit)
    above = judged.copy()
    above[judged] = values[judged] > limit[judged]
    pairs = Run(mined.query_ids, mined.doc_ids, mined.query_rows[above], mined.docs[above], values[above])
    short = int((np.diff(mined.offsets) < num_negatives).sum())
    return Suspicion(len(mined.query_ids), short, len(mined), int(judged.sum()), pairs)
