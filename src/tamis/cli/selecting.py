"""`tamis select`: by a target, by the losses of models, or by the weights of a mixture."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tamis.cli.build import Sources
from tamis.cli.steps import EngineName, Out, Writing, not_with, numbers, only_with, spread, toml
from tamis.errors import UsageError

if TYPE_CHECKING:
    from tamis.models import Encoder
    from tamis.pipeline.curation import Curated, Source
    from tamis.selection import Budget, PreSelect, Selector
    from tamis.selection.classifier import HashedClassifier

PRESELECT = "preselect"
METHODS = ("dsir", "dsir-paper", "uniform", "nearest", "classifier", "compression", "zip-fit", "perplexity")
VECTOR_METHODS = ("clusters", "k-center", "rds")


@spread
def select(
    pool: Sources,
    out_folder: Out,
    budget: Annotated[str, typer.Option("--budget", "-b", help="How much to keep: 5%, 10000docs, 2Mwords, 100MB.")],
    common: Writing,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="Documents of the kind you want, PATH or NAME=PATH (may be given again)."),
    ] = None,
    share: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER, a target's share of the budget (may be given again).")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"How documents are scored: {', '.join(METHODS)}; on vectors {', '.join(VECTOR_METHODS)}; by losses "
            f"of models {PRESELECT}. [dsir]",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="TOML file with settings of the method.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Folder of an encoder, say ENGINE/encoder: for clusters, k-center and rds.")
    ] = None,
    condition: Annotated[
        bool, typer.Option("--condition", help="Rank within source, language and length: for scores of quality.")
    ] = False,
    losses: Annotated[
        Path | None, typer.Option(help="For preselect: table of doc_id, model, bits_per_byte (csv, jsonl, parquet).")
    ] = None,
    ability: Annotated[
        list[str] | None,
        typer.Option(help="For preselect: MODEL=NUMBER for each model of the table, higher is better (again)."),
    ] = None,
    mixture: Annotated[
        Path | None,
        typer.Option(help="Instead of a method: shares by source, from `tamis mix` or as mixture.json."),
    ] = None,
    max_epochs: Annotated[
        float | None, typer.Option(help="With --mixture: how often a document may be seen. [1]", show_default=False)
    ] = None,
    engine: EngineName = "local",
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Also write all scores as dolma attributes.")
    ] = False,
) -> None:
    """Keep the documents worth learning from, under a budget.

    What looks most like a target; or what better models predict better (--losses); or shares by source (--mixture).
    Every document gets a line in the ledger.
    """
    from tamis.selection import Budget

    limit = Budget.parse(budget)
    named = _named(target or [], source := common.source(pool))
    if mixture is not None:
        not_with("--mixture", target=target, share=share, method=method, settings=settings, encoder=encoder)
        not_with("--mixture", condition=condition, losses=losses, ability=ability, attributes=attributes)
        not_with("--mixture", engine=engine if engine != "local" else None)
        common.show(_by_mixture(source, out_folder, mixture, limit, max_epochs, common))
        return
    only_with("--mixture", max_epochs=max_epochs)
    with common.progress() as advance:
        writing: dict[str, Any] = {
            "seed": common.seed,
            "format": common.format_name,
            "attributes": attributes,
            "engine": engine,
            "workers": common.workers,
            "progress": advance,
        }
        if method == PRESELECT:
            not_with(f"--method {PRESELECT}", target=target, share=share, encoder=encoder, condition=condition)
            found = _by_losses(source, out_folder, limit, losses, numbers(ability, "--ability"), settings, writing)
        else:
            only_with(f"--method {PRESELECT}", losses=losses, ability=ability)
            found = _by_target(
                source,
                out_folder,
                make_selector(method or "dsir", limit, settings, condition=condition),
                named,
                writing | {"shares": numbers(share, "--share") or None, "encoder": _encoder(method or "dsir", encoder)},
            )
    common.show(found)


def make_selector(method: str, budget: "Budget", settings: Path | None, *, condition: bool = False) -> "Selector":
    """Return a method by its name on the command line, with settings from a TOML file on top."""
    from tamis.selection import Conditioned
    from tamis.selection.names import named

    chosen = named(method, budget, **toml(settings))
    return Conditioned(of=chosen, budget=budget) if condition else chosen


def make_preselect(budget: "Budget", settings: Path | None) -> "tuple[PreSelect, HashedClassifier]":
    """Return how documents are labelled and what learns from them; the TOML table ``classifier`` is the latter's."""
    from tamis.selection import HashedClassifier, PreSelect

    given = toml(settings)
    learner = given.pop("classifier", {})
    if not isinstance(learner, Mapping):
        raise UsageError(f"--settings {settings}: classifier is {learner!r}. Write it as a table, [classifier].")
    return PreSelect(**given), HashedClassifier(**learner, budget=budget)


def _by_target(
    source: "Source", out_folder: Path, selector: "Selector", targets: "dict[str, Source]", options: dict[str, Any]
) -> "Curated":
    from tamis.pipeline import curate

    return curate.select(source, out_folder, selector, targets, **options)


def _by_losses(
    source: "Source",
    out_folder: Path,
    budget: "Budget",
    losses: Path | None,
    ability: dict[str, float],
    settings: Path | None,
    options: dict[str, Any],
) -> "Curated":
    from tamis.pipeline import predictive

    if losses is None or not ability:
        raise UsageError(
            f"--method {PRESELECT} needs --losses TABLE (doc_id, model, bits_per_byte) and --ability MODEL=NUMBER for "
            "each of its models, higher is better."
        )
    how, learner = make_preselect(budget, settings)
    return predictive.preselect(source, out_folder, learner, losses, ability, how, **options)


def _by_mixture(
    source: "Source", out_folder: Path, mixture: Path, budget: "Budget", max_epochs: float | None, common: Writing
) -> "Curated":
    from tamis.pipeline import mixed

    with common.progress() as advance:
        return mixed.sample(
            source,
            out_folder,
            mixed.read_weights(mixture),
            budget,
            max_epochs=1.0 if max_epochs is None else max_epochs,
            seed=common.seed,
            format=common.format_name,
            workers=common.workers,
            progress=advance,
        )


def _encoder(method: str, folder: str | None) -> "Encoder | None":
    """Load the encoder of a method on vectors; refuse one that nothing would use."""
    if (method in VECTOR_METHODS) != (folder is not None):
        raise UsageError(
            f"--method {method} and --encoder: {', '.join(VECTOR_METHODS)} need an encoder, others do not."
        )
    if folder is None:
        return None
    from tamis.models import load_encoder

    return load_encoder(folder)


def _named(targets: list[str], source: "Source") -> "dict[str, Source]":
    """Return targets by name: NAME=PATH, or one PATH; paths without a name go together."""
    from tamis.pipeline.curation import Source

    paths: dict[str, list[str]] = {}
    for text in targets:
        name, is_named, path = text.partition("=")
        if is_named and not Path(text).exists():
            paths.setdefault(name, []).append(path)
        else:
            paths.setdefault("target", []).append(text)
    return {name: Source(tuple(listed), source.fields) for name, listed in paths.items()}
