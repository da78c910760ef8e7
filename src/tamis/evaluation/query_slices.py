"""Measures by slice of the queries: by how well the corpus covers them, and by what their documents are.

Source: Kandpal et al. 2023, arXiv:2211.08411 (head, torso, tail); Efron 1979 (bootstrap). Method card E2.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from tamis.data import Qrels, Run
from tamis.data.settings import Settings
from tamis.errors import UsageError
from tamis.evaluation.measures import evaluate
from tamis.evaluation.significance import bootstrap_means
from tamis.evaluation.slicing import Kind

MEASURES = ("nDCG@10", "R@100")
ALL = "all"


class SliceMean(Settings):
    """A measure's mean over the queries of a slice, with a 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class QuerySlice(Settings):
    """One system on the queries of one slice.

    Attributes:
      kind: "all", "coverage", or the kind of slice that the query's best document is in.
      few: too few queries to rank slices by.
    """

    system: str
    kind: str
    name: str
    num_queries: int
    few: bool
    means: dict[str, SliceMean]


def query_slices(
    runs: Mapping[str, Run],
    qrels: Qrels | None,
    kinds: Sequence[Kind],
    rows_of: Callable[[pa.Array], np.ndarray],
    coverage: Mapping[str, str],
    min_queries: int,
    draws: int,
    seed: int,
) -> tuple[QuerySlice, ...]:
    """Measure each run on each slice of its judged queries.

    Args:
      runs: name -> run.
      qrels: needed where there are runs.
      kinds: slices of the documents; a query belongs to that of its best-graded document, the smallest id of equals.
      rows_of: document ids -> rows, -1 unknown.
      coverage: query id -> class.
      min_queries: slices with fewer are marked.
      draws: of the bootstrap.
      seed: of the bootstrap.

    Raises:
      UsageError: runs without judgements.
    """
    if not runs:
        return ()
    if qrels is None:
        raise UsageError("slices: runs were given without qrels. Give the judgements, or leave the runs out.")
    rows = []
    for system, run in runs.items():
        evaluation = evaluate(run, qrels, MEASURES)
        ids = evaluation.query_ids.to_pylist()
        values_MQ = np.stack([evaluation.values[name] for name in MEASURES])
        for kind, labels in _labels(ids, qrels, kinds, rows_of, coverage).items():
            for name in sorted(set(labels)):
                inside = np.array([label == name for label in labels])
                means = _means(values_MQ[:, inside], draws, seed)
                num = int(inside.sum())
                rows.append(
                    QuerySlice(system=system, kind=kind, name=name, num_queries=num, few=num < min_queries, means=means)
                )
    return tuple(rows)


def _labels(
    ids: Sequence[str],
    qrels: Qrels,
    kinds: Sequence[Kind],
    rows_of: Callable[[pa.Array], np.ndarray],
    coverage: Mapping[str, str],
) -> dict[str, list[str]]:
    labels = {ALL: [ALL] * len(ids)}
    if coverage:
        labels["coverage"] = [coverage.get(query_id, "unknown") for query_id in ids]
    grades = qrels.grades
    best = [min(grades[q], key=lambda doc_id, q=q: (-grades[q][doc_id], doc_id.encode())) for q in ids]  # type: ignore[misc]
    rows = rows_of(pa.array(best, pa.large_string()))
    for kind in kinds:
        found = [kind.names[kind.codes[row]] if row >= 0 else "not in the pool" for row in rows.tolist()]
        if len(set(found)) > 1:
            labels[kind.kind] = found
    return labels


def _means(values_MQ: np.ndarray, draws: int, seed: int) -> dict[str, SliceMean]:
    resampled = np.sort(bootstrap_means(values_MQ, draws=draws, seed=seed), axis=1)
    low, high = math.floor(0.025 * (draws - 1)), math.ceil(0.975 * (draws - 1))
    means = [math.fsum(values.tolist()) / len(values) for values in values_MQ]
    return {
        name: SliceMean(  # equal values: the resampled means may round to either side of them
            mean=means[i], low=min(means[i], float(resampled[i, low])), high=max(means[i], float(resampled[i, high]))
        )
        for i, name in enumerate(MEASURES)
    }
