"""An engine, opened: search, similar documents, and whether its files are whole.

(`engines` is where work runs; an engine in the singular is the folder that `build` makes.)
"""

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tamis.data import Corpus, Ledger, Queries, Run, artefact
from tamis.errors import ArtefactError, TamisError, UsageError
from tamis.search.index import SearchIndex

Mode = Literal["hybrid", "lexical", "dense", "rrf", "bm25"]
MAX_QUERY_CHARS = 8192
_PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "numpy",
    "scipy",
    "numba",
    "pyarrow",
    "bm25s",
    "faiss-cpu",
)
SERVED = ("corpus", "passages", "encoder")
"""What an index version holds beside its arms, so that it serves whatever a build does to the rest."""
_PARTS = ("corpus", "dropped", "selected", "passages", "collection", "pairs", "encoder", "runs", "report")
LEDGERS = ("ledger/1-ingest", "ledger/2-passages", "ledger/3-select", "ledger/4-synthesize", "ledger/5-index")


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
      rank: from 1.
      doc_id, score, title: the document and its score, higher is better.
      snippet: the stretch of its text that answers best.
      highlights: (start, stop) in the snippet where the query's words stand.
      start, stop: characters of the document's text that the snippet is.
    """

    rank: int
    doc_id: str
    score: float
    title: str
    snippet: str
    highlights: tuple[tuple[int, int], ...]
    start: int
    stop: int

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as JSON values."""
        return asdict(self)


class Engine:
    """A finished engine folder, opened for reading; several may be open while a build replaces them."""

    def __init__(self, folder: Path | str) -> None:
        """Verify the checksums of an index version, its encoder and documents, then open them.

        Raises:
          ArtefactError: the folder is no finished engine, or a file is damaged; it is named.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ArtefactError(f"{self.folder}: no such engine folder. Make one: tamis build PATH --out {self.folder}")
        while True:
            version = current_index(self.folder)
            try:
                self._open(version)
                return
            except TamisError:
                if current_index(self.folder) == version:
                    raise  # else a build has replaced this version by the next one while it was being opened

    def _open(self, version: Path) -> None:
        from tamis.models import load_encoder

        artefact.open_verified(version, "index")
        self.corpus = Corpus.open(version / "corpus", hold=True)
        self.index = SearchIndex.load(version, load_encoder(version / "encoder"))
        has_passages = self.index.parents is not None
        self._passages = Corpus.open(version / "passages", hold=True) if has_passages else None

    def search(self, text: str, k: int = 10, mode: Mode = "hybrid") -> list[Hit]:
        """Return the k best documents for one query.

        Raises:
          UsageError: an empty query, one over 8192 characters, or k below 1.
        """
        if not text.strip():
            raise UsageError("the query is empty. Give some words.")
        if len(text) > MAX_QUERY_CHARS:
            raise UsageError(f"the query has {len(text)} characters, at most {MAX_QUERY_CHARS} are searched.")
        asked = Queries.from_texts({"q": text})
        return self._hits(self.run(asked, k=k, mode=mode), asked)

    def run(self, queries: Queries, k: int = 100, mode: Mode = "hybrid") -> Run:
        """Return the rankings of many queries."""
        if k < 1:
            raise UsageError(f"k = {k}: at least 1.")
        return self.index.search(queries, k, mode=mode)

    def similar(self, doc_id: str, k: int = 10) -> list[Hit]:
        """Return the k documents nearest to a document of the engine, without itself.

        Raises:
          DataError: no such document.
        """
        document = self.corpus.document(doc_id)
        asked = Queries.from_texts({doc_id: f"{document['title']} {document['text'][:MAX_QUERY_CHARS]}"})
        return self._hits(self.index.similar(doc_id, k), asked)

    def why(self, doc_id: str) -> list[dict[str, Any]]:
        """Return every decision about a document, in the order of the stages."""
        return Ledger(self.folder / "ledger").why(doc_id)

    def _hits(self, ranking: Run, asked: Queries) -> list[Hit]:
        table = ranking.to_table()
        ids = table["doc_id"].to_pylist()
        documents = self.corpus.take(self.corpus.rows_of(ids), ["title", "text"]).to_pylist() if ids else []
        spans = self._spans(ranking, asked, documents)
        hits = []
        for place, (doc_id, score) in enumerate(zip(ids, table["score"].to_pylist(), strict=True)):
            title, text, first = documents[place]["title"], documents[place]["text"], spans[place][0]
            window = self.index.snippet(text[slice(*spans[place])], asked.texts[0])
            start, stop = first + window.start, first + window.stop
            marks = tuple((a - window.start, b - window.start) for a, b in window.highlights)
            hits.append(Hit(place + 1, doc_id, score, title, text[start:stop], marks, start, stop))
        return hits

    def _spans(self, ranking: Run, asked: Queries, documents: list[dict[str, Any]]) -> list[tuple[int, int]]:
        """Where in each document to look for a snippet: its best passage, or all of it."""
        spans = [(0, len(document["text"])) for document in documents]
        if self._passages is None or not spans:
            return spans
        best = self.index.evidence(asked, ranking).to_pylist()
        found = [(place, passage) for place, passage in enumerate(best) if passage is not None]
        rows = self._passages.rows_of([passage for _, passage in found])
        places = self._passages.take(rows, ["start", "stop"]).to_pylist()
        for (place, _), row in zip(found, places, strict=True):
            spans[place] = (row["start"], row["stop"])
        return spans


def current_index(folder: Path) -> Path:
    """Return the index version that ``index/CURRENT`` names.

    Raises:
      ArtefactError: no finished index.
    """
    pointer = folder / "index" / "CURRENT"
    try:
        name = pointer.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(
            f"{folder}: no finished index ({pointer} cannot be read). Run `tamis build` again."
        ) from error
    if not (name.startswith("v") and name[1:].isdigit() and len(name) <= 10):
        raise ArtefactError(f"{pointer}: names {name[:40]!r}, expected a version as v0001. Run `tamis build` again.")
    if not (folder / "index" / name).is_dir():
        raise ArtefactError(f"{pointer}: names {name}, which is not there. Run `tamis build` again.")
    return folder / "index" / name


def verify(folder: Path | str, *, deep: bool = False) -> list[str]:
    """List what is wrong with an engine's files; empty when it is whole.

    Args:
      folder: the engine.
      deep: hash every file instead of comparing names and sizes; O(bytes).
    """
    root = Path(folder)
    targets = [root / name for name in (*_PARTS, *LEDGERS)]
    found = []
    try:
        targets.append(current_index(root))
    except ArtefactError as error:
        found.append(str(error))
    manifests = {}
    for target in targets:
        try:
            manifests[target] = artefact.read_manifest(target)
            found += artefact.problems(target, manifests[target], deep=deep)
        except ArtefactError as error:
            found.append(str(error))
    contents = {target.name: manifest.content for target, manifest in manifests.items() if target.parent == root}
    found += [
        f"{target}: made from another {name} than {root / name}. A build was interrupted: run it again."
        for target, manifest in manifests.items()
        for name, content in manifest.inputs.items()
        if name != target.name and contents.get(name, content) != content  # an encoder's own input is a given one
    ]
    return found


def environment() -> dict[str, Any]:
    """Versions, machine and extras: what `tamis doctor` prints."""
    facts: dict[str, Any] = {
        "tamis": metadata.version("tamis"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "utf8": sys.getfilesystemencoding(),
    }
    for name in _PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed" + (" (extra [train])" if name in _PACKAGES[:3] else "")
    return facts


__all__ = ["Engine", "Hit", "current_index", "environment", "verify"]
