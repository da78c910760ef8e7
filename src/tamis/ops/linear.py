"""Linear models over hashed n-grams: AdaGrad training, Platt calibration, tf-idf rows, and what a weight stands for.

Source: tamis design (method card C3); AdaGrad: Duchi, Hazan, Singer 2011; calibration: Platt 1999.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.ops.bytes import Texts, character_tables, text_buffers
from tamis.ops.ngrams import check_buckets, feature_buckets, score_ngrams


@dataclass(frozen=True)
class LinearModel:
    """A logistic model: weights float64 [V] of hashed n-grams of ``order``, and a bias."""

    weights_V: np.ndarray
    bias: float
    order: int

    def logits(self, texts: Texts) -> np.ndarray:
        """Return float64 [n]: sum of weights over the square root of the number of features, plus bias."""
        sums, num_tokens = score_ngrams(texts, self.weights_V, self.order)
        logits: np.ndarray = sums / np.sqrt(np.maximum(num_features(num_tokens, self.order), 1)) + self.bias
        return logits


def num_features(num_tokens: np.ndarray, order: int) -> np.ndarray:
    """Return int64 [n]: how many features texts of so many tokens have."""
    counts: np.ndarray = num_tokens.astype(np.int64)
    return counts if order == 1 else np.maximum(2 * counts - 1, 0)


def train_logistic(
    texts: Texts,
    labels: np.ndarray,
    importance: np.ndarray,
    rows: np.ndarray,
    *,
    num_buckets: int,
    order: int = 2,
    epochs: int = 3,
    rate: float = 0.1,
) -> LinearModel:
    """Train by AdaGrad, one text at a time; about 200 MB and epoch a second.

    Of a text with k features the logit is s = sum(w) / sqrt(k) + b; with g = importance * (sigmoid(s) - label) and
    gg = g / sqrt(k), each feature in text order takes v += gg^2, w -= rate * gg / sqrt(v + 1e-8), and b -= 0.01 g.

    Args:
      texts: n strings; one without tokens is passed over.
      labels: float64 [n], 0 to 1.
      importance: float64 [n], factor of a text's gradient.
      rows: int64, the texts to learn from, in the order of the steps; others are unused.
      num_buckets: V.
      order: 1 for words, 2 for words and pairs.
      epochs: passes over ``rows``.
      rate: the learning rate.

    Raises:
      UsageError: another order or number of buckets.
    """
    from tamis.ops import linear_kernels

    check_buckets(num_buckets, order)
    data, offsets = text_buffers(texts)
    weights, squares, bias = np.zeros(num_buckets), np.zeros(num_buckets), 0.0
    y, factor = np.ascontiguousarray(labels, np.float64), np.ascontiguousarray(importance, np.float64)
    steps, room = np.ascontiguousarray(rows, np.int64), _room(offsets)
    for _ in range(epochs):
        bias = linear_kernels.adagrad_epoch(
            data,
            offsets,
            *character_tables(),
            steps,
            y,
            factor,
            float(rate),
            order,
            weights,
            squares,
            float(bias),
            room,
        )
    return LinearModel(weights, float(bias), order)


def document_frequencies(texts: Texts, num_buckets: int, order: int = 2) -> np.ndarray:
    """Return int64 [V]: in how many of the texts each bucket occurs. Counts of batches add up.

    Raises:
      UsageError: another order or number of buckets.
    """
    from tamis.ops import linear_kernels

    check_buckets(num_buckets, order)
    data, offsets = text_buffers(texts)
    counts: np.ndarray = linear_kernels.document_frequencies(
        data, offsets, *character_tables(), num_buckets, order, _room(offsets)
    )
    return counts


def tfidf_rows(texts: Texts, idf_V: np.ndarray, order: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the texts as unit vectors of (1 + ln tf) * idf, in compressed rows.

    Args:
      texts: n strings.
      idf_V: float64 [V]; buckets of 0 are left out.
      order: 1 or 2.

    Returns:
      values float64 [Z], buckets int32 [Z] in the order of first occurrence, starts int64 [n + 1], as
      `scipy.sparse.csr_array` takes them; a text without weight is an empty row.

    Raises:
      UsageError: another order or number of buckets.
    """
    from tamis.ops import linear_kernels

    check_buckets(len(idf_V), order, most=1 << 31)
    data, offsets = text_buffers(texts)
    idf = np.ascontiguousarray(idf_V, np.float64)
    columns, values, starts = linear_kernels.tfidf_rows(data, offsets, *character_tables(), idf, order, _room(offsets))
    return values, columns, starts


def platt(logits: np.ndarray, labels: np.ndarray, importance: np.ndarray) -> tuple[float, float]:
    """Return scale and offset that turn logits into calibrated log-odds: scale * logit + offset.

    Labels are drawn in by one count a class, as in Platt 1999, so that separable classes stay finite.

    Args:
      logits: float64 [n], of texts the model has not seen.
      labels: bool [n], both classes present.
      importance: float64 [n], weight of a text; the odds are those of the weighted sample.

    Returns:
      scale, at least 1e-6 (the order never turns round), and offset.
    """
    num_positive, num_negative = int(labels.sum()), int((~labels).sum())
    wanted = np.where(labels, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))
    spread = float(logits.std()) or 1.0
    middle = float(logits.mean())
    x = np.stack([(logits - middle) / spread, np.ones(len(logits))], axis=1)
    beta = np.zeros(2)
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-np.clip(x[:, 0] * beta[0] + beta[1], -500, 500)))
        gradient = (x * (importance * (p - wanted))[:, None]).sum(axis=0)
        outer = x[:, :, None] * x[:, None, :]  # summed without BLAS: the same for any number of threads
        curvature = (outer * (importance * p * (1 - p))[:, None, None]).sum(axis=0) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        beta -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    scale = max(float(beta[0]) / spread, 1e-6)
    return scale, float(beta[1]) - scale * middle


def named_features(text: str, num_buckets: int, order: int = 2) -> list[tuple[str, int]]:
    """Return every feature of one text, spelled out, with its bucket; words lower-cased, pairs joined by a blank.

    Args:
      text: of any length; for reading, not for speed.
      num_buckets: V.
      order: 1 or 2.

    Raises:
      UsageError: another order or number of buckets.
    """
    buckets = feature_buckets([text], num_buckets, order)[0].tolist()
    words = _tokens(text)
    names: list[str] = []
    for at, word in enumerate(words):
        names.append(word)
        if order == 2 and at:
            names.append(f"{words[at - 1]} {word}")
    return list(zip(names, buckets, strict=True))


def _tokens(text: str) -> list[str]:
    """Cut as the kernels do: runs of one class, characters of spaceless scripts alone."""
    classes = character_tables()[0]
    tokens: list[str] = []
    last = 0
    for char in text:
        code = ord(char)
        kind = int(classes[code]) if code < 0x10000 else 3 if 0x20000 <= code < 0x40000 else 0
        if code >= 0x10000 and not kind:
            kind = 2 if 0x1F000 <= code < 0x1FB00 else 1
        if kind and kind == last and kind != 3:
            tokens[-1] += char
        elif kind:
            tokens.append(char)
        last = kind
    return [token.lower() for token in tokens]


def cut_texts(texts: pa.Array, max_chars: int) -> pa.Array:
    """Return the first ``max_chars`` characters of each text; the array itself where none is longer."""
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    return texts if longest <= max_chars else pc.utf8_slice_codeunits(texts, 0, max_chars)


def _room(offsets: np.ndarray) -> np.ndarray:
    """Return space for the features of the longest text: a token has at least one byte."""
    return np.empty(2 * int(np.diff(offsets).max(initial=0)) + 1, np.int32)
