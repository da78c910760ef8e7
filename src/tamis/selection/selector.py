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
from tamis.selection.choice import COLUMNS, TEXT, Choice, Engine, Measures, Selected, batches_of, seen, tasks
from tamis.selection.divergence import NUM_BUCKETS, kl_reduction

_NO_DOCUMENTS = pa.record_batch({name: pa.array([], TEXT) for name in COLUMNS})


class Selector(Settings):
    """Base of the selection methods. Subclasses give ``method``, `fit` and `score`, and `sketch` where they count.

    A method that needs more than a pass of `score` (vectors, the whole pool at once) overrides `measure`; what it
    finds out about a pool whatever the target, it finds in `study`, once for all targets. What is kept, why the rest
    is not, and the control are decided here, for every method alike.

    Attributes:
      budget: how much is kept.
    """

    excludes_target: ClassVar[bool] = False
    """Whether documents of the pool that are in the target, word for word, are left out (reason ``in_target``)."""
    needs_target: ClassVar[bool] = True
    """Whether a target without words is an error."""
    refusal: ClassVar[str] = "refused"
    """The reason of documents whose score is -inf."""
    reasons: ClassVar[tuple[str, ...]] = ()
    """Those reasons, where the method has several: `Measures.refused` says which."""

    budget: Budget

    def sketch(self, batch: pa.RecordBatch, *, seed: int) -> Any:  # noqa: ANN401 - a sketch with merge()
        """Count over one batch of the pool what `fit` needs; None, of any batch, where it needs nothing.

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
        """Return the merged sketch of a pool. Any batches, any engine: the same result.

        None, and no pass over the pool, for a method that needs nothing of it: it sketches no batch, however small.
        """
        if self.sketch(_NO_DOCUMENTS, seed=seed) is None:
            return None
        return reduce(_merged, engine(partial(_sketch, self, seed), tasks(corpus)), None)

    def study(self, corpus: Documents, encoder: Encoder | None, *, seed: int, engine: Engine = map) -> Any:  # noqa: ANN401
        """Return what the method needs to know of a pool whatever the target: its survey, or its vectors.

        Args:
          corpus: the pool.
          encoder: for methods that need vectors, else unused.
          seed: of random draws.
          engine: where batches are worked on.
        """
        return self.survey(corpus, seed=seed, engine=engine)

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
          pool: the result of `study`, if it is there already.
        """
        pool = self.study(corpus, encoder, seed=seed, engine=engine) if pool is None else pool
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
        counts: np.ndarray | None = None,
    ) -> Choice:
        """Decide which documents are kept, without loading them: what `select` does, for a pool of any size.

        Args:
          corpus: the pool.
          target: what the kept documents should be like.
          encoder: for methods that need vectors.
          seed: of random draws.
          engine: where batches are worked on.
          pool: the result of `study`, if it is there already.
          taken: bool [n], documents that were given to another target.
          counts: the result of `count_pool`, if it is there already; used where the method's sketch has none.

        Raises:
          DataError: the pool or the target is empty or has no words; the method gave NaN.
          UsageError: not even one document fits the budget; no encoder for a method that needs vectors.
        """
        target_keys, target_sizes = self._target_facts(corpus, target)
        pool = self.study(corpus, encoder, seed=seed, engine=engine) if pool is None else pool
        pool = self._without(pool, taken)
        measures = self.measure(corpus, target, encoder, seed=seed, engine=engine, pool=pool)
        if np.isnan(measures.scores).any():
            row = int(np.flatnonzero(np.isnan(measures.scores))[0])
            raise DataError(f"document {measures.doc_ids[row].as_py()!r}: {type(self).__name__} gave NaN as its score.")
        in_target = np.isin(measures.keys, target_keys)
        none = np.zeros(len(in_target), bool)
        bars = (
            measures.scores == -np.inf,
            in_target if self.excludes_target else none,
            none if taken is None else taken,
        )
        barred = np.any(bars, axis=0)
        rows = np.flatnonzero(~barred)
        if not len(rows) and not bars[2].any():
            raise DataError(
                f"none of the {len(barred)} documents may be kept: {int(bars[0].sum())} {self.refusal}, "
                f"{int(bars[1].sum())} in_target. Give a pool of other documents, or loosen the method's settings."
            )
        kept = self._keep(measures, measures.order(rows))
        figures = self._amounts(measures, kept) | {"num_in_target": float(in_target.sum())}
        if target_sizes.sum():
            control = measures.order(rows, uniform(measures.keys, seed, "sample"))
            masks = (kept, self._fitting(measures, control))
            counts = counts if measures.counts is None else measures.counts
            figures |= _divergences(corpus, target, masks, counts, engine)
        figures |= self._beside(measures, target, kept, ~(bars[1] | bars[2]), seed=seed)
        notes = self._notes(measures, barred, target_sizes)
        reasons = self._explained(measures, kept, bars)
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

    def _without(self, pool: Any, taken: np.ndarray | None) -> Any:  # noqa: ANN401
        """Return what is known of the pool, aware of documents that another target has, for methods that look there."""
        return pool

    def _beside(
        self, measures: Measures, target: Documents, kept: np.ndarray, free: np.ndarray, *, seed: int
    ) -> dict[str, float]:
        """Return figures of the method's own, those of a control of its own among them.

        Args:
          measures: of the method.
          target: what the kept documents should be like.
          kept: bool [n].
          free: bool [n], neither taken nor left out as a document of the target.
          seed: of the draw of a control.
        """
        return {}

    def _explained(self, measures: Measures, kept: np.ndarray, bars: tuple[np.ndarray, ...]) -> pa.Array:
        """Return each document's reason, null where kept: refused, in the target, taken, or over budget."""
        names = ["over_budget", self.refusal, "in_target", "taken_for_other_target"]
        codes = np.select(bars, [1, 2, 3], 0).astype(np.int8)
        if measures.refused is not None:
            refused = measures.refused > 0
            codes[refused] = len(names) - 1 + measures.refused[refused]
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=kept), pa.array([*names, *self.reasons], TEXT))

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
        numbers = np.bincount(measures.refused, minlength=len(self.reasons) + 1) if measures.refused is not None else ()
        for number, reason in zip(numbers[1:], self.reasons, strict=False):
            if number:
                notes.append(f"{number} of {len(barred)} documents are refused as {reason}.")
        return tuple(notes)


def count_pool(corpus: Documents, engine: Engine = map) -> np.ndarray:
    """Return the pool's int64 [2^18] unigram and bigram counts, which figures are made of: one pass."""
    total: np.ndarray = reduce(np.add, engine(_count, tasks(corpus)), np.zeros(NUM_BUCKETS, np.int64))
    return total


def _count(task: Any) -> np.ndarray:  # noqa: ANN401 - a task of `tasks`
    parts = (count_ngrams(joined(batch), NUM_BUCKETS) for batch in batches_of(task))
    return reduce(np.add, parts, np.zeros(NUM_BUCKETS, np.int64))


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
