"""Auditing a pool: runs what the report cannot run itself (rules, near copies) and hands the figures in.

Source: tamis design (method cards E1 to E3, I2, I5).
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import Qrels, Queries, artefact
from tamis.engines.engine import Engine, EngineName
from tamis.evaluation.audit import Audit, AuditReport, NearDuplicates
from tamis.ingestion.minhash import MinHash
from tamis.ingestion.pool import Pool
from tamis.ingestion.quality import Quality
from tamis.pipeline.cleaning import clean_pool
from tamis.pipeline.curation import TEXT, Curation, Source, as_source
from tamis.pipeline.record import Progress

_LEAST_JACCARD = 0.3  # of distinctive shingles; what counts is the share of same words


def audit(
    source: Source | Sequence[str] | str,
    out: Path | str,
    *,
    target: Source | Sequence[str] | str | None = None,
    queries: Path | str | None = None,
    qrels: Path | str | None = None,
    tokenizers: Mapping[str, Path | str] | None = None,
    near: bool = True,
    seed: int = 0,
    engine: EngineName = "local",
    workers: int = 1,
    progress: Progress | None = None,
) -> AuditReport:
    """Say what is in a pool before anything is learnt from it; writes audit.html, audit.md and audit.json.

    Args:
      source: the pool.
      out: folder of the report.
      target: documents of the kind that is wanted, for the overlap.
      queries: BEIR lines, for the query side.
      qrels: their judgements.
      tokenizers: name -> tokenizer.json, to see how they fit.
      near: look for near copies too (the costliest part).
      seed: of samples.
      engine: "local" or "ray" for the rules and the near copies, the parts that cost; the same bytes from both. The
        report itself, and the check of candidate pairs, are made here in any case.
      workers: threads, or tasks at the same time.
      progress: called as progress(stage, done, total).
    """
    work = Curation("audit", source, out, settings={}, seed=seed, engine=engine, workers=workers, progress=progress)
    with work.opened() as scratch, ExitStack() as stack:
        work.advance("read", 0, None)
        pool = stack.enter_context(work.read())
        wanted = stack.enter_context(as_source(target).open(scratch, workers=1)) if target is not None else None
        asked = Queries.read(Path(queries)) if queries is not None else None
        judged = Qrels.read(Path(qrels)) if qrels is not None else None
        work.advance("audit", 0, len(pool))
        run = work.mapper(pool, {})  # rules and near copies see nothing but the pool
        report = report_on(pool, wanted, asked, judged, tokenizers, near=near, seed=seed, workers=workers, engine=run)
        inputs = {"pool": pool.content}
        work.mark()
        with artefact.stage(work.out / "report", "audit", settings=work.settings, inputs=inputs, seed=seed) as staging:
            report.write(staging)
    return report


def report_on(
    pool: Pool,
    target: Pool | None,
    queries: Queries | None,
    qrels: Qrels | None,
    tokenizers: Mapping[str, Path | str] | None,
    *,
    near: bool,
    seed: int,
    workers: int,
    engine: Engine,
) -> AuditReport:
    """Return the audit of a pool; what would be dropped by default rules and as copies is shown, not dropped."""
    judged = clean_pool(pool, Quality(), None, engine)
    parts = [_dropped(pool, "quality rules", ~judged.kept, judged.reasons)]
    copies = None
    if near:
        found = MinHash(on_wipeout="keep").find(pool, seed=seed, workers=workers, engine=engine)
        gone = np.zeros(len(pool), dtype=bool)
        gone[found.removed] = True
        parts.append(_dropped(pool, "near copies", gone, pa.array(["near_copy"] * len(pool), TEXT)))
        sizes = pc.value_counts(found.group_ids).field("counts").to_numpy()
        copies = NearDuplicates(
            jaccard=_LEAST_JACCARD,
            num_docs=int(sizes[sizes > 1].sum()),
            num_groups=int((sizes > 1).sum()),
            num_removable=len(found.removed),
        )
    return Audit().report(
        pool,
        seed=seed,
        title="What is in this pool",
        target=target,
        queries=queries,
        qrels=qrels,
        decisions=pa.concat_tables(parts),
        near=copies,
        quality=_by_source(pool, judged.kept),
        tokenizers=tokenizers,
    )


def _dropped(pool: Pool, stage: str, gone: np.ndarray, reasons: pa.Array) -> pa.Table:
    rows = pa.array(np.flatnonzero(gone))
    names = pa.array([stage] * len(rows), TEXT)
    return pa.table({"doc_id": pool.doc_ids.take(rows), "stage": names, "reason": reasons.take(rows)})


def _by_source(pool: Pool, kept: np.ndarray) -> pa.Table:
    sources = pa.chunked_array([batch["source"] for batch in pool.batches(["source"])], TEXT).combine_chunks()
    table = pa.table({"source": sources, "failing_frac": (~kept).astype(np.float64)})
    return (
        table.group_by("source")
        .aggregate([("failing_frac", "mean")])
        .rename_columns(["source", "fails the default rules"])
    )
