"""What a build would do: stages, cached or not, and rough estimates of time, memory and disk."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tamis.data import artefact
from tamis.engine import current_index
from tamis.errors import ArtefactError
from tamis.ingestion.sources import resolve
from tamis.pipeline import folders
from tamis.pipeline.record import STAGES
from tamis.recipe import Recipe

_FOLDERS = {
    "ingest": "corpus",
    "passages": "passages",
    "synthesize": "collection",
    "encode": "encoder",
    "tune": "runs",
    "report": "report",
}
# Seconds and bytes for each byte of text, measured on two cores (benchmarks/scaling.py); an order of magnitude.
_SECONDS_FIXED, _SECONDS_A_BYTE = 12.0, 2.0e-6
_ENCODE_SECONDS_A_BYTE = 6.0e-5
_MEMORY_FIXED, _MEMORY_A_BYTE, _MEMORY_ENCODER = 600 << 20, 4.0, 1500 << 20
_DISK_A_BYTE = 6.0
_PACKED = 3.0  # how much larger compressed text is taken to be


@dataclass(frozen=True)
class StageOutlook:
    """One stage: whether it has to run and why."""

    name: str
    status: Literal["to do", "done"]
    why: str


@dataclass(frozen=True)
class Outlook:
    """What a build would do.

    Attributes:
      num_files, num_bytes: the input, compressed files at their size on the disk.
      stages: one row a stage, in order.
      seconds, memory_bytes, disk_bytes: estimates for two cores, to an order of magnitude.
      free_bytes: free space where the engine would stand.
      problems: what would make the build fail; empty when it can run.
    """

    num_files: int
    num_bytes: int
    stages: tuple[StageOutlook, ...]
    seconds: float
    memory_bytes: int
    disk_bytes: int
    free_bytes: int
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def look_ahead(sources: Sequence[str], out: Path, recipe: Recipe) -> Outlook:
    """Compare the engine folder with what a build would make. Hashes the input, writes nothing.

    Raises:
      DataError: no input file.
    """
    found = resolve(list(sources), recipe.ingestion.exclude)
    size = sum(f.num_bytes for f in found.files)
    text = sum(f.num_bytes * (_PACKED if f.packing else 1.0) for f in found.files)
    scratch = recipe.encoder == "scratch"
    stages = _stages(sources, out, recipe)
    share = sum(s.status == "to do" for s in stages) / len(stages)
    seconds = share * (_SECONDS_FIXED + text * (_SECONDS_A_BYTE if scratch else _ENCODE_SECONDS_A_BYTE))
    memory = int(_MEMORY_FIXED + text * _MEMORY_A_BYTE + (0 if scratch else _MEMORY_ENCODER))
    disk = int(share * text * _DISK_A_BYTE)
    parent = next(p for p in (out.resolve(), *out.resolve().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    problems = []
    if disk > free:
        problems.append(
            f"about {disk / 2**20:.0f} MiB of disk are needed at {parent}, {free / 2**20:.0f} MiB are free."
        )
    if not scratch and not Path(recipe.encoder).is_dir():
        problems.append(
            f"the encoder {recipe.encoder!r} is no folder here; a hub id needs `tamis build --allow-network`."
        )
    return Outlook(len(found.files), size, stages, seconds, memory, disk, free, tuple(problems))


def _stages(sources: Sequence[str], out: Path, recipe: Recipe) -> tuple[StageOutlook, ...]:
    """The first stage whose settings or input changed has to run, and all after it."""
    settings = {
        "ingest": recipe.ingestion.model_dump(mode="json"),
        "passages": recipe.passages.model_dump(mode="json"),
        "synthesize": recipe.synthesis.model_dump(mode="json"),
        "encode": recipe.scratch.model_dump(mode="json") if recipe.encoder == "scratch" else {},
        "tune": recipe.search.model_dump(mode="json"),
    }
    rows: list[StageOutlook] = []
    reason = ""
    for name in STAGES:
        reason = reason or _why(name, sources, out, recipe, settings.get(name))
        rows.append(StageOutlook(name, "to do" if reason else "done", reason or "nothing it depends on has changed"))
        if reason and not reason.startswith("after"):
            reason = f"after {name}"
    return tuple(rows)


def _why(name: str, sources: Sequence[str], out: Path, recipe: Recipe, settings: dict[str, Any] | None) -> str:
    try:
        folder = current_index(out) if name == "index" else out / _FOLDERS[name]
        manifest = artefact.read_manifest(folder)
    except ArtefactError:
        return "not made yet"
    if artefact.problems(folder, manifest, deep=False):
        return "damaged"
    if settings is not None and manifest.settings != settings:
        return "settings changed"
    if name not in {"ingest", "passages"} and manifest.seed != recipe.seed:
        return "another seed"
    if name == "ingest" and manifest.inputs.get("files") != folders.fingerprint_sources(
        sources, recipe.ingestion.exclude
    ):
        return "input changed"
    if name == "encode" and ("encoder" in manifest.inputs) == (recipe.encoder == "scratch"):
        return "another encoder"
    return ""
