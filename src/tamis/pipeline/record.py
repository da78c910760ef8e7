"""What a build reports: one result a stage, and the whole."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Progress = Callable[[str, int, int | None], None]
"""progress(stage, done, total): total None where it is not known."""

STAGES = ("ingest", "passages", "select", "synthesize", "encode", "tune", "index", "report")


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


def summary(name: str, counts: dict[str, int]) -> str:
    """Return what a stage did, in a few words, every loss with its number."""

    def lost(prefix: str) -> str:
        found = {k.removeprefix(prefix): v for k, v in sorted(counts.items()) if k.startswith(prefix) and v}
        return ", ".join(f"{v:,} {k}" for k, v in found.items())

    def say(*parts: str) -> str:
        return "; ".join(part for part in parts if part)

    count = counts.get
    if name == "ingest":
        rejected, dropped = lost("rejected_"), lost("dropped_")
        return say(
            f"{count('documents', 0):,} documents from {count('files', 0):,} files",
            f"{count('grouped', 0):,} exact copies" if count("grouped") else "",
            f"dropped: {dropped}" if dropped else "",
            f"rejected: {rejected}" if rejected else "",
        )
    if name == "select":
        gone = lost("dropped_")
        return say(f"{count('documents', 0):,} documents to learn from", f"left out: {gone}" if gone else "")
    if name == "passages":
        return f"{count('passages'):,} passages" if count("passages") else "every document is one passage"
    if name == "synthesize":
        return say(
            f"{count('train_queries', 0):,} training pairs, {count('dev_queries', 0):,} held-out queries",
            f"{sum(v for k, v in counts.items() if k.startswith('dropped_')):,} candidates dropped",
        )
    if name == "encode":
        made = f"{count('tokens', 0):,} tokens, {count('dim', 0)} dimensions"
        return made if count("tokens") else "the given encoder, as it is"
    if name == "tune":
        used, asked = count("sound_queries", 0), count("queries", 0)
        return f"fitted on {used:,} of {asked:,} held-out queries in {count('documents', 0):,} documents"
    if name == "index":
        return say(
            f"{count('documents', 0):,} documents in {count('arms', 0)} arms",
            f"{count('texts_without_weight'):,} texts without a vector" if count("texts_without_weight") else "",
        )
    return "report.html, report.md, report.json"
