"""The command line: parses, calls the same functions as the Python API, prints, exits.

Exit codes: 0 ok, 1 a check failed, 2 usage or recipe, 3 input refused, 4 resource, 130 interrupted (run again to continue).
"""

import signal
import sys
from types import FrameType

import typer

from tamis.cli.ask import search, similar
from tamis.cli.build import build, check, demo
from tamis.cli.judge import compare, evaluate
from tamis.cli.look import doctor, verify, why
from tamis.errors import Interrupted, TamisError

app = typer.Typer(
    name="tamis",
    help="From a heap of documents to a search engine that knows them, with error bars.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (build, search, similar, evaluate, compare, why, verify, check, doctor, demo):
    app.command()(command)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}. Run the same command again: it continues.")


def main() -> None:
    """Run the command line; every error of ours ends in one message and its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        app(standalone_mode=True)
    except TamisError as error:
        sys.stderr.write(f"tamis: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        sys.stderr.close()
        sys.exit(0)
    except MemoryError:
        sys.stderr.write("tamis: out of memory. Close other programs or build a smaller corpus; run again: it continues.\n")
        sys.exit(4)
