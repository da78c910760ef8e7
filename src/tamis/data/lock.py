"""One writer a folder: an OS lock with the holder's name beside it. Readers need none."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock
import orjson

from tamis.data import durable
from tamis.errors import LockedError, ResourceError


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for writing; the lock is gone with the process, however it ends.

    Raises:
      LockedError: another process holds it: pid, host and start time are named.
      ResourceError: the folder cannot be created or locked.
    """
    durable.make_folder(folder)
    try:
        lock = filelock.FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise LockedError(
            f"{folder} is being written: held by {_holder(folder)}. Wait for it to end, or choose another --out."
        ) from None
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise ResourceError(f"cannot lock {folder}: {error}. Check the path and its permissions.") from error
    name_file = folder / ".lock.holder"
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        durable.write_bytes(name_file, orjson.dumps(holder))
        yield
    finally:
        with suppress(OSError):  # only a name: the lock itself goes with the process
            name_file.unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = orjson.loads((folder / ".lock.holder").read_bytes())
        return f"pid {holder['pid']} on host {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not written its name yet"
