"""Local engine: apply a function to tasks in order, here or in spawned processes; the same results from both.

Source: tamis design. Own small pool, because a dead child must name its task (the standard pools do not say which).
"""

import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from tamis.errors import ResourceError, TamisError

Task = TypeVar("Task")
Result = TypeVar("Result")
_JOIN_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """What a child may use: address space above what it starts with, and CPU seconds for one task."""

    memory_bytes: int
    cpu_seconds: int


def map_ordered(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    limits: Limits | None = None,
    on_death: Callable[[Task, str], Result] | None = None,
) -> Iterator[Result]:
    """Yield ``function(task)`` for each task, in the order of the tasks.

    At most 2 x workers tasks are in flight or waiting for their turn, so memory is bounded whatever
    the number of tasks. One worker works in this process unless ``on_death`` asks for isolation.

    Args:
      function: importable by name (it is sent to spawned processes), deterministic.
      tasks: picklable; read lazily.
      workers: number of processes.
      limits: set on each child; unused when the work is done in this process.
      on_death: makes the result of a task whose process died, from the task and what happened; the
        work then always runs in children. Without it a dead child is an error.

    Raises:
      ResourceError: a child died (killed, out of memory, crashed in native code); names its task.
      Exception: what ``function`` raised, with its own type and message.
    """
    if workers <= 1 and on_death is None:
        for task in tasks:
            yield function(task)
        return
    pool: _Pool[Task, Result] = _Pool(function, max(1, workers), limits, on_death)
    try:
        yield from pool.run(iter(tasks))
    finally:
        pool.close()


@dataclass
class _Worker(Generic[Task]):
    """One child, the parent's end of its pipe, and the task it works on."""

    process: SpawnProcess
    connection: Connection
    ticket: int = -1
    task: Task | None = None


class _Pool(Generic[Task, Result]):
    def __init__(
        self,
        function: Callable[[Task], Result],
        workers: int,
        limits: Limits | None,
        on_death: Callable[[Task, str], Result] | None,
    ) -> None:
        self._function, self._limits, self._on_death = function, limits, on_death
        self._num_workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[_Worker[Task]] = []
        self._busy: dict[Connection, _Worker[Task]] = {}

    def run(self, tasks: Iterator[Task]) -> Iterator[Result]:
        """Keep the workers busy and yield results in order."""
        ready: dict[int, Result] = {}
        given = wanted = 0
        exhausted = False
        while True:
            while not exhausted and len(self._busy) < self._num_workers and given - wanted < 2 * self._num_workers:
                try:
                    task = next(tasks)
                except StopIteration:
                    exhausted = True
                    break
                self._give(given, task)
                given += 1
            while wanted in ready:
                yield ready.pop(wanted)
                wanted += 1
            if not self._busy and exhausted:
                return
            if self._busy:
                for connection in wait(list(self._busy)):
                    ticket, result = self._collect(self._busy[connection])  # type: ignore[index]
                    ready[ticket] = result

    def _give(self, ticket: int, task: Task) -> None:
        worker = self._idle.pop() if self._idle else self._start()
        worker.ticket, worker.task = ticket, task
        try:
            worker.connection.send(task)
        except (BrokenPipeError, ConnectionResetError):  # it died while idle: its task is not to blame
            self._end(worker)
            worker = self._start()
            worker.ticket, worker.task = ticket, task
            worker.connection.send(task)
        self._busy[worker.connection] = worker

    def _start(self) -> _Worker[Task]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._function, self._limits), daemon=True)
        process.start()
        theirs.close()  # only the child holds its end now: its death closes the pipe
        return _Worker(process, ours)

    def _collect(self, worker: _Worker[Task]) -> tuple[int, Result]:
        del self._busy[worker.connection]
        try:
            ok, value = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._end(worker)
            death = _cause(worker.process.exitcode)
            if self._on_death is not None:
                return worker.ticket, self._on_death(worker.task, death)  # type: ignore[arg-type]
            raise ResourceError(
                f"task {_name(worker.task)}: its process {death}. "
                "Free some memory or use fewer workers, then run the same command again."
            ) from None
        if not ok:
            self._idle.append(worker)
            raise value
        self._idle.append(worker)
        return worker.ticket, value

    def _end(self, worker: _Worker[Task]) -> None:
        worker.connection.close()
        worker.process.join(_JOIN_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()

    def close(self) -> None:
        """Stop every child at once."""
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            self._end(worker)
        self._idle, self._busy = [], {}


def _name(task: object) -> str:
    return f"{task!s:.300}"


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name if -exit_code in list(signal.Signals) else str(-exit_code)
        return f"was ended by {name}"
    return f"ended with exit code {exit_code}"


def _serve(connection: Connection, function: Callable[[Any], Any], limits: Limits | None) -> None:
    """Work in a child: receive tasks, send (ok, result or exception) until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _limit_memory(limits)
    while True:
        try:
            task = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        _limit_cpu(limits)
        try:
            answer = (True, function(task))
        except Exception as error:
            answer = (False, error)
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # the result or the exception cannot be pickled
            connection.send((False, TamisError(f"task {_name(task)}: {answer[1]!r:.300} ({error})")))


def _limit_memory(limits: Limits | None) -> None:
    if limits is None:
        return
    in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = in_use + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    hard_core = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard_core))  # a crash is expected here: no core file


def _limit_cpu(limits: Limits | None) -> None:
    if limits is None:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = int(usage.ru_utime + usage.ru_stime) + 1 + limits.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
