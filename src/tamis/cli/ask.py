"""`tamis search` and `tamis similar`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tamis.cli.show import Json, Quiet, ReaderGone, emit, marked, out, prose, safe, width
from tamis.errors import UsageError

if TYPE_CHECKING:
    from tamis.engine import Engine, Hit

EngineFolder = Annotated[Path, typer.Argument(metavar="ENGINE", help="Folder made by `tamis build`.")]
NumResults = Annotated[int, typer.Option("-k", "--k", min=1, max=10_000, help="Number of results.")]
Mode = Annotated[
    Literal["hybrid", "lexical", "dense", "rrf"],
    typer.Option(help="hybrid: as fitted on the dev queries; lexical, dense: one arm; rrf: untuned fusion."),
]
_INDENT = 5


def search(
    engine: EngineFolder,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to look for.")] = None,
    k: NumResults = 10,
    mode: Mode = "hybrid",
    queries: Annotated[Path | None, typer.Option(help="BEIR queries (.jsonl, .jsonl.gz) instead of TEXT.")] = None,
    run: Annotated[Path | None, typer.Option(help="Where the TREC run of --queries goes; - for stdout.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search an engine.

    One TEXT prints the best documents; --queries FILE with --run FILE writes a TREC run.
    """
    if (text is None) == (queries is None):
        raise UsageError('give either a text (tamis search ENGINE "text") or --queries FILE with --run FILE.')
    if queries is not None and run is None:
        raise UsageError("--queries needs --run FILE: where the ranking goes (- for stdout).")
    if text is not None and run is not None:
        raise UsageError("--run goes with --queries FILE; the answers to one text are printed (--json for programs).")
    import tamis

    opened: Engine = tamis.open(engine)
    if text is not None:
        print_hits(opened.search(text, k=k, mode=mode), opened, json=json, quiet=quiet)
        return
    from tamis.data import Queries, durable

    ranking = opened.run(Queries.read(queries or ""), k=k, mode=mode)
    if str(run) == "-":
        try:
            ranking.write_trec(sys.stdout.buffer)
        except BrokenPipeError:
            raise ReaderGone from None
        return
    target = run or Path("run.trec")
    staged = target.with_name(f".{target.name}.new")
    durable.remove(staged)
    with durable.create(staged) as file:
        ranking.write_trec(file)
    durable.rename(staged, target)
    unanswered = int((ranking.offsets[1:] == ranking.offsets[:-1]).sum())
    summary = {"run": str(target), "queries": len(ranking.query_ids), "rows": len(ranking), "unanswered": unanswered}
    emit(summary, json=json, quiet=quiet, human=lambda: out(_run_line(summary)))


def _run_line(summary: dict[str, Any]) -> str:
    path = safe(summary["run"])
    return f"{path}: {summary['queries']:,} queries, {summary['rows']:,} rows, {summary['unanswered']:,} unanswered"


def similar(
    engine: EngineFolder,
    doc_id: Annotated[str, typer.Argument(metavar="DOC_ID", help="Id of a document of the engine.")],
    k: NumResults = 10,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the documents nearest to one of the engine's own."""
    import tamis

    opened: Engine = tamis.open(engine)
    print_hits(opened.similar(doc_id, k=k), opened, json=json, quiet=quiet, mark=False)


def print_hits(hits: "list[Hit]", engine: "Engine", *, json: bool, quiet: bool, mark: bool = True) -> None:
    """Print ranked hits: rank, score, title, id and a snippet with its matches marked."""

    def human() -> None:
        columns = width()
        room = None if columns is None else max(columns - _INDENT, 20)
        for hit in hits:
            title = prose(hit.title)
            out(
                f"{hit.rank:>3}  {title}  [{safe(hit.doc_id)}]  {hit.score:.4f}"
                if title
                else f"{hit.rank:>3}  {safe(hit.doc_id)}  {hit.score:.4f}"
            )
            for line in marked(hit.snippet, hit.highlights if mark else (), room):
                out(" " * _INDENT + line)
        total = f"{len(hits):,} of {len(engine.corpus):,} documents"
        out(total if hits else "no document matches; try fewer or other words")

    emit([h.to_dict() for h in hits], json=json, quiet=quiet, ids=[h.doc_id for h in hits], human=human)
