"""SoftTopK: the right answers among the first k, by a top-k that has a gradient.

Source: Gupta et al. 2024, Dual-Encoders for Extreme Multi-Label Classification, arXiv:2310.10636 (soft top-k).
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.training.objectives.base import Batch, Objective, mean_over_scores, unit

if TYPE_CHECKING:
    from torch import Tensor

_HALVINGS = 64
_EDGE = 10.0


def soft_top_k_logits(score_BD: "Tensor", count_B1: "Tensor", slope: float) -> "Tensor":
    """Return z [B, D] such that sigmoid(z) sums to ``count`` in each row and z falls with the score.

    z = slope · (score + t), one t a row, found by halving an interval; its gradient is that of the equation
    (dt/ds_j = -y_j (1 - y_j) / sum of y (1 - y)), so that nothing of the search is kept. 64 passes over [B, D].

    Args:
      score_BD: finite scores.
      count_B1: [B, 1], above 0 and below D.
      slope: how hard the step from out to in is.
    """
    import torch

    fixed_BD = score_BD.detach()
    edge = (_EDGE + math.log(score_BD.shape[1])) / slope  # there even D documents of equal score are all out, or in
    low_B1 = -fixed_BD.amax(dim=1, keepdim=True) - edge
    high_B1 = -fixed_BD.amin(dim=1, keepdim=True) + edge
    for _ in range(_HALVINGS):
        middle_B1 = (low_B1 + high_B1) / 2
        is_short = torch.sigmoid(slope * (fixed_BD + middle_B1)).sum(dim=1, keepdim=True) < count_B1
        low_B1, high_B1 = torch.where(is_short, middle_B1, low_B1), torch.where(is_short, high_B1, middle_B1)
    shift_B1 = (low_B1 + high_B1) / 2
    inner_BD = slope * (fixed_BD + shift_B1)
    share_BD = torch.sigmoid(inner_BD) * torch.sigmoid(-inner_BD)
    share_BD = share_BD / share_BD.sum(dim=1, keepdim=True).clamp(min=torch.finfo(share_BD.dtype).tiny)
    moved_B1 = (share_BD * (score_BD - fixed_BD)).sum(dim=1, keepdim=True)  # 0, and the gradient of -t
    return slope * (score_BD + shift_B1 - moved_B1)


class SoftTopK(Objective):
    """-log of each answer's soft membership in the first k documents of the batch.

    Attributes:
      k: size of the top, at most all documents but one; None: the number of the query's answers in the batch. A k below
        that number makes answers compete. The paper's is 5.
      slope: of the step, on cosines / temperature; the paper's is 2.
      temperature: divides the cosines.
    """

    method: Literal["soft_top_k"] = "soft_top_k"
    k: Annotated[int, Field(ge=1)] | None = 5
    slope: Annotated[float, Field(gt=0, le=100)] = 2.0
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; memory flat in B. A query all of whose documents are answers has loss 0."""
        return mean_over_scores(self._loss, unit(query_BH), unit(document_DH), batch)

    def _loss(self, cosine_bD: "Tensor", batch: Batch) -> "Tensor":
        import torch
        from torch.nn.functional import logsigmoid

        score_bD = cosine_bD / self.temperature
        num_docs = score_bD.shape[1]
        if num_docs < 2:
            return (score_bD * 0).sum(dim=1)
        num_b1 = batch.relevant_BD.sum(dim=1, keepdim=True)
        count_b1 = num_b1 if self.k is None else torch.full_like(num_b1, self.k)
        logits_bD = soft_top_k_logits(score_bD, count_b1.clamp(1, num_docs - 1), self.slope)
        is_counted_bD = batch.relevant_BD & (num_b1 < num_docs)  # where all are answers nothing is to be learnt
        loss_bD = -logsigmoid(logits_bD).masked_fill(~is_counted_bD, 0.0)
        return loss_bD.sum(dim=1) / num_b1[:, 0].clamp(min=1)
