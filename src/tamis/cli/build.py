"""`tamis build`, `tamis check` and `tamis demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tamis.cli.show import Json, Quiet, emit, out, progress, safe, table
from tamis.errors import UsageError

if TYPE_CHECKING:
    from tamis.pipeline import Built
    from tamis.recipe import Recipe

Sources = Annotated[
    list[str],
    typer.Argument(metavar="PATH...", help="Folders, files or globs: jsonl parquet csv tsv txt md html py, .gz .zst."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Engine folder; the same command again continues.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML recipe; other options win over it.")]
Encoder = Annotated[
    str | None,
    typer.Option(help='"scratch" (default), a folder, or with --allow-network a hub id.', show_default=False),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Same seed, same bytes. [0]", show_default=False)]
IdField = Annotated[
    str | None, typer.Option(help="Field that holds the id. [_id, id, doc_id, docid]", show_default=False)
]
TextField = Annotated[
    str | None, typer.Option(help="Field that holds the text. [text, body, content]", show_default=False)
]
TitleField = Annotated[str | None, typer.Option(help="Field that holds the title. [title]", show_default=False)]
OnDuplicate = Annotated[
    Literal["error", "first", "last", "suffix"] | None, typer.Option(help="Same id with another text. [error]")
]
MaxRejectFrac = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Stop when a larger share of records is refused. [0.01]", show_default=False),
]
Exclude = Annotated[list[str] | None, typer.Option(help="Glob of files to leave out (may be given again).")]
OwnQueries = Annotated[Path | None, typer.Option(help="Your own queries (BEIR), to judge the engine with.")]
OwnQrels = Annotated[Path | None, typer.Option(help="Judgements of --queries; never used to choose settings.")]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", help="Documents of the kind that will be asked for; with --budget (may be given again)."),
]
BudgetText = Annotated[
    str | None, typer.Option("--budget", help="How much to learn from, as 20% or 10000docs. [all]", show_default=False)
]
Force = Annotated[list[str] | None, typer.Option("--force", help="Make this stage again (may be given again).")]
Workers = Annotated[
    int, typer.Option(min=1, max=256, help="Processes that read files; the result is the same for any number.")
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No bars on stderr.")]
Network = Annotated[bool, typer.Option("--allow-network", help="Let an encoder id be downloaded.")]


def build(
    sources: Sources,
    out_folder: Out,
    recipe: RecipeFile = None,
    encoder: Encoder = None,
    queries: OwnQueries = None,
    qrels: OwnQrels = None,
    target: Target = None,
    budget: BudgetText = None,
    seed: Seed = None,
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    on_duplicate: OnDuplicate = None,
    max_reject_frac: MaxRejectFrac = None,
    exclude: Exclude = None,
    workers: Workers = 1,
    force: Force = None,
    allow_network: Network = False,
    no_progress: NoProgress = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build a search engine from documents.

    The same command again continues where it stopped, or makes anew only what a change asks for.
    """
    from tamis import pipeline

    ingestion = {
        "id_field": id_field,
        "text_field": text_field,
        "title_field": title_field,
        "on_duplicate": on_duplicate,
        "max_reject_frac": max_reject_frac,
        "exclude": exclude,
    }
    select = {"targets": target, "budget": budget}
    resolved = resolve(recipe, encoder=encoder, seed=seed, ingestion=ingestion, select=select)
    with progress(not (quiet or no_progress)) as advance:
        built = pipeline.build(
            sources,
            out_folder,
            resolved,
            queries=queries,
            qrels=qrels,
            workers=workers,
            force=tuple(force or ()),
            allow_network=allow_network,
            progress=advance,
        )
    print_built(built, json=json, quiet=quiet)


def resolve(path: Path | None, *, encoder: str | None, seed: int | None, **tables: dict[str, Any]) -> "Recipe":
    """Return the recipe file (or the defaults) with the options of the command line on top, tables by name."""
    from tamis.recipe import Recipe

    recipe = Recipe.load(path) if path is not None else Recipe()
    changes: dict[str, Any] = {}
    if encoder is not None:
        changes["encoder"] = encoder
    if seed is not None:
        changes["seed"] = seed
    for name, values in tables.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            changes[name] = {**getattr(recipe, name).model_dump(mode="json"), **given}
    return recipe.replace(**changes) if changes else recipe


def print_built(built: "Built", *, json: bool, quiet: bool) -> None:
    """Print the stages, the verdict and where to look."""

    def human() -> None:
        rows = [(s.name, s.status, f"{s.seconds:.1f}", s.summary) for s in built.stages]
        table(("stage", "status", "seconds", "what"), rows, right=(2,))
        out("")
        out(safe(built.verdict))
        out(f"report: {safe(str(built.folder / 'report' / 'report.html'))}")
        out(safe(built.line()))

    emit(built.to_dict(), json=json, quiet=quiet, ids=[str(built.folder)], human=human)


def check(
    sources: Sources,
    out_folder: Out = Path("engine"),
    recipe: RecipeFile = None,
    encoder: Encoder = None,
    queries: OwnQueries = None,
    qrels: OwnQrels = None,
    target: Target = None,
    budget: BudgetText = None,
    seed: Seed = None,
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    on_duplicate: OnDuplicate = None,
    max_reject_frac: MaxRejectFrac = None,
    exclude: Exclude = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what `build` would do.

    Stages, done or to do, and estimates of time, memory and disk. Give it the options of `build`.
    """
    from tamis import pipeline

    ingestion = {
        "id_field": id_field,
        "text_field": text_field,
        "title_field": title_field,
        "on_duplicate": on_duplicate,
        "max_reject_frac": max_reject_frac,
        "exclude": exclude,
    }
    select = {"targets": target, "budget": budget}
    resolved = resolve(recipe, encoder=encoder, seed=seed, ingestion=ingestion, select=select)
    plan = pipeline.plan(sources, out_folder, resolved, queries=queries, qrels=qrels)

    def human() -> None:
        rows = [(s.name, s.status, s.why) for s in plan.stages]
        table(("stage", "status", "why"), rows)
        for problem in plan.problems:
            out(f"problem: {safe(problem)}")
        out(plan.line())

    emit(plan.to_dict(), json=json, quiet=quiet, ids=[s.name for s in plan.stages if s.status == "to do"], human=human)
    if plan.problems:
        raise typer.Exit(UsageError.exit_code)


def demo(
    out_folder: Out = Path("demo-engine"),
    seed: Seed = None,
    no_progress: NoProgress = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go the whole way on the Python standard library.

    The documents are the functions and classes of this very interpreter, text that every machine has.
    """
    import tamis
    from tamis import demo as demonstration
    from tamis.cli.ask import print_hits

    with progress(not (quiet or no_progress)) as advance:
        built = demonstration.run(out_folder, seed=seed or 0, progress=advance)
    print_built(built, json=json, quiet=quiet)
    if json or quiet:
        return
    engine = tamis.open(out_folder)
    for text in demonstration.EXAMPLES:
        out(f'\n$ tamis search {safe(str(out_folder))} "{text}" -k 3')
        print_hits(engine.search(text, k=3), engine, json=False, quiet=False)
