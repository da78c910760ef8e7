"""InfoNCE: the right document closer than all others of the batch and than mined ones.

Source: van den Oord et al. 2018, arXiv:1807.03748; Karpukhin et al. 2020, arXiv:2004.04906 (in-batch negatives);
joint denominator of both sides: Li et al. 2023, GTE, arXiv:2308.03281.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.training.objectives.base import Batch, Objective, cosine, mean_over_scores, target_scores, unit, weighted
from tamis.training.objectives.false_negatives import FalseNegatives, hidden_documents

if TYPE_CHECKING:
    from torch import Tensor


class InfoNCE(Objective):
    """Cross-entropy of the softmax over cosines / temperature; known answers of a query are never its negatives.

    Attributes:
      temperature: of the softmax.
      directions: "query_to_doc"; "symmetric": the mean of it and of each answer against all queries; "all": queries
        against queries and answers against queries and answers as well, in one denominator that counts the pair once.
      mask: which unlabelled documents are taken for answers of their query and left out; None leaves none out.
    """

    method: Literal["info_nce"] = "info_nce"
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05
    directions: Literal["query_to_doc", "symmetric", "all"] = "query_to_doc"
    mask: FalseNegatives | None = None

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the mean over queries; O(B·D·H), memory flat in B for "query_to_doc", O(B·(B + D)) otherwise."""
        if self.directions == "query_to_doc":
            return mean_over_scores(self._there, unit(query_BH), unit(document_DH), batch)
        scores_BD = self._scores(cosine(query_BH, document_DH), batch)
        own_B = target_scores(scores_BD, batch)[:, 0]
        if self.directions == "all":
            return weighted(self._joint(query_BH, document_DH, scores_BD, batch) - own_B, batch).mean()
        # Column i: every query against the answer of i. Another query with the same answer is no negative of it.
        back_BB = scores_BD[:, batch.target_B].masked_fill(_others_of_same(batch), float("-inf"))
        there_B, back_B = scores_BD.logsumexp(dim=1) - own_B, back_BB.logsumexp(dim=0) - own_B
        return weighted((there_B + back_B) / 2, batch).mean()

    def _there(self, cosine_bD: "Tensor", batch: Batch) -> "Tensor":
        scores_bD = self._scores(cosine_bD, batch)
        return scores_bD.logsumexp(dim=1) - target_scores(scores_bD, batch)[:, 0]

    def _scores(self, cosine_BD: "Tensor", batch: Batch) -> "Tensor":
        """Return cosines / temperature, -inf where a document is an answer, or may be one, but not the one drawn."""
        return (cosine_BD / self.temperature).masked_fill(hidden_documents(cosine_BD, batch, self.mask), float("-inf"))

    def _joint(self, query_BH: "Tensor", document_DH: "Tensor", scores_BD: "Tensor", batch: Batch) -> "Tensor":
        """Return log-sums over documents, other queries, and the answers against queries and each other."""
        import torch

        answer_BH = document_DH[batch.target_B]
        same_BB = _others_of_same(batch)
        own_BB = torch.eye(len(answer_BH), dtype=torch.bool, device=answer_BH.device)
        hidden_BB = same_BB | same_BB.T | own_BB  # itself, and the pair, which stands in the first block already
        blocks = [scores_BD]
        for left, right in ((query_BH, query_BH), (answer_BH, query_BH), (answer_BH, answer_BH)):
            blocks.append((cosine(left, right) / self.temperature).masked_fill(hidden_BB, float("-inf")))
        return torch.cat(blocks, dim=1).logsumexp(dim=1)


def _others_of_same(batch: Batch) -> "Tensor":
    """Return bool [B, B]: the drawn answer of the column's query answers the row's, another query, too."""
    return batch.relevant_BD[:, batch.target_B].fill_diagonal_(False)
