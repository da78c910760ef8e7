"""The passes that find protected texts in a pool: draw a sample, count common n-grams in it, mark all documents.

Source: tamis, docs/log.md 2026-11-21 (common n-grams are counted in a bottom-k sample of each source's distinct
texts: Cohen, Kaplan 2007).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import Documents
from tamis.engines.engine import Engine, batches_of, tasks
from tamis.ingestion.contamination import (
    HITS_SCHEMA,
    SUPPRESSED_SCHEMA,
    TEXT,
    UNPROTECTABLE_SCHEMA,
    Findings,
    Protected,
    columns_of,
    excerpt,
)
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.overlap import Common, Overlap, Pairs
from tamis.ops.text import joined

SAMPLE_DOCS = 5000
"""Distinct texts of each source in which n-grams are counted."""
MIN_COMMON_DOCS = 5
MIN_COMMON_SOURCES = 3
MAX_HITS_PER_DOC = 8
MAX_EXCERPTS = 200
_COMPACT_DOCS = 50_000
_SAMPLED = ("title", "text", "source")
_MARKED = ("doc_id", "title", "text", "source")
_Hit: TypeAlias = tuple[int, str, int, float, int, int, int, str]
"""Row, id, item, coverage, matched, first byte, end, excerpt."""
_Suppressed: TypeAlias = tuple[int, int, int, str, int]  # item, source, documents, first id, its row


class Sources:
    """Numbers of the sources, in the order in which they are met."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def encode(self, names: pa.Array, codes: np.ndarray) -> np.ndarray:
        """Return the numbers of sources, int64 [n], for codes of a list of names."""
        numbers = [self.numbers.setdefault(name, len(self.numbers)) for name in names.to_pylist()]
        result: np.ndarray = np.array(numbers, np.int64)[codes]
        return result


def _source_names(batch: pa.RecordBatch) -> pa.Array:
    """Return the source of each document, "" where there are none."""
    if "source" not in batch.schema.names:
        return pa.array([""] * len(batch), TEXT)
    return pc.fill_null(batch["source"], "").cast(TEXT)


@dataclass(frozen=True)
class Drawn:
    """What decides which of n documents are in the sample.

    Attributes:
      names: their sources, in the order in which they are met.
      codes: int32 [n], positions in ``names``.
      keys: uint64 [n] of title and text.
    """

    names: pa.Array
    codes: np.ndarray
    keys: np.ndarray


def _drawn(task: Any) -> Drawn:  # noqa: ANN401 - a batch or a piece
    sources, keys = [pa.array([], TEXT)], [np.zeros(0, np.uint64)]
    for batch in batches_of(task, columns_of(task, _SAMPLED)):
        sources.append(_source_names(batch))
        keys.append(array_keys(joined(batch)))
    coded = pa.concat_arrays(sources).dictionary_encode()
    return Drawn(coded.dictionary, coded.indices.to_numpy(), np.concatenate(keys))


def _grams_of(overlap: Overlap, task: tuple[Any, int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return row and gram of each distinct pair of the chosen rows of a task whose first row is given."""
    whole, start, chosen = task
    rows, grams, at = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for batch in batches_of(whole, columns_of(whole, _SAMPLED)):
        inside = chosen[(chosen >= at) & (chosen < at + len(batch))]
        found = overlap.grams_in(joined(batch.take(pa.array(inside - at))))
        rows.append(start + inside[found[0]])
        grams.append(found[1])
        at += len(batch)
    return np.concatenate(rows), np.concatenate(grams)


class Sample:
    """The SAMPLE_DOCS distinct texts of each source with the smallest draws, and the items' grams in them."""

    def __init__(self, overlap: Overlap, seed: int) -> None:
        self.sources = Sources()
        self._overlap, self._seed = overlap, seed
        self._limits = np.ones(0)  # draw of the last text that is in, for each full source
        self._pending = [np.zeros(0, d) for d in (np.int64, np.uint64, np.float64, np.int64)]
        self._hits: list[tuple[np.ndarray, np.ndarray]] = []

    def read(self, corpus: Documents, engine: Engine) -> None:
        """Draw the sample, and then count in its texts: two passes, the second over what holds some of it."""
        num_docs = 0
        for drawn in engine(_drawn, tasks(corpus, columns_of(corpus, _SAMPLED))):
            self._draw(drawn, num_docs)
            num_docs += len(drawn.keys)
        self._compact()
        self._hits = list(engine(partial(_grams_of, self._overlap), self._chosen(corpus)))

    def _draw(self, drawn: Drawn, start: int) -> None:
        codes = self.sources.encode(drawn.names, drawn.codes)
        draws = uniform(drawn.keys, self._seed, "sample")
        more = len(self.sources.numbers) - len(self._limits)
        self._limits = np.r_[self._limits, np.ones(more)]
        may = np.flatnonzero(draws <= self._limits[codes])
        new = (codes[may], drawn.keys[may], draws[may], start + may)
        self._pending = [np.r_[old, n] for old, n in zip(self._pending, new, strict=True)]
        if len(self._pending[0]) > _COMPACT_DOCS:
            self._compact()

    def _chosen(self, corpus: Documents) -> Iterator[tuple[Any, int, np.ndarray]]:
        """Yield the tasks that hold texts of the sample, the row of the first document, and which are in it."""
        rows, start = np.sort(self._pending[3]), 0
        for task in tasks(corpus, columns_of(corpus, _SAMPLED)):
            first, stop = np.searchsorted(rows, [start, start + len(task)])
            if stop > first:
                yield task, start, rows[first:stop] - start
            start += len(task)

    def _compact(self) -> None:
        codes, keys, draws, rows = self._pending
        order = np.lexsort((rows, keys, draws, codes))
        codes, keys = codes[order], keys[order]
        # Copies would make their own text common: a text counts once in its source.
        is_new = np.r_[True, (codes[1:] != codes[:-1]) | (keys[1:] != keys[:-1])][: len(codes)]
        order, codes = order[is_new], codes[is_new]
        ranks = np.arange(len(codes)) - np.searchsorted(codes, codes)
        full = ranks == SAMPLE_DOCS - 1
        self._limits[codes[full]] = draws[order[full]]
        self._pending = [values[order[ranks < SAMPLE_DOCS]] for values in self._pending]

    def common(self, source_frac: float, global_docs: int) -> Common:
        """Return the common grams."""
        codes, _, _, rows = self._pending
        num_sources, num_grams = len(self.sources.numbers), max(1, self._overlap.total_grams)
        sizes = np.bincount(codes, minlength=num_sources)
        by_row = np.argsort(rows)
        hits = [np.concatenate(part) for part in zip(*self._hits, strict=True)] if self._hits else [rows[:0]] * 2
        source_of = codes[by_row][np.searchsorted(rows[by_row], hits[0])]
        pairs, counts = np.unique(source_of * num_grams + hits[1], return_counts=True)
        source, gram = pairs // num_grams, pairs % num_grams
        total = np.bincount(gram, counts, num_grams)
        anywhere = (total >= global_docs) & (np.bincount(gram, minlength=num_grams) >= MIN_COMMON_SOURCES)
        here = (counts >= np.maximum(MIN_COMMON_DOCS, source_frac * sizes[source])) & ~anywhere[gram]
        return self._overlap.common(source[here], gram[here], num_sources, np.flatnonzero(anywhere))


@dataclass(frozen=True)
class Marker:
    """What judges the documents of a task; changes nothing, and is sent to every worker.

    Attributes:
      overlap: the items.
      common: grams that are no evidence.
      needed: int32 [Q], `least_matches`.
      numbers: of the sources.
    """

    overlap: Overlap
    common: Common
    needed: np.ndarray
    numbers: Mapping[str, int]

    def marked(self, task: Any) -> tuple[int, list[_Hit], int, list[_Suppressed]]:  # noqa: ANN401 - a batch or a piece
        """Return the documents of a task, hits, hash collisions, suppressed hits; rows count from the task's first."""
        start, hits, num_collisions = 0, list[_Hit](), 0
        suppressed: dict[tuple[int, int], tuple[int, str, int]] = {}
        for batch in batches_of(task, columns_of(task, _MARKED)):
            more, collisions, others = self._read(batch, start)
            hits += more
            num_collisions += collisions
            _add_suppressed(suppressed, others, 0)
            start += len(batch)
        return start, hits, num_collisions, [(*key, *value) for key, value in suppressed.items()]

    def _read(self, batch: pa.RecordBatch, start: int) -> tuple[list[_Hit], int, list[_Suppressed]]:
        ids, texts = batch["doc_id"], joined(batch)
        coded = _source_names(batch).dictionary_encode()
        numbers = np.array([self.numbers[name] for name in coded.dictionary.to_pylist()], np.int64)
        codes = numbers[coded.indices.to_numpy()]
        pairs = self.overlap.pairs_in(texts, codes, self.common, self.needed)
        coverage = pairs.evidence / self.overlap.num_grams[pairs.items]
        is_hit = pairs.evidence >= self.needed[pairs.items]
        order = np.lexsort((pairs.items, -coverage, pairs.rows))
        hits: list[_Hit] = []
        num_collisions, num_of_row = 0, np.zeros(len(texts), np.int64)
        for i in order[is_hit[order]]:
            row, item = int(pairs.rows[i]), int(pairs.items[i])
            if num_of_row[row] == MAX_HITS_PER_DOC:
                continue
            text = texts[row].as_py()
            begin, end, agrees = self.overlap.locate(text, item, source=int(codes[row]), common=self.common)
            if not agrees:
                num_collisions += 1
                continue
            num_of_row[row] += 1
            found = float(coverage[i]), int(pairs.evidence[i]), int(begin), int(end), excerpt(text, begin, end)
            hits.append((start + row, ids[row].as_py(), item, *found))
        return hits, num_collisions, _grouped(pairs, ~is_hit, codes, ids, start)


def _add_suppressed(
    total: dict[tuple[int, int], tuple[int, str, int]], more: Iterable[_Suppressed], start: int
) -> None:
    """Add documents by item and source, and keep the first id."""
    for item, code, count, doc_id, row in more:
        old = total.get((item, code), (0, doc_id, start + row))
        total[item, code] = (old[0] + count, *min(old[1:], (doc_id, start + row)))


class Marks:
    """Hits and suppressed hits of all batches, in corpus order."""

    def __init__(self, marker: Marker, protect: Protected, num_docs: int) -> None:
        self._marker, self._items = marker, protect.items
        self._coverage, self._item = np.zeros(num_docs), np.full(num_docs, -1, np.int64)
        self._hits: list[pa.Table] = []
        self._suppressed: dict[tuple[int, int], tuple[int, str, int]] = {}
        self._num_collisions = 0

    def read(self, corpus: Documents, engine: Engine) -> None:
        """Judge every document: one pass."""
        start = 0
        for num_docs, *found in engine(self._marker.marked, tasks(corpus, columns_of(corpus, _MARKED))):
            self._add(start, *found)
            start += num_docs

    def _add(self, start: int, hits: list[_Hit], num_collisions: int, suppressed: list[_Suppressed]) -> None:
        self._num_collisions += num_collisions
        for row, _, item, coverage, *_ in hits:
            if self._item[start + row] < 0:  # best first
                self._item[start + row], self._coverage[start + row] = item, coverage
        if hits:
            _, ids, items, coverages, matched, begins, ends, excerpts = zip(*hits, strict=True)
            taken = self._items.take(pa.array(items))
            num_grams = pa.array(self._marker.overlap.num_grams[list(items)])
            values = [pa.array(ids, TEXT), taken["item_id"], taken["kind"], pa.array(coverages)]
            values += [pa.array(matched, pa.int32()), num_grams, pa.array(begins), pa.array(ends)]
            self._hits.append(pa.table([*values, pa.array(excerpts, TEXT)], schema=HITS_SCHEMA))
        _add_suppressed(self._suppressed, suppressed, start)

    def finish(self, corpus: Documents, sources: Sources, unprotectable: pa.Table) -> Findings:
        """Return the findings of the whole corpus."""
        hits = pa.concat_tables(self._hits).combine_chunks() if self._hits else HITS_SCHEMA.empty_table()
        suppressed = self._suppressed_table(corpus, list(sources.numbers))
        is_contaminated = self._item >= 0
        return Findings(
            is_contaminated, self._coverage, self._item, hits, suppressed, unprotectable, self._num_collisions
        )

    def _suppressed_table(self, corpus: Documents, names: list[str]) -> pa.Table:
        ordered = sorted(self._suppressed.items(), key=lambda e: (-e[1][0], e[0][0], names[e[0][1]]))
        shown = ordered[:MAX_EXCERPTS]
        table = corpus.take([row for _, (_, _, row) in shown], columns_of(corpus, ("title", "text")))
        texts = joined(table).to_pylist() if shown else []
        excerpts: list[str | None] = [None] * len(ordered)
        for i, ((item, code), _) in enumerate(shown):
            begin, end, _ = self._marker.overlap.locate(
                texts[i], item, source=code, common=self._marker.common, with_common=True
            )
            excerpts[i] = excerpt(texts[i], begin, end)
        items = self._items.take(pa.array([item for (item, _), _ in ordered], pa.int64()))
        columns = [
            items["item_id"],
            items["kind"],
            pa.array([names[code] for (_, code), _ in ordered], TEXT),
            pa.array([count for _, (count, _, _) in ordered], pa.int64()),
            pa.array([doc_id for _, (_, doc_id, _) in ordered], TEXT),
            pa.array(excerpts, TEXT),
        ]
        return pa.table(columns, schema=SUPPRESSED_SCHEMA)


def _grouped(pairs: Pairs, chosen: np.ndarray, codes: np.ndarray, ids: pa.Array, start: int) -> list[_Suppressed]:
    """Return item, source, number of documents, and the first id and its document, of the chosen pairs."""
    rows, items = pairs.rows[chosen], pairs.items[chosen]
    groups: dict[tuple[int, int], tuple[int, str, int]] = {}
    for row, item in zip(rows.tolist(), items.tolist(), strict=True):
        key, doc_id = (item, int(codes[row])), ids[row].as_py()
        count, *first = groups.get(key, (0, doc_id, start + row))
        groups[key] = (count + 1, *min((first[0], first[1]), (doc_id, start + row)))
    return [(*key, *value) for key, value in groups.items()]


def unprotectable_items(
    overlap: Overlap, common: Common, needed: np.ndarray, items: pa.Table, min_tokens: int, sources: Sources
) -> pa.Table:
    """Return the items that no document can be found to hold, everywhere or in one source (UNPROTECTABLE_SCHEMA)."""
    names = list(sources.numbers)
    anywhere = np.bincount(overlap.items_of(np.flatnonzero(common.anywhere))[1], minlength=overlap.num_items)
    none = overlap.num_grams == 0
    lost = ~none & (overlap.num_grams - anywhere < needed)
    found: list[tuple[int, str, str | None]] = []
    for item in np.flatnonzero(none | lost).tolist():
        is_short = overlap.num_tokens[item] < min_tokens
        why = "mostly_common" if lost[item] else "too_few_tokens" if is_short else "too_few_words_with_letters"
        found.append((item, why, None))
    which, item_of = overlap.items_of(common.grams)
    source_of = np.repeat(np.arange(len(names)), np.diff(common.starts))[which]
    pairs, counts = np.unique(source_of * overlap.num_items + item_of, return_counts=True)
    source, item_here = pairs // overlap.num_items, pairs % overlap.num_items
    left = overlap.num_grams[item_here] - anywhere[item_here] - counts
    for i in np.flatnonzero((left < needed[item_here]) & ~lost[item_here]).tolist():
        found.append((int(item_here[i]), "mostly_common", names[source[i]]))
    found.sort(key=lambda row: (row[0], row[2] is not None, row[2] or ""))
    taken = items.take(pa.array([item for item, _, _ in found], pa.int64()))
    reasons, where = (pa.array([row[i] for row in found], TEXT) for i in (1, 2))
    return pa.table([taken["item_id"], taken["kind"], reasons, where], schema=UNPROTECTABLE_SCHEMA)
