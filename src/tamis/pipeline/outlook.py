"""What a build would do: stages, done or not, and rough estimates of time, memory and disk."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tamis.data import artefact, durable
from tamis.data.artefact import Manifest
from tamis.engine import current_index
from tamis.errors import ArtefactError, UsageError
from tamis.ingestion.sources import resolve
from tamis.pipeline import folders
from tamis.pipeline.record import STAGES
from tamis.recipe import Recipe

_FOLDERS = {
    "ingest": ("corpus", "ledger/1-ingest", "dropped"),
    "passages": ("passages", "ledger/2-passages"),
    "select": ("selected", "ledger/3-select"),
    "synthesize": ("collection", "pairs", "ledger/4-synthesize"),
    "encode": ("encoder",),
    "tune": ("runs",),
    "report": ("report",),
}
_UNSEEDED = frozenset({"ingest", "passages"})
# Seconds of a stage on two cores: for any text, for each byte of it, and the bytes from which it works on a sample.
_ALL = 1 << 62
_SECONDS = {
    "ingest": (0.2, 5e-8, _ALL),
    "select": (0.2, 3e-8, _ALL),
    "passages": (0.1, 7e-8, _ALL),
    "synthesize": (1.0, 6e-7, 50_000_000),
    "encode": (0.3, 1e-6, 200_000_000),
    "tune": (0.3, 1e-6, 20_000_000),
    "index": (0.3, 7e-7, _ALL),
    "report": (0.5, 5e-8, _ALL),
}
_GIVEN_SECONDS = {"encode": (1.0, 0.0, _ALL), "tune": (8.0, 8e-5, 3_000_000), "index": (1.0, 4e-5, _ALL)}
_REFINE_SECONDS, _REFINE_SECONDS_A_BYTE = 10.0, 1e-5  # of the encoder made from the corpus: soon as long as it gets
_MEMORY_FIXED, _MEMORY_A_BYTE, _MEMORY_GIVEN = 350 << 20, 40.0, 650 << 20
_DISK_FIXED, _DISK_A_BYTE = 1 << 20, 14.0
_PACKED = 4.0  # how much larger compressed text is taken to be


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

    def line(self) -> str:
        """Return the one-line summary."""
        found = f"{self.num_files:,} files, {_size(self.num_bytes)}"
        waiting = sum(s.status == "to do" for s in self.stages)
        if not waiting:
            return f"{found}: nothing to do"
        return (
            f"{found}: {waiting} stages to do, about {_time(self.seconds)}, {_size(self.memory_bytes)} of memory, "
            f"{_size(self.disk_bytes)} of disk ({_size(self.free_bytes)} free)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def look_ahead(
    sources: Sequence[str], out: Path, recipe: Recipe, judged: tuple[Path | str, Path | str] | None = None
) -> Outlook:
    """Compare the engine folder with what a build would make. Hashes input and engine, writes nothing.

    Args:
      sources: folders, files or globs.
      out: the engine's folder; need not exist.
      recipe: settings.
      judged: files of queries and judgements that the build would be given.

    Raises:
      DataError: no input file.
    """
    found = resolve(list(sources), recipe.ingestion.exclude)
    size = sum(f.num_bytes for f in found.files)
    text = sum(f.num_bytes * (_PACKED if f.packing else 1.0) for f in found.files)
    given = recipe.encoder != "scratch"
    stages = _Comparison(sources, out, recipe, judged).stages()
    waiting = [s.name for s in stages if s.status == "to do"]
    seconds = sum(_seconds(name, text, given) for name in waiting)
    memory = int(_MEMORY_FIXED + text * _MEMORY_A_BYTE + given * _MEMORY_GIVEN) if waiting else 0
    disk = int(len(waiting) / len(stages) * (_DISK_FIXED + text * _DISK_A_BYTE))
    parent = next(p for p in (out.resolve(), *out.resolve().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    problems = []
    if not parent.is_dir():
        problems.append(f"{parent} is a file: an engine is a folder. Choose another --out.")
    if folders.is_foreign(out):
        problems.append(f"{out} holds other files and is no engine. Choose a new folder.")
    if disk > free:
        problems.append(f"about {_size(disk)} of disk are needed at {parent}, {_size(free)} are free. Make room.")
    if given and not Path(recipe.encoder).is_dir():
        problems.append(
            f"the encoder {recipe.encoder!r} is no folder here; a hub id needs `tamis build --allow-network`."
        )
    problems += [f"{path}: no such file." for path in judged or () if not Path(path).is_file()]
    return Outlook(len(found.files), size, stages, seconds, memory, disk, free, tuple(problems))


def _seconds(stage: str, text: float, given: bool) -> float:
    fixed, rate, most = (_SECONDS | _GIVEN_SECONDS if given else _SECONDS)[stage]
    refining = min(_REFINE_SECONDS, text * _REFINE_SECONDS_A_BYTE) if stage == "encode" and not given else 0.0
    return fixed + rate * min(text, most) + refining


class _Comparison:
    """An engine folder beside what was asked for."""

    def __init__(
        self, sources: Sequence[str], out: Path, recipe: Recipe, judged: tuple[Path | str, Path | str] | None
    ) -> None:
        self.sources, self.out, self.recipe, self.judged = sources, out, recipe, judged
        self.given = recipe.encoder != "scratch"
        self.settings = {
            "ingest": recipe.ingestion.model_dump(mode="json"),
            "select": recipe.select.model_dump(mode="json", exclude={"targets"}),
            "passages": recipe.passages.model_dump(mode="json"),
            "synthesize": recipe.synthesis.model_dump(mode="json"),
            "encode": {} if self.given else recipe.scratch.model_dump(mode="json"),
            "tune": recipe.search.model_dump(mode="json"),
        }

    def stages(self) -> tuple[StageOutlook, ...]:
        """The first stage that does not stand as it would be made has to run, and all that read what it makes."""
        rows: list[StageOutlook] = []
        cause = ""
        for name in STAGES:
            follows = cause and (cause, name) != ("passages", "select")  # documents are selected, cut or not
            reason = f"after {cause}" if follows else self._why(name)
            cause = cause or (name if reason else "")
            rows.append(
                StageOutlook(name, "to do" if reason else "done", reason or "nothing it depends on has changed")
            )
        return tuple(rows)

    def _why(self, name: str) -> str:
        """Return why a stage has to run when all before it stand; "" when it stands too."""
        try:
            targets = (
                [current_index(self.out), self.out / "ledger/5-index"]
                if name == "index"
                else [self.out / x for x in _FOLDERS[name]]
            )
            manifests = [artefact.read_manifest(target) for target in targets]
        except ArtefactError as error:
            return "damaged" if "damaged" in str(error) else "not made yet"
        for target, manifest in zip(targets, manifests, strict=True):
            if artefact.problems(target, manifest, deep=True):
                return "damaged"
        first = manifests[0]
        if name in self.settings and first.settings != self.settings[name]:
            return "settings changed"
        if name not in _UNSEEDED and first.seed != self.recipe.seed:
            return "another seed"
        if artefact.stage_fingerprint(first.kind, first.settings, first.inputs, first.seed) != first.fingerprint:
            return "made by another version"
        return self._changed_input(name, first)

    def _changed_input(self, name: str, manifest: Manifest) -> str:
        if name == "ingest":
            now = folders.fingerprint_sources(self.sources, self.recipe.ingestion.exclude)
            return "" if manifest.inputs.get("files") == now else "input changed"
        if name == "select" and manifest.inputs.get("targets") != self._targets():
            return "other targets"
        if name == "encode":
            if ("encoder" in manifest.inputs) != self.given:
                return "another encoder"
            if self.given:
                return "" if manifest.inputs["encoder"] == self._given_fingerprint() else "another encoder"
        if name == "report":
            was = [manifest.inputs.get(f"judged{n}") for n in range(2)]
            if was != self._judged_hashes():
                return "other judgements"
        for part, content in manifest.inputs.items():
            folder = self.out / ("collection" if part == "view" else part)
            if folder.is_dir() and part != "index" and artefact.read_manifest(folder).content != content:
                return f"another {part}"
        return ""

    def _targets(self) -> str | None:
        targets = self.recipe.select.targets
        return folders.fingerprint_sources(targets, ()) if targets else None

    def _given_fingerprint(self) -> str:
        from tamis.models.folder import ModelFolder

        try:
            return ModelFolder(Path(self.recipe.encoder)).fingerprint
        except UsageError:
            return ""

    def _judged_hashes(self) -> list[str | None]:
        if self.judged is None:
            return [None, None]
        return [durable.sha256(Path(path)) if Path(path).is_file() else "" for path in self.judged]


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 10 or unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
