"""Weighted: a sum of objectives over the same vectors.

Source: tamis design; one weight a task: Caruana 1997, Multitask Learning.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tamis.data.settings import Settings
from tamis.errors import UsageError
from tamis.training.objectives.base import Batch, Objective
from tamis.training.objectives.leaves import Leaf
from tamis.training.objectives.matryoshka import Matryoshka
from tamis.training.objectives.matryoshka_2d import Matryoshka2D
from tamis.training.objectives.starbucks import Starbucks

if TYPE_CHECKING:
    from torch import Tensor

Summand = Annotated[Leaf | Matryoshka | Matryoshka2D | Starbucks, Field(discriminator="method")]


class Part(Settings):
    """One summand.

    Attributes:
      weight: its factor.
      objective: any but a sum.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0
    objective: Summand


class Weighted(Objective):
    """The sum of weight · objective, as for labels and a teacher together.

    Attributes:
      parts: summands; those that train layers must want the same ones.
    """

    method: Literal["weighted"] = "weighted"
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """Return the layers that the parts want.

        Raises:
          UsageError: two parts want different ones.
        """
        wanted = {part.objective.layers(num_layers) for part in self.parts} - {()}
        if len(wanted) > 1:
            told = " and ".join(str(list(layers)) for layers in sorted(wanted))
            raise UsageError(f"weighted: parts want vectors of layers {told}. Give them the same layers.")
        return wanted.pop() if wanted else ()

    def loss(self, query_SBH: "Tensor", document_SDH: "Tensor", batch: Batch) -> "Tensor":
        """Return the sum; parts that train no layers see the last."""
        terms = [part.weight * part.objective.loss(query_SBH, document_SDH, batch) for part in self.parts]
        return sum(terms[1:], start=terms[0])

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the sum over vectors of one layer."""
        terms = [part.weight * part.objective.value(query_BH, document_DH, batch) for part in self.parts]
        return sum(terms[1:], start=terms[0])
