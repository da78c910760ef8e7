"""Sources: from the paths a person gives to a sorted list of regular files, each with a stable label.

Source: tamis design (reliability D11, CVE-2025-3046: no link is followed below a folder that was given).
"""

import fnmatch
import glob
import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from tamis.data.artefact import MANIFEST, read_manifest
from tamis.errors import ArtefactError, DataError

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".md": "md",
    ".markdown": "md",
    ".html": "html",
    ".htm": "html",
    ".py": "py",
}
PACKINGS = {".gz": "gz", ".zst": "zst"}
MAX_LABEL_BYTES = 480
_BEIR_CORPUS = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst")
_ENGINE_FILES = frozenset({"recipe.toml", "log.jsonl"})
_BESIDE_DOCUMENTS = frozenset((MANIFEST, "README.md", "attributes"))
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True)
class SourceFile:
    """One regular file.

    Attributes:
      path: where it is.
      label: its path below the common root, forward slashes, printable, at most 480 bytes of UTF-8.
      kind: one of KINDS' values.
      packing: "gz", "zst" or "".
      num_bytes: size when it was found.
      mtime_ns: time of its last change when it was found.
    """

    path: str
    label: str
    kind: str
    packing: str
    num_bytes: int
    mtime_ns: int

    def has_changed(self) -> bool:
        """Say whether size or time of change differ from when the file was found."""
        try:
            now = Path(self.path).stat()
        except OSError:
            return True
        return (now.st_size, now.st_mtime_ns) != (self.num_bytes, self.mtime_ns)


@dataclass
class Found:
    """What the paths led to.

    Attributes:
      files: sorted by label's bytes.
      unreadable: (label, detail) of files and folders that the system would not show.
      skipped: what was passed over, counted: hidden, link, special, unknown_suffix, excluded,
        engine, beside_beir_corpus, tamis (what a step of ours wrote beside the documents it kept).
    """

    files: list[SourceFile] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def resolve(paths: Sequence[str], exclude: Sequence[str] = ()) -> Found:
    """Find the files below files, folders and glob patterns; O(entries), reads no content but our own manifests.

    Below a folder no link is followed, hidden entries and caches are passed over and only regular files
    count; an engine made by tamis is passed over. A folder with a BEIR ``corpus.jsonl`` stands for that one
    file. A file whose label matches one of the ``exclude`` patterns (shell style, ``*`` also matches slashes)
    is passed over, and so is a folder below which all would match.

    Raises:
      DataError: a path does not exist, is not a regular file or folder, has an unknown suffix, or
        nothing was found at all.
    """
    if not paths:
        raise DataError("no path given. Name files, folders or patterns such as 'docs/**/*.md'.")
    named: list[tuple[Path, Path]] = []  # (path, base its label is relative to)
    for pattern in paths:
        named += _expand(pattern)
    root = Path(os.path.commonpath([base.absolute() for _, base in named]))
    found = Found()
    excluded = re.compile("|".join(fnmatch.translate(pattern) for pattern in exclude) or r"(?!)")
    seen: set[str] = set()
    for path, _ in named:
        entries: Iterator[Path] = _walk(path, root, excluded, found) if path.is_dir() else iter([_checked(path)])
        for file in entries:
            key = os.path.normpath(file.absolute())
            if key in seen:
                continue
            seen.add(key)
            if excluded.match(label_of(file, root)):
                found.skipped["excluded"] += 1
            else:
                _add(file, root, found)
    found.files.sort(key=lambda f: f.label.encode())
    found.unreadable.sort()
    if not found.files and not found.unreadable:
        skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(found.skipped.items())) or "nothing else"
        raise DataError(
            f"{', '.join(paths)}: no file to read (passed over: {skipped}). "
            f"Known suffixes: {' '.join(KINDS)}, each also with .gz or .zst."
        )
    return found


def suffixes(name: str) -> tuple[str, str]:
    """Return (kind, packing) of a file name; kind is "" when the suffix is not known."""
    stem, suffix = posixpath.splitext(name.lower())
    packing = PACKINGS.get(suffix, "")
    if packing:
        stem, suffix = posixpath.splitext(stem)
    return KINDS.get(suffix, ""), packing


def label_of(path: Path, root: Path) -> str:
    """Return the path below ``root`` as printable UTF-8 of bounded length; distinct for distinct paths."""
    relative = os.path.relpath(path.absolute(), root).replace(os.sep, "/")
    text = relative.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    encoded = text.encode()
    if len(encoded) <= MAX_LABEL_BYTES:
        return text
    digest = xxhash.xxh3_64_hexdigest(encoded)
    return f"{digest}/{encoded[-(MAX_LABEL_BYTES - 20) :].decode('utf-8', 'ignore')}"


def _expand(pattern: str) -> list[tuple[Path, Path]]:
    path = Path(pattern)
    if os.path.lexists(path):
        if not path.exists():
            raise DataError(f"{pattern}: a link to nothing. Name the file itself.")
        return [(path, path if path.is_dir() else path.parent)]
    if not glob.has_magic(pattern):
        raise DataError(f"{pattern}: no such file or folder. Relative paths start at {Path.cwd()}.")
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - patterns may be absolute
    fixed = [p for p in Path(pattern).parts if not glob.has_magic(p)]
    depth = next(i for i, p in enumerate(Path(pattern).parts) if glob.has_magic(p))
    base = Path(*fixed[:depth]) if depth else Path()
    files = [Path(m) for m in matches if suffixes(m)[0] and stat.S_ISREG(os.lstat(m).st_mode)]
    if not files:
        raise DataError(
            f"{pattern}: {len(matches)} match(es), none a regular file of a known suffix ({' '.join(KINDS)})."
        )
    return [(file, base) for file in files]


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: not a regular file (a pipe, device or socket?). Save its content to a file first.")
    if not suffixes(path.name)[0]:
        raise DataError(
            f"{path}: unknown suffix. Known: {' '.join(KINDS)}, each also with .gz or .zst; rename the file."
        )
    return path


def _walk(folder: Path, root: Path, excluded: re.Pattern[str], found: Found) -> Iterator[Path]:
    """Yield regular files of known suffix below ``folder``; iterative, links are not followed."""
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                listed = sorted(entries, key=lambda e: os.fsencode(e.name))
        except OSError as error:
            found.unreadable.append((label_of(current, root), f"folder: {error.strerror}"))
            continue
        corpus = next((e for e in listed if e.name in _BEIR_CORPUS and e.is_file(follow_symlinks=False)), None)
        if corpus is not None:
            found.skipped["beside_beir_corpus"] += len(listed) - 1
            listed = [corpus]
        if current != folder and {e.name for e in listed} >= _ENGINE_FILES:
            found.skipped["engine"] += len(listed)  # what was built from documents is none of them
            continue
        beside = _BESIDE_DOCUMENTS if _is_step_result(current, listed) else frozenset()
        for entry in listed:
            reason = _reason_to_skip(entry) or ("tamis" if entry.name in beside else "")
            if reason:
                found.skipped[reason] += 1
            elif entry.is_dir(follow_symlinks=False):
                if excluded.match(label_of(Path(entry.path), root) + "/"):  # "tests/*" leaves out the folder at once
                    found.skipped["excluded"] += 1
                else:
                    pending.append(Path(entry.path))
            else:
                yield Path(entry.path)


def _is_step_result(folder: Path, listed: "Sequence[os.DirEntry[str]]") -> bool:
    """Say whether a folder holds documents that a step of ours kept."""
    if not any(entry.name == MANIFEST for entry in listed):
        return False
    try:
        return read_manifest(folder).kind == "documents"
    except ArtefactError:
        return False


def _reason_to_skip(entry: "os.DirEntry[str]") -> str:
    if entry.is_symlink():
        return "link"
    if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
        return "hidden"
    if entry.is_dir(follow_symlinks=False):
        return ""
    if not entry.is_file(follow_symlinks=False):
        return "special"
    return "" if suffixes(entry.name)[0] else "unknown_suffix"


def _add(path: Path, root: Path, found: Found) -> None:
    label = label_of(path, root)
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except OSError as error:
        found.unreadable.append((label, f"file: {error.strerror}"))
        return
    kind, packing = suffixes(path.name)
    found.files.append(SourceFile(str(path), label, kind, packing, status.st_size, status.st_mtime_ns))
