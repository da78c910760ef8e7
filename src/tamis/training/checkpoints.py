"""Checkpoints: weights, optimiser state and metrics of a run, each a verified folder, so that a killed run goes on.

Source: tamis design. No pickle: tensors are safetensors, the rest JSON.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tamis.data import artefact, durable
from tamis.errors import ArtefactError

if TYPE_CHECKING:
    from torch import nn, optim

_KIND = "checkpoint"
_KEPT = 2
"""Checkpoints that stay: where the last one is damaged, the one before it is used."""
_NAME_CHARS = 16


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in a subfolder that its fingerprint names: those of other runs are left alone.

    Attributes:
      root: where runs keep theirs; made when the first is written.
      fingerprint: of everything that determines the run.
    """

    root: Path
    fingerprint: str

    @property
    def folder(self) -> Path:
        """Where this run's checkpoints are."""
        return self.root / self.fingerprint[:_NAME_CHARS]

    def save(self, step: int, module: "nn.Module", optimizer: "optim.Optimizer", metrics: list[dict[str, Any]]) -> None:
        """Write a checkpoint after ``step`` steps, then remove all but the last two. O(bytes of weights x 3)."""
        from safetensors.torch import save

        durable.make_folder(self.folder)
        settings = {"run": self.fingerprint, "step": step}
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
        states, scalars = _flat(optimizer)
        target = self.folder / f"step-{step:08d}"
        with artefact.stage(target, _KIND, settings=settings, inputs={}, seed=0) as staging:
            staging.write_bytes("weights.safetensors", save(weights))
            staging.write_bytes("optimizer.safetensors", save(states))
            facts = {"step": step, "scalars": scalars, "metrics": metrics}
            staging.write_bytes("state.json", orjson.dumps(facts, option=orjson.OPT_SERIALIZE_NUMPY))
            staging.counts["step"] = step
        for old in self._steps()[:-_KEPT]:
            durable.remove(old)

    def restore(self, module: "nn.Module", optimizer: "optim.Optimizer") -> tuple[int, list[dict[str, Any]], list[str]]:
        """Put back the last whole checkpoint of this run.

        Returns:
          Steps done (0 without a checkpoint), the metrics until then, and why later checkpoints were not used.
        """
        refused: list[str] = []
        for folder in reversed(self._steps()):
            try:
                manifest = artefact.open_verified(folder, _KIND)
                if manifest.settings.get("run") != self.fingerprint:
                    raise ArtefactError(f"{folder}: of another run.")
                facts = self._put_back(folder, module, optimizer)
            except ArtefactError as error:
                refused.append(str(error))
                continue
            return int(facts["step"]), list(facts["metrics"]), refused
        return 0, [], refused

    def _put_back(self, folder: Path, module: "nn.Module", optimizer: "optim.Optimizer") -> dict[str, Any]:
        """Load a verified checkpoint; nothing is changed where it does not fit the model."""
        from safetensors.torch import load

        weights = load((folder / "weights.safetensors").read_bytes())
        shapes = {name: value.shape for name, value in module.state_dict().items()}
        if {name: value.shape for name, value in weights.items()} != shapes:
            raise ArtefactError(f"{folder}: weights of another model.")
        facts: dict[str, Any] = orjson.loads((folder / "state.json").read_bytes())
        module.load_state_dict(weights)
        _unflat(optimizer, load((folder / "optimizer.safetensors").read_bytes()), facts["scalars"])
        return facts

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-[0-9]*"))


def _flat(optimizer: "optim.Optimizer") -> tuple[dict[str, Any], dict[str, float]]:
    """Return the optimiser's tensors by "parameter number.name", and its numbers."""
    import torch

    tensors, scalars = {}, {}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.dim():
                tensors[f"{number}.{name}"] = value.detach().cpu().contiguous().clone()
            else:
                scalars[f"{number}.{name}"] = float(value)
    return tensors, dict(sorted(scalars.items()))  # sorted: a restored optimiser holds its state in another order


def _unflat(optimizer: "optim.Optimizer", tensors: dict[str, Any], scalars: dict[str, float]) -> None:
    import torch

    state: dict[int, dict[str, Any]] = {}
    for key, value in (tensors | {name: torch.tensor(number) for name, number in scalars.items()}).items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
