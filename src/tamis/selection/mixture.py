"""Mixture: weights per source become a training corpus, within caps on repetition, in one or two phases.

Source: temperature sampling; upsampling at the end of training: Blakeney et al. 2024, arXiv:2406.03476; water-filling:
tamis design (method card C8).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus, Documents, Sifted
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.models.encoder import Encoder
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.text import joined
from tamis.selection.budget import Budget
from tamis.selection.choice import seen

TEXT = pa.large_string()
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Mixed(Sifted):
    """A mixture: each kept document once, and how often each phase of training sees it.

    Attributes:
      copies: int32 [kept, phases].
      sources: a row a phase and source: phase, source, weight (wanted share), available, wanted, got (in the budget's
        unit), share (of what the phase got), epochs (got / available), is_capped.
      notes: plain sentences a reader should see.
    """

    copies: np.ndarray
    sources: pa.Table
    notes: tuple[str, ...]

    def rows(self, phase: int = 0) -> np.ndarray:
        """Return int64 rows of ``kept`` for one phase, each as often as it is seen, in corpus order."""
        return np.repeat(np.arange(len(self.copies)), self.copies[:, phase])


class Mixture(Settings):
    """Sample documents by weights per source; repeat a source where its weight wants more than it has.

    Inside a source documents come in a keyed random order: a prefix of it, then whole epochs again. The last phase
    goes on where the first stopped, so that it repeats as little as it can.

    Attributes:
      budget: of the whole training, repeats counted; a frac is of the corpus's words.
      weights: by source; or "proportional" to size, "uniform", "temperature" (size to the power of temperature).
      temperature: exponent of "temperature"; 1 is proportional, 0 uniform.
      max_epochs: how often a source may be seen in all phases together.
      final_weights: by source, for the last part of training; None: one phase.
      final_frac: that part; the paper's best lies between 0.1 and 0.2.
    """

    method: Literal["mixture"] = "mixture"
    budget: Budget
    weights: Literal["proportional", "uniform", "temperature"] | dict[str, float] = "temperature"
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    final_weights: dict[str, float] | None = None
    final_frac: Annotated[float, Field(gt=0, lt=1)] = 0.15

    def select(self, corpus: Documents, target: Corpus | None, encoder: Encoder | None, *, seed: int) -> Mixed:
        """Mix. One pass over the texts; 40 bytes a document are held.

        Args:
          corpus: documents with their source.
          target: unused; every selection takes it.
          encoder: unused.
          seed: of the order inside sources, which is keyed by content.

        Returns:
          kept in corpus order; dropped with doc_id, source and reason: ``no_words``, ``source_weight_0``,
          ``over_source_quota``.

        Raises:
          DataError: no documents, weights that are negative, all 0, or do not name the sources, a source with weight
            and no text, or sources that cannot fill the budget within max_epochs.
        """
        pool = _Pool.read(corpus, self.budget, seed)
        limit = self.budget.limit(int(pool.sizes.sum()))
        phases = [(1.0, self._weights(pool, self.weights))]
        if self.final_weights is not None:
            phases = [(1 - self.final_frac, phases[0][1]), (self.final_frac, self._weights(pool, self.final_weights))]
        copies = np.zeros((len(pool.sizes), len(phases)), np.int32)
        left_S = self.max_epochs * pool.available_S
        starts = [0] * len(pool.names)
        rows = []
        for phase, (frac, weights_S) in enumerate(phases):
            caps_S = np.where(weights_S > 0, left_S, 0.0)
            if caps_S.sum() < frac * limit * (1 - _ROUNDING):
                raise DataError(
                    f"mixture: phase {phase} wants {frac * limit:.0f} {self.budget.unit}; {self.max_epochs:g} epochs "
                    f"of the sources with weight hold {caps_S.sum():.0f}: {frac * limit - caps_S.sum():.0f} too few. "
                    "Lower the budget, raise max_epochs, or give more sources weight."
                )
            wanted_S = allot(weights_S, frac * limit, caps_S)
            for at in np.flatnonzero(wanted_S):
                starts[at] = _take(pool, int(at), starts[at], float(wanted_S[at]), copies[:, phase])
            got_S = np.bincount(pool.codes, copies[:, phase] * pool.sizes, len(pool.names))
            left_S = left_S - got_S
            rows += _rows(phase, pool, weights_S, wanted_S, got_S, wanted_S >= caps_S * (1 - _ROUNDING))
        return _mixed(corpus, pool, copies, pa.Table.from_pylist(rows, _SOURCES))

    def _weights(self, pool: "_Pool", weights: str | Mapping[str, float]) -> np.ndarray:
        """Return weights [S] that sum to 1."""
        if isinstance(weights, str):
            power = {"proportional": 1.0, "uniform": 0.0}.get(weights, self.temperature)
            raw_S = np.where(pool.available_S > 0, np.maximum(pool.available_S, 1) ** power, 0.0)
            shares: np.ndarray = raw_S / raw_S.sum()
            return shares
        unknown, lacking = sorted(set(weights) - set(pool.names)), sorted(set(pool.names) - set(weights))
        if unknown or lacking:
            what = "the corpus has no source" if unknown else "no weight for source"
            raise DataError(
                f"mixture: {what} {(unknown or lacking)[0]!r} ({len(unknown)} unknown, {len(lacking)} without a weight "
                f"of {len(pool.names)}). Name each source once; 0 leaves it out."
            )
        weights_S = np.array([weights[name] for name in pool.names])
        if weights_S.min() < 0 or weights_S.sum() <= 0:
            raise DataError(f"mixture: weights {dict(weights)}. Give numbers of 0 or more, not all 0.")
        empty = np.flatnonzero((weights_S > 0) & (pool.available_S == 0))
        if len(empty):
            raise DataError(
                f"mixture: source {pool.names[empty[0]]!r} has weight {weights_S[empty[0]]:g} and no "
                f"{self.budget.unit}. Give it weight 0."
            )
        unit: np.ndarray = weights_S / weights_S.sum()
        return unit


def allot(weights: np.ndarray, budget: float, caps: np.ndarray) -> np.ndarray:
    """Share out a budget by weights, none above its cap; what a cap refuses goes to the others by their weights.

    Args:
      weights: float64 [S], >= 0.
      budget: to share out.
      caps: float64 [S].

    Returns:
      float64 [S], sums to the smaller of the budget and the caps of sources with weight. O(S²) at most.
    """
    wanted = np.zeros(len(weights))
    open_S = (weights > 0) & (caps > 0)
    while open_S.any():
        level = (budget - wanted[~open_S].sum()) / weights[open_S].sum()
        over = open_S & (weights * level > caps)
        if not over.any():
            wanted[open_S] = weights[open_S] * level
            break
        wanted[over] = caps[over]
        open_S &= ~over
    return wanted


def leave_one_out(weights: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the control runs of a mixture: for each source with weight, the weights without it, summing to 1.

    Raises:
      DataError: fewer than two sources have weight.
    """
    used = [name for name, weight in weights.items() if weight > 0]
    if len(used) < 2:
        raise DataError(f"leave one out: {len(used)} sources have weight. Give two or more.")
    total = sum(weights.values())
    return {
        name: {other: 0.0 if other == name else w / (total - weights[name]) for other, w in weights.items()}
        for name in used
    }


@dataclass(frozen=True)
class _Pool:
    """What is held of each document: ids, source code, size and the keyed random order inside its source."""

    doc_ids: pa.Array
    names: tuple[str, ...]
    codes: np.ndarray
    sizes: np.ndarray
    order: np.ndarray
    stops: np.ndarray

    @classmethod
    def read(cls, corpus: Documents, budget: Budget, seed: int) -> "_Pool":
        if not len(corpus):
            raise DataError("the pool has no documents: there is nothing to mix. Give files with documents.")
        ids, sources, sizes, keys = [], [], [], []
        for batch in corpus.batches(seen(corpus)):
            ids.append(batch.column("doc_id").cast(TEXT))
            sources.append(batch.column("source").cast(TEXT))
            sizes.append(budget.sizes(batch))
            keys.append(array_keys(joined(batch)))
        doc_ids, key, size = pa.concat_arrays(ids), np.concatenate(keys), np.concatenate(sizes).astype(np.int64)
        encoded = pa.concat_arrays(sources).dictionary_encode()
        names = encoded.dictionary.to_pylist()
        by_name = sorted(range(len(names)), key=lambda at: names[at].encode())
        rank = np.empty(len(names), np.int64)
        rank[by_name] = np.arange(len(names))
        codes = rank[encoded.indices.to_numpy()]
        id_ranks = np.empty(len(doc_ids), np.int64)
        id_ranks[pc.sort_indices(doc_ids.cast(pa.large_binary())).to_numpy()] = np.arange(len(doc_ids))
        order = np.lexsort((id_ranks, key, uniform(key, seed, "mixture"), codes))
        order = order[size[order] > 0]
        stops = np.searchsorted(codes[order], np.arange(len(names)), side="right")
        return cls(doc_ids, tuple(names[at] for at in by_name), codes, size, order, stops)

    def rows(self, source: int) -> np.ndarray:
        """Return the source's rows in their order."""
        return self.order[self.stops[source - 1] if source else 0 : self.stops[source]]

    @property
    def available_S(self) -> np.ndarray:  # noqa: N802 - shape
        """float64 [S]: size of each source."""
        return np.bincount(self.codes, self.sizes, len(self.names))


def _take(pool: _Pool, source: int, start: int, wanted: float, copies: np.ndarray) -> int:
    """Count copies of the source's next documents, cyclically from ``start``, that fit; return where it stopped."""
    rows = np.roll(pool.rows(source), -start)
    ends = np.cumsum(pool.sizes[rows])
    epochs = int(wanted * (1 + _ROUNDING) // ends[-1])
    num_more = int(np.searchsorted(ends, wanted * (1 + _ROUNDING) - epochs * ends[-1], side="right"))
    copies[rows] += epochs
    copies[rows[:num_more]] += 1
    return (start + num_more) % len(rows)


def _rows(
    phase: int, pool: _Pool, weights_S: np.ndarray, wanted_S: np.ndarray, got_S: np.ndarray, is_capped_S: np.ndarray
) -> list[dict[str, object]]:
    available_S, total = pool.available_S, max(got_S.sum(), 1)
    return [
        {
            "phase": phase,
            "source": name,
            "weight": weights_S[at],
            "available": int(available_S[at]),
            "wanted": wanted_S[at],
            "got": int(got_S[at]),
            "share": got_S[at] / total,
            "epochs": got_S[at] / max(available_S[at], 1),
            "is_capped": bool(is_capped_S[at] and weights_S[at] > 0),
        }
        for at, name in enumerate(pool.names)
    ]


_SOURCES = pa.schema(
    [
        ("phase", pa.int32()),
        ("source", TEXT),
        ("weight", pa.float64()),
        ("available", pa.int64()),
        ("wanted", pa.float64()),
        ("got", pa.int64()),
        ("share", pa.float64()),
        ("epochs", pa.float64()),
        ("is_capped", pa.bool_()),
    ]
)


def _mixed(corpus: Documents, pool: _Pool, copies: np.ndarray, sources: pa.Table) -> Mixed:
    is_kept = copies.sum(axis=1) > 0
    if not is_kept.any():
        raise DataError("mixture: no document fits its source's part of the budget. Give a larger budget.")
    weight_S = np.zeros(len(pool.names))
    np.add.at(weight_S, np.tile(np.arange(len(pool.names)), copies.shape[1]), sources["weight"].to_numpy())
    gone = np.flatnonzero(~is_kept)
    codes = np.where(pool.sizes[gone] == 0, 0, np.where(weight_S[pool.codes[gone]] == 0, 1, 2))
    reasons = pa.array(["no_words", "source_weight_0", "over_source_quota"], TEXT).take(pa.array(codes))
    names = pa.array(pool.names, TEXT).take(pa.array(pool.codes[gone]))
    dropped = pa.table({"doc_id": pool.doc_ids.take(pa.array(gone)), "source": names, "reason": reasons})
    notes = []
    missed = [r["source"] for r in sources.to_pylist() if r["wanted"] > 0 and r["got"] == 0]
    if missed:
        notes.append(
            f"{len(missed)} sources have weight and got nothing, first {missed[0]!r}: "
            "their first document is larger than their part of the budget."
        )
    capped = [r["source"] for r in sources.to_pylist() if r["is_capped"]]
    if capped:
        notes.append(f"{len(capped)} sources reached max_epochs, first {capped[0]!r}; others got their surplus.")
    kept = Corpus(table=corpus.take(np.flatnonzero(is_kept)))
    return Mixed(kept, dropped, copies[is_kept], sources, tuple(notes))
