"""Corpus report: what a pool holds, before anything is spent on it.

Source: Eronen et al. 2021 (feature density); tamis design for the counts (method cards E1 and K8).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data import Queries
from tamis.data.corpus import Documents
from tamis.data.settings import Settings
from tamis.evaluation.coverage import QueryCoverage, QueryFacts
from tamis.evaluation.density import (
    FeatureDensity,
    feature_densities,
    heaps_exponent,
    mattr,
    vocabulary_growth,
    words_of,
)
from tamis.evaluation.document_dates import NO_DATE, document_days, iso_day
from tamis.evaluation.keyed_sample import KeyCounts, KeyedSample, pieces
from tamis.evaluation.sources import SourceCounter, SourceFacts
from tamis.evaluation.statistics import OTHERS, CorpusStatistics, Count
from tamis.ops.bytes import token_hashes
from tamis.ops.hashing import array_keys
from tamis.ops.language import UNKNOWN, document_languages, dominant_language
from tamis.ops.text import joined

COLUMNS = ["doc_id", "title", "text", "source", "metadata", "group_id"]
MIN_LINE_CHARS = 20
MIN_LINE_DOCS = 3
MAX_LINE_CHARS = 160
SNIPPET_CHARS = 160
_NUM_GROUPS = 5
_NUM_LINES = 10
_GROWTH = (10_000, 100_000, 1_000_000)


class CopyGroup(Settings):
    """A text that stands in the corpus more than once; ``doc_id`` is the first of its documents in byte order."""

    num_docs: int
    doc_id: str
    text: str


class Duplicates(Settings):
    """Documents whose title and text are equal to another's, by 64-bit content hash.

    Attributes:
      num_distinct: different contents; ``num_copies`` documents beyond the first of each content.
      num_groups: contents that occur more than once.
      counted_frac: share of the contents that was counted; below 1 the three figures are estimates.
      largest: the most frequent of the contents counted.
    """

    num_distinct: int
    num_copies: int
    num_groups: int
    counted_frac: float
    largest: tuple[CopyGroup, ...]


class Dates(Settings):
    """Dates of the documents, ISO 8601; None where no document has one.

    Attributes:
      field: the metadata field read.
      num_dated: documents with a date; ``num_missing`` without, ``num_unreadable`` of these with another value.
      years: documents by year, ascending.
    """

    field: str
    num_dated: int
    num_missing: int
    num_unreadable: int
    first: str | None = None
    p25: str | None = None
    median: str | None = None
    p75: str | None = None
    last: str | None = None
    years: tuple[Count, ...] = ()


class RepeatedLines(Settings):
    """Lines of 20 characters and more that stand in three or more documents of the sample.

    Attributes:
      num_docs: documents of the sample; ``num_lines`` different lines that repeat.
      repeated_frac: share of the sample's characters in repeated lines.
      top: the lines in most documents, cut at 160 characters.
    """

    num_docs: int
    num_lines: int
    repeated_frac: float
    top: tuple[Count, ...]


class Sampled(Settings):
    """Figures of a keyed sample of different texts.

    Attributes:
      num_docs: documents in the sample, the last one cut where the words were enough.
      num_tokens: words that ``densities`` is measured on.
      language: whose stems and stop words were used.
      densities: unique features / all features.
      mattr: share of different words in ``window`` neighbouring ones.
      growth: (words, different words); ``heaps_exponent`` its slope in logarithms.
      lines: repeated lines.
    """

    num_docs: int
    num_tokens: int
    language: str | None
    densities: tuple[FeatureDensity, ...]
    mattr: float
    window: int
    growth: tuple[tuple[int, int], ...]
    heaps_exponent: float | None
    lines: RepeatedLines


class CorpusFacts(Settings):
    """What is in a pool: see the parts.

    Attributes:
      languages: documents by ISO 639-1 code, "und" those that could not be told.
      scripts: documents by ISO 15924 code of most of their letters, "Zyyy" those without a letter.
    """

    num_bytes: int
    statistics: CorpusStatistics
    languages: tuple[Count, ...]
    scripts: tuple[Count, ...]
    sources: tuple[SourceFacts, ...]
    duplicates: Duplicates
    dates: Dates
    sample: Sampled
    queries: QueryFacts | None = None


class CorpusReport(Settings):
    """Count a pool and sample it; the same figures for any order of documents and any batches.

    Attributes:
      sample_tokens: words for the feature densities; the card has 100,000.
      growth_tokens: words of the sample for the growth of the vocabulary and the repeated lines.
      window: words in a window of the moving-average type-token ratio.
      max_keys: different contents counted exactly; of more, a keyed share.
      num_sources: sources shown, the others as one.
      date_field: metadata field that declares a document's date (ISO 8601).
    """

    method: Literal["corpus_report"] = "corpus_report"
    sample_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    growth_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    window: Annotated[int, Field(ge=1)] = 500
    max_keys: Annotated[int, Field(ge=1)] = 4_000_000
    num_sources: Annotated[int, Field(ge=1)] = 20
    date_field: Annotated[str, Field(min_length=1)] = "date"

    def report(self, corpus: Documents, queries: Queries | None = None, *, seed: int) -> CorpusFacts:
        """Read the corpus once, or twice where texts repeat. About 30 MB/s a core; memory does not grow with the texts.

        Args:
          corpus: any documents.
          queries: for the query side; None leaves it out.
          seed: of the samples.

        Raises:
          DataError: a document's metadata is no JSON object.
        """
        counter = _Pass(self, seed)
        statistics = CorpusStatistics.of_batches(counter.watch(corpus.batches(COLUMNS)))
        duplicates = counter.duplicates(corpus)
        sample = counter.sampled()
        found = None
        if queries is not None and len(queries):
            found = QueryCoverage(queries, sample.language).read(corpus).facts()
        return CorpusFacts(
            num_bytes=counter.num_bytes,
            statistics=statistics,
            languages=counter.ranked(counter.languages),
            scripts=counter.ranked(counter.scripts),
            sources=counter.sources.facts(self.num_sources),
            duplicates=duplicates,
            dates=counter.dates(),
            sample=sample,
            queries=found,
        )


class _Pass:
    """Everything that one pass collects."""

    def __init__(self, settings: CorpusReport, seed: int) -> None:
        self._settings = settings
        self.num_bytes = self.num_docs = self._num_unreadable = 0
        self.languages: Counter[str] = Counter()
        self.scripts: Counter[str] = Counter()
        self.sources = SourceCounter(seed=seed)
        self._keys = KeyCounts(settings.max_keys, seed=seed)
        budget = max(settings.sample_tokens, settings.growth_tokens)
        self._sample = KeyedSample(budget, seed=seed)
        self._days: Counter[int] = Counter()

    def watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Count each batch, then hand it on."""
        for batch in batches:
            for piece in pieces(batch):
                self._add(piece)
            yield batch

    def _add(self, batch: pa.RecordBatch) -> None:
        texts = joined(batch)
        keys = array_keys(texts)
        words = np.diff(token_hashes(texts)[1])
        languages, scripts = document_languages(texts)
        self.languages.update(languages.tolist())
        self.scripts.update(scripts.tolist())
        self.num_docs += len(batch)
        self.num_bytes += pc.sum(pc.binary_length(texts)).as_py() or 0
        self._keys.add(keys)
        self._sample.add(texts, keys, words)
        self.sources.add(batch.column("source"), texts, words, languages != UNKNOWN)
        days, num_unreadable = document_days(batch.column("metadata"), self._settings.date_field)
        self._num_unreadable += num_unreadable
        values, counts = np.unique(days[days != NO_DATE], return_counts=True)
        self._days.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def ranked(self, counter: Counter[str]) -> tuple[Count, ...]:
        rows = sorted(counter.items(), key=lambda row: (-row[1], row[0]))
        return tuple(Count(name=name, count=count, frac=count / self.num_docs) for name, count in rows)

    def dates(self) -> Dates:
        days = sorted(self._days)
        counts = np.array([self._days[day] for day in days], np.int64)
        num = int(counts.sum())
        field = self._settings.date_field
        missing = self.num_docs - num
        base = Dates(field=field, num_dated=num, num_missing=missing, num_unreadable=self._num_unreadable)
        if not num:
            return base
        p25, median, p75 = (iso_day(day_at(days, counts, frac)) for frac in (0.25, 0.5, 0.75))
        years: Counter[str] = Counter()
        for day, count in zip(days, counts.tolist(), strict=True):
            years[iso_day(day)[:4]] += count
        rows = tuple(Count(name=year, count=count, frac=count / self.num_docs) for year, count in sorted(years.items()))
        ends = {"first": iso_day(days[0]), "last": iso_day(days[-1])}
        return base.model_copy(update={"p25": p25, "median": median, "p75": p75, "years": rows} | ends)

    def duplicates(self, corpus: Documents) -> Duplicates:
        """Count the copies; where there are any, read the corpus again for an example of the largest groups."""
        keys, counts = self._keys.counts()
        frac = self._keys.frac
        repeated = np.flatnonzero(counts > 1)
        order = repeated[np.lexsort((keys[repeated], -counts[repeated]))][:_NUM_GROUPS]
        return Duplicates(
            num_distinct=round(len(keys) / frac),
            num_copies=round(int((counts[repeated] - 1).sum()) / frac),
            num_groups=round(len(repeated) / frac),
            counted_frac=frac,
            largest=_examples(corpus, keys[order], counts[order]) if len(order) else (),
        )

    def sampled(self) -> Sampled:
        settings = self._settings
        texts = self._sample.texts()
        hashes = token_hashes(texts)[0][: max(settings.sample_tokens, settings.growth_tokens)]
        listed = texts.to_pylist()
        words = words_of(listed, settings.sample_tokens)
        language = dominant_language(listed)
        growth = vocabulary_growth(hashes, [size for size in _GROWTH if size <= settings.growth_tokens])
        return Sampled(
            num_docs=len(texts),
            num_tokens=len(words),
            language=language,
            densities=feature_densities(words, language),
            mattr=mattr(hashes[: settings.sample_tokens], settings.window),
            window=settings.window,
            growth=growth,
            heaps_exponent=heaps_exponent(growth),
            lines=repeated_lines(listed),
        )


def day_at(days: Sequence[int], counts: np.ndarray, frac: float) -> int:
    """Nearest-rank quantile of days with counts; both ascending and not empty."""
    reached = np.cumsum(counts)
    return int(days[int(np.searchsorted(reached, max(1, int(np.ceil(frac * reached[-1])))))])


def repeated_lines(texts: Sequence[str]) -> RepeatedLines:
    """Find the lines that stand in several of the texts. O(characters)."""
    num_docs_with: Counter[str] = Counter()
    num_chars: Counter[str] = Counter()
    total = 0
    for text in texts:
        lines = [line for raw in text.split("\n") if len(line := raw.strip()) >= MIN_LINE_CHARS]
        total += len(text)
        num_docs_with.update(set(lines))
        for line in lines:
            num_chars[line] += len(line)
    repeated = [(line, count) for line, count in num_docs_with.items() if count >= MIN_LINE_DOCS]
    repeated.sort(key=lambda row: (-row[1], row[0]))
    return RepeatedLines(
        num_docs=len(texts),
        num_lines=len(repeated),
        repeated_frac=sum(num_chars[line] for line, _ in repeated) / max(1, total),
        top=tuple(
            Count(name=line[:MAX_LINE_CHARS], count=count, frac=count / len(texts))
            for line, count in repeated[:_NUM_LINES]
        ),
    )


def snippet(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text[: 4 * SNIPPET_CHARS].split())
    return line if len(line) <= SNIPPET_CHARS else line[: SNIPPET_CHARS - 1] + "…"


def _examples(corpus: Documents, keys: np.ndarray, counts: np.ndarray) -> tuple[CopyGroup, ...]:
    found: dict[int, tuple[bytes, str]] = {}
    for batch in corpus.batches(["doc_id", "title", "text"]):
        texts = joined(batch)
        here = array_keys(texts)
        rows = np.flatnonzero(np.isin(here, keys))
        for row in rows.tolist():
            doc_id = batch.column("doc_id")[row].as_py().encode()
            key = int(here[row])
            if key not in found or doc_id < found[key][0]:
                found[key] = (doc_id, snippet(texts[row].as_py()))
    pairs = zip(keys.tolist(), counts.tolist(), strict=True)
    return tuple(CopyGroup(num_docs=count, doc_id=found[key][0].decode(), text=found[key][1]) for key, count in pairs)


__all__ = [
    "OTHERS",
    "CopyGroup",
    "CorpusFacts",
    "CorpusReport",
    "Dates",
    "Duplicates",
    "RepeatedLines",
    "Sampled",
    "day_at",
    "repeated_lines",
    "snippet",
]
