"""Tf-idf nearest: cosine of a document's words and pairs to the target's mean, or to its nearest document.

Source: Salton, Buckley 1988 (tf-idf); as a selector: tamis design (method card C1, table of baselines).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.corpus import Documents
from tamis.ops.linear import document_frequencies, tfidf_rows
from tamis.ops.text import joined
from tamis.selection.choice import seen
from tamis.selection.sample import target_texts
from tamis.selection.selector import Selector

_TARGET_BLOCK = 512


@dataclass(frozen=True)
class FrequencySketch:
    """Of a pool: in how many documents each bucket occurs, int64 [V], and how many documents there are."""

    counts_V: np.ndarray
    num_docs: int

    def merge(self, other: Self) -> Self:
        """Return the counts of both."""
        return type(self)(self.counts_V + other.counts_V, self.num_docs + other.num_docs)


@dataclass(frozen=True)
class NearestModel:
    """Inverse document frequencies float64 [V], and the target: its mean float64 [V], or compressed unit rows."""

    idf_V: np.ndarray
    centroid_V: np.ndarray | None
    rows: tuple[np.ndarray, np.ndarray, np.ndarray] | None


class TfidfNearest(Selector):
    """Keep the documents whose tf-idf vectors point to the target. Two passes; linear in the target for "nearest".

    tf-idf is (1 + ln tf) * ln(D / df), of hashed words and pairs, over the pool; vectors have length 1. A target
    that lies in several places wants "nearest", a handful of documents of one kind "centroid".

    Attributes:
      similarity: "centroid", cosine to the mean of the target's vectors; "nearest", the largest cosine.
      num_buckets: of hashed n-grams.
      order: 1 for words, 2 for words and pairs.
    """

    refusal: ClassVar[str] = "too_few_tokens"

    method: Literal["tfidf_nearest"] = "tfidf_nearest"
    similarity: Literal["centroid", "nearest"] = "nearest"
    num_buckets: Annotated[int, Field(ge=2, le=2**26)] = 1 << 18
    order: Literal[1, 2] = 2

    def sketch(self, batch: pa.RecordBatch, *, seed: int) -> FrequencySketch:
        """Count the documents of the batch that hold each bucket."""
        return FrequencySketch(document_frequencies(joined(batch), self.num_buckets, self.order), len(batch))

    def fit(self, pool: FrequencySketch, target: Documents, *, seed: int) -> NearestModel:
        """Return the target's vectors, first 10,000 characters of each document; those without weight are left out."""
        found = np.maximum(pool.counts_V, 1)  # a bucket that the pool lacks cannot match
        idf_V = np.where(pool.counts_V > 0, np.log((1 + pool.num_docs) / found), 0.0)
        texts, _ = target_texts(list(target.batches(seen(target))))
        values, buckets, starts = tfidf_rows(texts, idf_V, self.order)
        if self.similarity == "nearest":
            return NearestModel(idf_V, None, (values, buckets, starts))
        centroid_V = np.bincount(buckets, weights=values, minlength=self.num_buckets)  # adds row after row
        length = float(np.sqrt(np.sum(centroid_V * centroid_V)))
        return NearestModel(idf_V, centroid_V / (length or 1.0), None)

    def score(self, batch: pa.RecordBatch, model: NearestModel) -> np.ndarray:
        """Return float64 [n]: the cosine, 0 to 1; -inf for a text without a known word."""
        from scipy import sparse

        values, buckets, starts = tfidf_rows(joined(batch), model.idf_V, self.order)
        shape = (len(batch), self.num_buckets)
        vectors = sparse.csr_array((values, buckets, starts), shape=shape)
        if model.centroid_V is not None:
            scores = np.asarray(vectors @ model.centroid_V)
        else:
            scores = np.zeros(len(batch))
            target_values, target_buckets, target_starts = model.rows or (values, buckets, starts)
            for begin in range(0, len(target_starts) - 1, _TARGET_BLOCK):
                stops = target_starts[begin : begin + _TARGET_BLOCK + 1]
                part = slice(stops[0], stops[-1])
                columns = (target_values[part], target_buckets[part], stops - stops[0])
                block = sparse.csr_array(columns, shape=(len(stops) - 1, self.num_buckets))
                products = vectors @ block.T.tocsr()
                scores = np.maximum(scores, products.max(axis=1).toarray().ravel())
        kept: np.ndarray = np.where(np.diff(starts) > 0, scores, -np.inf)
        return kept
