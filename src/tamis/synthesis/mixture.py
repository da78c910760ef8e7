"""Pair mixture: one training set out of several makers' pairs, with weights and caps.

Source: "all three combined" of Chang et al. 2020, arXiv:2002.03932; caps and water-filling: tamis method card A12.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.queries import QRELS_SCHEMA, QUERY_SCHEMA, Qrels, Queries
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ops.hashing import text_keys, uniform
from tamis.synthesis.pairs import Pairs


class PairMixture(Settings):
    """Combine the parts of several makers.

    Attributes:
      weights: part -> share wanted, of any sum; a part without one has weight 1. A part that cannot fill its
        share leaves the rest to the others.
      num_pairs: queries of the mixture; None takes every query of every part once.
      max_repeats: times a query may be used to fill its part's share.
      per_group: queries of one source document, over all parts.
    """

    method: Literal["pair_mixture"] = "pair_mixture"
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    num_pairs: Annotated[int, Field(ge=1)] | None = None
    max_repeats: Annotated[int, Field(ge=1)] = 2
    per_group: Annotated[int, Field(ge=1)] = 4

    def combine(self, parts: Mapping[str, tuple[Queries, Qrels]], *, seed: int) -> Pairs:
        """Mix the parts; one sort, a hash set of the pairs.

        Args:
          parts: name -> queries and their positives; of equal (text, positives, views) the first part's stays.
          seed: of the order and of who stays under a cap.

        Returns:
          Pairs in keyed order, so that a prefix is a fair sample; a repeated query's id ends in ``~2``, ``~3`` ...
          Reasons ``duplicate_pair``, ``over_per_group``, ``over_share``.

        Raises:
          DataError: a weight for a part that is not there, or an id in two parts.
        """
        unknown = sorted(set(self.weights) - set(parts))
        if unknown:
            raise DataError(
                f"mixture: weights for {', '.join(unknown)}, but the parts are {', '.join(parts) or 'none'}."
            )
        dropped: Counter[str] = Counter()
        kept = self._capped(parts, seed, dropped)
        wanted = self._shares({name: len(rows) for name, rows in kept.items()})
        chosen: list[tuple[str, int, int]] = []
        for name, rows in kept.items():
            turns, rest = divmod(wanted[name], max(1, len(rows)))
            dropped["over_share"] += max(0, len(rows) - wanted[name])
            chosen += [(name, row, turn) for turn in range(turns) for row in rows]
            chosen += [(name, row, turns) for row in rows[:rest]]
        ids = {name: queries.ids for name, (queries, _) in parts.items()}
        named = [(ids[name][row] + (f"~{turn + 1}" if turn else ""), name, row) for name, row, turn in chosen]
        order = np.argsort(uniform(text_keys([i for i, _, _ in named]), seed, "mixture"), kind="stable")
        return Pairs(*_assemble(parts, [named[i] for i in order]), +dropped)

    def _capped(
        self, parts: Mapping[str, tuple[Queries, Qrels]], seed: int, dropped: Counter[str]
    ) -> dict[str, list[int]]:
        """Rows of each part without duplicates, at most per_group a source document, in keyed order."""
        seen: set[tuple[str, str]] = set()
        entries: list[tuple[float, str, str, int, str]] = []
        for name, (queries, qrels) in parts.items():
            views = _views(qrels)
            sources = queries.table["source_doc_id"].to_pylist()
            draws = uniform(text_keys(queries.ids), seed, "mixture")
            for row, (query_id, text) in enumerate(zip(queries.ids, queries.texts, strict=True)):
                key = (text, views.get(query_id, ""))
                if key in seen:
                    dropped["duplicate_pair"] += 1
                    continue
                seen.add(key)
                entries.append((float(draws[row]), query_id, name, row, sources[row] or query_id))
        groups: Counter[str] = Counter()
        kept: dict[str, list[int]] = {name: [] for name in parts}
        for _, _, name, row, group in sorted(entries):
            groups[group] += 1
            if groups[group] > self.per_group:
                dropped["over_per_group"] += 1
            else:
                kept[name].append(row)
        return kept

    def _shares(self, available: Mapping[str, int]) -> dict[str, int]:
        if self.num_pairs is None:
            return dict(available)
        caps = np.array([n * self.max_repeats for n in available.values()])
        weights = np.array([self.weights.get(name, 1.0) for name in available])
        return dict(zip(available, water_fill(caps, weights, self.num_pairs).tolist(), strict=True))


def water_fill(caps: np.ndarray, weights: np.ndarray, total: int) -> np.ndarray:
    """Share ``total`` out by weight; what a part cannot take goes to those that can.

    Args:
      caps: int [P], most each part can take.
      weights: float [P], at least 0; a part of weight 0 gets nothing.
      total: to share out.

    Returns:
      int64 [P], sum = min(total, sum of caps with weight). Rounded by largest remainder, the first part first.
    """
    caps = np.where(weights > 0, caps, 0).astype(np.int64)
    goal = min(total, int(caps.sum()))
    shares = np.zeros(len(caps), np.float64)
    open_ = caps > 0
    while open_.any():
        left = goal - shares[~open_].sum()
        proposal = left * weights / weights[open_].sum()
        full = open_ & (proposal >= caps)
        if not full.any():
            shares[open_] = proposal[open_]
            break
        shares[full] = caps[full]
        open_ &= ~full
    whole = np.floor(shares + 1e-9).astype(np.int64)
    rest = np.argsort(-(shares - whole), kind="stable")
    room = [p for p in rest if whole[p] < caps[p]]
    for p in room[: goal - int(whole.sum())]:
        whole[p] += 1
    return whole


def _views(qrels: Qrels) -> dict[str, str]:
    """Query id -> its positives with their views, as one comparable string."""
    columns = [pc.fill_null(qrels.table[n].cast(pa.large_string()), "") for n in QRELS_SCHEMA.names[1:]]
    lines = pc.binary_join_element_wise(*columns, pa.scalar("\x1f", pa.large_string())).to_pylist()
    views: dict[str, list[str]] = {}
    for query_id, line in zip(qrels.table["query_id"].to_pylist(), lines, strict=True):
        views.setdefault(query_id, []).append(line)
    return {query_id: "\x1e".join(sorted(found)) for query_id, found in views.items()}


def _assemble(parts: Mapping[str, tuple[Queries, Qrels]], chosen: list[tuple[str, str, int]]) -> tuple[Queries, Qrels]:
    """Queries (new id, part, row) and their judgements under the new ids."""
    if not parts:
        return Queries(QUERY_SCHEMA.empty_table()), Qrels(QRELS_SCHEMA.empty_table())
    starts, total = {}, 0
    for name, (queries, _) in parts.items():
        starts[name], total = total, total + len(queries)
    table = pa.concat_tables([queries.table for queries, _ in parts.values()])
    taken = table.take(pa.array([starts[name] + row for _, name, row in chosen], pa.int64()))
    new_ids = pa.array([query_id for query_id, _, _ in chosen], pa.large_string())
    links = pa.table({"query_id": taken["query_id"], "new_id": new_ids, "place": np.arange(len(chosen))})
    judged = pa.concat_tables([qrels.table for _, qrels in parts.values()])
    joined = links.join(judged, "query_id", join_type="inner").sort_by(
        [("place", "ascending"), ("doc_id", "ascending")]
    )
    qrels_table = joined.drop_columns(["query_id", "place"]).rename_columns({"new_id": "query_id"})
    return Queries(taken.set_column(0, "query_id", new_ids)), Qrels(qrels_table)
