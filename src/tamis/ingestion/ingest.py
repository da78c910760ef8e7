"""Ingest: files to a corpus. Every document read is kept or dropped with a reason; every line not read is a reject.

Source: tamis design (reliability D1 to D16; provenance cards K7, K8).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field

from tamis.data import durable
from tamis.data.artefact import Staging
from tamis.data.settings import Settings
from tamis.engines.local import Limits, map_ordered
from tamis.errors import DataError
from tamis.ingestion.cleaning import CLASSES, Unicode
from tamis.ingestion.decisions import Decisions, Place, Places
from tamis.ingestion.parts import Part, Staged, Task, died, stage_part
from tamis.ingestion.readers import FieldNames, Unit
from tamis.ingestion.rejects import Rejects, check_text_fields, line_bases, listed, lost_files
from tamis.ingestion.sources import SourceFile, resolve

RANGE_BYTES = 64 << 20
TASK_BYTES = 32 << 20
TASK_FILES = 256
CHILD_LIMITS = Limits(memory_bytes=8 << 30, cpu_seconds=3600)
_SCRATCH = ".scratch"


class Ingest(Settings):
    """How files become documents.

    Attributes:
      id_field: field of the id; None: _id, id, doc_id or docid, and made from file and line where there is none.
      text_field: field of the text; None: text, body, content or contents.
      title_field: field of the title; None: title.
      max_reject_frac: share of records that may be rejected before the run stops.
      on_duplicate: an id that comes again with another text: refuse, keep the first or the last, or rename (``~2``).
      unicode: clean texts and titles (see `Unicode`).
      exclude: shell patterns of labels to leave out; ``*`` also matches slashes.
    """

    method: Literal["ingest"] = "ingest"
    id_field: str | None = None
    text_field: str | None = None
    title_field: str | None = None
    max_reject_frac: Annotated[float, Field(ge=0, le=1)] = 0.01
    on_duplicate: Literal["error", "first", "last", "suffix"] = "error"
    unicode: bool = True
    exclude: tuple[str, ...] = ()


def ingest(
    paths: Sequence[str],
    settings: Ingest,
    *,
    corpus: Staging,
    dropped: Staging,
    ledger: Staging,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Read files into corpus parts, dropped parts with ``rejects.jsonl``, and ledger rows.

    Two passes: read and clean into memory-mapped scratch files, then settle ids and duplicates and write.
    Memory: 24 bytes a document and one batch a worker. The same bytes for any number of workers.

    Args:
      paths: files, folders, glob patterns.
      settings: see `Ingest`.
      corpus: staging of the kept documents; holds the scratch files meanwhile.
      dropped: staging of dropped documents (DOCUMENT_SCHEMA and ``reason``) and of the rejects.
      ledger: staging of the decisions, one for each document read.
      workers: processes that read.
      progress: called with the number of documents of each part that was read.

    Returns:
      Counts: files, documents_read, documents, grouped, dropped[_REASON], rejected[_REASON], skipped_REASON,
      unicode_CLASS.

    Raises:
      DataError: nothing to read, too much rejected, no text field, conflicting ids, nothing left.
      ResourceError: the disk or a worker failed.
    """
    found = resolve(paths, settings.exclude)
    scratch = corpus.folder / _SCRATCH
    durable.remove(scratch)
    durable.make_folder(scratch)
    try:
        tasks = plan(found.files, settings, scratch)
        parts = list(_read(tasks, workers, progress))
        lost = lost_files(tasks, parts)
        check_text_fields(tasks, parts, settings.text_field)
        rejects = Rejects(found, tasks, parts, lost, scratch)
        rejects.check(settings.max_reject_frac)
        decisions = Decisions(Staged(scratch, parts), _places(tasks, parts, lost), settings.on_duplicate)
        counts = decisions.settle()
        if not counts["documents"]:
            raise DataError(
                f"no document is left: {listed(counts + rejects.counts)}. Look at the input or the fields' names."
            )
        _write_rejects(dropped, rejects)
        decisions.write(corpus, dropped, ledger)
    finally:
        durable.remove(scratch)
    counts.update(rejects.counts)
    counts.update({f"skipped_{reason}": num for reason, num in found.skipped.items()})
    for name in CLASSES:
        counts[f"unicode_{name}"] = sum(part.changes[name] for part in parts)
    counts["files"] = len(found.files)
    return dict(sorted((name, int(num)) for name, num in counts.items()))


def plan(files: Sequence[SourceFile], settings: Ingest, scratch: Path) -> list[Task]:
    """Cut the work into tasks: byte ranges of large JSON lines files, small files together, Parquet alone."""
    groups: list[list[Unit]] = []
    size = TASK_BYTES
    for source in files:
        for unit in _units(source):
            num_bytes = (unit.stop - unit.start) if unit.stop >= 0 else source.num_bytes
            alone = source.kind == "parquet" or (groups and groups[-1][0].source.kind == "parquet")
            if not groups or alone or size + num_bytes > TASK_BYTES or len(groups[-1]) >= TASK_FILES:
                groups.append([])
                size = 0
            groups[-1].append(unit)
            size += num_bytes
    names = FieldNames(settings.id_field, settings.text_field, settings.title_field)
    unicode = Unicode() if settings.unicode else None
    return [Task(n, tuple(units), names, unicode, str(scratch)) for n, units in enumerate(groups)]


def _units(source: SourceFile) -> Iterator[Unit]:
    if source.kind != "jsonl" or source.packing or source.num_bytes <= RANGE_BYTES:
        yield Unit(source)
        return
    for start in range(0, source.num_bytes, RANGE_BYTES):
        yield Unit(source, start, min(start + RANGE_BYTES, source.num_bytes))


def _read(tasks: list[Task], workers: int, progress: Callable[[int], None] | None) -> list[Part]:
    """Run the first pass; Parquet in limited children, where a crash costs one file."""
    trusted = [t for t in tasks if t.units[0].source.kind != "parquet"]
    fragile = [t for t in tasks if t.units[0].source.kind == "parquet"]
    parts = []
    for run in (
        map_ordered(stage_part, trusted, workers=workers),
        map_ordered(stage_part, fragile, workers=workers, limits=CHILD_LIMITS, on_death=died),
    ):
        for part in run:
            parts.append(part)
            if progress is not None:
                progress(sum(unit.num_docs for unit in part.units))
    return sorted(parts, key=lambda part: part.number)


def _places(tasks: list[Task], parts: list[Part], lost: dict[str, tuple[str, str]]) -> Places:
    bases = line_bases(tasks, parts)
    return Places(
        {
            (task.number, number): Place(unit.source.label, bases[task.number, number], unit.source.label in lost)
            for task in tasks
            for number, unit in enumerate(task.units)
        }
    )


def _write_rejects(dropped: Staging, rejects: Rejects) -> None:
    with dropped.create("rejects.jsonl") as file:
        for row in rejects:
            file.write(orjson.dumps(row) + b"\n")
    dropped.counts["rejects"] = rejects.counts["rejected"]
