"""`tamis evaluate` and `tamis compare`: measures with intervals, always beside the controls."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tamis.cli.show import Json, Quiet, emit, out, prose, table
from tamis.errors import DataError, UsageError

if TYPE_CHECKING:
    from tamis.evaluation import Judgement

Qrels = Annotated[Path, typer.Option(help="Judgements: BEIR TSV or TREC qrels.")]
Measures = Annotated[
    list[str] | None, typer.Option("-m", "--measure", help="ir_measures name; may be given again. [nDCG@10, R@100]")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the bootstrap and the randomisation test.")]
DEFAULT_MEASURES = ("nDCG@10", "R@100")


def evaluate(
    target: Annotated[Path, typer.Argument(metavar="ENGINE|RUN", help="An engine folder or a TREC run.")],
    qrels: Qrels,
    queries: Annotated[Path | None, typer.Option(help="BEIR queries; needed for an engine.")] = None,
    measure: Measures = None,
    k: Annotated[int, typer.Option(min=1, max=10_000, help="Depth of an engine's rankings.")] = 100,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure an engine beside its controls, or a run.

    The controls of an engine are BM25, its encoder alone, untuned fusion and a random ranking.
    """
    if not target.exists():
        raise DataError(f"{target}: no such engine folder or TREC run. Relative paths start at {Path.cwd()}.")
    if target.is_dir() and queries is None:
        raise UsageError(f"{target} is a folder, so an engine: give --queries too, the texts that were judged.")
    from tamis.judge import judge

    verdict = judge(target, queries=queries, qrels=qrels, measures=tuple(measure or DEFAULT_MEASURES), k=k, seed=seed)
    emit(verdict.to_dict(), json=json, quiet=quiet, ids=verdict.lines(), human=_printer(verdict))


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.trec", help="The baseline run.")],
    second: Annotated[Path, typer.Argument(metavar="B.trec", help="The run compared with it.")],
    qrels: Qrels,
    measure: Measures = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two TREC runs query by query.

    Difference, its interval, p, wins and losses of the second run against the first.
    """
    from tamis.judge import compare_runs

    verdict = compare_runs(first, second, qrels=qrels, measures=tuple(measure or DEFAULT_MEASURES), seed=seed)
    emit(verdict.to_dict(), json=json, quiet=quiet, ids=verdict.lines(), human=_printer(verdict))


def _printer(verdict: "Judgement") -> Callable[[], None]:
    def human() -> None:
        headers = verdict.headers()
        table(headers, verdict.rows(), right=range(2, len(headers)))
        for note in verdict.notes:
            out(prose(note))

    return human
