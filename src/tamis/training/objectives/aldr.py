"""ALDR: each query its own temperature: sharp where its answer is clear, soft where labels may be wrong.

Source: Zhu et al. 2023, Label Distributionally Robust Losses, arXiv:2112.14869 (ALDR-KL). The paper keeps a
temperature a query from step to step; here it is found within the step: the loss is a function of its arguments alone.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.training.objectives.base import Batch, Objective, mean_over_scores, target_scores, unit

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDS = 10


def adapted_temperature(
    score_BD: "Tensor", num_B1: "Tensor", start: float, stiffness: float, rounds: int = _ROUNDS
) -> "Tensor":
    """Return [B, 1]: start · (1 - KL(softmax(score / temperature) || uniform) / (stiffness · log K)), iterated.

    Each round maximises, over one of its two arguments at a time, what the loss is the maximum of: values only rise.

    Args:
      score_BD: scores, -inf where a document does not count.
      num_B1: documents that count, K.
      start: temperature of a query whose scores are all equal.
      stiffness: above 1; the temperature stays above start · (1 - 1 / stiffness).
      rounds: updates.
    """
    import torch

    log_num_B1 = num_B1.to(score_BD.dtype).log()
    found_B1 = torch.full_like(log_num_B1, start)
    for _ in range(rounds):
        log_share_BD = (score_BD / found_B1).log_softmax(dim=1)
        surprise_BD = log_share_BD.exp() * (log_share_BD + log_num_B1)
        distance_B1 = surprise_BD.masked_fill(score_BD.isneginf(), 0.0).sum(dim=1, keepdim=True)
        share_B1 = torch.where(log_num_B1 > 0, distance_B1 / log_num_B1.clamp(min=1e-6), torch.zeros_like(log_num_B1))
        found_B1 = start * (1 - share_B1.clamp(0, 1) / stiffness)
    return found_B1


class ALDR(Objective):
    """temperature · log of the mean of exp((s + margin - s_answer) / temperature), the temperature adapted a query.

    In units of the score: its gradient is about ``temperature`` times that of InfoNCE.

    Attributes:
      temperature: of a query whose documents all score alike; the start of every query.
      stiffness: how hard it is to move away from it, above 1.
      margin: by which the answer should win, in units of the cosine.
    """

    method: Literal["aldr"] = "aldr"
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05
    stiffness: Annotated[float, Field(gt=1, le=1000)] = 2.0
    margin: Annotated[float, Field(ge=0, le=2)] = 0.1

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; memory flat in B, ten softmaxes over [B, D] for the temperatures."""

        def loss(score_bD: "Tensor", part: Batch) -> "Tensor":
            return aldr_loss(score_bD, part, self.temperature, self.stiffness, self.margin)

        return mean_over_scores(loss, unit(query_BH), unit(document_DH), batch)


def aldr_loss(score_BD: "Tensor", batch: Batch, temperature: float, stiffness: float, margin: float) -> "Tensor":
    """Return [B]: the maximum over distributions p and temperatures of p·d - temperature · KL(p || uniform) - penalty.

    d = s + margin - s_answer, 0 for the answer; penalty = stiffness · log K · (temperature - start)² / (2 start).
    """
    hidden_BD = batch.other_answers
    lead_BD = score_BD - target_scores(score_BD, batch) + margin
    lead_BD = lead_BD.scatter(1, batch.target_B[:, None], 0.0).masked_fill(hidden_BD, float("-inf"))
    num_B1 = (~hidden_BD).sum(dim=1, keepdim=True)
    own_B1 = adapted_temperature(lead_BD.detach(), num_B1, temperature, stiffness)
    log_num_B = num_B1[:, 0].to(score_BD.dtype).log()
    penalty_B = stiffness * log_num_B / (2 * temperature) * (own_B1[:, 0] - temperature) ** 2
    return own_B1[:, 0] * ((lead_BD / own_B1).logsumexp(dim=1) - log_num_B) - penalty_B
