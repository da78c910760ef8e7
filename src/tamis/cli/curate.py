"""`tamis dedup`, `clean` and `restore`: what need not be there goes, and texts come back as they were."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tamis.cli.build import NoProgress, Sources
from tamis.cli.build import Workers as Readers
from tamis.cli.show import Json, Quiet, progress
from tamis.cli.steps import EngineName, FormatName, Out, Writing, not_with, only_with, print_step, spread
from tamis.errors import UsageError

if TYPE_CHECKING:
    from tamis.pipeline.curation import Curated

_MIN_SAME_WORDS, _MIN_COSINE, _MAX_REMOVED, _MAX_DROPPED = 0.8, 0.95, 0.7, 0.5
_BY_WORDS, _BY_VECTORS = ("longest", "first"), ("farthest", "nearest", "longest")


@spread
def dedup(
    pool: Sources,
    out_folder: Out,
    common: Writing,
    against: Annotated[
        list[str] | None, typer.Option(help="Drop what is in these files too, and nothing else (may be given again).")
    ] = None,
    keep: Annotated[
        Literal["longest", "first", "farthest", "nearest"] | None,
        typer.Option(
            help="Which copy stays: longest, or first by id; with --semantic farthest from the centre, nearest or "
            "longest. [longest; farthest]",
            show_default=False,
        ),
    ] = None,
    min_same_words: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=1, help=f"Share of same words that makes a copy. [{_MIN_SAME_WORDS}]", show_default=False
        ),
    ] = None,
    any_title: Annotated[
        bool, typer.Option("--any-title", help="Let documents with different titles be copies of each other.")
    ] = False,
    on_wipeout: Annotated[
        Literal["stop", "keep"] | None,
        typer.Option(
            help="When a source would lose more than half: stop, or keep that source whole. [stop]", show_default=False
        ),
    ] = None,
    semantic: Annotated[
        bool,
        typer.Option("--semantic", help="Instead of copies: documents whose vectors are nearly parallel. Verify them."),
    ] = False,
    encoder: Annotated[str | None, typer.Option(help="With --semantic: its folder, say ENGINE/encoder.")] = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help=f"With --semantic: from where on two are one. [{_MIN_COSINE}]", show_default=False
        ),
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --semantic: parts of the pool, each compared within itself; faster. [1]",
            show_default=False,
        ),
    ] = None,
    engine: EngineName = "local",
) -> None:
    """Drop exact and near copies, each verified word by word.

    A document is dropped only beside one that stays; report/clusters.parquet has the groups. A pass of its own with
    --semantic drops what an encoder takes for the same.
    """
    if semantic:
        not_with("--semantic", against=against, min_same_words=min_same_words, any_title=any_title)
        not_with("--semantic", on_wipeout=on_wipeout, engine=engine if engine != "local" else None)
        options = {"min_cosine": min_cosine, "num_clusters": parts, "keep": _kept(keep, _BY_VECTORS, "with --semantic")}
        common.show(_by_vectors(pool, out_folder, encoder, options, common))
        return
    only_with("--semantic", encoder=encoder, min_cosine=min_cosine, parts=parts)
    from tamis.ingestion.minhash import MinHash
    from tamis.pipeline import curate
    from tamis.pipeline.curation import Source

    source = common.source(pool)
    other = Source(tuple(against), source.fields, (), source.max_reject_frac) if against else None
    search = MinHash(
        min_same_words_frac=_MIN_SAME_WORDS if min_same_words is None else min_same_words,
        same_title=not any_title,
        on_wipeout=on_wipeout or "stop",
    )
    with common.progress() as advance:
        found = curate.dedup(
            source,
            out_folder,
            search,
            against=other,
            keep=_kept(keep, _BY_WORDS, "for copies") or "longest",
            seed=common.seed,
            format=common.format_name,
            engine=engine,
            workers=common.workers,
            progress=advance,
        )
    common.show(found)


def _kept(keep: str | None, possible: tuple[str, ...], when: str) -> Any:  # noqa: ANN401 - one of `possible`, or None
    if keep is not None and keep not in possible:
        raise UsageError(f"--keep {keep}: {when} it is one of {', '.join(possible)}.")
    return keep


def _by_vectors(
    pool: list[str], out_folder: Path, encoder: str | None, options: dict[str, Any], common: Writing
) -> "Curated":
    from tamis.ingestion.semantic import SemanticDuplicates
    from tamis.models import load_encoder
    from tamis.pipeline.semantic import dedup_semantic

    if encoder is None:
        raise UsageError("--semantic compares vectors: give --encoder FOLDER, say ENGINE/encoder of `tamis build`.")
    method = SemanticDuplicates(**{name: value for name, value in options.items() if value is not None})
    with common.progress() as advance:
        return dedup_semantic(
            common.source(pool),
            out_folder,
            load_encoder(encoder),
            method,
            seed=common.seed,
            format=common.format_name,
            workers=common.workers,
            progress=advance,
        )


@spread
def clean(
    pool: Sources,
    out_folder: Out,
    common: Writing,
    preset: Annotated[
        Literal["documents", "web", "code", "off"] | None,
        typer.Option(help="Quality rules; web is strict. [documents]", show_default=False),
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Cut lines that many documents share.")] = False,
    repeats: Annotated[
        Literal["mark", "remove"] | None,
        typer.Option(help="Passages that two documents share: list them, or leave each in one document."),
    ] = None,
    programs: Annotated[
        Path | None,
        typer.Option(
            help="Instead of rules: edit programs, lines (or Parquet) of doc_id, text_key (XXH3-64 of the text in "
            "hexadecimal) and ops."
        ),
    ] = None,
    max_removed_frac: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.999,
            help=f"With --programs: refuse one that removes more of its text. [{_MAX_REMOVED}]",
            show_default=False,
        ),
    ] = None,
    max_dropped_frac: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=f"With --programs: stop when they drop more of the documents. [{_MAX_DROPPED}]",
            show_default=False,
        ),
    ] = None,
    engine: EngineName = "local",
) -> None:
    """Drop documents that fail quality rules.

    Each with its reason; report/rules.parquet says what every rule did to every source. With --programs documents
    are edited instead; report/edits.parquet has every change, and `tamis restore` takes them back.
    """
    if programs is not None:
        not_with(
            "--programs", preset=preset, lines=lines, repeats=repeats, engine=engine if engine != "local" else None
        )
        fracs = {"max_removed_frac": max_removed_frac, "max_dropped_frac": max_dropped_frac}
        common.show(_by_programs(pool, out_folder, programs, fracs, common))
        return
    only_with("--programs", max_removed_frac=max_removed_frac, max_dropped_frac=max_dropped_frac)
    from tamis.ingestion.lines import FrequentLines
    from tamis.ingestion.quality import Quality
    from tamis.ingestion.substring import RepeatedSubstrings
    from tamis.pipeline import cleaning

    with common.progress() as advance:
        found = cleaning.clean(
            common.source(pool),
            out_folder,
            Quality(preset=preset or "documents"),
            FrequentLines() if lines else None,
            RepeatedSubstrings(action=repeats) if repeats else None,
            seed=common.seed,
            format=common.format_name,
            engine=engine,
            workers=common.workers,
            progress=advance,
        )
    common.show(found)


def _by_programs(
    pool: list[str], out_folder: Path, programs: Path, fracs: dict[str, float | None], common: Writing
) -> "Curated":
    from tamis.ingestion.edit_program import EditProgram
    from tamis.pipeline.editing import edit

    given: dict[str, Any] = {name: float(value) for name, value in fracs.items() if value is not None}
    method = EditProgram(**given)
    with common.progress() as advance:
        return edit(
            common.source(pool),
            out_folder,
            programs,
            method,
            seed=common.seed,
            format=common.format_name,
            workers=common.workers,
            progress=advance,
        )


def restore(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What `tamis clean` made with --programs, --lines or --repeats.")
    ],
    out_folder: Out,
    format_name: FormatName = "jsonl.zst",
    workers: Readers = 1,
    no_progress: NoProgress = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give cleaned documents the texts back that they had.

    Every text is checked against the log first. Documents that were dropped are not in FOLDER and do not come back.
    """
    from tamis.pipeline import editing

    with progress(not (quiet or no_progress)) as advance:
        found = editing.restore(folder, out_folder, format=format_name, workers=workers, progress=advance)
    print_step(found, json=json, quiet=quiet)
