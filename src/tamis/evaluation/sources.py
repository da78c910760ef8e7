"""Sources of a pool with simple measures of each, so that a poor or an odd one shows.

Source: tamis design (method cards E1 and K8). Whole numbers only: the same for any order and any batches.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.settings import Settings
from tamis.evaluation.statistics import OTHERS
from tamis.ops.bytes import Texts, text_buffers
from tamis.ops.hashing import draws, text_keys

MAX_SOURCES = 100_000
_LETTERS = np.zeros(256, np.uint8)
_LETTERS[[*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0x80, 0x100)]] = 1


class SourceFacts(Settings):
    """One source.

    Attributes:
      name: of the source; OTHERS for those that are not shown, together.
      num_docs: documents; ``num_words`` and ``num_bytes`` of their titles and texts.
      letters_frac: share of the bytes that are letters (or outside ASCII).
      mean_letters: letters a word.
      unknown_frac: share of the documents whose language could not be told.
    """

    name: str
    num_docs: int
    num_words: int
    num_bytes: int
    letters_frac: float
    mean_letters: float
    unknown_frac: float


class SourceCounter:
    """Adds documents up by source; past MAX_SOURCES names a keyed half of them goes under OTHERS, and again."""

    def __init__(self, *, seed: int) -> None:
        """Start with no source."""
        self._seed, self._level = seed, 0
        self._sums: dict[str, np.ndarray] = {}

    def add(self, sources: pa.Array, texts: Texts, words: np.ndarray, known: np.ndarray) -> None:
        """Add n documents: their source, text, number of words, whether the language is known."""
        encoded = pc.fill_null(sources, "").dictionary_encode()
        data, offsets = text_buffers(texts)
        filled = np.flatnonzero(np.diff(offsets))
        letters = np.zeros(len(words), np.int64)
        if len(filled):
            marked = _LETTERS[data[offsets[0] : offsets[-1]]]
            letters[filled] = np.add.reduceat(marked, offsets[filled] - offsets[0], dtype=np.int64)
        columns = [np.ones(len(words), np.int64), words, np.diff(offsets), letters, known]
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        names = encoded.dictionary.to_pylist()
        sums = np.zeros((len(names), len(columns)), np.int64)
        for column, values in enumerate(columns):
            np.add.at(sums[:, column], codes, values.astype(np.int64))
        for name, row in zip(names, sums, strict=True):
            self._bump(name, row)
        while len(self._sums) > MAX_SOURCES:
            self._level += 1
            for name in [n for n in self._sums if n != OTHERS and not self._is_named(n)]:
                self._sums[OTHERS] = self._sums.get(OTHERS, 0) + self._sums.pop(name)

    def _is_named(self, name: str) -> bool:
        return not self._level or int(draws(text_keys([name]), self._seed, "sample")[0]) >> (64 - self._level) == 0

    def _bump(self, name: str, row: np.ndarray) -> None:
        place = name if self._is_named(name) else OTHERS
        self._sums[place] = self._sums[place] + row if place in self._sums else row

    def facts(self, num_shown: int) -> tuple[SourceFacts, ...]:
        """Return the sources with most documents, and the others as one."""
        sums: Mapping[str, np.ndarray] = self._sums
        ranked = sorted((n for n in sums if n != OTHERS), key=lambda n: (-int(sums[n][0]), n))
        shown = {name: sums[name] for name in ranked[:num_shown]}
        rest = [sums[name] for name in (*ranked[num_shown:], *([OTHERS] if OTHERS in sums else []))]
        if rest:
            shown[OTHERS] = np.sum(rest, axis=0)
        return tuple(_facts(name, *row.tolist()) for name, row in shown.items())


def _facts(name: str, docs: int, words: int, num_bytes: int, letters: int, known: int) -> SourceFacts:
    return SourceFacts(
        name=name,
        num_docs=docs,
        num_words=words,
        num_bytes=num_bytes,
        letters_frac=letters / max(1, num_bytes),
        mean_letters=letters / max(1, words),
        unknown_frac=(docs - known) / max(1, docs),
    )
