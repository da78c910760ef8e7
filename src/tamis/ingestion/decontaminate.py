"""Decontamination: no training text may hold a test query, or a judged answer of a collection searched elsewhere.

Source: 13-gram overlap (Brown et al. 2020, arXiv:2005.14165); the share of the *item* that is covered, common
n-grams that carry no evidence, and the list of what cannot be protected: tamis, docs/log.md 2026-11-21.

A document is contaminated when it holds at least half of an item's distinct n-grams, not counting those that are
common in its source. The share is of the item, not of the paragraph: text around a leak does not dilute it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus, Documents, Sifted
from tamis.data.queries import Queries
from tamis.data.settings import Settings
from tamis.engines.engine import Engine
from tamis.engines.threads import map_threads
from tamis.errors import DataError, UsageError
from tamis.ingestion.contamination import TEXT, Findings, Protected, least_matches
from tamis.ingestion.contamination_passes import Marker, Marks, Sample, unprotectable_items
from tamis.ops.bytes import token_hashes
from tamis.ops.overlap import Overlap
from tamis.ops.set_join import SimilarTexts


@dataclass(frozen=True)
class Decontaminated(Sifted):
    """What was kept and dropped, with the findings that explain it."""

    findings: Findings


class Decontaminate(Settings):
    """Drop (or only mark) documents that hold a protected text.

    Texts are compared as words: case, marks and line ends are ignored. An item of at least ``num_tokens`` words
    is looked up by its n-grams, a shorter one as a whole, one under ``min_short_tokens`` words with a letter
    cannot be protected and is listed. An n-gram is common in a source when max(MIN_COMMON_DOCS,
    source_common_frac * n) of n sampled texts hold it, and common everywhere when ``global_common_docs`` do in
    at least MIN_COMMON_SOURCES sources; what would be a hit with common n-grams is listed as suppressed, because
    a leak that is repeated often enough looks the same. Remove copies first.

    Attributes:
      num_tokens: words in an n-gram; 13 in the literature.
      min_coverage: share of an item's n-grams from which a document is contaminated.
      min_short_tokens: fewest words with a letter of an item, and of an n-gram.
      source_common_frac: share of a source's sampled texts that makes an n-gram common there.
      global_common_docs: sampled texts, over all sources, that make an n-gram common everywhere.
      query_overlap: similarity from which `sift_queries` drops a query.
      action: "drop" contaminated documents, or "mark": keep them all and report.
    """

    method: Literal["decontaminate"] = "decontaminate"
    num_tokens: Annotated[int, Field(ge=2, le=62)] = 13
    min_coverage: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_short_tokens: Annotated[int, Field(ge=1, le=62)] = 3
    source_common_frac: Annotated[float, Field(gt=0, le=1)] = 0.005
    global_common_docs: Annotated[int, Field(ge=1)] = 50
    query_overlap: Annotated[float, Field(gt=0, le=1)] = 0.8
    action: Literal["drop", "mark"] = "drop"

    def sift(self, corpus: Corpus, *, seed: int, protect: Protected, workers: int = 1) -> Decontaminated:
        """Split the corpus by `find`. The kept texts are held in memory; for larger pools use `find` and its mask.

        Args:
          corpus: any documents.
          seed: of the sample in which n-grams are counted.
          protect: what no document may hold.
          workers: threads; the result does not depend on them.

        Returns:
          kept; dropped with ``reason`` (contains_query, contains_positive), ``score`` (the coverage) and
          ``other_id`` (the item).

        Raises:
          DataError: the protected positives are documents of this corpus: it is the searched one.
        """
        findings = self.find(corpus, seed=seed, protect=protect, workers=workers)
        if self.action == "mark":
            gone = np.zeros(len(findings.is_contaminated), bool)
        else:
            _refuse_searched(findings, protect)
            gone = findings.is_contaminated
        kept, dropped, start = [], [], 0
        for batch in corpus.batches(corpus.schema.names):
            mask = pa.array(gone[start : start + len(batch)])
            kept.append(batch.filter(pc.invert(mask)))
            dropped.append(batch.filter(mask))
            start += len(batch)
        items = protect.items.take(pa.array(findings.item[gone]))
        table = pa.Table.from_batches(dropped, schema=corpus.schema)
        contains, blank = pa.scalar("contains", TEXT), pa.scalar("_", TEXT)
        table = table.append_column("reason", pc.binary_join_element_wise(contains, items["kind"], blank))
        table = table.append_column("score", pa.array(findings.coverage[gone]))
        table = table.append_column("other_id", items["item_id"])
        left = pa.Table.from_batches(kept, schema=corpus.schema).combine_chunks()
        return Decontaminated(Corpus(table=left), table.combine_chunks(), findings)

    def find(
        self, corpus: Documents, *, seed: int, protect: Protected, workers: int = 1, engine: Engine | None = None
    ) -> Findings:
        """Mark contaminated documents. Three passes over the texts: draw a sample, count in it, mark all.

        The last is nearly all of the cost. Memory: about 100 bytes a word of the protected items, 40 bytes a
        document, and one batch a worker. The same result for any number of workers and any batches.

        Args:
          corpus: any documents.
          seed: of the sample in which n-grams are counted.
          protect: what no document may hold.
          workers: threads.
          engine: where the passes run; by default on ``workers`` threads.

        Raises:
          UsageError: min_short_tokens exceeds num_tokens, or workers < 1.
        """
        if self.min_short_tokens > self.num_tokens or workers < 1:
            raise UsageError(
                f"decontaminate: min_short_tokens {self.min_short_tokens}, num_tokens {self.num_tokens}, workers "
                f"{workers}. The first may be at most the second; workers count from 1."
            )
        texts = protect.items["text"].combine_chunks()
        overlap = Overlap(texts, num_tokens=self.num_tokens, min_letter_tokens=self.min_short_tokens)
        run = engine or partial(map_threads, workers=workers)
        sample = Sample(overlap, seed)
        sample.read(corpus, run)
        common = sample.common(self.source_common_frac, self.global_common_docs)
        needed = least_matches(overlap.num_grams, self.min_coverage)
        marks = Marks(Marker(overlap, common, needed, sample.sources.numbers), protect, len(corpus))
        marks.read(corpus, run)
        hopeless = unprotectable_items(overlap, common, needed, protect.items, self.min_short_tokens, sample.sources)
        return marks.finish(corpus, sample.sources, hopeless)

    def sift_queries(self, queries: Queries, protect: Protected, *, seed: int) -> tuple[Queries, pa.Table]:
        """Keep the queries (or the texts of training pairs) that are not a protected item in other words' clothes.

        Dropped are, by reason: ``same_words``, the words of an item in any order; ``similar_words`` and
        ``similar_chars``, Jaccard similarity of word sets and of character 4-grams of at least query_overlap;
        ``contains_query`` and ``contains_positive``, at least min_coverage of an item of num_tokens words or more.
        No n-gram counts as common here: queries are few and short. O(queries) with an index over the items.

        Args:
          queries: generated or given.
          protect: all kinds are compared.
          seed: unused; every sieve takes it.

        Returns:
          The queries kept, and the rows dropped with reason, score and other_id (the item).
        """
        texts = queries.table["text"].combine_chunks()
        items = protect.items["text"].combine_chunks()
        item, score = SimilarTexts(items, "words", self.query_overlap).nearest(texts)
        same = (item >= 0) & (_bag_keys(texts) == _bag_keys(items)[item])
        reason = np.where(item < 0, "", np.where(same, "same_words", "similar_words")).astype(object)
        for name, (other, other_score) in (
            ("similar_chars", SimilarTexts(items, "chars", self.query_overlap).nearest(texts)),
            ("contains", self._covered(texts, items)),
        ):
            new = (item < 0) & (other >= 0)
            item, score = np.where(new, other, item), np.where(new, other_score, score)
            reason[new] = name
        gone = item >= 0
        dropped = queries.table.filter(pa.array(gone))
        taken = protect.items.take(pa.array(item[gone]))
        kinds = taken["kind"].to_pylist()
        named = [f"contains_{k}" if r == "contains" else r for r, k in zip(reason[gone], kinds, strict=True)]
        dropped = dropped.append_column("reason", pa.array(named, TEXT))
        dropped = dropped.append_column("score", pa.array(score[gone]))
        return queries.select(~gone), dropped.append_column("other_id", taken["item_id"])

    def _covered(self, texts: pa.Array, items: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return for each text the long item covered most, or -1, and the coverage."""
        overlap = Overlap(items, num_tokens=self.num_tokens, min_letter_tokens=self.min_short_tokens)
        none = np.zeros(0, np.int64)
        pairs = overlap.pairs_in(
            texts,
            np.zeros(len(texts), np.int64),
            overlap.common(none, none, 1, none),
            least_matches(overlap.num_grams, self.min_coverage),
        )
        coverage = pairs.matched / overlap.num_grams[pairs.items]
        long = overlap.num_tokens[pairs.items] >= self.num_tokens
        order = np.lexsort((pairs.items, -coverage, pairs.rows))
        order = order[long[order]]
        rows, first = np.unique(pairs.rows[order], return_index=True)
        item, score = np.full(len(texts), -1, np.int64), np.zeros(len(texts))
        item[rows], score[rows] = pairs.items[order][first], coverage[order][first]
        return item, score


def _refuse_searched(findings: Findings, protect: Protected) -> None:
    """Stop when the protected answers are the documents themselves."""
    hits = findings.hits
    own = pc.and_(pc.equal(hits["kind"], "positive"), pc.equal(hits["doc_id"], hits["item_id"]))
    names = hits.filter(own)["doc_id"]
    num_positives = pc.sum(pc.equal(protect.items["kind"], "positive")).as_py()
    if len(names) and 2 * len(names) >= num_positives:
        raise DataError(
            f"decontaminate: {len(names)} of {num_positives} protected positives are documents of this corpus "
            f"itself (first: {names[0].as_py()!r}). A corpus that is searched must keep its answers: protect the "
            f"queries alone, or use action 'mark'."
        )


def _bag_keys(texts: pa.Array) -> np.ndarray:
    """Return uint64 [n]: equal for texts with the same words equally often, in any order."""
    hashes, starts = token_hashes(texts)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
    keys: np.ndarray = sums[starts[1:]] - sums[starts[:-1]]
    return keys
