"""Decisions: the second pass of ingestion. Ids are settled, copies grouped, and every document is written somewhere.

Source: tamis design (reliability D6; cards K7, I4).
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from tamis.data import ledger as ledgers
from tamis.data.artefact import Staging
from tamis.data.corpus import DOCUMENT_SCHEMA, CorpusWriter
from tamis.errors import DataError
from tamis.ingestion.exact import group_names, leaders
from tamis.ingestion.parts import Staged
from tamis.ingestion.records import MAX_ID_BYTES

TEXT = pa.large_string()
DROPPED_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("reason", TEXT))
REASONS = ("", "empty_text", "unstable_text", "repeated_document", "repeated_id", "lost")
_KEPT, _REPEATED_DOCUMENT, _REPEATED_ID, _LOST = 0, 3, 4, 5


class Place(NamedTuple):
    """Where a unit stands: its file's label, the lines before it, and whether the file is not believed."""

    label: str
    line_base: int
    is_lost: bool


class Places(dict[tuple[int, int], Place]):
    """(task, unit) -> Place."""

    def doc_id(self, row: dict[str, Any]) -> str:
        """Return a staged row's id; made from file and line where it has none."""
        return row["doc_id"] if row["doc_id"] is not None else self.where(row)

    def where(self, row: dict[str, Any]) -> str:
        """Return ``label:line`` of a staged row."""
        place = self[row["task"], row["unit"]]
        return f"{place.label}:{place.line_base + row['line']}"


class Decisions:
    """What becomes of each staged document. Call `settle`, then `write`."""

    def __init__(self, staged: Staged, places: Places, on_duplicate: str) -> None:
        """Read keys and reasons of all staged documents; 24 bytes a document."""
        self._staged, self._places, self._on_duplicate = staged, places, on_duplicate
        num = len(staged)
        self._state = np.zeros(num, dtype=np.int8)  # position in REASONS
        self._id_keys = np.zeros(num, dtype=np.uint64)
        self._content_keys = np.zeros((num, 2), dtype=np.uint64)
        self._new_ids: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._others: dict[int, str] = {}
        self._seqs: dict[int, int] = {}
        self._load()

    def _load(self) -> None:
        for task, first, batch in self._staged.batches():
            rows = slice(first, first + len(batch))
            self._content_keys[rows] = np.frombuffer(batch["content_key"].buffers()[1], np.uint64).reshape(-1, 2)[
                : len(batch)
            ]
            keys = batch["id_key"].to_numpy().copy()
            ids = batch["doc_id"]
            if ids.null_count:
                for at in np.flatnonzero(np.asarray(ids.is_null())):
                    row = {"task": task, "unit": batch["unit"][int(at)].as_py(), "line": batch["line"][int(at)].as_py()}
                    keys[at] = xxhash.xxh3_64_intdigest(self._places.where(row).encode())
            self._id_keys[rows] = keys
            state = np.array([REASONS.index(reason) for reason in batch["reason"].to_pylist()], dtype=np.int8)
            units = batch["unit"].to_numpy()
            for unit in np.unique(units):
                if self._places[task, int(unit)].is_lost:
                    state[units == unit] = _LOST
            self._state[rows] = state

    def settle(self) -> Counter[str]:
        """Decide about every document and count. O(n log n), and a look at each row with an equal hash.

        Raises:
          DataError: an id comes with two texts and ``on_duplicate`` is "error"; lists the first five.
        """
        self._settle_ids()
        rows = np.flatnonzero(self._state == _KEPT)
        first = leaders(self._content_keys[rows], lambda a, b: self._content(rows[a]) == self._content(rows[b]))
        members = np.zeros(len(rows), dtype=bool)
        copies = first != np.arange(len(rows))
        members[copies] = True
        members[first[copies]] = True
        positions = np.flatnonzero(members)
        remap = {int(p): i for i, p in enumerate(positions)}
        ids = [self._doc_id(int(rows[p])) for p in positions]
        names = group_names(ids, np.array([remap[int(first[p])] for p in positions], dtype=np.int64))
        for position, doc_id, name in zip(positions, ids, names, strict=True):
            if name != doc_id:
                self._groups[int(rows[position])] = name
        counts: Counter[str] = Counter(documents_read=int((self._state != _LOST).sum()), documents=len(rows))
        for code, reason in enumerate(REASONS[1:_LOST], 1):
            counts[f"dropped_{reason}"] = int((self._state == code).sum())
        counts["dropped"] = counts["documents_read"] - counts["documents"]
        counts["grouped"] = len(self._groups)
        return counts

    def _content(self, row: int) -> tuple[str, str]:
        found = self._staged.row(int(row), ("title", "text"))
        return found["title"], found["text"]

    def _doc_id(self, row: int) -> str:
        return self._new_ids.get(row) or self._places.doc_id(self._staged.row(row))

    def _settle_ids(self) -> None:
        rows = np.flatnonzero(self._state == _KEPT)
        first = leaders(self._id_keys[rows], lambda a, b: self._doc_id(int(rows[a])) == self._doc_id(int(rows[b])))
        again = np.flatnonzero(first != np.arange(len(rows)))
        groups: dict[int, list[int]] = {}
        for position in again.tolist():
            leader = int(rows[first[position]])
            groups.setdefault(leader, [leader]).append(int(rows[position]))
        conflicts = []
        for _, group in sorted(groups.items()):
            distinct = self._drop_copies(group)
            if len(distinct) > 1:
                conflicts.append(distinct)
        if conflicts and self._on_duplicate == "error":
            self._refuse(conflicts)
        for distinct in conflicts:
            self._resolve(distinct)
        for group in groups.values():
            for seq, row in enumerate(group):
                self._seqs[row] = 0 if row in self._new_ids else seq

    def _drop_copies(self, group: list[int]) -> list[int]:
        """Drop rows of one id whose text an earlier one has (a later one, when the last is kept); return the others."""
        ordered = group[::-1] if self._on_duplicate == "last" else group
        seen: dict[tuple[str, str], int] = {}
        for row in ordered:
            content = self._content(row)
            if content in seen:
                self._state[row] = _REPEATED_DOCUMENT
                self._others[row] = self._places.where(self._staged.row(seen[content]))
            else:
                seen[content] = row
        return sorted(seen.values())

    def _refuse(self, conflicts: list[list[int]]) -> None:
        lines = []
        for first, second, *_ in conflicts[:5]:
            one, other = self._staged.row(first), self._staged.row(second)
            lines.append(
                f"  {self._places.doc_id(one)!r:.120}: {self._places.where(one)} and {self._places.where(other)}"
            )
        raise DataError(
            f"{len(conflicts)} id(s) come with more than one text. The first:\n" + "\n".join(lines) + "\n"
            "Make the ids distinct, choose another --id-field, or use --on-duplicate first, last or suffix."
        )

    def _resolve(self, distinct: list[int]) -> None:
        """Keep one of the texts of an id, or give the later ones new ids ``id~2``, ``id~3``."""
        if self._on_duplicate == "suffix":
            doc_id, number = self._doc_id(distinct[0]), 1
            for row in distinct[1:]:
                number, new_id = self._free_id(doc_id, number + 1)
                self._new_ids[row], self._others[row] = new_id, doc_id
            return
        keep = distinct[-1] if self._on_duplicate == "last" else distinct[0]
        for row in distinct:
            if row != keep:
                self._state[row] = _REPEATED_ID
                self._others[row] = self._places.where(self._staged.row(keep))

    def _free_id(self, doc_id: str, number: int) -> tuple[int, str]:
        taken = set(self._new_ids.values())
        while True:
            suffix = f"~{number}"
            stem = doc_id.encode()[: MAX_ID_BYTES - len(suffix)].decode("utf-8", "ignore")
            key = np.uint64(xxhash.xxh3_64_intdigest(f"{stem}{suffix}".encode()))
            if f"{stem}{suffix}" not in taken and not (self._id_keys == key).any():
                return number, f"{stem}{suffix}"
            number += 1

    def write(self, corpus: Staging, dropped: Staging, ledger: Staging) -> None:
        """Write kept and dropped documents and one ledger row for each, in the order of the input."""
        with (
            CorpusWriter(corpus, DOCUMENT_SCHEMA) as kept,
            CorpusWriter(dropped, DROPPED_SCHEMA) as gone,
            ledgers.LedgerWriter(ledger) as decisions,
        ):
            for task, first, batch in self._staged.batches():
                table, reasons, is_kept = self._finish(task, first, batch)
                kept.append(table.filter(pa.array(is_kept)))
                is_gone = np.array([bool(r) and r != "lost" for r in reasons], dtype=bool)
                gone.append(table.append_column("reason", pa.array(reasons, TEXT)).filter(pa.array(is_gone)))
                decisions.append(self._decided(first, batch, table, reasons))
        corpus.counts["documents"] = kept.num_rows
        dropped.counts["documents"] = gone.num_rows

    def _finish(self, task: int, first: int, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[str], np.ndarray]:
        """Return the batch in DOCUMENT_SCHEMA, each row's reason, and which rows are kept."""
        units, lines = batch["unit"].to_pylist(), batch["line"].to_pylist()
        ids = batch["doc_id"].to_pylist()
        for at, doc_id in enumerate(ids):
            if doc_id is None:
                ids[at] = self._places.where({"task": task, "unit": units[at], "line": lines[at]})
        ids = [self._new_ids.get(first + at, doc_id) for at, doc_id in enumerate(ids)]
        groups = [self._groups.get(first + at, doc_id) for at, doc_id in enumerate(ids)]
        sources = [self._places[task, unit].label for unit in units]
        columns = [pa.array(ids, TEXT), batch["title"], batch["text"], pa.array(sources, TEXT), batch["metadata"]]
        state = self._state[first : first + len(batch)]
        table = pa.record_batch([*columns, pa.array(groups, TEXT)], schema=DOCUMENT_SCHEMA)
        return table, [REASONS[code] for code in state], state == _KEPT

    def _decided(self, first: int, batch: pa.RecordBatch, table: pa.RecordBatch, reasons: list[str]) -> pa.Table:
        """Return the ledger rows of a batch: dropped before grouped before changed before kept."""
        rows = []
        ids, groups = table["doc_id"].to_pylist(), table["group_id"].to_pylist()
        changed = batch["changed"].to_pylist()
        for at, reason in enumerate(reasons):
            row = first + at
            if reason == "lost":
                continue
            other = self._others.get(row, "")
            decision: tuple[str, str, str, float | None, str]
            if reason:
                decision = ("ingest", "dropped", reason, None, other)
            elif row in self._groups:
                decision = ("exact", "grouped", "exact_copy", None, groups[at])
            elif row in self._new_ids:
                decision = ("ingest", "changed", "repeated_id", None, other)
            elif changed[at]:
                decision = ("unicode", "changed", "unclean_text", float(changed[at]), "")
            else:
                decision = ("ingest", "kept", "", None, "")
            rows.append((ids[at], "ingest", *decision[:4], None, decision[4], self._seqs.get(row, 0)))
        columns: list[Any] = list(zip(*rows, strict=True)) or [[] for _ in ledgers.LEDGER_SCHEMA]
        return pa.table(
            [pa.array(c, f.type) for c, f in zip(columns, ledgers.LEDGER_SCHEMA, strict=True)],
            schema=ledgers.LEDGER_SCHEMA,
        )
