"""MarginMSE: the differences that a teacher sees between documents, whatever the level of its scores.

Source: Hofstätter et al. 2020, arXiv:2010.02666.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.training.objectives.base import Batch, Objective, mean_over_scores, teacher_scores, unit

if TYPE_CHECKING:
    from torch import Tensor


def margin_mse_loss(score_BD: "Tensor", teacher_BD: "Tensor", known_BD: "Tensor", target_B: "Tensor") -> "Tensor":
    """Return [B]: the mean over a query's other documents d of ((s_target - s_d) - (t_target - t_d))².

    Args:
      score_BD: of the student.
      teacher_BD: of the teacher, finite.
      known_BD: where the teacher gave a score; a query whose target it did not score has loss 0.
      target_B: column of each query's answer.
    """
    gap_BD = score_BD - teacher_BD
    own_B1 = target_B[:, None]
    pairs_BD = known_BD.scatter(1, own_B1, value=False) & known_BD.gather(1, own_B1)
    loss_BD = ((gap_BD.gather(1, own_B1) - gap_BD) ** 2).masked_fill(~pairs_BD, 0.0)
    return loss_BD.sum(dim=1) / pairs_BD.sum(dim=1).clamp(min=1)


class MarginMSE(Objective):
    """Squared error of the score differences between the drawn answer and every other document the teacher scored.

    Attributes:
      similarity: of the student. Margins of cosines are at most 2, those of a reranker's logits reach 10 and more: the
        scale makes up for it, or "dot", whose vectors may grow.
      scale: student's scores are times this; 1 is usual with "dot".
    """

    method: Literal["margin_mse"] = "margin_mse"
    similarity: Literal["cosine", "dot"] = "cosine"
    scale: Annotated[float, Field(gt=0)] = 20.0

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; one whose answer, or nothing else, the teacher scored counts 0.

        Raises:
          DataError: the batch has no teacher.
        """

        def loss(score_bD: "Tensor", part: Batch) -> "Tensor":
            return margin_mse_loss(score_bD * self.scale, *teacher_scores(part, self.method), part.target_B)

        if self.similarity == "cosine":
            query_BH, document_DH = unit(query_BH), unit(document_DH)
        return mean_over_scores(loss, query_BH, document_DH, batch)
