"""Bounded samples that depend on the texts alone: not on the order of rows, the batches or the workers.

Source: tamis design (method cards K1 and K2): items in the order of a keyed random number of their content.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.ops.hashing import draws

PIECE_BYTES = 8 << 20
_MIN_PENDING = 1 << 20


def pieces(batch: pa.RecordBatch, *, num_bytes: int = PIECE_BYTES) -> Iterator[pa.RecordBatch]:
    """Yield a batch in slices of about ``num_bytes`` of text, at least one document each, so that arrays stay small."""
    sizes = np.cumsum(pc.fill_null(pc.binary_length(batch.column("text")), 0).to_numpy(zero_copy_only=False))
    start = 0
    while start < len(batch):
        before = int(sizes[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(sizes, before + num_bytes, side="right")))
        yield batch.slice(start, stop - start)
        start = stop


class KeyedSample:
    """Different texts in keyed-random order until their sizes add up to a budget: a prefix of one fixed order.

    Equal texts are taken once. A larger budget takes the same texts and more.
    """

    def __init__(self, budget: int, *, seed: int) -> None:
        """Start an empty sample that ends with the text on which the sum of sizes reaches ``budget``."""
        self._budget, self._seed = budget, seed
        self._draws = np.zeros(0, np.uint64)
        self._sizes = np.zeros(0, np.int64)
        self._texts: pa.Array = pa.array([], pa.large_string())
        self._pending: list[tuple[np.ndarray, np.ndarray, pa.Array]] = []
        self._pending_size = 0
        self._cutoff = np.uint64(0xFFFFFFFFFFFFFFFF)

    def add(self, texts: pa.Array, keys: np.ndarray, sizes: np.ndarray) -> None:
        """Offer n texts with their content keys (uint64 [n]) and sizes (int [n])."""
        drawn = draws(keys, self._seed, "sample")
        rows = np.flatnonzero(drawn <= self._cutoff)
        if not len(rows):
            return
        self._pending.append((drawn[rows], sizes[rows].astype(np.int64), texts.take(pa.array(rows))))
        self._pending_size += int(self._pending[-1][1].sum())
        if self._pending_size > self._budget:
            self._settle()

    def _settle(self) -> None:
        drawn = np.concatenate([self._draws, *(p[0] for p in self._pending)])
        sizes = np.concatenate([self._sizes, *(p[1] for p in self._pending)])
        texts = pa.concat_arrays([self._texts, *(p[2] for p in self._pending)])
        _, first = np.unique(drawn, return_index=True)  # sorted by draw; a draw stands for one content
        reached = np.cumsum(sizes[first])
        stop = int(np.searchsorted(reached, self._budget)) + 1
        chosen = first[:stop]
        if stop <= len(first):
            self._cutoff = drawn[chosen[-1]]
        self._draws, self._sizes, self._texts = drawn[chosen], sizes[chosen], texts.take(pa.array(chosen))
        self._pending, self._pending_size = [], 0

    def keys_and_texts(self) -> tuple[np.ndarray, pa.Array]:
        """Return uint64 draws [n] and the texts, in keyed order."""
        self._settle()
        return self._draws, self._texts

    def texts(self) -> pa.Array:
        """Return the texts, in keyed order."""
        return self.keys_and_texts()[1]


class KeyCounts:
    """How often each key occurs: of all keys, or of a keyed share of them once there are more than ``max_keys``.

    The share halves until the keys fit, so it depends on the keys alone; counts of the keys kept are exact.
    """

    def __init__(self, max_keys: int, *, seed: int) -> None:
        """Start with no key."""
        self._max_keys, self._seed = max_keys, seed
        self._level = 0
        self._keys = np.zeros(0, np.uint64)
        self._counts = np.zeros(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._num_pending = 0

    def add(self, keys: np.ndarray) -> None:
        """Count uint64 keys [n]."""
        self._pending.append(self._inside(keys))
        self._num_pending += len(self._pending[-1])
        if self._num_pending > max(_MIN_PENDING, len(self._keys)):
            self._settle()

    def _inside(self, keys: np.ndarray) -> np.ndarray:
        return keys if not self._level else keys[self._covers(keys)]

    def _covers(self, keys: np.ndarray) -> np.ndarray:
        covered: np.ndarray = (draws(keys, self._seed, "sample") >> np.uint64(64 - self._level)) == 0
        return covered

    def _settle(self) -> None:
        keys = np.concatenate([self._keys, *self._pending])
        counts = np.concatenate([self._counts, np.ones(len(keys) - len(self._keys), np.int64)])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.intp)
        self._keys = keys[starts]
        self._counts = np.add.reduceat(counts, starts) if len(starts) else counts
        self._pending, self._num_pending = [], 0
        while len(self._keys) > self._max_keys:
            self._level += 1
            keep = self._covers(self._keys)
            self._keys, self._counts = self._keys[keep], self._counts[keep]

    @property
    def frac(self) -> float:
        """Share of the different keys that is counted: 1, 1/2, 1/4 ..."""
        self._settle()
        return float(2.0**-self._level)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys counted, uint64 ascending, and how often each occurs, int64."""
        self._settle()
        return self._keys, self._counts
