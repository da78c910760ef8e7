"""Judgement: an engine beside its controls, with intervals, tests, and the queries it wins and loses.

Source: tamis design (method cards E2 and E3): no number alone.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tamis.data import Qrels, Queries, Run
from tamis.data.settings import Settings
from tamis.errors import UsageError
from tamis.evaluation.controls import RANDOM
from tamis.evaluation.measures import DEFAULT_MEASURES, Evaluation, evaluate
from tamis.evaluation.significance import Comparison, Mean, PairedTest

Source = Literal["judgements", "pseudo-queries"]
NUM_EXTREMES = 10
MAX_CURVE = 240
MAX_QUERY_CHARS = 300
MIN_QUERIES = 30
"""Below this many queries a note says that the intervals are rough."""


class System(Settings):
    """One row of the table: a run's means by measure, and how many queries it left unanswered."""

    name: str
    means: dict[str, Mean]
    num_unanswered: int


class QueryDelta(Settings):
    """One query, what the engine and the control made of it."""

    query_id: str
    text: str
    engine: float
    control: float
    delta: float


class Judgement(Settings):
    """What can be said about an engine on one set of judged queries.

    Attributes:
      engine: the system that is judged; ``controls`` are the others, in the order given.
      judged_on: "judgements" a person made, or held-out "pseudo-queries" made from the corpus.
      measures: their names; the first is the main one, the one that wins and losses are counted by.
      comparisons: the engine minus each control, for each measure; p adjusted within a measure.
      control: the control that the per-query part looks at: the best by the main measure.
      wins: queries with the largest gains over it, ``losses`` with the largest losses.
      curve: all the differences, largest first; at most 240 evenly spaced ones are kept.
    """

    engine: str
    judged_on: Source
    measures: tuple[str, ...]
    num_queries: int
    num_unjudged: int
    num_without_relevant: int
    num_excluded: int
    systems: tuple[System, ...]
    comparisons: tuple[Comparison, ...]
    control: str | None
    wins: tuple[QueryDelta, ...]
    losses: tuple[QueryDelta, ...]
    curve: tuple[float, ...]

    @property
    def measure(self) -> str:
        """The main measure."""
        return self.measures[0]

    def comparison(self, control: str, measure: str) -> Comparison:
        """Return the engine's comparison with one control by one measure."""
        return next(c for c in self.comparisons if c.baseline == control and c.measure == measure)

    @property
    def headline(self) -> list[Comparison]:
        """Comparisons by the main measure; better than random is no news, anything else is."""
        main = [c for c in self.comparisons if c.measure == self.measure]
        return [c for c in main if c.baseline != RANDOM or not (c.significant and c.delta > 0)]

    @property
    def verdicts(self) -> list[str]:
        """One plain sentence for each comparison of the headline."""
        return [sentence(c) for c in self.headline]

    @property
    def notes(self) -> list[str]:
        """What a reader has to know beside the numbers."""
        what = "judged queries" if self.judged_on == "judgements" else "held-out pseudo-queries made from the corpus"
        notes = [f"Measured on {self.num_queries:,} {what}; an unanswered query counts 0."]
        if self.judged_on == "pseudo-queries":
            notes.append(
                "Pseudo-queries stand in for people's: expect the order of the systems to hold, not the level."
            )
        if self.num_queries < MIN_QUERIES:
            notes.append(f"Fewer than {MIN_QUERIES} queries: the intervals are rough.")
        if self.num_without_relevant:
            notes.append(
                f"{self.num_without_relevant:,} judged queries have no relevant document and are not measured."
            )
        if self.num_unjudged:
            notes.append(f"{self.num_unjudged:,} queries of the engine's run are not judged and not measured.")
        if self.num_excluded:
            notes.append(f"{self.num_excluded:,} times a query's own document was left out of the engine's ranking.")
        return notes

    def headers(self) -> list[str]:
        """Column names of `rows`."""
        return ["system", "measure", "mean", "95 % interval", "difference", "95 % interval", "p", "wins/ties/losses"]

    def rows(self) -> list[list[str]]:
        """One row a measure and system, all text: for a terminal."""
        rows = []
        for measure in self.measures:
            for system in self.systems:
                mean = system.means[measure]
                row = [system.name, measure, f"{mean.mean:.3f}", f"[{mean.low:.3f}, {mean.high:.3f}]"]
                if system.name == self.engine:
                    rows.append([*row, "", "", "", ""])
                    continue
                c = self.comparison(system.name, measure)
                rows.append(
                    [
                        *row,
                        signed(c.delta),
                        interval(c.low, c.high),
                        p_value(c.p_adjusted),
                        f"{c.wins}/{c.ties}/{c.losses}",
                    ]
                )
        return rows

    def lines(self) -> list[str]:
        """One line a measure of the engine: name, tab, mean."""
        engine = next(s for s in self.systems if s.name == self.engine)
        return [f"{measure}\t{engine.means[measure].mean:.6f}" for measure in self.measures]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return self.model_dump(mode="json") | {"verdicts": self.verdicts, "notes": self.notes}


class Judge(Settings):
    """Measure an engine and its controls on the same queries and test each difference.

    Attributes:
      measures: ir_measures names, the main one first.
      draws: of the bootstrap and the randomisation test.
      alpha: level of the tests.
    """

    method: Literal["judge"] = "judge"
    measures: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_MEASURES
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def judge(
        self,
        runs: Mapping[str, Run],
        engine: str,
        qrels: Qrels,
        *,
        seed: int,
        queries: Queries | None = None,
        judged_on: Source = "judgements",
    ) -> Judgement:
        """Judge one run beside the others. Cost: `evaluate` and `PairedTest.test` for each run.

        Args:
          runs: name -> run: the engine and its controls (BM25, the encoder alone, untuned fusion, random).
          engine: name of the run that is judged.
          qrels: the judgements.
          seed: of the draws.
          queries: where known: texts for the report, and self-retrieval.
          judged_on: who made the judgements.

        Raises:
          UsageError: the engine is not among the runs, or a measure is not known.
          DataError: no query has a grade above 0.
        """
        if engine not in runs:
            raise UsageError(f"judge: {engine!r} is not among the runs {', '.join(runs)}. Name one of them.")
        found = {name: evaluate(run, qrels, self.measures, queries=queries) for name, run in runs.items()}
        measures = tuple(found[engine].aggregate)
        test = PairedTest(draws=self.draws, alpha=self.alpha)
        tables = test.tables({m: _values(found, m) for m in measures}, engine, seed=seed)
        means = {name: {t.measure: _row(t.means, name) for t in tables} for name in runs}
        controls = [name for name in runs if name != engine]
        control = max(controls, key=lambda name: found[name].aggregate[measures[0]], default=None)
        wins, losses, curve = _extremes(found, engine, control, measures[0], queries)
        return Judgement(
            engine=engine,
            judged_on=judged_on,
            measures=measures,
            num_queries=found[engine].num_queries,
            num_unjudged=found[engine].num_unjudged,
            num_without_relevant=found[engine].num_without_relevant,
            num_excluded=found[engine].num_excluded,
            systems=tuple(
                System(name=name, means=means[name], num_unanswered=found[name].num_unanswered) for name in runs
            ),
            comparisons=tuple(_turned(c) for t in tables for c in t.comparisons),
            control=control,
            wins=wins,
            losses=losses,
            curve=curve,
        )


def _values(found: Mapping[str, Evaluation], measure: str) -> dict[str, np.ndarray]:
    return {name: evaluation.values[measure] for name, evaluation in found.items()}


def _row(means: Sequence[Mean], system: str) -> Mean:
    return next(mean for mean in means if mean.system == system)


def _turned(c: Comparison) -> Comparison:
    """The test compares controls with the engine; a reader wants the engine minus the control."""
    update = {"system": c.baseline, "baseline": c.system, "delta": -c.delta, "low": -c.high, "high": -c.low}
    return c.model_copy(update={**update, "wins": c.losses, "losses": c.wins})


def _extremes(
    found: Mapping[str, Evaluation], engine: str, control: str | None, measure: str, queries: Queries | None
) -> tuple[tuple[QueryDelta, ...], tuple[QueryDelta, ...], tuple[float, ...]]:
    """Return the largest wins, the largest losses, and the curve of all differences."""
    if control is None:
        return (), (), ()
    ours, theirs = found[engine].values[measure], found[control].values[measure]
    deltas = ours - theirs
    order = np.argsort(-deltas, kind="stable")
    texts = dict(zip(queries.ids, queries.texts, strict=True)) if queries is not None else {}
    ids = found[engine].query_ids

    def row(i: int) -> QueryDelta:
        query_id = ids[i].as_py()
        text = texts.get(query_id, "")
        short = text if len(text) <= MAX_QUERY_CHARS else text[:MAX_QUERY_CHARS] + "…"
        return QueryDelta(
            query_id=query_id, text=short, engine=float(ours[i]), control=float(theirs[i]), delta=float(deltas[i])
        )

    wins = tuple(row(int(i)) for i in order[:NUM_EXTREMES] if deltas[i] > 0)
    losses = tuple(row(int(i)) for i in order[::-1][:NUM_EXTREMES] if deltas[i] < 0)
    kept = np.unique(np.linspace(0, len(order) - 1, min(len(order), MAX_CURVE)).round().astype(np.int64))
    return wins, losses, tuple(float(round(d, 6)) for d in deltas[order[kept]])


def sentence(c: Comparison) -> str:
    """Say in one sentence what a comparison shows, and no more than that."""
    figures = f"{signed(c.delta)} {interval(c.low, c.high)}, {p_equals(c.p_adjusted)}"
    if not c.significant:
        return (
            f"No difference from {c.baseline} can be shown: {figures}. With {c.num_queries:,} queries only "
            f"differences from about {c.smallest_detectable:.3f} on would be seen reliably."
        )
    return f"{'Better' if c.delta > 0 else 'Worse'} than {c.baseline} by {figures}."


def signed(value: float) -> str:
    """Three decimals with a sign; a true minus, and no minus before zero."""
    text = f"{value:+.3f}".replace("-", "−")
    return text.replace("−0.000", "0.000").replace("+0.000", "0.000")


def interval(low: float, high: float) -> str:
    """``[low, high]`` with three decimals."""
    ends = (f"{end:.3f}".replace("-0.000", "0.000").replace("-", "−") for end in (low, high))
    return f"[{', '.join(ends)}]"


def p_value(p: float) -> str:
    """A p-value as text: two or three decimals, or ``< .001``."""
    if p < 0.001:
        return "< .001"
    return "1" if p >= 0.995 else (f"{p:.3f}" if p < 0.1 else f"{p:.2f}").lstrip("0")


def p_equals(p: float) -> str:
    """``p = .004``, ``p < .001``."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
