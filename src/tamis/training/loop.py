"""The training loop: steps in an order that the seed alone gives, checkpoints, metrics, and a stop when it diverges.

Source: tamis design (training engine); AdamW: Loshchilov, Hutter 2019, arXiv:1711.05101.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import orjson
from pydantic import Field

from tamis.data import durable
from tamis.data.settings import Settings
from tamis.errors import TrainingError, UsageError
from tamis.training.checkpoints import Checkpoints
from tamis.training.schedule import Schedule
from tamis.training.step import device_of, place_in

if TYPE_CHECKING:
    from torch import nn, optim

METRICS = "metrics.jsonl"
_DIVERGED = 4.0
"""A smoothed loss this many times the best so far, and above the first one, stops the run."""
_SMOOTH = 0.9
_WARM_STEPS = 20
_TINY = 1e-3
"""A loss that fell this low may bounce."""

Share = Annotated[float, Field(ge=0, lt=1)]


class Task(Protocol):
    """What is trained: a module and the gradient of each step."""

    @property
    def module(self) -> "nn.Module":
        """The weights."""

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""

    def backward(self, step: int) -> dict[str, float]:
        """Add the gradient of a step to the weights, the same for the same step; tell "loss" and what else there is."""


class Optimize(Settings):
    """AdamW and its schedule.

    Attributes:
      schedule: of the learning rate.
      weight_decay: of weight matrices; biases, norms and embedding tables have none.
      betas: of the moments.
      max_norm: gradients are scaled down to this norm; None for no limit.
      rates: parts of parameter names and the factor of their learning rate, the first that fits; 0 freezes them.
    """

    schedule: Schedule = Schedule()
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Share, Share] = (0.9, 0.999)
    max_norm: Annotated[float, Field(gt=0)] | None = 1.0
    rates: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    def optimizer(self, module: "nn.Module") -> "optim.Optimizer":
        """Return AdamW over groups of parameters by decay and rate; what is frozen stays so.

        Raises:
          UsageError: a part of ``rates`` is in no parameter's name, or nothing is left to train.
        """
        from torch import nn, optim

        named = list(module.named_parameters())
        unknown = [part for part in self.rates if not any(part in name for name, _ in named)]
        if unknown:
            raise UsageError(f"rates: no parameter's name holds {unknown[0]!r} (such as {named[0][0]!r}).")
        tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
        groups: dict[tuple[float, float], list[Any]] = {}
        for name, parameter in named:
            factor = next((rate for part, rate in self.rates.items() if part in name), 1.0)
            if not factor:
                parameter.requires_grad_(requires_grad=False)
            if parameter.requires_grad:
                decay = self.weight_decay if parameter.dim() > 1 and id(parameter) not in tables else 0.0
                groups.setdefault((decay, factor), []).append(parameter)
        if not groups:
            raise UsageError("nothing to train: every parameter is frozen. Leave some out of rates.")
        made = [{"params": params, "weight_decay": d, "factor": f} for (d, f), params in groups.items()]
        return optim.AdamW(made, lr=self.schedule.peak, betas=self.betas, fused=True)


@dataclass
class Trained:
    """A finished run.

    Attributes:
      metrics: one row a step: step, loss, rate, norm, seconds, and what the task tells.
      resumed_at: steps that an earlier call had done.
      refused: why checkpoints later than that were not used, each with its file.
    """

    metrics: list[dict[str, Any]] = field(default_factory=list)
    resumed_at: int = 0
    refused: list[str] = field(default_factory=list)


def train(
    task: Task,
    optimize: Optimize,
    *,
    folder: Path | None = None,
    fingerprint: str = "",
    every: int = 100,
    report: Callable[[dict[str, Any]], None] | None = None,
    group: object | None = None,
) -> Trained:
    """Run all steps of a task; with a folder, go on from its last whole checkpoint.

    torch's global generator is left as it was.

    Args:
      task: what is trained.
      optimize: optimiser and schedule.
      folder: checkpoints/ and metrics.jsonl, written at every checkpoint and however the run ends; None keeps nothing.
        The last checkpoint holds the result, so that a call for a finished run returns at once; remove the folder
        when the result is saved elsewhere.
      fingerprint: of everything that determines the run; checkpoints of another one are not used. Needed with folder.
      every: steps from one checkpoint to the next.
      report: called with the metrics of every step, for progress and trackers; by the first process alone.
      group: of `torch.distributed`; the gradients of all processes are summed. They share the folder.

    Raises:
      TrainingError: the loss or a gradient is not finite, or the loss diverges; names the step.
      UsageError: a folder without fingerprint, or processes that find different checkpoints.
      ResourceError: the disk refused.
    """
    if folder is not None and not fingerprint:
        raise UsageError("checkpoints need a fingerprint of the run, so that no other run goes on with them.")
    optimizer = optimize.optimizer(task.module)
    points = Checkpoints(folder / "checkpoints", fingerprint) if folder is not None else None
    run = Trained()
    if points is not None:
        run.resumed_at, run.metrics, run.refused = points.restore(task.module, optimizer)
    is_first = _agree(run.resumed_at, group)
    try:
        with _seeded_elsewhere():
            for row in _steps(task, optimize, optimizer, run, group):
                if report is not None and is_first:
                    report(row)
                done = row["step"] + 1
                if points is not None and is_first and (done % every == 0 or done == task.num_steps):
                    points.save(done, task.module, optimizer, run.metrics)
                    write_metrics(points.root.parent, run.metrics)  # a kill loses what the checkpoint loses, no more
    finally:
        task.module.eval()
        if folder is not None and is_first:
            write_metrics(folder, run.metrics)
    return run


def _steps(
    task: Task, optimize: Optimize, optimizer: "optim.Optimizer", run: Trained, group: object | None
) -> Iterator[dict[str, Any]]:
    """Do one step after another and yield its metrics."""
    watch = _Watch(run.metrics)
    task.module.train()
    for step in range(run.resumed_at, task.num_steps):
        started = time.perf_counter()
        rate = optimize.schedule.rate(step, task.num_steps)
        for part in optimizer.param_groups:
            part["lr"] = rate * part["factor"]
        optimizer.zero_grad(set_to_none=True)
        told = task.backward(step)
        norm = _gradient_norm(task.module, optimize.max_norm, group)
        watch.check(step, told["loss"], norm)
        optimizer.step()
        row = {"step": step, **told, "rate": rate, "norm": norm, "seconds": round(time.perf_counter() - started, 4)}
        run.metrics.append(row)
        yield row


def write_metrics(folder: Path, metrics: Sequence[dict[str, Any]]) -> None:
    """Write metrics.jsonl, one line a step."""
    durable.make_folder(folder)
    lines = b"".join(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n" for row in metrics)
    durable.write_bytes(folder / METRICS, lines)


class _Watch:
    """Stops a run whose loss is no number, or leaves for good."""

    def __init__(self, metrics: Sequence[dict[str, Any]]) -> None:
        self._smooth = self._best = math.inf
        self._first: list[float] = []
        for row in metrics:
            self.check(row["step"], row["loss"], row["norm"])

    def check(self, step: int, loss: float, norm: float) -> None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise TrainingError(
                f"step {step}: the {what} is not finite. Lower the learning rate, or train in float32 (precision)."
            )
        self._smooth = loss if math.isinf(self._smooth) else _SMOOTH * self._smooth + (1 - _SMOOTH) * loss
        if len(self._first) < _WARM_STEPS:
            self._first.append(loss)
        self._best = min(self._best, self._smooth)
        start = sum(self._first) / len(self._first)
        if step > 2 * _WARM_STEPS and self._smooth > start and self._smooth > _DIVERGED * max(self._best, _TINY):
            raise TrainingError(
                f"step {step}: the loss diverges ({self._smooth:.3g} from {start:.3g} at the start, "
                f"{self._best:.3g} at best). Lower the learning rate or raise the warm-up."
            )


@contextmanager
def _seeded_elsewhere() -> Iterator[None]:
    """Put torch's generators back at the end: steps seed them."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


def _agree(resumed_at: int, group: object | None) -> bool:
    """Return whether this process is the first; refuse processes that would begin at different steps."""
    if group is None:
        return True
    import torch
    from torch import distributed

    both = torch.tensor([resumed_at, -resumed_at], device=device_of(group))
    distributed.all_reduce(both, op=distributed.ReduceOp.MAX, group=group)
    last, first = int(both[0]), -int(both[1])
    if last != first:
        raise UsageError(f"one process would go on at step {first}, another at {last}. Let them share one folder.")
    return place_in(group)[0] == 0


def _gradient_norm(module: "nn.Module", max_norm: float | None, group: object | None) -> float:
    """Sum gradients over processes, scale them down to a norm and return the norm they had."""
    import torch

    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if group is not None:
        from torch import distributed

        has = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
        has = has.to(device_of(group))
        distributed.all_reduce(has, op=distributed.ReduceOp.MAX, group=group)
        # What no process has a gradient of stays without: the optimiser passes it over, as in one process.
        for parameter in (p for p, there in zip(parameters, has.tolist(), strict=True) if there):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad, group=group)
    norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm)
    return float(norm)
