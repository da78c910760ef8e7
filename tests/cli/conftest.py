"""One small engine for all tests of the command line, and a way to run a command without a new process."""

import signal
import sys

import pytest

from tamis.cli import main

TASKS = ("rotate", "restore", "deploy", "renew", "revoke", "monitor", "migrate", "compress", "encrypt", "schedule")
THINGS = ("key", "backup", "server", "certificate", "token", "cluster", "database", "archive", "disk", "job")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def write_docs(folder):
    """60 short Markdown pages, each about one task and one thing."""
    folder.mkdir(parents=True)
    for number in range(60):
        task, thing = TASKS[number % 10], THINGS[(number * 7 + number // 10) % 10]
        others = " ".join(THINGS[(number + step) % 10] for step in range(3))
        text = f"# How to {task} the {thing}\n\nTo {task} the {thing} number {number}, open the console and wait.\n\n"
        text += f"## After you {task}\n\nLook at the {others}: each must know the new {thing}.\n"
        (folder / f"{number:02}.md").write_text(text)
    return folder


def run_main(capsys, *args):
    """Run a command in this process: exit code, stdout, stderr."""
    before, argv = {number: signal.getsignal(number) for number in SIGNALS}, sys.argv
    sys.argv = ["tamis", *map(str, args)]
    capsys.readouterr()
    try:
        main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
        for number, handler in before.items():
            signal.signal(number, handler)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="session")
def docs(tmp_path_factory):
    return write_docs(tmp_path_factory.mktemp("input") / "docs")


@pytest.fixture(scope="session")
def engine(docs, tmp_path_factory):
    from tamis import pipeline

    folder = tmp_path_factory.mktemp("built") / "engine"
    pipeline.build(str(docs), folder)
    return folder


@pytest.fixture
def tamis(capsys):
    """Run a command line: tamis("search", engine, "words") -> (code, stdout, stderr)."""
    return lambda *args: run_main(capsys, *args)
