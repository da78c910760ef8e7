"""engine/collection and engine/pairs: the made queries, in BEIR's layout and with their provenance."""

from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.data import Corpus, Qrels, Queries
from tamis.data.artefact import Staging
from tamis.synthesis import Made, apply_views

PAIR_SCHEMA = pa.schema([(name, pa.large_string()) for name in ("query_id", "doc_id", "method", "anchor", "positive")])


@dataclass(frozen=True)
class Collection:
    """The made queries of both sides, as later stages read them."""

    dev_queries: Queries
    dev_qrels: Qrels
    train_queries: Queries
    train_qrels: Qrels

    @property
    def queries(self) -> Queries:
        """All of them, held out or not."""
        return Queries(pa.concat_tables([self.dev_queries.table, self.train_queries.table]))


def write(staging: Staging, units: Corpus, made: Made) -> None:
    """Write corpus.jsonl, queries.jsonl, qrels/{train,dev}.tsv and the Parquet files with provenance and views."""
    with staging.create("corpus.jsonl") as file:
        for batch in units.batches(["doc_id", "title", "text"]):
            columns = (batch.column(n).to_pylist() for n in ("doc_id", "title", "text"))
            lines = [orjson.dumps({"_id": i, "title": t, "text": x}) for i, t, x in zip(*columns, strict=True)]
            file.write(b"\n".join(lines) + b"\n")
    with staging.create("queries.jsonl") as file:
        made.train_queries.write(file)
        made.dev_queries.write(file)
    sides = {"train": (made.train_queries, made.train_qrels), "dev": (made.dev_queries, made.dev_qrels)}
    for side, (queries, qrels) in sides.items():
        with staging.create(f"qrels/{side}.tsv") as file:
            qrels.write(file)
        for name, table in ((f"{side}-queries.parquet", queries.table), (f"{side}-qrels.parquet", qrels.table)):
            with staging.create(f"provenance/{name}") as sink:
                pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    counts = {"train_queries": len(made.train_queries), "dev_queries": len(made.dev_queries)}
    counts |= {f"dev_{method}": count for method, count in made.num_dev.items()}
    counts |= {f"train_{method}": count for method, count in made.num_train.items()}
    counts |= {f"dropped_{maker or 'corpus'}_{reason}": count for (maker, reason), count in made.dropped.items()}
    staging.counts |= counts | {"leaks": len(made.leaks.leaks), "leak_checks": made.leaks.num_queries}


def read(folder: Path) -> Collection:
    """Read what `write` wrote."""
    tables = {
        f"{side}-{kind}": pq.read_table(
            folder / "provenance" / f"{side}-{kind}.parquet", page_checksum_verification=True
        )
        for side in ("dev", "train")
        for kind in ("queries", "qrels")
    }
    return Collection(
        Queries(tables["dev-queries"]),
        Qrels(tables["dev-qrels"]),
        Queries(tables["train-queries"]),
        Qrels(tables["train-qrels"]),
    )


def write_pairs(staging: Staging, units: Corpus, made: Made) -> None:
    """Write the training pairs with the views applied: anchor (query) and positive (title and text of the document)."""
    qrels, queries = made.train_qrels.table, dict(zip(made.train_queries.ids, made.train_queries.texts, strict=True))
    methods = dict(zip(made.train_queries.ids, made.train_queries.table["method"].to_pylist(), strict=True))
    rows = []
    for row in qrels.to_pylist():
        rows.append({"query_id": row["query_id"], "doc_id": row["doc_id"]})
    viewed = apply_views(units, made.train_qrels)
    documents = viewed.take(viewed.rows_of([r["doc_id"] for r in rows]), ["title", "text"]).to_pylist() if rows else []
    for row, document in zip(rows, documents, strict=True):
        row["method"] = methods[row["query_id"]]
        row["anchor"] = queries[row["query_id"]]
        row["positive"] = "\n".join(part for part in (document["title"], document["text"]) if part)
    with staging.create("part-00000.parquet") as sink:
        pq.write_table(
            pa.Table.from_pylist(rows, schema=PAIR_SCHEMA), sink, compression="zstd", write_page_checksum=True
        )
    staging.counts["pairs"] = len(rows)
