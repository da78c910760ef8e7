"""Mergeable sketches: counts and samples of a corpus that do not depend on how it was cut or in which order.

Source: tamis design (method card K1).

Laws of every sketch, to the bit: merging is associative and commutative; adding x and then y is adding x to one
and y to another and merging them; a table written and read back is the same sketch. They hold because a sketch
stores integers or exact items, never sums of floats. A sketch is not changed by its methods: each gives a new one.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.errors import DataError

_SIGN = np.uint64(1 << 63)
_BIN_SHIFT = np.uint64(44)
NUM_BINS = 1 << 20
"""Bins of an OrderedHistogram; neighbours differ by 1/256 of the value or less."""


@dataclass(frozen=True)
class Histogram:
    """How often each of m buckets occurred: counts int64 [m]."""

    counts: np.ndarray

    @classmethod
    def empty(cls, num_buckets: int) -> Self:
        """Return m zeros."""
        return cls(np.zeros(num_buckets, np.int64))

    def add(self, buckets: np.ndarray) -> Self:
        """Count buckets, integers in [0, m)."""
        return type(self)(self.counts + np.bincount(buckets, minlength=len(self.counts)))

    def merge(self, other: Self) -> Self:
        """Return the counts of both; the same m."""
        if len(self.counts) != len(other.counts):
            raise DataError(f"histograms of {len(self.counts)} and {len(other.counts)} buckets cannot be merged.")
        return type(self)(self.counts + other.counts)

    def to_table(self) -> pa.Table:
        """Return one int64 column, count, a row a bucket."""
        return pa.table({"count": self.counts})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Read what `to_table` gave."""
        return cls(table["count"].to_numpy())


@dataclass(frozen=True)
class OrderedHistogram:
    """Counts of float64 values in 2^20 bins that ascend with the value: quantiles within 0.4 % of the value.

    Only bins that occur are held: bins int64 [b] ascending, counts int64 [b].
    """

    bins: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        """Return a histogram of nothing."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))

    def add(self, values: np.ndarray) -> Self:
        """Count float64 values; infinities have bins of their own.

        Raises:
          DataError: a value is NaN.
        """
        bins, counts = np.unique(bin_of(values), return_counts=True)
        return self.merge(type(self)(bins, counts.astype(np.int64)))

    def merge(self, other: Self) -> Self:
        """Return the counts of both."""
        bins, where = np.unique(np.r_[self.bins, other.bins], return_inverse=True)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, where, np.r_[self.counts, other.counts])
        return type(self)(bins, counts)

    def __len__(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    def cdf(self, values: np.ndarray) -> np.ndarray:
        """Return float64: the share of counted values below each value, those of its own bin counted half.

        Raises:
          DataError: nothing was counted, or a value is NaN.
        """
        self._refuse_empty()
        stops = np.r_[0, np.cumsum(self.counts)]
        wanted = bin_of(values)
        below = stops[np.searchsorted(self.bins, wanted, side="left")]
        upto = stops[np.searchsorted(self.bins, wanted, side="right")]
        shares: np.ndarray = (below + upto) / (2.0 * stops[-1])
        return shares

    def quantile(self, frac: float) -> float:
        """Return the lower end of the bin that holds the value at ``frac`` of the counted ones, 0 to 1.

        Raises:
          DataError: nothing was counted.
        """
        self._refuse_empty()
        stops = np.cumsum(self.counts)
        rank = max(1, int(np.ceil(frac * int(stops[-1]))))
        return float(lower_end(self.bins[[np.searchsorted(stops, rank)]])[0])

    def _refuse_empty(self) -> None:
        if not len(self.counts):
            raise DataError("a histogram of no values has no quantiles. Count some values first.")

    def to_table(self) -> pa.Table:
        """Return the int64 columns bin and count."""
        return pa.table({"bin": self.bins, "count": self.counts})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Read what `to_table` gave."""
        return cls(table["bin"].to_numpy(), table["count"].to_numpy())


def bin_of(values: np.ndarray) -> np.ndarray:
    """Return int64 bins in [0, 2^20) that ascend with float64 values; -0.0 is 0.0.

    Raises:
      DataError: a value is NaN.
    """
    array = np.asarray(values, np.float64) + 0.0  # turns -0.0 into 0.0
    if np.isnan(array).any():
        raise DataError(f"value {int(np.flatnonzero(np.isnan(array))[0])} is NaN: it has no place in an order.")
    bits = np.ascontiguousarray(array).view(np.uint64)
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (ordered >> _BIN_SHIFT).astype(np.int64)


def lower_end(bins: np.ndarray) -> np.ndarray:
    """Return float64: the smallest value of each bin."""
    ordered = np.asarray(bins, np.int64).astype(np.uint64) << _BIN_SHIFT
    bits = np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered)
    values: np.ndarray = np.ascontiguousarray(bits).view(np.float64)
    return values


@dataclass(frozen=True)
class _Rows:
    """At most k rows of a table, kept by an order; `add` says which."""

    k: int
    items: pa.Table | None = None

    @abstractmethod
    def add(self, items: pa.Table) -> Self:
        """Take in rows."""

    def _with(self, items: pa.Table) -> pa.Table:
        """Return the rows held and these, in the columns held."""
        return items if self.items is None else pa.concat_tables([self.items, items.select(self.items.column_names)])

    def merge(self, other: Self) -> Self:
        """Return the k rows of both that come first; the same k."""
        if self.k != other.k:
            raise DataError(f"{self.k} and {other.k} rows cannot be merged.")
        return self if other.items is None else other if self.items is None else self.add(other.items)

    def to_table(self) -> pa.Table:
        """Return the items, k in the schema's metadata."""
        rows = pa.table({"key": pa.array([], pa.uint64())}) if self.items is None else self.items
        return rows.replace_schema_metadata({"k": str(self.k)})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Read what `to_table` gave."""
        rows = table.replace_schema_metadata(None)
        return cls(int(table.schema.metadata[b"k"]), rows if "doc_id" in rows.column_names else None)


@dataclass(frozen=True)
class BottomK(_Rows):
    """The k contents with the smallest keys: a uniform sample if keys are draws of `tamis.ops.hashing`.

    Equal keys are equal contents and count once, with the smallest doc_id. A smaller k holds a part of a larger
    one's items. Memory is k rows.

    Attributes:
      k: items held at most.
      items: columns key (uint64), doc_id (large_string) and any others, by key ascending; None before the first.
    """

    def add(self, items: pa.Table) -> Self:
        """Take in rows with key, doc_id and whatever else is to be kept of them."""
        rows = self._with(items)
        rows = rows.take(pc.sort_indices(rows, sort_keys=[("key", "ascending"), ("doc_id", "ascending")]))
        keys = rows["key"].to_numpy()
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])[: self.k]
        return type(self)(self.k, rows.take(pa.array(first)).combine_chunks())


@dataclass(frozen=True)
class TopK(_Rows):
    """The k items that come first by score descending, key ascending, doc_id ascending: an order without ties.

    Attributes:
      k: items held at most.
      items: columns score (float64), key (uint64), doc_id (large_string) and any others; None before the first.
    """

    def add(self, items: pa.Table) -> Self:
        """Take in rows with score, key, doc_id and whatever else is to be kept of them."""
        rows = self._with(items)
        order = [("score", "descending"), ("key", "ascending"), ("doc_id", "ascending")]
        return type(self)(self.k, rows.take(pc.sort_indices(rows, sort_keys=order)[: self.k]).combine_chunks())


@dataclass(frozen=True)
class DocumentFrequency:
    """In how many documents of a uniform sample each hash occurs; exact for the sample.

    Attributes:
      sample: the documents, each with its distinct hashes (column hashes, large_list of uint64).
    """

    sample: BottomK

    @classmethod
    def empty(cls, max_docs: int) -> Self:
        """Return a sketch that samples ``max_docs`` documents."""
        return cls(BottomK(max_docs))

    def add(self, keys: np.ndarray, doc_ids: pa.Array, hashes: np.ndarray, starts: np.ndarray) -> Self:
        """Take in n documents.

        Args:
          keys: uint64 [n], random draws keyed by content.
          doc_ids: large_string [n].
          hashes: uint64, those of document i at [starts[i]:starts[i + 1]]; repeats count once.
          starts: int64 [n + 1].
        """
        lists = pa.LargeListArray.from_arrays(pa.array(starts, pa.int64()), pa.array(hashes, pa.uint64()))
        return type(self)(self.sample.add(pa.table({"key": keys, "doc_id": doc_ids, "hashes": lists})))

    def merge(self, other: Self) -> Self:
        """Return the sketch of both samples' documents."""
        return type(self)(self.sample.merge(other.sample))

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the hashes uint64, ascending, and the number of sample documents each occurs in, int64."""
        if self.sample.items is None or not len(self.sample.items):
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        lists = self.sample.items["hashes"].combine_chunks()
        lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
        values = lists.flatten().to_numpy()
        owners = np.repeat(np.arange(len(lists)), pc.list_value_length(lists).to_numpy())
        order = np.lexsort((owners, values))
        values, owners = values[order], owners[order]
        new = np.r_[True, (values[1:] != values[:-1]) | (owners[1:] != owners[:-1])][: len(values)]
        found, counts = np.unique(values[new], return_counts=True)
        return found, counts.astype(np.int64)

    def to_table(self) -> pa.Table:
        """Return the sample's table."""
        return self.sample.to_table()

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Read what `to_table` gave."""
        return cls(BottomK.from_table(table))
