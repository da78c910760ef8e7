"""`tamis select`, `dedup` and `clean`: raw documents to the ones worth having."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tamis.cli.build import Exclude, IdField, MaxRejectFrac, NoProgress, Sources, TextField, TitleField
from tamis.cli.show import Json, Quiet, emit, out, progress, safe, table
from tamis.errors import UsageError

if TYPE_CHECKING:
    from tamis.models import Encoder
    from tamis.pipeline.curation import Curated, Source
    from tamis.selection.budget import Budget
    from tamis.selection.selector import Selector

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(k|m|g|)\s*(%|docs?|words?|bytes|b)", re.IGNORECASE)
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
METHODS = ("dsir", "dsir-paper", "uniform", "nearest", "classifier", "compression", "zip-fit", "perplexity")
VECTOR_METHODS = ("clusters", "k-center", "rds")

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the result; the same command again changes nothing.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Threads; the result is the same for any number.")]
FormatName = Annotated[
    Literal["jsonl.zst", "jsonl", "parquet", "hf"],
    typer.Option("--format", help="Of the kept documents; lines of JSON lines files stay as they are."),
]
Method = Annotated[
    str,
    typer.Option(
        help="How documents are scored: dsir, dsir-paper, uniform, nearest, classifier, compression, zip-fit, "
        "perplexity, or on vectors clusters, k-center, rds."
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Documents of the kind you want, PATH or NAME=PATH (may be given again)."),
]


def parse_budget(text: str) -> "Budget":
    """Return the budget of a text like 5%, 10000docs, 2Mwords or 100MB.

    Raises:
      UsageError: another form, or nothing would be kept.
    """
    from tamis.selection.budget import Budget

    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--budget {text!r}: write 5%, 10000docs, 2Mwords or 100MB.")
    number, unit = float(found[1]), found[3].lower().rstrip("s")
    if unit == "%":
        if not 0 < number <= 100 or found[2]:
            raise UsageError(f"--budget {text!r}: a share is above 0 % and at most 100 %.")
        return Budget(frac=number / 100)
    amount = round(number * _SCALES[found[2].lower()])
    if amount < 1:
        raise UsageError(f"--budget {text!r}: that keeps nothing. Give at least one.")
    name = {"doc": "docs", "word": "words"}.get(unit, "bytes")
    return Budget(**{name: amount})


def make_selector(method: str, budget: "Budget", settings: Path | None, *, condition: bool = False) -> "Selector":
    """Return a method by its name on the command line, with settings from a TOML file on top."""
    import tomllib

    from tamis import selection

    makers: dict[str, tuple[type[Selector], dict[str, Any]]] = {
        "dsir": (selection.DSIR, {}),
        "dsir-paper": (selection.DSIR, {"mode": "paper"}),
        "uniform": (selection.Uniform, {}),
        "nearest": (selection.TfidfNearest, {}),
        "classifier": (selection.HashedClassifier, {}),
        "compression": (selection.CompressionAlignment, {}),
        "zip-fit": (selection.CompressionAlignment, {"exact": True}),
        "perplexity": (selection.NgramPerplexity, {}),
        "clusters": (selection.ClusterCoverage, {}),
        "k-center": (selection.KCenter, {}),
        "rds": (selection.RDSPlus, {}),
    }
    if method not in makers:
        raise UsageError(f"--method {method!r}: none of {', '.join(makers)}.")
    kind, given = makers[method]
    if settings is not None:
        try:
            given = given | tomllib.loads(settings.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(
                f"--settings {settings}: cannot be read ({error}). Give a TOML file of settings."
            ) from error
    chosen = kind(**{**given, "budget": budget})
    return selection.Conditioned(of=chosen, budget=budget) if condition else chosen


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


def select(
    pool: Sources,
    out_folder: Out,
    budget: Annotated[str, typer.Option("--budget", "-b", help="How much to keep: 5%, 10000docs, 2Mwords, 100MB.")],
    target: Targets = None,
    share: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER, a target's share of the budget (may be given again).")
    ] = None,
    method: Method = "dsir",
    settings: Annotated[Path | None, typer.Option(help="TOML file with settings of the method.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Folder of an encoder, say ENGINE/encoder: for clusters, k-center and rds.")
    ] = None,
    condition: Annotated[
        bool, typer.Option("--condition", help="Rank within source, language and length: for scores of quality.")
    ] = False,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="Where the work runs.")] = "local",
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Also write all scores as dolma attributes.")
    ] = False,
    format_name: FormatName = "jsonl.zst",
    seed: Seed = 0,
    workers: Workers = 2,
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    max_reject_frac: MaxRejectFrac = None,
    exclude: Exclude = None,
    no_progress: NoProgress = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep the documents that look most like a target.

    From a pool of raw documents, under a budget. Every document gets a score and a line in the ledger.
    """
    from tamis.pipeline import curate

    chosen = make_selector(method, parse_budget(budget), settings, condition=condition)
    source = source_of(pool, id_field, text_field, title_field, max_reject_frac, exclude)
    with progress(not (quiet or no_progress)) as advance:
        found = curate.select(
            source,
            out_folder,
            chosen,
            _named(target or [], source),
            shares=_shares(share),
            encoder=_encoder(method, encoder),
            seed=seed,
            format=format_name,
            attributes=attributes,
            engine=engine,
            workers=workers,
            progress=advance,
        )
    print_step(found, json=json, quiet=quiet)


def dedup(
    pool: Sources,
    out_folder: Out,
    against: Annotated[
        list[str] | None, typer.Option(help="Drop what is in these files too, and nothing else (may be given again).")
    ] = None,
    keep: Annotated[Literal["longest", "first"], typer.Option(help="Which copy stays; first goes by id.")] = "longest",
    min_same_words: Annotated[float, typer.Option(min=0.5, max=1, help="Share of same words that makes a copy.")] = 0.8,
    any_title: Annotated[
        bool, typer.Option("--any-title", help="Let documents with different titles be copies of each other.")
    ] = False,
    on_wipeout: Annotated[
        Literal["stop", "keep"],
        typer.Option(help="When a source would lose more than half: stop, or keep that source whole."),
    ] = "stop",
    format_name: FormatName = "jsonl.zst",
    seed: Seed = 0,
    workers: Workers = 2,
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    max_reject_frac: MaxRejectFrac = None,
    exclude: Exclude = None,
    no_progress: NoProgress = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop exact and near copies, each verified word by word.

    A document is dropped only beside one that stays; report/clusters.parquet has the groups.
    """
    from tamis.ingestion.minhash import MinHash
    from tamis.pipeline import curate
    from tamis.pipeline.curation import Source

    source = source_of(pool, id_field, text_field, title_field, max_reject_frac, exclude)
    other = Source(tuple(against), source.fields, (), source.max_reject_frac) if against else None
    search = MinHash(min_same_words_frac=min_same_words, same_title=not any_title, on_wipeout=on_wipeout)
    with progress(not (quiet or no_progress)) as advance:
        found = curate.dedup(
            source,
            out_folder,
            search,
            against=other,
            keep=keep,
            seed=seed,
            format=format_name,
            workers=workers,
            progress=advance,
        )
    print_step(found, json=json, quiet=quiet)


def clean(
    pool: Sources,
    out_folder: Out,
    preset: Annotated[
        Literal["documents", "web", "code", "off"], typer.Option(help="Quality rules; web is strict.")
    ] = "documents",
    lines: Annotated[bool, typer.Option("--lines", help="Cut lines that many documents share.")] = False,
    format_name: FormatName = "jsonl.zst",
    seed: Seed = 0,
    workers: Workers = 2,
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    max_reject_frac: MaxRejectFrac = None,
    exclude: Exclude = None,
    no_progress: NoProgress = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop documents that fail quality rules.

    Each with its reason; report/rules.parquet says what every rule did to every source.
    """
    from tamis.ingestion.lines import FrequentLines
    from tamis.ingestion.quality import Quality
    from tamis.pipeline import cleaning

    source = source_of(pool, id_field, text_field, title_field, max_reject_frac, exclude)
    with progress(not (quiet or no_progress)) as advance:
        found = cleaning.clean(
            source,
            out_folder,
            Quality(preset=preset),
            FrequentLines() if lines else None,
            seed=seed,
            format=format_name,
            workers=workers,
            progress=advance,
        )
    print_step(found, json=json, quiet=quiet)


def source_of(
    pool: list[str],
    id_field: str | None,
    text_field: str | None,
    title_field: str | None,
    max_reject_frac: float | None,
    exclude: list[str] | None,
) -> "Source":
    """Return the pool of the command line as a source."""
    from tamis.ingestion.readers import FieldNames
    from tamis.pipeline.curation import Source

    frac = 0.01 if max_reject_frac is None else max_reject_frac
    return Source(tuple(pool), FieldNames(id_field, text_field, title_field), tuple(exclude or ()), frac)


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


def _shares(texts: list[str] | None) -> dict[str, float] | None:
    if not texts:
        return None
    try:
        return {name: float(value) for name, value in pairs(texts, "--share").items()}
    except ValueError as error:
        raise UsageError(f"--share: {error}. Write NAME=NUMBER.") from error


def print_step(found: "Curated", *, json: bool, quiet: bool) -> None:
    """Print counts, figures, notes and where to look."""

    def human() -> None:
        for note in found.notes:
            out(f"note: {safe(note)}")
        numbers = [
            (n, f"{v:,.4g}" if isinstance(v, float) else f"{v:,}")
            for n, v in found.figures.items()
            if isinstance(v, int | float)
        ]
        if numbers:
            table(("figure", "value"), numbers, right=(1,))
        out(f"documents: {safe(str(found.folder / 'documents'))}, report: {safe(str(found.folder / 'report'))}")
        out(safe(found.line()))

    emit(found.to_dict(), json=json, quiet=quiet, ids=[str(found.folder)], human=human)


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """Return NAME=VALUE texts of an option as a mapping.

    Raises:
      UsageError: another form.
    """
    found = {}
    for text in texts:
        name, is_pair, value = text.partition("=")
        if not is_pair or not name or not value:
            raise UsageError(f"{option} {text!r}: write NAME=VALUE.")
        found[name] = value
    return found
