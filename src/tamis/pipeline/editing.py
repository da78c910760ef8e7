"""Editing: model-written programs change single documents, and `restore` gives the texts back as they were.

Source: tamis design (method cards K8, I6); programs: Zhou et al. 2024, ProX, arXiv:2409.17115.

The pool is streamed: a batch is edited when it is decided about and again when it is written, so that what is held is
the programs and their log, not the texts.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.data import Corpus, durable
from tamis.data.corpus import DOCUMENT_SCHEMA
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.ingestion.edit_program import LOG_SCHEMA, PROGRAM_SCHEMA, EditProgram, read_programs, undo
from tamis.ingestion.export import Format
from tamis.ingestion.pool import Pool
from tamis.ingestion.spans import restored
from tamis.pipeline.curation import STEP, TEXT, Curated, Curation, Decided, Source, verify
from tamis.pipeline.record import Progress
from tamis.pipeline.tables import read_table

_NEEDED = ("doc_id", "text")
_LOGS = ("edits", "spans")
_NOT_DOCUMENTS = ("manifest.json", "README.md")
_NO_RESTRAINT = {"max_dropped_frac": 1.0}  # a batch is no corpus: the whole is judged once, at the end


@dataclass(frozen=True)
class _Changed(ABC):
    """A pool with other texts, made batch by batch. Rows, ids and every other column are the pool's."""

    pool: Pool

    @property
    def schema(self) -> pa.Schema:
        """Columns of the documents."""
        return DOCUMENT_SCHEMA

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.pool)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the documents in order."""
        names = list(columns) if columns is not None else DOCUMENT_SCHEMA.names
        for batch in self.pool.batches([*names, *(n for n in _NEEDED if n not in names)]):
            if "text" in names:
                place = batch.schema.names.index("text")
                yield batch.set_column(place, "text", self.texts(batch)).select(names)
            else:
                yield batch.select(names)

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the given rows in the given order; reads the whole pool."""
        names = list(columns) if columns is not None else DOCUMENT_SCHEMA.names
        schema = pa.schema([DOCUMENT_SCHEMA.field(name) for name in names])
        return pa.Table.from_batches(self.batches(names), schema=schema).take(pa.array(np.asarray(rows)))

    @abstractmethod
    def texts(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the texts of a batch, large_string [n]."""


@dataclass(frozen=True)
class EditedPool(_Changed):
    """A pool after its programs; documents that a program drops keep their text here.

    Attributes:
      pool: as it was read.
      method: what a program may do.
      programs: PROGRAM_SCHEMA.
    """

    method: EditProgram
    programs: pa.Table

    @cached_property
    def _bold(self) -> EditProgram:
        return self.method.model_copy(update=_NO_RESTRAINT)

    def edited(self, batch: pa.RecordBatch) -> tuple[pa.Array, np.ndarray, pa.Table]:
        """Return the texts, bool [n] where a program drops the document, and the log; rows count from the batch."""
        own = self.programs.filter(pc.is_in(self.programs["doc_id"], value_set=batch["doc_id"]))
        if not len(own):
            return batch["text"], np.zeros(len(batch), bool), LOG_SCHEMA.empty_table()
        found = self._bold.run(Corpus.from_table(pa.Table.from_batches([batch.select(_NEEDED)])), own)
        gone = pc.is_in(batch["doc_id"], value_set=found.dropped["doc_id"].combine_chunks())
        texts = pc.replace_with_mask(
            batch["text"], pc.invert(gone), found.kept.table(["text"])["text"].combine_chunks()
        )
        return texts, np.asarray(gone), found.log

    def texts(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the texts of a batch after its programs."""
        return self.edited(batch)[0]


@dataclass(frozen=True)
class RestoredPool(_Changed):
    """A result's documents with the texts that they had before.

    Attributes:
      pool: the documents of the result.
      log: of the programs (LOG_SCHEMA), or the spans that were cut (SPAN_SCHEMA).
    """

    log: pa.Table

    def texts(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the texts of a batch as they were.

        Raises:
          DataError: a text is not the one that the log speaks of.
        """
        own = self.log.filter(pc.is_in(self.log["doc_id"], value_set=batch["doc_id"]))
        if not len(own):
            return batch["text"]
        documents = Corpus.from_table(pa.Table.from_batches([batch.select(_NEEDED)]))
        before = undo(documents, own) if "status" in own.column_names else restored(documents, own)
        return before.table(["text"])["text"].combine_chunks()


def edit(
    source: Source | Sequence[str] | str,
    out: Path | str,
    programs: Path | str,
    method: EditProgram | None = None,
    *,
    seed: int = 0,
    format: Format = "jsonl.zst",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Execute edit programs on the documents that they were written for. One pass to decide, one to write.

    Args:
      source: the pool.
      out: folder of the result; ``report/edits.parquet`` has what every operation did or why it was refused, which
        `restore` reads.
      programs: JSON lines or Parquet with doc_id, text_key and ops.
      method: what a program may do; its own ``programs`` is not read.
      seed: unused by programs; part of the fingerprint.
      format: of the documents that are kept.
      workers: processes that read.
      progress: called as progress(stage, done, total).

    Raises:
      DataError: programs that cannot be read, two for one document, none for any document of the pool, or more
        documents dropped than the method allows.
    """
    chosen = method or EditProgram()
    table = load_programs(Path(programs))
    work = Curation(
        "clean",
        source,
        out,
        settings={"edit_program": chosen.model_dump(mode="json", exclude={"programs"})},
        seed=seed,
        format=format,
        workers=workers,
        progress=progress,
    )

    def decide(pool: Pool, _: Path) -> Decided:
        return edit_pool(EditedPool(pool, chosen, table))

    return work.run(decide, {"programs": durable.sha256(Path(programs))})


def load_programs(path: Path) -> pa.Table:
    """Read programs as PROGRAM_SCHEMA; in Parquet ``ops`` is JSON text or a list of structs.

    Raises:
      DataError: unreadable, a column is missing, a cell is null, or a document has two programs.
    """
    if path.suffix.lower() != ".parquet":
        table = read_programs(path)
    else:
        found = read_table(path)
        missing = [name for name in PROGRAM_SCHEMA.names if name not in found.column_names]
        if missing:
            raise DataError(f"{path}: no column {missing[0]!r} (has: {', '.join(found.column_names)}). Add it.")
        rows = found.select(PROGRAM_SCHEMA.names).to_pylist()
        for number, row in enumerate(rows):
            row["ops"] = _as_json(row["ops"])
            if not all(isinstance(row[name], str) for name in PROGRAM_SCHEMA.names):
                raise DataError(f"{path}: row {number} is no program: doc_id, text_key are strings, ops a JSON list.")
        table = pa.Table.from_pylist(rows, schema=PROGRAM_SCHEMA)
    counts = Counter(table["doc_id"].to_pylist())
    twice = next((doc_id for doc_id, num in counts.items() if num > 1), None)
    if twice is not None:
        raise DataError(f"{path}: {counts[twice]} programs for document {twice!r}. Put their operations into one.")
    return table


def _as_json(ops: Any) -> str | None:  # noqa: ANN401 - a cell
    """Return operations as JSON text, None where they are none; a null in a struct stands for an absent key."""
    if isinstance(ops, str):
        return ops
    if not isinstance(ops, list) or not all(isinstance(op, dict) for op in ops):
        return None
    return orjson.dumps([{key: value for key, value in op.items() if value is not None} for op in ops]).decode()


def edit_pool(view: EditedPool) -> Decided:
    """Execute the programs and say what became of every document.

    Raises:
      DataError: no program is for a document of the pool, or too many documents would be dropped.
    """
    gone, logs, row = [np.zeros(0, bool)], [LOG_SCHEMA.empty_table()], 0
    for batch in view.pool.batches(_NEEDED):
        _, dropped, log = view.edited(batch)
        place = log.column_names.index("row")
        logs.append(log.set_column(place, LOG_SCHEMA.field("row"), pc.add(log["row"], pa.scalar(row, pa.int64()))))
        gone.append(dropped)
        row += len(batch)
    drop = np.concatenate(gone)
    known = pc.is_in(view.programs["doc_id"], value_set=view.pool.doc_ids)
    unknown = view.programs.filter(pc.invert(known))
    if len(unknown) == len(view.programs):
        first = f", such as {unknown['doc_id'][0].as_py()!r}" if len(unknown) else ""
        raise DataError(
            f"programs: none of {len(unknown)} is for a document of this pool{first}; its documents are called "
            f"{view.pool.doc_ids[0].as_py()!r} and so on. Give the programs of this pool, or name its id field."
        )
    if drop.sum() > view.method.max_dropped_frac * len(drop):
        raise DataError(
            f"programs: they drop {int(drop.sum())} of {len(drop)} documents; at most "
            f"{view.method.max_dropped_frac:.0%} may go. Look at the programs, or raise max_dropped_frac."
        )
    log = pa.concat_tables([*logs, _unknown(unknown)])
    return Decided(
        "edit_program",
        ~drop,
        pc.if_else(pa.array(drop), pa.scalar("edit_program", TEXT), pa.scalar("", TEXT)),
        others=_states(view.pool.doc_ids, log),
        documents=view,
        tables={"edits": log},
        figures=_figures(log, len(view.programs)),
        notes=tuple(_refusals(log)),
    )


def _unknown(programs: pa.Table) -> pa.Table:
    rows = [
        {**dict.fromkeys(LOG_SCHEMA.names, ""), "row": -1, "start": -1, "stop": -1}
        | {"doc_id": row["doc_id"], "op": row["ops"], "status": "refused", "reason": "unknown_document"}
        for row in programs.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=LOG_SCHEMA)


def _states(doc_ids: pa.Array, log: pa.Table) -> pa.Array:
    """Return what the ledger says beside each document: "edited", "refused: REASON", "" without a program."""
    said: dict[str, str] = {}
    for doc_id, status, reason in zip(*(log[n].to_pylist() for n in ("doc_id", "status", "reason")), strict=True):
        if status == "refused":
            said[doc_id] = f"refused: {reason}"
        elif status == "applied":
            said.setdefault(doc_id, "edited")
    names = pa.array(list(said), TEXT)
    states = pa.array(list(said.values()), TEXT).take(pc.index_in(doc_ids, value_set=names))
    return pc.fill_null(states, "")


def _figures(log: pa.Table, num_programs: int) -> dict[str, Any]:
    by_status = {row["values"]: row["counts"] for row in pc.value_counts(log["status"]).to_pylist()}
    is_applied = pc.equal(log["status"], "applied")
    applied = log.filter(is_applied)
    changed = applied.filter(pc.greater_equal(applied["start"], 0))
    refused = log.filter(pc.equal(log["status"], "refused"))
    return {
        "num_programs": num_programs,
        "num_programs_refused": pc.count_distinct(refused["doc_id"]).as_py(),
        "num_docs_edited": pc.count_distinct(changed["doc_id"]).as_py(),
        **{f"num_operations_{status}": by_status.get(status, 0) for status in ("applied", "swallowed", "not_run")},
        "bytes_removed": int(pc.sum(pc.subtract(changed["stop"], changed["start"])).as_py() or 0),
        "bytes_added": int(pc.sum(pc.binary_length(changed["new"])).as_py() or 0),
    }


def _refusals(log: pa.Table) -> Iterator[str]:
    refused = log.filter(pc.equal(log["status"], "refused"))
    counts = {row["values"]: row["counts"] for row in pc.value_counts(refused["reason"]).to_pylist()}
    for reason, num in sorted(counts.items()):
        if reason == "unknown_document":
            yield f"{num:,} program(s) are for no document of this pool."
        else:
            yield f"{num:,} program(s) refused as a whole, their documents stay as they are: {reason}."


def restore(
    folder: Path | str,
    out: Path | str,
    *,
    format: Format = "jsonl.zst",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Give the documents of a `clean` result the texts back that they had. One pass to check, one to write.

    Documents that were dropped are not in that folder: they stand in the files it was made from.

    Args:
      folder: what `clean` made with programs, frequent lines or repeats.
      out: folder of the result.
      format: of the documents.
      workers: processes that read.
      progress: called as progress(stage, done, total).

    Raises:
      ArtefactError: the folder is damaged.
      UsageError: it is not a result of `clean`, or texts were not changed there.
      DataError: a text is not the one that the log speaks of.
    """
    given = Path(folder)
    name = _changes(given)
    log = pq.read_table(given / "report" / f"{name}.parquet")
    dropped = _dropped(given)
    log = log.filter(pc.invert(pc.is_in(log["doc_id"], value_set=dropped)))
    source = Source((str(given / "documents"),), exclude=_NOT_DOCUMENTS)
    work = Curation(
        "restore", source, out, settings={"log": name}, seed=0, format=format, workers=workers, progress=progress
    )

    def decide(pool: Pool, _: Path) -> Decided:
        return _restored(RestoredPool(pool, log), given, len(dropped))

    return work.run(decide, {"log": durable.sha256(given / "report" / f"{name}.parquet")})


def _changes(folder: Path) -> str:
    """Return which table of the report says how texts were changed.

    Raises:
      ArtefactError: not a whole result of a step.
      UsageError: of another step, or without such a table.
    """
    if not (folder / STEP).is_file():
        raise ArtefactError(f"{folder}: no result of a step (no {STEP}). Give the folder that `tamis clean` made.")
    problems = verify(folder, deep=True)
    if problems:
        raise ArtefactError("\n".join([*problems, "Make the folder again with the command that made it."]))
    step = orjson.loads((folder / STEP).read_bytes())["step"]
    found = [name for name in _LOGS if (folder / "report" / f"{name}.parquet").is_file()]
    if step != "clean" or not found:
        raise UsageError(
            f"{folder}: a result of {step!r} in which no text was changed: there is nothing to restore. "
            "Give what `clean --programs`, `--lines` or `--repeats` made."
        )
    return found[0]


def _dropped(folder: Path) -> pa.Array:
    """Return the ids of the documents that were dropped; their texts are not in the folder."""
    parts = [
        pq.read_table(f, columns=["doc_id", "decision"])
        for f in sorted((folder / "ledger" / "2-clean").glob("*.parquet"))
    ]
    rows = pa.concat_tables(parts)
    return rows["doc_id"].filter(pc.equal(rows["decision"], "dropped")).combine_chunks()


def _restored(view: RestoredPool, folder: Path, num_dropped: int) -> Decided:
    applied = view.log
    if "status" in applied.column_names:
        applied = applied.filter(pc.and_(pc.equal(applied["status"], "applied"), pc.greater_equal(applied["start"], 0)))
    changed = pc.unique(applied["doc_id"])
    here = pc.is_in(view.pool.doc_ids, value_set=changed)
    num_here = int(pc.sum(here).as_py() or 0)
    if num_here < len(changed):
        raise DataError(
            f"{folder}: {len(changed) - num_here} of {len(changed)} documents that were changed are not among its "
            "documents. Their texts may be blank now, which no reader takes for a document."
        )
    for batch in view.pool.batches(_NEEDED):  # every text is checked against the log before anything is written
        view.texts(batch)
    notes = [f"{num_dropped:,} document(s) were dropped by clean and are not here: its input files have them."]
    return Decided(
        "restore",
        np.ones(len(view), bool),
        pa.repeat(pa.scalar("", TEXT), len(view)),
        others=pc.if_else(here, pa.scalar("restored", TEXT), pa.scalar("", TEXT)),
        documents=view,
        figures={"num_docs_restored": num_here, "num_changes_undone": len(applied)},
        notes=tuple(notes if num_dropped else ()),
    )
