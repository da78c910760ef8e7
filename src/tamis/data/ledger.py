"""Ledger: one row a document and decision, so that `tamis why ID` answers for every input document."""

from collections.abc import Iterable
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from tamis.data import columns as rules
from tamis.data import durable
from tamis.data.artefact import Staging
from tamis.data.columns import TEXT
from tamis.errors import DataError

Verdict = Literal[
    "kept",
    "selected",
    "changed",
    "dropped",
    "rejected",
    "grouped",
    "split",
    "generated",
    "held_out",
    "trained",
    "indexed",
]
LEDGER_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),
        ("stage", TEXT),
        ("method", TEXT),
        ("decision", TEXT),  # one of Verdict
        ("reason", TEXT),  # what the document had; "" for kept
        ("score", pa.float64()),  # null where the method gives none
        ("threshold", pa.float64()),
        ("other_id", TEXT),  # representative, query, "file:line"; "" where there is none
        ("seq", pa.int32()),  # order of the decisions about one document within its stage
    ]
)
_OPTIONAL = ("score", "threshold")
_PARTITIONS = 16
_ROW_GROUP = 20_000
_SPILL_ROWS = 1 << 18

DIFF_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),
        ("change", TEXT),  # entered, left, reason_changed or score_moved
        ("stage_before", TEXT),  # where its fate was decided; "" where it was never seen
        ("stage_after", TEXT),
        ("reason_before", TEXT),
        ("reason_after", TEXT),
        ("score_before", pa.float64()),  # null where no stage gave one
        ("score_after", pa.float64()),
    ]
)
_GONE = frozenset({"dropped", "rejected"})


def empty() -> pa.Table:
    """Return a ledger table without rows."""
    return LEDGER_SCHEMA.empty_table()


def rows(records: Iterable[dict[str, Any]]) -> pa.Table:
    """Make ledger rows from dicts; doc_id, stage, method and decision are needed, the rest has defaults.

    Raises:
      DataError: a needed value is missing, or one has another type.
    """
    listed = list(records)
    defaults: dict[str, Any] = {"reason": "", "score": None, "threshold": None, "other_id": "", "seq": 0}
    with rules.conversion("ledger"):
        columns = {
            f.name: pa.array([r.get(f.name, defaults.get(f.name)) for r in listed], f.type) for f in LEDGER_SCHEMA
        }
    return rules.conform(pa.table(columns), LEDGER_SCHEMA, "ledger", nullable=_OPTIONAL)


class LedgerWriter:
    """Streams a stage's decisions to files partitioned by a hash of the id and sorted by id.

    Memory: 262,144 rows, and while closing a sixteenth of all; what is more waits in a scratch folder.
    """

    def __init__(self, staging: Staging) -> None:
        """Write parts into ``staging``."""
        self._staging = staging
        self._scratch = staging.folder / ".ledger"
        self._pending: list[pa.Table] = []
        self._num_pending = self._num_spills = 0
        self.num_rows = 0

    def __enter__(self) -> Self:
        """Start; nothing is written yet."""
        return self

    def append(self, table: pa.Table) -> None:
        """Add decisions.

        Raises:
          DataError: a column is missing, of another type, or lacks a value that is needed.
        """
        self._pending.append(rules.conform(table, LEDGER_SCHEMA, "ledger", nullable=_OPTIONAL))
        self._num_pending += len(table)
        self.num_rows += len(table)
        if self._num_pending >= _SPILL_ROWS:
            for number, chosen in self._partitioned():
                durable.make_folder(self._scratch)
                path = self._scratch / f"{number:02d}-{self._num_spills:04d}.arrow"
                with durable.create(path) as sink, pa.ipc.new_stream(sink, LEDGER_SCHEMA) as stream:
                    stream.write_table(chosen)
            self._num_spills += 1

    def _partitioned(self) -> list[tuple[int, pa.Table]]:
        """Empty the pending rows into (partition, rows)."""
        table = (pa.concat_tables(self._pending) if self._pending else empty()).combine_chunks()
        self._pending, self._num_pending = [], 0
        parts = [np.zeros(0, np.uint8), *map(_partitions, table["doc_id"].chunks)]
        part = np.concatenate(parts)
        table = table.take(pa.array(np.argsort(part, kind="stable")))
        stops = np.cumsum(np.bincount(part, minlength=_PARTITIONS)).tolist()
        ranges = enumerate(pairwise([0, *stops]))
        return [(number, table.slice(start, stop - start)) for number, (start, stop) in ranges if stop > start]

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:  # noqa: ANN401 - context protocol
        """Sort and write every partition; leave the scratch folder to the staging's own clearing after an error."""
        if kind is not None:
            return
        last = dict(self._partitioned())
        for number in range(_PARTITIONS):
            tables = [_read_spill(file) for file in sorted(self._scratch.glob(f"{number:02d}-*.arrow"))]
            tables += [last[number]] if number in last else []
            if tables:
                chosen = pa.concat_tables(tables).sort_by([("doc_id", "ascending"), ("seq", "ascending")])
                with self._staging.create(f"part-{number:02d}.parquet") as sink:
                    options = {"compression": "zstd", "write_page_checksum": True, "row_group_size": _ROW_GROUP}
                    pq.write_table(chosen, sink, **options)
        durable.remove(self._scratch)
        self._staging.counts["decisions"] = self.num_rows


def _read_spill(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def write(staging: Staging, table: pa.Table) -> None:
    """Write a stage's decisions held in one table; see `LedgerWriter`.

    Raises:
      DataError: a column is missing, of another type, or lacks a value that is needed.
    """
    with LedgerWriter(staging) as writer:
        writer.append(table)


def partition(doc_id: str) -> int:
    """Partition of an id: the top bits of its XXH3-64."""
    return int(xxhash.xxh3_64_intdigest(doc_id.encode()) >> 60) % _PARTITIONS


def _partitions(ids: pa.LargeStringArray) -> np.ndarray:
    """Partition of each id, uint8 [n], read in place: 0.3 us an id."""
    _, offsets, data = ids.buffers()
    if not len(ids):
        return np.zeros(0, np.uint8)
    stops = np.frombuffer(offsets, np.int64)[ids.offset : ids.offset + len(ids) + 1].tolist()
    view, digest = memoryview(data if data is not None else b""), xxhash.xxh3_64_intdigest
    keys = np.fromiter((digest(view[start:stop]) for start, stop in pairwise(stops)), np.uint64, len(ids))
    return ((keys >> np.uint64(60)) % _PARTITIONS).astype(np.uint8)


class Ledger:
    """The decisions of all stages of an engine: one artefact folder a stage below ``folder``."""

    def __init__(self, folder: Path | str) -> None:
        """Open ``engine/ledger``; reads nothing yet."""
        self.folder = Path(folder)

    def why(self, doc_id: str) -> list[dict[str, Any]]:
        """Return every decision about a document in the order of the stages; one row group a stage is read.

        Raises:
          DataError: no stage ever saw this id.
          ArtefactError: a file of the ledger is damaged.
        """
        found: list[dict[str, Any]] = []
        with rules.conversion(f"document {doc_id!r}"):
            number = partition(doc_id)
        for stage in self.stages():
            file = stage / f"part-{number:02d}.parquet"
            if file.is_file():
                with rules.parquet(file):
                    table = pq.read_table(file, filters=[("doc_id", "=", doc_id)], page_checksum_verification=True)
                found += table.sort_by("seq").to_pylist()
        if not found:
            raise DataError(
                f"no document {doc_id!r} in {self.folder}. Ids are case-sensitive; rejected lines have no id."
            )
        return found

    def stages(self) -> list[Path]:
        """Folders of the finished stages, in the order in which stages run: 1-ingest, 2-..., 10-...."""
        folders = [p.parent for p in self.folder.glob("*/manifest.json") if not p.parent.name.startswith(".")]
        return sorted(folders, key=lambda folder: (_number(folder.name), folder.name))

    def diff(self, other: "Ledger", *, min_score_change: float = 0.0) -> pa.Table:
        """Return what became of documents otherwise in another run, in the order of partitions and ids.

        A document is *in* a run when no stage dropped all of it; its reason is that of the first stage that
        did. Documents are matched by id: a text that changed under its id is not seen here.

        Args:
          other: the later run.
          min_score_change: a score that moved by more is a change; the last score that a stage gave counts.

        Returns:
          A table of DIFF_SCHEMA, one row a document: entered (was dropped or absent), left (is dropped or
          absent now), reason_changed (in neither), score_moved (in both).
          Memory: a sixteenth of both ledgers.

        Raises:
          DataError: a ledger has no finished stage.
          ArtefactError: a file of a ledger is damaged.
        """
        found: list[tuple[Any, ...]] = []
        for ledger in (self, other):
            if not ledger.stages():
                raise DataError(f"{ledger.folder}: no finished stage there. Is it the ledger of a finished build?")
        for number in range(_PARTITIONS):
            before, after = self._fates(number), other._fates(number)
            for doc_id in sorted(before.keys() | after.keys()):
                old, new = before.get(doc_id, _UNSEEN), after.get(doc_id, _UNSEEN)
                change = _change(old, new, min_score_change)
                if change:
                    found.append((doc_id, change, old.stage, new.stage, old.reason, new.reason, old.score, new.score))
        columns: list[Any] = list(zip(*found, strict=True)) or [[] for _ in DIFF_SCHEMA]
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, DIFF_SCHEMA, strict=True)], schema=DIFF_SCHEMA)

    def _fates(self, number: int) -> "dict[str, _Fate]":
        """Return what became of each document of a partition."""
        fates: dict[str, _Fate] = {}
        for stage in self.stages():
            file = stage / f"part-{number:02d}.parquet"
            if not file.is_file():
                continue
            with rules.parquet(file):
                names = ["doc_id", "stage", "decision", "reason", "score"]
                table = pq.read_table(file, columns=names, page_checksum_verification=True)  # sorted by id, then seq
            for doc_id, decisions in groupby(table.to_pylist(), key=itemgetter("doc_id")):
                earlier = fates.get(doc_id)
                if earlier is None or earlier.is_in:
                    fates[doc_id] = _fate(list(decisions), earlier)
        return fates

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Number of decisions by (stage, decision, reason)."""
        totals: dict[tuple[str, str, str], int] = {}
        for stage in self.stages():
            for file in sorted(stage.glob("part-*.parquet")):
                with rules.parquet(file):
                    table = pq.read_table(
                        file, columns=["stage", "decision", "reason"], page_checksum_verification=True
                    )
                for row in table.group_by(["stage", "decision", "reason"]).aggregate([([], "count_all")]).to_pylist():
                    key = (row["stage"], row["decision"], row["reason"])
                    totals[key] = totals.get(key, 0) + row["count_all"]
        return totals


class _Fate(NamedTuple):
    """What became of a document: whether it is in, and the stage, reason and score that say so."""

    is_in: bool
    stage: str
    reason: str
    score: float | None


_UNSEEN = _Fate(False, "", "", None)


def _fate(decisions: list[dict[str, Any]], earlier: _Fate | None) -> _Fate:
    """Return the fate after one more stage; a stage drops a document when it drops all that came under its id."""
    passed = [row for row in decisions if row["decision"] not in _GONE]
    row = passed[0] if passed else decisions[0]
    score = row["score"] if row["score"] is not None or earlier is None else earlier.score
    return _Fate(bool(passed), row["stage"], "" if passed else row["reason"], score)


def _change(old: _Fate, new: _Fate, min_score_change: float) -> str:
    if old.is_in != new.is_in:
        return "entered" if new.is_in else "left"
    if not new.is_in:
        return "reason_changed" if (old.stage, old.reason) != (new.stage, new.reason) else ""
    if old.score is None or new.score is None:
        return "score_moved" if (old.score is None) != (new.score is None) else ""
    return "score_moved" if abs(new.score - old.score) > min_score_change else ""


def _number(name: str) -> int:
    leading = name.split("-", 1)[0]
    return int(leading) if leading.isdecimal() else 0
