"""PairwiseLogistic: the right document before each other one, pair by pair.

Source: Zhan et al. 2021, STAR, arXiv:2104.08051 (in-batch and static hard negatives); RankNet, Burges et al. 2005.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.training.objectives.base import Batch, Objective, mean_over_scores, unit
from tamis.training.objectives.false_negatives import FalseNegatives, hidden_documents

if TYPE_CHECKING:
    from torch import Tensor


def pairwise_logistic_loss(score_BD: "Tensor", target_B: "Tensor", hidden_BD: "Tensor") -> "Tensor":
    """Return [B]: the mean over a query's negatives n of softplus(s_n - s_target); 0 where it has none.

    Args:
      score_BD: scores / temperature.
      target_B: column of each query's answer.
      hidden_BD: documents that are no negatives; the targets never are.
    """
    from torch.nn.functional import softplus

    pairs_BD = ~hidden_BD.scatter(1, target_B[:, None], value=True)
    loss_BD = softplus(score_BD - score_BD.gather(1, target_B[:, None])).masked_fill(~pairs_BD, 0.0)
    return loss_BD.sum(dim=1) / pairs_BD.sum(dim=1).clamp(min=1)


class PairwiseLogistic(Objective):
    """The logistic loss of every pair of a query's drawn answer and a document of the batch that is no answer of it.

    A softmax is ruled by the hardest negatives; here each counts for itself, so that static hard negatives and the
    easy ones of the batch stay in balance.

    Attributes:
      temperature: divides cosines, whose differences are too small for the logistic function as they stand.
      mask: which unlabelled documents are taken for answers of their query and left out; None leaves none out.
    """

    method: Literal["pairwise_logistic"] = "pairwise_logistic"
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05
    mask: FalseNegatives | None = None

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; O(B·D·H), memory flat in B."""

        def loss(cosine_bD: "Tensor", part: Batch) -> "Tensor":
            hidden_bD = hidden_documents(cosine_bD, part, self.mask)
            return pairwise_logistic_loss(cosine_bD / self.temperature, part.target_B, hidden_bD)

        return mean_over_scores(loss, unit(query_BH), unit(document_DH), batch)
