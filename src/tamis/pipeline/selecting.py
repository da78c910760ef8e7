"""Select: which documents of a corpus are learned from. The index holds all of them all the same.

Source: tamis design: cheap before expensive (copies, rules, nearness to a target), a reason for each one left out.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.data import Corpus
from tamis.data.artefact import Staging
from tamis.data.subset import Subset
from tamis.engines.threads import map_threads
from tamis.ingestion.minhash import MinHash
from tamis.ingestion.quality import Quality
from tamis.pipeline.curation import Decided, Source
from tamis.recipe import Select
from tamis.selection.budget import Budget
from tamis.selection.names import named

TEXT = pa.large_string()
_DOCUMENTS = "documents.parquet"
_TEMPLATE_FRAC = 0.9
"""A source of which more are near copies is made of one template."""


@dataclass(frozen=True)
class Learned:
    """What was decided about the D documents of a corpus.

    Attributes:
      kept: bool [D], whether a document is learned from.
      reasons: object [D], "" where kept.
      others: object [D], id of the near copy that is learned from instead, or "".
      scores: float64 [D], nearness to the target, share of same words of a near copy, or NaN.
      group_ids: D ids: of the document that stands for each group of near copies, a document's own without.
      figures: what the methods measured.
      notes: sentences a reader should see.
    """

    kept: np.ndarray
    reasons: np.ndarray
    others: np.ndarray
    scores: np.ndarray
    group_ids: pa.Array
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def everything(cls, documents: Corpus) -> "Learned":
        """Return the decision that leaves nothing out."""
        size = len(documents)
        empty = np.full(size, "", dtype=object)
        return cls(np.ones(size, bool), empty, empty.copy(), np.full(size, np.nan), documents.doc_ids)

    def decided(self) -> Decided:
        """Return the decisions for the ledger."""
        reasons, others = pa.array(self.reasons, TEXT), pa.array(self.others, TEXT)
        return Decided("select", self.kept, reasons, verdict="selected", scores=self.scores, others=others)

    def counts(self) -> dict[str, int]:
        """Return documents kept, and those left out by reason."""
        names, sizes = np.unique(self.reasons[~self.kept].astype(str), return_counts=True)
        gone = {f"dropped_{name}": int(size) for name, size in zip(names, sizes, strict=True)}
        return {"documents": int(self.kept.sum())} | gone

    def write(self, staging: Staging, doc_ids: pa.Array) -> None:
        """Write documents.parquet (doc_id, is_kept, group_id) and report.json."""
        table = pa.table({"doc_id": doc_ids, "is_kept": self.kept, "group_id": self.group_ids})
        with staging.create(_DOCUMENTS) as sink:
            pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        facts = {"counts": self.counts(), "figures": self.figures, "notes": self.notes}
        options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
        staging.write_bytes("report.json", orjson.dumps(facts, option=options) + b"\n")
        staging.counts |= self.counts()


def read_kept(folder: Path) -> np.ndarray:
    """Return bool [D], which documents are learned from, of an artefact that was verified."""
    return np.asarray(pq.read_table(folder / _DOCUMENTS, columns=["is_kept"])["is_kept"], dtype=bool)


def learned_from(units: Corpus, documents: Corpus, kept: np.ndarray) -> Corpus:
    """Return the documents that are learned from, or the passages of those, as a view of ``units``."""
    if kept.all():
        return units
    if not units.is_passages:
        return Subset(units, kept)
    parents = [documents.rows_of(batch.column(0)) for batch in units.batches(["parent_doc_id"])]
    return Subset(units, kept[np.concatenate([np.zeros(0, np.int64), *parents])])


def choose(
    documents: Corpus,
    settings: Select,
    *,
    seed: int,
    workers: int = 1,
    scratch: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Learned:
    """Decide what is learned from: near copies, then rules, then nearness to a target. About 50 MB/s a core.

    Args:
      documents: of the corpus.
      settings: of the stage.
      seed: of samples and draws.
      workers: threads; the result is the same for any number.
      scratch: folder for a temporary file where a corpus has more than 200,000 documents.
      progress: called with the name of each step.

    Raises:
      DataError: a target that is refused or has no words.
      UsageError: a budget too small for any document.
    """
    found = Learned.everything(documents)
    twins = leads = np.zeros(0, np.int64)
    tell = progress or (lambda _: None)
    if settings.near_copies:
        tell("near copies")
        found, twins, leads = _without_copies(documents, found, settings, seed, workers, scratch)
    if settings.quality != "off":
        tell("rules")
        _judge(documents, found, Quality(preset=settings.quality), workers)
    if settings.budget is not None:
        tell("target")
        _to_target(documents, found, settings, seed, workers)
    for values in (found.kept, found.reasons, found.others, found.scores):
        values[twins] = values[leads]
    return found


def _without_copies(
    documents: Corpus, found: Learned, settings: Select, seed: int, workers: int, scratch: Path | None
) -> tuple[Learned, np.ndarray, np.ndarray]:
    """Leave out all but one of each group of copies; also return the rows of exact copies, and whose fate they share.

    Queries know how to treat documents of equal text.
    """
    # pages of one template are a kind of page, not a mistake: a build learns from all of them
    search = MinHash(
        min_same_words_frac=settings.min_same_words_frac,
        max_source_removed_frac=_TEMPLATE_FRAC,
        on_wipeout="keep",
    )
    copies = search.find(documents, seed=seed, workers=workers, scratch=scratch)
    found.kept[copies.removed] = False
    found.reasons[copies.removed] = "near_copy"
    found.others[copies.removed] = copies.representative_ids.to_pylist()
    found.scores[copies.removed] = copies.scores
    protected = copies.sources.filter(pc.greater(copies.sources["protected"], 0)).select(["source", "protected"])
    notes = [
        f"{row['source']}: {row['protected']:,} near copies are learned from all the same: "
        f"without them the source would lose more than {_TEMPLATE_FRAC:.0%}."
        for row in protected.to_pylist()
    ]
    figures = {"near_copies": {"candidates": copies.num_candidates, "rejections": copies.rejections}}
    group_ids = copies.group_ids.cast(TEXT)
    column = documents.table(["group_id"])["group_id"].combine_chunks()
    codes = np.asarray(column.dictionary_encode().indices)
    is_twin = codes[copies.removed] == codes[copies.representatives]
    told = Learned(found.kept, found.reasons, found.others, found.scores, group_ids, figures, found.notes + notes)
    return told, copies.removed[is_twin], copies.representatives[is_twin]


def _judge(documents: Corpus, found: Learned, rules: Quality, workers: int) -> None:
    """Leave out what fails a rule."""
    judged = map_threads(partial(_first_faults, rules), documents.batches(["text"]), workers=workers)
    faults = np.array([fault for part in judged for fault in part], dtype=object)
    failed = found.kept & (faults != "")
    found.reasons[failed] = faults[failed]
    found.kept[failed] = False


def _first_faults(rules: Quality, batch: pa.RecordBatch) -> list[str]:
    return rules.judge(batch["text"]).first()


def _to_target(documents: Corpus, found: Learned, settings: Select, seed: int, workers: int) -> None:
    """Leave out what does not fit the budget; documents of the target itself stay."""
    rest = Subset(documents, found.kept.copy())
    rows = np.flatnonzero(found.kept)
    selector = named(settings.by if settings.targets else "uniform", Budget.parse(settings.budget or ""))
    engine = partial(map_threads, workers=workers)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tamis-target-")))
        target: Any = Subset(documents, np.zeros(len(documents), bool))
        if settings.targets:
            target = stack.enter_context(Source(settings.targets).open(scratch, workers=1))
        choice = selector.choose(rest, target, seed=seed, engine=engine)
    reasons = np.array(choice.reasons.cast(TEXT).fill_null("").to_pylist(), dtype=object)
    gone = ~choice.kept & (reasons != "in_target")
    found.kept[rows[gone]] = False
    found.reasons[rows[gone]] = reasons[gone]
    found.scores[rows] = np.where(np.isfinite(choice.scores), choice.scores, np.nan)
    found.figures["target"] = dict(choice.figures)
    found.notes.extend(choice.notes)
