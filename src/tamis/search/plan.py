"""Plan: which arms of an engine count how much, and which of them search a second time.

Source: tamis design (method cards C1 and C2).
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data.settings import Settings
from tamis.search.feedback import RM3, Rocchio
from tamis.search.fuse import Weight


class Feedback(Settings):
    """An arm that searches again with queries expanded from the first results of the other arms together.

    Attributes:
      of: name of the arm that is searched again.
      expand: RM3 for a lexical arm over documents, Rocchio for a dense one.
    """

    method: Literal["feedback"] = "feedback"
    of: str
    expand: Annotated[RM3 | Rocchio, Field(discriminator="method")]


class Plan(Settings):
    """How a `SearchIndex` answers.

    Attributes:
      weights: arm -> weight of its z-scores; an arm without one, or with 0, is not searched.
      feedback: name -> a further arm made by feedback; it counts if it has a weight.
      by_length: names of arms that count less for short queries and more for long ones: their weight is
        multiplied by .5 for queries of up to 4 telling words, by 2 from 12 words on, evenly between.
      depth: documents of each arm that become candidates, and that its z-scores are fitted to.
    """

    method: Literal["plan"] = "plan"
    weights: dict[str, Weight]
    feedback: dict[str, Feedback] = Field(default_factory=dict)
    by_length: tuple[str, ...] = ()
    depth: Annotated[int, Field(ge=1, le=10_000)] = 100

    def weights_by_query(self, names: Sequence[str], lengths_B: np.ndarray) -> np.ndarray:
        """Return the weight of each arm for each query, float64 [A, B]; columns sum to the plan's total.

        Args:
          names: arms [A].
          lengths_B: telling words of each query.
        """
        weights = np.array([self.weights.get(name, 0.0) for name in names])
        return spread(weights, np.array([name in self.by_length for name in names]), lengths_B)


MAX_SHARE = 0.7
"""The arms weighted by length together take at most this share."""


def spread(weights: np.ndarray, is_by_length: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
    """Return weights [..., A, B]: arms by length get their share times the length factor, the others the rest.

    Source: tamis, docs/log.md 2026-11-20.

    Args:
      weights: [..., A], each of a positive sum.
      is_by_length: bool [A].
      lengths_B: telling words of each query.
    """
    given = np.asarray(weights, dtype=np.float64)[..., None]
    factor_B = np.clip(0.5 + 1.5 * (np.asarray(lengths_B, dtype=np.float64) - 4) / 8, 0.5, 2.0)
    total = given.sum(axis=-2, keepdims=True)
    share = given[..., is_by_length, :].sum(axis=-2, keepdims=True) / np.where(total > 0, total, 1.0)
    wanted = np.where(share >= 1, share, np.minimum(np.maximum(MAX_SHARE, share), share * factor_B))
    up = np.divide(wanted, share, out=np.ones_like(wanted), where=share > 0)
    down = np.divide(1 - wanted, 1 - share, out=np.ones_like(wanted), where=share < 1)
    result: np.ndarray = given * np.where(is_by_length[:, None], up, down)
    return result
