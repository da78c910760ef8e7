"""Printing: JSON, quiet ids, or tables for people; control characters never reach the terminal."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print ids or nothing; errors only.")]


def safe(text: str) -> str:
    """Return text with control characters (line ends and tabs too) shown as \\xNN."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def emit(value: Any, *, json: bool, quiet: bool, ids: Iterable[str] = (), human: Callable[[], None]) -> None:  # noqa: ANN401
    """Print a result in the mode that was asked for."""
    if json:
        out(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
    elif quiet:
        for line in ids:
            out(safe(line))
    else:
        human()


def out(line: str) -> None:
    """Print one line on stdout."""
    sys.stdout.write(line + "\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print a plain aligned table; columns in ``right`` are right-aligned."""
    listed = [[safe(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(headers, *listed, strict=True)]
    for row in [list(headers), ["-" * w for w in widths], *listed]:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        out("  ".join(cells).rstrip())


def marked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return a snippet with its matches in bold on a terminal, between asterisks elsewhere."""
    before, after = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("*", "*")
    parts, end = [], 0
    for start, stop in spans:
        parts += [safe(text[end:start]), before, safe(text[start:stop]), after]
        end = stop
    return "".join([*parts, safe(text[end:])])


@contextmanager
def progress(enabled: bool) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Yield a progress callback (stage, done, total) that draws on stderr, or None without a terminal."""
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield advance
