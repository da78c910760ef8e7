"""Plots: positions on a scale, as text; the templates draw them as inline SVG.

Positions are percentages of the width, so that lines and text keep their size on every screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 4


@dataclass(frozen=True)
class Scale:
    """A linear scale from ``low`` to ``high`` with round ticks."""

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "Scale":
        """Return a scale with round ends that holds the values."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        if high - low < 1e-9:
            low, high = low - 0.05, high + 0.05
        raw = (high - low) / _TICKS
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(s * power for s in _STEPS if s * power >= raw * (1 - 1e-9))
        return cls(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step)

    def at(self, value: float) -> str:
        """Position of a value, in percent of the width, as text."""
        return f"{min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))):.2f}"

    @property
    def ticks(self) -> list[tuple[str, str]]:
        """(position, label) of the ticks."""
        decimals = max(0, math.ceil(-math.log10(self.step) - 1e-9)) + (1 if _is_quarter(self.step) else 0)
        values = [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]
        return [(self.at(v), f"{v + 0.0:.{decimals}f}".replace("-", "−")) for v in values]


def _is_quarter(step: float) -> bool:
    return f"{step:.1e}".startswith("2.5")


@dataclass(frozen=True)
class Bar:
    """One bar of the curve of differences: x and width in percent, y and height of a 100-unit half."""

    x: str
    width: str
    y: str
    height: str
    kind: str


def bars(curve: Sequence[float], *, half: float = 80.0) -> list[Bar]:
    """Return a bar for each difference; wins stand above the middle line, losses hang below it.

    Args:
      curve: differences, largest first.
      half: height of either side in pixels.
    """
    largest = max((abs(d) for d in curve), default=0.0) or 1.0
    width = 100 / max(1, len(curve))
    drawn = []
    for i, delta in enumerate(curve):
        height = half * abs(delta) / largest
        if height < 0.005:
            continue
        y = half - height if delta > 0 else half
        drawn.append(
            Bar(f"{i * width:.3f}", f"{width * 0.86:.3f}", f"{y:.2f}", f"{height:.2f}", "win" if delta > 0 else "loss")
        )
    return drawn
