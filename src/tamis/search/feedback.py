"""Pseudo-relevance feedback: expand a query from its own first results, then search again.

Source: Lavrenko, Croft 2001 and Abdul-Jaleel et al. 2004 (RM3); Rocchio 1971, on dense vectors as in Li et al. 2021,
*Pseudo Relevance Feedback with Deep Language Models and Dense Retrievers*, arXiv:2108.11044.
"""

from typing import Annotated, Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from tamis.data import Queries, Run
from tamis.data.settings import Settings
from tamis.search.answers import to_run
from tamis.search.bm25 import BM25Index, Packed
from tamis.search.dense import DenseIndex

Firsts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Feedback documents, packed: starts int64 [B + 1], rows of the index int64, scores float64 above 0."""


def first_documents(run: Run, queries: Queries, index: BM25Index | DenseIndex, num_docs: int) -> Firsts:
    """Return each query's first documents of a run that score above 0 and are in the index."""
    run = run.answer(queries.table["query_id"].combine_chunks())
    rows = pc.fill_null(pc.index_in(run.doc_ids, value_set=index.doc_ids), -1).to_numpy(zero_copy_only=False)
    docs = rows[run.docs].astype(np.int64)
    keep = (run.ranks <= num_docs) & (run.scores > 0) & (docs >= 0)
    starts = np.searchsorted(run.query_rows[keep], np.arange(len(queries) + 1)).astype(np.int64)
    return starts, docs[keep], run.scores[keep]


class RM3(Settings):
    """Mix a lexical query with the terms of its first results.

    Attributes:
      num_docs: results read.
      num_terms: terms kept, of each of them and in the end.
      original_weight: share of the query itself.
      max_df_frac: leave out terms in more than this share of the documents (below 1 it removes the vocabulary
        of a single-topic corpus).
    """

    method: Literal["rm3"] = "rm3"
    num_docs: Annotated[int, Field(ge=1)] = 5
    num_terms: Annotated[int, Field(ge=1)] = 20
    original_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_df_frac: Annotated[float, Field(gt=0, le=1)] = 1.0

    def rerank(self, run: Run, queries: Queries, reranker: BM25Index, *, seed: int, k: int = 1000) -> Run:
        """Search again with the expanded queries.

        Args:
          run: first results, of this index or of another one over the same documents.
          queries: the original queries; one that nothing answers stays unanswered.
          reranker: the index to search.
          seed: unused; every reranker takes it.
          k: documents a query.
        """
        packed = self.expand(reranker, reranker.pack(queries), first_documents(run, queries, reranker, self.num_docs))
        rows, scores, _ = reranker.search_packed(packed, k)
        return to_run(queries.table["query_id"].combine_chunks(), reranker.doc_ids, (rows, scores))

    def expand(self, index: BM25Index, packed: Packed, firsts: Firsts) -> Packed:
        """Return the expanded queries; weights of each sum to 1. O(terms of the documents read).

        Args:
          index: where terms and frequencies come from.
          packed: the original queries.
          firsts: feedback documents of each query.
        """
        starts, terms, weights = packed
        sizes, new_terms, new_weights = [0], [], []
        for query in range(len(starts) - 1):
            own, share = terms[starts[query] : starts[query + 1]], weights[starts[query] : starts[query + 1]]
            inside = slice(firsts[0][query], firsts[0][query + 1])
            found, model = self._relevance_model(index, firsts[1][inside], firsts[2][inside])
            kept = self.original_weight if len(found) else 1.0
            if len(own) == 0:  # unanswered, or only the model of another index's results
                found, model = found[:0], model[:0]
            every = np.union1d(own, found)
            mixed = np.zeros(len(every))
            mixed[np.searchsorted(every, own)] += kept * share / max(float(share.sum()), 1e-300)
            mixed[np.searchsorted(every, found)] += (1 - kept) * model
            new_terms.append(every[mixed > 0])
            new_weights.append(mixed[mixed > 0])
            sizes.append(sizes[-1] + int((mixed > 0).sum()))
        empty = np.zeros(0)
        packed_terms = np.concatenate([empty, *new_terms]).astype(np.int64)
        return np.array(sizes, np.int64), packed_terms, np.concatenate([empty, *new_weights])

    def _relevance_model(self, index: BM25Index, docs: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return terms ascending and weights that sum to 1: sum over documents of score · tf / length."""
        starts, terms, counts = index.forward
        found, parts = [], []
        for doc, score in zip(docs, scores, strict=True):
            inside = slice(starts[doc], starts[doc + 1])
            term, count = terms[inside], counts[inside]
            df = index.starts[term + 1] - index.starts[term]
            usable = (df <= self.max_df_frac * len(index)) & index.term_is_usable[term]
            term, count = term[usable], count[usable]
            most = np.lexsort((term, -count))[: self.num_terms]
            found.append(term[most])
            parts.append(score * count[most] / max(1, int(index.lengths[doc])))
        if not found:
            return np.zeros(0, np.int64), np.zeros(0)
        term, place = np.unique(np.concatenate(found), return_inverse=True)
        weight = np.bincount(place, np.concatenate(parts), len(term))
        best = np.sort(np.lexsort((term, -weight))[: self.num_terms])
        total = float(weight[best].sum())
        return term[best].astype(np.int64), weight[best] / (total if total > 0 else 1.0)


class Rocchio(Settings):
    """Move a query's vector toward those of its first results.

    Attributes:
      num_docs: results read.
      alpha: weight of the query's unit vector.
      beta: weight of the mean of the results' vectors; 0 changes nothing.
    """

    method: Literal["rocchio"] = "rocchio"
    num_docs: Annotated[int, Field(ge=1)] = 3
    alpha: Annotated[float, Field(gt=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 1.0

    def rerank(self, run: Run, queries: Queries, reranker: DenseIndex, *, seed: int, k: int = 1000) -> Run:
        """Search again with the moved vectors.

        Args:
          run: first results, of this index or of another one over the same documents.
          queries: the original queries; one without any weight stays unanswered.
          reranker: the index to search.
          seed: unused; every reranker takes it.
          k: documents a query.
        """
        firsts = first_documents(run, queries, reranker, self.num_docs)
        moved = self.expand(reranker, reranker.encode(queries), firsts)
        return reranker.search_vectors(queries.table["query_id"].combine_chunks(), moved, k)

    def expand(self, index: DenseIndex, query_BH: np.ndarray, firsts: Firsts) -> np.ndarray:
        """Return unit vectors [B, H] of alpha · query + beta · mean; a zero query stays zero. O(B·num_docs·H)."""
        query = np.asarray(query_BH, dtype=np.float64)
        norms = np.linalg.norm(query, axis=1, keepdims=True)
        query = np.divide(query, norms, out=np.zeros_like(query), where=norms > 0)
        moved = self.alpha * query
        for row in range(len(query)):
            docs = firsts[1][firsts[0][row] : firsts[0][row + 1]]
            if len(docs) and norms[row] > 0:
                moved[row] += self.beta * index.vectors[docs].astype(np.float64).mean(axis=0)
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        units: np.ndarray = np.divide(moved, norms, out=np.zeros_like(moved), where=norms > 1e-12).astype(np.float32)
        return units
