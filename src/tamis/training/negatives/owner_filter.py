"""Owner filter: a candidate whose own question means the same as yours is an answer, not a negative.

Source: Ju, Lee 2025, From Generator to Embedder, arXiv:2508.00955, for the idea of judging candidates by the queries
they were made to answer; the threshold and its measure: tamis.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data import Qrels, Run
from tamis.data.run import Ids
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ops.hashing import array_keys, draws
from tamis.ops.topk import exact_scores
from tamis.training.negatives.base import answers, first, places, refuse_unknown
from tamis.training.negatives.candidate_runs import as_ids, table, unit

_QUANTILE = 0.99
_RANDOM_PAIRS = 20_000
_BLOCK_PAIRS = 1 << 20


class OwnerFilter(Settings):
    """Drop candidates with a query of their own that stands too near; keep the first of the others.

    Queries made from documents give every document owners. Queries are compared with queries, so how an encoder
    scores documents, the very thing to be trained, does not decide.

    Attributes:
      num_negatives: documents kept of each query; fewer when its run is short.
      max_cosine: of the query and any owner of a document that stays; "p99": the cosine that one in a hundred random
        pairs of the given queries exceeds, for encoders whose cosines lie close together.
    """

    method: Literal["owner_filter"] = "owner_filter"
    num_negatives: Annotated[int, Field(ge=1)] = 7
    max_cosine: Annotated[float, Field(ge=-1, le=1)] | Literal["p99"] = 0.8

    def over(self, query_ids: Ids, query_QH: np.ndarray, owners: Qrels) -> "OwnerMiner":
        """Return the miner that knows the queries' vectors and whose they are.

        Args:
          query_ids: distinct ids, all queries that will be mined for and all owners.
          query_QH: float [Q, H], any norm.
          owners: which query was made from (or is answered by) which document; relevance above 0 counts.

        Raises:
          DataError: shapes do not fit, or a vector is not finite.
        """
        ids = as_ids(query_ids)
        return OwnerMiner(self, ids, unit(table(query_QH, len(ids), "query vectors"), "query vectors"), owners)


@dataclass(frozen=True)
class OwnerMiner:
    """An `OwnerFilter` with its data.

    Attributes:
      settings: of the filter.
      query_ids: Arrow strings [Q].
      query_QH: float32 [Q, H], norm 1 or 0.
      owners: query and document.
    """

    settings: OwnerFilter
    query_ids: pa.Array
    query_QH: np.ndarray
    owners: Qrels

    def mine(self, run: Run, qrels: Qrels, *, seed: int) -> Run:
        """Return each query's first candidates that no near query owns; those without an owner pass.

        O(pairs of a row and an owner · H).

        Args:
          run: candidates of any search.
          qrels: answers.
          seed: of the random pairs that measure "p99"; otherwise unused.

        Raises:
          DataError: a query of the run, or an owner of one of its documents, has no vector; names it.
        """
        limit = self.limit(seed=seed)
        return first(run, ~answers(run, qrels) & (self.closeness(run) <= limit), self.settings.num_negatives)

    def limit(self, *, seed: int) -> float:
        """Return the cosine above which a document is dropped."""
        if self.settings.max_cosine != "p99":
            return self.settings.max_cosine
        order = np.argsort(draws(array_keys(self.query_ids), seed, "mine"), kind="stable")
        steps = range(1, 1 + min(len(order) - 1, -(-_RANDOM_PAIRS // max(1, len(order)))))
        if not steps:
            return 1.0
        lefts = np.concatenate([order for _ in steps])
        rights = np.concatenate([np.roll(order, step) for step in steps])
        cosines = exact_scores(self.query_QH, self.query_QH, lefts, rights)
        return float(np.quantile(cosines, _QUANTILE, method="higher"))

    def closeness(self, run: Run) -> np.ndarray:
        """float64 [N]: the largest cosine of a row's query and an owner of its document; -inf without an owner.

        Raises:
          DataError: a query of the run, or an owner of one of its documents, has no vector; names it.
        """
        queries = places(run.query_ids, self.query_ids)
        refuse_unknown(queries, run.query_ids, "owner filter, queries of the run", "Give the vector of each.")
        offsets, owners = self._owners_of(run.doc_ids)
        counts = np.diff(offsets)[run.docs]
        nearest = np.full(len(run), -np.inf)
        owned = np.flatnonzero(counts)
        stops = np.cumsum(counts[owned])
        blocks = np.unique(np.append(np.searchsorted(stops, np.arange(0, stops[-1:].sum(), _BLOCK_PAIRS)), len(owned)))
        for start, stop in pairwise(blocks.tolist()):
            rows = owned[start:stop]
            firsts = np.cumsum(counts[rows]) - counts[rows]
            pairs = np.repeat(offsets[run.docs[rows]] - firsts, counts[rows]) + np.arange(counts[rows].sum())
            lefts = np.repeat(queries[run.query_rows[rows]], counts[rows])
            cosines = exact_scores(self.query_QH, self.query_QH, lefts, owners[pairs])
            nearest[rows] = np.minimum(np.maximum.reduceat(cosines, firsts), 1.0)  # rounding apart
        return nearest

    def _owners_of(self, doc_ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return the owners of each document, rows of ``query_ids`` end to end: offsets int64 [D + 1], rows."""
        judged = self.owners.table.filter(pc.greater(self.owners.table["relevance"], 0))
        docs = places(judged["doc_id"], doc_ids)
        judged, docs = judged.filter(pa.array(docs >= 0)), docs[docs >= 0]
        rows = places(judged["query_id"], self.query_ids)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise DataError(
                f"owner filter: query {judged['query_id'][int(missing[0])]} owns document "
                f"{judged['doc_id'][int(missing[0])]} and has no vector. Encode every owner."
            )
        order = np.argsort(docs, kind="stable")
        return np.searchsorted(docs[order], np.arange(len(doc_ids) + 1)), rows[order]
