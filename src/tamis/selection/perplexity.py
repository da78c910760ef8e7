"""N-gram perplexity: text that a small language model of the target reads easily, or neither too easily nor badly.

Source: Wenzek et al. 2019, CCNet, arXiv:1911.00359 (thirds by language); Moore, Lewis 2010 (``against`` the pool).
Hashed counts and weights fitted by leaving a text out: tamis design (method card C6).
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from tamis.data.corpus import Documents
from tamis.errors import DataError
from tamis.models.encoder import Encoder
from tamis.ops.language import document_languages
from tamis.ops.ngram_lm import NgramModel
from tamis.ops.text import joined
from tamis.selection.choice import Engine, Measures, batches_of, seen, tasks
from tamis.selection.sample import TextSample, target_texts
from tamis.selection.selector import Selector

_BANDS = {"head": (0.0, 1 / 3), "middle": (1 / 3, 2 / 3), "tail": (2 / 3, 1.0)}
_POOL_TEXTS = 10_000


@dataclass(frozen=True)
class PerplexityModel:
    """The language model of the target, and that of the pool where it is compared with."""

    target: NgramModel
    pool: NgramModel | None


@dataclass(frozen=True)
class _Banded(Measures):
    """Measures whose scores are places in the band, with the bits per token they come from."""

    bits: np.ndarray | None = None


class NgramPerplexity(Selector):
    """Keep a band of the pool by how easily the target's n-gram model reads it. About 65 MB/s a core, 48 MiB.

    A score of fluency, not of closeness: for a target use DSIR, which finds far more of it. The easiest third is
    full of repeated boilerplate, so the middle third is kept by default; remove near-copies and frequent lines
    first. Bands are quantiles within each language that can be told from the text.

    Attributes:
      order: tokens in the longest n-gram.
      bits: 2^bits buckets for each length; fewer make unseen triples look seen.
      lambdas: weights of the lengths, longest first, and of the floor; None fits them on the target, each text
        with its own counts taken out.
      keep: "head", the easiest third, easiest first; "tail", the hardest, hardest first; "middle", nearest to the
        middle of the band first.
      band: quantiles of perplexity, low and high, instead of a third; (0, 1) to order all, as for `Conditioned`.
      against: "none"; "pool" to subtract the bits of a model of 10,000 texts of the pool.
      min_tokens: shorter documents are refused, as are those outside the band (reason ``outside_band``).
    """

    refusal: ClassVar[str] = "outside_band"

    method: Literal["ngram_perplexity"] = "ngram_perplexity"
    order: Literal[1, 2, 3] = 3
    bits: Annotated[int, Field(ge=8, le=26)] = 22
    lambdas: Annotated[tuple[float, ...], Field(strict=False)] | None = None
    keep: Literal["head", "middle", "tail"] = "middle"
    band: Annotated[tuple[float, float], Field(strict=False)] | None = None
    against: Literal["none", "pool"] = "none"
    min_tokens: Annotated[int, Field(ge=1)] = 20

    @model_validator(mode="after")
    def _band_is_a_range(self) -> Self:
        if self.band is not None and not 0 <= self.band[0] < self.band[1] <= 1:
            raise ValueError(f"band {self.band}: give two quantiles, 0 <= low < high <= 1")
        return self

    def sketch(self, batch: pa.RecordBatch, *, seed: int) -> TextSample | None:
        """Sample the batch, where the pool's own model is wanted."""
        return TextSample.of(batch, _POOL_TEXTS, seed=seed) if self.against == "pool" else None

    def fit(self, pool: TextSample | None, target: Documents, *, seed: int) -> PerplexityModel:
        """Count the target's n-grams, first 10,000 characters of each document, and the sample's.

        Raises:
          DataError: the target has no words.
        """
        texts, _ = target_texts(list(target.batches(seen(target))))
        model = self._train(texts)
        if not model.num_tokens:
            raise DataError("the target has no words: there is nothing to read with. Give documents with text.")
        return PerplexityModel(model, None if pool is None else self._train(pool.items()["text"]))

    def _train(self, texts: pa.Array | pa.ChunkedArray) -> NgramModel:
        return NgramModel.train(texts, order=self.order, bits=self.bits, lambdas=self.lambdas)

    def score(self, batch: pa.RecordBatch, model: PerplexityModel) -> np.ndarray:
        """Return float64 [n]: minus the bits per token (plus those of the pool's model), -inf under ``min_tokens``."""
        texts = joined(batch)
        bits, num_tokens = model.target.bits_per_token(texts)
        others = 0.0 if model.pool is None else model.pool.bits_per_token(texts)[0]
        scores: np.ndarray = np.where(num_tokens >= self.min_tokens, others - bits, -np.inf)
        return scores

    def measure(
        self,
        corpus: Documents,
        target: Documents,
        encoder: Encoder | None,
        *,
        seed: int,
        engine: Engine = map,
        pool: Any = None,  # noqa: ANN401
    ) -> Measures:
        """Score by the place in the band: 0 best, -1 at the band's far end, -inf outside it."""
        plain = super().measure(corpus, target, encoder, seed=seed, engine=engine, pool=pool)
        languages = np.concatenate(list(engine(_languages, tasks(corpus))))
        scores = np.full(len(languages), -np.inf)
        usable = np.isfinite(plain.scores)
        for language in np.unique(languages[usable]):
            rows = np.flatnonzero(usable & (languages == language))
            scores[rows] = self._places(-plain.scores[rows])
        fields = {name: getattr(plain, name) for name in ("doc_ids", "keys", "sizes", "strata", "counts")}
        return _Banded(scores=scores, bits=-plain.scores, **fields)

    def _places(self, bits: np.ndarray) -> np.ndarray:
        """Return float64 [n]: minus the distance to where the band is best, as a share of it; -inf outside."""
        from scipy.stats import rankdata

        quantiles = (rankdata(bits) - 0.5) / len(bits)
        low, high = self.band or _BANDS[self.keep]
        best = {"head": low, "tail": high}.get(self.keep, (low + high) / 2)
        inside = (quantiles >= low) & (quantiles <= high)
        places: np.ndarray = np.where(inside, -np.abs(quantiles - best) / max(high - best, best - low), -np.inf)
        return places

    def _amounts(self, measures: Measures, kept: np.ndarray) -> dict[str, float]:
        figures = super()._amounts(measures, kept)
        bits = getattr(measures, "bits", None)
        if bits is not None and kept.any():
            usable = np.isfinite(bits)
            figures["pool_median_bits"] = float(np.median(bits[usable]))
            figures["kept_median_bits"] = float(np.median(bits[kept]))
        return figures


def _languages(task: Any) -> np.ndarray:  # noqa: ANN401 - a batch or a piece
    return np.concatenate([document_languages(joined(batch))[0] for batch in batches_of(task)])
