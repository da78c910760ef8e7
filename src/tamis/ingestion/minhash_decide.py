"""Which near copies go: only by a verified edge to a document that stays, and never nearly a whole source.

Source: tamis, method card I5, after marin-community/marin, issue 6854 (859,092 documents of one source became 2).
"""

from dataclasses import dataclass
from typing import NoReturn, Self

import numpy as np
import pyarrow as pa

from tamis.errors import DataError
from tamis.ingestion.minhash_candidates import Documents, Outline
from tamis.ops import shingles

MIN_REMOVED_DOCS = 20
_EXCERPT_CHARS = 80


@dataclass(frozen=True)
class Edges:
    """Verified pairs of ranks in the global order, the representative ahead of the member; share of same words."""

    members: np.ndarray
    representatives: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Copies:
    """Rows of equal bytes: leaders int64 [n], the row ahead of all others of the group, itself where there is none."""

    leaders: np.ndarray


@dataclass(frozen=True)
class Sources:
    """Where each document comes from: names sorted, codes int64 [n] into them, -1 for documents of ``against``."""

    names: list[str]
    codes: np.ndarray

    @classmethod
    def of(cls, sources: pa.Array, num_docs: int) -> Self:
        """Number the sources of the first ``num_docs`` documents by name."""
        encoded = sources.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        order = sorted(range(len(names)), key=names.__getitem__)
        places = np.empty(len(names), np.int64)
        places[order] = np.arange(len(names))
        codes = encoded.indices.to_numpy(zero_copy_only=False)[:num_docs]
        return cls([names[i] for i in order], places[codes] if len(names) else np.zeros(0, np.int64))

    def count(self, rows: np.ndarray) -> np.ndarray:
        """Return how many of the rows each source has."""
        return np.bincount(self.codes[rows], minlength=len(self.names))


@dataclass(frozen=True)
class Decision:
    """What happens to each of n documents (those of ``against`` at the end always stay).

    Attributes:
      representatives: int64 [n] row of the document that stays in its place, -1 for one that stays.
      scores: float64 [n] share of same words with it, 0 for one that stays.
      is_near: bool [n], removed as a near copy, not as one of equal bytes.
      wiped_out: sources (codes) that lose too much.
      protected: int64, documents a source, near copies that stay because their source would have been wiped out.
    """

    representatives: np.ndarray
    scores: np.ndarray
    is_near: np.ndarray
    wiped_out: list[int]
    protected: np.ndarray

    def table(self, sources: Sources, copies: Copies) -> pa.Table:
        """Return source, docs, removed, exact (of the removed), protected; by name."""
        rows = np.arange(len(sources.codes))
        removed = rows[self.representatives[rows] >= 0]
        return pa.table(
            {
                "source": pa.array(sources.names, pa.large_string()),
                "docs": sources.count(rows),
                "removed": sources.count(removed),
                "exact": sources.count(removed[copies.leaders[removed] != removed]),
                "protected": self.protected,
            }
        )


def decide(
    edges: Edges, copies: Copies, order: np.ndarray, sources: Sources, max_removed_frac: float, protects: bool
) -> Decision:
    """Walk the documents in the global order and remove those with an edge to a document that is still kept.

    A copy of equal bytes has the edges of its leader and one to it, so it always goes. A source that loses more
    than ``max_removed_frac`` of its distinct texts is protected, and the walk is done again, until none is left;
    or reported in ``wiped_out``.

    Args:
      edges: verified pairs.
      copies: groups of equal bytes.
      order: int64 [n] row of each rank.
      sources: of the documents that may be removed: the first rows.
      max_removed_frac: of a source.
      protects: keep the near copies of such sources instead of reporting them.
    """
    by_member = np.lexsort((edges.representatives, -edges.scores, edges.members))
    members, representatives = edges.members[by_member], edges.representatives[by_member]
    num_ours = len(sources.codes)
    rows = np.arange(num_ours)
    is_leader = copies.leaders == np.arange(len(order))
    totals = sources.count(rows[is_leader[:num_ours]])
    is_protected = np.zeros(len(order), np.bool_)  # by row
    ever = np.zeros(num_ours, np.bool_)  # removed in some round
    while True:
        chosen = shingles.keep_walk(members, representatives, is_protected[order])
        near = np.full(len(order), -1, np.int64)
        gone = np.flatnonzero(chosen >= 0)
        near[order[gone]] = order[representatives[chosen[gone]]]
        removed = np.flatnonzero(near[:num_ours] >= 0)
        ever[removed] = True
        lost = sources.count(removed)
        wiped = np.flatnonzero((lost >= MIN_REMOVED_DOCS) & (lost > max_removed_frac * totals)).tolist()
        if not wiped or not protects:
            break
        is_protected[:num_ours] |= np.isin(sources.codes, wiped)
    scores = np.zeros(len(order))
    scores[order[gone]] = edges.scores[by_member][chosen[gone]]
    representative = near.copy()
    followers = np.flatnonzero(~is_leader)
    leaders = copies.leaders[followers]
    follows_near = near[leaders] >= 0
    representative[followers] = np.where(follows_near, near[leaders], leaders)
    scores[followers] = np.where(follows_near, scores[leaders], 1.0)
    protected = sources.count(np.flatnonzero(ever & is_protected[:num_ours]))
    return Decision(representative, scores, near >= 0, wiped, protected)


def stop_at_wipe_out(
    documents: Documents, noted: Outline, sources: Sources, decision: Decision, max_removed_frac: float
) -> NoReturn:
    """Raise the error for the first source that would be wiped out.

    Raises:
      DataError: names the source, its counts, the largest group and three pairs with where they part.
    """
    code = decision.wiped_out[0]
    rows = np.flatnonzero((sources.codes == code) & decision.is_near[: len(sources.codes)])
    total = int((sources.codes == code).sum())
    leads, sizes = np.unique(decision.representatives[rows], return_counts=True)
    largest = int(leads[np.argmax(sizes)])
    ids = [str(noted.ids[int(row)]) for row in rows[:: max(1, len(rows) // 3)][:3]]
    lines = []
    for row in rows[:: max(1, len(rows) // 3)][:3].tolist():
        other = int(decision.representatives[row])
        lines.append(f"  {noted.ids[row]} beside {noted.ids[other]}, same words {decision.scores[row]:.3f}:")
        lines += [f"    {part}" for part in _where_they_part(documents, row, other)]
    more = len(decision.wiped_out) - 1
    raise DataError(
        f"source {sources.names[code]!r}: {len(rows)} of {total} documents are near copies of others, more than "
        f"{max_removed_frac:g} of it; the largest group has {int(sizes.max()) + 1}, led by {noted.ids[largest]}"
        + (f" ({more} further sources as well)" if more else "")
        + ". Records of one template look like this:\n"
        + "\n".join(lines)
        + f'\nLook at {", ".join(ids)}. If they are copies, raise max_source_removed_frac; if not, on_wipeout="keep" '
        "leaves that source as it is."
    )


def _where_they_part(documents: Documents, row: int, other: int) -> tuple[str, str]:
    """Return an excerpt of each of two texts, from shortly before the first difference."""
    first, second = (documents.take(np.array([r])).to_pylist()[0] for r in (row, other))
    same = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    start = max(0, same - _EXCERPT_CHARS // 3)
    return repr(first[start : start + _EXCERPT_CHARS]), repr(second[start : start + _EXCERPT_CHARS])
