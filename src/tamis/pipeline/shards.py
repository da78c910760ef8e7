"""Shards: results of tasks kept on the disk one by one, so that a killed job goes on where it was.

Source: tamis design (engines; card K1). Each result is one Arrow file with its SHA-256 beside it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import orjson
import pyarrow as pa

from tamis.data import durable
from tamis.errors import ArtefactError

Task = TypeVar("Task")
Engine = Callable[[Callable[[Task], pa.Table], Iterable[Task]], Iterator[pa.Table]]
"""Maps a function over tasks in order, e.g. ``functools.partial(map_threads, workers=2)``."""

_JOB = "job.json"
_OURS = re.compile(r"\.?\d{6,}\.(arrow|json)(\.new)?")


def map_shards(
    function: Callable[[Task], pa.Table], tasks: Iterable[Task], folder: Path, fingerprint: str, engine: Engine[Task]
) -> Iterator[pa.Table]:
    """Yield ``function(task)`` for each task in order; what the folder already holds whole is not computed again.

    Each result is written as NNNNNN.arrow (Arrow stream) and then NNNNNN.json (size, SHA-256) before it is
    given out, so a job killed at any moment loses the results that were in flight. A damaged or unfinished
    shard is computed again. One job at a time may use a folder: the caller holds the lock.

    Args:
      function: deterministic; its table is read back from the disk only by a later run.
      tasks: one shard each; the same list in the same order for the same fingerprint. Held in memory.
      folder: of this job alone; made when it is missing.
      fingerprint: of everything that determines the results; shards of another one are removed first.
      engine: where the function runs.

    Raises:
      ArtefactError: another process changed the folder meanwhile.
      ResourceError: the disk refused.
      Exception: what the engine or ``function`` raised; finished shards stay.
    """
    listed = list(tasks)
    _prepare(folder, fingerprint, len(listed))
    missing = [number for number in range(len(listed)) if _read(folder, number) is None]
    results = engine(function, (listed[number] for number in missing))
    todo = set(missing)
    try:
        for number in range(len(listed)):
            if number in todo:
                table = next(results)
                _write(folder, number, table)
            else:
                data = _read(folder, number)
                if data is None:
                    raise ArtefactError(
                        f"{folder / f'{number:06d}.arrow'}: changed while the job ran. "
                        "Let one job at a time use the folder, and run the same command again."
                    )
                table = pa.ipc.open_stream(data).read_all()
            yield table
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()


def _prepare(folder: Path, fingerprint: str, num_shards: int) -> None:
    """Make the folder one of this job: remove the shards of another."""
    job = orjson.dumps({"fingerprint": fingerprint, "num_shards": num_shards}, option=orjson.OPT_SORT_KEYS) + b"\n"
    durable.make_folder(folder)
    path = folder / _JOB
    if path.is_file() and path.read_bytes() == job:
        return
    durable.remove(path)  # first: until the new one stands, nothing here counts
    for file in sorted(folder.iterdir()):
        if _OURS.fullmatch(file.name):
            durable.remove(file)
    durable.write_bytes(path, job)


def _write(folder: Path, number: int, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    data = sink.getvalue()
    entry = {"num_bytes": data.size, "sha256": hashlib.sha256(data).hexdigest()}
    durable.remove(folder / f"{number:06d}.json")
    durable.write_bytes(folder / f"{number:06d}.arrow", data)
    durable.write_bytes(folder / f"{number:06d}.json", orjson.dumps(entry, option=orjson.OPT_SORT_KEYS) + b"\n")


def _read(folder: Path, number: int) -> pa.Buffer | None:
    """Return a shard's bytes if they are those that were written; None if they are to be made."""
    try:
        entry = orjson.loads((folder / f"{number:06d}.json").read_bytes())
        data = (folder / f"{number:06d}.arrow").read_bytes()
    except (OSError, orjson.JSONDecodeError):
        return None
    whole = isinstance(entry, dict) and entry.get("sha256") == hashlib.sha256(data).hexdigest()
    return pa.py_buffer(data) if whole else None
