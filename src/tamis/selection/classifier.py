"""Hashed classifier: logistic regression of words and pairs, target against a sample of the pool.

Source: Joulin et al. 2016, arXiv:1607.01759 (fastText); Li et al. 2024, DCLM, arXiv:2406.11794 (as a filter of
pools). AdaGrad, the 1 / sqrt(k) of a text and held-out scores: tamis design (method card C3).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.corpus import Documents
from tamis.errors import DataError
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.linear import LinearModel, named_features, num_features, platt, train_logistic
from tamis.ops.ngrams import score_ngrams
from tamis.ops.text import joined
from tamis.selection.choice import seen
from tamis.selection.sample import TextSample, target_texts
from tamis.selection.selector import Selector


@dataclass(frozen=True)
class ClassifierModel:
    """A trained classifier.

    Attributes:
      whole: learnt from all labelled texts; judges the texts it has not seen.
      folds: each learnt without one part of the texts; judges that part.
      keys: uint64, ascending: contents that were learnt from.
      fold_of: int8, the part of each.
      scale: score = scale * logit + offset, calibrated log-odds at equal numbers of both classes.
      offset: see scale.
    """

    whole: LinearModel
    folds: tuple[LinearModel, ...]
    keys: np.ndarray
    fold_of: np.ndarray
    scale: float
    offset: float


class HashedClassifier(Selector):
    """Keep what a classifier takes for the target rather than for the pool. Scores at 110 MB/s a core.

    Learnt from the target (label 1) and a uniform sample of the pool (label 0), first 10,000 characters of each; for
    labelled negatives give `choose` the survey of their corpus: ``choose(pool, positives, pool=survey(negatives))``.
    A text it has learnt from is judged by the model of a fold without it, so no document loses by having been
    sampled. It learns to tell sources apart: read the AUC by source, and rank within sources with `Conditioned`.

    Attributes:
      bits: 2^bits buckets of hashed n-grams.
      order: 1 for words, 2 for words and pairs.
      epochs: passes over the labelled texts; PreSelect has 3.
      learning_rate: of AdaGrad; fastText has 0.1, 0.05 found more on development domains.
      num_negatives: texts sampled of the pool, those that are in the target left out.
      num_folds: for held-out scores and Platt's calibration; 0 for neither, then scores are plain logits.
    """

    refusal: ClassVar[str] = "too_few_tokens"

    method: Literal["hashed_classifier"] = "hashed_classifier"
    bits: Annotated[int, Field(ge=1, le=26)] = 18
    order: Literal[1, 2] = 2
    epochs: Annotated[int, Field(ge=1)] = 3
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    num_negatives: Annotated[int, Field(ge=1, le=200_000)] = 5_000
    num_folds: Annotated[int, Field(ge=0, le=100)] = 5

    def sketch(self, batch: pa.RecordBatch, *, seed: int) -> TextSample:
        """Sample the batch for negatives."""
        return TextSample.of(batch, self.num_negatives, seed=seed)

    def fit(self, pool: TextSample, target: Documents, *, seed: int) -> ClassifierModel:
        """Train on the target against the sample.

        Args:
          pool: a sample of the pool, or of documents that are known to be bad.
          target: the positives.
          seed: of the order of the steps and of the folds, by content.

        Raises:
          DataError: the sample holds nothing but documents of the target.
        """
        positives, positive_keys = target_texts(list(target.batches(seen(target))))
        sample = pool.items()
        others = ~np.isin(sample["key"].to_numpy(), positive_keys)
        if not others.any():
            raise DataError(
                f"all {len(others)} sampled documents of the pool are in the target: there is nothing to tell it from. "
                "Give a pool that holds other documents."
            )
        negatives = sample["text"].combine_chunks().filter(pa.array(others))
        chunks = negatives.chunks if isinstance(negatives, pa.ChunkedArray) else [negatives]
        texts = pa.concat_arrays([positives, *chunks])
        keys = np.r_[positive_keys, sample["key"].to_numpy()[others]]
        labels = np.arange(len(keys)) < len(positives)
        steps = _steps(keys, labels, seed)
        whole = self._train(texts, labels, steps)
        smaller = min(len(np.unique(keys[labels])), len(np.unique(keys[~labels])))
        num_folds = min(self.num_folds, smaller)
        if num_folds < 2:
            return ClassifierModel(whole, (), np.zeros(0, np.uint64), np.zeros(0, np.int8), 1.0, 0.0)
        fold_of = _folds(keys, labels, num_folds, seed)
        folds = tuple(self._train(texts, labels, steps[fold_of[steps] != fold]) for fold in range(num_folds))
        logits = np.zeros(len(keys))
        for fold, model in enumerate(folds):
            held_out = np.flatnonzero(fold_of == fold)
            logits[held_out] = model.logits(texts.take(pa.array(held_out)))
        order = np.lexsort((keys, labels))  # sums run in an order of contents
        scale, offset = platt(logits[order], labels[order], _importance(labels)[order])
        distinct, first = np.unique(keys, return_index=True)
        return ClassifierModel(whole, folds, distinct, fold_of[first], scale, offset)

    def _train(self, texts: pa.Array, labels: np.ndarray, steps: np.ndarray) -> LinearModel:
        return train_logistic(
            texts,
            labels,
            np.ones(len(labels)),
            steps,
            num_buckets=1 << self.bits,
            order=self.order,
            epochs=self.epochs,
            rate=self.learning_rate,
        )

    def score(self, batch: pa.RecordBatch, model: ClassifierModel) -> np.ndarray:
        """Return float64 [n]: calibrated log-odds of being of the target, -inf for a text without tokens."""
        texts = joined(batch)
        sums, num_tokens = score_ngrams(texts, model.whole.weights_V, model.whole.order)
        logits = sums / np.sqrt(np.maximum(num_features(num_tokens, model.whole.order), 1)) + model.whole.bias
        keys = array_keys(texts)
        place = np.minimum(np.searchsorted(model.keys, keys), max(len(model.keys) - 1, 0))
        learnt = np.flatnonzero(model.keys[place] == keys) if len(model.keys) else np.zeros(0, np.int64)
        for fold, part in enumerate(model.folds):
            rows = learnt[model.fold_of[place[learnt]] == fold]
            if len(rows):
                logits[rows] = part.logits(texts.take(pa.array(rows)))
        scores: np.ndarray = np.where(num_tokens > 0, model.scale * logits + model.offset, -np.inf)
        return scores

    def explain(self, text: str, model: ClassifierModel, *, num_features: int = 20) -> list[tuple[str, float]]:
        """Return the n-grams of one text that move its logit most, with what each adds to it, largest first.

        Args:
          text: title and text as they are scored.
          model: of `fit`; its model of all labelled texts is used.
          num_features: at most so many.
        """
        weights, order = model.whole.weights_V, model.whole.order
        named = named_features(text, len(weights), order)
        added: dict[str, float] = {}
        for name, bucket in named:
            added[name] = added.get(name, 0.0) + float(weights[bucket]) / len(named) ** 0.5
        return sorted(added.items(), key=lambda item: (-abs(item[1]), item[0]))[:num_features]


def _steps(keys: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return rows in the order of a draw by content, those of the smaller class repeated evenly to match the larger.

    AdaGrad divides a step by the gradients before it: a factor on rare positives would only freeze what they touch.
    """
    larger = max(int(labels.sum()), int((~labels).sum()))
    repeats = np.where(labels, larger // max(int(labels.sum()), 1), larger // max(int((~labels).sum()), 1))
    rows = np.repeat(np.arange(len(keys)), repeats)
    turn = np.arange(len(rows)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return rows[np.lexsort((keys[rows], (turn + uniform(keys, seed, "sgd")[rows]) / repeats[rows]))]


def _importance(labels: np.ndarray) -> np.ndarray:
    """Return float64 [n]: n / (2 * size of the class), so that both classes weigh the same."""
    positive = int(labels.sum())
    return np.where(labels, len(labels) / (2 * positive), len(labels) / (2 * (len(labels) - positive)))


def _folds(keys: np.ndarray, labels: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Return int8 [n]: each class dealt out evenly, in the order of a draw by content; equal contents together."""
    fold_of = np.zeros(len(keys), np.int8)
    drawn = uniform(keys, seed, "folds")
    for label in (True, False):
        rows = np.flatnonzero(labels == label)
        fold_of[rows] = np.unique(drawn[rows], return_inverse=True)[1] % num_folds
    return fold_of
