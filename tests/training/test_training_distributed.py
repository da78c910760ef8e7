"""Two processes are one: the same loss curve, equal weights on every rank, one set of checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import training_ranks
from training_models import bert

from tamis.training.machine import processes

FREE_PORT = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
"""Asked by another process: this one opens no sockets."""
MANY, ONE = 64, 100_000
"""Tokens of a micro-batch: with the second a step has a single one, and the other process has nothing to encode."""


def start(out, model, sizes, *, stop=-1):
    """Start two processes as torchrun does; return the first one's exit code, the other ended once it has failed."""
    out.mkdir(exist_ok=True)
    port = subprocess.check_output([sys.executable, "-c", FREE_PORT], text=True).strip()
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, training_ranks.__file__, str(model), str(out), ",".join(map(str, sizes)), str(stop)]
    own = [{**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    workers = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE) for env in own]
    try:
        first = workers[0].wait(timeout=240)
        if first:
            workers[1].kill()
        told = [worker.communicate(timeout=60)[1].decode()[-2000:] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert first == (0 if stop < 0 else 9), told[0]
    assert first or not workers[1].returncode, told[1]
    return first


def told(out, rank, micro=MANY):
    resumed_at, metrics = json.loads((out / f"{rank}-{micro}.json").read_text())
    return resumed_at, [(row["loss"], row["norm"]) for row in metrics]


def weights(out, rank, micro=MANY):
    return np.frombuffer((out / f"{rank}-{micro}.bin").read_bytes(), np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("model") / "bert", dropout=0.2)


@pytest.fixture(scope="module")
def two(model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("two")
    start(out, model, (MANY, ONE))
    return out


@pytest.mark.parametrize("micro", [MANY, ONE], ids=["both work", "one has nothing to encode"])
def test_two_processes_have_the_losses_of_one(tmp_path, model, two, micro):
    training_ranks.finetune(model, tmp_path, micro)
    assert told(two, 0, micro) == told(two, 1, micro)
    assert np.array_equal(weights(two, 0, micro), weights(two, 1, micro))
    assert len(told(two, 0, micro)[1]) == 8
    assert np.allclose(told(two, 0, micro)[1], told(tmp_path, "alone", micro)[1], rtol=1e-4)
    assert np.abs(weights(two, 0, micro) - weights(tmp_path, "alone", micro)).max() < 1e-3


@pytest.mark.slow
def test_processes_that_died_go_on_together(tmp_path, model, two):
    out = tmp_path / "out"
    start(out, model, (MANY,), stop=4)
    start(out, model, (MANY,))
    assert told(out, 0)[0] == told(out, 1)[0] == 4
    assert told(out, 0)[1] == told(two, 0)[1]
    assert np.array_equal(weights(out, 1), weights(two, 0))


def test_nothing_is_joined_without_torchrun(monkeypatch):
    for environment in ({}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "4"}):
        for name in ("WORLD_SIZE", "RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with processes() as group:
            assert group is None
    assert not torch.distributed.is_initialized()
