"""Selector: the base of every selection method.

Source: tamis design (method cards K1 and C0).

A method is three pure parts: `sketch` counts over a batch of the pool (sketches merge in any order), `fit` makes
a model of the merged sketch and the target, `score` judges a batch. What is kept follows from scores alone, so the
result depends neither on how the pool was cut into batches nor on who worked on them.
"""

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial, reduce
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from tamis.data.corpus import Corpus, Documents
from tamis.data.settings import Settings
from tamis.errors import DataError, UsageError
from tamis.models.encoder import Encoder
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.ngrams import count_ngrams, count_words
from tamis.ops.text import joined
from tamis.selection.budget import Budget, prefix, quotas
from tamis.selection.choice import Choice, Engine, Measures, Selected, batches_of, seen, tasks
from tamis.selection.divergence import NUM_BUCKETS, kl_reduction


class Selector(Settings):
    """Base of the selection methods. Subclasses give ``method``, `fit` and `score`, and `sketch` where they count.

    A method that needs more than a pass of `score` (vectors, the whole pool at once) overrides `measure`.

    Attributes:
      budget: how much is kept.
    """

    excludes_target: ClassVar[bool] = False
    """Whether documents of the pool that are in the target, word for word, are left out (reason ``in_target``)."""
    needs_target: ClassVar[bool] = True
    """Whether a target without words is an error."""
    refusal: ClassVar[str] = "refused"
    """The reason of documents whose score is -inf."""

    budget: Budget

    def sketch(self, batch: pa.RecordBatch, *, seed: int) -> Any:  # noqa: ANN401 - a sketch with merge()
        """Count over one batch of the pool what `fit` needs; None where it needs nothing.

        Args:
          batch: the columns COLUMNS of some documents.
          seed: of random draws, which are keyed by content.
        """
        return None

    @abstractmethod
    def fit(self, pool: Any, target: Documents, *, seed: int) -> Any:  # noqa: ANN401 - each method has its own
        """Return a model: a small frozen dataclass of arrays that can be pickled.

        Args:
          pool: the merged sketch of the whole pool, or None.
          target: what the kept documents should be like; at least one document with words.
          seed: of random draws.
        """

    @abstractmethod
    def score(self, batch: pa.RecordBatch, model: Any) -> np.ndarray:  # noqa: ANN401
        """Return float64 [n]: higher is nearer to the target, -inf for a document that must not be kept."""

    def strata(self, batch: pa.RecordBatch) -> pa.Array | None:
        """Return each document's stratum, large_string [n], to share out the budget by their sizes; None for none."""
        return None

    def pool_counts(self, pool: Any) -> np.ndarray | None:  # noqa: ANN401
        """Return the pool's int64 [2^18] unigram and bigram counts if the sketch has them; saves a pass."""
        return None

    def survey(self, corpus: Documents, *, seed: int, engine: Engine = map) -> Any:  # noqa: ANN401
        """Return the merged sketch of a pool, None for a method without. Any batches, any engine: the same result."""
        if type(self).sketch is Selector.sketch:
            return None
        return reduce(_merged, engine(partial(_sketch, self, seed), tasks(corpus)), None)

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
        """Score every document: two passes over the pool, one where the method has no sketch.

        Args:
          corpus: the pool, at least one document.
          target: what the kept documents should be like.
          encoder: for methods that need vectors.
          seed: of random draws.
          engine: where batches are worked on.
          pool: the result of `survey`, if it is there already.
        """
        pool = self.survey(corpus, seed=seed, engine=engine) if pool is None else pool
        model = self.fit(pool, target, seed=seed)
        parts = engine(partial(_measure, self, model), tasks(corpus))
        return Measures.concat(list(parts), self.pool_counts(pool))

    def choose(
        self,
        corpus: Documents,
        target: Documents,
        encoder: Encoder | None = None,
        *,
        seed: int,
        engine: Engine = map,
        pool: Any = None,  # noqa: ANN401
        taken: np.ndarray | None = None,
    ) -> Choice:
        """Decide which documents are kept, without loading them: what `select` does, for a pool of any size.

        Args:
          corpus: the pool.
          target: what the kept documents should be like.
          encoder: for methods that need vectors.
          seed: of random draws.
          engine: where batches are worked on.
          pool: the result of `survey`, if it is there already.
          taken: bool [n], documents that were given to another target.

        Raises:
          DataError: the pool or the target is empty or has no words; the method gave NaN.
          UsageError: not even one document fits the budget.
        """
        target_keys, target_sizes = self._target_facts(corpus, target)
        measures = self.measure(corpus, target, encoder, seed=seed, engine=engine, pool=pool)
        if np.isnan(measures.scores).any():
            row = int(np.flatnonzero(np.isnan(measures.scores))[0])
            raise DataError(f"document {measures.doc_ids[row].as_py()!r}: {type(self).__name__} gave NaN as its score.")
        in_target = np.isin(measures.keys, target_keys)
        none = np.zeros(len(in_target), bool)
        shut = in_target if self.excludes_target else none
        bars = [measures.scores == -np.inf, shut, none if taken is None else taken]
        barred = np.any(bars, axis=0)
        rows = np.flatnonzero(~barred)
        if not len(rows) and not bars[2].any():
            raise DataError(
                f"none of the {len(barred)} documents may be kept: {int(bars[0].sum())} {self.refusal}, "
                f"{int(bars[1].sum())} in_target. Give a pool of other documents, or loosen the method's settings."
            )
        kept = self._keep(measures, measures.order(rows))
        codes = np.select(bars, [1, 2, 3], 0).astype(np.int8)
        names = pa.array(["over_budget", self.refusal, "in_target", "taken_for_other_target"], pa.large_string())
        figures = self._amounts(measures, kept) | {"num_in_target": float(in_target.sum())}
        if target_sizes.sum():
            control = measures.order(rows, uniform(measures.keys, seed, "sample"))
            masks = (kept, self._fitting(measures, control))
            figures |= _divergences(corpus, target, masks, measures.counts, engine)
        reasons = pa.DictionaryArray.from_arrays(pa.array(codes, mask=kept), names)
        notes = self._notes(measures, barred, target_sizes)
        return Choice(measures.doc_ids, kept, measures.scores, reasons, figures, notes)

    def select(self, corpus: Corpus, target: Corpus, encoder: Encoder | None = None, *, seed: int) -> Selected:
        """Keep the documents nearest to the target that fit the budget.

        Args:
          corpus: the pool.
          target: what the kept documents should be like.
          encoder: for methods that need vectors, else unused.
          seed: of random draws, keyed by content: row order, batches and workers change nothing.

        Returns:
          kept in corpus order; dropped with doc_id, reason and score; scores of all, figures and notes.

        Raises:
          DataError: the pool or the target is empty or has no words.
          UsageError: not even one document fits the budget.
        """
        return self.choose(corpus, target, encoder, seed=seed).selected(corpus)

    def _target_facts(self, corpus: Documents, target: Documents) -> tuple[np.ndarray, np.ndarray]:
        """Return the target's keys and its documents' words; refuse what nothing can be selected from or for."""
        if not len(corpus):
            raise DataError("the pool has no documents: there is nothing to select from. Give files with documents.")
        texts = [joined(batch) for batch in target.batches(seen(target))]
        keys = np.concatenate([np.zeros(0, np.uint64), *(array_keys(t) for t in texts)])
        words = np.concatenate([np.zeros(0, np.int64), *(count_words(t) for t in texts)])
        if self.needs_target and not words.sum():
            raise DataError(
                f"the target has {len(keys)} documents and no words: there is nothing to be like. "
                "Give a handful of documents of the kind you want."
            )
        return keys, words

    def _keep(self, measures: Measures, order: np.ndarray) -> np.ndarray:
        """Return the rows that fit; refuse a budget that holds none."""
        if measures.strata is None or not len(order):
            return self.budget.keep(order, measures.sizes)
        kept = self._fitting(measures, order)
        if not kept.any():
            raise UsageError(
                f"budget: shared out over {len(measures.strata.unique())} strata, it holds not one document of any. "
                f"Give more {self.budget.unit}, or select without strata."
            )
        return kept

    def _fitting(self, measures: Measures, order: np.ndarray) -> np.ndarray:
        """Return the rows that fit, which may be none: a control must not refuse what the method can keep."""
        sizes = measures.sizes
        limit = self.budget.limit(int(sizes.sum()))
        if measures.strata is None or not len(order):
            return prefix(order, sizes, limit)
        labels, codes = np.unique(np.array(measures.strata.to_pylist(), dtype=object), return_inverse=True)
        amounts = np.zeros(len(labels), np.int64)
        np.add.at(amounts, codes[order], sizes[order])
        kept = np.zeros(len(sizes), bool)
        for stratum, share in enumerate(quotas(limit, amounts).tolist()):
            kept |= prefix(order[codes[order] == stratum], sizes, share)
        return kept

    def _amounts(self, measures: Measures, kept: np.ndarray) -> dict[str, float]:
        unit, total = self.budget.unit, int(measures.sizes.sum())
        amounts = {"num_docs": len(kept), "num_kept": kept.sum(), "budget": self.budget.limit(total)}
        sizes = {f"pool_{unit}": total, f"kept_{unit}": measures.sizes[kept].sum()}
        return {name: float(value) for name, value in (amounts | sizes).items()}

    def _notes(self, measures: Measures, barred: np.ndarray, target_words: np.ndarray) -> tuple[str, ...]:
        notes = []
        unit, total, allowed = self.budget.unit, int(measures.sizes.sum()), int(measures.sizes[~barred].sum())
        limit = self.budget.limit(total)
        if limit > allowed:
            notes.append(
                f"The budget of {limit} {unit} is larger than the {allowed} that may be kept: "
                f"all {int((~barred).sum())} such documents are kept, and nothing was chosen between them."
            )
        target_size = len(target_words) if unit == "docs" else int(target_words.sum())
        if target_size > total:
            notes.append(f"The target ({target_size}) is larger than the pool ({total} {unit}).")
        return tuple(notes)


def _merged(one: Any, other: Any) -> Any:  # noqa: ANN401
    return other if one is None else one if other is None else one.merge(other)


def _sketch(selector: Selector, seed: int, task: Any) -> Any:  # noqa: ANN401
    return reduce(_merged, (selector.sketch(batch, seed=seed) for batch in batches_of(task)), None)


def _measure(selector: Selector, model: Any, task: Any) -> Measures:  # noqa: ANN401
    parts = [
        Measures(
            batch.column("doc_id"),
            np.asarray(selector.score(batch, model), np.float64),
            array_keys(joined(batch)),
            selector.budget.sizes(batch),
            selector.strata(batch),
        )
        for batch in batches_of(task)
    ]
    return Measures.concat(parts, None)


def _divergences(
    corpus: Documents,
    target: Documents,
    masks: tuple[np.ndarray, np.ndarray],
    counts_V: np.ndarray | None,
    engine: Engine,
) -> dict[str, float]:
    """Return the KL reduction of the selection and of its uniform control: one pass over what they hold."""

    def parts() -> Iterator[tuple[Any, np.ndarray, np.ndarray, bool]]:
        at = 0
        for task in tasks(corpus):
            rows = slice(at, at + len(task))
            at += len(task)
            if counts_V is None or masks[0][rows].any() or masks[1][rows].any():
                yield task, masks[0][rows], masks[1][rows], counts_V is None

    total = reduce(np.add, engine(_count_parts, parts()), np.zeros((3, NUM_BUCKETS), np.int64))
    raw_V = total[2] if counts_V is None else counts_V
    target_V = np.zeros(NUM_BUCKETS, np.int64)
    for batch in target.batches(seen(target)):
        target_V += count_ngrams(joined(batch), NUM_BUCKETS)
    return {
        name: kl_reduction(raw_V, target_V, selected_V) if selected_V.any() else 0.0
        for name, selected_V in (("kl_reduction", total[0]), ("kl_reduction_uniform", total[1]))
    }


def _count_parts(part: tuple[Any, np.ndarray, np.ndarray, bool]) -> np.ndarray:
    """Return int64 [3, 2^18]: n-grams of the selected rows, of the control's rows, and of all if they are wanted."""
    task, kept, control, wants_all = part
    counts = np.zeros((3, NUM_BUCKETS), np.int64)
    at = 0
    for batch in batches_of(task):
        rows, texts = slice(at, at + len(batch)), joined(batch)
        at += len(batch)
        for row, mask in enumerate((kept[rows], control[rows])):
            if mask.any():
                counts[row] += count_ngrams(texts.filter(pa.array(mask)), NUM_BUCKETS)
        if wants_all:
            counts[2] += count_ngrams(texts, NUM_BUCKETS)
    return counts
