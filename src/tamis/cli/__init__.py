"""The command line: parses, calls the same functions as the Python API, prints, exits.

Exit codes: 0 ok, 1 a check failed, 2 usage or recipe, 3 input refused, 4 resource,
130 interrupted (run again to continue).
"""

import atexit
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from threading import Thread
from types import FrameType
from typing import ParamSpec

import typer

from tamis.cli.ask import search, similar
from tamis.cli.build import build, check, demo
from tamis.cli.curate import clean, dedup, restore
from tamis.cli.inspect import audit, decontaminate, diff
from tamis.cli.judge import compare, evaluate
from tamis.cli.look import doctor, verify, why
from tamis.cli.mixing import mix
from tamis.cli.selecting import select
from tamis.cli.show import ReaderGone, safe
from tamis.errors import Interrupted, ResourceError, TamisError
from tamis.ops.kernel_cache import load_without_compiler

Given = ParamSpec("Given")
app = typer.Typer(
    name="tamis",
    help="From a heap of documents to a search engine that knows them, with error bars.",
    epilog='Start with: tamis build DOCS --out ENGINE, then: tamis search ENGINE "some words". '
    "Exit codes: 0 ok, 1 a check failed, 2 usage or recipe, 3 input refused, 4 resource, "
    "130 interrupted: the same command continues.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    *(build, search, similar, evaluate, compare, why, verify, check, doctor, demo),
    *(select, mix, dedup, clean, restore, decontaminate, audit, diff),
)
WITHOUT_KERNELS = (evaluate, compare, why, verify, check, doctor, diff)
_YOUNG_OBJECTS = 50_000  # Python looks for cycles after 700 new objects: a hundred times while modules are imported


def _with_kernels(command: Callable[Given, None]) -> Callable[Given, None]:
    """Import numba beside what the command imports."""

    @wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        Thread(target=load_without_compiler, name="tamis-kernels").start()
        command(*args, **kwargs)

    return run


for command in COMMANDS:
    app.command()(command if command in WITHOUT_KERNELS else _with_kernels(command))

_stops = 0


def _stop(number: int, _frame: FrameType | None) -> None:
    global _stops  # noqa: PLW0603 - a signal handler has no other memory
    _stops += 1
    if _stops > 1:  # asked twice: at once, which loses nothing that was finished
        os._exit(Interrupted.exit_code)
    raise Interrupted(f"stopped by {signal.Signals(number).name}. Run the same command again: it continues.")


def main() -> None:
    """Run the command line; every error of ours ends in one message and its exit code."""
    gc.set_threshold(_YOUNG_OBJECTS)
    atexit.register(gc.freeze)  # or the end looks for cycles in all modules: a sixth of the time of a short command
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, _stop)
    if not sys.warnoptions:  # of libraries; ours are errors
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8 shows escapes
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = _run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
    except OSError as error:
        code = _fail(ResourceError(f"cannot write the output: {error.strerror}. Make room, or write it elsewhere."))
        _drop_stdout()
    sys.exit(code)


def _run() -> int:
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except TamisError as error:
        return _fail(error)
    except ReaderGone:
        return 0
    except MemoryError:
        return _fail(
            ResourceError("out of memory. Close other programs or build a smaller corpus; run again: it continues.")
        )
    except OSError as error:
        place = f" {error.filename}" if error.filename is not None else ""
        return _fail(
            ResourceError(
                f"the system refused{place}: {error.strerror or error}. Check path, disk and permissions; run again."
            )
        )
    return 0


def _fail(error: TamisError) -> int:
    sys.stderr.write("\n".join(safe(line) for line in f"tamis: {error}".split("\n")) + "\n")
    return error.exit_code


def _drop_stdout() -> None:
    """Let what is still buffered go nowhere, so that the interpreter ends without a complaint."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
