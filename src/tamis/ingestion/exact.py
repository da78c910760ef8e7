"""Exact duplicates: documents with equal title and text form a group, led by the first id in byte order.

Source: Lee et al. 2021, arXiv:2107.06499, for what it buys; the grouping itself is standard.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import xxhash

from tamis.data.corpus import Corpus, Sifted
from tamis.data.settings import Settings
from tamis.ops import text as spans

TEXT = pa.large_string()


def content_key(title: str, text: str) -> bytes:
    """Return 16 bytes: XXH3-128 of title and text, apart."""
    digest = xxhash.xxh3_128(title.encode("utf-8", "surrogatepass"))
    digest.update(b"\0")
    digest.update(text.encode("utf-8", "surrogatepass"))
    return bytes(digest.digest())


def leaders(keys: np.ndarray, same: Callable[[int, int], bool]) -> np.ndarray:
    """Return for each row the first row that is equal to it; itself when it is the first. O(n log n).

    Args:
      keys: uint64 [n] or [n, m] hashes; equal rows have equal hashes.
      same: whether two rows with equal hashes are equal; asked only for these.

    Returns:
      int64 [n].
    """
    result = np.arange(len(keys), dtype=np.int64)
    if len(keys) < 2:
        return result
    columns = keys.reshape(len(keys), -1)
    order = np.lexsort((result, *columns.T))  # stable: rows ascend within a run of equal hashes
    ordered = columns[order]
    new = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.r_[starts, len(keys)])
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        rows = order[start : start + size].tolist()
        firsts = [rows[0]]
        for row in rows[1:]:
            equal = next((first for first in firsts if same(first, row)), None)
            if equal is None:
                firsts.append(row)  # two texts with one hash
            else:
                result[row] = equal
    return result


class Exact(Settings):
    """Group equal documents. The index keeps them all; training sees one of each group.

    Attributes:
      normalise: "none" compares title and text as they are, "tokens" their lower-cased words.
    """

    method: Literal["exact"] = "exact"
    normalise: Literal["none", "tokens"] = "none"

    def group(self, corpus: Corpus) -> pa.Array:
        """Return for each document the id, first in byte order, among the documents equal to it. O(bytes).

        Memory: 24 bytes a document, and the texts of one row group when copies are confirmed.
        """
        keys = [self._key(title, text) for title, text in _contents(corpus)]
        hashes = np.frombuffer(b"".join(keys), dtype=np.uint64).reshape(-1, 2)

        def same(first: int, second: int) -> bool:
            rows = corpus.take([first, second], ["title", "text"]).to_pylist()
            one, other = (self._form(r["title"], r["text"]) for r in rows)
            return one == other

        first_row = leaders(hashes, same)
        ids = corpus.doc_ids.to_pylist()
        return pa.array(group_names(ids, first_row), TEXT)

    def sift(self, corpus: Corpus, *, seed: int) -> Sifted:
        """Keep one document a group, the first by id; the others are dropped with reason ``exact_copy``.

        Args:
          corpus: any documents.
          seed: unused; every sieve takes it.

        Returns:
          kept with ``group_id`` filled, dropped with ``group_id`` naming the kept one.
        """
        groups = self.group(corpus)
        table = corpus.table()
        table = table.set_column(table.column_names.index("group_id"), "group_id", groups)
        is_first = np.array(table["group_id"].to_pylist(), dtype=object) == np.array(
            table["doc_id"].to_pylist(), dtype=object
        )
        dropped = table.filter(pa.array(~is_first))
        reasons = pa.array(["exact_copy"] * len(dropped), TEXT)
        return Sifted(Corpus.from_table(table.filter(pa.array(is_first))), dropped.append_column("reason", reasons))

    def _form(self, title: str, text: str) -> tuple[str, str]:
        if self.normalise == "none":
            return title, text
        return spans.normalised(title), spans.normalised(text)

    def _key(self, title: str, text: str) -> bytes:
        return content_key(*self._form(title, text))


def group_names(ids: Sequence[str], first_row: np.ndarray) -> list[str]:
    """Return each row's group: the smallest id, by UTF-8 bytes, of the rows with its leader."""
    names = list(ids)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(first_row != np.arange(len(first_row))).tolist():
        members.setdefault(int(first_row[row]), []).append(row)
    for leader, rows in members.items():
        group = [leader, *rows]
        name = min((ids[row] for row in group), key=str.encode)
        for row in group:
            names[row] = name
    return names


def _contents(corpus: Corpus) -> Iterator[tuple[str, str]]:
    for batch in corpus.batches(["title", "text"]):
        yield from zip(batch["title"].to_pylist(), batch["text"].to_pylist(), strict=True)
