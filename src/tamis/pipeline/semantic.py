"""Semantic duplicates of a pool: a pass of its own, never part of `dedup`'s default, with its own reason.

Source: Abbas et al. 2023, SemDeDup, arXiv:2303.09540; tamis, method card I5.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from tamis.data.corpus import DOCUMENT_SCHEMA, Corpus
from tamis.ingestion.export import Format
from tamis.ingestion.pool import Pool
from tamis.ingestion.semantic import SemanticDuplicates, SemanticGroups
from tamis.models.encoder import Encoder
from tamis.ops.text import joined
from tamis.pipeline.curation import TEXT, Curated, Curation, Decided, Source
from tamis.pipeline.record import Progress
from tamis.selection.vectors import encoded

_NUM_EXAMPLES = 50
_EXCERPT_CHARS = 200


@dataclass(frozen=True)
class _Rows:
    """Some documents of a pool, by ascending row."""

    pool: Pool
    rows: np.ndarray

    @property
    def schema(self) -> pa.Schema:
        return DOCUMENT_SCHEMA

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        is_here, first = np.zeros(len(self.pool), bool), 0
        is_here[self.rows] = True
        for batch in self.pool.batches(columns):
            yield batch.filter(pa.array(is_here[first : first + len(batch)]))
            first += len(batch)

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        return self.pool.take(self.rows[np.asarray(rows)], columns)


def dedup_semantic(
    source: Source | Sequence[str] | str,
    out: Path | str,
    encoder: Encoder,
    method: SemanticDuplicates | None = None,
    *,
    seed: int = 0,
    format: Format = "jsonl.zst",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Drop documents whose vector is nearly parallel to that of one that stays. Holds all vectors, 4·H bytes each.

    Args:
      source: the pool.
      out: folder of the result; ``report/clusters.parquet`` has every document of a group, ``levels.parquet`` how
        many would go at higher thresholds, ``examples.parquet`` the pairs that were nearest to staying, to look at.
      encoder: what makes the vectors; a document without any word it knows is kept.
      method: threshold, parts, which document of a group stays.
      seed: of the first centroids.
      format: of the documents that are kept.
      workers: processes that read; the encoder has threads, or a device, of its own.
      progress: called as progress(stage, done, total).

    Raises:
      DataError: the encoder gave a vector that is no unit vector.
    """
    search = method or SemanticDuplicates()
    work = Curation(
        "dedup",
        source,
        out,
        settings={"semantic": search.model_dump(mode="json")},
        seed=seed,
        format=format,
        workers=workers,
        progress=progress,
    )

    def decide(pool: Pool, _: Path) -> Decided:
        parts = [np.zeros((0, encoder.dim), np.float32)]
        num_done = 0
        for batch in pool.batches(["doc_id", "title", "text"]):
            parts.append(encoded(encoder, joined(batch), batch["doc_id"]))
            num_done += len(batch)
            work.advance("encode", num_done, len(pool))
        return dedup_vectors(pool, np.concatenate(parts), search, seed)

    return work.run(decide, {"encoder": encoder.fingerprint})


def dedup_vectors(pool: Pool, vectors: np.ndarray, search: SemanticDuplicates, seed: int) -> Decided:
    """Find semantic duplicates by vectors float32 [n, H], rows of length 1, or 0 for what cannot be compared."""
    rows = np.flatnonzero(vectors.any(axis=1))
    with threadpool_limits(1):  # the last bits of a product depend on the number of threads
        found = search.find(cast(Corpus, _Rows(pool, rows)), seed=seed, vectors=vectors[rows])  # it reads batches alone
    removed, leads = rows[found.removed], rows[found.representatives]
    kept, scores, lead_of = np.ones(len(pool), bool), np.full(len(pool), np.nan), np.full(len(pool), -1)
    kept[removed] = False
    scores[removed] = found.scores
    lead_of[removed] = leads
    others = pool.doc_ids.take(pa.array(lead_of, mask=kept))
    groups = pc.coalesce(others, pool.doc_ids)
    in_group = np.zeros(len(pool), bool)
    in_group[np.r_[removed, leads]] = True
    clusters = pa.table({"doc_id": pool.doc_ids, "group_id": groups, "is_kept": kept, "cosine": scores})
    return Decided(
        "semantic",
        kept,
        pc.if_else(pa.array(kept), pa.scalar("", TEXT), pa.scalar("semantic_copy", TEXT)),
        scores=scores,
        others=pc.fill_null(others, ""),
        tables={
            "clusters": clusters.filter(pa.array(in_group)),
            "levels": pa.table({"min_cosine": list(found.counts), "num_docs": list(found.counts.values())}),
            "examples": _examples(pool, removed, leads, found.scores),
        },
        figures=_figures(found, search, len(pool) - len(rows), in_group & kept),
        notes=tuple(_notes(pool, kept, len(pool) - len(rows))),
    )


def _examples(pool: Pool, removed: np.ndarray, leads: np.ndarray, scores: np.ndarray) -> pa.Table:
    """Return the dropped documents of lowest cosine beside the ones that stand for them, with their beginnings."""
    worst = np.lexsort((removed, scores))[:_NUM_EXAMPLES]
    columns: dict[str, Any] = {"cosine": scores[worst]}
    for name, rows in (("dropped", removed[worst]), ("kept", leads[worst])):
        documents = pool.take(rows, ["doc_id", "title", "text"]).combine_chunks()
        texts = pa.concat_arrays([pa.array([], TEXT), *(joined(batch) for batch in documents.to_batches())])
        columns |= {
            f"{name}_id": documents["doc_id"],
            f"{name}_text": pc.utf8_slice_codeunits(texts, 0, _EXCERPT_CHARS),
        }
    return pa.table(columns)


def _figures(found: SemanticGroups, search: SemanticDuplicates, num_without: int, leads: np.ndarray) -> dict[str, Any]:
    return {
        "min_cosine": search.min_cosine,
        "num_groups": int(leads.sum()),
        "num_without_vector": num_without,
        "num_clusters": found.num_clusters,
        "num_compared": found.num_compared,
        "lowest_cosine": float(found.scores.min()) if len(found.scores) else 1.0,
        "would_go_at": {f"{level:.2f}": num for level, num in found.counts.items()},
    }


def _notes(pool: Pool, kept: np.ndarray, num_without: int) -> Iterator[str]:
    if not kept.all():
        yield (
            "a cosine verifies nothing: look at report/examples.parquet, the dropped documents that were least like "
            "the ones kept for them, and raise --min-cosine if they are not the same."
        )
    if num_without:
        yield f"{num_without:,} documents hold no word that the encoder knows: kept, compared with nothing."
    sources = pa.concat_arrays([batch["source"] for batch in pool.batches(["source"])])
    counts = pa.table({"source": sources, "gone": (~kept).astype(np.int64)}).group_by("source")
    for row in sorted(counts.aggregate([("gone", "sum"), ("gone", "count")]).to_pylist(), key=lambda r: r["source"]):
        if 2 * row["gone_sum"] > row["gone_count"]:
            yield f"{row['source']}: {row['gone_sum']:,} of {row['gone_count']:,} documents go as semantic copies"
