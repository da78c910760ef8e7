"""Pool: raw documents for people who only curate; read once, kept on a scratch disk, streamed from there.

Source: tamis design (reliability D8, D9; cards K7, K8). Nothing is cleaned; what is left out has a reason.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import orjson
import pyarrow as pa

from tamis.data import durable
from tamis.data import ledger as ledgers
from tamis.data.artefact import fingerprint
from tamis.data.corpus import DOCUMENT_SCHEMA
from tamis.engines.local import map_ordered
from tamis.errors import DataError
from tamis.ingestion.ingest import CHILD_LIMITS, Ingest, plan
from tamis.ingestion.parts import Task, documents_file
from tamis.ingestion.pool_lines import TEXT
from tamis.ingestion.pool_pieces import Piece, RawLines, UnitPlace, complete, raw_records, stored_columns
from tamis.ingestion.pool_reader import PoolPart, died, scratch_file, stage_pool
from tamis.ingestion.pool_settle import KEPT, LOST, REASONS, REPEATED, lost_rows, settle
from tamis.ingestion.readers import FieldNames
from tamis.ingestion.rejects import Rejects, check_text_fields, line_bases, listed, lost_files
from tamis.ingestion.sources import Found, resolve

_PIECE_BATCHES = 4  # 16 MiB of JSON lines
_PROCESS_BYTES = 512 << 20  # below, starting processes costs more than they save
_NO_FIELDS = (None, "", "")


class Pool:
    """Documents as they stand in files. Columns as in DOCUMENT_SCHEMA; a group_id is the doc_id.

    Make one with `open`; close it, or use it as a context, to remove its scratch files. Methods see it
    through `batches`, `len`, `take` and `schema`, as they see a Corpus.

    Attributes:
      counts: files, documents_read, documents, dropped[_REASON], rejected[_REASON], skipped_REASON.
      rejects: a file with path, line, offset, reason and detail of each record that could not be read.
      num_bytes: UTF-8 bytes of the titles and texts that were read.
      content: hash of what was read, for the fingerprints of what is made from it.
    """

    schema: pa.Schema = DOCUMENT_SCHEMA

    def __init__(
        self,
        folder: Path,
        pieces: list[Piece],
        sizes: dict[str, list[int]],
        others: dict[int, tuple[str, int]],
        counts: Counter[str],
    ) -> None:
        """Wrap staged files; use `open` instead."""
        self._folder, self._pieces, self._sizes, self._others = folder, pieces, sizes, others
        self.counts = dict(sorted((name, int(num)) for name, num in counts.items()))
        self.rejects = folder / "rejects.jsonl"
        self.num_bytes = 0
        self.content = ""

    @classmethod
    def open(
        cls,
        paths: Sequence[str],
        *,
        scratch: Path,
        fields: FieldNames | None = None,
        exclude: Sequence[str] = (),
        max_reject_frac: float = 0.01,
        workers: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> Self:
        """Read files once into scratch files. Memory: 10 bytes a document and a few blocks of 4 MiB.

        Args:
          paths: files, folders, glob patterns, as `ingest` takes them.
          scratch: folder on a disk with room for the texts; made when missing. The pool adds one folder of its own.
          fields: which fields hold id, text and title; detected where None.
          exclude: shell patterns of labels to leave out.
          max_reject_frac: share of records that may be rejected.
          workers: processes that read; started only for inputs of 512 MiB and more.
          progress: called with the number of documents of each part that was read.

        Raises:
          DataError: nothing to read, too much rejected, no text field, an id with two texts, nothing left.
          ResourceError: the disk or a worker failed.
        """
        names = fields or FieldNames()
        settings = Ingest(
            id_field=names.doc_id,
            text_field=names.text,
            title_field=names.title,
            max_reject_frac=max_reject_frac,
            unicode=False,
            exclude=tuple(exclude),
        )
        found = resolve(paths, settings.exclude)
        durable.make_folder(scratch)
        folder = Path(tempfile.mkdtemp(prefix="pool-", dir=scratch))
        try:
            return cls._read(found, settings, folder, workers, progress)
        except BaseException:
            durable.remove(folder)
            raise

    @classmethod
    def _read(
        cls,
        found: Found,
        settings: Ingest,
        folder: Path,
        workers: int,
        progress: Callable[[int], None] | None,
    ) -> Self:
        tasks = plan(found.files, settings, folder)
        parts = _stage(tasks, workers, progress)
        lost = lost_files(tasks, parts)
        check_text_fields(tasks, parts, settings.text_field)
        rejects = Rejects(found, tasks, parts, lost, folder)
        rejects.check(settings.max_reject_frac)
        staged = _pieces(tasks, parts, folder)
        reasons, others = settle(staged, parts, lost_rows(parts, lost, staged))
        counts = rejects.counts + Counter({f"skipped_{reason}": num for reason, num in found.skipped.items()})
        for code, reason in enumerate(REASONS[1:LOST], 1):
            counts[f"dropped_{reason}"] = int((reasons == code).sum())
        counts["files"] = len(found.files)
        counts["documents_read"] = int((reasons != LOST).sum())
        counts["documents"] = int((reasons == KEPT).sum())
        counts["dropped"] = counts["documents_read"] - counts["documents"]
        if not counts["documents"]:
            raise DataError(f"no document is left: {listed(counts)}. Look at the input or the fields' names.")
        sizes = {str(documents_file(folder, part.number)): part.batch_sizes for part in parts}
        pool = cls(folder, _with_reasons(staged, reasons), sizes, others, counts)
        with scratch_file(pool.rejects) as file:
            for row in rejects:
                file.write(orjson.dumps(row) + b"\n")
        pool.num_bytes = sum(part.num_bytes for part in parts)
        pool.content = fingerprint(
            [[f.label for f in found.files], [part.digest for part in parts], settings.model_dump()]
        )
        return pool

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the scratch files."""
        self.close()

    def close(self) -> None:
        """Remove the scratch files; the pool cannot be read any more."""
        durable.remove(self._folder)

    def __len__(self) -> int:
        """Number of documents."""
        return self._pieces[-1].first + len(self._pieces[-1])

    def pieces(self) -> list[Piece]:
        """Return the parts of the pool in order, each some 16 MiB: what one worker reads."""
        return list(self._pieces)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the documents in order, a few MiB of text a batch. ``metadata`` costs another look at the files."""
        for piece in self._pieces:
            yield from piece.read(columns)

    @cached_property
    def doc_ids(self) -> pa.LargeStringArray:
        """All ids in document order, one Arrow array."""
        return pa.concat_arrays([batch["doc_id"] for batch in self.batches(["doc_id"])])

    @cached_property
    def _kept(self) -> list[tuple[int, Piece, int, np.ndarray]]:
        """For each staged batch with documents: first row, piece, number, positions of its documents."""
        found = []
        for piece in self._pieces:
            row, first = piece.first, 0
            for number in range(piece.start, piece.stop):
                size = self._sizes[piece.path][number]
                kept = piece.kept(first, size)
                if len(kept):
                    found.append((row, piece, number, kept))
                row, first = row + len(kept), first + size
        return found

    def _runs(self, rows: np.ndarray | Sequence[int]) -> Iterator[tuple[Piece, int, np.ndarray]]:
        """Yield (piece, batch, staged positions) for runs of rows that lie in one batch."""
        wanted = np.asarray(rows, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise DataError(f"row {outside[0]} of {len(self)} documents: rows count from 0. Look for an unknown id.")
        firsts = np.array([first for first, *_ in self._kept], dtype=np.int64)
        at = np.searchsorted(firsts, wanted, side="right") - 1
        cuts = np.r_[0, np.flatnonzero(np.diff(at)) + 1, len(wanted)]
        for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            if stop > start:
                first, piece, number, kept = self._kept[at[start]]
                yield piece, number, kept[wanted[start:stop] - first]

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the given rows in the given order; reads each batch that holds some once.

        Raises:
          DataError: a row is below 0 or past the last document; no such column.
        """
        names = list(columns) if columns is not None else DOCUMENT_SCHEMA.names
        wanted = np.asarray(rows, dtype=np.int64)
        order = np.argsort(wanted, kind="stable")
        parts = []
        with RawLines() as lines:
            for piece, number, positions in self._runs(wanted[order]):
                batch = next(piece.stored(stored_columns(names), [number])).take(pa.array(positions))
                parts.append(complete(batch, names, piece.units, lines))
        schema = pa.schema([DOCUMENT_SCHEMA.field(name) for name in names])
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return pa.Table.from_batches(parts, schema=schema).take(pa.array(back)).combine_chunks()

    def raw(self, rows: np.ndarray | Sequence[int]) -> Iterator[bytes]:
        """Yield the records of the given rows: JSON lines as they stand in the file, without their ends.

        Records of other formats are made anew (see `records`). Ascending rows read each file once.

        Raises:
          DataError: a row is out of range; a file has changed since the pool was opened.
        """
        with RawLines() as lines:
            for piece, number, positions in self._runs(rows):
                yield from raw_records(piece, number, positions, lines)

    def decisions(self, stage: str = "pool") -> Iterator[pa.Table]:
        """Yield a ledger row for each document that was read: kept, or dropped with a reason."""
        staged = 0
        for piece in self._pieces:
            for batch, reasons in piece.seen(["doc_id"]):
                believed = reasons != LOST
                num = int(believed.sum())
                repeated = np.flatnonzero(reasons[believed] == REPEATED)
                rows = staged + np.flatnonzero(believed)[repeated]
                other_ids, seqs = np.full(num, "", object), np.zeros(num, np.int32)
                for at, row in zip(repeated.tolist(), rows.tolist(), strict=True):
                    other_ids[at], seqs[at] = self._others[row]
                staged += len(batch)
                reason = pa.array(REASONS, TEXT).take(pa.array(reasons[believed]))
                verdict = np.where(reasons[believed] == KEPT, "kept", "dropped")
                yield pa.table(
                    {
                        "doc_id": batch["doc_id"].filter(pa.array(believed)),
                        "stage": pa.repeat(pa.scalar(stage, TEXT), num),
                        "method": pa.repeat(pa.scalar("pool", TEXT), num),
                        "decision": pa.array(verdict, TEXT),
                        "reason": reason,
                        "score": pa.nulls(num, pa.float64()),
                        "threshold": pa.nulls(num, pa.float64()),
                        "other_id": pa.array(other_ids, TEXT),
                        "seq": pa.array(seqs),
                    },
                    schema=ledgers.LEDGER_SCHEMA,
                )


def _stage(tasks: list[Task], workers: int, progress: Callable[[int], None] | None) -> list[PoolPart]:
    """Read all tasks; Parquet in limited children, where a crash costs one file."""
    fragile = [task for task in tasks if task.units[0].source.kind == "parquet"]
    trusted = [task for task in tasks if task.units[0].source.kind != "parquet"]
    num_bytes = sum(source.num_bytes for source in {unit.source for task in trusted for unit in task.units})
    parts = []
    for run in (
        map_ordered(stage_pool, trusted, workers=workers if num_bytes >= _PROCESS_BYTES else 1),
        map_ordered(stage_pool, fragile, workers=workers, limits=CHILD_LIMITS, on_death=died),
    ):
        for part in run:
            parts.append(part)
            if progress is not None:
                progress(sum(unit.num_docs for unit in part.units))
    return sorted(parts, key=lambda part: part.number)


def _pieces(tasks: list[Task], parts: list[PoolPart], folder: Path) -> list[Piece]:
    """Cut the staged files into pieces; ``first`` and ``num_docs`` count all rows that were read."""
    bases = line_bases(tasks, parts)
    pieces, first = [], 0
    for task, part in zip(tasks, parts, strict=True):
        units = []
        for number, (unit, summary) in enumerate(zip(task.units, part.units, strict=True)):
            chosen = summary.fields
            fields = (chosen.doc_id, chosen.text, chosen.title) if chosen is not None else _NO_FIELDS
            units.append(UnitPlace(unit.source, bases[part.number, number], fields))
        path = str(documents_file(folder, part.number))
        for start in range(0, len(part.batch_sizes), _PIECE_BATCHES):
            sizes = part.batch_sizes[start : start + _PIECE_BATCHES]
            pieces.append(Piece(path, start, start + len(sizes), first, sum(sizes), tuple(units)))
            first += sum(sizes)
    return pieces


def _with_reasons(staged: list[Piece], reasons: np.ndarray) -> list[Piece]:
    """Return the pieces with ``first`` and ``num_docs`` counting the documents that are kept."""
    pieces, first = [], 0
    for piece in staged:
        codes = reasons[piece.first : piece.first + len(piece)]
        num = int((codes == KEPT).sum())
        pieces.append(replace(piece, first=first, num_docs=num, reasons=codes.tobytes() if codes.any() else b""))
        first += num
    return pieces
