"""Matryoshka: one objective at several widths, so that vectors can be cut after training.

Source: Kusupati et al. 2022, Matryoshka Representation Learning, arXiv:2205.13147.
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from tamis.errors import RecipeError, UsageError
from tamis.training.objectives.base import Batch, Objective
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.leaves import Leaf

if TYPE_CHECKING:
    from torch import Tensor

Dim = Annotated[int, Field(ge=1)]


class Matryoshka(Objective):
    """The weighted sum of an objective over the first ``dims`` numbers of each vector.

    Cosines are of the cut vectors: no energy of what is cut off is left in them.

    Attributes:
      dims: widths, the full one among them where it is to be trained.
      weights: one a width, 1 each by default.
      inner: what is minimised at each width.
    """

    method: Literal["matryoshka"] = "matryoshka"
    dims: Annotated[tuple[Dim, ...], Field(min_length=1)]
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    inner: Leaf = InfoNCE()

    @model_validator(mode="after")
    def _one_weight_a_width(self) -> Self:
        if len(set(self.dims)) < len(self.dims):
            raise RecipeError(f"Matryoshka: dims {list(self.dims)} name a width twice. Give each once.")
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise RecipeError(f"Matryoshka: {len(self.weights)} weights for {len(self.dims)} dims. Give one a width.")
        return self

    def value(self, query_BH: "Tensor", document_DH: "Tensor", batch: Batch) -> "Tensor":
        """Return the sum over widths; the cost of the inner objective at each.

        Raises:
          UsageError: a width beyond that of the vectors.
        """
        check_widths(self.dims, query_BH.shape[-1])
        weights = self.weights or (1.0,) * len(self.dims)
        terms = [
            weight * self.inner.value(query_BH[:, :dim], document_DH[:, :dim], batch)
            for dim, weight in zip(self.dims, weights, strict=True)
        ]
        return sum(terms[1:], start=terms[0])


def check_widths(dims: tuple[int, ...], width: int) -> None:
    """Refuse widths that the vectors do not have."""
    if max(dims) > width:
        raise UsageError(f"dims {list(dims)}: the vectors have {width} numbers. Give widths of at most {width}.")
