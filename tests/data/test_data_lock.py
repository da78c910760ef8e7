"""One writer a folder: the second is told who holds it, and a dead holder holds nothing."""

import errno
import multiprocessing
import os
import signal
import socket
import subprocess
import sys

import filelock
import pytest

from tamis.data import durable, lock
from tamis.errors import LockedError, ResourceError

HOLD = """
import sys, time
from pathlib import Path
from tamis.data import lock
with lock.exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    return child


def kill(child):
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()


def contend(folder, start, tries, sums):
    from tamis.data import lock

    for _ in range(tries):
        start.wait(20)
        try:
            with lock.exclusive(folder):
                inside = folder / "inside"
                inside.touch(exist_ok=False)  # fails if both are in
                start.wait(20)  # held until the other has tried
                inside.unlink()
                sums.put("held")
        except LockedError as error:
            sums.put(str(error))
            start.wait(20)


def test_the_second_is_told_who_holds_it_and_a_killed_holder_is_forgotten(tmp_path):
    folder = tmp_path / "new" / "engine"
    child = hold(folder)
    try:
        with (
            pytest.raises(
                LockedError, match=f"held by pid {child.pid} on host {socket.gethostname()} since 20"
            ) as caught,
            lock.exclusive(folder),
        ):
            raise AssertionError
        assert caught.value.exit_code == 4
    finally:
        kill(child)
    assert (folder / ".lock.holder").exists()  # the dead one's name; the lock itself is gone
    with (
        lock.exclusive(folder),
        pytest.raises(LockedError, match=f"held by pid {os.getpid()} "),
        lock.exclusive(folder),
    ):
        raise AssertionError
    assert not (folder / ".lock.holder").exists()


def test_two_processes_twenty_times(tmp_path):
    context = multiprocessing.get_context("forkserver")
    start, answers = context.Barrier(2), context.Queue()
    pair = [context.Process(target=contend, args=(tmp_path, start, 20, answers)) for _ in range(2)]
    for process in pair:
        process.start()
    got = [answers.get(timeout=30) for _ in range(40)]
    for process in pair:
        process.join()
    answers.close()
    assert sum(answer == "held" for answer in got) == 20
    refused = [answer for answer in got if answer != "held"]
    assert len(refused) == 20
    assert all("is being written: held by" in answer for answer in refused)


def test_a_holder_without_a_name(tmp_path):
    with filelock.FileLock(tmp_path / ".lock"):
        for content in (None, b"", b"[]", b'{"pid": 1}'):
            if content is not None:
                (tmp_path / ".lock.holder").write_bytes(content)
            with (
                pytest.raises(LockedError, match="a process that has not written its name yet"),
                lock.exclusive(tmp_path),
            ):
                raise AssertionError


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "No locks available")])
def test_a_file_system_without_locks(tmp_path, monkeypatch, error):
    def refuse(self, timeout):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with (
        pytest.raises(ResourceError, match=r"cannot lock .*(no flock|No locks available)"),
        lock.exclusive(tmp_path),
    ):
        raise AssertionError


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="cannot make folder"), lock.exclusive(tmp_path / "file" / "engine"):
        raise AssertionError


def test_no_space_for_the_name_frees_the_lock(tmp_path, monkeypatch):
    def refuse(moment, name, path):
        if name == "create":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "observer", refuse)
    with pytest.raises(ResourceError, match="No space"), lock.exclusive(tmp_path):
        raise AssertionError
    monkeypatch.setattr(durable, "observer", None)
    with lock.exclusive(tmp_path):
        assert (tmp_path / ".lock.holder").exists()
