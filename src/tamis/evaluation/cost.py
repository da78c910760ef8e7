"""Cost: seconds, memory and bytes, to stand beside every measure.

Source: tamis design (method card E18).
"""

import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

from tamis.data.settings import Settings
from tamis.errors import UsageError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_VERSIONED = ("tamis", "numpy", "scipy", "numba", "pyarrow", "bm25s", "faiss-cpu", "ir-measures", "tokenizers")


class Cost(Settings):
    """What one stage took.

    Attributes:
      name: of the stage.
      seconds: wall time.
      cpu_seconds: of this process and the children it has waited for.
      peak_bytes: largest resident memory of this process: during the stage where the system can say so,
        else since the process started.
      disk_bytes: of the stage's folder.
      skipped: the stage stood already and was not run; then the times are 0.
    """

    name: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    disk_bytes: int = 0
    skipped: bool = False


class Timing(Settings):
    """Repeated calls: median and 95th percentile (nearest rank) of the wall time, CPU seconds a call."""

    median_seconds: float
    p95_seconds: float
    cpu_seconds: float
    repeats: int


class Meter:
    """A stage being measured; ``cost`` is set when the context ends, also by an error."""

    def __init__(self, name: str, folder: Path | None) -> None:
        """Start with nothing measured."""
        self.folder = folder
        self.cost = Cost(name=name)


@contextmanager
def measure_stage(name: str, folder: Path | None = None) -> Iterator[Meter]:
    """Measure what runs inside the context; the Meter's ``cost`` holds the result when it ends.

    Args:
      name: of the stage.
      folder: what it makes; its files are added up at the end. May be set on the meter later.
    """
    meter = Meter(name, folder)
    _reset_peak()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    try:
        yield meter
    finally:
        meter.cost = Cost(
            name=name,
            seconds=round(time.perf_counter() - wall, 3),
            cpu_seconds=round(_cpu_seconds() - cpu, 3),
            peak_bytes=peak_bytes(),
            disk_bytes=folder_bytes(meter.folder) if meter.folder is not None else 0,
        )


def measure_calls(call: Callable[[], object], *, warmups: int = 2, repeats: int = 5) -> Timing:
    """Time a callable that takes nothing, after warm-up calls that are not counted."""
    if repeats < 1:
        raise UsageError(f"measure_calls: repeats = {repeats}; at least 1 is needed.")
    for _ in range(warmups):
        call()
    seconds, cpu = [], _cpu_seconds()
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return summarise(seconds, cpu_seconds=(_cpu_seconds() - cpu) / repeats)


def summarise(seconds: Sequence[float], *, cpu_seconds: float) -> Timing:
    """Return median and 95th percentile (nearest rank) of measured times."""
    ranked = sorted(seconds)
    p95 = ranked[math.ceil(0.95 * len(ranked)) - 1]
    return Timing(
        median_seconds=statistics.median(ranked), p95_seconds=p95, cpu_seconds=cpu_seconds, repeats=len(ranked)
    )


def folder_bytes(folder: Path) -> int:
    """Sum of the sizes of all plain files below a folder; 0 where there is none. Links are not followed."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                path = Path(root, name)
                total += 0 if path.is_symlink() else path.stat().st_size
    return total


def peak_bytes() -> int:
    """Largest resident memory of this process, since the last `measure_stage` began where the system allows."""
    with suppress(OSError, ValueError, IndexError):
        line = next((x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM:")), "")
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reset_peak() -> None:
    """Begin the peak anew (Linux: writing 5 to clear_refs); elsewhere it stays that of the whole process."""
    with suppress(OSError):
        descriptor = os.open(_CLEAR, os.O_WRONLY)
        try:
            os.write(descriptor, b"5")
        finally:
            os.close(descriptor)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def environment() -> dict[str, str]:
    """What a reader needs to read the times: interpreter, system, cores, threads, versions."""
    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
    }
    for name in _VERSIONED:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
