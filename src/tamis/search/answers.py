"""Between ids and rows: which pairs are asked for, the order of ids, and the run an index answers with.

Source: tamis design (search conventions: the order of a run, `include`).
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.queries import Qrels, Queries
from tamis.data.run import Ids, Run

Pairs = tuple[np.ndarray, np.ndarray]


def id_ranks(doc_ids: pa.Array) -> np.ndarray:
    """int64 [D]: place of each id in UTF-8 byte order."""
    ranks = np.empty(len(doc_ids), dtype=np.int64)
    ranks[pc.sort_indices(doc_ids.cast(pa.large_binary())).to_numpy()] = np.arange(len(doc_ids))
    return ranks


def judged_pairs(queries: Queries, include: Qrels | None, doc_ids: pa.Array) -> Pairs | None:
    """Return the judged documents of each query that the index holds: starts int64 [B + 1], rows int64 [P]."""
    if include is None:
        return None
    columns = include.table
    query = pc.index_in(columns["query_id"].combine_chunks(), value_set=queries.table["query_id"].combine_chunks())
    doc = pc.index_in(columns["doc_id"].combine_chunks(), value_set=doc_ids)
    query_rows, doc_rows = (pc.fill_null(rows, -1).to_numpy(zero_copy_only=False) for rows in (query, doc))
    known = (query_rows >= 0) & (doc_rows >= 0)
    return pack_pairs(query_rows[known], doc_rows[known], len(queries))


def pack_pairs(query_rows: np.ndarray, doc_rows: np.ndarray, num_queries: int) -> Pairs:
    """Sort distinct (query, document) rows and pack them: starts int64 [B + 1], rows int64 [P]."""
    width = int(doc_rows.max(initial=0)) + 1
    keys = np.unique(query_rows.astype(np.int64) * width + doc_rows)
    queries, docs = np.divmod(keys, width)
    return np.searchsorted(queries, np.arange(num_queries + 1)).astype(np.int64), docs


def to_run(
    query_ids: Ids,
    doc_ids: pa.Array,
    ranked: tuple[np.ndarray, np.ndarray],
    pairs: Pairs | None = None,
    pair_scores: np.ndarray | None = None,
) -> Run:
    """Make a run of ranked rows and scores [B, K] (row -1 is padding) and of pairs scored besides."""
    rows_BK, scores_BK = ranked
    if pairs is None or pair_scores is None or not len(pair_scores):
        return Run.from_blocks(query_ids, doc_ids, rows_BK, scores_BK)
    listed = np.flatnonzero(rows_BK >= 0)
    queries = np.concatenate([listed // rows_BK.shape[1] if len(listed) else listed, query_rows(pairs[0])])
    docs = np.concatenate([rows_BK.ravel()[listed], pairs[1]])
    scores = np.concatenate([scores_BK.ravel()[listed], pair_scores])
    _, first = np.unique(queries * max(1, len(doc_ids)) + docs, return_index=True)
    used, codes = np.unique(docs[first], return_inverse=True)
    return Run(query_ids, doc_ids.take(pa.array(used)), queries[first], codes, scores[first])


def query_rows(starts: np.ndarray) -> np.ndarray:
    """int64 [P]: query of each packed pair."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))
