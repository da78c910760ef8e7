"""Threads: apply a function to tasks in order within this process; for kernels that release the interpreter's lock.

Source: tamis design (engines; the same results from every engine).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_threads(function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int) -> Iterator[Result]:
    """Yield ``function(task)`` for each task, in the order of the tasks.

    At most 2 x workers tasks are running or waiting for their turn. After an error, or when the caller
    leaves early, no further task starts, and those that run are waited for.

    Args:
      function: deterministic; gains from threads only while it holds no interpreter lock (Arrow, numba nogil).
      tasks: read lazily, in the caller's thread.
      workers: number of threads; 1 works in the caller's thread.

    Raises:
      Exception: what ``function`` raised for the first task in order that failed, with its own type.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tamis")
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
