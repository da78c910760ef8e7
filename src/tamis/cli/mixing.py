"""`tamis mix`: from a table of small runs to the weights of a mixture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tamis.cli.show import Json, Quiet, emit, out, safe
from tamis.cli.steps import Out, Seed, amount, not_with, numbers, only_with, print_rows, toml
from tamis.errors import UsageError

if TYPE_CHECKING:
    from tamis.pipeline.mixing import Caps, MixtureFound
    from tamis.selection import PerplexityCorrelations
    from tamis.selection.mixture_laws import Law

CORRELATIONS = "correlations"
LAWS = {
    "log-linear": "LogLinear",
    "gp": "GaussianProcess",
    "boosted": "Boosted",
    "ridge": "Ridge",
    "auto": "AutoLaw",
}


def mix(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS...",
            help="Table with a row a run, its weights and its losses (csv, tsv, jsonl, parquet); or two CSV files, "
            "weights and losses, with a run column in common.",
        ),
    ],
    out_folder: Out,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Column, or pattern of columns, with a loss: lower is better, as 1 - nDCG (again)."),
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="Column, or pattern of columns, of the domains. [the others] (again)")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help=f"Law of the losses: {', '.join(LAWS)}; or {CORRELATIONS}: RUNS has a row a model, its bits per byte "
            "on each domain and its error."
        ),
    ] = "log-linear",
    settings: Annotated[Path | None, typer.Option(help="TOML file with settings of the method.")] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(help="DOMAIN=SHARE of the data, for each domain. [mean of the runs] (again)"),
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option(
            min=0, help="Price of a nat of distance to the prior, in units of the loss. [0.1]", show_default=False
        ),
    ] = None,
    available: Annotated[
        list[str] | None, typer.Option(help="DOMAIN=TOKENS that there are, for each domain, as web=20B (again).")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(help="Size of the training set, as 10B: with --available, to repeat nothing too often."),
    ] = None,
    max_epochs: Annotated[
        float | None,
        typer.Option(help=f"How often a text may be seen. [4; {CORRELATIONS}: 1]", show_default=False),
    ] = None,
    importance: Annotated[
        list[str] | None, typer.Option(help="METRIC=NUMBER for each metric. [all the same] (again)")
    ] = None,
    no_ablation: Annotated[
        bool, typer.Option("--no-ablation", help="Do not ask whether there are enough runs; faster.")
    ] = False,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find mixture weights from small runs.

    The mixture of lowest predicted loss that stays near the prior, with intervals, and whether there are runs enough.
    Apply it: tamis select POOL --mixture OUT --budget 2Mwords --out FOLDER.
    """
    from tamis.pipeline import mixing

    if method == CORRELATIONS:
        not_with(f"--method {CORRELATIONS}", prior=prior, kl=kl, importance=importance, no_ablation=no_ablation)
    if kl is not None and method not in ("log-linear", "auto"):
        raise UsageError(f"--kl: only the log-linear law pays for distance; {method} draws mixtures. Leave it out.")
    found = mixing.mix(
        runs,
        out_folder,
        make_law(method, toml(settings)),
        metrics=metric or (),
        domains=domain or (),
        prior=numbers(prior, "--prior") or None,
        caps=_caps(available, tokens, max_epochs, 1.0 if method == CORRELATIONS else 4.0),
        kl=0.1 if kl is None else kl,
        importance=numbers(importance, "--importance") or None,
        ablation=not no_ablation,
        seed=seed,
    )
    value = {"folder": str(out_folder), "status": found.status, **found.facts}
    emit(value, json=json, quiet=quiet, ids=[str(found.file)], human=lambda: _print(found))


def make_law(method: str, settings: dict[str, Any]) -> "Law | PerplexityCorrelations":
    """Return a method by its name on the command line."""
    from tamis import selection

    names = LAWS | {CORRELATIONS: "PerplexityCorrelations"}
    if method not in names:
        raise UsageError(f"--method {method!r}: none of {', '.join(names)}.")
    made: Law | PerplexityCorrelations = getattr(selection, names[method])(**settings)
    return made


def _caps(
    available: list[str] | None, tokens: str | None, max_epochs: float | None, usual_epochs: float
) -> "Caps | None":
    from tamis.pipeline.mixing import Caps

    if not available and tokens is None:
        only_with("--available and --tokens", max_epochs=max_epochs)
        return None
    if not available or tokens is None:
        raise UsageError("--available and --tokens go together: what there is of each domain, and what is trained on.")
    epochs = usual_epochs if max_epochs is None else max_epochs
    return Caps(numbers(available, "--available"), amount(tokens, "--tokens"), epochs)


def _print(found: "MixtureFound") -> None:
    from tamis.pipeline.mixing import SECTIONS

    facts = found.facts
    for name, told in SECTIONS.items():
        if facts[name]:
            out(told)
            print_rows(facts[name])
            out("")
    for note in facts["notes"]:
        out(f"note: {safe(note)}")
    figures = ", ".join(f"{name.replace('_', ' ')} {value:,.4g}" for name, value in facts["figures"].items())
    out(f"mixture: {safe(str(found.file))}, report: {safe(str(found.file.with_name('report.md')))}")
    out(safe(f"{found.folder}: mix {found.status}, {facts['method']}, {len(facts['weights'])} domains, {figures}"))
