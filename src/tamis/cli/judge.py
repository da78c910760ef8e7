"""`tamis evaluate` and `tamis compare`: measures with intervals, always beside the controls."""

from pathlib import Path
from typing import Annotated

import typer

from tamis.cli.show import Json, Quiet, emit, out, table

Qrels = Annotated[Path, typer.Option(help="Judgements: BEIR TSV or TREC qrels.")]
Measures = Annotated[
    list[str] | None, typer.Option("-m", "--measure", help="ir_measures name; may be given again. [nDCG@10, R@100]")
]
DEFAULT_MEASURES = ("nDCG@10", "R@100")


def evaluate(
    target: Annotated[Path, typer.Argument(metavar="ENGINE|RUN", help="An engine folder or a TREC run.")],
    qrels: Qrels,
    queries: Annotated[Path | None, typer.Option(help="BEIR queries; needed for an engine.")] = None,
    measure: Measures = None,
    k: Annotated[int, typer.Option(min=1, max=10_000, help="Depth of an engine's rankings.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the randomisation test.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure an engine beside BM25, the encoder alone and untuned fusion; or one TREC run."""
    from tamis.judge import judge

    verdict = judge(target, queries=queries, qrels=qrels, measures=tuple(measure or DEFAULT_MEASURES), k=k, seed=seed)
    emit(verdict.to_dict(), json=json, quiet=quiet, ids=verdict.lines(), human=lambda: _print(verdict.headers(), verdict.rows(), verdict.notes))


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.trec", help="The baseline run.")],
    second: Annotated[Path, typer.Argument(metavar="B.trec", help="The run compared with it.")],
    qrels: Qrels,
    measure: Measures = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the randomisation test.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two TREC runs query by query: difference, interval, p, wins and losses."""
    from tamis.judge import compare_runs

    verdict = compare_runs(first, second, qrels=qrels, measures=tuple(measure or DEFAULT_MEASURES), seed=seed)
    emit(verdict.to_dict(), json=json, quiet=quiet, ids=verdict.lines(), human=lambda: _print(verdict.headers(), verdict.rows(), verdict.notes))


def _print(headers: list[str], rows: list[list[str]], notes: list[str]) -> None:
    table(headers, rows, right=range(2, len(headers)))
    for note in notes:
        out(note)
