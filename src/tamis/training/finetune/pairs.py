"""Training pairs as arrays: queries, the documents they need, and who belongs to whom.

Source: tamis design (training engine). Documents of equal text are one document here: a copy of an answer is an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.errors import DataError
from tamis.ops.hashing import array_keys
from tamis.ops.text import joined


@dataclass(frozen=True)
class Lists:
    """For each of n queries a list of whole numbers, end to end.

    Attributes:
      values: int64 [M].
      offsets: int64 [n + 1].
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, owners: np.ndarray, values: np.ndarray, num: int) -> Self:
        """Group values by owner, below ``num``, in the order given."""
        order = np.argsort(owners, kind="stable")
        offsets = np.zeros(num + 1, dtype=np.int64)
        np.cumsum(np.bincount(owners, minlength=num), out=offsets[1:])
        return cls(values[order].astype(np.int64), offsets)

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> np.ndarray:
        """int64 [n]: entries of each list."""
        sizes: np.ndarray = np.diff(self.offsets)
        return sizes

    @property
    def owners(self) -> np.ndarray:
        """int64 [M]: whose each value is."""
        owners: np.ndarray = np.repeat(np.arange(len(self)), self.sizes)
        return owners

    def of_row(self, row: int) -> np.ndarray:
        """Return one query's list."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Return where in ``values`` the lists of some queries are, one after another."""
        sizes = self.sizes[rows]
        starts = np.cumsum(sizes) - sizes
        places: np.ndarray = np.arange(sizes.sum()) + np.repeat(self.offsets[rows] - starts, sizes)
        return places

    def take(self, rows: np.ndarray) -> "Lists":
        """Return the lists of some queries."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(self.sizes[rows], out=offsets[1:])
        return Lists(self.values[self.places(rows)], offsets)


@dataclass(frozen=True)
class TrainingPairs:
    """What a contrastive run needs, n queries and m documents.

    Attributes:
      queries: n texts.
      documents: m texts, title and text joined, all different.
      positives: answers of each query, one at least, rows of ``documents``.
      negatives: mined ones, hardest first, none of them an answer; lists may be empty.
      teacher: rows of ``documents`` that a teacher scored, beside ``teacher_scores``; lists may be empty.
      teacher_scores: float32, as long as ``teacher.values``.
      num_unanswered: queries left out: blank ones, and those without an answer that has words.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    positives: Lists
    negatives: Lists
    teacher: Lists
    teacher_scores: np.ndarray
    num_unanswered: int = 0

    @classmethod
    def of(
        cls, corpus: Corpus, queries: Queries, qrels: Qrels, *, negatives: Run | None = None, teacher: Run | None = None
    ) -> Self:
        """Collect the texts of all documents that judgements and rankings of these queries name.

        Args:
          corpus: where the documents are, their texts as they are to be learnt: for queries that were cut out of
            documents, the corpus without what was cut.
          queries: training queries.
          qrels: their answers, those with relevance above 0; those of other queries are passed over.
          negatives: mined documents of each query, best first; those that are answers are left out.
          teacher: scores of documents.

        Raises:
          DataError: no query has an answer with words, or a judgement or ranking names a document that the corpus
            lacks.
        """
        judged = qrels.table.filter(pc.greater(qrels.table["relevance"], 0))
        empty = judged.slice(0, 0)
        tables = [judged, *(run.to_table() if run is not None else empty for run in (negatives, teacher))]
        query_ids = queries.table["query_id"].combine_chunks()
        owners = [_places(table["query_id"], query_ids) for table in tables]
        known = [table.filter(pa.array(rows >= 0)) for table, rows in zip(tables, owners, strict=True)]
        doc_ids = pc.unique(pa.chunked_array([c for t in known for c in t["doc_id"].chunks], pa.large_string()))
        texts, document_of = _texts(corpus, doc_ids)
        has_words = _has_words(texts)
        documents = [document_of[_places(table["doc_id"], doc_ids)] for table in known]
        speaks = _has_words(queries.table["text"])
        sets = []
        for rows, docs in zip(owners, documents, strict=True):
            asked = rows[rows >= 0]
            sets.append((asked, docs, speaks[asked] & has_words[docs]))
        scores = np.asarray(known[2]["score"], np.float32) if teacher is not None else np.zeros(0, np.float32)
        return cls._of_rows(queries.texts, texts.to_pylist(), sets, scores)

    @classmethod
    def _of_rows(
        cls,
        queries: Sequence[str],
        documents: Sequence[str],
        sets: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
        scores: np.ndarray,
    ) -> Self:
        """Make lists of (query row, document row, whether both have words) of answers, negatives and teacher."""
        width, num = max(1, len(documents)), len(queries)
        (asked, answers, usable), _, _ = sets
        kept = np.unique(asked[usable])
        if not len(kept):
            raise DataError(
                f"training pairs: none of {num} queries has an answer with words. Give judgements above 0 whose "
                "queries and documents are not empty."
            )
        place = np.full(num, -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        taken = np.unique(asked[usable] * width + answers[usable])
        lists, last = [], np.zeros(0, np.int64)
        for number, (owners, docs, is_usable) in enumerate(sets):
            pairs = owners * width + docs
            wanted = is_usable & (place[owners] >= 0)
            if number == 1:
                wanted &= ~np.isin(pairs, taken)
            rows = np.flatnonzero(wanted)
            last = rows[np.sort(np.unique(pairs[rows], return_index=True)[1])]  # a copy says nothing new: the first
            lists.append(Lists.of(place[owners[last]], docs[last], len(kept)))
        told = scores[last[np.argsort(place[sets[2][0][last]], kind="stable")]]
        positives, negatives, teacher = lists
        asked_for = [queries[row] for row in kept.tolist()]
        return cls(asked_for, documents, positives, negatives, teacher, told, num - len(kept))

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.queries)


def _places(values: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    """Return int64 rows of values among ids, -1 where there is none."""
    found = pc.fill_null(pc.index_in(values.cast(ids.type), value_set=ids), -1)
    return np.asarray(found.to_numpy(), dtype=np.int64)


def _texts(corpus: Corpus, doc_ids: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return the different texts of some documents, in the order of their hashes, and the text's row of each."""
    rows = corpus.rows_of(doc_ids)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise DataError(
            f"training pairs: {len(missing)} of {len(rows)} documents are not in the corpus of {len(corpus)}, "
            f"{doc_ids[int(missing[0])].as_py()!r} for one. Give the corpus that was judged."
        )
    texts = joined(corpus.take(rows, ["title", "text"]))
    _, first, same = np.unique(array_keys(texts), return_index=True, return_inverse=True)
    return texts.take(pa.array(first)), same.reshape(-1)


def _has_words(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return bool [n]: whether there is more than blanks."""
    lengths = pc.utf8_length(pc.utf8_trim_whitespace(texts))
    return np.asarray(pc.greater(lengths, 0).to_numpy(zero_copy_only=False), dtype=bool)
