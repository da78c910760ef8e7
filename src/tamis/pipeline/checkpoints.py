"""Checkpoints: an engine whose results are kept shard by shard, so that a killed run goes on where it was.

Source: tamis design (engines; card K1). No pickle: results are dataclasses, arrays and tables, laid out flat.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from tamis.errors import ArtefactError
from tamis.pipeline.shards import map_shards

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
_SCHEMA = pa.schema([("data", pa.large_binary())])


class Checkpointed:
    """Maps like the engine inside and keeps each result on the disk; the n-th call has the n-th folder."""

    def __init__(self, engine: Mapper, folder: Path, fingerprint: str) -> None:
        """Wrap an engine.

        Args:
          engine: where functions run.
          folder: of this job alone.
          fingerprint: of everything that determines the results.
        """
        self._engine, self._folder, self._fingerprint, self._num_calls = engine, folder, fingerprint, 0

    def __call__(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield ``function(task)`` for each task in order; shards that stand are read back."""
        folder = self._folder / f"pass-{self._num_calls}"
        self._num_calls += 1
        for table in map_shards(partial(_encoded, function), tasks, folder, self._fingerprint, self._engine):
            yield decode(table)


def _encoded(function: Callable[[Any], Any], task: Any) -> pa.Table:  # noqa: ANN401 - any task
    return encode(function(task))


def encode(value: Any) -> pa.Table:  # noqa: ANN401
    """Return a value of dataclasses of ours, arrays, Arrow arrays, tables and plain values as one table.

    Raises:
      TypeError: something else is in it.
    """
    buffers: list[Any] = []
    tree = _tree(value, buffers)
    return pa.table({"data": pa.array([orjson.dumps(tree), *buffers], pa.large_binary())}, schema=_SCHEMA)


def decode(table: pa.Table) -> Any:  # noqa: ANN401
    """Return the value that `encode` was given.

    Raises:
      ArtefactError: no such table.
    """
    rows = [row.as_buffer() for row in table["data"]]
    try:
        return _value(orjson.loads(rows[0].to_pybytes()), rows[1:])
    except (KeyError, IndexError, ValueError, AttributeError, ImportError, TypeError) as error:
        raise ArtefactError(f"a shard cannot be read back ({error}). Remove the folder .scratch, run again.") from error


def _tree(value: Any, buffers: list[Any]) -> Any:  # noqa: ANN401
    """Return the JSON form of a value; what is large goes to ``buffers``."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return {"int": str(int(value))}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, np.ndarray):
        buffers.append(np.ascontiguousarray(value).tobytes())
        return {"array": [value.dtype.str, list(value.shape), len(buffers) - 1]}
    if isinstance(value, pa.ChunkedArray | pa.Array | pa.Table):
        table = value if isinstance(value, pa.Table) else pa.table({"": value})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        buffers.append(sink.getvalue().to_pybytes())
        kind = "table" if isinstance(value, pa.Table) else "chunks" if isinstance(value, pa.ChunkedArray) else "column"
        return {kind: len(buffers) - 1}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": [_tree(item, buffers) for item in value]}
    if is_dataclass(value) and type(value).__module__.startswith("tamis."):
        name = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"class": name, "fields": {f.name: _tree(getattr(value, f.name), buffers) for f in fields(value)}}
    raise TypeError(f"a result of type {type(value).__name__} cannot be kept between runs")


def _value(tree: Any, buffers: list[Any]) -> Any:  # noqa: ANN401
    if not isinstance(tree, dict):
        return tree
    if "class" in tree:
        module, name = tree["class"].split(":")
        if not module.startswith("tamis."):
            raise ValueError(f"class {tree['class']!r} is not ours")
        return getattr(import_module(module), name)(**{k: _value(v, buffers) for k, v in tree["fields"].items()})
    ((kind, held),) = tree.items()
    if kind == "int":
        return int(held)
    if kind == "float":
        return float.fromhex(held)
    if kind == "array":
        return np.frombuffer(buffers[held[2]], np.dtype(held[0])).reshape(held[1])
    if kind in ("list", "tuple"):
        found = [_value(item, buffers) for item in held]
        return tuple(found) if kind == "tuple" else found
    table = pa.ipc.open_stream(buffers[held]).read_all()
    if kind == "table":
        return table
    return table.column(0) if kind == "chunks" else table.column(0).combine_chunks()
