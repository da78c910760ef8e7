"""Where things stand in an engine folder, and the fingerprint of what it is made from."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import xxhash

from tamis.data import artefact, durable
from tamis.engine import LEDGERS, current_index
from tamis.errors import ArtefactError, DataError
from tamis.ingestion.sources import resolve

_BLOCK_BYTES = 1 << 20
_OURS = (".lock", "recipe.toml")


def fingerprint_sources(paths: Sequence[str], exclude: Sequence[str]) -> str:
    """Hash of the labels and contents of all input files: the same wherever they lie. Reads every byte."""
    found = resolve(list(paths), tuple(exclude))
    parts = {}
    for source in found.files:
        digest = xxhash.xxh3_128()
        try:
            with Path(source.path).open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            raise DataError(
                f"cannot read {source.path}: {error.strerror}. Check it, or leave it out with --exclude."
            ) from error
        parts[source.label] = digest.hexdigest()
    return artefact.fingerprint({"files": parts, "unreadable": sorted(label for label, _ in found.unreadable)})


def is_foreign(out: Path) -> bool:
    """Say whether a folder holds something, but no engine: then nothing is written or cleared up there."""
    return out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in _OURS)


def version_for(engine: Path, expected_fingerprint: str) -> Path:
    """Return the index version that stands with this fingerprint, or the next free one to be made."""
    versions = sorted((engine / "index").glob("v[0-9]*"))
    for folder in versions:
        with suppress(ArtefactError):
            if artefact.read_manifest(folder).fingerprint == expected_fingerprint:
                return folder
    try:
        serving = current_index(engine)
    except ArtefactError:
        return engine / "index" / "v0001"
    return engine / "index" / f"v{int(serving.name[1:]) + 1:04d}"


def drop_old_ledgers(engine: Path) -> None:
    """Remove the ledgers of stages that an older version had under another number: `why` would read them too."""
    for folder in sorted((engine / "ledger").glob("[0-9]*")):
        if f"ledger/{folder.name}" not in LEDGERS:
            durable.remove(folder)


def make_current(engine: Path, folder: Path) -> None:
    """Let ``index/CURRENT`` name a finished version, then remove the others."""
    pointer = engine / "index" / "CURRENT"
    name = folder.name.encode() + b"\n"
    if not pointer.is_file() or pointer.read_bytes() != name:
        durable.write_bytes(pointer, name)
    for other in sorted((engine / "index").glob("v[0-9]*")):
        if other != folder:
            durable.remove(other)
