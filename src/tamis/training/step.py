"""One training step: texts in micro-batches sorted by length, one loss over all their vectors, constant memory.

Source: Gao et al. 2021, GradCache, arXiv:2101.06983 (a gradient by vectors first, then one by weights, part by part).
Sorting inside a batch is exact: a loss over vectors does not see in which order the texts were encoded.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tamis.ops.hashing import draws

if TYPE_CHECKING:
    from torch import Tensor

Encode = Callable[[np.ndarray], "Tensor"]
"""From rows int64 [m] of the step's texts to their vectors, a tensor [S, m, H] with a graph (S layers)."""
Loss = Callable[["Tensor"], "Tensor"]
"""From the vectors of all texts [S, n, H] to a scalar."""


@dataclass(frozen=True)
class Limits:
    """What is computed and held at a time; gradients do not depend on it.

    Attributes:
      micro_tokens: padded tokens of one micro-batch.
      held_bytes: activations that a step keeps for its gradient. The texts that do not fit are encoded twice, so
        that memory stays flat whatever the batch. The first micro-batch is kept always.
    """

    micro_tokens: int = 4096
    held_bytes: int = 4 << 30


def micro_batches(lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Cut rows into batches of similar length: sorted, each of at most ``max_tokens`` padded tokens or one text.

    Args:
      lengths: int64 [n] tokens of each text.
      max_tokens: texts of a batch times its longest.

    Returns:
      int64 rows, longest texts first (the first batch shows whether memory suffices); every row once.
    """
    order = np.lexsort((np.arange(len(lengths)), -lengths))
    batches, start = [], 0
    while start < len(order):
        size = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


def backward(
    encode: Encode, lengths: np.ndarray, loss: Loss, *, limits: Limits, seed: int, group: object | None = None
) -> float:
    """Add the gradient of ``loss(vectors of all texts)`` to the weights that ``encode`` uses.

    torch's generator is seeded anew before each encoding, by the seed and the number of the micro-batch: a second
    encoding repeats the dropout of the first, and processes that share a step draw what one would.

    Args:
      encode: makes the vectors of some texts.
      lengths: int64 [n] tokens of each text, n > 0.
      loss: of all vectors.
      limits: what is held at a time.
      seed: of this step.
      group: processes of `torch.distributed` that share the step: each encodes its part of the micro-batches and
        all see every vector, so that the gradients summed over processes are those of one.

    Returns:
      The loss.
    """
    batches = micro_batches(lengths, limits.micro_tokens)
    rank, num_ranks = place_in(group)
    mine = range(rank, len(batches), num_ranks)
    held: dict[int, Tensor] = {}
    found: dict[int, Tensor] = {}
    meter = _Meter(limits.held_bytes)
    for number in mine:
        with meter.watch():
            made = _encoded(encode, batches[number], seed, number)
        found[number] = made.detach()
        if made.requires_grad:
            held[number] = made
    vectors = _together(found, batches, group)
    value = loss(vectors)
    value.backward()
    slopes = vectors.grad
    if slopes is not None:
        for number in mine:
            # popped, so that its graph is freed before the next one is made
            made = held.pop(number) if number in held else _encoded(encode, batches[number], seed, number)
            made.backward(slopes[:, batches[number]])
    return float(value.detach())


def place_in(group: object | None) -> tuple[int, int]:
    """Return this process's number in a group of `torch.distributed`, and how many there are; (0, 1) without one."""
    if group is None:
        return 0, 1
    from torch import distributed

    return distributed.get_rank(group), distributed.get_world_size(group)


def device_of(group: object | None) -> str:
    """Return where tensors that a group exchanges have to be."""
    if group is None:
        return "cpu"
    from torch import distributed

    return "cuda" if distributed.get_backend(group) == "nccl" else "cpu"


class _Meter:
    """Counts the bytes that graphs hold and says when no further one fits."""

    def __init__(self, max_bytes: int) -> None:
        self._max, self._total, self._last = max_bytes, 0, 0
        self._seen: set[int] = set()

    def watch(self) -> "AbstractContextManager[object]":
        """Return the context of one encoding: with a graph, counted, or without one where it would not fit.

        Micro-batches come longest first, so that none holds more than the one before it.
        """
        import torch

        if self._total + self._last > self._max:
            return torch.no_grad()  # type: ignore[no-any-return]
        self._last = 0
        return torch.autograd.graph.saved_tensors_hooks(self._count, lambda saved: saved)  # type: ignore[no-any-return]

    def _count(self, saved: "Tensor") -> "Tensor":
        storage = saved.untyped_storage()
        if storage.data_ptr() not in self._seen:  # weights and views are one storage
            self._seen.add(storage.data_ptr())
            self._total += storage.nbytes()
            self._last += storage.nbytes()
        return saved.detach()


def _encoded(encode: Encode, rows: np.ndarray, seed: int, number: int) -> "Tensor":
    import torch

    torch.manual_seed(int(draws(np.array([number], np.uint64), seed, "step")[0] >> np.uint64(1)))
    return encode(rows).float()


def _together(found: "dict[int, Tensor]", batches: list[np.ndarray], group: object | None) -> "Tensor":
    """Return the vectors of all texts in their order, a leaf for the gradient; of all processes, on each of them."""
    import torch
    from torch import distributed

    lead = next(iter(found.values()), None)
    device = lead.device if lead is not None else device_of(group)
    shape = [0, 0] if lead is None else [*lead.shape[:-2], lead.shape[-1]]
    if group is not None:  # one that had no text learns the shape
        widest = torch.tensor(shape, device=device)
        distributed.all_reduce(widest, op=distributed.ReduceOp.MAX, group=group)
        shape = widest.tolist()
    vectors = torch.zeros(*shape[:-1], sum(map(len, batches)), shape[-1], device=device)
    for number, part in found.items():
        vectors[:, batches[number]] = part
    if group is not None:
        distributed.all_reduce(vectors, group=group)  # what is not one's own is 0
    return vectors.requires_grad_()
