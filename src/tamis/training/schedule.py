"""Learning rates over a run.

Source: warm-up and cosine after Loshchilov, Hutter 2017, arXiv:1608.03983; re-warming: Gupta et al. 2023,
arXiv:2308.04014.
"""

import math
from typing import Annotated, Literal

from pydantic import Field

from tamis.data.settings import Settings


class Schedule(Settings):
    """How the learning rate goes: linearly up, then down.

    Attributes:
      peak: the highest rate.
      warmup_frac: share of the steps that lead up to it.
      shape: of the way down: "linear" or "cosine" to ``final_frac``, or "constant".
      final_frac: the last rate as a share of the peak.
    """

    peak: Annotated[float, Field(gt=0, le=1)] = 2e-5
    warmup_frac: Annotated[float, Field(ge=0, le=1)] = 0.1
    shape: Literal["linear", "cosine", "constant"] = "linear"
    final_frac: Annotated[float, Field(ge=0, le=1)] = 0.0

    def rate(self, step: float, num_steps: int) -> float:
        """Return the rate after ``step`` of ``num_steps`` steps, continuous where warm-up ends.

        With steps counted from 0, as the trainers of transformers do: the first has rate 0 where there is a warm-up,
        and the rate after the last is ``final_frac`` of the peak.
        """
        warm = round(self.warmup_frac * num_steps)
        if step < warm:
            return self.peak * step / warm
        if self.shape == "constant":
            return self.peak
        gone = (step - warm) / max(1, num_steps - warm)
        left = 1 - gone if self.shape == "linear" else (1 + math.cos(math.pi * gone)) / 2
        return self.peak * (self.final_frac + (1 - self.final_frac) * left)
