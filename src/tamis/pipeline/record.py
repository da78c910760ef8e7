"""What a build reports: one result a stage, and the whole."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Progress = Callable[[str, int, int | None], None]
"""progress(stage, done, total): total None where it is not known."""

STAGES = ("ingest", "passages", "synthesize", "encode", "tune", "index", "report")


@dataclass(frozen=True)
class StageResult:
    """One stage: made now, or kept because nothing it depends on has changed."""

    name: str
    status: Literal["made", "kept"]
    seconds: float
    summary: str
    counts: dict[str, int]


@dataclass(frozen=True)
class Built:
    """A finished build.

    Attributes:
      folder: the engine.
      stages: one result a stage, in order.
      verdict: one sentence on the quality, with its interval.
      seconds: wall time of this call.
      peak_bytes: largest resident memory of any stage of this call.
    """

    folder: Path
    stages: tuple[StageResult, ...]
    verdict: str
    seconds: float
    peak_bytes: int

    def line(self) -> str:
        """Return the one-line summary."""
        made = sum(s.status == "made" for s in self.stages)
        num_docs = next(s.counts.get("documents", 0) for s in self.stages if s.name == "ingest")
        return (
            f"{self.folder}: {num_docs:,} documents, {made} stages made, {len(self.stages) - made} kept, "
            f"{self.seconds:.1f} s, peak {self.peak_bytes / 2**20:.0f} MiB"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "folder": str(self.folder),
            "stages": [asdict(s) for s in self.stages],
            "verdict": self.verdict,
            "seconds": round(self.seconds, 3),
            "peak_mib": round(self.peak_bytes / 2**20, 1),
        }
