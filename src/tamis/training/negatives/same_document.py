"""Same-document negatives: other passages of the right document, on topic yet not the answer.

Source: Krishna et al. 2022, RankGen, arXiv:2205.09726 (its InBook negatives); distance and copies: tamis.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data import Corpus, Qrels, Run
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.training.negatives.base import places, refuse_unknown

_BLOCK_PAIRS = 1 << 22


class SameDocument(Settings):
    """Keep the nearest passages of each answer's document that are no answers and do not stand beside one.

    A query's answer often runs over into the next passage, so neighbours are left out. Half and half with retrieved
    negatives: `TopK` of `candidates` of both.

    Attributes:
      num_negatives: passages kept of each query; fewer where its documents are short.
      gap: passages left out on each side of an answer; 0 lets its neighbours in.
    """

    method: Literal["same_document"] = "same_document"
    num_negatives: Annotated[int, Field(ge=1)] = 4
    gap: Annotated[int, Field(ge=0)] = 1

    def over(self, passages: Corpus) -> "SameDocumentMiner":
        """Return the miner that knows which passage stands where.

        Args:
          passages: the corpus that queries are answered from; all its ids, parents and places are held.

        Raises:
          DataError: the corpus is of whole documents.
        """
        if not passages.is_passages:
            raise DataError("same_document: the corpus holds whole documents, and they have no neighbours. Cut it.")
        table = passages.table(["doc_id", "group_id", "parent_doc_id", "ordinal"]).combine_chunks()
        codes = [table[name].combine_chunks().dictionary_encode().indices for name in ("parent_doc_id", "group_id")]
        parents, groups = (np.asarray(code, dtype=np.int64) for code in codes)
        ordinals = np.asarray(table["ordinal"], dtype=np.int64)
        order = np.lexsort((ordinals, parents))
        ids = table["doc_id"].combine_chunks().take(pa.array(order))
        return SameDocumentMiner(self, ids, parents[order], ordinals[order], groups[order])


@dataclass(frozen=True)
class SameDocumentMiner:
    """A `SameDocument` with its data: passages, those of one document together.

    Attributes:
      settings: of the miner.
      doc_ids: Arrow strings [P].
      parents: int64 [P], one number a document, ascending.
      ordinals: int64 [P], place within the document, ascending within it.
      groups: int64 [P], one number a text.
    """

    settings: SameDocument
    doc_ids: pa.Array
    parents: np.ndarray
    ordinals: np.ndarray
    groups: np.ndarray

    def mine(self, run: Run, qrels: Qrels, *, seed: int) -> Run:
        """Return for each query passages of its answers' documents; score: minus the distance to the next answer.

        A passage with the text of an answer is left out, wherever it stands. O(answers · passages of a document).

        Args:
          run: gives the queries; its candidates are not read.
          qrels: answers, passages all.
          seed: unused; every miner takes it.

        Raises:
          DataError: an answer is not among the passages; names it.
        """
        judged = qrels.table.filter(pc.greater(qrels.table["relevance"], 0))
        queries = places(judged["query_id"], run.query_ids)
        judged, queries = judged.filter(pa.array(queries >= 0)), queries[queries >= 0]
        rows = places(judged["doc_id"], self.doc_ids)
        refuse_unknown(rows, judged["doc_id"], "same_document, answers", "Judge passages, of this corpus.")
        order = np.lexsort((rows, queries))
        queries, rows = queries[order], rows[order]
        starts = np.searchsorted(self.parents, self.parents[rows])
        sizes = np.searchsorted(self.parents, self.parents[rows], side="right") - starts
        found = [
            self._near(*(part[block] for part in (queries, rows, starts, sizes))) for block in _blocks(queries, sizes)
        ]
        made = [np.concatenate([np.zeros(0, np.int64), *parts]) for parts in zip(*found, strict=True)]
        owners, passages, distances = made or [np.zeros(0, np.int64)] * 3
        used, docs = np.unique(passages, return_inverse=True)
        ids = self.doc_ids.take(pa.array(used))
        return Run(run.query_ids, ids, owners, docs, -distances.astype(np.float64)).truncate(
            self.settings.num_negatives
        )

    def _near(
        self, queries: np.ndarray, rows: np.ndarray, starts: np.ndarray, sizes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (query, passage, distance) of all that is far enough from every answer, for whole queries."""
        firsts = np.cumsum(sizes) - sizes
        passages = np.repeat(starts - firsts, sizes) + np.arange(sizes.sum())
        owners = np.repeat(queries, sizes)
        distances = np.abs(self.ordinals[passages] - np.repeat(self.ordinals[rows], sizes))
        order = np.lexsort((distances, passages, owners))
        owners, passages, distances = owners[order], passages[order], distances[order]
        again = np.zeros(len(owners), dtype=bool)
        again[1:] = (owners[1:] == owners[:-1]) & (passages[1:] == passages[:-1])
        width = int(self.groups.max(initial=0)) + 1
        is_copy = np.isin(owners * width + self.groups[passages], queries * width + self.groups[rows])
        keep = ~again & ~is_copy & (distances > self.settings.gap)
        return owners[keep], passages[keep], distances[keep]


def _blocks(queries: np.ndarray, sizes: np.ndarray) -> list[slice]:
    """Cut answers, sorted by query, where a query begins, so that a block has few pairs (or is one query)."""
    begins = np.flatnonzero(np.append(True, queries[1:] != queries[:-1])) if len(queries) else np.zeros(0, np.int64)
    before = (np.cumsum(sizes) - sizes)[begins]
    cuts = begins[np.unique(before // _BLOCK_PAIRS, return_index=True)[1]]
    return [slice(*cut) for cut in pairwise(np.append(cuts, len(queries)).tolist())]
