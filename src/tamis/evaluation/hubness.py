"""Hubness: do a few documents answer everything?

Source: Radovanović, Nanopoulos, Ivanović 2010, Hubs in Space (method card E5).
"""

import numpy as np
import pyarrow.compute as pc

from tamis.data import Corpus, Qrels, Run
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.evaluation.controls import random_run

TOP1_LIMIT_FRAC, TOP1_LIMIT_QUERIES = 0.005, 5
"""A document that is the first answer to more queries than both is worth a look."""
NUM_HUBS = 10


class Hub(Settings):
    """One document and the number of queries whose first k hold it."""

    doc_id: str
    title: str
    num_queries: int


class Concentration(Settings):
    """How unevenly a run's answers fall on the documents; documents never retrieved count with 0.

    Attributes:
      name: "run", "random" (the control) or "relevant" (the judgements: the ideal is not 0).
      skewness: third standardised moment (population) of the counts; 0 where all are equal.
      gini: 0 when all documents are retrieved equally often, towards 1 when one takes all.
      robin_hood: share of the answers that would have to move for all to be equal.
      never_frac: share of the documents in no query's first k.
      top1_frac: largest share of the queries that one document is the first answer of.
    """

    name: str
    skewness: float
    largest: int
    gini: float
    robin_hood: float
    never_frac: float
    top1_frac: float


class Hubness(Settings):
    """The report: the run beside its control and its ideal, and its largest hubs."""

    k: int
    num_queries: int
    num_docs: int
    rows: tuple[Concentration, ...]
    hubs: tuple[Hub, ...]
    flagged: bool


def measure_hubness(run: Run, corpus: Corpus, qrels: Qrels | None = None, *, k: int = 10, seed: int) -> Hubness:
    """Count how often each document is among the first k, beside a random run and the judgements. O(N + D log D).

    Args:
      run: the run to look at.
      corpus: the documents searched; passages are looked up as such.
      qrels: for the row of the relevant documents.
      k: depth.
      seed: of the random run.

    Raises:
      DataError: the run holds a document that the corpus has not, or one of them is empty.
    """
    queries = run.query_ids.to_pylist()
    if not len(corpus) or not queries:
        raise DataError(f"hubness: {len(queries)} queries and {len(corpus)} documents; both are needed.")
    chance = random_run(queries, corpus.doc_ids, k=k, seed=seed)
    counts = _counts(run, corpus, k)
    rows = [
        concentration("run", counts, _top1(run, corpus, len(queries))),
        concentration("random", _counts(chance, corpus, k), _top1(chance, corpus, len(queries))),
    ]
    if qrels is not None:
        relevant = qrels.table.filter(pc.greater(qrels.table["relevance"], 0))["doc_id"].combine_chunks()
        found = corpus.rows_of(relevant)
        rows.append(concentration("relevant", np.bincount(found[found >= 0], minlength=len(corpus)), 0.0))
    largest = np.lexsort((corpus.id_ranks, -counts))[:NUM_HUBS]
    titles = corpus.take(largest, ["doc_id", "title"]).to_pylist()
    return Hubness(
        k=k,
        num_queries=len(queries),
        num_docs=len(corpus),
        rows=tuple(rows),
        hubs=tuple(
            Hub(doc_id=row["doc_id"], title=row["title"], num_queries=int(counts[i]))
            for row, i in zip(titles, largest, strict=True)
        ),
        flagged=rows[0].top1_frac > max(TOP1_LIMIT_FRAC, TOP1_LIMIT_QUERIES / len(queries)),
    )


def concentration(name: str, counts: np.ndarray, top1_frac: float) -> Concentration:
    """Summarise counts [D] of how often each document is retrieved, zeros included."""
    values = np.sort(counts).astype(np.float64)
    num_docs, total, centred = len(values), float(values.sum()), values - values.mean()
    spread = float((centred**2).mean())
    ranks = np.arange(1, num_docs + 1)
    return Concentration(
        name=name,
        skewness=float((centred**3).mean()) / spread**1.5 if spread > 0 else 0.0,
        largest=int(values[-1]),
        gini=float((2 * ranks - num_docs - 1) @ values) / (num_docs * total) if total else 0.0,
        robin_hood=0.5 * float(np.abs(centred).sum()) / total if total else 0.0,
        never_frac=float((values == 0).mean()),
        top1_frac=top1_frac,
    )


def _counts(run: Run, corpus: Corpus, k: int) -> np.ndarray:
    used = np.bincount(run.docs[run.ranks <= k], minlength=len(run.doc_ids))
    rows = corpus.rows_of(run.doc_ids)
    unknown = np.flatnonzero((rows < 0) & (used > 0))
    if len(unknown):
        raise DataError(f"hubness: the run holds {run.doc_ids[int(unknown[0])]}, which is not in the corpus.")
    counts = np.zeros(len(corpus), dtype=np.int64)
    counts[rows[rows >= 0]] = used[rows >= 0]
    return counts


def _top1(run: Run, corpus: Corpus, num_queries: int) -> float:
    return float(_counts(run, corpus, 1).max()) / num_queries
