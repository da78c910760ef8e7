"""Run: scores of documents for queries, columnar. The currency between rooms.

The order of a run, everywhere: score descending, then doc_id ascending by UTF-8 bytes.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from tamis.data import columns as rules
from tamis.data import trec
from tamis.data.columns import TEXT
from tamis.errors import DataError

Ids: TypeAlias = Sequence[str] | pa.Array


def _ids(values: Ids) -> pa.LargeStringArray:
    with rules.conversion("run: ids"):
        array = (values if isinstance(values, pa.Array) else pa.array(list(values), TEXT)).cast(TEXT)
    if array.null_count:
        raise DataError(f"run: {array.null_count} of {len(array)} ids are missing. Give each query and document an id.")
    return array


def _check_inside(rows: np.ndarray, num_ids: int, what: str) -> None:
    outside = rows[(rows < 0) | (rows >= num_ids)]
    if len(outside):
        raise DataError(
            f"run: {what} row {outside[0]} of {num_ids} ids; rows count from 0. Is the index of another corpus?"
        )


def _byte_order(values: pa.Array) -> np.ndarray:
    return np.asarray(pc.sort_indices(values.cast(pa.large_binary())).to_numpy(), dtype=np.int64)


class Run:
    """Rankings of many queries.

    Attributes:
      query_ids: Arrow strings [Q], in the order given; a query without documents is unanswered.
      doc_ids: Arrow strings [D], sorted by bytes, so that a code is also a tie rank.
      offsets: int64 [Q + 1]; rows of query q are offsets[q]:offsets[q + 1].
      docs: int32 [N] codes into doc_ids.
      scores: float64 [N], higher is better, finite; sorted within each query.
    """

    def __init__(
        self, query_ids: Ids, doc_ids: Ids, query_rows: np.ndarray, doc_rows: np.ndarray, scores: np.ndarray
    ) -> None:
        """Build a run from parallel rows in any order. O(N log N), vectorised.

        Args:
          query_ids: distinct ids [Q].
          doc_ids: distinct ids [D], any order.
          query_rows: int [N], row into query_ids.
          doc_rows: int [N], row into doc_ids; negative rows (an index's padding) are left out.
          scores: float [N].

        Raises:
          DataError: a score is NaN or infinite, an id occurs twice, a query holds a document twice, or a
            row lies outside its ids.
        """
        self.query_ids = _ids(query_ids)
        rules.check_distinct(self.query_ids, "run: queries")
        documents = _ids(doc_ids)
        order = _byte_order(documents)
        self.doc_ids = documents.take(pa.array(order))
        if pc.any(pc.equal(self.doc_ids[1:], self.doc_ids[:-1])).as_py():
            rules.check_distinct(self.doc_ids, "run: documents")
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order))
        present = np.asarray(doc_rows) >= 0
        queries = np.asarray(query_rows, dtype=np.int64)[present]
        rows = np.asarray(doc_rows, dtype=np.int64)[present]
        _check_inside(queries, len(self.query_ids), "query")
        _check_inside(rows, len(order), "document")
        codes = ranks[rows]
        values = np.asarray(scores, dtype=np.float64)[present]
        self._check_finite(queries, codes, values)
        row_order = np.lexsort((codes, -values, queries))
        queries, codes = queries[row_order], codes[row_order]
        self.docs = codes.astype(np.int32)
        self.scores = values[row_order]
        self.offsets = np.searchsorted(queries, np.arange(len(self.query_ids) + 1)).astype(np.int64)
        keys = np.sort(queries * max(1, len(order)) + codes)
        if len(keys) > 1 and (keys[1:] == keys[:-1]).any():
            key = int(keys[1:][keys[1:] == keys[:-1]][0])
            query, code = divmod(key, len(order))
            raise DataError(f"run: query {self.query_ids[query]} holds document {self.doc_ids[code]} twice.")

    def _check_finite(self, queries: np.ndarray, codes: np.ndarray, values: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            query, doc = self.query_ids[int(queries[bad[0]])], self.doc_ids[int(codes[bad[0]])]
            raise DataError(
                f"run: query {query} gives document {doc} the score {values[bad[0]]}; scores must be finite. "
                "Look for an empty text or a damaged encoder."
            )

    @classmethod
    def from_dict(cls, scores: Mapping[str, Mapping[str, float]]) -> Self:
        """Make a run from query id -> document id -> score."""
        docs = sorted({d for ranked in scores.values() for d in ranked})
        code = {d: i for i, d in enumerate(docs)}
        rows = [(q, code[d], s) for q, ranked in enumerate(scores.values()) for d, s in ranked.items()]
        with rules.conversion("run: scores"):
            columns = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return cls(list(scores), docs, columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2])

    @classmethod
    def from_blocks(cls, query_ids: Ids, doc_ids: Ids, rows_QK: np.ndarray, scores_QK: np.ndarray) -> Self:
        """Make a run from an index's answer: document rows and scores [Q, K]; row -1 is padding."""
        num_queries, depth = rows_QK.shape
        queries = np.repeat(np.arange(num_queries), depth)
        used, codes = np.unique(rows_QK, return_inverse=True)
        all_ids = _ids(doc_ids)
        _check_inside(used[used >= 0], len(all_ids), "document")
        documents = all_ids.take(pa.array(used[used >= 0]))
        return cls(query_ids, documents, queries, codes.ravel() - int((used < 0).sum()), scores_QK.ravel())

    def __len__(self) -> int:
        """Number of rows (query, document, score)."""
        return len(self.docs)

    def __eq__(self, other: object) -> bool:
        """Say whether both hold the same queries in the same order with the same ranked documents and scores."""
        if not isinstance(other, Run):
            return NotImplemented
        return (
            self.query_ids.equals(other.query_ids)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.scores, other.scores)
            and self.doc_column.equals(other.doc_column)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def doc_column(self) -> pa.Array:
        """Document id of each row."""
        return self.doc_ids.take(pa.array(self.docs))

    @cached_property
    def query_rows(self) -> np.ndarray:
        """int64 [N]: query row of each row."""
        return np.repeat(np.arange(len(self.query_ids)), np.diff(self.offsets))

    @property
    def ranks(self) -> np.ndarray:
        """int64 [N]: rank of each row within its query, from 1."""
        return np.arange(len(self.docs)) - np.repeat(self.offsets[:-1], np.diff(self.offsets)) + 1

    @cached_property
    def _query_index(self) -> dict[str, int]:
        return {q: i for i, q in enumerate(self.query_ids.to_pylist())}

    def ranked(self, query_id: str) -> list[tuple[str, float]]:
        """Return one query's (document id, score), best first; empty when it is not in the run."""
        row = self._query_index.get(query_id)
        if row is None:
            return []
        span = slice(self.offsets[row], self.offsets[row + 1])
        return list(
            zip(self.doc_ids.take(pa.array(self.docs[span])).to_pylist(), self.scores[span].tolist(), strict=True)
        )

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return query id -> document id -> score, best first."""
        return {q: dict(self.ranked(q)) for q in self.query_ids.to_pylist()}

    def filter(self, keep: np.ndarray) -> "Run":
        """Keep the rows where a boolean mask [N] is true; every query stays."""
        return Run(self.query_ids, self.doc_ids, self.query_rows[keep], self.docs[keep], self.scores[keep])

    def truncate(self, k: int) -> "Run":
        """Keep the first k documents of each query."""
        return self.filter(self.ranks <= k)

    def with_scores(self, scores: np.ndarray) -> "Run":
        """Return the same pairs with other scores [N], ranked anew."""
        return Run(self.query_ids, self.doc_ids, self.query_rows, self.docs, scores)

    def map(self, keep: Callable[[str, list[tuple[str, float]]], Iterable[tuple[str, float]]]) -> "Run":
        """Apply a function to each query's ranked list; a Python loop over queries, for filters and miners."""
        return Run.from_dict({q: dict(keep(q, self.ranked(q))) for q in self.query_ids.to_pylist()})

    def answer(self, query_ids: Ids) -> "Run":
        """Return the run over exactly these queries in this order; those it lacks are unanswered."""
        wanted = _ids(query_ids)
        found = np.asarray(
            pc.fill_null(pc.index_in(self.query_ids, value_set=wanted), -1).to_numpy(zero_copy_only=False)
        )
        rows = found[self.query_rows]
        keep = rows >= 0
        return Run(wanted, self.doc_ids, rows[keep], self.docs[keep], self.scores[keep])

    def without(self, query_ids: Ids, doc_ids: Ids) -> "Run":
        """Leave out the given pairs (self-retrieval, for one)."""
        pairs = pa.table({"q": _ids(query_ids), "d": _ids(doc_ids)})
        q = pc.fill_null(pc.index_in(pairs["q"].combine_chunks(), value_set=self.query_ids), -1).to_numpy(
            zero_copy_only=False
        )
        d = pc.fill_null(pc.index_in(pairs["d"].combine_chunks(), value_set=self.doc_ids), -1).to_numpy(
            zero_copy_only=False
        )
        known = (q >= 0) & (d >= 0)
        width = max(1, len(self.doc_ids))
        banned = q[known].astype(np.int64) * width + d[known]
        return self.filter(~np.isin(self.query_rows * width + self.docs, banned))

    def to_table(self) -> pa.Table:
        """Return columns query_id, doc_id, rank, score."""
        return pa.table(
            {
                "query_id": self.query_ids.take(pa.array(self.query_rows)),
                "doc_id": self.doc_column,
                "rank": self.ranks,
                "score": self.scores,
            }
        )

    def write_trec(self, file: Any, tag: str = "tamis") -> None:  # noqa: ANN401 - a binary file
        """Write a TREC run; blanks and percent signs in ids are percent-encoded. Vectorised."""
        queries = trec.encode_ids(self.query_ids).take(pa.array(self.query_rows))
        docs = trec.encode_ids(self.doc_ids).take(pa.array(self.docs))
        columns = [queries, pa.array(["Q0"], TEXT).take(pa.array(np.zeros(len(self), np.int32))), docs]
        columns += [pa.array(self.ranks).cast(TEXT), pa.array(self.scores).cast(TEXT)]
        columns += [pa.array([trec.encode(tag) or "tamis"], TEXT).take(pa.array(np.zeros(len(self), np.int32)))]
        lines = pc.binary_join_element_wise(*columns, pa.scalar(" ", TEXT))
        ended = pc.binary_join_element_wise(lines, pa.scalar("", TEXT), pa.scalar("\n", TEXT))
        if len(ended):
            end = np.frombuffer(ended.buffers()[1], dtype=np.int64)[len(ended)]
            file.write(ended.buffers()[2][:end])  # the strings lie end to end: they are the file's bytes

    @classmethod
    def read_trec(cls, path: Path | str) -> Self:
        """Read a TREC run (query Q0 document rank score tag); the rank column is not believed.

        Raises:
          DataError: unreadable, a line without six fields, a score that is no number, a pair twice.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error
        if not data.strip():
            return cls.from_dict({})
        if data[:1] == b" " or any(mark in data for mark in (b"\t", b"  ", b" \n", b"\n ", b"\r")):  # others' spacing
            data = re.sub(rb"(?m)^ | ?\r?$", b"", re.sub(rb"[ \t]+", b" ", data))
        names = ["query", "q0", "doc", "rank", "score", "tag"]
        try:
            table = pcsv.read_csv(
                pa.BufferReader(data),
                read_options=pcsv.ReadOptions(column_names=names),
                parse_options=pcsv.ParseOptions(delimiter=" ", quote_char=False),
                convert_options=pcsv.ConvertOptions(
                    column_types={n: pa.float64() if n == "score" else TEXT for n in names},
                    null_values=[],
                ),
            )
        except pa.ArrowInvalid as error:
            raise DataError(f"{path}: not a TREC run (query Q0 document rank score tag): {error}") from error
        queries = table["query"].combine_chunks().dictionary_encode()
        docs = table["doc"].combine_chunks().dictionary_encode()
        return cls(
            trec.decode_ids(queries.dictionary),
            trec.decode_ids(docs.dictionary),
            queries.indices.to_numpy(),
            docs.indices.to_numpy(),
            table["score"].to_numpy(),
        )


def align(runs: Sequence[Run]) -> tuple[pa.Array, pa.Array, list[tuple[np.ndarray, np.ndarray]]]:
    """Bring runs to common ids.

    Returns:
      query_ids [Q] (of the first run, then what others add), doc_ids [D] sorted by bytes, and for each
      run its query rows and document rows (int64 [N]) into them.
    """
    query_ids = pc.unique(pa.concat_arrays([r.query_ids for r in runs]))
    doc_ids = pc.unique(pa.concat_arrays([r.doc_ids for r in runs]))
    doc_ids = doc_ids.take(pa.array(_byte_order(doc_ids)))
    rows = []
    for run in runs:
        query_map = pc.index_in(run.query_ids, value_set=query_ids).to_numpy(zero_copy_only=False)
        doc_map = pc.index_in(run.doc_ids, value_set=doc_ids).to_numpy(zero_copy_only=False)
        rows.append((query_map[run.query_rows].astype(np.int64), doc_map[run.docs].astype(np.int64)))
    return query_ids, doc_ids, rows
