"""Subset: some documents of a corpus as a corpus of their own, read in batches and never copied.

Source: tamis design: what is learned from may be less than what is searched.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from tamis.data.corpus import ROW_GROUP_DOCS, Corpus
from tamis.errors import DataError


class Subset(Corpus):
    """The documents of a corpus that a mask keeps, in their order. Holds one bool a document."""

    def __init__(self, corpus: Corpus, kept: np.ndarray) -> None:
        """Keep the documents where ``kept``, bool [D], is true.

        Raises:
          DataError: the mask has another length than the corpus.
        """
        if len(kept) != len(corpus):
            raise DataError(f"subset: a mask of {len(kept)} rows for {len(corpus)} documents. Do both belong together?")
        super().__init__(schema=corpus.schema)
        self._base = corpus
        self._kept = np.asarray(kept, dtype=bool)
        self._rows = np.flatnonzero(self._kept)

    def __len__(self) -> int:
        """Number of documents kept."""
        return len(self._rows)

    def batches(
        self, columns: Sequence[str] | None = None, *, batch_docs: int = ROW_GROUP_DOCS
    ) -> Iterator[pa.RecordBatch]:
        """Yield the kept documents in order, at most ``batch_docs`` a batch; batches without any are passed over."""
        start = 0
        for batch in self._base.batches(columns, batch_docs=batch_docs):
            mask = self._kept[start : start + len(batch)]
            start += len(batch)
            if mask.all():
                yield batch
            elif mask.any():
                yield batch.filter(pa.array(mask))

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the given rows of the subset in the given order.

        Raises:
          DataError: a row is below 0 or past the last document of the subset.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise DataError(f"row {outside[0]} of {len(self)} documents: rows count from 0. Look for an unknown id.")
        return self._base.take(self._rows[wanted], columns)

    @cached_property
    def doc_ids(self) -> pa.LargeStringArray:
        """Ids of the kept documents in order."""
        return self._base.doc_ids.filter(pa.array(self._kept))
