"""The engine a step is given: what applies a function to tasks in order, and how documents become tasks.

Source: tamis design (method card K1). A step that takes an `Engine` runs on threads or on Ray, and its results can be
kept between runs, without knowing which: its functions are importable by name (`functools.partial` adds what they
need) and return dataclasses, arrays and tables.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, get_args

import pyarrow as pa

from tamis.engines.threads import map_threads
from tamis.errors import UsageError

Engine: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Applies a function to tasks and yields the results in their order: `map`, or the same over threads or machines."""
EngineName: TypeAlias = Literal["local", "ray"]


class _Batched(Protocol):
    def batches(self, columns: Sequence[str]) -> Iterable[pa.RecordBatch]:
        """Yield the documents in order."""


@contextmanager
def opened(name: EngineName, workers: int) -> Iterator[Engine]:
    """Give the engine of that name; a Ray cluster is joined or started once, for all that runs inside the context.

    Args:
      name: "local" for threads of this process, "ray" for a cluster (see `tamis.engines.ray.map_ray`).
      workers: tasks that run at the same time.

    Raises:
      UsageError: no such engine.
      MissingExtra: "ray" without the package ray.
      ResourceError: the cluster cannot be reached.
    """
    if name not in get_args(EngineName):
        raise UsageError(f"engine {name!r}: none of {', '.join(get_args(EngineName))}. Use local without a cluster.")
    if name == "local":
        yield partial(map_threads, workers=workers)
        return
    from tamis.engines.ray import connected, map_ray

    with connected(workers):
        yield partial(map_ray, workers=workers)


def tasks(documents: _Batched, columns: Sequence[str]) -> Iterable[Any]:
    """Return what an engine hands to workers: the pieces that a worker reads itself, or else batches.

    Both have a ``len``, in documents, and stand in the order of the documents.

    Args:
      documents: any; those with ``pieces()`` give them.
      columns: what a batch holds.
    """
    pieces = getattr(documents, "pieces", None)
    return pieces() if pieces is not None else documents.batches(columns)


def batches_of(task: Any, columns: Sequence[str]) -> Iterable[pa.RecordBatch]:  # noqa: ANN401 - a batch or a piece
    """Return the batches of one task with these columns; none for a piece without documents."""
    return (task.select(list(columns)),) if isinstance(task, pa.RecordBatch) else task.read(list(columns))
