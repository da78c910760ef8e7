"""Edit programs: repairs of single documents, written by rules or a model, executed safely, logged and undone.

Source: Zhou et al. 2024, Programming Every Example (ProX), arXiv:2409.17115.

A program is a list of operations as JSON; nothing is ever evaluated. It is bound to one text by its key: on any other
text, its own output for one, it is refused. A program with one fault is refused as a whole and the document stays.
Every line number and every string speaks of the text as it was before any operation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import xxhash
from pydantic import Field, TypeAdapter, ValidationError

from tamis.data.corpus import Corpus, Sifted
from tamis.data.settings import Settings
from tamis.errors import DataError, UsageError

TEXT = pa.large_string()
PROGRAM_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),
        ("text_key", TEXT),  # `text_key` of the text that the program was written for
        ("ops", TEXT),  # JSON list of operations
    ]
)
LOG_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),
        ("row", pa.int64()),  # of the document in the corpus; -1 where it is unknown
        ("op", TEXT),  # the operation as JSON; the whole program where it could not be read
        ("status", TEXT),  # applied, refused, swallowed (inside a removal), not_run (another operation was refused)
        ("reason", TEXT),  # why it was refused
        ("start", pa.int64()),  # bytes of the text as it was; -1 where nothing was changed
        ("stop", pa.int64()),
        ("old", TEXT),
        ("new", TEXT),
        ("key_before", TEXT),
        ("key_after", TEXT),
    ]
)


class DropDoc(Settings):
    """Drop the document (reason ``edit_program``)."""

    op: Literal["drop_doc"] = "drop_doc"


class RemoveLines(Settings):
    """Remove lines; numbers count from 0, both ends are removed.

    Attributes:
      start: first line.
      stop: last line.
    """

    op: Literal["remove_lines"] = "remove_lines"
    start: Annotated[int, Field(ge=0)]
    stop: Annotated[int, Field(ge=0)]


class Replace(Settings):
    """Replace a string inside a line.

    Attributes:
      old: not blank, no line end.
      new: no line end; "" removes.
      all: every occurrence; else ``old`` occurs once.
    """

    op: Literal["replace"] = "replace"
    old: str
    new: str
    all: bool = False


Op = Annotated[DropDoc | RemoveLines | Replace, Field(discriminator="op")]
_OPS: TypeAdapter[list[DropDoc | RemoveLines | Replace]] = TypeAdapter(list[Op])


class _Edit(NamedTuple):
    """Bytes [start, stop) of the text become ``new``; ``op`` is the number of the operation."""

    start: int
    stop: int
    new: bytes
    op: int


class _RefusedError(Exception):
    """An operation cannot be executed."""

    def __init__(self, reason: str, op: int) -> None:
        super().__init__(reason)
        self.reason, self.op = reason, op


@dataclass(frozen=True)
class EditedResult(Sifted):
    """Documents after their programs, and the log that `undo` needs.

    Attributes:
      log: LOG_SCHEMA, a row for each change, and one for each operation that changed nothing.
    """

    log: pa.Table


class EditProgram(Settings):
    """Execute edit programs on documents; what a program may not do is refused and logged.

    Attributes:
      programs: JSON lines with doc_id, text_key and ops (a list); see `program_table` for making one in memory.
      max_removed_frac: characters that a program may remove, of the text's (``program_too_destructive``).
      max_dropped_frac: documents that programs may drop, of the corpus; more is an error.
    """

    method: Literal["edit_program"] = "edit_program"
    programs: str = ""
    max_removed_frac: Annotated[float, Field(ge=0, lt=1)] = 0.7
    max_dropped_frac: Annotated[float, Field(ge=0, le=1)] = 0.5

    def sift(self, corpus: Corpus, *, seed: int) -> EditedResult:
        """Execute the programs of the file ``programs``.

        Args:
          corpus: any documents.
          seed: unused; every sieve takes it.

        Raises:
          UsageError: no file is named.
          DataError: it cannot be read, a document has two programs, or too many documents would be dropped.
        """
        if not self.programs:
            raise UsageError("edit_program: no programs. Set `programs` to a file of JSON lines, or call `run`.")
        return self.run(corpus, read_programs(Path(self.programs)))

    def run(self, corpus: Corpus, programs: pa.Table) -> EditedResult:
        """Execute a table of programs (PROGRAM_SCHEMA). O(bytes); memory: the programs and what is kept.

        Raises:
          DataError: a document has two programs, or too many documents would be dropped.
        """
        pending = _by_document(programs)
        kept, dropped, log = [], [], []
        row = num_dropped = 0
        for batch in corpus.batches():
            texts = batch["text"].to_pylist()
            gone = np.zeros(len(batch), dtype=bool)
            for at, doc_id in enumerate(batch["doc_id"].to_pylist()):
                program = pending.pop(doc_id, None)
                if program is not None:
                    new, records = self._execute(texts[at], program)
                    log += [{**record, "doc_id": doc_id, "row": row + at} for record in records]
                    gone[at] = new is None
                    texts[at] = texts[at] if new is None else new
            table = pa.Table.from_batches([batch])
            reasons = pa.array(["edit_program"] * int(gone.sum()), TEXT)
            dropped.append(table.filter(pa.array(gone)).append_column("reason", reasons))
            new_texts = pa.array(texts, TEXT)
            kept.append(table.set_column(table.column_names.index("text"), "text", new_texts).filter(pa.array(~gone)))
            row += len(batch)
            num_dropped += int(gone.sum())
        for doc_id, program in pending.items():
            log.append({**_record(program["ops"], "refused", "unknown_document"), "doc_id": doc_id, "row": -1})
        self._check_dropped(num_dropped, row)
        schema = corpus.schema
        gone_schema = schema.append(pa.field("reason", TEXT))
        return EditedResult(
            Corpus.from_table(pa.concat_tables([schema.empty_table(), *kept])),
            pa.concat_tables([gone_schema.empty_table(), *dropped]),
            pa.Table.from_pylist(log, schema=LOG_SCHEMA),
        )

    def _check_dropped(self, num_dropped: int, num_docs: int) -> None:
        if num_dropped > self.max_dropped_frac * num_docs:
            raise DataError(
                f"edit_program: the programs drop {num_dropped} of {num_docs} documents; at most "
                f"{self.max_dropped_frac:.0%} may go. Look at the programs, or raise max_dropped_frac."
            )

    def _execute(self, text: str, program: Mapping[str, str]) -> tuple[str | None, list[dict[str, Any]]]:
        """Return the new text (None: dropped; the old one where the program is refused) and log records."""
        key = text_key(text)
        try:
            ops = _OPS.validate_json(program["ops"])
        except ValidationError:
            return text, [_record(program["ops"], "refused", "bad_program", key)]
        shown = [op.model_dump_json() for op in ops]
        try:
            if program["text_key"] != key:
                raise _RefusedError("text_changed", 0)
            if any(isinstance(op, DropDoc) for op in ops):
                states = ["applied" if isinstance(op, DropDoc) else "not_run" for op in ops]
                return None, [_record(line, state, "", key) for line, state in zip(shown, states, strict=True)]
            edits = list(_edits(text, ops))
            new, edits = self._applied(text, edits)
        except _RefusedError as error:
            said = [("refused", error.reason) if at == error.op else ("not_run", "") for at in range(len(shown))]
            return text, [_record(line, *state, key) for line, state in zip(shown, said, strict=True)]
        after, data = text_key(new), text.encode()
        records = [
            _record(shown[e.op], "applied", "", key)
            | {"start": e.start, "stop": e.stop, "old": data[e.start : e.stop].decode(), "new": e.new.decode()}
            for e in edits
        ]
        silent = sorted(set(range(len(shown))) - {edit.op for edit in edits})
        records += [_record(shown[at], "swallowed", "", key) for at in silent]
        return new, [record | {"key_after": after} for record in records]

    def _applied(self, text: str, edits: list[_Edit]) -> tuple[str, list[_Edit]]:
        data = text.encode()
        edits = _without_overlaps(edits)
        removed = sum(max(0, len(data[e.start : e.stop].decode()) - len(e.new.decode())) for e in edits)
        parts, at = [], 0
        for edit in edits:
            parts += [data[at : edit.start], edit.new]
            at = edit.stop
        new = b"".join([*parts, data[at:]]).decode()
        if removed > self.max_removed_frac * len(text) or (edits and not new):
            raise _RefusedError("program_too_destructive", edits[-1].op)
        return new, edits


def text_key(text: str) -> str:
    """Return 16 hexadecimal digits that name a text: XXH3-64 of its UTF-8 bytes."""
    return xxhash.xxh3_64_hexdigest(text.encode())


def program_table(corpus: Corpus, programs: Mapping[str, Sequence[DropDoc | RemoveLines | Replace]]) -> pa.Table:
    """Return PROGRAM_SCHEMA for programs written for the documents as they are in ``corpus``.

    Raises:
      DataError: an id is not in the corpus.
    """
    ids = list(programs)
    rows = corpus.rows_of(ids)
    if len(rows) and rows.min() < 0:
        raise DataError(f"program for {ids[int(rows.argmin())]!r}: no such document among {len(corpus)}.")
    keys = [text_key(text) for text in corpus.take(rows, ["text"])["text"].to_pylist()]
    ops = [orjson.dumps([op.model_dump() for op in programs[doc_id]]).decode() for doc_id in ids]
    return pa.table([ids, keys, ops], schema=PROGRAM_SCHEMA)


def read_programs(path: Path) -> pa.Table:
    """Read JSON lines with doc_id, text_key and ops (a list); what the operations say is checked when they run.

    Raises:
      DataError: unreadable, or a line is not such a record; the first one is named.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"cannot read the programs {path}: {error}. Give a file of JSON lines.") from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
            found = {"doc_id": record["doc_id"], "text_key": record["text_key"]}
            found["ops"] = orjson.dumps(record["ops"]).decode()
            if not all(isinstance(value, str) for value in found.values()):
                raise TypeError("doc_id and text_key are strings")
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: no program ({error}). A line is "
                '{"doc_id": "a", "text_key": "16 hexadecimal digits", "ops": [{"op": "drop_doc"}]}.'
            ) from error
        records.append(found)
    return pa.Table.from_pylist(records, schema=PROGRAM_SCHEMA)


def undo(kept: Corpus, log: pa.Table, dropped: pa.Table | None = None) -> Corpus:
    """Return the documents as they were before the programs.

    Args:
      kept: what `EditProgram` kept.
      log: its log.
      dropped: its dropped rows, to have them back in their places; None leaves them out.

    Raises:
      DataError: a text is not the one that the log speaks of.
    """
    changes: dict[str, list[dict[str, Any]]] = {}
    rows: dict[str, int] = {}
    for record in log.to_pylist():
        rows[record["doc_id"]] = record["row"]
        if record["status"] == "applied" and record["start"] >= 0:
            changes.setdefault(record["doc_id"], []).append(record)
    table = kept.table()
    ids, texts = table["doc_id"].to_pylist(), table["text"].to_pylist()
    for at, doc_id in enumerate(ids):
        if doc_id in changes:
            texts[at] = _undone(texts[at], changes.pop(doc_id), doc_id)
    if changes:
        raise DataError(f"log of {next(iter(changes))!r}: no such document among {len(kept)}. Give the kept corpus.")
    table = table.set_column(table.column_names.index("text"), "text", pa.array(texts, TEXT))
    if dropped is not None and len(dropped):
        places = sorted((rows[doc_id], at) for at, doc_id in enumerate(dropped["doc_id"].to_pylist()))
        order: list[int] = list(range(len(table)))
        for row, at in places:  # ascending: each finds its final place
            order.insert(row, len(table) + at)
        table = pa.concat_tables([table, dropped.select(table.column_names)]).take(pa.array(order))
    return Corpus.from_table(table)


def _undone(text: str, records: list[dict[str, Any]], doc_id: str) -> str:
    if text_key(text) != records[0]["key_after"]:
        raise DataError(f"document {doc_id!r}: its text is not the one the log speaks of. Give the corpus of this log.")
    data, parts, at, shift = text.encode(), [], 0, 0
    for record in sorted(records, key=lambda r: (r["start"], r["stop"])):
        old, new = record["old"].encode(), record["new"].encode()
        start = record["start"] + shift
        parts += [data[at:start], old]
        at = start + len(new)
        shift += len(new) - len(old)
    return b"".join([*parts, data[at:]]).decode()


def _edits(text: str, ops: Sequence[RemoveLines | Replace | DropDoc]) -> Iterator[_Edit]:
    data = text.encode()
    ends = [at for at, byte in enumerate(data) if byte == 10]
    starts, stops = [0, *(at + 1 for at in ends)], [*ends, len(data)]
    for number, op in enumerate(ops):
        if isinstance(op, RemoveLines):
            if not op.start <= op.stop < len(starts):
                raise _RefusedError("line_out_of_range", number)
            is_last = op.stop == len(starts) - 1
            start = max(starts[op.start] - 1, 0) if is_last else starts[op.start]
            yield _Edit(start, stops[op.stop] if is_last else starts[op.stop + 1], b"", number)
        elif isinstance(op, Replace):
            yield from _replacements(data, op, number)


def _replacements(data: bytes, op: Replace, number: int) -> Iterator[_Edit]:
    if not op.old.strip():
        raise _RefusedError("blank_old", number)
    if "\n" in op.old or "\n" in op.new:
        raise _RefusedError("line_end_in_replacement", number)
    try:
        old, new = op.old.encode(), op.new.encode()
    except UnicodeEncodeError:
        raise _RefusedError("not_utf8", number) from None
    if old not in data:
        raise _RefusedError("old_not_found", number)
    if not op.all and data.find(old, data.find(old) + 1) >= 0:  # overlapping occurrences count too
        raise _RefusedError("old_not_unique", number)
    at = data.find(old)
    while at >= 0:
        yield _Edit(at, at + len(old), new, number)
        at = data.find(old, at + len(old))


def _without_overlaps(edits: list[_Edit]) -> list[_Edit]:
    """Return the edits ascending: removals joined, replacements inside them gone; others must not overlap."""
    result: list[_Edit] = []
    for edit in sorted(edits, key=lambda e: (e.start, -e.stop, e.op)):
        last = result[-1] if result else None
        if last is None or edit.start >= last.stop:
            result.append(edit)
        elif last.new == b"" and edit.stop <= last.stop:
            continue
        elif last.new == b"" and edit.new == b"":
            result[-1] = _Edit(last.start, edit.stop, b"", last.op)
        else:
            raise _RefusedError("overlapping_edits", edit.op)
    return result


def _by_document(programs: pa.Table) -> dict[str, dict[str, str]]:
    missing = [name for name in PROGRAM_SCHEMA.names if name not in programs.column_names]
    if missing:
        raise DataError(f"programs: no column {missing[0]!r}. They have {', '.join(PROGRAM_SCHEMA.names)}.")
    result: dict[str, dict[str, str]] = {}
    for row in programs.select(PROGRAM_SCHEMA.names).to_pylist():
        if row["doc_id"] in result:
            raise DataError(f"programs: two for document {row['doc_id']!r}. Put their operations into one.")
        result[row["doc_id"]] = row
    return result


def _record(op: str, status: str, reason: str, key: str = "") -> dict[str, Any]:
    unchanged = {"start": -1, "stop": -1, "old": "", "new": ""}
    return {"op": op, "status": status, "reason": reason, "key_before": key, "key_after": key} | unchanged
