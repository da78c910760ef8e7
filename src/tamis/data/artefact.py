"""Artefact folders: made in a hidden staging folder, manifest last, then renamed into place.

A folder without a valid ``manifest.json`` does not exist. The manifest holds the fingerprint of
everything that determined the content, and size and SHA-256 of every file; an equal fingerprint
means the stage is skipped. ``volatile`` holds what may differ between two equal runs (seconds).
"""

import hashlib
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from tamis.data import durable
from tamis.data.settings import Settings
from tamis.errors import ArtefactError, RecipeError, ResourceError

FORMAT = 1
MANIFEST = "manifest.json"
_VOLATILE_BLOCK = re.compile(rb"<!-- volatile -->.*?<!-- /volatile -->", re.DOTALL)
_VERSIONED = ("numpy", "scipy", "numba", "pyarrow", "bm25s", "PyStemmer", "faiss-cpu", "tokenizers")


class FileEntry(Settings):
    """One file of an artefact: its size in bytes and SHA-256; volatile ones may differ between equal runs."""

    num_bytes: int
    sha256: str
    volatile: bool = False


class Manifest(Settings):
    """What an artefact folder is and what it was made from."""

    format: int
    kind: str
    fingerprint: str
    tamis: str
    seed: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, int]
    versions: dict[str, str]
    files: dict[str, FileEntry]
    volatile: dict[str, Any]
    checksum: str = ""  # fingerprint of all the other fields: damage to the manifest itself is seen too

    @property
    def content(self) -> str:
        """Hash of the files' names and contents: what later stages put into their fingerprint."""
        return fingerprint({name: entry.sha256 for name, entry in self.files.items() if not entry.volatile})


@cache
def _version(package: str) -> str:
    return metadata.version(package)


def fingerprint(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """SHA-256 of a JSON value in canonical form (sorted keys)."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Staging:
    """A folder being made. Write files through it, set ``counts`` and ``volatile``, leave the context."""

    def __init__(self, folder: Path) -> None:
        """Wrap the (empty, hidden) staging ``folder``."""
        self.folder = folder
        self.counts: dict[str, int] = {}
        self.volatile: dict[str, Any] = {}
        self.volatile_files: set[str] = set()
        self._files: dict[str, FileEntry] = {}

    @contextmanager
    def create(self, name: str) -> Iterator[durable.HashedFile]:
        """Open the new file ``name`` (relative, forward slashes) for writing."""
        path = self.folder / name
        durable.make_folder(path.parent)
        with durable.create(path) as file:
            yield file
        self._files[name] = FileEntry(num_bytes=file.num_bytes, sha256=file.sha256)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write one whole file."""
        with self.create(name) as file:
            file.write(data)

    def include(self, artefact: Path, name: str) -> None:
        """Take in the files of a finished artefact below ``name/``; links, so that no byte is stored twice.

        Raises:
          ArtefactError: it is unfinished, or a file differs from its manifest.
        """
        for file, entry in read_manifest(artefact).files.items():
            target = self.folder / name / file
            durable.make_folder(target.parent)
            durable.link(artefact / file, target)
            num_bytes, digest = durable.adopt(target)
            if digest != entry.sha256:
                raise ArtefactError(f"{artefact / file}: damaged. Run the build again: it makes {artefact.name} anew.")
            self._files[f"{name}/{file}"] = FileEntry(num_bytes=num_bytes, sha256=digest)

    def seal(self) -> dict[str, FileEntry]:
        """Adopt what libraries wrote into the folder themselves; return all entries by name."""
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_symlink():
                raise ArtefactError(f"{path}: a link; an artefact holds plain files only. Write a copy instead.")
            if path.is_file() and name not in self._files:
                num_bytes, digest = durable.adopt(path)
                self._files[name] = FileEntry(num_bytes=num_bytes, sha256=digest)
        durable.sync_tree(self.folder)
        entries = dict(sorted(self._files.items()))
        for name in self.volatile_files:
            entries[name] = entries[name].model_copy(update={"volatile": True})
        return entries


def stage_fingerprint(kind: str, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int) -> str:
    """Fingerprint of a stage: kind, format, tamis version, settings, inputs and seed."""
    return fingerprint(
        {
            "kind": kind,
            "format": FORMAT,
            "tamis": _version("tamis"),
            "settings": dict(settings),
            "inputs": dict(inputs),
            "seed": seed,
        }
    )


@contextmanager
def stage(
    folder: Path, kind: str, *, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int
) -> Iterator[Staging]:
    """Make the artefact ``folder``: all of it or nothing.

    Args:
      folder: where it will stand; an older artefact there is replaced at the very end.
      kind: what it is ("corpus", "index", ...).
      settings: every setting that determined it, JSON values.
      inputs: name -> content hash of what it was made from.
      seed: the run's seed.

    Raises:
      ResourceError: the system refused a write; nothing of the new artefact is left, the older one stands.
    """
    staging_folder, retired = _hidden(folder, "partial"), _hidden(folder, "old")
    expected = stage_fingerprint(kind, settings, inputs, seed)  # first: a setting that is no JSON fails before the work
    _put_back(retired, folder)
    durable.remove(staging_folder)
    durable.make_folder(staging_folder)
    staging = Staging(staging_folder)
    started = time.monotonic()
    try:
        with _private(staging_folder):
            yield staging
        manifest = Manifest(
            format=FORMAT,
            kind=kind,
            fingerprint=expected,
            tamis=_version("tamis"),
            seed=seed,
            settings=dict(settings),
            inputs=dict(inputs),
            counts={name: int(count) for name, count in staging.counts.items()},
            versions={name: _version(name) for name in _VERSIONED},
            files=staging.seal(),
            volatile={"seconds": round(time.monotonic() - started, 3), **staging.volatile},
        )
        values = orjson.loads(manifest.model_dump_json())
        values["checksum"] = _checksum(values)
        durable.write_bytes(staging_folder / MANIFEST, orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n")
        _publish(staging_folder, folder, retired)
    except BaseException as error:
        with suppress(ResourceError):  # give the space back; what stays is hidden and goes with the next run
            durable.remove(staging_folder)
        if isinstance(error, OSError):  # from a library that writes by itself
            raise durable.refused("make", folder, error) from error
        raise


def _hidden(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")


@contextmanager
def _private(folder: Path) -> Iterator[None]:
    """Keep a folder to its owner while it is being filled."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    with suppress(OSError):  # a file system without permissions
        folder.chmod(0o700)
    yield
    with suppress(OSError):
        folder.chmod(mode)


def _publish(staging_folder: Path, folder: Path, retired: Path) -> None:
    if not folder.exists():
        durable.rename(staging_folder, folder)
    elif durable.exchange(staging_folder, folder):
        durable.remove(staging_folder)
    else:
        durable.remove(retired)
        try:
            durable.rename(folder, retired)
            durable.rename(staging_folder, folder)
        finally:
            _put_back(retired, folder)  # nothing to do unless the second rename failed
        durable.remove(retired)


def _put_back(retired: Path, folder: Path) -> None:
    if retired.exists() and not folder.exists():
        durable.rename(retired, folder)


def sweep(root: Path) -> None:
    """Clear what a killed run left below ``root``; call it under the lock, before a build.

    Unfinished folders and files go; an artefact that was moved aside for a successor that never came
    stands again.
    """
    for path in sorted(root.rglob(".*")):
        if path.suffix == ".old" and path.is_dir():
            _put_back(path, path.with_name(path.name[1 : -len(".old")]))
        if (path.suffix in {".partial", ".old"} and path.is_dir()) or (path.suffix == ".new" and path.is_file()):
            durable.remove(path)


def _checksum(values: Mapping[str, Any]) -> str:
    return fingerprint({name: value for name, value in values.items() if name != "checksum"})


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest.

    Raises:
      ArtefactError: missing (the folder is unfinished), damaged, or of a newer format.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"{folder}: no {MANIFEST} ({error.strerror}): not a finished artefact. Run the build again."
        ) from error
    try:
        values = orjson.loads(data)
        found = values["format"]
        if isinstance(found, int) and found > FORMAT:
            raise ArtefactError(f"{folder}: made by format {found}, this reads up to {FORMAT}. Upgrade tamis.")
        if _checksum(values) != values["checksum"]:
            raise ValueError("its content differs from its checksum")
        return Manifest.from_json(data, str(path))
    except (ValueError, KeyError, TypeError, AttributeError, RecipeError) as error:
        raise ArtefactError(f"{path}: damaged ({error}). Build this stage again.") from error


def is_done(folder: Path, expected_fingerprint: str, *, deep: bool = False) -> bool:
    """Say whether ``folder`` is a finished, undamaged-looking artefact with this fingerprint.

    Args:
      folder: the artefact.
      expected_fingerprint: of all it should be made from.
      deep: hash the contents too, O(bytes): before they are read on, and so that damage is made good.
    """
    try:
        manifest = read_manifest(folder)
    except ArtefactError:
        return False
    return manifest.fingerprint == expected_fingerprint and not problems(folder, manifest, deep=deep)


def problems(folder: Path, manifest: Manifest, *, deep: bool) -> list[str]:
    """List what is wrong with the files of a folder, each line naming the file.

    Args:
      folder: the artefact.
      manifest: its manifest.
      deep: hash the contents too; O(bytes). Otherwise names and sizes only.
    """
    found = []
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() or p.is_symlink()}
    for name, entry in manifest.files.items():
        path = folder / name
        if name not in present:
            found.append(f"{path}: missing")
            continue
        if path.is_symlink():
            found.append(f"{path}: a link, not a file")
            continue
        try:
            num_bytes = path.stat().st_size
            if num_bytes != entry.num_bytes:
                found.append(f"{path}: {num_bytes} bytes, the manifest says {entry.num_bytes}")
            elif deep and durable.sha256(path) != entry.sha256:
                found.append(f"{path}: content differs from its SHA-256 in the manifest")
        except OSError as error:
            found.append(f"{path}: cannot be read ({error.strerror})")
    found += [f"{folder / name}: not in the manifest" for name in sorted(present - set(manifest.files) - {MANIFEST})]
    return found


def open_verified(folder: Path, kind: str) -> Manifest:
    """Read the manifest and hash every file: call before a native loader sees any of them.

    Raises:
      ArtefactError: not finished, of another kind, or damaged; names each damaged file.
    """
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise ArtefactError(f"{folder}: holds a {manifest.kind}, expected a {kind}.")
    found = problems(folder, manifest, deep=True)
    if found:
        raise ArtefactError("\n".join([*found, f"Run the build again: it makes {folder.name} anew."]))
    return manifest


def stable_bytes(data: bytes) -> bytes:
    """Return a file's bytes without the blocks that are marked volatile (timings in a report)."""
    return _VOLATILE_BLOCK.sub(b"", data)


def hash_tree(folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 of every file of the artefacts below ``folder``, what is volatile left out.

    The files themselves are hashed, O(bytes). Two runs with the same seed and inputs have equal trees.

    Raises:
      ArtefactError: a manifest is damaged or one of its files cannot be read.
    """
    tree = {}
    for path in sorted(folder.rglob(MANIFEST)):
        relative = path.parent.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        manifest = read_manifest(path.parent)
        values = manifest.model_dump(exclude={"volatile", "checksum", "files"})
        tree[(relative / MANIFEST).as_posix()] = fingerprint(values)
        for name, entry in manifest.files.items():
            file = path.parent / name
            try:
                digest = (
                    hashlib.sha256(stable_bytes(file.read_bytes())).hexdigest()
                    if entry.volatile
                    else durable.sha256(file)
                )
            except OSError as error:
                raise ArtefactError(f"{file}: cannot be read ({error.strerror}). Build this stage again.") from error
            tree[(relative / name).as_posix()] = digest
    return tree
