"""Contrastive refinement of a token table on crops of the documents, in numpy, kept only when a guard agrees.

Source: tamis (method card G, step 5); symmetric InfoNCE after van den Oord et al. 2018, arXiv:1807.03748; crops after
Izacard et al. 2022, Contriever, arXiv:2112.09118; Kingma, Ba 2015, Adam, arXiv:1412.6980.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

TEMPERATURE = 0.05
BATCH_PAIRS = 128
MAX_REFINE_DOCS = 10_000
_HELD_OUT_DOCS = 500
_MIN_REFINE_DOCS = 20
_MAX_MRR_LOSS = 0.005
_MIN_COSINE = 0.95
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_BLOCK_ROWS = 1024  # three arrays of a block fit the cache


@dataclass(frozen=True)
class Guard:
    """What refinement changed on held-out documents.

    Attributes:
      kept: whether the refined table is used.
      mrr_before: mean reciprocal rank of the document a crop was cut from, before.
      mrr_after: the same after.
      cosine: mean cosine of a document's vector before and after.
      why: the decision in words.
    """

    kept: bool
    mrr_before: float
    mrr_after: float
    cosine: float
    why: str

    def facts(self) -> dict[str, str | float]:
        """Return the entries of the fit's report."""
        return {
            "refined": int(self.kept),
            "refinement": self.why,
            "mrr_before": self.mrr_before,
            "mrr_after": self.mrr_after,
            "cosine": self.cosine,
        }


@dataclass(frozen=True)
class Texts:
    """Word sequences and what each word is made of.

    Attributes:
      flat: int32 [N] words of all texts, end to end.
      offsets: int [D + 1].
      segments: float32 [W, G] groups in each word.
    """

    flat: np.ndarray
    offsets: np.ndarray
    segments: sparse.csr_array

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    def spans(self, starts: np.ndarray, stops: np.ndarray) -> sparse.csr_array:
        """Return float32 [B, G]: group counts of the word spans [start, stop) of ``flat``."""
        lengths = stops - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        ones = np.ones(len(positions), dtype=np.float32)
        shape = (len(starts), self.segments.shape[0])
        return sparse.csr_array((ones, self.flat[positions], offsets), shape=shape) @ self.segments

    def crops(self, texts: np.ndarray, rng: np.random.Generator) -> sparse.csr_array:
        """Return float32 [B, G]: a random span of 10 to 50 % of the words (one at least) of each text."""
        sizes = self.offsets[texts + 1] - self.offsets[texts]
        lengths = np.ceil(sizes * rng.uniform(0.1, 0.5, len(texts))).astype(np.int64)
        starts = self.offsets[texts] + np.floor(rng.random(len(texts)) * (sizes - lengths + 1)).astype(np.int64)
        return self.spans(starts, starts + lengths)

    def whole(self, texts: np.ndarray) -> sparse.csr_array:
        """Return float32 [B, G]: group counts of whole texts."""
        return self.spans(self.offsets[texts].astype(np.int64), self.offsets[texts + 1].astype(np.int64))


def info_nce(table_GH: np.ndarray, left_BG: sparse.csr_array, right_BG: sparse.csr_array) -> tuple[float, np.ndarray]:
    """Symmetric InfoNCE of paired bags, and its gradient.

    A text's vector is the sum of its groups' rows scaled to norm 1 (of the mean it is the same). Row i of both
    sides belong together, all others of the batch are negatives. A text of norm 0 has no gradient.

    Returns:
      The loss, a mean over both directions, and its gradient by ``table_GH`` (float32 [G, H]).
    """
    A_BH, left_norm_B = _unit(left_BG @ table_GH)
    B_BH, right_norm_B = _unit(right_BG @ table_GH)
    logits_BB = A_BH @ B_BH.T / TEMPERATURE
    rows_BB, row_loss = _softmax(logits_BB)
    columns_BB, column_loss = _softmax(logits_BB.T)
    slope_BB = (rows_BB + columns_BB.T - 2 * np.eye(len(logits_BB), dtype=np.float32)) / (
        2 * len(logits_BB) * TEMPERATURE
    )
    left_BH = _through_norm(slope_BB @ B_BH, A_BH, left_norm_B)
    right_BH = _through_norm(slope_BB.T @ A_BH, B_BH, right_norm_B)
    return (row_loss + column_loss) / 2, left_BG.T @ left_BH + right_BG.T @ right_BH


def _unit(sums_BH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    norms_B = np.linalg.norm(sums_BH, axis=1)
    safe_B = np.where(norms_B > 0, norms_B, np.inf).astype(sums_BH.dtype)
    return sums_BH / safe_B[:, None], safe_B


def _softmax(logits_BB: np.ndarray) -> tuple[np.ndarray, float]:
    shifted = logits_BB - logits_BB.max(axis=1, keepdims=True)
    exponents = np.exp(shifted)
    sums = exponents.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(sums[:, 0]) - np.diagonal(shifted)))
    return exponents / sums, loss


def _through_norm(slope_BH: np.ndarray, unit_BH: np.ndarray, norm_B: np.ndarray) -> np.ndarray:
    along_B = (slope_BH * unit_BH).sum(axis=1, keepdims=True)
    return np.asarray((slope_BH - unit_BH * along_B) / norm_B[:, None])


class Adam:
    """Adam over a whole table, in place; a row without gradient still moves by its momentum."""

    def __init__(self, table_GH: np.ndarray) -> None:
        """Start at zero moments."""
        self.table_GH = table_GH
        self._first_GH, self._second_GH = np.zeros_like(table_GH), np.zeros_like(table_GH)
        self._step = 0

    def step(self, gradient_GH: np.ndarray, lr: float) -> None:
        """Take one step. O(G·H)."""
        self._step += 1
        lr_t = lr / (1 - _BETA_1**self._step)
        root = 1 / np.sqrt(1 - _BETA_2**self._step)
        for start in range(0, len(self.table_GH), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            g, m, v = gradient_GH[rows], self._first_GH[rows], self._second_GH[rows]
            m *= _BETA_1
            m += (1 - _BETA_1) * g
            v *= _BETA_2
            v += (1 - _BETA_2) * g * g
            update = np.sqrt(v)
            update *= root
            update += _EPSILON
            np.divide(m, update, out=update)
            update *= lr_t
            self.table_GH[rows] -= update


def refine(
    table_GH: np.ndarray,
    texts: Texts,
    *,
    epochs: int,
    lr: float,
    seed: int,
    pairs: tuple[sparse.csr_array, sparse.csr_array] | None = None,
) -> tuple[np.ndarray, Guard]:
    """Refine a table and let the guard decide.

    Args:
      table_GH: float32 [G, H] of the groups; unchanged.
      texts: the documents, in random order; the first 500 (a fifth at most) are held out.
      epochs: rounds, each with two pairs a document.
      lr: Adam's learning rate at the start, for rows of RMS norm 1; falls linearly to 0.
      seed: of crops and batches.
      pairs: group counts of texts that mean the same [P, G], trained on in place of crops.

    Returns:
      The refined table when it is kept, else the given one; and what the guard saw.
    """
    usable = np.flatnonzero(np.diff(texts.offsets) > 0)[: MAX_REFINE_DOCS + _HELD_OUT_DOCS]
    if not epochs or lr <= 0:
        return table_GH, Guard(False, 0.0, 0.0, 1.0, "switched off")
    if len(usable) < _MIN_REFINE_DOCS or not table_GH.any():
        return table_GH, Guard(False, 0.0, 0.0, 1.0, f"{len(usable)} documents are too few to judge it by")
    held, train = np.split(usable, [min(_HELD_OUT_DOCS, len(usable) // 5)])
    norms = np.linalg.norm(table_GH, axis=1)
    refined_GH = table_GH / np.float32(np.sqrt(np.mean(norms[norms > 0] ** 2)))
    num_texts = 2 * len(train) if pairs is None else pairs[0].shape[0]
    total = epochs * -(-num_texts // BATCH_PAIRS)
    adam = Adam(refined_GH)
    for step, (left, right) in enumerate(_batches(texts, train, pairs, epochs, seed)):
        _, gradient_GH = info_nce(refined_GH, left, right)
        adam.step(gradient_GH, lr * max(0.0, 1 - step / total))
    guard = judge(table_GH, refined_GH, texts, held, usable, seed=seed)
    return (refined_GH if guard.kept else table_GH), guard


def _batches(
    texts: Texts, train: np.ndarray, pairs: tuple[sparse.csr_array, sparse.csr_array] | None, epochs: int, seed: int
) -> Iterator[tuple[sparse.csr_array, sparse.csr_array]]:
    """Yield paired bags. A document comes once in a round, so that it is seldom its own negative."""
    rng = np.random.default_rng([seed, 1])
    for _ in range(epochs):
        for _ in range(2 if pairs is None else 1):
            order = rng.permutation(len(train) if pairs is None else pairs[0].shape[0])
            for start in range(0, len(order), BATCH_PAIRS):
                chosen = order[start : start + BATCH_PAIRS]
                if pairs is None:
                    yield texts.crops(train[chosen], rng), texts.crops(train[chosen], rng)
                else:
                    yield pairs[0][chosen], pairs[1][chosen]


def judge(
    before_GH: np.ndarray, after_GH: np.ndarray, texts: Texts, held: np.ndarray, among: np.ndarray, *, seed: int
) -> Guard:
    """Compare two tables on crops of held-out documents, looked for among many: the pseudo-task alone misleads.

    Keep the new one when the mean reciprocal rank falls by less than .005 and documents stay where they were
    (mean cosine .95 or more).
    """
    queries_QG = texts.crops(held, np.random.default_rng([seed, 2]))
    documents_DG = texts.whole(among)
    source = np.searchsorted(among, held)
    vectors = [_unit(documents_DG @ table)[0] for table in (before_GH, after_GH)]
    before, after = (
        _mean_reciprocal_rank(_unit(queries_QG @ table)[0] @ vectors_DH.T, source)
        for table, vectors_DH in zip((before_GH, after_GH), vectors, strict=True)
    )
    weighty = vectors[0].any(axis=1)
    cosine = float((vectors[0] * vectors[1]).sum(axis=1)[weighty].mean()) if weighty.any() else 1.0
    figures = f"held-out MRR {before:.4f} to {after:.4f}, mean cosine to the old vectors {cosine:.3f}"
    if not np.isfinite(after_GH).all():
        return Guard(False, before, after, cosine, "dropped: it diverged")
    if before - after >= _MAX_MRR_LOSS:
        return Guard(False, before, after, cosine, f"dropped, {figures}: crops are found less well")
    if cosine < _MIN_COSINE:
        return Guard(False, before, after, cosine, f"dropped, {figures}: it drifted too far")
    return Guard(True, before, after, cosine, f"kept, {figures}")


def _mean_reciprocal_rank(scores_QD: np.ndarray, source: np.ndarray) -> float:
    own_Q = scores_QD[np.arange(len(source)), source][:, None]
    ranks_Q = 1 + (scores_QD > own_Q).sum(axis=1) + ((scores_QD == own_Q).sum(axis=1) - 1) / 2
    return float(np.mean(1 / ranks_Q))
