"""Ingest: files to a corpus. Every document read is kept or dropped with a reason; every line not read is a reject.

Source: tamis design (reliability D1 to D16; provenance cards K7, K8).
"""

from collections import Counter
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
from tamis.ingestion.parts import Part, Staged, Task, died, rejects_file, stage_part
from tamis.ingestion.readers import FieldNames, Unit
from tamis.ingestion.records import Fields
from tamis.ingestion.sources import Found, SourceFile, resolve

RANGE_BYTES = 64 << 20
TASK_BYTES = 32 << 20
TASK_FILES = 256
CHILD_LIMITS = Limits(memory_bytes=8 << 30, cpu_seconds=3600)
_RECORD_KINDS = frozenset({"jsonl", "json", "csv", "tsv", "parquet"})
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
        lost = _lost_files(tasks, parts)
        _check_text_fields(tasks, parts, settings)
        rejects = _Rejects(found, tasks, parts, lost, scratch)
        _check_rejects(rejects, tasks, parts, settings)
        decisions = Decisions(Staged(scratch, parts), _places(tasks, parts, lost), settings.on_duplicate)
        counts = decisions.settle()
        if not counts["documents"]:
            raise DataError(
                f"no document is left: {_listed(counts + rejects.counts)}. Look at the input or the fields' names."
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


def _lost_files(tasks: list[Task], parts: list[Part]) -> dict[str, tuple[str, str]]:
    """Return label -> (reason, detail) of files whose documents are not believed."""
    lost: dict[str, tuple[str, str]] = {}
    for task, part in zip(tasks, parts, strict=True):
        for unit, summary in zip(task.units, part.units, strict=True):
            if summary.died:
                lost[unit.source.label] = ("reader_died", summary.died)
            elif summary.has_changed:
                detail = "size or time changed; its documents are not believed. Run again when nothing writes to it"
                lost.setdefault(unit.source.label, ("changed_while_reading", detail))
    return lost


def _check_text_fields(tasks: list[Task], parts: list[Part], settings: Ingest) -> None:
    docs: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    fields: dict[str, Fields | None] = {}
    for task, part in zip(tasks, parts, strict=True):
        for unit, summary in zip(task.units, part.units, strict=True):
            docs[unit.source.path] += summary.num_docs
            missing[unit.source.path] += summary.rejects["text_missing"]
            fields.setdefault(unit.source.path, summary.fields)
    for path, chosen in fields.items():
        if chosen is None or docs[path] or not missing[path] or chosen.text in chosen.seen:
            continue
        if chosen.suggestion:
            advice = f"use --text-field {chosen.suggestion}"
        else:
            advice = f"name the field with --text-field, or leave the file out with --exclude {path}"
        asked = " that was asked for" if settings.text_field else ""
        raise DataError(f"{path}: no field {chosen.text!r}{asked} (has: {', '.join(chosen.seen[:20])}); {advice}.")


class _Rejects:
    """All rejects in the order of the corpus, streamed from the scratch files; lines counted from the file's start."""

    def __init__(
        self, found: Found, tasks: list[Task], parts: list[Part], lost: dict[str, tuple[str, str]], scratch: Path
    ) -> None:
        self._found, self._tasks, self._parts, self._lost, self._scratch = found, tasks, parts, lost, scratch
        self._bases = _line_bases(tasks, parts)
        self.counts: Counter[str] = Counter()
        for row in self:
            self.counts["rejected"] += 1
            self.counts[f"rejected_{row['reason']}"] += 1

    def __iter__(self) -> Iterator[dict[str, str | int]]:
        for label, detail in self._found.unreadable:
            yield {"path": label, "line": 0, "offset": 0, "reason": "unreadable", "detail": detail}
        told: set[str] = set()
        for task, part in zip(self._tasks, self._parts, strict=True):
            for unit in task.units:
                label = unit.source.label
                if label in self._lost and label not in told:
                    told.add(label)
                    reason, detail = self._lost[label]
                    yield {"path": label, "line": 0, "offset": 0, "reason": reason, "detail": detail}
            if any(unit.died for unit in part.units):
                continue
            with rejects_file(self._scratch, part.number).open("rb") as file:
                for line in file:
                    number, at, offset, reason, detail = orjson.loads(line)
                    label = task.units[number].source.label
                    if label not in self._lost:
                        at += self._bases[part.number, number]
                        yield {"path": label, "line": at, "offset": offset, "reason": reason, "detail": detail}


def _line_bases(tasks: list[Task], parts: list[Part]) -> dict[tuple[int, int], int]:
    """Return (task, unit) -> lines of the same file before it."""
    lines: Counter[str] = Counter()
    bases = {}
    for task, part in zip(tasks, parts, strict=True):
        for number, (unit, summary) in enumerate(zip(task.units, part.units, strict=True)):
            bases[part.number, number] = lines[unit.source.label]
            lines[unit.source.label] += summary.num_lines
    return bases


def _check_rejects(rejects: _Rejects, tasks: list[Task], parts: list[Part], settings: Ingest) -> None:
    """Stop when too many records were rejected, or files with too large a share of the bytes gave nothing."""
    rejected = rejects.counts["rejected"]
    if not rejected:
        return
    docs: Counter[str] = Counter()
    sources: dict[str, SourceFile] = {}
    for task, part in zip(tasks, parts, strict=True):
        for unit, summary in zip(task.units, part.units, strict=True):
            docs[unit.source.label] += summary.num_docs
            sources[unit.source.label] = unit.source
    total = sum(source.num_bytes for source in sources.values())
    bad = {str(row["path"]) for row in rejects}
    barren = sum(
        s.num_bytes for label, s in sources.items() if s.kind in _RECORD_KINDS and label in bad and not docs[label]
    )
    shares = (rejected / (rejected + sum(docs.values())), barren / max(1, total))
    if max(shares) <= settings.max_reject_frac:
        return
    first = [
        f"  {r['path']}, line {r['line']}, byte {r['offset']}: {r['reason']}: {r['detail']}"
        for r, _ in zip(rejects, range(3), strict=False)
    ]
    raise DataError(
        f"{rejected} of {rejected + sum(docs.values())} records rejected ({max(shares):.2%} lost, "
        f"--max-reject-frac allows {settings.max_reject_frac:.2%}): {_listed(rejects.counts)}. The first:\n"
        + "\n".join(first)
        + "\nRepair the input, or raise --max-reject-frac to go on without it."
    )


def _listed(counts: Counter[str]) -> str:
    chosen = {n: c for n, c in sorted(counts.items()) if n.startswith(("rejected_", "dropped_"))}
    return ", ".join(f"{c} {n.split('_', 1)[1]}" for n, c in chosen.items()) or "the files are empty"


def _places(tasks: list[Task], parts: list[Part], lost: dict[str, tuple[str, str]]) -> Places:
    bases = _line_bases(tasks, parts)
    return Places(
        {
            (task.number, number): Place(unit.source.label, bases[task.number, number], unit.source.label in lost)
            for task in tasks
            for number, unit in enumerate(task.units)
        }
    )


def _write_rejects(dropped: Staging, rejects: _Rejects) -> None:
    with dropped.create("rejects.jsonl") as file:
        for row in rejects:
            file.write(orjson.dumps(row) + b"\n")
    dropped.counts["rejects"] = rejects.counts["rejected"]
