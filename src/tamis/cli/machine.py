"""What `tamis doctor` finds out: the machine, the installation, and what would stop a build here."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

_MIN_FREE_BYTES = 1 << 30
_EXTRA = ("torch", "transformers", "sentence-transformers")


@dataclass(frozen=True)
class Examination:
    """Facts by name; notes that are good to know; problems that would stop a build."""

    facts: dict[str, Any]
    notes: tuple[str, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**self.facts, "notes": list(self.notes), "problems": list(self.problems)}


def examine(folder: Path) -> Examination:
    """Look at the machine as a build in ``folder`` would find it; reads metadata only, imports no torch."""
    from tamis.engine import environment

    facts, notes, problems = environment(), [], []
    cores, threads = int(facts["cores"]), os.environ.get("OMP_NUM_THREADS", "")
    facts["locks"] = lock = _lock_in(folder)
    facts["kernel_cache"] = cache = _kernel_cache()
    free = shutil.disk_usage(folder).free
    if lock.startswith("no"):
        problems.append(f"{folder} cannot be locked for writing ({lock}). Build on a local disk where you may write.")
    if cache.startswith("no"):
        problems.append(
            f"compiled kernels cannot be kept: {cache}. Set NUMBA_CACHE_DIR to a folder where you may write."
        )
    if free < _MIN_FREE_BYTES:
        problems.append(f"{free / 2**20:.0f} MiB are free at {folder}; a build may need more. Make room.")
    if threads.isdigit() and int(threads) > cores:
        notes.append(f"OMP_NUM_THREADS is {threads} on {cores} core(s): more threads than cores are slower. Unset it.")
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in {"", "0"}:
        notes.append("NUMBA_DISABLE_JIT is set: everything is a hundred times slower. Unset it.")
    if os.environ.get("PYTHONOPTIMIZE"):
        notes.append("PYTHONOPTIMIZE is set: libraries skip their own checks. Unset it.")
    missing = [name for name in _EXTRA if not _is_installed(name)]
    if missing:
        notes.append(
            f"{', '.join(missing)} not installed: only needed for a given encoder (pip install 'tamis[train]')."
        )
    return Examination(facts, tuple(notes), tuple(problems))


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _lock_in(folder: Path) -> str:
    """Say whether a file here can be locked: network folders sometimes cannot."""
    import filelock

    try:
        with (
            tempfile.TemporaryDirectory(prefix=".tamis-", dir=folder) as place,
            filelock.FileLock(Path(place) / "lock", timeout=1),
        ):
            return "yes"
    except (OSError, NotImplementedError, filelock.Timeout) as error:
        return f"no: {getattr(error, 'strerror', None) or error}"


def _kernel_cache() -> str:
    """Return the folder where numba keeps compiled kernels, in the order in which it looks."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    package = util.find_spec("tamis")
    beside = (
        [Path(place) / "ops" / "__pycache__" for place in (package.submodule_search_locations or [])] if package else []
    )
    for place in [Path(chosen)] if chosen else [*beside, Path.home() / ".cache"]:
        existing = next((p for p in (place, *place.parents) if p.exists()), place)
        if existing.is_dir() and os.access(existing, os.W_OK):
            return str(place)
    return f"no: {chosen or 'neither the installed package nor ' + str(Path.home() / '.cache')} can be written"
