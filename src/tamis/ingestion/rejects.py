"""Rejects: what was not read, where and why, and when it is too much. Shared by `ingest` and `pool`.

Source: tamis design (reliability D1 to D16).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import orjson

from tamis.errors import DataError
from tamis.ingestion.parts import Part, Task, rejects_file
from tamis.ingestion.records import Fields
from tamis.ingestion.sources import Found, SourceFile

Lost: TypeAlias = dict[str, tuple[str, str]]
"""label -> (reason, detail) of files whose documents are not believed."""
_KINDS_OF_RECORDS = frozenset({"jsonl", "json", "csv", "tsv", "parquet"})


def lost_files(tasks: Sequence[Task], parts: Sequence[Part]) -> Lost:
    """Return label -> (reason, detail) of files whose documents are not believed."""
    lost: Lost = {}
    for task, part in zip(tasks, parts, strict=True):
        for unit, summary in zip(task.units, part.units, strict=True):
            if summary.died:
                lost[unit.source.label] = ("reader_died", summary.died)
            elif summary.has_changed:
                detail = "size or time changed; its documents are not believed. Run again when nothing writes to it"
                lost.setdefault(unit.source.label, ("changed_while_reading", detail))
    return lost


def check_text_fields(tasks: Sequence[Task], parts: Sequence[Part], asked_for: str | None) -> None:
    """Refuse a file none of whose records has the text field.

    Args:
      tasks: what was read.
      parts: what came of each task.
      asked_for: the text field that the caller named, if any.

    Raises:
      DataError: names the file, the fields that it has, and one of them that may be meant.
    """
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
        asked = " that was asked for" if asked_for else ""
        raise DataError(f"{path}: no field {chosen.text!r}{asked} (has: {', '.join(chosen.seen[:20])}); {advice}.")


class Rejects:
    """All rejects in the order of the corpus, streamed from the scratch files; lines counted from the file's start.

    Attributes:
      counts: rejected, and rejected_REASON for each reason.
    """

    def __init__(self, found: Found, tasks: Sequence[Task], parts: Sequence[Part], lost: Lost, scratch: Path) -> None:
        """Count what was rejected.

        Args:
          found: what the paths were resolved to; its unreadable files are rejects, too.
          tasks: what was read.
          parts: what came of each task.
          lost: of `lost_files`.
          scratch: folder of the parts.
        """
        self._found, self._tasks, self._parts, self._lost, self._scratch = found, tasks, parts, lost, scratch
        self._bases = line_bases(tasks, parts)
        self.counts: Counter[str] = Counter()
        for row in self:
            self.counts["rejected"] += 1
            self.counts[f"rejected_{row['reason']}"] += 1

    def __iter__(self) -> Iterator[dict[str, str | int]]:
        """Yield path, line, offset, reason and detail of each."""
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

    def check(self, max_reject_frac: float) -> None:
        """Stop when too many records were rejected, or files with too large a share of the bytes gave nothing.

        Raises:
          DataError: counts by reason, and the first three rejects.
        """
        rejected = self.counts["rejected"]
        if not rejected:
            return
        docs: Counter[str] = Counter()
        sources: dict[str, SourceFile] = {}
        for task, part in zip(self._tasks, self._parts, strict=True):
            for unit, summary in zip(task.units, part.units, strict=True):
                docs[unit.source.label] += summary.num_docs
                sources[unit.source.label] = unit.source
        total = sum(source.num_bytes for source in sources.values())
        bad = {str(row["path"]) for row in self}
        barren = sum(
            s.num_bytes
            for label, s in sources.items()
            if s.kind in _KINDS_OF_RECORDS and label in bad and not docs[label]
        )
        shares = (rejected / (rejected + sum(docs.values())), barren / max(1, total))
        if max(shares) <= max_reject_frac:
            return
        first = [
            f"  {r['path']}, line {r['line']}, byte {r['offset']}: {r['reason']}: {r['detail']}"
            for r, _ in zip(self, range(3), strict=False)
        ]
        raise DataError(
            f"{rejected} of {rejected + sum(docs.values())} records rejected ({max(shares):.2%} lost, "
            f"--max-reject-frac allows {max_reject_frac:.2%}): {listed(self.counts)}. The first:\n"
            + "\n".join(first)
            + "\nRepair the input, or raise --max-reject-frac to go on without it."
        )


def line_bases(tasks: Sequence[Task], parts: Sequence[Part]) -> dict[tuple[int, int], int]:
    """Return (task, unit) -> lines of the same file before it."""
    lines: Counter[str] = Counter()
    bases = {}
    for task, part in zip(tasks, parts, strict=True):
        for number, (unit, summary) in enumerate(zip(task.units, part.units, strict=True)):
            bases[part.number, number] = lines[unit.source.label]
            lines[unit.source.label] += summary.num_lines
    return bases


def listed(counts: Counter[str]) -> str:
    """Return what was rejected or dropped as a reader says it: "3 invalid_json, 1 empty_text"."""
    chosen = {n: c for n, c in sorted(counts.items()) if n.startswith(("rejected_", "dropped_"))}
    return ", ".join(f"{c} {n.split('_', 1)[1]}" for n, c in chosen.items()) or "the files are empty"
