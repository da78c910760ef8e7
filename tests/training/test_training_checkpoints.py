"""Checkpoints: what is damaged is refused by name and the one before it is used; other runs' are left alone."""

import pytest
import torch
import training_job
from crash_kit import exhaustive_crashes
from test_training_loop import FAST, Line, without_seconds

from tamis.data import artefact
from tamis.training.checkpoints import Checkpoints
from tamis.training.loop import train

FILES = ["manifest.json", "weights.safetensors", "optimizer.safetensors", "state.json"]


def half_done(folder, steps=8):
    with pytest.raises(RuntimeError):
        train(Line(fail_at=steps), FAST, folder=folder, fingerprint="run-one", every=2)
    return sorted((folder / "checkpoints" / "run-one").iterdir())


@pytest.fixture(scope="module")
def whole():
    task = Line()
    return task, without_seconds(train(task, FAST).metrics)


def test_the_last_two_stay_and_are_whole(tmp_path):
    left = half_done(tmp_path)
    assert [path.name for path in left] == ["step-00000006", "step-00000008"]
    for path in left:
        assert artefact.open_verified(path, "checkpoint").settings["run"] == "run-one"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "cut", "changed", "empty"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_used(tmp_path, whole, name, harm):
    last = half_done(tmp_path)[-1] / name
    data = last.read_bytes()
    middle = len(data) // 2
    last.unlink()
    if harm != "missing":
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        last.write_bytes({"cut": data[:middle], "empty": b"", "changed": changed}[harm])
    again = Line()
    run = train(again, FAST, folder=tmp_path, fingerprint="run-one", every=2)
    assert run.resumed_at == 6
    assert len(run.refused) == 1 and name in run.refused[0] and "step-00000008" in run.refused[0]
    assert without_seconds(run.metrics) == whole[1]
    assert torch.equal(again.module["body"].weight, whole[0].module["body"].weight)


def test_all_damaged_begins_anew(tmp_path, whole):
    for folder in half_done(tmp_path):
        (folder / "weights.safetensors").write_bytes(b"x")
    run = train(Line(), FAST, folder=tmp_path, fingerprint="run-one", every=2)
    assert run.resumed_at == 0 and len(run.refused) == 2
    assert without_seconds(run.metrics) == whole[1]


def test_another_runs_checkpoints_are_neither_used_nor_removed(tmp_path):
    mine = half_done(tmp_path)
    other = train(Line(), FAST, folder=tmp_path, fingerprint="run-two", every=2)
    assert other.resumed_at == 0 and not other.refused
    assert all(path.is_dir() for path in mine)
    assert train(Line(), FAST, folder=tmp_path, fingerprint="run-one", every=2).resumed_at == 8


def test_names_that_begin_alike_are_told_apart(tmp_path):
    long = "0123456789abcdef"
    train(Line(), FAST, folder=tmp_path, fingerprint=long + "1")
    run = train(Line(), FAST, folder=tmp_path, fingerprint=long + "2")
    assert run.resumed_at == 0 and "of another run" in run.refused[0]


def test_weights_of_another_model_change_nothing(tmp_path):
    task = Line()
    points = Checkpoints(tmp_path, "f")
    points.save(3, task.module, FAST.optimizer(task.module), [])
    wider = torch.nn.ModuleDict({"body": torch.nn.Linear(1, 1), "table": torch.nn.Embedding(4, 1)})
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    step, metrics, refused = points.restore(wider, FAST.optimizer(wider))
    assert (step, metrics) == (0, []) and "another model" in refused[0]
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items())


def test_killed_around_durable_operations_it_ends_in_the_same_bytes(tmp_path):
    assert exhaustive_crashes(training_job.work, tmp_path, stride=12) > 5


@pytest.mark.slow
def test_killed_around_every_durable_operation_it_ends_in_the_same_bytes(tmp_path):
    assert exhaustive_crashes(training_job.work, tmp_path) > 50
