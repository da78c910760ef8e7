"""What is protected, what was found, and the two passes that find it; `decontaminate` holds the method.

Source: tamis, docs/log.md 2026-11-21 (common n-grams are counted in a bottom-k sample of each source's distinct
texts: Cohen, Kaplan 2007).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import columns as rules
from tamis.data.corpus import Corpus, Documents
from tamis.data.queries import Queries
from tamis.errors import DataError
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.overlap import Common, Overlap, Pairs
from tamis.ops.text import joined

TEXT = pa.large_string()
PROTECTED_SCHEMA = pa.schema([("item_id", TEXT), ("kind", TEXT), ("text", TEXT)])
KINDS = ("query", "positive")
HITS_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),
        ("item_id", TEXT),
        ("kind", TEXT),
        ("coverage", pa.float64()),  # share of the item's grams found, common ones not counted
        ("num_matched", pa.int32()),
        ("num_grams", pa.int32()),
        ("start_bytes", pa.int64()),  # of the longest run found, in the title, a newline and the text
        ("stop_bytes", pa.int64()),  # exclusive
        ("excerpt", TEXT),  # its first EXCERPT_BYTES
    ]
)
SUPPRESSED_SCHEMA = pa.schema(
    [
        ("item_id", TEXT),
        ("kind", TEXT),
        ("source", TEXT),
        ("num_docs", pa.int64()),  # documents that reach the coverage only when common grams count
        ("example_doc_id", TEXT),  # the first of them by id
        ("excerpt", TEXT),  # null past the first MAX_EXCERPTS rows
    ]
)
UNPROTECTABLE_SCHEMA = pa.schema(
    [
        ("item_id", TEXT),
        ("kind", TEXT),
        ("reason", TEXT),  # too_few_tokens, too_few_words_with_letters, mostly_common
        ("source", TEXT),  # where; null: everywhere
    ]
)
SAMPLE_DOCS = 5000
"""Distinct texts of each source in which n-grams are counted."""
MIN_COMMON_DOCS = 5
MIN_COMMON_SOURCES = 3
MAX_HITS_PER_DOC = 8
MAX_EXCERPTS = 200
EXCERPT_BYTES = 240
_COMPACT_DOCS = 50_000
_Result = TypeVar("_Result")
_Hit: TypeAlias = tuple[int, int, float, int, int, int, str]  # row, item, coverage, matched, first byte, end, excerpt
_Suppressed: TypeAlias = tuple[int, int, int, str, int]  # item, source, documents, first id, its document


@dataclass(frozen=True)
class Protected:
    """What no training text may hold (PROTECTED_SCHEMA); kind is "query" or "positive"."""

    items: pa.Table

    def __post_init__(self) -> None:
        """Check the table.

        Raises:
          DataError: a column is missing or has nulls, a kind is unknown, an item occurs twice, or there is none.
        """
        items = rules.conform(self.items, PROTECTED_SCHEMA, "protected items")
        object.__setattr__(self, "items", items)
        if not len(items):
            raise DataError("protected items: there are none. Give the test queries, or leave this stage out.")
        unknown = set(items["kind"].unique().to_pylist()) - set(KINDS)
        if unknown:
            raise DataError(f"protected items: kind {min(unknown)!r} is unknown. Use one of: {', '.join(KINDS)}.")
        for kind in KINDS:
            ids = items.filter(pc.equal(items["kind"], kind))["item_id"].combine_chunks()
            rules.check_distinct(ids, f"protected items of kind {kind!r}")

    @classmethod
    def of(cls, queries: Queries | None = None, positives: Corpus | None = None) -> Self:
        """Protect queries, and judged answers where the corpus to be cleaned is not the one that is searched."""
        parts = []
        if queries is not None:
            parts.append((queries.table["query_id"], "query", queries.table["text"]))
        if positives is not None:
            table = positives.table(["doc_id", "title", "text"])
            parts.append((table["doc_id"], "positive", pa.chunked_array([joined(table)])))
        tables = [
            pa.table([ids, pa.array([kind] * len(ids), TEXT), texts], schema=PROTECTED_SCHEMA)
            for ids, kind, texts in parts
        ]
        return cls(pa.concat_tables(tables) if tables else PROTECTED_SCHEMA.empty_table())


@dataclass(frozen=True)
class Findings:
    """What was found, one entry a document in corpus order, and the tables that explain it."""

    is_contaminated: np.ndarray  # bool [n]
    coverage: np.ndarray  # float64 [n]: of the item covered most; 0 where no item reaches the least coverage
    item: np.ndarray  # int64 [n]: row of that item among the protected; -1 none
    hits: pa.Table  # HITS_SCHEMA: at most MAX_HITS_PER_DOC a document, the words compared character by character
    suppressed_common: pa.Table  # SUPPRESSED_SCHEMA, most documents first
    unprotectable: pa.Table  # UNPROTECTABLE_SCHEMA
    num_collisions: int  # pairs whose hashes agreed and whose words did not; not counted as hits


class Sources:
    """Numbers of the sources, in the order in which they are met."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def encode(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return int64 [n]: the number of each document's source; 0 where the batch has no sources."""
        if "source" not in batch.schema.names:
            self.numbers.setdefault("", 0)
            return np.zeros(len(batch), np.int64)
        column = pc.fill_null(batch["source"], "").dictionary_encode()
        numbers = [self.numbers.setdefault(name, len(self.numbers)) for name in column.dictionary.to_pylist()]
        codes: np.ndarray = np.array(numbers, np.int64)[column.indices.to_numpy()]
        return codes


class Sample:
    """The SAMPLE_DOCS distinct texts of each source with the smallest draws, and the items' grams in them."""

    def __init__(self, overlap: Overlap, seed: int) -> None:
        self.sources = Sources()
        self._overlap, self._seed = overlap, seed
        self._limits = np.ones(0)  # draw of the last text that is in, for each full source
        self._pending = [np.zeros(0, d) for d in (np.int64, np.uint64, np.float64, np.int64)]
        self._num_drawn = 0  # texts that were candidates so far: their serial numbers
        self._hits: list[tuple[np.ndarray, np.ndarray]] = []

    def jobs(self, corpus: Documents) -> Iterator[tuple[pa.Array, int]]:
        """Yield the texts of each batch that may be in the sample, and the serial of the first."""
        for batch in corpus.batches(columns_of(corpus, ("title", "text", "source"))):
            codes = self.sources.encode(batch)
            texts = joined(batch)
            keys = array_keys(texts)
            draws = uniform(keys, self._seed, "sample")
            more = len(self.sources.numbers) - len(self._limits)
            self._limits = np.r_[self._limits, np.ones(more)]
            may = draws <= self._limits[codes]
            first, self._num_drawn = self._num_drawn, self._num_drawn + int(may.sum())
            new = (codes[may], keys[may], draws[may], np.arange(first, self._num_drawn))
            self._pending = [np.r_[old, n] for old, n in zip(self._pending, new, strict=True)]
            if len(self._pending[0]) > _COMPACT_DOCS:
                self._compact()
            yield texts.filter(pa.array(may)), first

    def read(self, texts: pa.Array, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Return serial and gram of each distinct pair; changes nothing, so that threads may."""
        rows, grams = self._overlap.grams_in(texts)
        return rows + first, grams

    def add(self, serials: np.ndarray, grams: np.ndarray) -> None:
        """Take in what `read` returned."""
        self._hits.append((serials, grams))

    def _compact(self) -> None:
        codes, keys, draws, serials = self._pending
        order = np.lexsort((serials, keys, draws, codes))
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
        self._compact()
        codes, _, _, serials = self._pending
        num_sources, num_grams = len(self.sources.numbers), max(1, self._overlap.total_grams)
        source_of = np.full(self._num_drawn, -1, np.int64)
        source_of[serials] = codes
        sizes = np.bincount(codes, minlength=num_sources)
        hits = [np.concatenate(part) for part in zip(*self._hits, strict=True)] if self._hits else [serials[:0]] * 2
        inside = source_of[hits[0]] >= 0
        pairs, counts = np.unique(source_of[hits[0][inside]] * num_grams + hits[1][inside], return_counts=True)
        source, gram = pairs // num_grams, pairs % num_grams
        total = np.bincount(gram, counts, num_grams)
        anywhere = (total >= global_docs) & (np.bincount(gram, minlength=num_grams) >= MIN_COMMON_SOURCES)
        here = (counts >= np.maximum(MIN_COMMON_DOCS, source_frac * sizes[source])) & ~anywhere[gram]
        return self._overlap.common(source[here], gram[here], num_sources, np.flatnonzero(anywhere))


class Marks:
    """Hits and suppressed hits of all batches, in corpus order."""

    def __init__(self, overlap: Overlap, common: Common, needed: np.ndarray, protect: Protected, num_docs: int) -> None:
        self._overlap, self._common, self._needed, self._items = overlap, common, needed, protect.items
        self._coverage, self._item = np.zeros(num_docs), np.full(num_docs, -1, np.int64)
        self._hits: list[pa.Table] = []
        self._suppressed: dict[tuple[int, int], tuple[int, str, int]] = {}
        self._num_collisions = 0

    def jobs(self, corpus: Documents, sources: Sources) -> Iterator[tuple[pa.Array, pa.Array, np.ndarray, int]]:
        """Yield ids, texts and sources of each batch, and the number of its first document."""
        start = 0
        for batch in corpus.batches(columns_of(corpus, ("doc_id", "title", "text", "source"))):
            yield batch["doc_id"], joined(batch), sources.encode(batch), start
            start += len(batch)

    def read(
        self, ids: pa.Array, texts: pa.Array, codes: np.ndarray, start: int
    ) -> tuple[int, pa.Array, list[_Hit], int, list[_Suppressed]]:
        """Judge one batch; changes nothing, so that threads may."""
        pairs = self._overlap.pairs_in(texts, codes, self._common, self._needed)
        coverage = pairs.evidence / self._overlap.num_grams[pairs.items]
        is_hit = pairs.evidence >= self._needed[pairs.items]
        order = np.lexsort((pairs.items, -coverage, pairs.rows))
        hits: list[_Hit] = []
        num_collisions, num_of_row = 0, np.zeros(len(texts), np.int64)
        for i in order[is_hit[order]]:
            row, item = int(pairs.rows[i]), int(pairs.items[i])
            if num_of_row[row] == MAX_HITS_PER_DOC:
                continue
            text = texts[row].as_py()
            begin, end, agrees = self._overlap.locate(text, item, source=int(codes[row]), common=self._common)
            if not agrees:
                num_collisions += 1
                continue
            num_of_row[row] += 1
            hits.append((row, item, float(coverage[i]), int(pairs.evidence[i]), begin, end, excerpt(text, begin, end)))
        return start, ids, hits, num_collisions, _grouped(pairs, ~is_hit, codes, ids, start)

    def add(
        self, start: int, ids: pa.Array, hits: list[_Hit], num_collisions: int, suppressed: list[_Suppressed]
    ) -> None:
        """Take in what `read` returned, in corpus order."""
        self._num_collisions += num_collisions
        for row, item, coverage, *_ in hits:
            if self._item[start + row] < 0:  # best first
                self._item[start + row], self._coverage[start + row] = item, coverage
        if hits:
            rows, items, coverages, matched, begins, ends, excerpts = zip(*hits, strict=True)
            taken = self._items.take(pa.array(items))
            num_grams = pa.array(self._overlap.num_grams[list(items)])
            values = [ids.take(pa.array(rows)), taken["item_id"], taken["kind"], pa.array(coverages)]
            values += [pa.array(matched, pa.int32()), num_grams, pa.array(begins), pa.array(ends)]
            self._hits.append(pa.table([*values, pa.array(excerpts, TEXT)], schema=HITS_SCHEMA))
        for item, code, count, doc_id, row in suppressed:
            old = self._suppressed.get((item, code), (0, doc_id, row))
            first = min(old[1:], (doc_id, row))
            self._suppressed[item, code] = (old[0] + count, *first)

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
            begin, end, _ = self._overlap.locate(texts[i], item, source=code, common=self._common, with_common=True)
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


def least_matches(num_grams: np.ndarray, min_coverage: float) -> np.ndarray:
    """Return int32 [Q]: the smallest number of grams m >= 1 with m / num_grams >= min_coverage."""
    sizes = np.maximum(num_grams, 1).astype(np.int64)
    least = np.maximum(np.floor(min_coverage * sizes).astype(np.int64) - 1, 1)
    for _ in range(3):  # the product is rounded: the quotient decides
        least += least / sizes < min_coverage
    needed: np.ndarray = least.astype(np.int32)
    return needed


def excerpt(text: str, begin: int, end: int) -> str:
    """Return at most EXCERPT_BYTES of a byte span, cut between characters."""
    return text.encode()[begin:end][:EXCERPT_BYTES].decode("utf-8", "ignore")


def columns_of(corpus: Documents, wanted: Iterable[str]) -> list[str]:
    """Return the wanted columns that the corpus has."""
    return [name for name in wanted if name in corpus.schema.names]


def ordered(function: Callable[..., _Result], jobs: Iterable[tuple[Any, ...]], workers: int) -> Iterator[_Result]:
    """Yield function(*job) in the order of the jobs, from ``workers`` threads, a few jobs ahead."""
    if workers == 1:
        for job in jobs:
            yield function(*job)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Result]] = deque()
        for job in jobs:
            waiting.append(pool.submit(function, *job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
