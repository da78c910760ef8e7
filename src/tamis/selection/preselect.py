"""Predictive strength: on which documents do better models have lower loss? Labels for a classifier.

Source: Shum et al. 2025, Predictive Data Selection (PreSelect), arXiv:2503.00808. Equal losses count half here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.columns import conversion
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ops.hashing import array_keys, uniform

TEXT = pa.large_string()


@dataclass(frozen=True)
class Labelled:
    """Documents with their predictive strength.

    Attributes:
      table: doc_id, strength (0 to 1), label ("positive", "negative" or ""), in the order of first appearance.
      skipped: doc_id, reason ("missing_model", "loss_not_finite").
      pairs: (weaker, abler) models whose abilities differ enough to count.
      figures: num_docs, num_skipped, num_positives, num_negatives, max_strength, top_frac (share of documents at the
        highest strength) and top_frac_by_chance (the same with the abilities' order at random, for distinct losses
        and all pairs: 1 / number of models factorial).
    """

    table: pa.Table
    skipped: pa.Table
    pairs: tuple[tuple[str, str], ...]
    figures: dict[str, float]


class PreSelect(Settings):
    """Label documents by the share of model pairs in which the abler model has the lower loss.

    The highest strength is positive; negatives are the lowest, level by level until there are as many. Within a level
    a keyed random draw decides, by document id. Train a classifier on the two and select with it.

    Attributes:
      max_docs: of each label; the paper has about 200,000 of 900,000.
      min_ability_gap: pairs of models whose abilities differ by no more than this do not count.
    """

    method: Literal["preselect"] = "preselect"
    max_docs: Annotated[int, Field(ge=1)] = 200_000
    min_ability_gap: Annotated[float, Field(ge=0)] = 0.0

    def label(
        self,
        losses: pa.Table,
        ability: Mapping[str, float],
        errors: Mapping[str, float] | None = None,
        *,
        seed: int,
    ) -> Labelled:
        """Label documents. O(documents · models²), vectorised.

        Args:
          losses: doc_id, model, bits_per_byte (any loss a document where all models share a tokenizer).
          ability: of each model, higher is better (dev nDCG@10).
          errors: standard error of each ability; a pair counts only where the gap is above that of the difference.
          seed: of the draws within a level.

        Raises:
          DataError: columns missing, a model without ability, a document and model twice, no pair of models far
            enough apart, no document with all models, or one strength for all.
        """
        ids, models, losses_NM, has_NM = _pivot(losses)
        lacking = [model for model in models if model not in ability]
        if lacking:
            raise DataError(f"losses: no ability for {len(lacking)} models, first {lacking[0]!r}. Give each one.")
        pairs = self._pairs(models, ability, errors or {})
        is_complete = np.asarray(has_NM.all(axis=1))
        is_finite = np.asarray(np.isfinite(losses_NM).all(axis=1))
        good = np.flatnonzero(is_complete & is_finite)
        if not len(good):
            raise DataError(
                f"losses: none of {len(ids)} documents has a finite loss of all {len(models)} models. "
                "Compute them all, or leave out a model."
            )
        points = np.zeros(len(good))
        for weaker, abler in pairs:
            points += 0.5 + 0.5 * np.sign(losses_NM[good, weaker] - losses_NM[good, abler])
        strength = points / len(pairs)
        label = self._labels(points, array_keys(ids.take(pa.array(good))), seed)
        table = pa.table({"doc_id": ids.take(pa.array(good)), "strength": strength, "label": pa.array(label, TEXT)})
        bad = np.flatnonzero(~(is_complete & is_finite))
        reasons = np.where(is_complete[bad], "loss_not_finite", "missing_model")
        skipped = pa.table({"doc_id": ids.take(pa.array(bad)), "reason": pa.array(reasons.tolist(), TEXT)})
        figures = {
            "num_docs": len(good),
            "num_skipped": len(bad),
            "num_positives": (label == "positive").sum(),
            "num_negatives": (label == "negative").sum(),
            "max_strength": strength.max(),
            "top_frac": np.mean(points == points.max()),
            "top_frac_by_chance": 1 / np.prod(np.arange(1.0, len(models) + 1)),
        }
        names = tuple((models[weaker], models[abler]) for weaker, abler in pairs)
        return Labelled(table, skipped, names, {name: float(value) for name, value in figures.items()})

    def _pairs(
        self, models: list[str], ability: Mapping[str, float], errors: Mapping[str, float]
    ) -> list[tuple[int, int]]:
        pairs = []
        for weaker, name in enumerate(models):
            for abler, other in enumerate(models):
                noise = hypot(errors.get(name, 0.0), errors.get(other, 0.0))
                if ability[other] - ability[name] > max(self.min_ability_gap, noise):
                    pairs.append((weaker, abler))
        if not pairs:
            raise DataError(
                f"ability: no two of {len(models)} models differ by more than min_ability_gap {self.min_ability_gap:g} "
                "and the errors given. Add models that are further apart."
            )
        return pairs

    def _labels(self, points: np.ndarray, keys: np.ndarray, seed: int) -> np.ndarray:
        """Return "positive", "negative" or "" [n]; ``points`` are multiples of one half."""
        label = np.full(len(points), "", dtype=object)
        draw = uniform(keys, seed, "select")
        is_top = np.equal(points, points.max())
        if is_top.all():
            raise DataError(
                f"losses: all {len(points)} documents have the same strength: nothing tells them apart. "
                "Give more models, or more documents."
            )
        top, rest = np.flatnonzero(is_top), np.flatnonzero(~is_top)
        positive = top[np.argsort(draw[top], kind="stable")[: self.max_docs]]
        negative = rest[np.lexsort((draw[rest], points[rest]))[: len(positive)]]
        label[positive], label[negative] = "positive", "negative"
        return label


def _pivot(losses: pa.Table) -> tuple[pa.Array, list[str], np.ndarray, np.ndarray]:
    """Return ids (in order of appearance), models (sorted), losses [n, M] (NaN where absent) and bool [n, M]."""
    for name in ("doc_id", "model", "bits_per_byte"):
        if name not in losses.column_names:
            raise DataError(f"losses: no column {name!r} (has: {', '.join(losses.column_names)}).")
    if not len(losses):
        raise DataError("losses: no rows. Give one for each document and model.")
    with conversion("losses"):
        documents = losses["doc_id"].cast(TEXT).combine_chunks().dictionary_encode()
        names = losses["model"].cast(TEXT).combine_chunks().dictionary_encode()
        values = losses["bits_per_byte"].cast(pa.float64()).fill_null(np.nan).to_numpy()
    if documents.null_count or names.null_count:
        raise DataError("losses: rows without doc_id or model. Give each row both.")
    order = pc.sort_indices(names.dictionary).to_numpy()
    column = np.empty(len(order), dtype=np.int64)
    column[order] = np.arange(len(order))
    cells = documents.indices.to_numpy().astype(np.int64) * len(order) + column[names.indices.to_numpy()]
    ids = documents.dictionary
    flat = np.full(len(ids) * len(order), np.nan)
    counts = np.bincount(cells, minlength=len(flat))
    if counts.max() > 1:
        twice = int(np.argmax(counts > 1))
        raise DataError(
            f"losses: document {ids[twice // len(order)].as_py()!r} has {counts[twice]} rows of one model. Give it one."
        )
    flat[cells] = values
    models = [names.dictionary[int(at)].as_py() for at in order]
    return ids, models, flat.reshape(len(ids), -1), (counts > 0).reshape(len(ids), -1)
