"""SoftTargets: cross-entropy with a mixture of the labels and a teacher's distribution.

Source: Hinton et al. 2015, arXiv:1503.02531 (soft and hard targets); Srinivasa et al. 2023, CWCL, arXiv:2309.14580
(in-batch documents attract by a frozen model's weights); the mixture over labelled and scored columns: tamis.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.training.objectives.base import Batch, Objective, mean_over_scores, teacher_scores, unit

if TYPE_CHECKING:
    from torch import Tensor


def soft_target_loss(score_BD: "Tensor", share_BD: "Tensor", hidden_BD: "Tensor") -> "Tensor":
    """Return [B] cross-entropies of softmax(score) over what is not hidden with shares, 0 where hidden."""
    shown_BD = score_BD.masked_fill(hidden_BD, float("-inf"))
    # The sum over documents of share · (log-sum - score), without a product of 0 and infinity.
    return shown_BD.logsumexp(dim=1) * share_BD.sum(dim=1) - (share_BD * score_BD).sum(dim=1)


class SoftTargets(Objective):
    """InfoNCE whose target is shared between the answers and what a teacher finds similar.

    The labels' part is shared evenly by the drawn answer and the other answers that the teacher scored; answers that it
    did not score are left out, as in InfoNCE. A query without teacher scores has its labels alone.

    Attributes:
      teacher_share: of the target, 0 for labels alone, 1 for the teacher alone.
      temperature: of the student's softmax.
      teacher_temperature: of the teacher's, in the units of its scores.
    """

    method: Literal["soft_targets"] = "soft_targets"
    teacher_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05
    teacher_temperature: Annotated[float, Field(gt=0)] = 1.0

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; O(B·D·H), memory flat in B.

        Raises:
          DataError: the batch has no teacher.
        """

        def loss(cosine_bD: "Tensor", part: Batch) -> "Tensor":
            return soft_target_loss(cosine_bD / self.temperature, *self._targets(part))

        return mean_over_scores(loss, unit(query_BH), unit(document_DH), batch)

    def _targets(self, batch: Batch) -> "tuple[Tensor, Tensor]":
        """Return the shares [B, D] of the target, and which documents stay out."""
        import torch

        teacher_BD, known_BD = teacher_scores(batch, self.method)
        hidden_BD = batch.other_answers & ~known_BD
        label_BD = (batch.relevant_BD & ~hidden_BD).to(teacher_BD.dtype)
        label_BD = label_BD / label_BD.sum(dim=1, keepdim=True).clamp(min=1)
        floor = torch.finfo(teacher_BD.dtype).min / 2  # finite, so that a row without scores has no 0 / 0
        soft_BD = (teacher_BD / self.teacher_temperature).masked_fill(~known_BD, floor).softmax(dim=1)
        mix_B1 = self.teacher_share * known_BD.any(dim=1, keepdim=True)
        return (1 - mix_B1) * label_BD + mix_B1 * soft_BD, hidden_BD
