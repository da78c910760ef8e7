"""DSIR: documents whose words are likelier in the target than in the pool, weighed by hashed n-grams.

Source: Xie, Santurkar, Ma, Liang 2023, Data Selection for Language Models via Importance Resampling,
arXiv:2302.03169 (mode "paper"). Mode "small_target" (raw prior, mean per token): tamis design (method card C1).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.corpus import Documents
from tamis.errors import DataError
from tamis.ops.hashing import array_keys, gumbel
from tamis.ops.ngrams import count_ngrams, count_ngrams_twice, score_ngrams
from tamis.ops.sketches import Histogram, OrderedHistogram
from tamis.ops.text import joined
from tamis.selection.choice import seen
from tamis.selection.divergence import NUM_BUCKETS, smoothed
from tamis.selection.selector import Selector

_EPS = 1e-8


@dataclass(frozen=True)
class DSIRSketch:
    """What is counted of a pool.

    Attributes:
      ngrams: counts of the method's buckets.
      tokens: of the documents, where a draw needs their median.
      figures: counts of the buckets that figures are made on, where they do not follow from the method's; else empty.
    """

    ngrams: Histogram
    tokens: OrderedHistogram
    figures: Histogram

    def merge(self, other: Self) -> Self:
        """Return the counts of both."""
        tokens, figures = self.tokens.merge(other.tokens), self.figures.merge(other.figures)
        return type(self)(self.ngrams.merge(other.ngrams), tokens, figures)


@dataclass(frozen=True)
class DSIRModel:
    """Log-weights of the buckets float64 [V]; for a draw, what means are multiplied with, and its seed."""

    weights_V: np.ndarray
    scale: float
    seed: int


class DSIR(Selector):
    """Keep the documents with the highest importance weight. Two passes at about 500 MB/s a core, 2 MiB of counts.

    The paper's weight of a bucket is ln(p + 1e-8) - ln(q + 1e-8), p its share in the target and q in the pool; a
    document's is the sum over its features. With a handful of target documents nearly all buckets are unseen, each
    costs about 10, and long documents cannot win. So "small_target" spreads ``prior`` times the target's mass as the
    pool is spread (an unseen bucket costs ln(prior / (1 + prior)), -0.69) and takes the mean over tokens.

    Attributes:
      mode: "small_target", or "paper" for the published weights and their sum.
      num_buckets: of hashed n-grams; None for the mode's own: 262,144, the paper's 10,000.
      order: 1 for words, 2 for words and pairs (the paper's).
      prior: mass of the pool's distribution, as a multiple of the target's; unused in mode "paper".
      sampling: "top" for the best, "gumbel" for a draw without replacement in proportion to e^weight; None for the
        mode's own: top, the paper's gumbel. The score of a draw is the weight with its noise.
      temperature: the weights of a draw are divided by it; the paper's is 1. Unused with "top".
      min_tokens: shorter documents are refused (reason ``too_few_tokens``), as chance decides their mean; None for
        the mode's own: 20, the paper's 100.
    """

    refusal: ClassVar[str] = "too_few_tokens"

    method: Literal["dsir"] = "dsir"
    mode: Literal["small_target", "paper"] = "small_target"
    num_buckets: Annotated[int, Field(ge=2, le=2**26)] | None = None
    order: Literal[1, 2] = 2
    prior: Annotated[float, Field(gt=0)] = 1.0
    sampling: Literal["top", "gumbel"] | None = None
    temperature: Annotated[float, Field(gt=0)] = 1.0
    min_tokens: Annotated[int, Field(ge=1)] | None = None

    def sketch(self, batch: pa.RecordBatch, *, seed: int) -> DSIRSketch:
        """Count the batch's n-grams."""
        texts = joined(batch)
        tokens = OrderedHistogram.empty()
        if self._draws and self.mode == "small_target":
            num_tokens = score_ngrams(texts, np.zeros(1), 1)[1]
            tokens = tokens.add(num_tokens.astype(np.float64))
        num_figures = 0 if self._num_buckets % NUM_BUCKETS == 0 or self.order != 2 else NUM_BUCKETS
        ngrams_V, figures_V = count_ngrams_twice(texts, self._num_buckets, num_figures, self.order)
        return DSIRSketch(Histogram(ngrams_V), tokens, Histogram(figures_V))

    def fit(self, pool: DSIRSketch, target: Documents, *, seed: int) -> DSIRModel:
        """Return the log-weights of target against pool.

        Args:
          pool: the counts of the whole pool.
          target: any number of documents; all of their features count.
          seed: of the noise of a draw.

        Raises:
          DataError: the pool or the target has no words.
        """
        raw_V = pool.ngrams.counts
        target_V = np.zeros(self._num_buckets, np.int64)
        for batch in target.batches(seen(target)):
            target_V += count_ngrams(joined(batch), self._num_buckets, self.order)
        for name, counts_V in (("pool", raw_V), ("target", target_V)):
            if not counts_V.any():
                raise DataError(f"the {name} has no words: there is nothing to compare. Give documents with text.")
        if self.mode == "paper":
            return DSIRModel(paper_weights(raw_V, target_V), 1.0, seed)
        scale = pool.tokens.quantile(0.5) if len(pool.tokens) else 1.0
        return DSIRModel(small_target_weights(raw_V, target_V, self.prior), scale, seed)

    def score(self, batch: pa.RecordBatch, model: DSIRModel) -> np.ndarray:
        """Return float64 [n]: the weight (mean over tokens, or the paper's sum); -inf under ``min_tokens``."""
        texts = joined(batch)
        sums, num_tokens = score_ngrams(texts, model.weights_V, self.order)
        scores = sums if self.mode == "paper" else sums / np.maximum(num_tokens, 1)
        if self._draws:
            noise = gumbel(array_keys(texts), model.seed, "gumbel")
            scores = scores * model.scale / self.temperature + noise
        least = self.min_tokens or (100 if self.mode == "paper" else 20)
        kept: np.ndarray = np.where(num_tokens >= least, scores, -np.inf)
        return kept

    def pool_counts(self, pool: DSIRSketch) -> np.ndarray | None:
        """Return the n-gram counts that figures are made of: counted beside the method's, or summed from its parts."""
        if self.order != 2:
            return None
        if len(pool.figures.counts):
            return pool.figures.counts
        summed: np.ndarray = pool.ngrams.counts.reshape(NUM_BUCKETS, -1).sum(axis=1)
        return summed

    @property
    def _num_buckets(self) -> int:
        return self.num_buckets or (10_000 if self.mode == "paper" else 1 << 18)

    @property
    def _draws(self) -> bool:
        return (self.sampling or ("gumbel" if self.mode == "paper" else "top")) == "gumbel"


def paper_weights(raw_V: np.ndarray, target_V: np.ndarray) -> np.ndarray:
    """Return float64 [V]: ln(p + 1e-8) - ln(q + 1e-8) of target and pool counts int64 [V]."""
    weights: np.ndarray = np.log(target_V / target_V.sum() + _EPS) - np.log(raw_V / raw_V.sum() + _EPS)
    return weights


def small_target_weights(raw_V: np.ndarray, target_V: np.ndarray, prior: float) -> np.ndarray:
    """Return float64 [V]: ln(p / q), p the target's counts with the pool's prior; 0 where the pool has nothing."""
    p_V, q_V = smoothed(target_V, raw_V, prior), raw_V / raw_V.sum()
    weights = np.zeros(len(raw_V))
    np.log(p_V / np.where(q_V > 0, q_V, 1.0), out=weights, where=q_V > 0)
    return weights
