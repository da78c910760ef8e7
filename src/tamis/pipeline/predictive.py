"""Predictive selection: documents like those on which better models have the lower loss.

Source: Shum et al. 2025, Predictive Data Selection (PreSelect), arXiv:2503.00808.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import Corpus, durable
from tamis.engines.engine import Engine, EngineName
from tamis.errors import DataError, UsageError
from tamis.ingestion.export import Format
from tamis.ingestion.pool import Pool
from tamis.pipeline.curate import decided
from tamis.pipeline.curation import Curated, Curation, Decided, Source
from tamis.pipeline.record import Progress
from tamis.pipeline.tables import read_table
from tamis.selection.classifier import HashedClassifier
from tamis.selection.preselect import Labelled, PreSelect

_MAX_NEGATIVES = 200_000


def preselect(
    source: Source | Sequence[str] | str,
    out: Path | str,
    classifier: HashedClassifier,
    losses: Path | str,
    ability: Mapping[str, float],
    method: PreSelect | None = None,
    *,
    seed: int = 0,
    format: Format = "jsonl.zst",
    attributes: bool = False,
    engine: EngineName = "local",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Label the documents whose losses are known, learn to tell the two labels apart, keep the best of the pool.

    Args:
      source: the pool.
      out: folder of the result; ``report/strength.parquet`` has the labelled documents, ``skipped.parquet`` those
        whose losses are incomplete or that are not in the pool.
      classifier: with its budget; learnt from the positives against the negatives.
      losses: table with doc_id (of documents in the pool, a sample of it), model and bits_per_byte.
      ability: of each model of the table, higher is better.
      method: how documents are labelled.
      seed: of draws within a level of strength, and of the classifier.
      format: of the documents that are kept.
      attributes: write all scores as dolma attributes too.
      engine: "local" or "ray"; the same bytes from both.
      workers: threads, or tasks at the same time.
      progress: called as progress(stage, done, total).

    Raises:
      DataError: the table cannot be read or labels nothing, or no labelled document is in the pool.
      UsageError: an ability of a model that the table does not have.
    """
    chosen = method or PreSelect()
    table = read_table(losses)
    if "model" in table.column_names:
        unknown = sorted(set(ability) - {str(name) for name in pc.unique(table["model"]).to_pylist()})
        if unknown:
            raise UsageError(f"ability of {unknown[0]!r}: no such model in {losses}. Give those of its column model.")
    work = Curation(
        "select",
        source,
        out,
        settings={
            "preselect": chosen.model_dump(mode="json"),
            "classifier": classifier.model_dump(mode="json"),
            "ability": dict(sorted(ability.items())),
        },
        seed=seed,
        format=format,
        attributes=attributes,
        engine=engine,
        workers=workers,
        progress=progress,
    )
    inputs = {"losses": durable.sha256(Path(losses))}
    labelled = chosen.label(table, ability, seed=seed)

    def decide(pool: Pool, _: Path) -> Decided:
        return choose_predictive(pool, classifier, labelled, seed, work.mapper(pool, inputs))

    return work.run(decide, inputs)


def choose_predictive(
    pool: Pool, classifier: HashedClassifier, labelled: Labelled, seed: int, engine: Engine
) -> Decided:
    """Learn from the labelled documents of a pool and choose by the classifier's score.

    Raises:
      DataError: no positive or no negative is in the pool.
    """
    found = pc.index_in(labelled.table["doc_id"].combine_chunks(), value_set=pool.doc_ids)
    rows = np.asarray(pc.fill_null(found, -1))
    labels = labelled.table["label"]
    sides = {}
    for label in ("positive", "negative"):
        is_it = np.asarray(pc.equal(labels, label))
        here = np.sort(rows[is_it & (rows >= 0)])
        if not len(here):
            raise DataError(
                f"losses: none of {int(is_it.sum())} {label} documents is in the pool; its documents are called "
                f"{pool.doc_ids[0].as_py()!r} and so on. Give losses of documents of this pool, by their ids."
            )
        sides[label] = Corpus(table=pool.take(here))
    learner = classifier.model_copy(update={"num_negatives": min(len(sides["negative"]), _MAX_NEGATIVES)})
    negatives = learner.survey(sides["negative"], seed=seed)
    choice = learner.choose(pool, sides["positive"], seed=seed, engine=engine, pool=negatives)
    found = decided("preselect", {"": choice})
    absent = labelled.table.filter(pa.array(rows < 0)).select(["doc_id"])
    reason = pa.array(["not_in_pool"] * len(absent), pa.large_string())
    skipped = pa.concat_tables([labelled.skipped, absent.append_column("reason", reason)])
    figures = dict(found.figures) | {f"label_{name}": value for name, value in labelled.figures.items()}
    figures |= {f"num_{label}s_learnt": len(corpus) for label, corpus in sides.items()}
    strength = labelled.table.filter(pa.array(rows >= 0))
    tables = {"strength": strength, "skipped": skipped, "pairs": _pairs(labelled)}
    notes = (*found.notes, *_notes(labelled, len(absent)))
    return replace(found, figures=figures, tables=tables, notes=notes)


def _pairs(labelled: Labelled) -> pa.Table:
    weaker, abler = zip(*labelled.pairs, strict=True)
    return pa.table({"weaker": pa.array(weaker), "abler": pa.array(abler)})


def _notes(labelled: Labelled, num_absent: int) -> list[str]:
    figures, notes = labelled.figures, []
    if figures["top_frac"] <= figures["top_frac_by_chance"]:
        notes.append(
            f"{figures['top_frac']:.1%} of the documents are at the highest strength, by chance "
            f"{figures['top_frac_by_chance']:.1%} would be: these losses say nothing about the models' abilities."
        )
    if figures["num_skipped"]:
        notes.append(
            f"{figures['num_skipped']:,.0f} documents lack a finite loss of some model: report/skipped.parquet."
        )
    if num_absent:
        notes.append(f"{num_absent:,} documents with losses are not in the pool: report/skipped.parquet.")
    return notes
