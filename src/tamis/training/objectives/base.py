"""Objective: what a fine-tuning step minimises, a pure function of vectors and of what is known about their pairs.

Source: tamis design. Objectives see vectors and never models: gradient caching, layers, truncated widths and teachers
compose because of it. A teacher is a Run; its scores come with the batch.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tamis.data.settings import Settings
from tamis.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 512
"""Queries whose scores are held at a time, at most."""
SCORES = 1 << 20
"""Scores held at a time, of one query at least: memory of a loss is flat in the size of the batch."""


@dataclass(frozen=True)
class Batch:
    """What is known of a step's B queries and D documents. Tensors on the device of the vectors.

    Attributes:
      target_B: int64 [B]: column of the answer that was drawn for each query.
      relevant_BD: bool [B, D]: right answers, the targets among them; no negative of their query.
      negative_BN: int64 [B, N]: columns of each query's own mined negatives, -1 where it has fewer; N may be 0.
      teacher_BD: float32 [B, D] scores of a teacher, NaN where it gave none; None without a teacher.
      weight_B: float32 [B] weights of the queries, mean 1; None for equal ones.
      progress: share of the run that is done, 0 to 1.
      seed: of this step, for objectives that draw.
      first_row: place of the first query in the whole batch, so that draws do not depend on how it is cut.
    """

    target_B: "Tensor"
    relevant_BD: "Tensor"
    negative_BN: "Tensor"
    teacher_BD: "Tensor | None" = None
    weight_B: "Tensor | None" = None
    progress: float = 0.0
    seed: int = 0
    first_row: int = 0

    @property
    def other_answers(self) -> "Tensor":
        """Bool [B, D]: right answers that were not drawn: neither target nor negative."""
        return self.relevant_BD.scatter(1, self.target_B[:, None], value=False)

    def rows(self, part: slice) -> "Batch":
        """Return the same for some of the queries; the documents stay."""
        return replace(
            self,
            target_B=self.target_B[part],
            relevant_BD=self.relevant_BD[part],
            negative_BN=self.negative_BN[part],
            teacher_BD=None if self.teacher_BD is None else self.teacher_BD[part],
            weight_B=None if self.weight_B is None else self.weight_B[part],
            first_row=self.first_row + (part.start or 0),
        )


class Objective(Settings):
    """Base of the objectives: subclasses give `value` over vectors of one layer and one width."""

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """Return after which layers (from 1, the last one last) vectors are wanted; () for the last alone."""
        return ()

    def loss(self, query_SBH: "Tensor", document_SDH: "Tensor", batch: Batch) -> "Tensor":
        """Return the scalar to minimise, of the vectors of all layers asked for."""
        return self.value(query_SBH[-1], document_SDH[-1], batch)

    @abstractmethod
    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the scalar of vectors of any norm; float64 is kept, all else is computed in float32."""


def real(values: "Tensor") -> "Tensor":
    """Return float64 as it is and other types as float32: sums of exponentials lose small terms in half precision."""
    import torch

    return values if values.dtype == torch.float64 else values.float()


def unit(vector_nH: "Tensor") -> "Tensor":
    """Return vectors of norm 1, and a zero vector as it is. Documents once a loss, not once a block of queries."""
    from torch.nn.functional import normalize

    return normalize(real(vector_nH), dim=-1)


def cosine(query_BH: "Tensor", document_DH: "Tensor") -> "Tensor":
    """Return [B, D] cosines; a zero vector has cosine 0 with everything."""
    return unit(query_BH) @ unit(document_DH).T


def cosine_of_pairs(query_BH: "Tensor", document_BNH: "Tensor") -> "Tensor":
    """Return [B, N] cosines of each query with N documents of its own."""
    return (unit(query_BH)[:, None] * unit(document_BNH)).sum(dim=-1)


def target_scores(score_BD: "Tensor", batch: Batch) -> "Tensor":
    """Return [B, 1] scores of the answers that were drawn."""
    return score_BD.gather(1, batch.target_B[:, None])


def teacher_scores(batch: Batch, method: str) -> "tuple[Tensor, Tensor]":
    """Return [B, D] scores of the teacher, 0 where it gave no finite one, and bool [B, D] where it gave one.

    Raises:
      DataError: the step has no teacher.
    """
    if batch.teacher_BD is None:
        raise DataError(
            f"objective {method!r}: no scores of a teacher came with the batch. Give a run of a stronger model "
            "over the training queries (teacher=), or choose an objective that needs labels alone, such as info_nce."
        )
    known_BD = batch.teacher_BD.isfinite()
    return batch.teacher_BD.masked_fill(~known_BD, 0.0), known_BD


def mean_over_scores(
    loss: "Callable[[Tensor, Batch], Tensor]", query_BH: "Tensor", document_DH: "Tensor", batch: Batch
) -> "Tensor":
    """Return the weighted mean over queries of a loss of their inner products with all documents.

    Blocks of queries go one after the other, so that memory is flat in B beside the vectors and the batch.

    Args:
      loss: from scores [b, D] of some queries and their batch to [b] losses.
      query_BH: all queries, of norm 1 (`unit`) where scores are to be cosines.
      document_DH: all documents, likewise.
      batch: of all.
    """
    document_DH = real(document_DH)

    def rows(query_bH: "Tensor", part: Batch) -> "Tensor":
        return weighted(loss(query_bH @ document_DH.T, part), part).sum()

    return mean_over_rows(rows, real(query_BH), batch)


def mean_over_rows(value: "Callable[[Tensor, Batch], Tensor]", query_BH: "Tensor", batch: Batch) -> "Tensor":
    """Return the mean of a loss that is a sum over queries, some rows at a time, so that memory stays flat.

    The scores of a block are computed again for its gradient, where there is more than one block.

    Args:
      value: from vectors [b, H] of some queries and their batch to the **sum** of their losses; draws nothing from
        torch's own generator.
      query_BH: all queries.
      batch: of all.
    """
    from torch.utils.checkpoint import checkpoint

    size = len(query_BH)
    held = max(1, min(ROWS, SCORES // max(1, batch.relevant_BD.shape[1])))
    if size <= held:
        return value(query_BH, batch) / max(1, size)
    parts = [slice(start, start + held) for start in range(0, size, held)]
    sums = [
        checkpoint(value, query_BH[part], batch.rows(part), use_reentrant=False, preserve_rng_state=False)
        for part in parts
    ]
    return sum(sums[1:], start=sums[0]) / size


def weighted(loss_B: "Tensor", batch: Batch) -> "Tensor":
    """Return the losses times the weights of their queries."""
    return loss_B if batch.weight_B is None else loss_B * batch.weight_B
