"""Passages to documents: search passages, return the documents they are of.

Source: Dai, Callan 2019, *Deeper Text Understanding for IR*, arXiv:1905.09217 (MaxP, FirstP).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data import Corpus, Run
from tamis.data.columns import TEXT
from tamis.data.settings import Settings
from tamis.errors import DataError


@dataclass(frozen=True)
class Aggregated:
    """A run over documents, and for each of its rows the id of the passage that speaks for it."""

    run: Run
    passages: pa.LargeStringArray


class MaxP(Settings):
    """A document scores as its best passage."""

    method: Literal["max_p"] = "max_p"

    def aggregate(self, run: Run, passages: Corpus, *, seed: int) -> Aggregated:
        """Aggregate a run over passages. O(rows log rows).

        Args:
          run: search deep: 100 passages can be 12 documents.
          passages: the passages with their ``parent_doc_id`` and ``ordinal``.
          seed: unused; every aggregation takes it.

        Raises:
          DataError: passages without parents, or a passage of the run is unknown.
        """
        return _aggregate(run, passages, 1, first=False)


class TopK(Settings):
    """A document scores as the mean of its k best passages (fewer where it has fewer in the run).

    Attributes:
      k: passages that count.
    """

    method: Literal["top_k"] = "top_k"
    k: Annotated[int, Field(ge=1)] = 3

    def aggregate(self, run: Run, passages: Corpus, *, seed: int) -> Aggregated:
        """Aggregate a run over passages; see `MaxP.aggregate`."""
        return _aggregate(run, passages, self.k, first=False)


class FirstP(Settings):
    """A document scores as the first of its passages in the run, by position in the text."""

    method: Literal["first_p"] = "first_p"

    def aggregate(self, run: Run, passages: Corpus, *, seed: int) -> Aggregated:
        """Aggregate a run over passages; see `MaxP.aggregate`."""
        return _aggregate(run, passages, 1, first=True)


Aggregation = Annotated[MaxP | TopK | FirstP, Field(discriminator="method")]


def _aggregate(run: Run, passages: Corpus, k: int, *, first: bool) -> Aggregated:
    """Mean of the first k passages of each (query, document), in run order or in text order."""
    if not passages.is_passages:
        raise DataError("aggregate: the corpus has no column 'parent_doc_id'. Give the passages that were searched.")
    rows = passages.rows_of(run.doc_ids)
    if (rows < 0).any():
        unknown = run.doc_ids[int(np.flatnonzero(rows < 0)[0])]
        raise DataError(f"aggregate: passage {unknown} of the run is not among the {len(passages)} passages given.")
    table = passages.table(["parent_doc_id", "ordinal"]).take(pa.array(rows))
    parents = table["parent_doc_id"].combine_chunks().cast(TEXT).dictionary_encode()
    documents, parent = parents.dictionary, parents.indices.to_numpy(zero_copy_only=False)[run.docs].astype(np.int64)
    position = table["ordinal"].to_numpy()[run.docs] if first else np.arange(len(run))
    query = run.query_rows
    order = np.lexsort((position, parent, query))
    keys = (query * max(1, len(documents)) + parent)[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    group = np.cumsum(np.isin(np.arange(len(keys)), starts)) - 1
    counted = np.arange(len(keys)) - starts[group] < k if len(keys) else np.zeros(0, bool)
    total = np.bincount(group[counted], run.scores[order][counted], len(starts))
    scores = total / np.maximum(1, np.bincount(group[counted], minlength=len(starts)))
    best = order[starts]  # of equal scores the run's order has put the smaller passage id first
    result = Run(run.query_ids, documents, query[best], parent[best], scores)
    place = pc.index_in(documents, value_set=result.doc_ids).to_numpy(zero_copy_only=False).astype(np.int64)
    found = np.lexsort((place[parent[best]], -scores, query[best]))
    return Aggregated(result, run.doc_ids.take(pa.array(run.docs[best][found])))
