"""Mixup of vectors: between an answer and a negative lies a document that is right in part.

Source: Venkataramanan et al. 2022, Metrix, arXiv:2106.04990 (positive-negative pairs of embeddings).
"""

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.ops.hashing import uniform
from tamis.training.objectives.base import Batch, Objective, cosine_of_pairs, real, weighted

if TYPE_CHECKING:
    from torch import Tensor


def mixed_pair_loss(cosine_B: "Tensor", share_B: "Tensor", slope: float, centre: float) -> "Tensor":
    """Return [B]: share · softplus(-slope (cos - centre)) + (1 - share) · softplus(slope (cos - centre))."""
    from torch.nn.functional import softplus

    logit_B = slope * (cosine_B - centre)
    return share_B * softplus(-logit_B) + (1 - share_B) * softplus(logit_B)


class Mixup(Objective):
    """The pair loss of each query with a mixture of its answer and one of its negatives, in shares of Beta(a, a).

    The negative is one of the mined ones or, without any, one of the batch's. It goes beside another objective: the
    paper adds it with weight 0.4 (objective "weighted").

    Attributes:
      shape: a of the distribution, a whole number; the paper's is 2.
      slope: of the pair loss.
      centre: cosine above which a pair counts as right.
    """

    method: Literal["mixup"] = "mixup"
    shape: Annotated[int, Field(ge=1, le=16)] = 2
    slope: Annotated[float, Field(gt=0, le=1000)] = 10.0
    centre: Annotated[float, Field(ge=-1, le=1)] = 0.5

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; one without any negative counts 0. O(B·(D + H))."""
        import torch
        from torch.nn.functional import normalize

        negative_B = self._negatives(batch)
        share_B = torch.from_numpy(self.shares(batch)).to(query_BH.device, real(query_BH).dtype)
        answer_BH = normalize(real(document_DH[batch.target_B]), dim=-1)
        other_BH = normalize(real(document_DH[negative_B.clamp(min=0)]), dim=-1)
        mixed_BH = share_B[:, None] * answer_BH + (1 - share_B)[:, None] * other_BH
        cosine_B = cosine_of_pairs(query_BH, mixed_BH[:, None])[:, 0]
        loss_B = mixed_pair_loss(cosine_B, share_B, self.slope, self.centre)
        return weighted(loss_B.masked_fill(negative_B < 0, 0.0), batch).mean()

    def shares(self, batch: Batch) -> np.ndarray:
        """float64 [B] draws of Beta(shape, shape): the middle of 2·shape - 1 uniform draws, by seed and query."""
        num = 2 * self.shape - 1
        keys = _keys(batch, len(batch.target_B), num)
        drawn: np.ndarray = np.sort(uniform(keys, batch.seed, "sample"), axis=1)[:, self.shape - 1]
        return drawn

    def _negatives(self, batch: Batch) -> "Tensor":
        """Return int64 [B]: the column of a negative of each query, -1 where it has none."""
        import torch

        drawn_BN = batch.negative_BN
        is_bare_B1 = (drawn_BN < 0).all(dim=1, keepdim=True)
        if bool(is_bare_B1.any()):
            columns_D = torch.arange(batch.relevant_BD.shape[1], device=drawn_BN.device)
            others_BD = columns_D.masked_fill(batch.relevant_BD, -1)
            drawn_BN = torch.cat([drawn_BN, others_BD.masked_fill(~is_bare_B1, -1)], dim=1)
        noise_BN = torch.from_numpy(uniform(_keys(batch, *drawn_BN.shape), batch.seed, "negatives")).to(drawn_BN.device)
        best_B1 = noise_BN.masked_fill(drawn_BN < 0, -1.0).argmax(dim=1, keepdim=True)
        return drawn_BN.gather(1, best_B1)[:, 0]


def _keys(batch: Batch, num_queries: int, width: int) -> np.ndarray:
    """uint64 [B, width]: one key a query and place."""
    row_B = np.arange(num_queries, dtype=np.uint64) + np.uint64(batch.first_row)
    return (row_B[:, None] << np.uint64(32)) | np.arange(width, dtype=np.uint64)[None, :]
