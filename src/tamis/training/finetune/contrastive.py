"""Contrastive fine-tuning: any objective over queries, their answers and mined negatives, in memory that stays flat.

Source: tamis design (training engine); the loop of Karpukhin et al. 2020, arXiv:2004.04906, under gradient caching,
Gao et al. 2021, arXiv:2101.06983.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tamis.data import Corpus, Qrels, Queries, Run, artefact
from tamis.data.settings import Settings
from tamis.errors import DataError, UsageError
from tamis.models import Encoder
from tamis.ops.hashing import draws, text_keys
from tamis.training.batching.random import RandomOrder
from tamis.training.finetune.pairs import Lists, TrainingPairs
from tamis.training.loop import Optimize, train
from tamis.training.machine import Machine, processes
from tamis.training.model import Model
from tamis.training.objectives.base import Batch, Objective
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.schedule import Schedule
from tamis.training.step import Limits, backward
from tamis.training.tokens import concat

if TYPE_CHECKING:
    from torch import Tensor, nn

Batches = Callable[[int, int, int], list[np.ndarray]]
"""batches(num_queries, seed, epoch) -> rows of each batch."""


@dataclass(frozen=True)
class Finetuned:
    """A fine-tuned encoder and how it went.

    Attributes:
      encoder: the result.
      metrics: one row a step.
      resumed_at: steps that an earlier call had done.
      refused: why checkpoints later than that were not used.
      num_unanswered: queries left out: blank ones, and those without an answer that has words.
    """

    encoder: Encoder
    metrics: list[dict[str, Any]]
    resumed_at: int
    refused: list[str]
    num_unanswered: int


class Contrastive(Settings):
    """Fine-tune an encoder on queries and their answers.

    Attributes:
      epochs: times each query is seen.
      batch_queries: queries of a step; their answers and negatives are negatives of the others.
      num_negatives: mined negatives of each query in a step, drawn anew each time.
      max_query_tokens: where a query is cut.
      max_document_tokens: where a document is cut; training on beginnings is faster than on whole documents.
      optimize: optimiser and learning rate.
      checkpoint_steps: from one checkpoint to the next.
    """

    method: Literal["contrastive"] = "contrastive"
    epochs: Annotated[int, Field(ge=1)] = 1
    batch_queries: Annotated[int, Field(ge=2)] = 64
    num_negatives: Annotated[int, Field(ge=0)] = 0
    max_query_tokens: Annotated[int, Field(ge=4)] = 64
    max_document_tokens: Annotated[int, Field(ge=4)] = 192
    optimize: Optimize = Optimize(schedule=Schedule(peak=2e-5))
    checkpoint_steps: Annotated[int, Field(ge=1)] = 100

    def finetune(
        self,
        encoder: Encoder,
        corpus: Corpus,
        queries: Queries,
        qrels: Qrels,
        *,
        seed: int,
        objective: Objective | None = None,
        negatives: Run | None = None,
        teacher: Run | None = None,
        batches: Batches | None = None,
        machine: Machine | None = None,
        folder: Path | None = None,
        report: Callable[[dict[str, Any]], None] | None = None,
        group: object | None = None,
    ) -> Finetuned:
        """Train a copy of an encoder.

        Args:
          encoder: the start; it is not changed.
          corpus: where the documents are.
          queries: training queries.
          qrels: their answers.
          seed: of all draws.
          objective: what is minimised; InfoNCE by default.
          negatives: mined documents of each query, best first.
          teacher: scores that objectives of distillation need.
          batches: which queries go together; shuffled anew each epoch by default.
          machine: how to compute; probed by default.
          folder: checkpoints and metrics; a killed call goes on there.
          report: called with the metrics of each step, by the first process alone.
          group: of `torch.distributed`, whose processes share every step and end with equal weights; by default
            those that torchrun started.

        Raises:
          DataError: no query has an answer, or fewer than two do, or a document is unknown.
          UsageError: batches without queries, or of rows that there are not.
          TrainingError: the loss is not finite or diverges.
        """
        pairs = TrainingPairs.of(corpus, queries, qrels, negatives=negatives, teacher=teacher)
        if len(pairs) < 2:
            raise DataError("one training query has nothing to be told apart from. Give at least two.")
        aim = objective or InfoNCE()
        sampler = batches or RandomOrder(size=self.batch_queries).batches
        with processes() as joined:
            shared = group if group is not None else joined
            task = ContrastiveTask(self, Model(encoder, machine=machine), pairs, aim, sampler, seed, shared)
            run = train(
                task,
                self.optimize,
                folder=folder,
                fingerprint=artefact.fingerprint([encoder.fingerprint, task.fingerprint]),
                every=self.checkpoint_steps,
                report=report,
                group=shared,
            )
        return Finetuned(task.model.encoder(), run.metrics, run.resumed_at, run.refused, pairs.num_unanswered)


class ContrastiveTask:
    """The steps of one run; a step depends on its number and the seed alone."""

    def __init__(
        self,
        settings: Contrastive,
        model: Model,
        pairs: TrainingPairs,
        objective: Objective,
        batches: Batches,
        seed: int,
        group: object | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Tokenise everything once and lay out the steps of all epochs.

        Raises:
          UsageError: batches without queries, or of rows that there are not.
        """
        self.model, self._settings, self._pairs, self._seed, self._group = model, settings, pairs, seed, group
        self._objective, self._limits = objective, limits or Limits()
        self._layers = objective.layers(model.num_layers)
        self._queries = model.tokens(pairs.queries, "query", max_tokens=settings.max_query_tokens)
        self._documents = model.tokens(pairs.documents, "document", max_tokens=settings.max_document_tokens)
        self._query_keys, self._document_keys = text_keys(pairs.queries), text_keys(pairs.documents)
        self._epochs = [batches(len(pairs), seed, epoch) for epoch in range(settings.epochs)]
        for epoch, found in enumerate(self._epochs):
            _check(found, len(pairs), epoch)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that determines the steps, but for the weights at the start."""
        pairs, precision = self._pairs, self.model.machine.precision
        lists = [part for of in (pairs.positives, pairs.negatives, pairs.teacher) for part in (of.values, of.offsets)]
        arrays = [self._query_keys, self._document_keys, pairs.teacher_scores, *lists]
        arrays += [rows for found in self._epochs for rows in found]
        settings = [self._settings.model_dump(mode="json"), self._objective.model_dump(mode="json")]
        return artefact.fingerprint([*settings, self._seed, precision, _digest(arrays)])

    @property
    def module(self) -> "nn.Module":
        """The weights."""
        return self.model.module

    @property
    def num_steps(self) -> int:
        """Steps of all epochs."""
        return sum(map(len, self._epochs))

    def backward(self, step: int) -> dict[str, float]:
        """Add the gradient of one step."""
        epoch, place = self._place(step)
        rows = self._epochs[epoch][place]
        seed = int(draws(np.array([step], np.uint64), self._seed, "step")[0] >> np.uint64(1))
        chosen = self._drawn(self._pairs.positives.take(rows), rows, epoch, 1)[:, 0]
        mined = self._drawn(self._pairs.negatives.take(rows), rows, epoch, self._settings.num_negatives)
        columns = np.unique(np.concatenate([chosen, mined[mined >= 0]]))
        batch = self._labels(rows, chosen, mined, columns, step, seed)
        tokens = concat([self._queries.take(rows), self._documents.take(columns)])

        def loss(vectors_SnH: "Tensor") -> "Tensor":
            return self._objective.loss(vectors_SnH[:, : len(rows)], vectors_SnH[:, len(rows) :], batch)

        value = backward(
            lambda part: self.model.vectors(tokens.take(part), self._layers),
            tokens.lengths,
            loss,
            limits=self._limits,
            seed=seed,
            group=self._group,
        )
        return {"loss": value, "epoch": epoch, "queries": len(rows), "documents": len(columns)}

    def _place(self, step: int) -> tuple[int, int]:
        for epoch, batches in enumerate(self._epochs):
            if step < len(batches):
                return epoch, step
            step -= len(batches)
        raise IndexError(step)

    def _drawn(self, lists: Lists, rows: np.ndarray, epoch: int, num: int) -> np.ndarray:
        """Return int64 [B, num] entries of each list, without repetition, -1 where a list is shorter."""
        owners = lists.owners
        keys = self._query_keys[rows][owners] ^ draws(self._document_keys[lists.values], 0, "epoch")
        order = np.lexsort((draws(keys, self._seed + (epoch << 32), "epoch"), owners))
        rank = np.arange(len(owners)) - np.repeat(lists.offsets[:-1], lists.sizes)
        found = np.full((len(rows), num), -1, dtype=np.int64)
        first = rank < num
        found[owners[first], rank[first]] = lists.values[order][first]
        return found

    def _labels(
        self, rows: np.ndarray, chosen: np.ndarray, mined: np.ndarray, columns: np.ndarray, step: int, seed: int
    ) -> Batch:
        import torch

        pairs, device = self._pairs, self.model.machine.device
        relevant_BD = np.zeros((len(rows), len(columns)), dtype=bool)
        owners, at, _ = _among(pairs.positives.take(rows), columns)
        relevant_BD[owners, at] = True
        teacher_BD = None
        if len(pairs.teacher_scores):
            owners, at, here = _among(pairs.teacher.take(rows), columns)
            teacher_BD = np.full(relevant_BD.shape, np.nan, dtype=np.float32)
            teacher_BD[owners, at] = pairs.teacher_scores[pairs.teacher.places(rows)[here]]
        negative_BN = np.where(mined >= 0, np.searchsorted(columns, mined), -1)
        return Batch(
            target_B=torch.from_numpy(np.searchsorted(columns, chosen)).to(device),
            relevant_BD=torch.from_numpy(relevant_BD).to(device),
            negative_BN=torch.from_numpy(negative_BN).to(device),
            teacher_BD=None if teacher_BD is None else torch.from_numpy(teacher_BD).to(device),
            progress=step / max(1, self.num_steps - 1),
            seed=seed,
        )


def _among(lists: Lists, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return owner and column of the values that are among sorted columns, and which of the values they are."""
    at = np.minimum(np.searchsorted(columns, lists.values), len(columns) - 1)
    here = columns[at] == lists.values
    return lists.owners[here], at[here], here


def _check(batches: Sequence[np.ndarray], num: int, epoch: int) -> None:
    """Refuse an epoch's batches that no step can be made of."""
    if not batches or min(map(len, batches)) < 1:
        raise UsageError(f"epoch {epoch}: {len(batches)} batches, one of them empty or none at all.")
    outside = [int(row) for rows in batches for row in (rows.min(), rows.max()) if not 0 <= row < num]
    if outside:
        raise UsageError(f"epoch {epoch}: a batch holds row {outside[0]} of {num} queries; rows count from 0.")


def _digest(arrays: Sequence[np.ndarray]) -> str:
    """Return the SHA-256 of arrays and of where each ends."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()
