"""Random batches: every example once an epoch, shuffled anew each time. The control of every other sampler.

Source: the plain practice; order keyed by seed and epoch: tamis.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data.settings import Settings
from tamis.ops.hashing import draws


class RandomOrder(Settings):
    """Shuffle, then cut.

    Attributes:
      size: examples of a batch; the last takes what is left, and gives its single example to the one before.
    """

    method: Literal["random"] = "random"
    size: Annotated[int, Field(ge=2)] = 64

    def batches(self, num: int, seed: int, epoch: int) -> list[np.ndarray]:
        """Return int64 rows of each batch; every row of ``num`` once."""
        order = np.argsort(draws(np.arange(num, dtype=np.uint64), seed + (epoch << 32), "batch"), kind="stable")
        return cut(order, self.size)


def cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut an order into batches of ``size``; a last one of a single example joins the one before."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    return [order[start:stop] for start, stop in zip(starts, [*starts[1:], len(order)], strict=True)]
