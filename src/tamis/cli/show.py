"""Printing: JSON, quiet ids, or tables for people; control characters never reach the terminal."""

import json as standard_json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print ids or nothing; errors only.")]

_ON, _OFF = "\x01", "\x02"  # marks of a match; no text that went through `safe` holds them
_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MIN_WRAP = 24


class ReaderGone(Exception):
    """Whoever read our output has closed it, as in ``| head``."""


def safe(text: str) -> str:
    """Return text with control characters (line ends and tabs too) shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def prose(text: str) -> str:
    """Return running text on one line: white space of any kind as single spaces, the rest as `safe`."""
    return safe(" ".join(text.split()))


def emit(value: Any, *, json: bool, quiet: bool, ids: Iterable[str] = (), human: Callable[[], None]) -> None:  # noqa: ANN401
    """Print a result in the mode that was asked for."""
    if json:
        out(_json(value))
    elif quiet:
        for line in ids:
            out("\t".join(map(safe, line.split("\t"))))
    else:
        human()


def _json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    except TypeError:  # a path that is no UTF-8
        text = standard_json.dumps(value, indent=2)
    # JSON leaves these as they are, terminals obey some of them; they stand inside of strings only
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def out(line: str) -> None:
    """Print one line on stdout.

    Raises:
      ReaderGone: nobody reads it any more.
    """
    try:
        sys.stdout.write(line + "\n")
    except BrokenPipeError:
        raise ReaderGone from None


def width() -> int | None:
    """Return the columns of the terminal, None where stdout is none: then nothing is wrapped."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def cells(text: str) -> int:
    """Return the columns that text takes: two for wide characters, none for combining ones and marks."""
    if text.isascii():
        return len(text) - text.count(_ON) - text.count(_OFF)
    return sum(
        0 if unicodedata.combining(c) or c in {_ON, _OFF} else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def wrap(text: str, columns: int | None) -> list[str]:
    """Break text at spaces into lines of at most ``columns``; a longer word stands alone."""
    if columns is None or cells(text) <= columns:
        return [text]
    lines, used = [""], 0
    for word in text.split(" "):
        size = cells(word)
        if lines[-1] and used + 1 + size > columns:
            lines.append("")
        used = size if not lines[-1] else used + 1 + size
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print a plain aligned table; columns in ``right`` are right-aligned, the last one is wrapped on a terminal."""
    listed = [[safe(cell) for cell in row] for row in rows]
    widths = [max(cells(cell) for cell in column) for column in zip(headers, *listed, strict=True)]
    indent, columns = sum(widths[:-1]) + 2 * (len(widths) - 1), width()
    room = None if columns is None or columns - indent < _MIN_WRAP else columns - indent
    if room is not None:
        widths[-1] = min(widths[-1], room)
    for row in [list(headers), ["-" * w for w in widths], *listed]:
        first, *others = wrap(row[-1], room)
        padded = []
        for number, (cell, size) in enumerate(zip([*row[:-1], first], widths, strict=True)):
            space = " " * (size - cells(cell))
            padded.append(space + cell if number in right else cell + space)
        out("  ".join(padded).rstrip())
        for line in others:
            out(" " * indent + line)


def marked(text: str, spans: Sequence[tuple[int, int]], columns: int | None = None) -> list[str]:
    """Return the lines of a snippet, its matches in bold on a terminal, between asterisks elsewhere."""
    parts, end = [], 0
    for start, stop in spans:
        parts += [_spaced(text[end:start]), _ON, _spaced(text[start:stop]), _OFF]
        end = stop
    flat = " ".join("".join([*parts, _spaced(text[end:])]).split(" ")).strip()
    bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    on, off = ("\x1b[1m", "\x1b[0m") if bold else ("*", "*")
    return [line.replace(_ON, on).replace(_OFF, off) for line in wrap(flat, columns)]


def _spaced(text: str) -> str:
    return safe(re.sub(r"\s+", " ", text))


@contextmanager
def progress(enabled: bool) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Yield a progress callback (stage, done, total) that draws on stderr, or None without a terminal."""
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, total=1, completed=1)
                    bars.stop_task(earlier)
                tasks[stage] = bars.add_task(f"{stage:<10}", total=None, count="")
            count = f"{done:,}" if total is None else f"{done:,} of {total:,}"
            bars.update(tasks[stage], completed=done, total=total, count=count if done else "")

        yield advance
