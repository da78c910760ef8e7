"""False negatives: unlabelled documents that score like the answer are probably answers, and are not pushed away.

Source: Moreira et al. 2024, NV-Retriever, arXiv:2407.15831 (relative margin of a teacher's score); Solatorio 2024,
GISTEmbed, arXiv:2402.16829 (the judge may be the student itself). Known answers are never negatives anyway.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.data.settings import Settings
from tamis.training.objectives.base import Batch, target_scores, teacher_scores

if TYPE_CHECKING:
    from torch import Tensor


class FalseNegatives(Settings):
    """Hide from a loss what scores above the drawn answer's score less a margin.

    Attributes:
      judge: whose scores: "student": cosines of the model in training, hence of no use before it knows anything;
        "teacher": scores that came with the batch; a query whose answer the teacher did not score hides nothing.
      margin: how far below the answer's score hiding begins; below 0 it begins above it.
      unit: "score": of the margin as it stands; "share": the margin is a share of the answer's absolute score.
    """

    judge: Literal["student", "teacher"] = "teacher"
    margin: Annotated[float, Field(ge=-100, le=100)] = 0.05
    unit: Literal["score", "share"] = "share"

    def hidden(self, score_BD: "Tensor", batch: Batch) -> "Tensor":
        """Return bool [B, D]: documents to leave out; the drawn answer never is.

        Args:
          score_BD: cosines of the student.
          batch: with a teacher's scores where it is the judge.

        Raises:
          DataError: the judge is a teacher and the batch has none.
        """
        judged_BD, known_BD = score_BD.detach(), None
        if self.judge == "teacher":
            judged_BD, known_BD = teacher_scores(batch, "false_negatives")
        own_B1 = target_scores(judged_BD, batch)
        ceiling_B1 = own_B1 - self.margin * (own_B1.abs() if self.unit == "share" else 1.0)
        hidden_BD = judged_BD > ceiling_B1
        if known_BD is not None:
            hidden_BD = hidden_BD & known_BD & target_scores(known_BD, batch)
        return hidden_BD.scatter(1, batch.target_B[:, None], value=False)


def hidden_documents(score_BD: "Tensor", batch: Batch, mask: FalseNegatives | None) -> "Tensor":
    """Return bool [B, D]: answers that were not drawn, and what a mask takes for answers."""
    others_BD = batch.other_answers
    return others_BD if mask is None else others_BD | mask.hidden(score_BD, batch)
