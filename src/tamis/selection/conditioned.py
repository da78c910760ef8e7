"""Conditioned scores: rank within source, language and length, so that a score does not merely sort the sources.

Source: tamis design (method card C7).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from tamis.data.corpus import Documents
from tamis.errors import DataError, UsageError
from tamis.models.encoder import Encoder
from tamis.ops.language import document_languages
from tamis.ops.ngrams import count_words
from tamis.ops.text import joined
from tamis.selection.choice import TEXT, Engine, Measures, batches_of, tasks
from tamis.selection.classifier import HashedClassifier
from tamis.selection.compression import CompressionAlignment
from tamis.selection.dsir import DSIR
from tamis.selection.nearest import TfidfNearest
from tamis.selection.perplexity import NgramPerplexity
from tamis.selection.selector import Selector

Scorer = Annotated[
    HashedClassifier | NgramPerplexity | DSIR | TfidfNearest | CompressionAlignment, Field(discriminator="method")
]
_DERIVED = ("source", "language", "length_bin")


@dataclass(frozen=True)
class _Conditioned(Measures):
    """Measures whose scores are conditioned, with the scores before and the sources, for the report."""

    before: np.ndarray | None = None
    sources: pa.Array | None = None


class Conditioned(Selector):
    """Select by another method's score after ranking it within strata.

    A score becomes its quantile among the documents of the same source, language and length; small strata are drawn
    to the larger ones around them. Meant for quality (`HashedClassifier` on labels, `NgramPerplexity`). Do not
    condition closeness to a target on the source where the target is a source: that deletes the signal. A source
    that really is bad gets its share here; strength below 1, or a mixture, decides about that.

    Figures beside those of every selection: ``auc_before:S``, ``auc_after:S`` and ``kept_frac:S`` for each source S of
    at least min_docs documents (AUC of telling it from the rest by the score, .5 is blind), and
    ``max_auc_gap_before`` and ``max_auc_gap_after``, the largest distance of one from .5.

    Attributes:
      of: the method whose scores are conditioned; it may leave its budget out.
      columns: what strata are made of, coarse to fine: "source", "language", "length_bin" (powers of two of words),
        or, for `condition`, any column of its table.
      strength: 1 for the place within the stratum, 0 for the place in the whole pool, between for both.
      min_docs: a smaller stratum takes its parent's places.
      shrink_docs: a stratum of as many documents counts half, its parent the other half.
    """

    method: Literal["conditioned"] = "conditioned"
    of: Scorer
    columns: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = _DERIVED
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    min_docs: Annotated[int, Field(ge=1)] = 30
    shrink_docs: Annotated[int, Field(ge=0)] = 100

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, values: Any) -> Any:  # noqa: ANN401 - what the caller gave
        """Give the inner method the outer budget, or the outer one the inner's."""
        if not isinstance(values, dict):
            return values
        inner, budget = values.get("of"), values.get("budget")
        if isinstance(inner, dict) and "budget" not in inner and budget is not None:
            return {**values, "of": {**inner, "budget": budget}}
        if isinstance(inner, Selector) and budget is None:
            return {**values, "budget": inner.budget}
        return values

    @model_validator(mode="after")
    def _same_budget(self) -> Self:
        if self.of.budget != self.budget:
            raise ValueError("budget: the method inside has another one. Give it once, outside")
        return self

    @property
    def excludes_target(self) -> bool:  # type: ignore[override]
        """As the method inside."""
        return self.of.excludes_target

    @property
    def needs_target(self) -> bool:  # type: ignore[override]
        """As the method inside."""
        return self.of.needs_target

    @property
    def refusal(self) -> str:  # type: ignore[override]
        """As the method inside."""
        return self.of.refusal

    def condition(self, table: pa.Table) -> pa.Table:
        """Return doc_id and the conditioned score, 0 to 1, of any score table.

        Args:
          table: doc_id, score and the columns of the strata; -inf (refused) stays, and counts nowhere.

        Raises:
          DataError: a column is missing, or a score is NaN.
        """
        missing = [name for name in ("doc_id", "score", *self.columns) if name not in table.column_names]
        if missing:
            raise DataError(
                f"score table: no column {missing[0]!r} (has: {', '.join(table.column_names)}). "
                "Give doc_id, score and the columns of the strata, or set columns to those it has."
            )
        scores = table["score"].cast(pa.float64()).to_numpy()
        conditioned = self._places(scores, [table[name] for name in self.columns])
        return pa.table({"doc_id": table["doc_id"], "score": conditioned})

    def _places(self, scores: np.ndarray, columns: Sequence[pa.Array | pa.ChunkedArray]) -> np.ndarray:
        """Return float64 [n]: strength * place in the stratum + (1 - strength) * place in all; O(n log n) a column."""
        if np.isnan(scores).any():
            raise DataError(f"score {int(np.flatnonzero(np.isnan(scores))[0])} is NaN: it has no place in an order.")
        usable = np.flatnonzero(scores > -np.inf)
        values = scores[usable]
        strata = np.zeros(len(values), np.int64)
        whole = quantiles_within(values, strata)
        place = whole
        for column in columns:
            strata = _split(strata, _codes(column)[usable])
            own, sizes = quantiles_within(values, strata), np.bincount(strata)[strata]
            place = np.where(sizes >= self.min_docs, shrunk(own, place, sizes, self.shrink_docs), place)
        conditioned = np.full(len(scores), -np.inf)
        conditioned[usable] = self.strength * place + (1 - self.strength) * whole
        return conditioned

    def survey(self, corpus: Documents, *, seed: int, engine: Engine = map) -> Any:  # noqa: ANN401
        """Return the sketch of the method inside."""
        return self.of.survey(corpus, seed=seed, engine=engine)

    def fit(self, pool: Any, target: Documents, *, seed: int) -> Any:  # noqa: ANN401
        """Return the model of the method inside."""
        return self.of.fit(pool, target, seed=seed)

    def score(self, batch: pa.RecordBatch, model: Any) -> np.ndarray:  # noqa: ANN401
        """Return the scores of the method inside: places are known when all documents are."""
        return self.of.score(batch, model)

    def pool_counts(self, pool: Any) -> np.ndarray | None:  # noqa: ANN401
        """Return those of the method inside."""
        return self.of.pool_counts(pool)

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
        """Score by the method inside, then by the place within the stratum: one pass more.

        Raises:
          UsageError: a column is none of the three.
        """
        unknown = [name for name in self.columns if name not in _DERIVED]
        if unknown:
            raise UsageError(
                f"columns: {unknown[0]!r} is not known of a pool's documents. Give some of {', '.join(_DERIVED)}, "
                "or condition a score table that has the column."
            )
        plain = self.of.measure(corpus, target, encoder, seed=seed, engine=engine, pool=pool)
        parts = list(engine(self._strata_columns, tasks(corpus)))
        columns = [pa.concat_arrays([part[i] for part in parts]) for i in range(len(self.columns) + 1)]
        scores = self._places(plain.scores, columns[:-1])
        fields = {name: getattr(plain, name) for name in ("doc_ids", "keys", "sizes", "strata", "counts")}
        return _Conditioned(scores=scores, before=plain.scores, sources=columns[-1], **fields)

    def _strata_columns(self, task: Any) -> list[pa.Array]:  # noqa: ANN401 - a batch or a piece
        """Return the columns of the strata, and the sources, of one task, as large_string."""
        parts = [[_column(batch, name) for name in (*self.columns, "source")] for batch in batches_of(task)]
        return [pa.concat_arrays(column) for column in zip(*parts, strict=True)]

    def _amounts(self, measures: Measures, kept: np.ndarray) -> dict[str, float]:
        figures = super()._amounts(measures, kept)
        if not isinstance(measures, _Conditioned) or measures.before is None or measures.sources is None:
            return figures
        report = separation(measures.before, measures.scores, kept, measures.sources)
        report = report.filter(pc.greater_equal(report["num_docs"], self.min_docs))
        for row in report.to_pylist():
            for name in ("auc_before", "auc_after", "kept_frac"):
                figures[f"{name}:{row['source']}"] = row[name]
        for name in ("before", "after"):
            gaps = np.abs(report[f"auc_{name}"].to_numpy() - 0.5)
            figures[f"max_auc_gap_{name}"] = float(gaps.max(initial=0.0))
        return figures


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return one of source, language and length_bin for each document, large_string [n]."""
    if name == "source":
        sources = batch.column(name) if name in batch.schema.names else pa.nulls(len(batch), TEXT)
        return pc.fill_null(pc.cast(sources, TEXT), "")
    texts = joined(batch)
    if name == "language":
        return pa.array(document_languages(texts)[0].tolist(), TEXT)
    return pc.cast(pa.array(length_bins(count_words(texts))), TEXT)


def length_bins(num_words: np.ndarray) -> np.ndarray:
    """Return int64 [n]: floor of log2 of the number of words, -1 for none."""
    return np.frexp(np.asarray(num_words, np.float64))[1].astype(np.int64) - 1


def quantiles_within(values: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return float64 [n]: the share of a value's stratum below it, equal values counted half, itself among them.

    Args:
      values: float64 [n].
      strata: int64 [n], codes from 0.
    """
    from scipy.stats import rankdata

    if not len(values):
        return np.zeros(0)
    dense = rankdata(values, method="dense").astype(np.int64)  # no float key could hold stratum and value at once
    ranks = rankdata(strata.astype(np.int64) * (int(dense.max()) + 1) + dense)
    sizes = np.bincount(strata)
    begins = np.cumsum(sizes) - sizes  # ranks run stratum after stratum
    shares: np.ndarray = (ranks - begins[strata] - 0.5) / sizes[strata]
    return shares


def shrunk(own: np.ndarray, parent: np.ndarray, num_docs: np.ndarray, shrink_docs: int) -> np.ndarray:
    """Return (n * own + m * parent) / (n + m), m = ``shrink_docs``: places of small strata drawn to their parent's."""
    mixed: np.ndarray = (num_docs * own + shrink_docs * parent) / (num_docs + shrink_docs)
    return mixed


def separation(before: np.ndarray, after: np.ndarray, kept: np.ndarray, sources: pa.Array) -> pa.Table:
    """Return how well a score tells each source from the rest, before and after conditioning, and what was kept of it.

    Args:
      before: float64 [n] scores; -inf counts as the lowest.
      after: float64 [n] scores.
      kept: bool [n].
      sources: large_string [n].

    Returns:
      source, num_docs, auc_before, auc_after (the chance that a document of the source scores above another one,
      ties half; .5 where there is no other source) and kept_frac, by source.
    """
    encoded = sources.dictionary_encode()
    codes, names = encoded.indices.to_numpy(), encoded.dictionary
    num_docs = np.bincount(codes, minlength=len(names))
    columns = {
        "source": names,
        "num_docs": num_docs,
        "auc_before": _one_vs_rest(before, codes, num_docs),
        "auc_after": _one_vs_rest(after, codes, num_docs),
        "kept_frac": np.bincount(codes, weights=kept, minlength=len(names)) / num_docs,
    }
    return pa.table(columns).sort_by("source")


def _one_vs_rest(scores: np.ndarray, codes: np.ndarray, num_docs: np.ndarray) -> np.ndarray:
    """Return float64 [sources]: the AUC of each against all others, by mid-ranks."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    sums = np.bincount(codes, weights=ranks, minlength=len(num_docs))
    pairs = num_docs * (len(scores) - num_docs)
    above = sums - num_docs * (num_docs + 1) / 2
    areas: np.ndarray = np.where(pairs > 0, above / np.maximum(pairs, 1), 0.5)
    return areas


def _codes(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return int64 [n]: a number for each distinct value, null among them."""
    encoded = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = pa.concat_arrays(encoded.chunks) if isinstance(encoded, pa.ChunkedArray) else encoded
    codes: np.ndarray = encoded.dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    return codes


def _split(strata: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return int64 [n]: codes of the pairs of stratum and code."""
    width = int(codes.max(initial=0)) + 1
    return np.unique(strata * width + codes, return_inverse=True)[1].astype(np.int64)
