"""Significance: is a difference more than the luck of the queries?

Source: Smucker, Allan, Carterette 2007 (paired randomisation test); Efron 1979 (bootstrap); Holm 1979
(method card E2).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tamis.data import Qrels, Queries, Run
from tamis.data.settings import Settings
from tamis.errors import UsageError
from tamis.evaluation.measures import evaluate

EXACT_QUERIES = 13
"""Up to this many queries all 2^n signs are tried, and p is exact."""
TARGET_DIFFERENCE = 0.02
_BLOCK_CELLS = 4_000_000
_ROUNDING = 1e-12  # two sums of the same numbers in another order differ by less
_TIE = 1e-9  # differences of measures below this are ties
_POWER = 2.8  # 1.96 + 0.84: a two-sided test at .05 that succeeds four times in five


class Mean(Settings):
    """One system's mean over the queries, with a bootstrap interval."""

    system: str
    mean: float
    low: float
    high: float


class Comparison(Settings):
    """One system against the baseline, query by query.

    Attributes:
      delta: mean of system minus baseline; ``low`` and ``high`` its bootstrap interval.
      p: two-sided, of the paired randomisation test; ``p_adjusted`` after Holm over the table.
      wins: queries on which the system is better; ``losses`` worse, ``ties`` equal.
      smallest_detectable: difference that a test with these queries would find four times in five.
      num_queries_needed: queries to find a difference of 0.02 as often.
    """

    system: str
    baseline: str
    measure: str
    delta: float
    low: float
    high: float
    p: float
    p_adjusted: float
    significant: bool
    wins: int
    ties: int
    losses: int
    num_queries: int
    smallest_detectable: float
    num_queries_needed: int


class Significance(Settings):
    """Means with intervals for all systems, and each system against the baseline."""

    measure: str
    baseline: str
    num_queries: int
    means: tuple[Mean, ...]
    comparisons: tuple[Comparison, ...]


class PairedTest(Settings):
    """Paired sign-flip randomisation and bootstrap percentiles, Holm over the comparisons of one table.

    Attributes:
      draws: of signs and of resampled query sets; p cannot be below 1 / (draws + 1).
      alpha: level of the tests and, as 1 - alpha, of the intervals.
    """

    method: Literal["paired_randomisation"] = "paired_randomisation"
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def test(self, values: Mapping[str, np.ndarray], baseline: str, measure: str, *, seed: int) -> Significance:
        """Compare every system with the baseline. O(draws x queries x systems), in blocks of about 100 MB.

        All systems meet the same signs and the same resampled queries, so that the answer does not
        depend on their names or order.

        Args:
          values: system -> float64 [Q], the measure of each query, all in the same order of queries.
          baseline: one of the systems.
          measure: its name, for the table.
          seed: of the draws.

        Raises:
          UsageError: the baseline is not among the systems, or they have different numbers of queries.
        """
        return self.tables({measure: values}, baseline, seed=seed)[0]

    def tables(
        self, values: Mapping[str, Mapping[str, np.ndarray]], baseline: str, *, seed: int
    ) -> tuple[Significance, ...]:
        """Make one table a measure, as `test` does, with the draws made once for all of them.

        Args:
          values: measure -> system -> float64 [Q]; the same systems and queries for each measure.
          baseline: one of the systems.
          seed: of the draws.

        Raises:
          UsageError: the baseline is not among the systems, or they have different numbers of queries.
        """
        for systems in values.values():
            sizes = {name: len(column) for name, column in systems.items()}
            if baseline not in sizes or len(set(sizes.values())) != 1 or not sizes[baseline]:
                raise UsageError(
                    f"compare: the baseline is {baseline!r}, the systems and their queries are {sizes}. "
                    "Measure all on the same queries and name one of them as the baseline."
                )
        matrices = [
            np.array([np.asarray(v, dtype=np.float64) for v in systems.values()]) for systems in values.values()
        ]
        bases = [list(systems).index(baseline) for systems in values.values()]
        deltas = [matrix_SQ - matrix_SQ[base] for matrix_SQ, base in zip(matrices, bases, strict=True)]
        means_RB = bootstrap_means(np.concatenate(matrices), draws=self.draws, seed=seed)
        p_values = sign_flip_p(np.concatenate(deltas), draws=self.draws, seed=seed)
        tables, start = [], 0
        for (measure, systems), matrix_SQ, delta_SQ in zip(values.items(), matrices, deltas, strict=True):
            rows = slice(start, start + len(systems))
            table = self._table(
                measure=measure,
                baseline=baseline,
                names=list(systems),
                matrix_SQ=matrix_SQ,
                delta_SQ=delta_SQ,
                means_SB=means_RB[rows],
                p_values=p_values[rows],
            )
            tables.append(table)
            start = rows.stop
        return tuple(tables)

    def _table(
        self,
        *,
        measure: str,
        baseline: str,
        names: list[str],
        matrix_SQ: np.ndarray,
        delta_SQ: np.ndarray,
        means_SB: np.ndarray,
        p_values: list[float],
    ) -> Significance:
        base = names.index(baseline)
        others = [i for i in range(len(names)) if i != base]
        adjusted = dict(zip(others, holm([p_values[i] for i in others]), strict=True))
        intervals = [self._interval(row) for row in means_SB]
        differences = {i: self._interval(means_SB[i] - means_SB[base]) for i in others}
        return Significance(
            measure=measure,
            baseline=baseline,
            num_queries=matrix_SQ.shape[1],
            means=tuple(
                Mean(system=name, mean=_mean(row), low=low, high=high)
                for name, row, (low, high) in zip(names, matrix_SQ, intervals, strict=True)
            ),
            comparisons=tuple(
                Comparison(
                    system=names[i],
                    baseline=baseline,
                    measure=measure,
                    p=p_values[i],
                    p_adjusted=adjusted[i],
                    significant=adjusted[i] < self.alpha,
                    low=differences[i][0],
                    high=differences[i][1],
                    **_counts(delta_SQ[i]),
                )
                for i in others
            ),
        )

    def _interval(self, means_B: np.ndarray) -> tuple[float, float]:
        low, high = np.percentile(means_B, [50 * self.alpha, 100 - 50 * self.alpha])
        return round(float(low), 12), round(float(high), 12)


def _counts(delta_Q: np.ndarray) -> dict[str, Any]:
    """Return the fields of a Comparison that follow from the differences alone."""
    num_queries = len(delta_Q)
    sd = float(np.std(delta_Q, ddof=1)) if num_queries > 1 else 0.0
    wins, losses = int((delta_Q > _TIE).sum()), int((delta_Q < -_TIE).sum())
    return {
        "delta": _mean(delta_Q),
        "wins": wins,
        "ties": num_queries - wins - losses,
        "losses": losses,
        "num_queries": num_queries,
        "smallest_detectable": round(_POWER * sd / math.sqrt(num_queries), 12),
        "num_queries_needed": math.ceil(round((_POWER * sd / TARGET_DIFFERENCE) ** 2, 9)),
    }


def compare(
    runs: Mapping[str, Run],
    baseline: str,
    qrels: Qrels,
    measure: str,
    *,
    seed: int,
    queries: Queries | None = None,
    draws: int = 10_000,
) -> Significance:
    """Compare runs query by query over the judged queries; see `PairedTest.test`.

    Args:
      runs: name -> run.
      baseline: name of the run that the others are compared with.
      qrels: the judgements.
      measure: an ir_measures name.
      seed: of signs and resampling.
      queries: where known, for self-retrieval (see `evaluate`).
      draws: of signs and of resampled query sets.
    """
    evaluations = {name: evaluate(run, qrels, [measure], queries=queries) for name, run in runs.items()}
    values = {name: next(iter(evaluation.values.values())) for name, evaluation in evaluations.items()}
    return PairedTest(draws=draws).test(values, baseline, measure, seed=seed)


def bootstrap_means(values_SQ: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Return float64 [S, draws]: means of S systems over ``draws`` resampled sets of the Q queries.

    All systems are resampled alike. No BLAS: its sums would depend on the number of threads.
    """
    num_queries = values_SQ.shape[1]
    rng = np.random.default_rng([seed, 1])
    means_SB = np.empty((len(values_SQ), draws))
    block = max(1, _BLOCK_CELLS // num_queries)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = rng.integers(0, num_queries, (size, num_queries), dtype=np.int64)
        drawn += np.arange(size)[:, None] * num_queries
        counts = np.bincount(drawn.ravel(), minlength=size * num_queries).reshape(size, num_queries)
        means_SB[:, start : start + size] = np.einsum("bq,sq->sb", counts.astype(np.float64), values_SQ) / num_queries
    return means_SB


def sign_flip_p(deltas_CQ: np.ndarray, *, draws: int, seed: int) -> list[float]:
    """Return the two-sided p of each row of differences: how often random signs give as large a mean.

    Exact, by all signs, for up to 13 queries; else (1 + hits) / (draws + 1).
    """
    num_queries = deltas_CQ.shape[1]
    exact = num_queries <= EXACT_QUERIES
    total = 1 << num_queries if exact else draws
    observed = np.abs(deltas_CQ.mean(axis=1)) - _ROUNDING
    hits = np.zeros(len(deltas_CQ), dtype=np.int64)
    rng = np.random.default_rng([seed, 2])
    width = -(-num_queries // 32) * 4  # whole words: then blocks of any size draw the same bits
    block = max(1, _BLOCK_CELLS // num_queries)
    for start in range(0, total, block):
        size = min(block, total - start)
        if exact:
            bits = np.arange(start, start + size)[:, None] >> np.arange(num_queries) & 1
        else:
            packed = np.frombuffer(rng.bytes(size * width), np.uint8).reshape(size, width)
            bits = np.unpackbits(packed, axis=1, count=num_queries).astype(np.int64)
        signs = bits.astype(np.float64) * 2 - 1
        means_CB = np.einsum("bq,cq->cb", signs, deltas_CQ) / num_queries
        hits += (np.abs(means_CB) >= observed[:, None]).sum(axis=1)
    return [int(h) / total if exact else (1 + int(h)) / (total + 1) for h in hits]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for being the best of several (Holm's step-down), in the given order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for position, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _mean(values: np.ndarray) -> float:
    return math.fsum(values.tolist()) / len(values)
