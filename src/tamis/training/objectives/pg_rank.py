"""PG-RANK: the expected nDCG of rankings drawn from the scores, by policy gradient.

Source: Gao et al. 2023, PG-RANK, arXiv:2310.04407; Plackett-Luce by Gumbel noise: Kool et al. 2019, arXiv:1903.06059.
"""

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.ops.hashing import gumbel
from tamis.training.objectives.base import Batch, Objective, mean_over_scores, unit

if TYPE_CHECKING:
    from torch import Tensor


def plackett_luce_log(score_XD: "Tensor", k: int) -> "Tensor":
    """Return [X] log-probabilities of the first k places of rankings.

    Args:
      score_XD: scores of all D documents in the order of the ranking (any number of leading axes).
      k: places that count, at most D.
    """
    left_XD = score_XD.flip(-1).logcumsumexp(dim=-1).flip(-1)  # of what is not yet placed
    return (score_XD - left_XD)[..., :k].sum(dim=-1)


def leave_one_out(utility_BM: "Tensor") -> "Tensor":
    """Return [B, M]: each sample's utility less the mean of the others', which leaves the gradient unbiased."""
    num = utility_BM.shape[1]
    return (utility_BM - utility_BM.mean(dim=1, keepdim=True)) * (num / (num - 1))


def ndcg(relevant_BMD: "Tensor", num_relevant_B: "Tensor", k: int) -> "Tensor":
    """Return [B, M] nDCG at k of right answers in the order of rankings; 0 where a query has none."""
    import torch

    device = relevant_BMD.device
    gain_k = 1 / torch.log2(torch.arange(2, k + 2, device=device, dtype=torch.float64))
    ideal_B = torch.cat([gain_k.new_zeros(1), gain_k.cumsum(0)])[num_relevant_B.clamp(max=k)]
    found_BM = (relevant_BMD[..., :k] * gain_k).sum(dim=-1)
    return found_BM / ideal_B.clamp(min=1e-12)[:, None]


class PGRank(Objective):
    """Rankings of the batch's documents are drawn by softmax of cosines / temperature; good ones become likelier.

    The value is 1 less the mean nDCG of the draws; its gradient is that of the expectation, by samples. Where all draws
    of a query are equally good it is 0: add InfoNCE with a small weight (objective "weighted").

    Attributes:
      num_rankings: drawn a query.
      k: of nDCG.
      temperature: of the softmax.
    """

    method: Literal["pg_rank"] = "pg_rank"
    num_rankings: Annotated[int, Field(ge=2)] = 16
    k: Annotated[int, Field(ge=1)] = 10
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; O(B·D·num_rankings·log D), the memory of a block of rows at a time."""
        return mean_over_scores(self._loss, unit(query_BH), unit(document_DH), batch)

    def _loss(self, cosine_bD: "Tensor", batch: Batch) -> "Tensor":
        import torch

        score_bD = cosine_bD / self.temperature
        num_queries, num_docs = score_bD.shape
        k, shape = min(self.k, num_docs), (num_queries, self.num_rankings, num_docs)
        noise_bMD = torch.from_numpy(_noise(batch, shape)).to(score_bD.device)
        score_bMD = score_bD[:, None].expand(shape)
        order_bMD = (score_bMD.detach() + noise_bMD).argsort(dim=-1, descending=True, stable=True)
        relevant_bMD = batch.relevant_BD[:, None].expand(shape).gather(-1, order_bMD)
        utility_bM = ndcg(relevant_bMD, batch.relevant_BD.sum(dim=1), k).to(score_bD.dtype)
        log_bM = plackett_luce_log(score_bMD.gather(-1, order_bMD), k)
        slope_b = -(leave_one_out(utility_bM) * log_bM).mean(dim=1)
        return 1 - utility_bM.mean(dim=1) + slope_b - slope_b.detach()


def _noise(batch: Batch, shape: tuple[int, int, int]) -> np.ndarray:
    """float64 [b, M, D] Gumbel noise by the seed of the step, query, ranking and column."""
    num_queries, num_rankings, num_docs = shape
    first = np.uint64(batch.first_row * num_rankings)
    draw_bM = np.arange(num_queries * num_rankings, dtype=np.uint64) + first
    keys = (draw_bM[:, None] << np.uint64(32)) | np.arange(num_docs, dtype=np.uint64)[None, :]
    return gumbel(keys, batch.seed, "gumbel").reshape(shape)
