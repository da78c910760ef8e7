"""Ray engine: apply a function to tasks in order on a Ray cluster; the same results as on one machine.

Source: tamis design. Loopback, no dashboard, no usage statistics; tasks name files that every node can read.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tamis.errors import MissingExtra, ResourceError

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_ray(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int, address: str | None = None
) -> Iterator[Result]:
    """Yield ``function(task)`` for each task, in the order of the tasks.

    Runs on the cluster that `connected` finds. At most 2 x workers tasks are in flight. A task whose node is
    lost is run again: the function is deterministic.

    Args:
      function: deterministic; what it holds is sent to every node once.
      tasks: picklable; the files they name must be readable on every node under the same path.
      workers: tasks that run at the same time, one CPU each.
      address: "host:port" of a cluster.

    Raises:
      MissingExtra: the package ray is not installed.
      ResourceError: Ray gave up on a task (its process died again and again); names the task.
      Exception: what ``function`` raised, with its own type and message.
    """
    with connected(workers, address) as ray:
        remote = ray.remote(num_cpus=1, max_retries=3)(_apply)
        held = ray.put(function)  # once: it may hold a model
        waiting: deque[tuple[Task, Any]] = deque()
        try:
            for task in tasks:
                waiting.append((task, remote.remote(held, task)))
                if len(waiting) == 2 * max(1, workers):
                    yield _result(ray, *waiting.popleft())
            while waiting:
                yield _result(ray, *waiting.popleft())
        finally:
            for _, reference in waiting:
                ray.cancel(reference, force=True)


def _apply(function: Callable[[Any], Any], task: Any) -> Any:  # noqa: ANN401 - any task and result
    return function(task)


@contextmanager
def connected(workers: int, address: str | None = None) -> Iterator[Any]:
    """Give the module ``ray``, connected: what runs inside shares one cluster.

    Joins the cluster at ``address`` (Ray itself reads RAY_ADDRESS where it is None) or the one this process is
    connected to; else starts one on this machine, and stops it at the end.

    Args:
      workers: CPUs of a cluster that is started here.
      address: "host:port" of a cluster.

    Raises:
      MissingExtra: the package ray is not installed.
      ResourceError: the cluster cannot be reached or started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import: nothing is sent anywhere
    try:
        import ray
    except ImportError as error:
        raise MissingExtra(
            "the engine 'ray' needs the package ray. Install tamis[ray], or use --engine local."
        ) from error
    if ray.is_initialized():
        yield ray
        return
    joins = address or os.environ.get("RAY_ADDRESS")
    local = {} if joins else {"num_cpus": max(1, workers), "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, **local)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"the Ray cluster at {joins}" if joins else "a Ray cluster on this machine"
        raise ResourceError(f"cannot use {where}: {error}. Check the address, or use --engine local.") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _result(ray: Any, task: object, reference: Any) -> Any:  # noqa: ANN401 - a module, a reference, any result
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise ResourceError(
            f"task {task!s:.300}: Ray lost it ({type(error).__name__}: {error!s:.200}). "
            "Free some memory or use fewer workers, then run the same command again."
        ) from error
