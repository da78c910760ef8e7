"""What the ledger says of documents that were cut into passages and indexed."""

import numpy as np
import pyarrow as pa

from tamis.data import Corpus
from tamis.data.artefact import Staging
from tamis.data.ledger import LEDGER_SCHEMA, LedgerWriter
from tamis.search.index import SearchIndex

_BLOCK_DOCS = 65_536


def write_split(staging: Staging, documents: Corpus, passages: Corpus | None) -> None:
    """Write one decision a document: ``split`` into score passages, or ``kept`` whole. Nothing without passages."""
    counts = np.zeros(len(documents), dtype=np.int64)
    if passages is not None:
        for batch in passages.batches(["parent_doc_id"]):
            counts += np.bincount(documents.rows_of(batch.column(0)), minlength=len(documents))
    with LedgerWriter(staging) as writer:
        for start in range(0, len(documents) if passages is not None else 0, _BLOCK_DOCS):
            part = counts[start : start + _BLOCK_DOCS]
            decisions = np.where(part > 1, "split", "kept")
            ids = documents.doc_ids.slice(start, len(part))
            writer.append(_table(ids, "passages", decisions, np.full(len(part), ""), part.astype(np.float64)))


def write_indexed(staging: Staging, index: SearchIndex) -> None:
    """Write one decision a document: ``indexed``; reason ``no_words`` where no word can find it."""
    lengths = np.asarray(index.words.lengths)
    with LedgerWriter(staging) as writer:
        for start in range(0, len(index), _BLOCK_DOCS):
            part = lengths[start : start + _BLOCK_DOCS]
            reasons = np.where(part == 0, "no_words", "")
            ids = index.doc_ids.slice(start, len(part))
            writer.append(_table(ids, "index", np.full(len(part), "indexed"), reasons, None))


def _table(
    ids: pa.Array, stage: str, decisions: np.ndarray, reasons: np.ndarray, scores: np.ndarray | None
) -> pa.Table:
    empty = pa.array(np.full(len(ids), ""))
    columns = {
        "doc_id": ids,
        "stage": pa.array(np.full(len(ids), stage)),
        "method": pa.array(np.full(len(ids), stage)),
        "decision": pa.array(decisions),
        "reason": pa.array(reasons),
        "score": pa.nulls(len(ids), pa.float64()) if scores is None else pa.array(scores),
        "threshold": pa.nulls(len(ids), pa.float64()),
        "other_id": empty,
        "seq": pa.array(np.zeros(len(ids), np.int32)),
    }
    return pa.table(columns).select(LEDGER_SCHEMA.names).cast(LEDGER_SCHEMA)
