"""A uniform sample of a pool's texts: what a method learns of the pool when counts are not enough.

Source: tamis design (method card K1, BottomK; C3, negatives).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from tamis.ops.hashing import array_keys, draws
from tamis.ops.linear import cut_texts
from tamis.ops.text import joined

SAMPLE_CHARS = 10_000
"""Of each text, from its beginning; the longest documents would fill the memory and outvote the others."""


@dataclass(frozen=True)
class TextSample:
    """The texts of the k distinct contents with the smallest random draws; merging keeps that, in any order.

    Parts are put together only now and then, so that merging a batch costs little; `items` is what counts.

    Attributes:
      k: texts held at most.
      parts: tables of draw (uint64), key (uint64, of the whole text) and text (cut at SAMPLE_CHARS).
      limit: no text with a draw above it can be among the k smallest.
    """

    k: int
    parts: tuple[pa.Table, ...] = ()
    limit: int = (1 << 64) - 1

    @classmethod
    def of(cls, batch: pa.RecordBatch | pa.Table, k: int, *, seed: int) -> Self:
        """Sample one batch."""
        texts = joined(batch)
        keys = array_keys(texts)
        drawn = draws(keys, seed, "negatives")
        rows = pa.array(np.unique(drawn, return_index=True)[1][:k])  # by draw, the first of equal contents
        columns = {"draw": pa.array(drawn).take(rows), "key": pa.array(keys).take(rows), "text": texts.take(rows)}
        columns["text"] = cut_texts(columns["text"], SAMPLE_CHARS)
        return cls(k, (pa.table(columns),))

    def merge(self, other: Self) -> Self:
        """Return the sample of both; the same k."""
        limit = min(self.limit, other.limit)
        parts = [_below(part, limit) for part in (*self.parts, *other.parts)]
        merged = type(self)(self.k, tuple(part for part in parts if len(part)), limit)
        return merged._compact() if sum(map(len, merged.parts)) > self.k + self.k // 4 else merged

    def items(self) -> pa.Table:
        """Return the sample by ascending draw: at most k rows, no content twice."""
        compact = self._compact()
        return compact.parts[0] if compact.parts else _EMPTY

    def _compact(self) -> Self:
        if not self.parts:
            return self
        rows = pa.concat_tables(self.parts)
        drawn = rows["draw"].to_numpy()
        order = np.argsort(drawn, kind="stable")
        ordered = drawn[order]
        order = order[np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]][: self.k]  # equal draw, equal content
        limit = int(drawn[order[-1]]) if len(order) == self.k else self.limit
        return type(self)(self.k, (rows.take(pa.array(order)).combine_chunks(),), limit)


def _below(part: pa.Table, limit: int) -> pa.Table:
    drawn = part["draw"].to_numpy()
    wanted = drawn <= np.uint64(limit)
    return part if wanted.all() else part.filter(pa.array(wanted))


_EMPTY = pa.table(
    {"draw": pa.array([], pa.uint64()), "key": pa.array([], pa.uint64()), "text": pa.array([], pa.large_string())}
)


def target_texts(batches: list[pa.RecordBatch]) -> tuple[pa.Array, np.ndarray]:
    """Return a target's texts, cut at SAMPLE_CHARS, and the keys of the whole texts uint64 [n], by ascending key.

    In this order what is learnt does not depend on the order of the target's documents.
    """
    texts = pa.concat_arrays([pa.array([], pa.large_string()), *(joined(batch) for batch in batches)])
    keys = array_keys(texts)
    order = np.argsort(keys, kind="stable")
    return cut_texts(texts.take(pa.array(order)), SAMPLE_CHARS), keys[order]
