"""The last stage: judge the engine beside its controls and write down everything the build found out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tamis.data import Corpus, Ledger, Qrels, Queries, Run, artefact
from tamis.data.artefact import Staging
from tamis.evaluation import (
    Choice,
    CorpusStatistics,
    Cost,
    Judge,
    Judgement,
    LeakageCheck,
    Report,
    drops,
    environment,
    evaluate,
    measure_hubness,
)
from tamis.judge import CONTROLS, ENGINE, system_runs
from tamis.pipeline.collection import Collection
from tamis.search.fit import Fitted
from tamis.search.index import SearchIndex

MEASURES = ("nDCG@10", "R@100", "RR@10")
DEPTH = 100


@dataclass(frozen=True)
class Sources:
    """What the report is written from; ``judged`` are the user's own queries and judgements."""

    out: Path
    documents: Corpus
    units: Corpus
    made: Collection
    tuned: Fitted
    index: SearchIndex
    judged: tuple[Queries, Qrels] | None
    costs: tuple[Cost, ...]


@dataclass(frozen=True)
class Findings:
    """A finished report, and the sentence that sums it up."""

    report: Report

    @classmethod
    def read(cls, folder: Path) -> "Findings":
        """Read the report of an engine."""
        return cls(Report.read(folder))

    @property
    def verdict(self) -> str:
        """One sentence: the engine against its best control, on which queries."""
        headline = self.report.headline
        if headline is None:
            return "No queries could be made from this corpus and none were given: nothing is known of its quality."
        on = "your judgements" if headline.judged_on == "judgements" else "held-out pseudo-queries"
        control = CONTROLS[0]
        sentence = next(
            (v for c, v in zip(headline.comparisons, headline.verdicts, strict=False) if c.baseline == control), ""
        )
        mean = next(s.means[headline.measure].mean for s in headline.systems if s.name == ENGINE)
        return f"{headline.measure} {mean:.3f} on {headline.num_queries:,} {on}. {sentence}"


def make_report(sources: Sources, staging: Staging, *, seed: int) -> None:
    """Judge, and write report.html, report.md, report.json and per_query.parquet."""
    judgements: list[Judgement] = []
    tables: list[pa.Table] = []
    dev_runs = sources.tuned.runs
    if sources.judged is not None:
        queries, qrels = sources.judged
        runs = system_runs(sources.index, queries, sources.documents, k=DEPTH, seed=seed)
        judgements.append(_judge(runs, queries, qrels, "judgements", seed))
        tables.append(_per_query(runs, queries, qrels, "judgements"))
    if len(sources.made.dev_qrels):
        queries, qrels = sources.made.dev_queries, sources.made.dev_qrels
        judgements.append(_judge(dev_runs, queries, qrels, "pseudo-queries", seed))
        tables.append(_per_query(dev_runs, queries, qrels, "pseudo-queries"))
    collected = artefact.read_manifest(sources.out / "collection").counts
    report = Report(
        title="Search quality",  # without the folder's name: the same engine has the same bytes wherever it stands
        judgements=tuple(judgements),
        choices=(_learned_from(sources), *(Choice(**choice) for choice in sources.tuned.choices)),
        corpus=CorpusStatistics.of(sources.documents),
        drops=drops(Ledger(sources.out / "ledger")),
        leakage=(
            LeakageCheck(
                name="held-out queries whose words stand in the training data",
                num_found=collected.get("leaks", 0),
                num_checked=collected.get("leak_checks", 0),
            ),
            *_repeated(sources, seed),
        ),
        hubness=_hubness(sources, seed),
        environment=environment(),
        stages=sources.costs,
    )
    report.write(staging, pa.concat_tables(tables) if tables else None)
    staging.counts["judgements"] = len(judgements)


def _learned_from(sources: Sources) -> Choice:
    counts = artefact.read_manifest(sources.out / "selected").counts
    gone = {name.removeprefix("dropped_"): num for name, num in counts.items() if name.startswith("dropped_")}
    reason = ", ".join(f"{num:,} {name}" for name, num in gone.items())
    value = f"{counts['documents']:,} of {len(sources.documents):,} documents"
    return Choice(name="learned from", value=value, reason=reason or "nothing was left out", used=bool(gone))


def _repeated(sources: Sources, seed: int) -> list[LeakageCheck]:
    """Count the user's queries that a made training query repeats: the engine has learned the answers of these."""
    if sources.judged is None:
        return []
    from tamis.ingestion.contamination import Protected
    from tamis.ingestion.decontaminate import Decontaminate

    own = sources.judged[0]
    _, same = Decontaminate().sift_queries(sources.made.train_queries, Protected.of(own), seed=seed)
    found = len(set(same["other_id"].to_pylist()))
    return [LeakageCheck(name="your queries that a training query repeats", num_found=found, num_checked=len(own))]


def _judge(runs: Mapping[str, Run], queries: Queries, qrels: Qrels, judged_on: str, seed: int) -> Judgement:
    judge = Judge(measures=MEASURES)
    if judged_on == "judgements":
        return judge.judge(runs, ENGINE, qrels, seed=seed, queries=queries, judged_on="judgements")
    # a made query's source is its answer: nothing to leave out of the ranking
    plain = Queries.from_texts(dict(zip(queries.ids, queries.texts, strict=True)))
    return judge.judge(runs, ENGINE, qrels, seed=seed, queries=plain, judged_on="pseudo-queries")


def _per_query(runs: Mapping[str, Run], queries: Queries, qrels: Qrels, judged_on: str) -> pa.Table:
    parts = []
    for name, run in runs.items():
        table = evaluate(run, qrels, MEASURES).per_query
        size = len(table)
        table = table.append_column("system", pa.array([name] * size, pa.large_string()))
        parts.append(table.append_column("judged_on", pa.array([judged_on] * size, pa.large_string())))
    return pa.concat_tables(parts)


def _hubness(sources: Sources, seed: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    run = sources.tuned.runs.get(ENGINE)
    if run is None or not len(run):
        return None
    return measure_hubness(run, sources.units, sources.made.dev_qrels, seed=seed)
