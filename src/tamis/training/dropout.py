"""Dropout on the CPU at the price of a copy: the same distribution as torch's, drawn by counter instead of in turn.

Source: Srivastava et al. 2014, Dropout, JMLR 15; counters by splitmix64 after Steele, Lea, Flood 2014. torch draws its
masks one number after another on one core, which costs as much as the layer's matrix products.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from torch import Tensor

_LANES = 4
_LEAST_BLOCKS = 1 << 14
"""Draws below which another thread costs more than it gives."""
_ONE = np.uint64(1)
_LANE_BITS, _LANE_MASK = np.uint64(16), np.uint64(0xFFFF)
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@njit(cache=True, nogil=True)
def _thin(values, out, first, seed, threshold, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write values * scale, or 0 where 16 bits of (seed, place) are below the threshold; four places a draw."""
    for block in range((len(values) + _LANES - 1) // _LANES):
        z = seed + (np.uint64(first + block) + _ONE) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        z ^= z >> np.uint64(31)
        start = block * _LANES
        for lane in range(min(_LANES, len(values) - start)):
            bits = (z >> (np.uint64(lane) * _LANE_BITS)) & _LANE_MASK
            out[start + lane] = values[start + lane] * scale if bits >= threshold else np.float32(0)


def thinned(values: np.ndarray, *, frac: float, seed: int, num_threads: int = 1) -> np.ndarray:
    """Return float32 values of the same shape, each 0 with probability ``frac`` and else divided by 1 - frac.

    Args:
      values: float32, any shape, contiguous.
      frac: below 1, to the nearest 1 / 65,536.
      seed: which places are 0 depends on it and on the place alone.
      num_threads: that share the work.
    """
    threshold = round(frac * 65_536)
    scale = np.float32(65_536 / (65_536 - threshold))  # of the rounded share, so that the mean stays
    out = np.empty_like(values)
    flat, target, key, least = values.reshape(-1), out.reshape(-1), np.uint64(seed), np.uint64(threshold)

    def part(start: int) -> None:
        stop = start + size * _LANES
        _thin(flat[start:stop], target[start:stop], start // _LANES, key, least, scale)

    size = max(_LEAST_BLOCKS, -(-len(flat) // (_LANES * num_threads)))
    starts = range(0, len(flat), size * _LANES)
    if len(starts) > 1:
        list(_pool(num_threads).map(part, starts))
    elif starts:
        part(0)
    return out


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, "tamis-dropout")


def counted_dropout() -> AbstractContextManager[None]:
    """Return a context in which dropout of float32 tensors on the CPU is drawn by counter.

    It holds for `torch.nn.functional.dropout` and for the dropout of `scaled_dot_product_attention`. The first seed
    comes from torch's generator, so that `torch.manual_seed` decides it as ever. No mask is kept for the gradient.
    """
    import torch

    found: AbstractContextManager[None] = _mode()(int(torch.randint(1 << 62, ())))
    return found


@cache
def _mode() -> Any:  # noqa: ANN401 - a class over torch's own
    import torch
    from torch.overrides import TorchFunctionMode

    def dropped(values: "Tensor", frac: float, seed: int) -> "Tensor":
        array = values.contiguous().numpy()
        return torch.from_numpy(thinned(array, frac=frac, seed=seed, num_threads=torch.get_num_threads()))

    class Dropped(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, values: "Tensor", frac: float, seed: int) -> "Tensor":  # noqa: ANN401
            context.drawn = frac, seed
            return dropped(values.detach(), frac, seed)

        @staticmethod
        def backward(context: Any, slope: "Tensor") -> "tuple[Tensor, None, None]":  # noqa: ANN401
            frac, seed = context.drawn
            return dropped(slope, frac, seed), None, None

    class CountedDropout(TorchFunctionMode):  # type: ignore[misc]
        def __init__(self, seed: int) -> None:
            super().__init__()
            self._seed = seed

        def _drop(self, values: "Tensor", frac: float) -> "Tensor":
            self._seed += 1  # splitmix64 takes neighbouring seeds apart
            mixed = (self._seed * 0xD1342543DE82EF95) & (2**64 - 1)
            found: Tensor = Dropped.apply(values, frac, mixed)
            return found

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            kwargs = kwargs or {}
            if func is torch.nn.functional.dropout:
                values, frac, training, in_place = _named(("input", "p", "training", "inplace"), args, kwargs)
                if training is not False and not in_place and _is_ours(values, 0.5 if frac is None else frac):
                    return self._drop(values, 0.5 if frac is None else frac)
            if func is torch.nn.functional.scaled_dot_product_attention:
                names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
                query, key, value, mask, frac, causal = _named(names, args, kwargs)
                plain = not causal and not kwargs.get("enable_gqa")
                if plain and _is_ours(query, frac or 0.0):
                    share = _shares(query, key, mask, kwargs.get("scale"))
                    return self._drop(share, frac) @ value
            return func(*args, **kwargs)

    return CountedDropout


def _named(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return arguments by name, whether they were given by place or by name; None where they were not."""
    return [args[at] if at < len(args) else kwargs.get(name) for at, name in enumerate(names)]


def _is_ours(values: "Tensor", frac: float) -> bool:
    import torch

    return 0 < frac < 1 and values.device.type == "cpu" and values.dtype == torch.float32 and values.numel() > 0


def _shares(query: "Tensor", key: "Tensor", mask: "Tensor | None", scale: float | None) -> "Tensor":
    """Return the softmax of attention, [..., L, L]; a place that may look nowhere looks everywhere."""
    import torch

    scores = (query * (scale or 1 / math.sqrt(query.shape[-1]))) @ key.transpose(-2, -1)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(dim=-1)
