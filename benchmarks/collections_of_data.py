"""The judged collections of ../shared/data: where they lie and which split is scored, once, at the end."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow.compute as pc

from tamis.data import Corpus, Qrels, Queries

DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
SPLITS = {
    "cranfield": "test",
    "cisi": "test",
    "adi": "test",
    "scifact-train": "dev",
    "onet": "dev",
    "cosqa-dev": "dev",
    "metatool": "test",
    "stackfaq": "test",
    "chunking-eval": "test",
    "xquad-en": "test",
    "abt-buy": "test",
}
SPANS = "chunking-eval"  # five long texts: judged on character spans, over passages


@dataclass(frozen=True)
class Judged:
    """Queries with at least one relevant document, and their judgements."""

    queries: Queries
    qrels: Qrels


def load(name: str) -> Judged:
    """Read the scored split of a collection."""
    folder = DATA / name
    qrels = Qrels.read(folder / "qrels" / f"{SPLITS[name]}.tsv")
    queries = Queries.read(folder / "queries.jsonl.gz")
    judged = pc.is_in(queries.table["query_id"], pc.unique(qrels.table["query_id"]).cast("large_string"))
    return Judged(queries.select(np.asarray(judged.to_numpy())), qrels)


def span_qrels(passages: Corpus) -> Qrels:
    """Judge passages by the answer spans of chunking-eval: relevant when a passage overlaps one."""
    import gzip

    table = passages.table(["doc_id", "parent_doc_id", "start", "stop"]).to_pylist()
    records = {}
    for line in gzip.open(DATA / SPANS / "spans.jsonl.gz", "rb"):
        span = orjson.loads(line)
        for row in table:
            overlaps = row["start"] < span["end"] and span["start"] < row["stop"]
            if row["parent_doc_id"] == span["corpus-id"] and overlaps:
                key = (span["query-id"], row["doc_id"])
                records[key] = {"query_id": key[0], "doc_id": key[1], "relevance": 1}
    return Qrels.from_records(records.values())
