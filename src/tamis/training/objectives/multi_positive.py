"""MultiPositive: a query's right answers compete with wrong ones, never with each other.

Source: Gupta et al. 2024, Dual-Encoders for Extreme Multi-Label Classification, arXiv:2310.10636 (decoupled softmax).
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.training.objectives.base import Batch, Objective, mean_over_scores, unit
from tamis.training.objectives.false_negatives import FalseNegatives

if TYPE_CHECKING:
    from torch import Tensor


def decoupled_softmax_loss(score_BD: "Tensor", positive_BD: "Tensor", hidden_BD: "Tensor") -> "Tensor":
    """Return [B] losses: the mean over a query's positives of -log(e^s / (e^s + sum of e^s over its negatives)).

    Raising one positive's score leaves the terms of the others as they are; a plain softmax would raise them.

    Args:
      score_BD: scores / temperature.
      positive_BD: right answers; a query without one has loss 0, and so has one without a negative.
      hidden_BD: documents that are neither, where they are no positives.
    """
    from torch.nn.functional import softplus

    negatives_B1 = score_BD.masked_fill(positive_BD | hidden_BD, float("-inf")).logsumexp(dim=1, keepdim=True)
    loss_BD = softplus(negatives_B1 - score_BD).masked_fill(~positive_BD, 0.0)
    return loss_BD.sum(dim=1) / positive_BD.sum(dim=1).clamp(min=1)


class MultiPositive(Objective):
    """The decoupled softmax over cosines / temperature: all answers of a query that the batch holds are positives.

    Attributes:
      temperature: of the softmax.
      mask: which unlabelled documents are taken for answers of their query and left out; None leaves none out.
    """

    method: Literal["multi_positive"] = "multi_positive"
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05
    mask: FalseNegatives | None = None

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; O(B·D·H), memory flat in B. With one answer a query it is InfoNCE."""

        def loss(cosine_bD: "Tensor", part: Batch) -> "Tensor":
            hidden_bD = part.relevant_BD if self.mask is None else self.mask.hidden(cosine_bD, part)
            return decoupled_softmax_loss(cosine_bD / self.temperature, part.relevant_BD, hidden_bD)

        return mean_over_scores(loss, unit(query_BH), unit(document_DH), batch)
