"""Ways of cutting a pool into slices: what is held of each document, and the codes of its slices.

Source: tamis design (method card E2).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import Documents
from tamis.evaluation.document_dates import document_days
from tamis.evaluation.keyed_sample import pieces
from tamis.evaluation.statistics import OTHERS
from tamis.ops.bytes import token_hashes
from tamis.ops.hashing import array_keys
from tamis.ops.language import document_languages
from tamis.ops.text import joined


@dataclass(frozen=True, eq=False)
class Kind:
    """One way of slicing: a code for each document, int64 [D], and the names of the codes."""

    kind: str
    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SlicedDocuments:
    """What slicing needs of the D documents: about 30 bytes each."""

    keys: np.ndarray  # uint64 [D], of the ids
    order: np.ndarray  # rows by key
    words: np.ndarray
    languages: np.ndarray
    language_names: tuple[str, ...]
    sources: np.ndarray
    source_names: tuple[str, ...]
    days: np.ndarray

    @classmethod
    def read(cls, corpus: Documents, date_field: str) -> "SlicedDocuments":
        """Read a pool once."""
        parts: list[list[np.ndarray]] = [[], [], [], [], []]
        names: dict[str, int] = {}
        spoken: dict[str, int] = {}
        for batch in corpus.batches(["doc_id", "title", "text", "source", "metadata"]):
            for piece in pieces(batch):
                texts = joined(piece)
                found = [
                    array_keys(piece.column("doc_id")),
                    np.diff(token_hashes(texts)[1]),
                    _codes(pa.array(document_languages(texts)[0].tolist(), pa.large_string()), spoken),
                    _codes(piece.column("source"), names),
                    document_days(piece.column("metadata"), date_field)[0],
                ]
                for part, values in zip(parts, found, strict=True):
                    part.append(values)
        types = (np.uint64, np.int64, np.int32, np.int32, np.int32)
        keys, words, languages, sources, days = (
            np.concatenate([np.zeros(0, kind), *part]) for kind, part in zip(types, parts, strict=True)
        )
        return cls(keys, np.argsort(keys, kind="stable"), words, languages, tuple(spoken), sources, tuple(names), days)

    def rows_of(self, doc_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """int64: row of each id, -1 where it is not in the pool."""
        wanted = array_keys(doc_ids)
        if not len(self.keys):
            return np.full(len(wanted), -1)
        places = np.minimum(np.searchsorted(self.keys, wanted, sorter=self.order), len(self.keys) - 1)
        rows = self.order[places]
        return np.where(self.keys[rows] == wanted, rows, -1)


def largest_first(kind: str, codes: np.ndarray, names: Sequence[str], num_shown: int) -> Kind:
    """Slice by names, most documents first; past ``num_shown`` they stand together."""
    docs = np.bincount(codes, minlength=len(names)).tolist()
    ranked = sorted(
        (place for place in range(len(names)) if docs[place]), key=lambda place: (-docs[place], names[place])
    )
    shown = ranked[:num_shown]
    places = np.full(max(1, len(names)), len(shown), np.int64)
    places[shown] = np.arange(len(shown))
    return Kind(kind, places[codes], (*(names[place] for place in shown), OTHERS))


def by_quantiles(kind: str, values: np.ndarray, num: int, missing: str, write: Callable[[float], str]) -> Kind:
    """Cut at the nearest-rank quantiles; equal values stay together."""
    known = ~np.isnan(values)
    ordered = np.sort(values[known])
    ends = [ordered[max(0, math.ceil(len(ordered) * part / num) - 1)] for part in range(1, num + 1)]
    codes = np.full(len(values), num, np.int64)
    codes[known] = np.searchsorted(ends[:-1], values[known], side="left")
    names = []
    for place in range(num):
        inside = ordered[np.searchsorted(ends[:-1], ordered, side="left") == place]
        names.append(f"{write(inside[0])} to {write(inside[-1])}" if len(inside) else "")
    return Kind(kind, codes, (*names, missing))


def _codes(values: pa.Array, places: dict[str, int]) -> np.ndarray:
    """Return each value's place, int32; new values get the next ones."""
    encoded = pc.fill_null(values, "").dictionary_encode()
    codes = np.array([places.setdefault(name, len(places)) for name in encoded.dictionary.to_pylist()], np.int32)
    found: np.ndarray = codes[encoded.indices.to_numpy(zero_copy_only=False)]
    return found
