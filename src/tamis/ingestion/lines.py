"""Frequent lines: menus, footers, licence headers and signatures out of the text that is learnt from.

Source: CCNet (Wenzek et al. 2019, arXiv:1911.00359); C4's three-sentence rule (arXiv:1910.10683); DCLM's BFF
(arXiv:2406.11794). Exact document counts instead of a Bloom filter: the result does not depend on the order.

The index keeps the original text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus, Documents
from tamis.data.settings import Settings
from tamis.engines.engine import Engine, batches_of, tasks
from tamis.ingestion.spans import TEXT, Cleaned, Edited, collected, cut_batch
from tamis.ops import hashing
from tamis.ops import lines as line_ops
from tamis.ops.bytes import text_hashes

LINE_SCHEMA = pa.schema(
    [
        ("line", TEXT),  # one of those removed, blanks at both ends left out
        ("num_docs", pa.int64()),  # documents of the corpus with this line, case, digits and marks aside
        ("num_removed", pa.int64()),  # times it was removed
    ]
)
_COMPACT_LINES = 1 << 22
_COUNTED = ("text", "source")
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class FrequentLinesResult(Edited):
    """What `FrequentLines.sift` gives.

    Attributes:
      lines: LINE_SCHEMA, most frequent first: one exemplar of each line that was removed.
    """

    lines: pa.Table


@dataclass(frozen=True)
class LineCounts:
    """In how many documents each line occurs; a mergeable sketch of integers.

    Attributes:
      keys: uint64 [m], ascending: line hashes, or keys of line and source.
      counts: int64 [m].
    """

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, keys: np.ndarray) -> Self:
        """Count keys that stand once a document."""
        unique, counts = np.unique(keys, return_counts=True)
        return cls(unique, counts.astype(np.int64))

    @classmethod
    def summed(cls, parts: Iterable[Self]) -> Self:
        """Return the sum of any number of counts, in any order. O(m log m)."""
        listed = [part for part in parts if len(part.keys)]
        if not listed:
            return cls()
        if len(listed) == 1:
            return listed[0]
        keys = np.concatenate([part.keys for part in listed])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], np.concatenate([part.counts for part in listed])[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        return cls(keys[starts], np.add.reduceat(counts, starts))

    def merge(self, other: Self) -> Self:
        """Return the counts of both."""
        return self.summed([self, other])

    def look_up(self, keys: np.ndarray) -> np.ndarray:
        """int64 [len(keys)]: the count of each key, 0 where it has none."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.counts[at], 0)

    def at_least(self, bound: int) -> Self:
        """Return the keys counted ``bound`` times or more."""
        enough = self.counts >= bound
        return type(self)(self.keys[enough], self.counts[enough])

    def to_table(self) -> pa.Table:
        """Return key and count, one row a line."""
        return pa.table({"key": self.keys, "count": self.counts})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Read what `to_table` gave."""
        return cls(table["key"].to_numpy(), table["count"].to_numpy())


@dataclass(frozen=True)
class LineSketch:
    """Line counts of a part of the corpus: ``overall``, and ``within`` the sources that are counted apart."""

    overall: LineCounts = field(default_factory=LineCounts)
    within: LineCounts = field(default_factory=LineCounts)

    def merge(self, other: Self) -> Self:
        """Return the counts of both parts."""
        return type(self)(self.overall.merge(other.overall), self.within.merge(other.within))


@dataclass(frozen=True)
class FrequentModel:
    """The frequent lines, and the sources whose own counts matter.

    Attributes:
      overall: frequent in the corpus.
      within: frequent in a source, by the bound of the smallest source; each line's own bound is asked again.
      bounds: documents from which a line is frequent in a source.
    """

    overall: LineCounts
    within: LineCounts
    bounds: Mapping[str, int]


class FrequentLines(Settings):
    """Remove lines that many documents share; digits, case and marks do not tell lines apart.

    A frequent line goes when it is long, or stands beside another frequent line (blank lines between them do not
    count). A short one alone, such as a heading, stays. No document keeps its copy; the result has an exemplar.

    Attributes:
      min_docs: documents that have a frequent line, at least.
      min_docs_frac: the same as a share of the documents of the source, or of the corpus; the larger bound holds.
      min_chars: characters from which a frequent line goes wherever it stands.
      min_run: frequent lines that go together whatever their length.
      min_words: a changed document with fewer words left is dropped (``only_boilerplate``).
    """

    method: Literal["frequent_lines"] = "frequent_lines"
    min_docs: Annotated[int, Field(ge=2)] = 50
    min_docs_frac: Annotated[float, Field(ge=0, le=1)] = 0.002
    min_chars: Annotated[int, Field(ge=1)] = 40
    min_run: Annotated[int, Field(ge=2)] = 2
    min_words: Annotated[int, Field(ge=0)] = 20

    def sources(self, corpus: Documents) -> dict[str, int]:
        """Return the documents of each source whose own counts matter: large ones beside others. Reads no texts."""
        sizes: dict[str, int] = {}
        for batch in corpus.batches(["source"]):
            for item in pc.value_counts(batch["source"]).to_pylist():
                sizes[item["values"]] = sizes.get(item["values"], 0) + item["counts"]
        return self.apart(sizes)

    def apart(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return those of the sources, by their number of documents, whose own counts matter."""
        return {source: num for source, num in sizes.items() if num >= self.min_docs} if len(sizes) > 1 else {}

    def sketch(self, batch: pa.RecordBatch, sources: Mapping[str, int]) -> LineSketch:
        """Count a batch's lines, once a document. Sketches of any cut of a corpus merge to the same counts.

        Args:
          batch: text and source.
          sources: those counted apart.
        """
        lines = line_ops.scan(batch["text"])
        rows = lines.rows()
        order = np.lexsort((lines.hashes, rows))
        order = order[lines.hashes[order] != 0]
        hashes, rows = lines.hashes[order], rows[order]
        once = np.r_[True, (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])][: len(rows)]
        hashes, rows = hashes[once], rows[once]
        if not sources:
            return LineSketch(LineCounts.of(hashes))
        apart = np.asarray(pc.is_in(batch["source"], pa.array(list(sources), TEXT)))[rows]
        return LineSketch(LineCounts.of(hashes), LineCounts.of(_within(hashes[apart], batch, rows[apart])))

    def fit(self, counts: LineSketch, sources: Mapping[str, int], num_docs: int) -> FrequentModel:
        """Return the frequent lines.

        Args:
          counts: the merged sketches of the whole corpus.
          sources: as given to `sketch`.
          num_docs: documents of the corpus.
        """
        bounds = {source: self._bound(num) for source, num in sources.items()}
        within = counts.within.at_least(min(bounds.values(), default=_NEVER))
        return FrequentModel(counts.overall.at_least(self._bound(num_docs)), within, bounds)

    def clean(self, batch: pa.RecordBatch, model: FrequentModel) -> Cleaned:
        """Remove the frequent lines of a batch; nothing outside it is looked at."""
        return self._clean(batch, model)[0]

    def sift(self, corpus: Corpus, *, seed: int) -> FrequentLinesResult:
        """Remove frequent lines. Two passes over the texts, 60 MB/s; 16 bytes of memory a distinct line.

        Args:
          corpus: any documents.
          seed: unused; every sieve takes it.

        Returns:
          Documents with what is left of their text, and every span that was removed.
        """
        sources = self.sources(corpus)
        counts = self.count(corpus, sources)
        model = self.fit(counts, sources, len(corpus))
        exemplars = _Exemplars(counts.overall)
        parts = []
        for batch in corpus.batches():
            cleaned, removed = self._clean(batch, model)
            exemplars.add(removed)
            parts.append(cleaned)
        edited = collected(corpus.schema, parts)
        return FrequentLinesResult(edited.kept, edited.dropped, edited.spans, exemplars.table())

    def _bound(self, num_docs: int) -> int:
        return max(self.min_docs, int(np.ceil(self.min_docs_frac * num_docs)))

    def count(self, corpus: Documents, sources: Mapping[str, int], engine: Engine = map) -> LineSketch:
        """Return the merged sketches of a corpus, compacted now and then; the same from any engine."""
        total = LineSketch()
        pending: list[LineSketch] = []
        num_pending = 0
        for sketch in engine(partial(_sketch, self, dict(sources)), tasks(corpus, _COUNTED)):
            pending.append(sketch)
            num_pending += len(pending[-1].overall.keys)
            if num_pending > max(_COMPACT_LINES, len(total.overall.keys) // 2):
                total, pending, num_pending = _summed([total, *pending]), [], 0
        return _summed([total, *pending])

    def _clean(self, batch: pa.RecordBatch, model: FrequentModel) -> tuple[Cleaned, "_Removed"]:
        lines = line_ops.scan(batch["text"])
        rows = lines.rows()
        frequent = model.overall.look_up(lines.hashes) > 0
        if len(model.within.keys):
            bounds = np.array([model.bounds.get(name, _NEVER) for name in batch["source"].to_pylist()])[rows]
            frequent |= (lines.hashes != 0) & (model.within.look_up(_within(lines.hashes, batch, rows)) >= bounds)
        removed = line_ops.mark_runs(lines, frequent, min_chars=self.min_chars, min_run=self.min_run)
        spans = line_ops.merged(line_ops.spans_of(lines, removed)[0])
        left = line_ops.cut(batch["text"], spans)
        changed = np.zeros(len(batch), dtype=bool)
        changed[spans.rows] = True
        _, num_words, _ = text_hashes(left)
        has_none = np.asarray(pc.equal(pc.binary_length(left), 0))
        gone = changed & ((num_words < self.min_words) | has_none)
        drops = np.where(gone, "only_boilerplate", "").tolist()
        cleaned = cut_batch(batch, spans, ["frequent_line"] * len(spans.rows), drops)
        numbers = np.flatnonzero(removed & frequent & ~gone[rows])
        return cleaned, _Removed(batch["text"], lines, numbers, rows[numbers])


class _Removed(NamedTuple):
    """The lines removed from a batch."""

    texts: pa.Array
    lines: line_ops.Lines
    numbers: np.ndarray
    rows: np.ndarray


class _Exemplars:
    """One exemplar of each removed line: the first of the text with the smallest key, so order does not matter."""

    def __init__(self, counts: LineCounts) -> None:
        self._counts = counts
        self._best: dict[int, tuple[int, str]] = {}
        self._num_removed: dict[int, int] = {}

    def add(self, removed: _Removed) -> None:
        if not len(removed.numbers):
            return
        lines = removed.lines
        hashes = lines.hashes[removed.numbers]
        keys = hashing.array_keys(removed.texts)[removed.rows]
        order = np.lexsort((removed.numbers, keys, hashes))
        starts = np.flatnonzero(np.r_[True, hashes[order][1:] != hashes[order][:-1]])
        best = order[starts]
        picked = removed.numbers[best]
        spans = line_ops.Spans(removed.rows[best], lines.starts[picked], lines.stops[picked])
        sizes = np.diff(np.r_[starts, len(order)]).tolist()
        texts = line_ops.excerpts(removed.texts, spans).to_pylist()
        for name, key, text, size in zip(hashes[best].tolist(), keys[best].tolist(), texts, sizes, strict=True):
            found = (key, text.strip())
            self._best[name] = min(found, self._best.get(name, found))
            self._num_removed[name] = self._num_removed.get(name, 0) + size

    def table(self) -> pa.Table:
        names = np.array(list(self._best), dtype=np.uint64)
        rows = [
            {"line": self._best[name][1], "num_docs": num, "num_removed": self._num_removed[name]}
            for name, num in zip(names.tolist(), self._counts.look_up(names).tolist(), strict=True)
        ]
        rows.sort(key=lambda row: (-int(row["num_docs"]), -int(row["num_removed"]), str(row["line"])))
        return pa.Table.from_pylist(rows, schema=LINE_SCHEMA)


def _sketch(method: FrequentLines, sources: Mapping[str, int], task: Any) -> LineSketch:  # noqa: ANN401
    """Return the counts of one task: a batch or a piece."""
    return _summed([method.sketch(batch, sources) for batch in batches_of(task, _COUNTED)])


def _summed(parts: list[LineSketch]) -> LineSketch:
    return LineSketch(LineCounts.summed(p.overall for p in parts), LineCounts.summed(p.within for p in parts))


def _within(hashes: np.ndarray, batch: pa.RecordBatch, rows: np.ndarray) -> np.ndarray:
    """uint64: the key of each line within its document's source; 0 stays 0."""
    names = hashing.array_keys(batch["source"])[rows]
    keys = hashing.splitmix64(hashes * _MULTIPLY ^ names)
    return np.where(hashes == 0, np.uint64(0), keys)
