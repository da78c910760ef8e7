"""Miner: what every way of mining shares, over the arrays of a run.

Source: tamis design (training engine). A run is the currency: mining needs no model and no index.
"""

from abc import abstractmethod
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import Qrels, Run
from tamis.data.settings import Settings
from tamis.errors import DataError


class Mining(Protocol):
    """Whatever mines: a `Miner`, or what a method with data of its own returns from its ``over``."""

    def mine(self, run: Run, qrels: Qrels, *, seed: int) -> Run:
        """Return negatives of each query of the run, no answer among them."""


class Miner(Settings):
    """Base of the miners: subclasses give `mine`, the same for equal (run, qrels, seed), in whatever order rows came.

    What holds for all: the queries stay as they are, in their order; a document with relevance above 0 is never a
    negative of its query; one judged 0 may be; a short run gives fewer (`suspected` counts them).
    """

    @abstractmethod
    def mine(self, run: Run, qrels: Qrels, *, seed: int) -> Run:
        """Return negatives of each query of the run, no answer among them.

        Args:
          run: candidates of any search, higher is better.
          qrels: answers of the queries; those of other queries do not matter.
          seed: of all draws; miners that draw nothing take it all the same.
        """


def places(values: pa.Array | pa.ChunkedArray, among: pa.Array) -> np.ndarray:
    """int64 [n]: where each value stands in ``among``, -1 where it does not."""
    found = pc.index_in(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values, value_set=among)
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def pair_keys(run: Run, query_ids: pa.Array, doc_ids: pa.Array) -> np.ndarray:
    """int64 [N]: one number for each (query, document) of a run among the given ids, -1 where either is not there."""
    queries = places(run.query_ids, query_ids)[run.query_rows]
    docs = places(run.doc_ids, doc_ids)[run.docs]
    return np.where((queries >= 0) & (docs >= 0), queries * max(1, len(doc_ids)) + docs, -1)


def answers(run: Run, qrels: Qrels) -> np.ndarray:
    """Bool [N]: the rows of a run that are answers of their query (relevance above 0). O(N log N)."""
    judged = qrels.table.filter(pc.greater(qrels.table["relevance"], 0))
    queries, docs = places(judged["query_id"], run.query_ids), places(judged["doc_id"], run.doc_ids)
    known = (queries >= 0) & (docs >= 0)
    width = max(1, len(run.doc_ids))
    return np.isin(run.query_rows * width + run.docs, queries[known] * width + docs[known])


def lowest_answers(run: Run, is_answer: np.ndarray) -> np.ndarray:
    """float64 [Q]: score of each query's worst answer in the run; NaN where the run scores none."""
    lowest = np.full(len(run.query_ids), np.inf)
    np.minimum.at(lowest, run.query_rows[is_answer], run.scores[is_answer])
    return np.where(np.isinf(lowest), np.nan, lowest)


def ceilings(run: Run, is_answer: np.ndarray, margin_frac: float) -> np.ndarray:
    """float64 [Q]: the score a share of |worst answer's score| below the worst answer; NaN where none is scored."""
    lowest = lowest_answers(run, is_answer)
    with np.errstate(over="ignore"):  # -inf below the lowest number: nothing is under it
        return np.asarray(lowest - margin_frac * np.abs(lowest), dtype=np.float64)


def first(run: Run, keep: np.ndarray, num: int) -> Run:
    """Return the first ``num`` rows of each query among those where a mask [N] is true."""
    before = np.cumsum(keep) - keep
    starts = np.concatenate([before, [0]])[np.minimum(run.offsets[:-1], len(before))]
    return run.filter(keep & (before - np.repeat(starts, np.diff(run.offsets)) < num))


def refuse_unknown(rows: np.ndarray, ids: pa.Array, what: str, try_: str) -> None:
    """Raise when an id has no place.

    Raises:
      DataError: names the first id with a row below 0, and what to try.
    """
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise DataError(f"{what}: {len(missing)} of {len(rows)} are unknown, first {ids[int(missing[0])]}. {try_}")
