"""The loop: schedule, groups of parameters, metrics, tracking, stops; and going on at any step, killed or not."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tamis.errors import RecipeError, TrainingError, UsageError
from tamis.training.loop import Optimize, train
from tamis.training.schedule import Schedule

FAST = Optimize(schedule=Schedule(peak=0.05, warmup_frac=0))


def test_schedule_by_hand():
    """The card's numbers: w = 10, T = 100, from 1e-4 to 1e-5 by cosine."""
    plan = Schedule(peak=1e-4, warmup_frac=0.1, shape="cosine", final_frac=0.1)
    assert plan.rate(5, 100) == pytest.approx(5e-5)
    assert plan.rate(10, 100) == pytest.approx(1e-4)
    assert plan.rate(55, 100) == pytest.approx(5.5e-5)
    assert plan.rate(100, 100) == pytest.approx(1e-5)
    line = Schedule(peak=1.0, warmup_frac=0.25)
    assert [line.rate(step, 8) for step in range(9)] == pytest.approx([0, 0.5, 1, 5 / 6, 4 / 6, 0.5, 2 / 6, 1 / 6, 0])
    assert [Schedule(peak=0.5, shape="constant", warmup_frac=0).rate(s, 3) for s in range(3)] == [0.5] * 3


@given(st.sampled_from(["linear", "cosine", "constant"]), st.floats(0, 1), st.floats(0, 1), st.integers(1, 300))
def test_schedule_is_continuous_and_bounded(shape, warmup_frac, final_frac, num_steps):
    plan = Schedule(peak=0.5, warmup_frac=warmup_frac, shape=shape, final_frac=final_frac)
    warm = round(warmup_frac * num_steps)
    rates = [plan.rate(step, num_steps) for step in range(num_steps + 1)]
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert all(b >= a for a, b in pairwise(rates[: warm + 1]))
    assert all(b <= a + 1e-12 for a, b in pairwise(rates[warm:]))
    if warm:
        assert plan.rate(warm - 1e-9, num_steps) == pytest.approx(plan.rate(warm, num_steps), abs=1e-6)


def test_schedule_is_that_of_transformers():
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, 5, 50)
    ours = Schedule(peak=1.0, warmup_frac=0.1)
    for step in range(50):
        assert ours.rate(step, 50) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


class Line:
    """Fit y = 2 x - 1 with a layer and a table; a step's data come from its number. May fail or die in a step."""

    def __init__(self, num_steps=12, *, fail_at=None, die_at=None, loss=None):
        torch.manual_seed(0)
        self.module = torch.nn.ModuleDict({"body": torch.nn.Linear(1, 1), "table": torch.nn.Embedding(3, 1)})
        self.num_steps, self.fail_at, self.die_at, self.loss = num_steps, fail_at, die_at, loss

    def backward(self, step):
        if step == self.fail_at:
            raise RuntimeError(f"struck in step {step}")
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        torch.manual_seed(step)
        x = torch.randn(8, 1)
        loss = ((self.module["body"](x) + self.module["table"](torch.tensor([step % 3])) - 2 * x + 1) ** 2).mean()
        loss.backward()
        return {"loss": self.loss(step) if self.loss else float(loss.detach()), "extra": step}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_seconds(metrics):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in metrics]


def test_loss_falls_and_every_step_is_told(tmp_path):
    told = []
    task = Line(120)
    run = train(task, FAST, folder=tmp_path, fingerprint="f", report=told.append)
    assert run.metrics[-1]["loss"] < 0.2 * run.metrics[0]["loss"]
    assert [row["step"] for row in run.metrics] == list(range(120))
    assert set(run.metrics[0]) == {"step", "loss", "extra", "rate", "norm", "seconds"}
    assert told == run.metrics == rows(tmp_path / "metrics.jsonl")
    assert not task.module.training


def test_the_global_generator_is_left_alone():
    task = Line()
    torch.manual_seed(123)
    before = torch.get_rng_state()
    train(task, FAST)
    assert torch.equal(before, torch.get_rng_state())


def test_decay_rates_and_frozen_parts():
    module = Line().module
    frozen = module["body"].bias.requires_grad_(False)
    groups = Optimize(weight_decay=0.5, rates={"table": 0.1}).optimizer(module).param_groups
    found = {id(p): (g["weight_decay"], g["factor"]) for g in groups for p in g["params"]}
    assert found == {id(module["body"].weight): (0.5, 1.0), id(module["table"].weight): (0.0, 0.1)}
    assert not frozen.requires_grad
    task = Line()
    before = {n: p.clone() for n, p in task.module.named_parameters()}
    train(task, Optimize(schedule=FAST.schedule, rates={"body": 0}))
    changed = {n: not torch.equal(p, before[n]) for n, p in task.module.named_parameters()}
    assert changed == {"body.weight": False, "body.bias": False, "table.weight": True}


def test_settings_that_cannot_be_meant():
    with pytest.raises(UsageError, match="holds 'tail'"):
        train(Line(), Optimize(rates={"tail": 0.5}))
    with pytest.raises(UsageError, match="every parameter is frozen"):
        train(Line(), Optimize(rates={"": 0}))
    with pytest.raises(RecipeError, match="less than 1"):
        Optimize(betas=(0.9, 1.0))
    with pytest.raises(RecipeError, match="greater than or equal"):
        Optimize(rates={"body": -1})


def test_a_folder_needs_a_fingerprint(tmp_path):
    with pytest.raises(UsageError, match="fingerprint"):
        train(Line(), FAST, folder=tmp_path)


def test_norms_are_cut():
    long = train(Line(1), Optimize(schedule=FAST.schedule, max_norm=None)).metrics[0]["norm"]
    task = Line(1)
    seen = []
    backward = task.backward
    task.backward = lambda step: (backward(step), seen.append(step))[0]
    run = train(task, Optimize(schedule=FAST.schedule, max_norm=0.25))
    assert run.metrics[0]["norm"] == pytest.approx(long) and long > 0.25
    assert sum(float((p.grad**2).sum()) for p in task.module.parameters()) ** 0.5 == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_the_step(tmp_path, what):
    task = Line(loss=lambda step: what if step == 5 else 1.0)
    weights = []
    plain = task.backward
    task.backward = lambda step: (weights.append(task.module["body"].weight.detach().clone()), plain(step))[1]
    with pytest.raises(TrainingError, match="step 5: the loss is not finite"):
        train(task, FAST, folder=tmp_path, fingerprint="f", every=2)
    assert torch.equal(weights[-1], task.module["body"].weight)
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == list(range(5))


def test_a_gradient_that_is_no_number_stops():
    task = Line()
    plain = task.backward

    def poisoned(step):
        told = plain(step)
        task.module["body"].weight.grad[:] = math.nan if step == 3 else 0
        return told

    task.backward = poisoned
    with pytest.raises(TrainingError, match="step 3: the gradient is not finite"):
        train(task, FAST)


def test_a_loss_that_leaves_for_good_stops():
    with pytest.raises(TrainingError, match=r"the loss diverges .* Lower the learning rate"):
        train(Line(200, loss=lambda step: 1.0 if step < 60 else 1.1 ** (step - 60)), FAST)
    bounces = train(Line(200, loss=lambda step: 1.0 + (step % 7 == 0)), FAST)  # noise alone stops nothing
    assert len(bounces.metrics) == 200


@pytest.mark.parametrize("struck", range(12))
def test_struck_in_any_step_it_goes_on_to_the_same_bits(tmp_path, struck):
    whole = Line()
    expected = train(whole, FAST).metrics
    with pytest.raises(RuntimeError, match=f"struck in step {struck}"):
        train(Line(fail_at=struck), FAST, folder=tmp_path, fingerprint="f", every=3)
    assert len(rows(tmp_path / "metrics.jsonl")) == struck
    again = Line()
    run = train(again, FAST, folder=tmp_path, fingerprint="f", every=3)
    assert run.resumed_at == struck // 3 * 3 and not run.refused
    assert without_seconds(run.metrics) == without_seconds(expected)
    assert without_seconds(rows(tmp_path / "metrics.jsonl")) == without_seconds(expected)
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])
    done = Line(fail_at=0)
    finished = train(done, FAST, folder=tmp_path, fingerprint="f", every=3)
    assert finished.resumed_at == 12 and torch.equal(done.module["body"].weight, whole.module["body"].weight)


def test_killed_in_a_step_it_goes_on(tmp_path):
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_training_loop import FAST, Line
        from tamis.training.loop import train
        train(Line(die_at=7), FAST, folder=Path({str(tmp_path)!r}), fingerprint="f", every=3)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == list(range(6))
    whole, again = Line(), Line()
    train(whole, FAST)
    assert train(again, FAST, folder=tmp_path, fingerprint="f", every=3).resumed_at == 6
    assert torch.equal(again.module["body"].weight, whole.module["body"].weight)
