"""One process of a run of several: `python training_ranks.py MODEL OUT MICRO[,MICRO] STOP`, in torchrun's environment."""

import json
import os
import sys
from pathlib import Path

import torch
from training_models import toy

from tamis.models import load_encoder
from tamis.training.finetune import contrastive
from tamis.training.loop import Optimize
from tamis.training.machine import Machine
from tamis.training.schedule import Schedule
from tamis.training.step import Limits


def finetune(model: Path, out: Path, micro_tokens: int, stop: int = -1) -> None:
    """Train, and write weights and metrics by rank; end the process after the step ``stop``."""

    def report(row):
        if row["step"] == stop:
            os._exit(9)

    settings = contrastive.Contrastive(
        batch_queries=6, epochs=2, checkpoint_steps=2, optimize=Optimize(schedule=Schedule(peak=0.02))
    )
    machine, folder, usual = Machine("cpu", "float32"), out / f"run-{micro_tokens}", contrastive.Limits
    contrastive.Limits = lambda: Limits(micro_tokens, 0)
    try:
        run = settings.finetune(load_encoder(model), *toy(20), seed=2, machine=machine, folder=folder, report=report)
    finally:
        contrastive.Limits = usual
    name = f"{os.environ.get('RANK', 'alone')}-{micro_tokens}"
    weights = b"".join(p.detach().numpy().tobytes() for p in run.encoder.model.parameters())
    (out / f"{name}.bin").write_bytes(weights)
    (out / f"{name}.json").write_text(json.dumps([run.resumed_at, run.metrics]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for size in sys.argv[3].split(","):
        finetune(Path(sys.argv[1]), Path(sys.argv[2]), int(size), int(sys.argv[4]))
