"""Ledger: one row a document and decision, so that `tamis why ID` answers for every input document."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

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
    "kept", "changed", "dropped", "rejected", "grouped", "split", "generated", "held_out", "trained", "indexed"
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
        table = pa.concat_tables(self._pending) if self._pending else empty()
        self._pending, self._num_pending = [], 0
        ids = table["doc_id"].to_pylist()
        part = np.fromiter((partition(d) for d in ids), dtype=np.int64, count=len(ids))
        return [(int(n), table.filter(pa.array(part == n))) for n in np.unique(part)]

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


def _number(name: str) -> int:
    leading = name.split("-", 1)[0]
    return int(leading) if leading.isdecimal() else 0
