"""Slices: what the filters did to whom, and where an engine is good or bad.

Source: Longpre et al. 2023, A Pretrainer's Guide to Training Data, arXiv:2305.13169 (slices by age, source, quality;
the age warning); Kandpal et al. 2023, arXiv:2211.08411 (head, torso, tail); Wilson 1927 (interval). Method card E2.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data import Qrels, Run
from tamis.data.corpus import Documents
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.evaluation.corpus_report import day_at
from tamis.evaluation.document_dates import NO_DATE, iso_day, parse_day
from tamis.evaluation.query_slices import QuerySlice, query_slices
from tamis.evaluation.slicing import Kind, SlicedDocuments, by_quantiles, largest_first
from tamis.ops.hashing import array_keys

DROPPING = ("dropped", "rejected", "grouped")
LENGTH_EDGES = (50, 100, 200, 500, 1000, 5000)
MAX_GAP_DAYS = 365
MIN_NEAR_FRAC = 0.2
_Z = 1.959963984540054


class DropCount(Settings):
    """Documents that one stage dropped for one reason."""

    stage: str
    reason: str
    num_docs: int


class SliceRow(Settings):
    """What happened to the documents of one slice.

    Attributes:
      kind: "source", "language", "age", "length", "quality"; ``name`` the slice.
      num_docs: documents in; ``num_words`` their words; ``num_dropped`` of them dropped by any stage.
      drop_frac: dropped / in, with its Wilson interval ``low`` to ``high``.
      ratio: drop_frac / that of the whole pool; 0 where nothing was dropped. Its interval is low to high over the same.
      mean_score: of the documents with a score; None where there are none.
      flagged: more than twice the pool's rate, more than half of the slice, and beyond chance.
      drops: by stage and reason, most first; a document may stand under several.
    """

    kind: str
    name: str
    num_docs: int
    num_words: int
    num_dropped: int
    drop_frac: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    mean_score: float | None
    flagged: bool
    drops: tuple[DropCount, ...]


class Ablation(Settings):
    """The run with one filter off: what it would keep. For planning experiments, not a claim.

    Attributes:
      num_docs: documents that only this filter dropped; ``num_words`` their words.
      num_kept_words: words of everything kept if the filter were off.
    """

    stage: str
    reason: str
    num_docs: int
    num_words: int
    num_kept_words: int


class AgeCheck(Settings):
    """Dates of the documents against dates of the queries.

    Attributes:
      median_docs: ISO 8601; ``median_queries`` likewise.
      gap_days: median of the queries minus median of the documents.
      near_frac: share of the dated documents within 365 days of the queries' median.
      warned: the gap is over 365 days, or the share under 20 %.
    """

    median_docs: str
    median_queries: str
    num_docs: int
    num_queries: int
    gap_days: int
    near_frac: float
    warned: bool


class SliceFacts(Settings):
    """All slices.

    Attributes:
      num_docs: documents of the pool; ``num_dropped`` of them dropped by any decision.
      num_kept_words: words of the documents that were not dropped.
      num_strangers: dropped ids of the decisions that are not in the pool (rejected lines, another pool).
      rows: by kind; slices of one kind add up to the pool. Intervals are not corrected for their number.
      queries: measures by slice of the queries, where runs were given.
    """

    num_docs: int
    num_dropped: int
    num_kept_words: int
    num_strangers: int
    rows: tuple[SliceRow, ...]
    ablations: tuple[Ablation, ...] = ()
    age: AgeCheck | None = None
    queries: tuple[QuerySlice, ...] = ()


class Slices(Settings):
    """Cut the pool by source, language, age, length and quality, and compare the slices.

    Attributes:
      num_slices: sources shown; the others stand together.
      max_ratio: a drop rate this many times the pool's can be flagged.
      max_frac: a drop rate over this can be flagged; both must hold.
      min_docs: slices with fewer documents are shown, never flagged.
      min_queries: query slices with fewer are shown as few.
      draws: of the bootstrap.
      date_field: metadata field that declares a document's date.
    """

    method: Literal["slices"] = "slices"
    num_slices: Annotated[int, Field(ge=1)] = 20
    max_ratio: Annotated[float, Field(ge=1)] = 2.0
    max_frac: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_docs: Annotated[int, Field(ge=1)] = 20
    min_queries: Annotated[int, Field(ge=1)] = 30
    draws: Annotated[int, Field(ge=100, le=100_000)] = 1000
    date_field: Annotated[str, Field(min_length=1)] = "date"

    def report(
        self,
        corpus: Documents,
        decisions: pa.Table | None = None,
        runs: Mapping[str, Run] | None = None,
        qrels: Qrels | None = None,
        *,
        seed: int,
        scores: pa.Table | None = None,
        query_dates: Sequence[str] = (),
        coverage: Mapping[str, str] | None = None,
    ) -> SliceFacts:
        """Read the pool once, about 90 MB/s a core; about 30 bytes a document are held.

        Args:
          corpus: everything that went in, before the first filter.
          decisions: columns doc_id and reason; ``stage`` and ``decision`` where there are several (a ledger's columns).
            Rows of another decision than dropped, rejected or grouped are passed over.
          runs: name -> run; only together with qrels.
          qrels: judgements of the runs.
          seed: of the bootstrap.
          scores: columns doc_id and score, for mean scores and quality quintiles.
          query_dates: ISO 8601 dates of queries, for the age warning.
          coverage: query id -> class, as `QueryCoverage.classes` gives it.

        Raises:
          DataError: a column is missing, an id is scored twice, or a query date cannot be read.
        """
        documents = SlicedDocuments.read(corpus, self.date_field)
        drops = _Drops.of(documents, decisions)
        score_D = _scores(documents, scores)
        kinds = list(self._kinds(documents, score_D))
        rows = [row for kind in kinds for row in self._rows(kind, documents, drops, score_D)]
        kept = int(documents.words[~drops.dropped].sum())
        return SliceFacts(
            num_docs=len(documents.words),
            num_dropped=int(drops.dropped.sum()),
            num_kept_words=kept,
            num_strangers=drops.num_strangers,
            rows=tuple(rows),
            ablations=drops.ablations(documents.words, kept),
            age=age_check(documents.days, query_dates),
            queries=query_slices(
                runs or {}, qrels, kinds, documents.rows_of, coverage or {}, self.min_queries, self.draws, seed
            ),
        )

    def _kinds(self, documents: SlicedDocuments, score_D: np.ndarray | None) -> list[Kind]:
        kinds = [largest_first("source", documents.sources, documents.source_names, self.num_slices)]
        kinds.append(largest_first("language", documents.languages, documents.language_names, self.num_slices))
        dated = documents.days != NO_DATE
        if dated.any():
            kinds.append(
                by_quantiles(
                    "age", np.where(dated, documents.days, np.nan), 4, "no date", lambda day: iso_day(int(day))
                )
            )
        places = np.searchsorted(LENGTH_EDGES, documents.words, side="right")
        ends = [0, *LENGTH_EDGES]
        names = [f"{a:,}–{b - 1:,} words" for a, b in itertools.pairwise(ends)] + [f"{ends[-1]:,} words and more"]
        kinds.append(Kind("length", places, tuple(names)))
        if score_D is not None and not np.isnan(score_D).all():
            kinds.append(by_quantiles("quality", score_D, 5, "no score", lambda value: f"{value:.4g}"))
        return kinds

    def _rows(
        self, kind: Kind, documents: SlicedDocuments, drops: "_Drops", score_D: np.ndarray | None
    ) -> list[SliceRow]:
        num = len(kind.names)
        docs = np.bincount(kind.codes, minlength=num)
        words = np.bincount(kind.codes, weights=documents.words, minlength=num)
        dropped = np.bincount(kind.codes[drops.dropped], minlength=num)
        by_reason = np.zeros((num, max(1, len(drops.reasons))), np.int64)
        np.add.at(by_reason, (kind.codes[drops.pair_rows], drops.pair_reasons), 1)
        whole = int(drops.dropped.sum()) / max(1, len(drops.dropped))
        rows = []
        for place in np.flatnonzero(docs).tolist():
            n, k = int(docs[place]), int(dropped[place])
            frac = k / n
            low, high = wilson(k, n)
            ratios = [value / whole if whole else 0.0 for value in (frac, low, high)]
            flagged = frac > self.max_frac and ratios[0] > self.max_ratio and low > whole and n >= self.min_docs
            rows.append(
                SliceRow(
                    kind=kind.kind,
                    name=kind.names[place],
                    num_docs=n,
                    num_words=int(words[place]),
                    num_dropped=k,
                    drop_frac=frac,
                    low=low,
                    high=high,
                    ratio=ratios[0],
                    ratio_low=ratios[1],
                    ratio_high=ratios[2],
                    mean_score=_mean(score_D[kind.codes == place]) if score_D is not None else None,
                    flagged=flagged,
                    drops=_drop_counts(drops.reasons, by_reason[place]),
                )
            )
        return rows


@dataclass(frozen=True, eq=False)
class _Drops:
    dropped: np.ndarray  # bool [D]
    pair_rows: np.ndarray  # document and
    pair_reasons: np.ndarray  # reason of each different pair
    reasons: tuple[tuple[str, str], ...]  # (stage, reason)
    num_strangers: int

    @classmethod
    def of(cls, documents: SlicedDocuments, decisions: pa.Table | None) -> "_Drops":
        num = len(documents.words)
        if decisions is None:
            empty = np.zeros(0, np.int64)
            return cls(np.zeros(num, bool), empty, empty, (), 0)
        table = dropping(decisions)
        rows = documents.rows_of(table["doc_id"])
        listed = list(zip(table["stage"].to_pylist(), table["reason"].to_pylist(), strict=True))
        reasons = sorted(set(listed))
        places = {reason: place for place, reason in enumerate(reasons)}
        codes = np.fromiter((places[reason] for reason in listed), np.int64, len(listed))
        known = rows >= 0
        pairs = np.unique(rows[known] * max(1, len(reasons)) + codes[known])
        pair_rows, pair_reasons = np.divmod(pairs, max(1, len(reasons)))
        dropped = np.zeros(num, bool)
        dropped[pair_rows] = True
        strangers = len(np.unique(array_keys(table["doc_id"])[~known]))
        return cls(dropped, pair_rows, pair_reasons, tuple(reasons), strangers)

    def ablations(self, words: np.ndarray, kept: int) -> tuple[Ablation, ...]:
        times = np.bincount(self.pair_rows, minlength=len(words))
        alone = times[self.pair_rows] == 1
        docs = np.bincount(self.pair_reasons[alone], minlength=len(self.reasons))
        found = np.bincount(self.pair_reasons[alone], weights=words[self.pair_rows[alone]], minlength=len(self.reasons))
        return tuple(
            Ablation(
                stage=s, reason=r, num_docs=int(docs[i]), num_words=int(found[i]), num_kept_words=kept + int(found[i])
            )
            for i, (s, r) in enumerate(self.reasons)
        )


def dropping(decisions: pa.Table) -> pa.Table:
    """Return doc_id, stage and reason of the rows that drop a document.

    Raises:
      DataError: no column doc_id or reason.
    """
    for name in ("doc_id", "reason"):
        if name not in decisions.column_names:
            raise DataError(
                f"decisions: no column {name!r} (has: {', '.join(decisions.column_names)}). "
                "Give what a sieve dropped, or a ledger's rows."
            )
    text = pa.large_string()
    table = decisions
    if "decision" in table.column_names:
        table = table.filter(pc.is_in(table["decision"].cast(text), pa.array(DROPPING, text)))
    blank = pa.chunked_array([pa.array([""] * len(table), text)])
    stage = table["stage"].cast(text) if "stage" in table.column_names else blank
    columns = {"doc_id": table["doc_id"].cast(text), "stage": stage, "reason": table["reason"].cast(text)}
    return pa.table({name: pc.fill_null(column, "") for name, column in columns.items()})


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share; (0, 1) for no trials."""
    if not total:
        return 0.0, 1.0
    frac, z2 = count / total, _Z * _Z
    middle = (frac + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z / (1 + z2 / total) * math.sqrt(frac * (1 - frac) / total + z2 / (4 * total * total))
    return (max(0.0, middle - half) if count else 0.0), (min(1.0, middle + half) if count < total else 1.0)


def age_check(days: np.ndarray, query_dates: Sequence[str]) -> AgeCheck | None:
    """Compare documents' days (int32, NO_DATE where unknown) with queries' dates; None where either has none.

    Raises:
      DataError: a query date is not ISO 8601.
    """
    read = [parse_day(value) for value in query_dates]
    if None in read:
        wrong = query_dates[read.index(None)]
        raise DataError(f"query date {wrong!r}: expected ISO 8601 as 2024-05-31, 2024-05 or 2024.")
    queries = np.sort(np.array(read, np.int64))
    dated = np.sort(days[days != NO_DATE].astype(np.int64))
    if not len(queries) or not len(dated):
        return None
    median_queries, median_docs = (day_at(v, np.ones(len(v), np.int64), 0.5) for v in (queries, dated))  # type: ignore[arg-type]
    gap = median_queries - median_docs
    near = int((np.abs(dated - median_queries) <= MAX_GAP_DAYS).sum()) / len(dated)
    return AgeCheck(
        median_docs=iso_day(median_docs),
        median_queries=iso_day(median_queries),
        num_docs=len(dated),
        num_queries=len(queries),
        gap_days=gap,
        near_frac=near,
        warned=abs(gap) > MAX_GAP_DAYS or near < MIN_NEAR_FRAC,
    )


def _scores(documents: SlicedDocuments, scores: pa.Table | None) -> np.ndarray | None:
    if scores is None:
        return None
    for name in ("doc_id", "score"):
        if name not in scores.column_names:
            raise DataError(
                f"scores: no column {name!r} (has: {', '.join(scores.column_names)}). Give doc_id and score."
            )
    values = np.full(len(documents.words), np.nan)
    rows = documents.rows_of(scores["doc_id"])
    found = rows[rows >= 0]
    if len(np.unique(found)) != len(found):
        raise DataError("scores: a document has more than one score. Give one row a document.")
    values[found] = scores["score"].cast(pa.float64()).to_numpy()[rows >= 0]
    return values


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return math.fsum(known.tolist()) / len(known) if len(known) else None


def _drop_counts(reasons: Sequence[tuple[str, str]], counts: np.ndarray) -> tuple[DropCount, ...]:
    order = sorted((place for place in range(len(reasons)) if counts[place]), key=lambda place: (-counts[place], place))
    return tuple(DropCount(stage=reasons[p][0], reason=reasons[p][1], num_docs=int(counts[p])) for p in order)
