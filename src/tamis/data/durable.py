"""Every write that matters: fsync, checksum, atomic rename. No other module writes a file that is kept.

An *operation* is one step after which a crash leaves a different disk: creating a file, finishing it,
renaming, removing. Tests install an ``observer`` that is called before and after each one and may
kill the process or raise OSError there; that is how every crash point is visited.
"""

import ctypes
import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tamis.errors import ResourceError

Observer = Callable[[str, str, Path], None]
observer: Observer | None = None
"""Called as observer("before" | "after", operation, path); None outside tests."""

_CHUNK_BYTES = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_CANNOT_LINK = {errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK}
_CANNOT_SWAP = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV}


@contextmanager
def operation(name: str, path: Path) -> Iterator[None]:
    """Run one durable operation: observed by tests, an OSError named by path and remedy.

    Raises:
      ResourceError: the system refused; the message holds the operation, the path and the reason.
    """
    try:
        if observer is not None:
            observer("before", name, path)
        yield
        if observer is not None:
            observer("after", name, path)
    except OSError as error:
        raise refused(name, path, error) from error


def refused(name: str, path: Path, error: OSError) -> ResourceError:
    """Return the error for an operation that the system refused: what, where, why, and what to do."""
    return ResourceError(
        f"cannot {name} {path}: {error.strerror or error}. {_remedy(path)} "
        "Then run the same command again: it continues."
    )


def _remedy(path: Path) -> str:
    try:
        folder = next((p for p in (path, *path.parents) if p.exists()), Path())
        free = shutil.disk_usage(folder).free / 2**20
    except OSError:
        return "Check the disk and its permissions."
    return f"{free:.0f} MiB are free there; make room or check the permissions."


class HashedFile(io.RawIOBase):
    """A binary file open for appending that knows the SHA-256 and size of what it was given."""

    def __init__(self, path: Path) -> None:
        """Create ``path``; it must not exist."""
        self.path = path
        self._file: BinaryIO = path.open("xb")
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def writable(self) -> bool:
        """Return True: this is a writing end."""
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001 - any buffer
        """Append ``data``, any object with the buffer protocol; return its size in bytes."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._digest.update(view)
        self.num_bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self.num_bytes

    def sync(self) -> None:
        """Push everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        try:
            if not self.closed:
                self._file.close()
        finally:
            super().close()

    @property
    def sha256(self) -> str:
        """Hex digest of everything written."""
        return self._digest.hexdigest()


@contextmanager
def create(path: Path) -> Iterator[HashedFile]:
    """Open a new file of a staging folder for writing; on success it is on the disk when this returns."""
    with operation("create", path):
        file = HashedFile(path)
    try:
        try:
            yield file
        except OSError as error:
            raise refused("write", path, error) from error
        with operation("finish", path):
            file.sync()
    finally:
        with suppress(OSError):  # after a failed write, closing flushes and fails again; after sync() nothing is left
            file.close()


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically: a reader sees the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.new")
    remove(temporary)
    with create(temporary) as file:
        file.write(data)
    rename(temporary, path)


def append_line(path: Path, line: bytes) -> None:
    """Append one line to a log. Not atomic and not awaited: a log may lose its last lines, nothing reads it back."""
    try:
        with path.open("ab") as file:
            file.write(line.replace(b"\n", b" ") + b"\n")
    except OSError as error:
        raise refused("append to", path, error) from error


def rename(source: Path, target: Path) -> None:
    """Rename atomically within one folder's file system and make the new name durable."""
    with operation("rename", target):
        source.replace(target)
        sync_folder(target.parent)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names of one folder in one step: a reader finds the old or the new, at every moment.

    Returns:
      False where the system cannot do it (nothing has changed then).
    """
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None:
        return False
    with operation("swap", second):
        if swap(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
            number = ctypes.get_errno()
            if number in _CANNOT_SWAP:
                return False
            raise OSError(number, os.strerror(number), str(second))
        sync_folder(second.parent)
    return True


def make_folder(path: Path) -> None:
    """Create ``path`` and its missing parents, each name durable."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with operation("make folder", path):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def link(source: Path, target: Path) -> None:
    """Give a finished file a second name; a copy where the file system has no links."""
    with operation("link", target):
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            with source.open("rb") as whole, create(target) as copy:
                shutil.copyfileobj(whole, copy, _CHUNK_BYTES)


def remove(path: Path) -> None:
    """Remove a file, link or folder tree if it is there."""
    if not path.exists() and not path.is_symlink():
        return
    with operation("remove", path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make the names in a folder and in every folder below it durable."""
    with operation("sync folders of", path):
        for folder in (path, *sorted(p for p in path.rglob("*") if p.is_dir() and not p.is_symlink())):
            sync_folder(folder)


def adopt(path: Path) -> tuple[int, str]:
    """Make a file that a library wrote durable; return its size in bytes and SHA-256."""
    with operation("adopt", path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return path.stat().st_size, sha256(path)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()
