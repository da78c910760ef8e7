"""Cleaning a pool: quality rules drop documents, frequent lines are cut; nothing but counts and spans is held.

Source: tamis design (method cards I2 and I6).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import DOCUMENT_SCHEMA
from tamis.engines.threads import map_threads
from tamis.ingestion.export import Format
from tamis.ingestion.lines import FrequentLines, FrequentModel
from tamis.ingestion.pool import Pool
from tamis.ingestion.pool_pieces import Piece
from tamis.ingestion.quality import Judgement, Quality
from tamis.ingestion.spans import SPAN_SCHEMA
from tamis.pipeline.curation import TEXT, Curated, Curation, Decided, Source, as_source
from tamis.pipeline.record import Progress

_NEEDED = ("doc_id", "text", "source")


@dataclass(frozen=True)
class CutPool:
    """A pool with its frequent lines cut; documents that nothing else is left of keep their text.

    Attributes:
      pool: as it was read.
      lines: the method.
      model: which lines are frequent.
    """

    pool: Pool
    lines: FrequentLines
    model: FrequentModel

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
            yield (self._cut(batch) if "text" in names else batch).select(names)

    def _cut(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        cleaned = self.lines.clean(batch, self.model)
        stays = pc.invert(pc.is_in(batch["doc_id"], value_set=cleaned.dropped["doc_id"].combine_chunks()))
        text = pc.replace_with_mask(batch["text"], stays, cleaned.kept["text"].combine_chunks())
        return batch.set_column(batch.schema.names.index("text"), "text", text)

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the given rows in the given order; reads the whole pool."""
        names = list(columns) if columns is not None else DOCUMENT_SCHEMA.names
        schema = pa.schema([DOCUMENT_SCHEMA.field(name) for name in names])
        return pa.Table.from_batches(self.batches(names), schema=schema).take(pa.array(np.asarray(rows)))


def clean(
    source: Source | Sequence[str] | str,
    out: Path | str,
    rules: Quality | None = None,
    lines: FrequentLines | None = None,
    *,
    seed: int = 0,
    format: Format = "jsonl.zst",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Drop documents that fail quality rules; with ``lines`` also cut lines that many documents share.

    Args:
      source: the pool.
      out: folder of the result; ``report/spans.parquet`` has every span that was cut, ``report/rules.parquet`` what
        each rule did to each source.
      rules: a preset or rules of your own.
      lines: settings of the frequent lines; None leaves texts as they are.
      seed: unused by these rules; part of the fingerprint.
      format: of the documents that are kept.
      workers: threads.
      progress: called as progress(stage, done, total).
    """
    chosen = rules or Quality()
    settings = {"quality": chosen.model_dump(mode="json"), "lines": lines.model_dump(mode="json") if lines else None}
    work = Curation(
        "clean",
        as_source(source),
        Path(out),
        settings=settings,
        seed=seed,
        format=format,
        workers=workers,
        progress=progress,
    )
    return work.run(lambda pool, _: clean_pool(pool, chosen, lines, workers))


def clean_pool(pool: Pool, rules: Quality, lines: FrequentLines | None, workers: int) -> Decided:
    """Judge every document; cut frequent lines where asked. One pass over the texts, three with ``lines``."""

    def judge(piece: Piece) -> tuple[Judgement, pa.Array]:
        batches = list(piece.read(["text", "source"]))
        found = [rules.judge(batch["text"]) for batch in batches]
        sources = pa.chunked_array([batch["source"] for batch in batches], TEXT).combine_chunks()
        names = found[0].reasons if found else ()
        return Judgement(names, np.concatenate([f.failed for f in found])), sources

    reasons, failed_by, totals = [], Counter[tuple[str, str]](), Counter[str]()
    for judgement, sources in map_threads(judge, pool.pieces(), workers=workers):
        reasons += judgement.first()
        totals.update({row["values"]: row["counts"] for row in pc.value_counts(sources).to_pylist()})
        for at, reason in enumerate(judgement.reasons):
            found = pc.value_counts(sources.filter(pa.array(judgement.failed[:, at]))).to_pylist()
            failed_by.update({(row["values"], reason): row["counts"] for row in found})
    kept = np.array([not reason for reason in reasons], dtype=bool)
    tables = {"rules": _rules(failed_by, totals)}
    figures: dict[str, Any] = {"num_failed_rules": int((~kept).sum())}
    view = None
    if lines is not None:
        view, spans, gone = _cut(pool, lines)
        reasons = [reason or ("only_boilerplate" if gone[at] else "") for at, reason in enumerate(reasons)]
        kept &= ~gone
        tables["spans"] = spans
        cut_bytes = int(pc.sum(pc.subtract(spans["stop"], spans["start"])).as_py() or 0)
        figures |= {"num_spans_cut": len(spans), "bytes_cut": cut_bytes, "bytes_read": pool.num_bytes}
    notes = [f"{source}: {gone} of {num} documents fail the rules" for source, gone, num in _flagged(failed_by, totals)]
    return Decided(
        "quality", kept, pa.array(reasons, TEXT), documents=view, tables=tables, figures=figures, notes=tuple(notes)
    )


def _cut(pool: Pool, lines: FrequentLines) -> tuple[CutPool, pa.Table, np.ndarray]:
    sources = lines.sources(pool)
    view = CutPool(pool, lines, lines.fit(lines.count(pool, sources), sources, len(pool)))
    spans, gone = [SPAN_SCHEMA.empty_table()], []
    for batch in pool.batches(_NEEDED):
        cleaned = lines.clean(batch, view.model)
        spans.append(cleaned.spans)
        gone.append(np.asarray(pc.is_in(batch["doc_id"], value_set=cleaned.dropped["doc_id"].combine_chunks())))
    return view, pa.concat_tables(spans), np.concatenate(gone)


def _rules(failed_by: Counter[tuple[str, str]], totals: Counter[str]) -> pa.Table:
    rows = [(source, reason, num, num / totals[source]) for (source, reason), num in sorted(failed_by.items())]
    columns: list[Any] = list(zip(*rows, strict=True)) or [[] for _ in range(4)]
    kinds = (TEXT, TEXT, pa.int64(), pa.float64())
    names = ("source", "reason", "num_docs", "share_of_source")
    return pa.table([pa.array(c, k) for c, k in zip(columns, kinds, strict=True)], names=names)


def _flagged(failed_by: Counter[tuple[str, str]], totals: Counter[str]) -> Iterator[tuple[str, int, int]]:
    """Yield sources of which one rule alone drops more than half."""
    worst: dict[str, int] = {}
    for (source, _), num in failed_by.items():
        worst[source] = max(worst.get(source, 0), num)
    for source, num in sorted(worst.items()):
        if 2 * num > totals[source]:
            yield source, num, totals[source]
