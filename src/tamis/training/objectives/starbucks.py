"""Starbucks: an objective at fixed sizes, each a layer and a width, every one taught by the full model.

Source: Zhuang et al. 2024, Starbucks, arXiv:2410.13230 (SRL, the fine-tuning half).
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from tamis.errors import RecipeError, UsageError
from tamis.training.objectives.base import Batch, Objective, mean_over_rows, unit, weighted
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.leaves import Leaf
from tamis.training.objectives.matryoshka import Dim, check_widths

if TYPE_CHECKING:
    from torch import Tensor


class Starbucks(Objective):
    """The objective of the full model, and at each rung the objective and the divergence from the full model's ranking.

    Attributes:
      rungs: (layer from 1, width) of each size below the full one, all of them trained in every step.
      inner: what is minimised at each.
      kl_weight: of KL(full || rung) over the documents of the batch.
      kl_temperature: of both softmaxes over cosines.
    """

    method: Literal["starbucks"] = "starbucks"
    rungs: Annotated[tuple[tuple[Dim, Dim], ...], Field(min_length=1)] = (
        (2, 32),
        (4, 64),
        (6, 128),
        (8, 256),
        (10, 512),
    )
    inner: Leaf = InfoNCE()
    kl_weight: Annotated[float, Field(ge=0)] = 1.0
    kl_temperature: Annotated[float, Field(gt=0, le=10)] = 0.05

    @model_validator(mode="after")
    def _no_rung_twice(self) -> Self:
        if len(set(self.rungs)) < len(self.rungs):
            raise RecipeError(f"Starbucks: rungs {list(self.rungs)} name a size twice. Give each once.")
        return self

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """Return the layers of the rungs and the last.

        Raises:
          UsageError: a rung at the last layer or beyond.
        """
        highest = max(layer for layer, _ in self.rungs)
        if highest >= num_layers:
            raise UsageError(
                f"starbucks: a rung at layer {highest}, but the model has {num_layers}, and the last is the full size. "
                f"Give rungs of layers 1 to {num_layers - 1}, or use matryoshka for widths alone."
            )
        return (*self._below(), num_layers)

    def _below(self) -> list[int]:
        return sorted({layer for layer, _ in self.rungs})

    def loss(self, query_SBH: "Tensor", document_SDH: "Tensor", batch: Batch) -> "Tensor":
        """Return the sum over the full size and all rungs.

        Raises:
          UsageError: vectors of other layers, or a width beyond theirs.
        """
        below = self._below()
        if len(query_SBH) != len(below) + 1:
            raise UsageError(
                f"starbucks: vectors of {len(query_SBH)} layers came, not of {len(below) + 1}. Ask for layers()."
            )
        check_widths(tuple(dim for _, dim in self.rungs), query_SBH.shape[-1])
        full_BH, full_DH = query_SBH[-1], document_SDH[-1]
        total = self.inner.value(full_BH, full_DH, batch)
        for layer, dim in self.rungs:
            place = below.index(layer)
            own_BH, own_DH = query_SBH[place, :, :dim], document_SDH[place, :, :dim]
            total = total + self.inner.value(own_BH, own_DH, batch)
            if self.kl_weight:
                total = total + self.kl_weight * self._apart(own_BH, own_DH, full_BH, full_DH, batch)
        return total

    def _apart(
        self, own_BH: "Tensor", own_DH: "Tensor", full_BH: "Tensor", full_DH: "Tensor", batch: Batch
    ) -> "Tensor":
        """Return the mean over queries of KL(softmax of the full model's cosines || that of the rung's)."""
        import torch

        dim, own_DH, full_DH = own_BH.shape[-1], unit(own_DH), unit(full_DH.detach())

        def rows(both_bH: "Tensor", part: Batch) -> "Tensor":
            log_own_bD = (both_bH[:, :dim] @ own_DH.T / self.kl_temperature).log_softmax(dim=-1)
            log_full_bD = (both_bH[:, dim:] @ full_DH.T / self.kl_temperature).log_softmax(dim=-1)
            return weighted((log_full_bD.exp() * (log_full_bD - log_own_bD)).sum(dim=1), part).sum()

        return mean_over_rows(rows, torch.cat([unit(own_BH), unit(full_BH.detach())], dim=1), batch)

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the inner objective at full width: what one layer alone can tell."""
        return self.inner.value(query_BH, document_DH, batch)
