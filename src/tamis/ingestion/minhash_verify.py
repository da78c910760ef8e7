"""Verification of candidate pairs on the full texts: what decides that two documents are near copies.

Source: rule ``aligned``: tamis, method card I5; rule ``contained``: after the information-preserving check of the
marin project (marin-community/marin, pull request 7591).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.engines.threads import map_threads
from tamis.ingestion.minhash_candidates import Documents, Outline
from tamis.ops import alignment, shingles

BATCH_BYTES = 16 << 20
REASONS = (
    "accepted",
    "other_title",
    "too_many_edits",
    "too_little_in_common",
    "too_long_to_align",
    "member_is_longer",
    "new_words",
)
"""What became of a pair; its code is the position here."""
_CODE = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Check:
    """How a pair is verified; the settings of MinHash that matter here, and the common shingles."""

    rule: str
    width: int
    min_same_words_frac: float
    same_title: bool
    common: shingles.CommonShingles


@dataclass(frozen=True)
class _Batch:
    """Texts of distinct rows and pairs of positions among them."""

    texts: pa.Array
    left: np.ndarray
    right: np.ndarray


def verify(
    documents: Documents,
    noted: Outline,
    members: np.ndarray,
    representatives: np.ndarray,
    check: Check,
    *,
    workers: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what became of each pair, codes uint8 [P], and the share of same words, float64 [P], 0 if rejected.

    Texts are read again in batches of at most 16 MiB for pairs whose titles allow it.

    Args:
      documents: all documents.
      noted: their outline.
      members: int64 [P] rows.
      representatives: int64 [P] rows.
      check: the rule.
      workers: threads.
    """
    codes = np.zeros(len(members), np.uint8)
    scores = np.zeros(len(members))
    if check.same_title:
        one, other = noted.titles[members], noted.titles[representatives]
        codes[(one != other) & (one != 0) & (other != 0)] = _CODE["other_title"]
    if check.rule == "contained":
        longer = noted.num_chars[members] > noted.num_chars[representatives]
        codes[longer & (codes == 0)] = _CODE["member_is_longer"]
    open_pairs = np.flatnonzero(codes == 0)
    groups = _groups(open_pairs, noted, members, representatives)
    judge = _aligned if check.rule == "aligned" else _contained
    tasks = _read(documents, groups, members, representatives)
    results = map_threads(lambda batch: judge(batch, check), tasks, workers=workers)
    for pairs, (found, same) in zip(groups, results, strict=True):
        codes[pairs], scores[pairs] = found, same
    return codes, scores


def equal_bytes(documents: Documents, noted: Outline, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return whether what is compared of each two rows is equal, byte for byte; bool [P]."""
    equal = np.zeros(len(left), np.bool_)
    groups = _groups(np.arange(len(left)), noted, left, right)
    for pairs, batch in zip(groups, _read(documents, groups, left, right), strict=True):
        same = pc.equal(batch.texts.take(pa.array(batch.left)), batch.texts.take(pa.array(batch.right)))
        equal[pairs] = same.to_numpy(zero_copy_only=False)
    return equal


def _groups(pairs: np.ndarray, noted: Outline, left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    """Cut the pairs, by place of their documents, into batches of bounded size."""
    pairs = pairs[np.lexsort((left[pairs], right[pairs]))]
    size = noted.num_bytes[left[pairs]]
    new = np.r_[True, right[pairs][1:] != right[pairs][:-1]][: len(pairs)]
    size = size + np.where(new, noted.num_bytes[right[pairs]], 0)
    number = np.cumsum(size) // BATCH_BYTES
    return [group for group in np.split(pairs, np.flatnonzero(np.diff(number)) + 1) if len(group)]


def _read(documents: Documents, groups: list[np.ndarray], left: np.ndarray, right: np.ndarray) -> Iterator[_Batch]:
    for pairs in groups:
        rows = np.unique(np.concatenate([left[pairs], right[pairs]]))
        places = np.searchsorted(rows, left[pairs]), np.searchsorted(rows, right[pairs])
        yield _Batch(documents.take(rows), *places)


def _aligned(batch: _Batch, check: Check) -> tuple[np.ndarray, np.ndarray]:
    """Few enough word edits, and enough in common of what is not boilerplate."""
    tokens, starts = shingles.word_hashes(batch.texts)
    left, right = batch.left, batch.right
    lengths = np.diff(starts)
    longer = np.maximum(lengths[left], lengths[right])
    # in integers: int((1 - 0.8) * length) is one too small for every length that 5 divides
    limits = longer * round((1 - check.min_same_words_frac) * 10_000) // 10_000
    edits = alignment.distances(tokens, starts, left, right, limits)
    codes = np.where(edits > limits, _CODE["too_many_edits"], 0).astype(np.uint8)
    codes[edits < 0] = _CODE["too_long_to_align"]
    near = np.flatnonzero(codes == 0)
    wanted = np.zeros(len(lengths), np.bool_)
    wanted[left[near]] = wanted[right[near]] = True
    sets, set_starts = shingles.shingle_sets(tokens, starts, wanted, check.width, check.common)
    sizes = np.diff(set_starts)
    both = alignment.intersections(sets, set_starts, left[near], right[near])
    union = sizes[left[near]] + sizes[right[near]] - both
    codes[near[10 * both < 3 * union]] = _CODE["too_little_in_common"]
    return codes, np.where(codes == 0, (longer - edits) / np.maximum(longer, 1), 0.0)


def _contained(batch: _Batch, check: Check) -> tuple[np.ndarray, np.ndarray]:
    """Nothing of the member is lost: its shingles, or its words, are in the representative.

    Texts that repeat themselves must be contained as they are; texts without real words are compared by characters.
    """
    tokens, starts = shingles.word_hashes(batch.texts)
    left, right = batch.left, batch.right
    lengths = np.diff(starts)
    everyone = np.ones(len(lengths), np.bool_)
    sets, set_starts = shingles.shingle_sets(tokens, starts, everyone, check.width)
    words, word_starts = shingles.shingle_sets(tokens, starts, everyone, 1)
    num_words = np.diff(word_starts)
    shared, size = alignment.intersections(sets, set_starts, left, right), np.maximum(np.diff(set_starts)[left], 1)
    share = shared / size
    no_new = alignment.intersections(words, word_starts, left, right) == num_words[left]
    accepted = (50 * shared >= 49 * size) | no_new
    positions = np.maximum(lengths - check.width + 1, 1)
    repeats = 10 * np.diff(set_starts) < 9 * positions
    by_sequence = repeats[left] | repeats[right]
    pairs = np.flatnonzero(by_sequence)
    accepted[pairs] = alignment.contains(tokens, starts, left[pairs], right[pairs])
    chars = shingles.num_chars(batch.texts)
    wordless = chars > 10 * np.maximum(lengths, 1)
    pairs = np.flatnonzero(wordless[left] | wordless[right])
    if len(pairs):
        grams, gram_starts = shingles.character_sets(batch.texts, 5)
        sizes = np.diff(gram_starts)
        both = alignment.intersections(grams, gram_starts, left[pairs], right[pairs])
        union = np.maximum(sizes[left[pairs]] + sizes[right[pairs]] - both, 1)
        accepted[pairs], share[pairs] = 10 * both >= 9 * union, both / union
    return np.where(accepted, 0, _CODE["new_words"]).astype(np.uint8), np.where(accepted, share, 0.0)
