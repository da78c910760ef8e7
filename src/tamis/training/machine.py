"""What this machine computes fastest, and which processes compute together.

Source: tamis design (training engine): measured, not guessed; matrix units that bfloat16 needs are not everywhere.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
_SIZE, _REPEATS, _WORTH = 768, 5, 1.3


@dataclass(frozen=True)
class Machine:
    """How to compute here.

    Attributes:
      device: "cpu" or "cuda".
      precision: of matrix products; sums, norms and losses are float32 always.
      why: the decision in words.
    """

    device: str
    precision: Precision
    why: str = "as given"


@lru_cache(maxsize=1)
def probe() -> Machine:
    """Time a matrix product in both precisions, once a process; about .1 s."""
    import torch

    if torch.cuda.is_available():
        precise: Precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        return Machine("cuda", precise, torch.cuda.get_device_name())
    seconds = {dtype: _time(dtype) for dtype in (torch.float32, torch.bfloat16)}
    gain = seconds[torch.float32] / seconds[torch.bfloat16]
    told = f"a product in bfloat16 is {gain:.1f} x as fast as in float32"
    return Machine("cpu", "bfloat16" if gain >= _WORTH else "float32", told)


@contextmanager
def processes() -> Iterator[object | None]:
    """Join the processes that torchrun started, and leave them at the end where this call has joined.

    Yields:
      The group of all of them; None where RANK and WORLD_SIZE say that this one is alone, or nothing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield None
        return
    import torch
    from torch import distributed

    joins = not distributed.is_initialized()
    if joins:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield distributed.group.WORLD
    finally:
        if joins:
            distributed.destroy_process_group()


def _time(dtype: "torch.dtype") -> float:
    """Return the least seconds of some products."""
    import torch

    left, right = (torch.ones(_SIZE, _SIZE, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return best
