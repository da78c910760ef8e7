"""What the steps over raw documents share: their common options, what they print, texts like NAME=VALUE."""

import inspect
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from tamis.cli.build import Exclude, IdField, MaxRejectFrac, NoProgress, TextField, TitleField
from tamis.cli.show import Json, Quiet, emit, out, progress, safe, table
from tamis.errors import UsageError

if TYPE_CHECKING:
    from tamis.pipeline.curation import Curated, Source

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the result; the same command again changes nothing.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Threads; the result is the same for any number.")]
FormatName = Annotated[
    Literal["jsonl.zst", "jsonl", "parquet", "hf"],
    typer.Option("--format", help="Of the kept documents; lines of JSON lines files stay as they are."),
]
EngineName = Annotated[Literal["local", "ray"], typer.Option("--engine", help="Where the work runs.")]
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgbt]?)", re.IGNORECASE)
_WHOLE_FROM = 1000
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Reading:
    """Options of a command that reads a pool, in the order of its help."""

    seed: Seed = 0
    workers: Workers = 2
    id_field: IdField = None
    text_field: TextField = None
    title_field: TitleField = None
    max_reject_frac: MaxRejectFrac = None
    exclude: Exclude = None
    no_progress: NoProgress = False
    json: Json = False
    quiet: Quiet = False

    def source(self, pool: list[str]) -> "Source":
        """Return the pool of the command line."""
        from tamis.ingestion.readers import FieldNames
        from tamis.pipeline.curation import Source

        frac = 0.01 if self.max_reject_frac is None else self.max_reject_frac
        names = FieldNames(self.id_field, self.text_field, self.title_field)
        return Source(tuple(pool), names, tuple(self.exclude or ()), frac)

    def progress(self) -> AbstractContextManager[Callable[[str, int, int | None], None] | None]:
        """Return what draws progress, where it is wanted."""
        return progress(not (self.quiet or self.no_progress))

    def show(self, found: "Curated") -> None:
        """Print a step's result."""
        print_step(found, json=self.json, quiet=self.quiet)


@dataclass(frozen=True)
class Writing(Reading):
    """Options of a command that writes documents too."""

    format_name: FormatName = "jsonl.zst"


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of its argument ``common`` as options of its own, after its others.

    Typer reads the signature of what this returns: help and checks are those of options written out.
    """
    given = inspect.signature(command).parameters
    kind = given["common"].annotation
    hints = get_type_hints(kind, include_extras=True)
    by_name = inspect.Parameter.KEYWORD_ONLY
    own = [parameter.replace(kind=by_name) for name, parameter in given.items() if name != "common"]
    names = sorted((f.name for f in fields(kind)), key=lambda name: name not in kind.__annotations__)
    shared = [inspect.Parameter(name, by_name, default=getattr(kind, name), annotation=hints[name]) for name in names]

    @wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401 - of any command
        common = kind(**{name: values.pop(name) for name in names})
        command(**values, common=common)

    run.__signature__ = inspect.Signature(own + shared)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in own + shared}
    return run


def print_step(found: "Curated", *, json: bool, quiet: bool) -> None:
    """Print notes, figures (one a row, or tables of their own) and where to look."""

    def human() -> None:
        for note in found.notes:
            out(f"note: {safe(note)}")
        numbers = [(name, cell(value)) for name, value in found.figures.items() if isinstance(value, int | float)]
        if numbers:
            table(("figure", "value"), numbers, right=(1,))
        for rows in found.figures.values():
            if isinstance(rows, list):
                print_rows(rows)
        out(f"documents: {safe(str(found.folder / 'documents'))}, report: {safe(str(found.folder / 'report'))}")
        out(safe(found.line()))

    emit(found.to_dict(), json=json, quiet=quiet, ids=[str(found.folder)], human=human)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows of one form as a table; numbers stand to the right."""
    if rows:
        names = list(rows[0])
        right = [at for at, name in enumerate(names) if not isinstance(rows[0][name], str | bool)]
        table(names, [tuple(cell(row[name]) for name in names) for row in rows], right=right)


def cell(value: Any) -> str:  # noqa: ANN401 - any JSON scalar
    """Return a value as people read it: four digits of what is small, thousands apart."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """Return NAME=VALUE texts of an option as a mapping.

    Raises:
      UsageError: another form, or a name twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, is_pair, value = text.rpartition("=")
        if not is_pair or not name or not value:
            raise UsageError(f"{option} {text!r}: write NAME=VALUE.")
        if name in found:
            raise UsageError(f"{option}: {name!r} is given twice. Give it once.")
        found[name] = value
    return found


def numbers(texts: list[str] | None, option: str) -> dict[str, float]:
    """Return NAME=NUMBER texts as a mapping; numbers as in `amount`, or any float."""
    return {name: _number(value, f"{option} {name}") for name, value in pairs(texts or [], option).items()}


def amount(text: str, option: str) -> float:
    """Return the number of a text like 400000, 1.5k, 20M, 10B or 1e9.

    Raises:
      UsageError: another form.
    """
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{option} {text!r}: write a number, as 400000, 20M, 10B or 1e9.")
    return float(found[1]) * _SCALES[found[2].lower()]


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        return amount(text, option)


def not_with(option: str, **given: object) -> None:
    """Refuse options that would do nothing beside another one.

    Args:
      option: that other one.
      given: options by name, with underscores; those that are None, False or empty were not given.

    Raises:
      UsageError: one was given; names all.
    """
    if found := _given(given):
        raise UsageError(f"{found}: not with {option}. Leave out the one or the other.")


def only_with(option: str, **given: object) -> None:
    """Refuse options that do nothing without another one; arguments and errors as of `not_with`."""
    if found := _given(given):
        raise UsageError(f"{found}: only with {option}. Add it, or leave these out.")


def _given(options: dict[str, object]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, False, []))


def toml(path: Path | None) -> dict[str, Any]:
    """Return the settings of a TOML file, none where no file is given.

    Raises:
      UsageError: it cannot be read.
    """
    import tomllib

    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--settings {path}: cannot be read ({error}). Give a TOML file of settings.") from error
