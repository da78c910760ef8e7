"""ListDistil: a teacher's scores of a query's documents, learnt as a distribution, as an order, or one by one.

Source: Hinton et al. 2015, arXiv:1503.02531 (kl); Zhang et al. 2023, LLM-Embedder, arXiv:2310.07554 (stable);
Li et al. 2023, UDR, arXiv:2305.04320 (lambda); Xia et al. 2008, ListMLE, with the discounts of Järvelin,
Kekäläinen 2002 (rank_weighted).
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from tamis.errors import RecipeError
from tamis.training.objectives.base import Batch, Objective, mean_over_scores, teacher_scores, unit

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["kl", "clipped_kl", "stable", "lambda", "rank_weighted", "pointwise"]
_MASS = 0.9


class ListDistil(Objective):
    """Learn from all documents of the batch that the teacher scored for a query, whatever their labels.

    Kinds "kl" and "clipped_kl" copy its distribution, all of it or the smallest head; "stable" takes every document as
    the answer against those below it and against what the teacher does not know, weighted by its distribution; "lambda"
    and "rank_weighted" see its order alone; "pointwise" copies probabilities. Documents of equal teacher score never
    compete. Nothing but "stable" sees in-batch negatives: add InfoNCE (objective "weighted"), at 0.1 to 0.2, at 1 for
    "lambda" in its paper.

    Attributes:
      kind: as above.
      temperature: of the student's cosines. Hinton's factor temperature² is left out: it is right for temperatures
        that soften, above 1; below, it makes the gradient vanish.
      teacher_temperature: of its scores; None: their standard deviation in each query's list, 1 for "pointwise".
      mass: of the teacher's distribution that "clipped_kl" keeps.
      offset: added to the student's score for "pointwise".
    """

    method: Literal["list_distil"] = "list_distil"
    kind: Kind = "kl"
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05
    teacher_temperature: Annotated[float, Field(gt=0)] | None = None
    mass: Annotated[float, Field(gt=0, le=1)] = _MASS
    offset: float = 0.0

    @model_validator(mode="after")
    def _without_effect(self) -> Self:
        """Refuse settings that the kind does not read."""
        unread = {
            "mass": self.mass != _MASS and self.kind != "clipped_kl",
            "offset": self.offset != 0 and self.kind != "pointwise",
            "teacher_temperature": self.teacher_temperature is not None and self.kind in ("lambda", "rank_weighted"),
        }
        for name, is_unread in unread.items():
            if is_unread:
                raise RecipeError(f"ListDistil: {name} has no effect on kind {self.kind!r}. Leave it out.")
        return self

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; those without a teacher score count 0.

        Cost: O(B·D·H), and O(b·K²) held for b rows whose longest list has K documents.

        Raises:
          DataError: the batch has no teacher.
        """

        def loss(cosine_bD: "Tensor", part: Batch) -> "Tensor":
            return self.of_scores(cosine_bD / self.temperature, *teacher_scores(part, self.method), part.relevant_BD)

        return mean_over_scores(loss, unit(query_BH), unit(document_DH), batch)

    def of_scores(
        self, score_BD: "Tensor", teacher_BD: "Tensor", known_BD: "Tensor", relevant_BD: "Tensor"
    ) -> "Tensor":
        """Return [B] losses of scores that are divided by the temperature already.

        Args:
          score_BD: of the student.
          teacher_BD: finite scores of the teacher.
          known_BD: where it gave one.
          relevant_BD: right answers: without a teacher score they are left out.
        """
        size = max(1, int(known_BD.sum(dim=1).max()))
        order_BK = known_BD.byte().argsort(dim=1, descending=True, stable=True)[:, :size]
        lists = score_BD.gather(1, order_BK), teacher_BD.gather(1, order_BK), known_BD.gather(1, order_BK)
        if self.kind == "pointwise":
            return _pointwise(*lists, self.offset, self.teacher_temperature or 1.0)
        if self.kind == "lambda":
            return _pairs_by_rank(*lists)
        if self.kind == "rank_weighted":
            return _list_likelihood(*lists)
        share_BK = _teacher_share(lists[1], lists[2], self.teacher_temperature)
        if self.kind == "stable":
            return _stable(*lists, share_BK, _log_sum(score_BD, ~known_BD & ~relevant_BD))
        if self.kind == "clipped_kl":
            head_BK = _head(lists[1], lists[2], share_BK, self.mass)
            lists = lists[0], lists[1], head_BK
            share_BK = share_BK * head_BK / (share_BK * head_BK).sum(dim=1, keepdim=True).clamp(min=_TINY)
        return _divergence(lists[0], lists[2], share_BK)


_TINY = 1e-30
_FLOOR = -1e30
"""In place of -inf, so that an empty list is 0 times something finite."""


def _log_sum(score_BK: "Tensor", counts_BK: "Tensor") -> "Tensor":
    """Return [B] log-sums of exp over what counts."""
    return score_BK.masked_fill(~counts_BK, _FLOOR).logsumexp(dim=1)


def _teacher_share(teacher_BK: "Tensor", known_BK: "Tensor", temperature: float | None) -> "Tensor":
    """Return the teacher's distribution over each list, 0 beyond its end."""
    if temperature is None:
        num_B1 = known_BK.sum(dim=1, keepdim=True).clamp(min=1)
        mean_B1 = (teacher_BK * known_BK).sum(dim=1, keepdim=True) / num_B1
        spread_B1 = (((teacher_BK - mean_B1) * known_BK) ** 2).sum(dim=1, keepdim=True) / num_B1
        spread_B1 = spread_B1.sqrt()
        scaled_BK = teacher_BK / spread_B1.masked_fill(spread_B1 <= _TINY, 1.0)
    else:
        scaled_BK = teacher_BK / temperature
    return scaled_BK.masked_fill(~known_BK, _FLOOR).softmax(dim=1) * known_BK


def _above(teacher_BK: "Tensor", known_BK: "Tensor") -> "Tensor":
    """Return bool [B, K, K]: the row's document stands strictly above the column's, both in the list."""
    is_above = teacher_BK[:, :, None] > teacher_BK[:, None, :]
    return is_above & known_BK[:, :, None] & known_BK[:, None, :]


def _ranks(above_BKK: "Tensor") -> "Tensor":
    """Return [B, K] ranks from 1; equal scores share the best."""
    return 1 + above_BKK.sum(dim=1)


def _head(teacher_BK: "Tensor", known_BK: "Tensor", share_BK: "Tensor", mass: float) -> "Tensor":
    """Return bool [B, K]: the fewest best documents that hold the mass, and those equal to the last of them."""
    before_BK = (share_BK[:, :, None] * _above(teacher_BK, known_BK)).sum(dim=1)
    return known_BK & (before_BK < mass)


def _divergence(score_BK: "Tensor", known_BK: "Tensor", share_BK: "Tensor") -> "Tensor":
    """Return [B] KL(share || softmax(score)) over what is in the list."""
    log_student_BK = score_BK.masked_fill(~known_BK, _FLOOR).log_softmax(dim=1)
    gap_BK = share_BK.clamp(min=_TINY).log() - log_student_BK
    return (share_BK * gap_BK.masked_fill(~known_BK, 0.0)).sum(dim=1)


def _stable(
    score_BK: "Tensor", teacher_BK: "Tensor", known_BK: "Tensor", share_BK: "Tensor", others_B: "Tensor"
) -> "Tensor":
    """Return [B]: each document as the answer against itself, those below and the log-sum of others."""
    import torch

    own_KK = torch.eye(score_BK.shape[1], dtype=torch.bool, device=score_BK.device)
    against_BKK = score_BK[:, None, :].masked_fill(~(_above(teacher_BK, known_BK) | own_KK), _FLOOR)
    log_sum_BK = torch.logaddexp(against_BKK.logsumexp(dim=2), others_B[:, None])
    return (share_BK * (log_sum_BK - score_BK)).sum(dim=1)


def _pairs_by_rank(score_BK: "Tensor", teacher_BK: "Tensor", known_BK: "Tensor") -> "Tensor":
    """Return [B]: sum over pairs in the teacher's order of (1 / r_i - 1 / r_j) · softplus(s_j - s_i)."""
    from torch.nn.functional import softplus

    above_BKK = _above(teacher_BK, known_BK)
    gain_BK = 1 / _ranks(above_BKK)
    weight_BKK = (gain_BK[:, :, None] - gain_BK[:, None, :]) * above_BKK
    return (weight_BKK * softplus(score_BK[:, None, :] - score_BK[:, :, None])).sum(dim=(1, 2))


def _list_likelihood(score_BK: "Tensor", teacher_BK: "Tensor", known_BK: "Tensor") -> "Tensor":
    """Return [B]: sum over documents of -log(chance to come first among those not above it) / log2(1 + rank)."""
    above_BKK = _above(teacher_BK, known_BK)
    rivals_BKK = ~above_BKK.transpose(1, 2) & known_BK[:, None, :]
    log_sum_BK = score_BK[:, None, :].masked_fill(~rivals_BKK, _FLOOR).logsumexp(dim=2)
    weight_BK = known_BK / (1 + _ranks(above_BKK)).log2()
    return (weight_BK * (log_sum_BK - score_BK)).sum(dim=1)


def _pointwise(
    score_BK: "Tensor", teacher_BK: "Tensor", known_BK: "Tensor", offset: float, temperature: float
) -> "Tensor":
    """Return [B]: mean squared difference of the two probabilities."""
    gap_BK = ((score_BK + offset).sigmoid() - (teacher_BK / temperature).sigmoid()) * known_BK
    return (gap_BK**2).sum(dim=1) / known_BK.sum(dim=1).clamp(min=1)
