"""Near copies, every one verified: MinHash buckets propose pairs, an alignment of the full texts decides.

Source: Broder 1997 (MinHash); Leskovec, Rajaraman, Ullman (banding); no transitive closure and a guard for each
source after marin-community/marin, issue 6854 and pull request 7591; signatures over shingles that are not
common and the check by alignment: tamis, method card I5.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus, Documents, Sifted
from tamis.data.settings import Settings
from tamis.engines.engine import Engine, batches_of
from tamis.engines.threads import map_threads
from tamis.errors import UsageError
from tamis.ingestion import minhash_candidates as buckets
from tamis.ingestion.minhash_decide import Copies, Decision, Edges, Sources, decide, stop_at_wipe_out
from tamis.ingestion.minhash_verify import REASONS, Check, equal_bytes, verify
from tamis.ops import shingles

Keep = Literal["longest", "first", "best"]
TEXT = pa.large_string()


@dataclass(frozen=True)
class Duplicates:
    """What was found among the n documents of a corpus.

    Attributes:
      removed: int64 [R] rows to leave out, ascending.
      representatives: int64 [R] rows of the kept documents they are near copies of; rows of ``against`` where given.
      representative_ids: their doc_id, R strings.
      scores: float64 [R], share of same words with the representative.
      group_ids: n strings: doc_id of each document's representative, its own when it is kept.
      edges: int64 [E, 2], verified pairs (member row, representative row), copies of equal bytes apart.
      edge_scores: float64 [E].
      common: uint64, the shingles that were left out as common.
      num_exact: documents that are equal, byte for byte, to one ahead of them.
      num_without_text: documents that take no part: fewer than 10 shingles that are not common.
      num_candidates: pairs that shared a bucket.
      num_cut: pairs not looked at, because the member had 32 representatives that share more.
      largest_bucket: documents in the fullest bucket.
      rejections: candidate pairs refused, by reason.
      group_sizes: number of groups by their size, sizes from 2.
      sources: table of source, docs, removed, exact, protected.
      curve: chance that a pair becomes a candidate, by the Jaccard similarity of its distinctive shingles.
    """

    removed: np.ndarray
    representatives: np.ndarray
    representative_ids: pa.Array
    scores: np.ndarray
    group_ids: pa.Array
    edges: np.ndarray
    edge_scores: np.ndarray
    common: np.ndarray
    num_exact: int
    num_candidates: int
    num_cut: int
    largest_bucket: int
    group_sizes: dict[int, int]
    curve: dict[float, float]
    num_without_text: int
    rejections: dict[str, int]
    sources: pa.Table


class MinHash(Settings):
    """Remove near copies that were verified on the full texts; never through a chain of others.

    Attributes:
      bands: of the 256 hashes, each of 256 // bands rows: more bands find less similar pairs.
      width: words in a shingle.
      common_docs_frac: a shingle in this share of a sample of documents (at least 20) is boilerplate.
      rule: "aligned": few enough word edits, and Jaccard similarity of the distinctive shingles at least 0.3;
        "contained": 98 % of the member's shingles, or all of its words, are in a document that is not shorter.
      min_same_words_frac: of the longer text, for rule "aligned".
      same_title: two documents with titles must have equal ones (entity pages of one template are not copies).
      max_source_removed_frac: a source that would lose more, and 20 documents or more, stops the run; copies of
        equal bytes do not count.
      on_wipeout: "stop", or "keep" the near copies of such a source.
    """

    method: Literal["minhash"] = "minhash"
    bands: Annotated[int, Field(ge=1, le=256)] = 64
    width: Annotated[int, Field(ge=1, le=32)] = 3
    common_docs_frac: Annotated[float, Field(gt=0, le=1)] = 1 / 300
    rule: Literal["aligned", "contained"] = "aligned"
    min_same_words_frac: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    same_title: bool = True
    max_source_removed_frac: Annotated[float, Field(ge=0, le=1)] = 0.5
    on_wipeout: Literal["stop", "keep"] = "stop"

    def sift(self, corpus: Corpus, *, seed: int, keep: Keep = "longest", scores: np.ndarray | None = None) -> Sifted:
        """Drop near copies with reason ``near_copy``.

        Args:
          corpus: any documents; those kept are loaded into memory (`find` loads none).
          seed: of the sample for common shingles and of the hash functions.
          keep: which document of a group stays, as in `find`.
          scores: for keep="best".

        Returns:
          kept, and dropped with ``other_id`` (the kept document), ``score`` (share of same words) and
          ``group_id`` naming the kept document.

        Raises:
          DataError: a source would be wiped out.
        """
        found = self.find(corpus, seed=seed, keep=keep, scores=scores)
        is_kept = np.ones(len(corpus), np.bool_)
        is_kept[found.removed] = False
        parts = []
        for rows in (np.flatnonzero(is_kept), found.removed):
            table = corpus.take(rows, corpus.schema.names)
            place = table.column_names.index("group_id")
            parts.append(table.set_column(place, "group_id", found.group_ids.take(pa.array(rows))))
        kept, dropped = parts
        dropped = dropped.append_column("reason", pa.array(["near_copy"] * len(dropped), TEXT))
        dropped = dropped.append_column("other_id", found.representative_ids)
        return Sifted(Corpus.from_table(kept), dropped.append_column("score", pa.array(found.scores, pa.float64())))

    def find(
        self,
        corpus: Documents,
        *,
        seed: int,
        against: Documents | None = None,
        keep: Keep = "longest",
        scores: np.ndarray | None = None,
        common: np.ndarray | None = None,
        workers: int = 1,
        scratch: Path | None = None,
        engine: Engine | None = None,
    ) -> Duplicates:
        """Find near copies. The result does not depend on batches, on the order of the rows, or on workers.

        Reads the texts twice (a sample of them three times) and those of candidates once more: about 80 MB/s
        a core. Memory: 300 bytes a document, 44 where ``scratch`` takes the band hashes of more than
        200,000 documents; texts are held for one batch a worker.

        Args:
          corpus: any documents.
          seed: of the sample for common shingles and of the hash functions.
          against: remove from ``corpus`` what is in here, and nothing else; never removes from ``against``.
          keep: of two near copies the "longest", the "first" by doc_id, or the "best" scored stays; ties go to
            the longer, then by content and doc_id.
          scores: float64 [n], higher is better; for keep="best" alone.
          common: shingles to leave out (`Duplicates.common` of another run) instead of counting them.
          workers: threads.
          scratch: folder for a temporary file of 256 bytes a document.
          engine: where the passes over all texts run; by default on ``workers`` threads. The check of pairs reads
            texts here and there, so it runs on threads of this process in any case.

        Raises:
          DataError: a source would be wiped out; names it, its counts, its largest group and three pairs.
          UsageError: keep="best" without scores, or scores of another length.
        """
        _check_scores(keep, scores, len(corpus))
        documents = buckets.Documents([corpus] if against is None else [corpus, against], self.same_title)
        run = engine or partial(map_threads, workers=workers)
        noted = buckets.outline(documents, engine=run)
        num_fixed = len(documents) - len(corpus)
        order = _global_order(noted, keep, scores, num_fixed)
        if common is None:
            common = buckets.common_shingles(documents, noted, self.width, self.common_docs_frac, seed, run)
        pool = _Pool(documents, noted, order, shingles.CommonShingles(common), num_fixed, workers, run)
        copies = self._copies(pool)
        is_long, pairs = self._candidates(pool, copies, seed, scratch)
        edges, rejections = self._verified(pool, pairs)
        sources = Sources.of(noted.sources[: len(corpus)], len(corpus))
        decision = decide(edges, copies, order, sources, self.max_source_removed_frac, self.on_wipeout == "keep")
        if decision.wiped_out:
            stop_at_wipe_out(documents, noted, sources, decision, self.max_source_removed_frac)
        judged = _Judged(copies, is_long, pairs, edges, rejections, sources, decision)
        return self._report(pool, judged)

    def collision_curve(self) -> dict[float, float]:
        """Return the chance that two documents share a bucket, for Jaccard similarities 0.1 to 0.9."""
        rows = shingles.NUM_HASHES // self.bands
        return {j / 10: 1 - (1 - (j / 10) ** rows) ** self.bands for j in range(1, 10)}

    def _report(self, pool: "_Pool", judged: "_Judged") -> Duplicates:
        """Return the result by row."""
        decision, order = judged.decision, pool.order
        num_docs = len(pool.order) - pool.num_fixed
        rows = np.arange(num_docs)
        leads = np.where(decision.representatives[rows] >= 0, decision.representatives[rows], rows)
        removed = np.flatnonzero(leads != rows)
        return Duplicates(
            removed=removed,
            representatives=leads[removed] - (num_docs if pool.num_fixed else 0),
            representative_ids=pool.noted.ids.take(pa.array(leads[removed])),
            scores=decision.scores[removed],
            group_ids=pool.noted.ids.take(pa.array(leads)),
            edges=np.stack([order[judged.edges.members], order[judged.edges.representatives]], axis=1),
            edge_scores=judged.edges.scores,
            common=pool.common.values,
            num_exact=int((judged.copies.leaders[rows] != rows).sum()),
            num_without_text=int((~judged.is_long[rows]).sum()),
            num_candidates=len(judged.pairs.members),
            num_cut=judged.pairs.num_cut,
            largest_bucket=judged.pairs.largest_bucket,
            rejections=judged.rejections,
            group_sizes=_group_sizes(leads, num_docs),
            sources=decision.table(judged.sources, judged.copies),
            curve=self.collision_curve(),
        )

    def _copies(self, pool: "_Pool") -> Copies:
        """Group documents of equal bytes; with ``against``, one of ours is a copy of theirs alone."""
        noted, num_docs = pool.noted, len(pool.order)
        ranks = _inverse(pool.order)
        titles = noted.titles if self.same_title else np.zeros(num_docs, np.uint64)
        by_content = np.lexsort((ranks, titles, noted.keys))
        keys, heads = noted.keys[by_content], titles[by_content]
        new = np.r_[True, (keys[1:] != keys[:-1]) | (heads[1:] != heads[:-1])][:num_docs]
        leaders = np.arange(num_docs)
        leaders[by_content] = by_content[np.flatnonzero(new)[np.cumsum(new) - 1]]
        if pool.num_fixed:
            ours = np.flatnonzero(leaders < num_docs - pool.num_fixed)
            leaders[ours] = ours
        rows = np.flatnonzero(leaders != np.arange(num_docs))
        unequal = rows[~equal_bytes(pool.documents, noted, rows, leaders[rows])]
        leaders[unequal] = unequal  # two texts with one hash
        return Copies(leaders)

    def _candidates(
        self, pool: "_Pool", copies: Copies, seed: int, scratch: Path | None
    ) -> tuple[np.ndarray, buckets.Candidates]:
        """Return which documents have enough text of their own, and pairs of ranks that share a bucket."""
        used: list[np.ndarray] = []

        def blocks() -> Iterator[np.ndarray]:
            columns = pool.documents.columns
            hashes = partial(_band_hashes, self, pool.common, seed, columns)
            for found, positions in pool.engine(hashes, pool.documents.tasks(columns)):
                used.append(positions)
                yield found

        num_docs = len(pool.order)
        store = buckets.BandStore(self.bands, scratch if num_docs > buckets.MEMORY_DOCS else None)
        try:
            store.fill(blocks())
            is_long = np.concatenate([np.zeros(0, np.int32), *used]) >= buckets.MIN_SHINGLES
            takes_part = is_long & (copies.leaders == np.arange(num_docs))
            ranks = np.where(takes_part, _inverse(pool.order), -1)
            return is_long, buckets.candidates(store, self.bands, ranks, pool.num_fixed)
        finally:
            store.close()

    def _verified(self, pool: "_Pool", pairs: buckets.Candidates) -> tuple[Edges, dict[str, int]]:
        """Return the pairs that pass, as edges between ranks, and how many did not, by reason."""
        check = Check(self.rule, self.width, self.min_same_words_frac, self.same_title, pool.common)
        members, representatives = pool.order[pairs.members], pool.order[pairs.representatives]
        codes, same = verify(pool.documents, pool.noted, members, representatives, check, workers=pool.workers)
        rejected = np.bincount(codes, minlength=len(REASONS)).tolist()
        passed = codes == 0
        edges = Edges(pairs.members[passed], pairs.representatives[passed], same[passed])
        return edges, {reason: num for reason, num in zip(REASONS[1:], rejected[1:], strict=True) if num}


@dataclass(frozen=True)
class _Pool:
    """What the steps of one run share: n documents, those of ``against`` at the end, and rows in the global order."""

    documents: buckets.Documents
    noted: buckets.Outline
    order: np.ndarray
    common: shingles.CommonShingles
    num_fixed: int
    workers: int
    engine: Engine


@dataclass(frozen=True)
class _Judged:
    """What the steps of one run found."""

    copies: Copies
    is_long: np.ndarray
    pairs: buckets.Candidates
    edges: Edges
    rejections: dict[str, int]
    sources: Sources
    decision: Decision


def _band_hashes(
    method: MinHash,
    common: shingles.CommonShingles,
    seed: int,
    columns: list[str],
    task: Any,  # noqa: ANN401 - a batch or a piece
) -> tuple[np.ndarray, np.ndarray]:
    """Return the band hashes of a task's documents, and how many shingles each has that are not common."""
    hashes, positions = [np.zeros((0, method.bands), np.uint32)], [np.zeros(0, np.int32)]
    for batch in batches_of(task, columns):
        texts = buckets.compared(batch, columns)
        found, num, _ = shingles.band_hashes(
            texts, bands=method.bands, width=method.width, seed=seed, common=common, minimum=buckets.MIN_SHINGLES
        )
        hashes.append(found)
        positions.append(num)
    return np.concatenate(hashes), np.concatenate(positions)


def _inverse(order: np.ndarray) -> np.ndarray:
    """Return the rank of each row."""
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _check_scores(keep: Keep, scores: np.ndarray | None, num_docs: int) -> None:
    shape = None if scores is None else np.shape(scores)
    if keep != "best" and shape is not None:
        raise UsageError(f'keep={keep!r} with scores: scores are for keep="best" alone. Leave one of them out.')
    if keep == "best" and shape != (num_docs,):
        raise UsageError(f'keep="best" with scores of shape {shape}: give one score a document, shape ({num_docs},).')
    if scores is not None and np.isnan(scores).any():
        raise UsageError(f"scores: {int(np.isnan(scores).sum())} are not numbers. Give every document a number.")


def _group_sizes(leads: np.ndarray, num_docs: int) -> dict[int, int]:
    """Return how many groups there are of each size from 2; a representative elsewhere counts as a member."""
    groups, sizes = np.unique(leads, return_counts=True)
    sizes = sizes + (groups >= num_docs)
    found, times = np.unique(sizes[sizes > 1], return_counts=True)
    return dict(zip(found.tolist(), times.tolist(), strict=True))


def _global_order(noted: buckets.Outline, keep: Keep, scores: np.ndarray | None, num_fixed: int) -> np.ndarray:
    """Return the rows, those that are kept rather first; a total order of documents, whatever their rows."""
    num_docs = len(noted.keys)
    ids = np.zeros(num_docs, np.int64)
    if keep == "first":
        tied = np.arange(num_docs)
    else:  # ids only decide between equal contents
        by_key = np.argsort(noted.keys, kind="stable")
        same = np.flatnonzero(noted.keys[by_key][1:] == noted.keys[by_key][:-1])
        tied = by_key[np.union1d(same, same + 1)]
    ids[tied[pc.sort_indices(noted.ids.take(pa.array(tied)).cast(pa.large_binary())).to_numpy()]] = np.arange(len(tied))
    keys = [ids] if keep == "first" else [ids, noted.keys, -noted.num_chars]
    if scores is not None:
        keys.append(-np.concatenate([np.asarray(scores, np.float64), np.zeros(num_fixed)]))
    if num_fixed:
        keys.append(np.r_[np.ones(num_docs - num_fixed, np.int8), np.zeros(num_fixed, np.int8)])
    return np.lexsort(keys)
