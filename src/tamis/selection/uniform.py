"""Uniform selection: a random part of the pool, the control of every other method.

Source: Ivison et al. 2025, Large-Scale Data Selection for Instruction Tuning (many selectors fall below random).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from tamis.data.corpus import Documents
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.ngrams import count_words
from tamis.ops.text import joined
from tamis.selection.selector import Selector


@dataclass(frozen=True)
class UniformModel:
    """The seed the draws are keyed with."""

    seed: int


class Uniform(Selector):
    """Keep documents by a random number that hangs on their content and the seed alone.

    A smaller budget keeps a part of what a larger one keeps (without strata, whose quotas are rounded).
    Equal contents have equal numbers, hence one fate: remove exact copies first.

    Attributes:
      stratify: "none"; "source" or "length" (powers of two of words) to keep the pool's shares of words exactly.
    """

    needs_target: ClassVar[bool] = False

    method: Literal["uniform"] = "uniform"
    stratify: Literal["none", "source", "length"] = "none"

    def fit(self, pool: None, target: Documents, *, seed: int) -> UniformModel:
        """Return the seed; pool and target are unused."""
        return UniformModel(seed)

    def score(self, batch: pa.RecordBatch, model: UniformModel) -> np.ndarray:
        """Return float64 [n] in (0, 1), uniform over contents."""
        return uniform(array_keys(joined(batch)), model.seed, "select")

    def strata(self, batch: pa.RecordBatch) -> pa.Array | None:
        """Return the sources, or the length classes, if the budget is shared out by them."""
        if self.stratify == "none":
            return None
        if self.stratify == "source":
            return batch.column("source").cast(pa.large_string())
        classes = np.frexp(count_words(joined(batch)).astype(np.float64))[1]  # number of binary digits
        return pa.array([f"{digits:02d}" for digits in classes.tolist()], pa.large_string())
