"""What a selection sees and returns: documents in batches, measures of each, the choice made of them.

Source: tamis design (method cards K1 and C0).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import Corpus, Documents, Sifted
from tamis.ops.text import joined

TEXT = pa.large_string()
COLUMNS = ("doc_id", "title", "text", "source")
"""What methods see of a document."""
Engine: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Applies a function to tasks and yields the results in their order: `map`, or the same over threads or machines."""


def seen(corpus: Documents) -> list[str]:
    """Return which of COLUMNS the documents have."""
    return [name for name in COLUMNS if name in corpus.schema.names]


def tasks(corpus: Documents) -> Iterable[Any]:
    """Return what an engine hands to workers: pieces that a worker reads itself, or else batches. Both have a len."""
    pieces = getattr(corpus, "pieces", None)
    return pieces() if pieces is not None else corpus.batches(seen(corpus))


def batches_of(task: Any) -> Iterable[pa.RecordBatch]:  # noqa: ANN401 - a batch or a piece with read(columns)
    """Return the batches of one task, each title as the first line of its text: `joined` costs nothing after that."""
    return map(_titled, (task,) if isinstance(task, pa.RecordBatch) else task.read(list(COLUMNS)))


def _titled(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = {name: batch.column(name) for name in batch.schema.names if name != "title"}
    return pa.record_batch(columns | {"text": joined(batch)})


@dataclass(frozen=True)
class Measures:
    """What is held of each document of the pool, n rows in corpus order; no texts.

    Attributes:
      doc_ids: large_string [n].
      scores: float64 [n], higher is nearer to the target, -inf where the method refuses a document.
      keys: uint64 [n], hashes of title and text; they break ties.
      sizes: int64 [n] in the budget's unit.
      strata: large_string [n], or None where the method has none.
      counts: int64 [2^18] unigrams and bigrams of the whole pool, or None where the method did not count them.
      refused: int8 [n], 0 or 1 + the place of a reason in the method's ``reasons``; None where it has only one.
    """

    doc_ids: pa.Array
    scores: np.ndarray
    keys: np.ndarray
    sizes: np.ndarray
    strata: pa.Array | None = None
    counts: np.ndarray | None = None
    refused: np.ndarray | None = None

    @classmethod
    def concat(cls, parts: Sequence["Measures"], counts: np.ndarray | None) -> "Measures":
        """Return the measures of batches, at least one, as those of all their documents."""
        labels = [part.strata for part in parts]
        return cls(
            pa.concat_arrays([part.doc_ids for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            None if labels[0] is None else pa.concat_arrays(labels),
            counts,
        )

    def order(self, rows: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray:
        """Return the rows in the order of keeping: score descending, key ascending, doc_id ascending.

        Args:
          rows: int64, those to be ordered.
          scores: float64 [n] to order by instead of the method's own.
        """
        values = self.scores if scores is None else scores
        by_key = rows[np.lexsort((self.keys[rows], -values[rows]))]
        best, keys = values[by_key], self.keys[by_key]
        same = np.flatnonzero((best[1:] == best[:-1]) & (keys[1:] == keys[:-1]))
        if len(same):  # equal contents: the only rows that ids have to order
            tied = np.unique(np.r_[same, same + 1])
            ids = self.doc_ids.take(pa.array(by_key[tied])).cast(pa.large_binary())
            ranks = np.empty(len(tied), np.int64)
            ranks[pc.sort_indices(ids).to_numpy()] = np.arange(len(tied))
            by_key[tied] = by_key[tied][np.lexsort((ranks, keys[tied], -best[tied]))]
        return by_key


@dataclass(frozen=True)
class Choice:
    """Which rows of a corpus are kept, and why the others are not; holds no texts.

    Attributes:
      doc_ids: large_string [n].
      kept: bool [n].
      scores: float64 [n], -inf where the method refused the document.
      reasons: dictionary of large_string [n], null where kept.
      figures: num_docs, num_kept, budget, pool_<unit> and kept_<unit> (the budget, all there is and what is kept),
        num_in_target, kl_reduction and kl_reduction_uniform (nats; the control is a uniform draw of the same budget).
      notes: plain sentences a reader should see, such as a budget above the size of the pool.
    """

    doc_ids: pa.Array
    kept: np.ndarray
    scores: np.ndarray
    reasons: pa.Array
    figures: dict[str, float]
    notes: tuple[str, ...]

    def dropped(self) -> pa.Table:
        """Return doc_id, reason and score of the documents that are not kept, in corpus order."""
        rows = pa.array(np.flatnonzero(~self.kept))
        reasons = self.reasons.take(rows).cast(TEXT)
        return pa.table({"doc_id": self.doc_ids.take(rows), "reason": reasons, "score": self.scores[~self.kept]})

    def selected(self, corpus: Documents) -> "Selected":
        """Load the kept documents, in corpus order."""
        kept = Corpus(table=corpus.take(np.flatnonzero(self.kept)))
        return Selected(kept, self.dropped(), self.scores, self.figures, self.notes)


@dataclass(frozen=True)
class Selected(Sifted):
    """A sifted corpus with the scores of all documents, float64 [n] in corpus order, and what was measured.

    Figures and notes are those of `Choice`.
    """

    scores: np.ndarray
    figures: dict[str, float]
    notes: tuple[str, ...]
