"""Curation: one step over a raw pool, for people who only want the text. Each result has its ledger and its report.

Source: tamis design (issue of the data half): the steps are the same functions that a build would use.

A folder holds one step's result: ``documents/`` in the format asked for, ``ledger/1-read`` and ``ledger/2-STEP``,
``report/`` with report.json, report.md and the step's tables, ``rejects.jsonl`` beside them.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import artefact, durable, lock
from tamis.data.artefact import Staging
from tamis.data.corpus import Documents
from tamis.data.ledger import LEDGER_SCHEMA, LedgerWriter
from tamis.engines import engine as engines
from tamis.errors import ArtefactError, UsageError
from tamis.evaluation.cost import measure_stage
from tamis.ingestion.export import Format, export, export_attributes
from tamis.ingestion.pool import Pool
from tamis.ingestion.readers import FieldNames
from tamis.pipeline.checkpoints import Checkpointed
from tamis.pipeline.record import Progress
from tamis.pipeline.step_report import write_report

TEXT = pa.large_string()
STEP = "step.json"
_SCRATCH = ".scratch"
CHECKPOINT_BYTES = 512 << 20
"""Pools from this size on are worked on shard by shard to the disk, so that a killed run goes on where it was."""


@dataclass(frozen=True)
class Source:
    """Where raw documents are and how they are read.

    Attributes:
      paths: files, folders, globs.
      fields: names of id, text and title; detected where None.
      exclude: shell patterns of files to leave out.
      max_reject_frac: share of records that may be unreadable.
    """

    paths: tuple[str, ...]
    fields: FieldNames = field(default_factory=FieldNames)
    exclude: tuple[str, ...] = ()
    max_reject_frac: float = 0.01

    def open(self, scratch: Path, *, workers: int, progress: Callable[[int], None] | None = None) -> Pool:
        """Read the files once; see `Pool.open`."""
        return Pool.open(
            self.paths,
            scratch=scratch,
            fields=self.fields,
            exclude=self.exclude,
            max_reject_frac=self.max_reject_frac,
            workers=workers,
            progress=progress,
        )


@dataclass(frozen=True)
class Decided:
    """What a step decided about the n documents of a pool.

    Attributes:
      method: name for the ledger.
      kept: bool [n].
      reasons: large_string [n], "" where kept.
      verdict: what the ledger says of kept documents.
      scores: float64 [n], NaN where there is none; None for a step that gives none.
      others: large_string [n], "" where there is none: representative, item, target.
      documents: what is written in place of the pool's own texts; None for the records as they are.
      tables: name -> table, written beside the report.
      figures: what was measured.
      notes: sentences a reader should see.
    """

    method: str
    kept: np.ndarray
    reasons: pa.Array
    verdict: Literal["kept", "selected"] = "kept"
    scores: np.ndarray | None = None
    others: pa.Array | None = None
    documents: Documents | None = None
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curated:
    """A finished step.

    Attributes:
      folder: where the result is.
      step: "select", "dedup", ...
      status: made now, or kept because nothing it depends on has changed.
      counts: documents read, kept and dropped by reason.
      figures: what the step measured.
      notes: sentences a reader should see.
      seconds: wall time of this call.
      peak_bytes: largest resident memory.
    """

    folder: Path
    step: str
    status: Literal["made", "kept"]
    counts: dict[str, int]
    figures: dict[str, Any]
    notes: tuple[str, ...]
    seconds: float
    peak_bytes: int

    def line(self) -> str:
        """Return the one-line summary."""
        counts = self.counts
        lost = ", ".join(f"{n:,} {k.removeprefix('dropped_')}" for k, n in counts.items() if k.startswith("dropped_"))
        return (
            f"{self.folder}: {self.step} {self.status}, {counts['documents']:,} of {counts['documents_read']:,} "
            f"documents{f' (dropped: {lost})' if lost else ''}, "
            f"{counts.get('rejected', 0):,} records unreadable, {self.seconds:.1f} s, "
            f"peak {self.peak_bytes / 2**20:.0f} MiB"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        values = asdict(self) | {"folder": str(self.folder), "seconds": round(self.seconds, 3)}
        values["peak_mib"] = round(values.pop("peak_bytes") / 2**20, 1)
        return values


Decide = Callable[[Pool, Path], Decided]
"""A step: from the pool and a scratch folder to decisions."""


class Curation:
    """One call of a step: lock, read, decide, write. It carries how that runs: format, engine, workers, progress."""

    def __init__(
        self,
        step: str,
        source: Source | Sequence[str] | str,
        out: Path | str,
        *,
        settings: Mapping[str, Any],
        seed: int,
        format: Format = "jsonl.zst",
        attributes: bool = False,
        engine: engines.EngineName = "local",
        workers: int = 1,
        progress: Progress | None = None,
    ) -> None:
        """Remember what was asked for; nothing is read or written yet.

        Args:
          step: name of the step and of its ledger stage.
          source: the pool.
          out: folder of the result.
          settings: all that determines the decisions beside the texts, as JSON values.
          seed: of every random choice.
          format: of the documents that are kept.
          attributes: also write the scores of all documents as dolma attributes.
          engine: where passes over the pool run that are given `mapper`; the same bytes from each. The pool is staged
            in ``out``: the machines of a cluster must all see that folder.
          workers: processes that read; threads that work, or tasks at the same time on a cluster.
          progress: called as progress(stage, done, total).
        """
        self.step, self.source, self.out, self.seed = step, as_source(source), Path(out), seed
        self.format, self.attributes, self.workers, self._progress = format, attributes, workers, progress
        self.settings, self._decisive = {**settings, "format": format, "attributes": attributes}, dict(settings)
        self._engine_name, self._engine = engine, cast(engines.Engine, map)
        self._is_open = False

    def run(self, decide: Decide, inputs: Mapping[str, str] | None = None) -> Curated:
        """Make the result unless it stands already; one writer a folder.

        Args:
          decide: the step.
          inputs: content hashes of what else it reads.

        Raises:
          UsageError: the folder holds something else.
          DataError: the input was refused.
          LockedError: another process writes the folder.
          MissingExtra: engine "ray" without the package ray.
          ResourceError: disk or memory failed; the same call goes on where it can.
        """
        started = time.monotonic()
        with self.opened(), measure_stage(self.step, self.out) as meter, self.read() as pool:
            status = self._make(pool, decide, {"pool": pool.content, **(inputs or {})})
        found = orjson.loads((self.out / "report" / "report.json").read_bytes())
        seconds = time.monotonic() - started
        counts, figures, notes = found["counts"], found["figures"], tuple(found["notes"])
        return Curated(self.out, self.step, status, counts, figures, notes, seconds, meter.cost.peak_bytes)

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Hold the folder and give its scratch folder, for pools beside the step's own; at the end it is removed.

        What runs inside another `opened`, as `run` may, shares its lock and its engine. After an error the
        checkpoints in the scratch folder stay: the next call goes on from them.
        """
        scratch = self.out / _SCRATCH
        if self._is_open:
            yield scratch
            return
        self.check_folder()
        with engines.opened(self._engine_name, self.workers) as self._engine, lock.exclusive(self.out):
            artefact.sweep(self.out)
            if not (self.out / STEP).is_file():
                self.mark()
            for stale in scratch.glob("pool-*"):  # of a killed run; shards stay
                durable.remove(stale)
            self._is_open = True
            try:
                yield scratch
            finally:
                self._is_open = False
            durable.remove(scratch)

    def mapper(self, pool: Pool, inputs: Mapping[str, str]) -> engines.Engine:
        """Return the engine for all passes of a step over the pool; inside `opened` or `run`, once.

        From a pool of CHECKPOINT_BYTES on, each result is kept until the step is finished: a killed run goes on at
        its shard.

        Args:
          pool: the pool.
          inputs: content hashes of what else determines the results.
        """
        if pool.num_bytes < CHECKPOINT_BYTES:
            return self._engine
        contents = {"pool": pool.content, **inputs}
        fingerprint = artefact.stage_fingerprint(f"shards of {self.step}", self._decisive, contents, self.seed)
        return Checkpointed(self._engine, self.out / _SCRATCH / "shards", fingerprint)

    def mark(self) -> None:
        """Write step.json: whose folder this is."""
        about = {"step": self.step, "settings": self.settings, "seed": self.seed}
        durable.write_bytes(self.out / STEP, orjson.dumps(about, option=orjson.OPT_INDENT_2) + b"\n")

    def check_folder(self) -> None:
        """Refuse a folder that holds anything but an earlier result of this step.

        Raises:
          UsageError: it does, or it is a file.
        """
        marker = self.out / STEP
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out} is a file: the result is a folder. Choose another --out.")
        if marker.is_file():
            before = orjson.loads(marker.read_bytes()).get("step")
            if before != self.step:
                raise UsageError(f"{self.out} holds the result of {before!r}. Choose another --out for {self.step!r}.")
        elif self.out.is_dir() and any(p.name != ".lock" for p in self.out.iterdir()):
            raise UsageError(f"{self.out} holds other files: nothing is mixed with them. Choose a new --out.")

    def read(self) -> Pool:
        """Read the step's own pool, inside `opened`; the caller closes it."""
        done = 0

        def advance(num_docs: int) -> None:
            nonlocal done
            done += num_docs
            self.advance("read", done, None)

        return self.source.open(self.out / _SCRATCH, workers=self.workers, progress=advance)

    def advance(self, stage: str, done: int, total: int | None) -> None:
        """Report progress."""
        if self._progress is not None:
            self._progress(stage, done, total)

    def _make(self, pool: Pool, decide: Decide, inputs: dict[str, str]) -> Literal["made", "kept"]:
        stages = [(self.out / "ledger" / name, "ledger") for name in ("1-read", f"2-{self.step}")]
        targets = [
            (self.out / "documents", "documents"),
            *stages,
            (self.out / "report", "report"),
        ]
        prints = [artefact.stage_fingerprint(kind, self.settings, inputs, self.seed) for _, kind in targets]
        if all(artefact.is_done(t, p, deep=True) for (t, _), p in zip(targets, prints, strict=True)):
            return "kept"
        self.mark()
        self.advance(self.step, 0, len(pool))
        decided = decide(pool, self.out / _SCRATCH)
        self.advance("write", 0, len(pool))
        with ExitStack() as stack:
            stagings = []
            for folder, kind in targets:
                durable.make_folder(folder.parent)
                made = artefact.stage(folder, kind, settings=self.settings, inputs=inputs, seed=self.seed)
                stagings.append(stack.enter_context(made))
            documents, read, told, report = stagings
            self._write_documents(pool, decided, documents)
            with LedgerWriter(read) as ledger:
                for rows in pool.decisions("read"):
                    ledger.append(rows)
            with LedgerWriter(told) as ledger:
                for rows in ledger_rows(pool.doc_ids, decided, self.step):
                    ledger.append(rows)
            write_report(report, pool, decided, {"step": self.step, "settings": self.settings, "seed": self.seed})
        return "made"

    def _write_documents(self, pool: Pool, decided: Decided, staging: Staging) -> None:
        source: Documents = decided.documents if decided.documents is not None else pool
        export(source, decided.kept, staging, format=self.format)
        if self.attributes and decided.scores is not None:
            scores = decided.scores
            finite = np.isfinite(scores)
            least = float(scores[finite].min()) if finite.any() else 0.0
            export_attributes(pool, {"score": np.where(finite, scores, least)}, staging, name=f"tamis_{self.step}")
            staging.counts["documents"] = int(decided.kept.sum())


def verify(folder: Path, *, deep: bool = False) -> list[str]:
    """List what is wrong with the files of a step's result; empty when it is whole."""
    found = []
    try:
        step = orjson.loads((folder / STEP).read_bytes())["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{folder / STEP}: cannot be read ({error}). The command that made the folder repairs it."]
    names = ["report"] if step in ("audit", "mix") else ["documents", "ledger/1-read", f"ledger/2-{step}", "report"]
    for target in (folder / name for name in names):
        try:
            found += artefact.problems(target, artefact.read_manifest(target), deep=deep)
        except ArtefactError as error:
            found.append(str(error))
    return found


def ledger_rows(doc_ids: pa.Array, decided: Decided, stage: str) -> list[pa.Table]:
    """Return one ledger row a document, in tables of 262,144 rows."""
    size = 1 << 18
    return [_ledger_part(doc_ids, decided, stage, slice(at, at + size)) for at in range(0, len(doc_ids), size)]


def _ledger_part(doc_ids: pa.Array, decided: Decided, stage: str, rows: slice) -> pa.Table:
    kept = decided.kept[rows]
    num = len(kept)
    scores = np.full(num, np.nan) if decided.scores is None else decided.scores[rows]
    others = pa.repeat(pa.scalar("", TEXT), num) if decided.others is None else decided.others[rows.start : rows.stop]
    columns = [
        doc_ids[rows.start : rows.stop],
        pa.repeat(pa.scalar(stage, TEXT), num),
        pa.repeat(pa.scalar(decided.method, TEXT), num),
        pc.if_else(pa.array(kept), pa.scalar(decided.verdict, TEXT), pa.scalar("dropped", TEXT)),
        decided.reasons[rows.start : rows.stop],
        pa.array(scores, mask=~np.isfinite(scores)),
        pa.nulls(num, pa.float64()),
        others,
        pa.array(np.zeros(num, np.int32)),
    ]
    return pa.table(columns, schema=LEDGER_SCHEMA)


def paths(values: Sequence[str] | str) -> tuple[str, ...]:
    """Return one path or many as a tuple."""
    return (values,) if isinstance(values, str) else tuple(str(v) for v in values)


def as_source(value: Source | Sequence[str] | str) -> Source:
    """Return paths as a source with detected fields."""
    return value if isinstance(value, Source) else Source(paths(value))
