"""Spans cut from texts: what every sieve that changes text records, and the way back.

Source: tamis design (method cards K8, I6): nothing is lost silently.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tamis.data.corpus import Corpus, Sifted
from tamis.errors import DataError
from tamis.ops import lines as line_ops

TEXT = pa.large_string()
SPAN_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),
        ("start", pa.int64()),  # bytes of the text as it was
        ("stop", pa.int64()),  # exclusive
        ("reason", TEXT),  # what the span was
        ("text", TEXT),  # what was removed
    ]
)


@dataclass(frozen=True)
class Edited(Sifted):
    """A sieve's result with what was cut from the texts; `restored` puts it back.

    Attributes:
      spans: SPAN_SCHEMA, ascending within a document. Documents dropped are in ``dropped`` as they were.
    """

    spans: pa.Table


class Cleaned(NamedTuple):
    """One batch after a sieve: rows kept (text changed), rows dropped (as they were, with a reason), and spans."""

    kept: pa.Table
    dropped: pa.Table
    spans: pa.Table


def cut_batch(
    batch: pa.RecordBatch, spans: line_ops.Spans, span_reasons: Sequence[str], drop_reasons: Sequence[str]
) -> Cleaned:
    """Cut spans from the texts of a batch and drop rows.

    Args:
      batch: doc_id, text and any other column.
      spans: of ``batch["text"]``.
      span_reasons: one a span.
      drop_reasons: one a row; "" for a row that is kept.
    """
    table = pa.Table.from_batches([batch])
    gone = np.array([bool(reason) for reason in drop_reasons], dtype=bool)
    reasons = pa.array(list(drop_reasons), TEXT)
    dropped = table.append_column("reason", reasons).filter(pa.array(gone))
    left = line_ops.cut(batch["text"], spans)
    kept = table.set_column(table.column_names.index("text"), "text", left).filter(pa.array(~gone))
    stay = np.flatnonzero(~gone[spans.rows])
    shown = line_ops.Spans(spans.rows[stay], spans.starts[stay], spans.stops[stay])
    columns = [
        batch["doc_id"].cast(TEXT).take(pa.array(shown.rows)),
        pa.array(shown.starts),
        pa.array(shown.stops),
        pa.array([span_reasons[i] for i in stay.tolist()], TEXT),
        line_ops.excerpts(batch["text"], shown),
    ]
    return Cleaned(kept, dropped, pa.table(columns, schema=SPAN_SCHEMA))


def collected(schema: pa.Schema, parts: Iterable[Cleaned]) -> Edited:
    """Put the batches of a corpus together; holds the texts that are kept."""
    listed = list(parts)
    dropped_schema = schema.append(pa.field("reason", TEXT))
    kept = pa.concat_tables([schema.empty_table(), *(part.kept.cast(schema) for part in listed)])
    dropped = pa.concat_tables([dropped_schema.empty_table(), *(part.dropped.cast(dropped_schema) for part in listed)])
    spans = pa.concat_tables([SPAN_SCHEMA.empty_table(), *(part.spans for part in listed)])
    return Edited(Corpus.from_table(kept), dropped, spans)


def restored(kept: Corpus, spans: pa.Table) -> Corpus:
    """Return the documents with the spans put back: the texts as they were. O(bytes).

    Raises:
      DataError: a span of an unknown document, or one that does not fit the text.
    """
    by_doc: dict[str, list[dict[str, object]]] = {}
    for row in spans.select(["doc_id", "start", "stop", "text"]).to_pylist():
        by_doc.setdefault(row["doc_id"], []).append(row)
    table = kept.table()
    texts = table["text"].to_pylist()
    for at, doc_id in enumerate(table["doc_id"].to_pylist()):
        if doc_id in by_doc:
            texts[at] = _filled(texts[at].encode(), by_doc.pop(doc_id), doc_id)
    if by_doc:
        raise DataError(f"spans of {next(iter(by_doc))!r}: no such document among {len(kept)}. Give the kept corpus.")
    return Corpus.from_table(table.set_column(table.column_names.index("text"), "text", pa.array(texts, TEXT)))


def _filled(left: bytes, spans: list[dict[str, object]], doc_id: str) -> str:
    parts, at, total = [], 0, 0
    for span in sorted(spans, key=lambda row: (row["start"], row["stop"])):
        before = int(span["start"]) - total  # type: ignore[call-overload]
        removed = str(span["text"]).encode()
        if before < 0 or at + before > len(left) or len(removed) != int(span["stop"]) - int(span["start"]):  # type: ignore[call-overload]
            raise DataError(
                f"document {doc_id!r}: the span [{span['start']}, {span['stop']}) does not fit its text. "
                "Give the corpus and the spans of one result."
            )
        parts += [left[at : at + before], removed]
        at += before
        total += before + len(removed)
    return b"".join([*parts, left[at:]]).decode()
