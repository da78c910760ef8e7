"""Cleaning a pool: rules drop documents, frequent lines or repeated passages are cut; only counts and spans are held.

Source: tamis design (method cards I2, I6 and I7).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import DOCUMENT_SCHEMA
from tamis.engines.engine import Engine, EngineName
from tamis.errors import UsageError
from tamis.ingestion.export import Format
from tamis.ingestion.lines import FrequentLines
from tamis.ingestion.pool import Pool
from tamis.ingestion.pool_pieces import Piece
from tamis.ingestion.quality import Judgement, Quality, Rules
from tamis.ingestion.spans import SPAN_SCHEMA, Cleaned
from tamis.ingestion.substring import REPEAT_SCHEMA, RepeatedSubstrings
from tamis.pipeline.curation import TEXT, Curated, Curation, Decided, Source
from tamis.pipeline.record import Progress

_NEEDED = ("doc_id", "text", "source")
Clean = Callable[[pa.RecordBatch], Cleaned]
"""Cuts the texts of a batch; looks at nothing outside of it."""


@dataclass(frozen=True)
class CutPool:
    """A pool with its texts cut; documents that nothing is left of keep theirs.

    Attributes:
      pool: as it was read.
      clean: what cuts.
    """

    pool: Pool
    clean: Clean

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
        cleaned = self.clean(batch)
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
    repeats: RepeatedSubstrings | None = None,
    *,
    seed: int = 0,
    format: Format = "jsonl.zst",
    engine: EngineName = "local",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Drop documents that fail quality rules; cut lines that many documents share, or passages that two have.

    Args:
      source: the pool.
      out: folder of the result; ``report/spans.parquet`` has every span that was cut, ``report/rules.parquet`` what
        each rule did to each source.
      rules: a preset or rules of your own.
      lines: settings of the frequent lines; None leaves texts as they are.
      repeats: settings of repeated passages, marked in ``report/repeats.parquet`` or cut; not together with lines:
        spans of both would belong to different texts. Clean the result again instead.
      seed: unused by these rules; part of the fingerprint.
      format: of the documents that are kept.
      engine: "local" or "ray"; the same bytes from both.
      workers: threads, or tasks at the same time.
      progress: called as progress(stage, done, total).

    Raises:
      UsageError: lines and repeats at once.
    """
    if lines is not None and repeats is not None:
        raise UsageError("frequent lines and repeated passages are cut one after the other: clean the result again.")
    chosen = rules or Quality()
    settings = {"quality": chosen.model_dump(mode="json"), "lines": lines.model_dump(mode="json") if lines else None}
    if repeats is not None:
        settings["repeats"] = repeats.model_dump(mode="json")
    work = Curation(
        "clean",
        source,
        out,
        settings=settings,
        seed=seed,
        format=format,
        engine=engine,
        workers=workers,
        progress=progress,
    )
    return work.run(lambda pool, _: clean_pool(pool, chosen, lines or repeats, work.mapper(pool, {}), workers))


def clean_pool(
    pool: Pool, rules: Quality, cutter: FrequentLines | RepeatedSubstrings | None, engine: Engine, workers: int = 1
) -> Decided:
    """Judge every document and cut texts where asked. One pass over the texts, three or four with a cutter."""
    names = tuple(check.reason for check in rules.checks())
    reasons, failed_by, totals = [], Counter[tuple[str, str]](), Counter[str]()
    for failed, sources in engine(partial(_judged, rules), pool.pieces()):
        reasons += Judgement(names, failed).first()
        totals.update({row["values"]: row["counts"] for row in pc.value_counts(sources).to_pylist()})
        for at, reason in enumerate(names):
            found = pc.value_counts(sources.filter(pa.array(failed[:, at]))).to_pylist()
            failed_by.update({(row["values"], reason): row["counts"] for row in found})
    kept = np.array([not reason for reason in reasons], dtype=bool)
    tables = {"rules": _rules(failed_by, totals)}
    figures: dict[str, Any] = {"num_failed_rules": int((~kept).sum())}
    view = None
    if cutter is not None:
        if isinstance(cutter, FrequentLines):
            sources = cutter.apart(totals)
            model = cutter.fit(cutter.count(pool, sources, engine), sources, len(pool))
            view = CutPool(pool, partial(cutter.clean, model=model))
        else:  # two documents are looked at side by side: here, on threads, whatever the engine
            found_here = cutter.find(pool, seed=0, workers=workers)
            view = CutPool(pool, partial(cutter.clean, repeats=found_here))
            marks = [cutter.marks(batch, found_here) for batch in pool.batches(_NEEDED)]
            tables["repeats"] = pa.concat_tables([REPEAT_SCHEMA.empty_table(), *marks])
            figures["num_repeats"] = len(tables["repeats"])
        spans, gone = _cut(pool, view.clean, engine)
        reasons = [reason or left for reason, left in zip(reasons, gone, strict=True)]
        kept &= np.array([not left for left in gone], dtype=bool)
        tables["spans"] = spans
        cut_bytes = int(pc.sum(pc.subtract(spans["stop"], spans["start"])).as_py() or 0)
        figures |= {"num_spans_cut": len(spans), "bytes_cut": cut_bytes, "bytes_read": pool.num_bytes}
    notes = [f"{source}: {gone} of {num} documents fail the rules" for source, gone, num in _flagged(failed_by, totals)]
    return Decided(
        "quality", kept, pa.array(reasons, TEXT), documents=view, tables=tables, figures=figures, notes=tuple(notes)
    )


def _judged(rules: Rules, piece: Piece) -> tuple[np.ndarray, pa.Array]:
    """Return bool [n, C], which documents of a piece fail which check, and their sources."""
    failed, sources = [np.zeros((0, len(rules.checks())), dtype=bool)], [pa.array([], TEXT)]
    for batch in piece.read(["text", "source"]):
        failed.append(rules.judge(batch["text"]).failed)
        sources.append(batch["source"])
    return np.concatenate(failed), pa.concat_arrays(sources)


def _cut(pool: Pool, clean: Clean, engine: Engine) -> tuple[pa.Table, list[str]]:
    """Return the spans that are cut, and for each document why it is dropped: "" where something is left of it."""
    spans, gone = [SPAN_SCHEMA.empty_table()], list[str]()
    for found, dropped in engine(partial(_spans, clean), pool.pieces()):
        spans.append(found)
        gone += dropped.to_pylist()
    return pa.concat_tables(spans), gone


def _spans(clean: Clean, piece: Piece) -> tuple[pa.Table, pa.Array]:
    """Return the spans that are cut from a piece, and large_string [n] of reasons."""
    spans, gone = [SPAN_SCHEMA.empty_table()], [pa.array([], TEXT)]
    for batch in piece.read(_NEEDED):
        cleaned = clean(batch)
        spans.append(cleaned.spans)
        at = pc.index_in(batch["doc_id"], value_set=cleaned.dropped["doc_id"].combine_chunks())
        reasons = cleaned.dropped["reason"].combine_chunks().cast(TEXT)
        gone.append(pc.fill_null(reasons.take(at), ""))
    return pa.concat_tables(spans).combine_chunks(), pa.concat_arrays(gone)


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
