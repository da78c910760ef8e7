"""Matryoshka2D: one objective over widths and layers, a layer and a width drawn each step.

Source: Li et al. 2024, 2D Matryoshka Sentence Embeddings, arXiv:2402.14776.
"""

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.errors import UsageError
from tamis.ops.hashing import draws
from tamis.training.objectives.base import Batch, Objective, real
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.leaves import Leaf
from tamis.training.objectives.matryoshka import Dim, check_widths

if TYPE_CHECKING:
    from torch import Tensor


def coordinate_kl(vector_nH: "Tensor", goal_nH: "Tensor", temperature: float) -> "Tensor":
    """Return the mean over texts of KL between softmaxes over the coordinates of a vector; no gradient to the goal."""
    log_goal_nH = (real(goal_nH).detach() / temperature).log_softmax(dim=-1)
    log_own_nH = (real(vector_nH) / temperature).log_softmax(dim=-1)
    return (log_goal_nH.exp() * (log_goal_nH - log_own_nH)).sum(dim=-1).mean()


class Matryoshka2D(Objective):
    """An objective at the last layer and at a drawn one, each at full and at a drawn width, and a tie between both.

    Attributes:
      dims: widths to draw from.
      inner: what is minimised at each place.
      kl_weight: of the drawn layer's divergence from the last, over coordinates, times the temperature.
      kl_temperature: of both softmaxes.
    """

    method: Literal["matryoshka_2d"] = "matryoshka_2d"
    dims: Annotated[tuple[Dim, ...], Field(min_length=1)]
    inner: Leaf = InfoNCE()
    kl_weight: Annotated[float, Field(ge=0)] = 1.0
    kl_temperature: Annotated[float, Field(gt=0)] = 0.3

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """Return all layers: which one is drawn changes with the step.

        Raises:
          UsageError: fewer than two layers.
        """
        if num_layers < 2:
            raise UsageError(f"matryoshka_2d: the model has {num_layers} layers, two are needed. Use matryoshka.")
        return tuple(range(1, num_layers + 1))

    def drawn(self, batch: Batch, num_layers: int) -> tuple[int, int]:
        """Return the place of a layer below the last one, from 0, and a width, by the seed of the step."""
        bits = draws(np.arange(2), batch.seed, "step")
        return int(bits[0] % np.uint64(num_layers - 1)), self.dims[int(bits[1] % np.uint64(len(self.dims)))]

    def loss(self, query_SBH: "Tensor", document_SDH: "Tensor", batch: Batch) -> "Tensor":
        """Return four terms and the divergence.

        Raises:
          UsageError: vectors of one layer, or a width beyond theirs.
        """
        import torch

        check_widths(self.dims, query_SBH.shape[-1])
        if len(query_SBH) < 2:
            raise UsageError("matryoshka_2d: vectors of one layer came. Ask for those that layers() names.")
        layer, dim = self.drawn(batch, len(query_SBH))
        terms = [
            self.inner.value(query_SBH[place, :, :width], document_SDH[place, :, :width], batch)
            for place in (-1, layer)
            for width in (query_SBH.shape[-1], dim)
        ]
        total = sum(terms[1:], start=terms[0])
        if self.kl_weight:
            text_SnH = torch.cat([query_SBH, document_SDH], dim=1)
            apart = coordinate_kl(text_SnH[layer], text_SnH[-1], self.kl_temperature)
            total = total + self.kl_weight * self.kl_temperature * apart
        return total

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the inner objective at full width: what one layer alone can tell."""
        return self.inner.value(query_BH, document_DH, batch)
