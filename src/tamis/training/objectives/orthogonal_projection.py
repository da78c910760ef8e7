"""Orthogonal projection loss: a pair at a time, so that a step of one long document learns what a large batch would.

Source: Saad-Falcon et al. 2024, LoCoV1 and M2-BERT, arXiv:2402.07440 (OPL).
"""

from typing import TYPE_CHECKING, Literal

from tamis.errors import DataError
from tamis.training.objectives.base import Batch, Objective, cosine_of_pairs, weighted

if TYPE_CHECKING:
    from torch import Tensor


class OrthogonalProjection(Objective):
    """(1 - cosine)² of the drawn answer and cosine² of each mined negative; other queries' documents play no part.

    No softmax ties queries together: the gradient of a batch is the mean of the gradients of its queries, whatever
    the size of the batch.

    Attributes:
      spares_opposites: a negative cosine of a negative costs nothing: in few dimensions many documents cannot all be at
        right angles.
    """

    method: Literal["orthogonal_projection"] = "orthogonal_projection"
    spares_opposites: bool = False

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries of the mean over a query's 1 + N pairs; O(B·N·H).

        Raises:
          DataError: no query of the batch has a mined negative: all vectors would become one.
        """
        import torch

        columns_BM = torch.cat([batch.target_B[:, None], batch.negative_BN], dim=1)
        is_pair_BM = columns_BM >= 0
        if not bool(is_pair_BM[:, 1:].any()):
            raise DataError(
                "objective 'orthogonal_projection': no query of the batch has a mined negative, and without any all "
                "vectors become one. Give a run of negatives and num_negatives of at least 1."
            )
        cosine_BM = cosine_of_pairs(query_BH, document_DH[columns_BM.clamp(min=0)])
        away_BN = cosine_BM[:, 1:].clamp(min=0) if self.spares_opposites else cosine_BM[:, 1:]
        square_BM = torch.cat([1 - cosine_BM[:, :1], away_BN], dim=1) ** 2
        loss_B = square_BM.masked_fill(~is_pair_BM, 0.0).sum(dim=1) / is_pair_BM.sum(dim=1)
        return weighted(loss_B, batch).mean()
