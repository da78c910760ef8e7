"""Select, dedup, decontaminate: steps over raw files (`clean` and `audit` have files of their own).

Source: tamis design. Each function is one step; see `tamis.pipeline.curation` for what its folder holds.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import Corpus, Queries, durable
from tamis.data.corpus import DOCUMENT_SCHEMA, Documents
from tamis.engines.engine import Engine, EngineName
from tamis.errors import UsageError
from tamis.ingestion.export import Format
from tamis.ingestion.pool import Pool
from tamis.ops.hashing import array_keys
from tamis.ops.text import joined
from tamis.pipeline.curation import TEXT, Curated, Curation, Decided, Source, as_source, paths
from tamis.pipeline.record import Progress

if TYPE_CHECKING:
    from tamis.ingestion.contamination import Findings, Protected
    from tamis.ingestion.decontaminate import Decontaminate
    from tamis.ingestion.minhash import Duplicates, Keep, MinHash
    from tamis.models.encoder import Encoder
    from tamis.selection.choice import Choice
    from tamis.selection.selector import Selector


def select(
    source: Source | Sequence[str] | str,
    out: Path | str,
    selector: "Selector",
    targets: Mapping[str, Source | Sequence[str] | str] | Sequence[str] | str = (),
    *,
    shares: Mapping[str, float] | None = None,
    encoder: "Encoder | None" = None,
    seed: int = 0,
    format: Format = "jsonl.zst",
    attributes: bool = False,
    engine: EngineName = "local",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Keep the part of a pool that is nearest to a target, under a budget.

    Args:
      source: the pool.
      out: folder of the result.
      selector: the method with its budget, as ``DSIR(budget=Budget(frac=.05))``.
      targets: documents of the kind that is wanted, or several such sets by name; `Uniform` needs none.
      shares: of the budget by target; by default their words.
      encoder: for methods that need vectors.
      seed: of random draws.
      format: of the documents that are kept.
      attributes: write all scores as dolma attributes too.
      engine: "local" or "ray"; the same bytes from both.
      workers: threads, or tasks at the same time.
      progress: called as progress(stage, done, total).

    Raises:
      DataError: pool or target refused or empty.
      UsageError: no target for a method that needs one, or a budget too small for any document.
      MissingExtra: engine "ray" without the package ray.
    """
    given = _sources(targets)
    if selector.needs_target and not given:
        raise UsageError(f"{_name(selector)} selects what is like a target: give one with --target, or use uniform.")
    settings = {"selector": selector.model_dump(mode="json"), "shares": dict(shares or {}), "targets": list(given)}
    work = Curation(
        "select",
        source,
        out,
        settings=settings,
        seed=seed,
        format=format,
        attributes=attributes,
        engine=engine,
        workers=workers,
        progress=progress,
    )
    with work.opened() as scratch, ExitStack() as stack:
        opened = {name: stack.enter_context(found.open(scratch, workers=1)) for name, found in given.items()}
        contents = {f"target {name}": pool.content for name, pool in opened.items()}
        contents |= {} if encoder is None else {"encoder": encoder.fingerprint}

        def decide(pool: Pool, _: Path) -> Decided:
            return _selected(selector, pool, opened, shares, encoder, seed, work.mapper(pool, contents))

        return work.run(decide, contents)


def _selected(
    selector: "Selector",
    pool: Pool,
    targets: Mapping[str, Pool],
    shares: Mapping[str, float] | None,
    encoder: "Encoder | None",
    seed: int,
    engine: Engine,
) -> Decided:
    from tamis.selection.targets import choose_for_targets

    if len(targets) > 1 or shares:
        choices = choose_for_targets(selector, pool, targets, shares, encoder, seed=seed, engine=engine)
    else:
        target: Documents = next(iter(targets.values())) if targets else Corpus(table=DOCUMENT_SCHEMA.empty_table())
        name = next(iter(targets), "")
        choices = {name: selector.choose(pool, target, encoder, seed=seed, engine=engine)}
    return decided(_name(selector), choices)


def decided(method: str, choices: "Mapping[str, Choice]") -> Decided:
    """Put the choices for several targets together; they have no document in common."""
    first = next(iter(choices.values()))
    kept = np.any([choice.kept for choice in choices.values()], axis=0)
    scores = np.max([choice.scores for choice in choices.values()], axis=0)
    others = np.full(len(kept), -1)
    for number, choice in enumerate(choices.values()):
        scores = np.where(choice.kept, choice.scores, scores)
        others[choice.kept] = number
    reasons = pc.if_else(pa.array(kept), pa.scalar("", TEXT), pc.fill_null(first.reasons.cast(TEXT), "over_budget"))
    names = pa.array(list(choices), TEXT)
    single = len(choices) == 1
    figures: dict[str, Any] = dict(first.figures) if single else {n: dict(c.figures) for n, c in choices.items()}
    figures |= {"score_quantiles": _quantiles(scores)}
    notes = [note if single else f"{name}: {note}" for name, choice in choices.items() for note in choice.notes]
    return Decided(
        method,
        kept,
        reasons,
        verdict="selected",
        scores=scores,
        others=pc.fill_null(names.take(pa.array(others, mask=others < 0)), ""),
        figures=figures,
        notes=tuple(notes),
    )


def _quantiles(scores: np.ndarray) -> dict[str, float]:
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return {}
    return {str(q): float(np.quantile(finite, q)) for q in (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)}


def dedup(
    source: Source | Sequence[str] | str,
    out: Path | str,
    method: "MinHash | None" = None,
    *,
    against: Source | Sequence[str] | str | None = None,
    keep: "Keep" = "longest",
    seed: int = 0,
    format: Format = "jsonl.zst",
    engine: EngineName = "local",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Drop exact and verified near copies; with ``against`` only what is in there too.

    Args:
      source: the pool.
      out: folder of the result; ``report/clusters.parquet`` has every document of a group.
      method: settings of the search.
      against: another pool; nothing is removed from it.
      keep: which document of a group stays: "longest" or "first" by id.
      seed: of the samples and hash functions.
      format: of the documents that are kept.
      engine: "local" or "ray" for the passes over all texts; the same bytes from both. Candidate pairs are checked
        on threads here in any case: that reads texts in no order.
      workers: threads, or tasks at the same time.
      progress: called as progress(stage, done, total).

    Raises:
      DataError: a source would lose more than the method allows; look at the pairs it names.
    """
    from tamis.ingestion.minhash import MinHash

    search = method or MinHash()
    other = as_source(against) if against is not None else None
    settings = {"minhash": search.model_dump(mode="json"), "keep": keep, "against": other is not None}
    work = Curation(
        "dedup",
        source,
        out,
        settings=settings,
        seed=seed,
        format=format,
        engine=engine,
        workers=workers,
        progress=progress,
    )
    with work.opened() as scratch, ExitStack() as stack:
        fixed = stack.enter_context(other.open(scratch, workers=workers)) if other is not None else None
        contents = {} if fixed is None else {"against": fixed.content}

        def decide(pool: Pool, folder: Path) -> Decided:
            run = work.mapper(pool, contents)
            found = search.find(pool, seed=seed, against=fixed, keep=keep, workers=workers, scratch=folder, engine=run)
            return _copies(pool, fixed, found)

        return work.run(decide, contents)


def _copies(pool: Pool, fixed: Pool | None, found: "Duplicates") -> Decided:
    kept = np.ones(len(pool), dtype=bool)
    kept[found.removed] = False
    keys = _keys(pool)
    same = keys[found.removed] == (keys if fixed is None else _keys(fixed))[found.representatives]
    codes = np.zeros(len(pool), dtype=np.int64)
    codes[found.removed] = np.where(same, 1, 2)
    scores = np.full(len(pool), np.nan)
    scores[found.removed] = found.scores
    others = np.full(len(pool), -1)
    others[found.removed] = np.arange(len(found.removed))
    sizes = pc.value_counts(found.group_ids)
    shared = sizes.field("values").filter(pc.greater(sizes.field("counts"), 1))
    grouped = pc.is_in(found.group_ids, value_set=shared) if fixed is None else pa.array(~kept)
    clusters = pa.table(
        {"doc_id": pool.doc_ids, "group_id": found.group_ids, "is_kept": kept, "same_words_frac": scores}
    ).filter(grouped)
    figures: dict[str, Any] = {
        "num_exact": found.num_exact,
        "num_candidates": found.num_candidates,
        "num_candidates_cut": found.num_cut,
        "num_without_text": found.num_without_text,
        "largest_bucket": found.largest_bucket,
        "rejections": found.rejections,
        "groups_by_size": {str(size): num for size, num in found.group_sizes.items()},
        "chance_of_candidate_by_jaccard": {str(j): p for j, p in found.curve.items()},
    }
    return Decided(
        "minhash",
        kept,
        pa.array(["", "exact_copy", "near_copy"], TEXT).take(pa.array(codes)),
        scores=scores,
        others=pc.fill_null(found.representative_ids.cast(TEXT).take(pa.array(others, mask=others < 0)), ""),
        tables={"clusters": clusters, "sources": found.sources},
        figures=figures,
    )


def _keys(pool: Documents) -> np.ndarray:
    parts = [array_keys(joined(batch)) for batch in pool.batches(["title", "text"])]
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def decontaminate(
    source: Source | Sequence[str] | str,
    out: Path | str,
    queries: Path | str,
    method: "Decontaminate | None" = None,
    *,
    positives: Source | Sequence[str] | str | None = None,
    seed: int = 0,
    format: Format = "jsonl.zst",
    engine: EngineName = "local",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Drop documents that hold a protected query, or a judged answer where ``positives`` are given.

    Args:
      source: the pool.
      out: folder of the result; ``report/hits.parquet``, ``suppressed_common.parquet``, ``unprotectable.parquet``
        say what was found, what was common and so not counted, and what cannot be protected.
      queries: BEIR lines of the test queries.
      method: settings.
      positives: documents that no training text may hold; not those of the collection that is searched.
      seed: of the sample for common n-grams.
      format: of the documents that are kept.
      engine: "local" or "ray"; the same bytes from both.
      workers: threads, or tasks at the same time.
      progress: called as progress(stage, done, total).
    """
    from tamis.ingestion.contamination import Protected
    from tamis.ingestion.decontaminate import Decontaminate

    chosen = method or Decontaminate()
    protected = Queries.read(Path(queries))
    work = Curation(
        "decontaminate",
        source,
        out,
        settings={"decontaminate": chosen.model_dump(mode="json")},
        seed=seed,
        format=format,
        engine=engine,
        workers=workers,
        progress=progress,
    )
    inputs = {"queries": durable.sha256(Path(queries))}
    with work.opened() as scratch:
        answers = None
        if positives is not None:
            with as_source(positives).open(scratch, workers=1) as given:
                inputs["positives"] = given.content
                answers = Corpus(table=pa.Table.from_batches(given.batches(), schema=DOCUMENT_SCHEMA))
        protect = Protected.of(protected, answers)

        def decide(pool: Pool, _: Path) -> Decided:
            found = chosen.find(pool, seed=seed, protect=protect, workers=workers, engine=work.mapper(pool, inputs))
            return _contaminated(chosen, protect, found)

        return work.run(decide, inputs)


def _contaminated(method: "Decontaminate", protect: "Protected", found: "Findings") -> Decided:
    hit = found.is_contaminated
    drop = hit if method.action == "drop" else np.zeros_like(hit)
    items = protect.items.take(pa.array(np.maximum(found.item, 0)))
    kinds = items["kind"].combine_chunks().cast(TEXT)
    reasons = pc.binary_join_element_wise(pa.scalar("contains", TEXT), kinds, pa.scalar("_", TEXT))
    others = pc.if_else(pa.array(hit), items["item_id"].combine_chunks(), pa.scalar("", TEXT))
    figures = {
        "num_protected": len(protect.items),
        "num_contaminated": int(hit.sum()),
        "num_items_found": len(np.unique(found.item[hit])),
        "num_unprotectable": len(found.unprotectable),
        "num_suppressed_common": len(found.suppressed_common),
        "num_hash_collisions": found.num_collisions,
    }
    marked = (f"{int(hit.sum())} documents hold a protected item and are kept: action is mark.",)
    return Decided(
        "decontaminate",
        ~drop,
        pc.if_else(pa.array(hit), reasons, pa.scalar("", TEXT)),
        scores=np.where(hit, found.coverage, np.nan),
        others=others,
        tables={
            "hits": found.hits,
            "suppressed_common": found.suppressed_common,
            "unprotectable": found.unprotectable,
        },
        figures=figures,
        notes=marked if method.action == "mark" and hit.any() else (),
    )


def _sources(targets: Mapping[str, Source | Sequence[str] | str] | Sequence[str] | str) -> dict[str, Source]:
    if isinstance(targets, Mapping):
        return {name: as_source(value) for name, value in targets.items()}
    listed = paths(targets)
    return {"target": Source(listed)} if listed else {}


def _name(selector: "Selector") -> str:
    return str(selector.model_dump().get("method", type(selector).__name__))
