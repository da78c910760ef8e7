"""The words of a corpus as arrays: a keyed sample of its documents, in an order that only their content sets.

Source: tamis; the sample bounds time and memory of whatever is fitted on it.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np
import pyarrow as pa
from scipy import sparse

from tamis.data import Corpus
from tamis.ops.hashing import draws, text_keys
from tamis.training.pretrain.vocabulary import normalizer

MAX_DOCS = 200_000
MAX_CHARS = 1 << 29
"""Bounds of the sample; at least one document is taken."""
_WORD = re.compile(r"[^\W_]+")  # letters and numbers, as the tokenizer's pre-tokenizer splits


@dataclass(frozen=True)
class Words:
    """Word sequences of the sampled documents, exact duplicates left out.

    Attributes:
      vocabulary: distinct words [W], by falling count, then by code points.
      flat: int32 [N]: index into the vocabulary of every word of every document, end to end.
      offsets: int32 [D + 1]: where each document starts in ``flat``.
      num_docs: documents of the corpus.
      num_duplicates: documents equal to an earlier one.
    """

    vocabulary: list[str]
    flat: np.ndarray
    offsets: np.ndarray
    num_docs: int
    num_duplicates: int

    def __len__(self) -> int:
        """Number of sampled documents D."""
        return len(self.offsets) - 1

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 [W]: occurrences of each word."""
        return np.bincount(self.flat, minlength=len(self.vocabulary))

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """float32 [D, W]: occurrences of each word in each document."""
        return bags(self.flat, self.offsets, len(self.vocabulary))


def bags(flat: np.ndarray, offsets: np.ndarray, width: int) -> sparse.csr_array:
    """Return float32 [rows, width] counts from indices laid end to end."""
    ones = np.ones(len(flat), dtype=np.float32)
    matrix = sparse.csr_array((ones, flat.copy(), offsets), shape=(len(offsets) - 1, width))
    matrix.sum_duplicates()
    return matrix


def read_words(corpus: Corpus, *, seed: int) -> Words:
    """Read the words of a keyed sample of a corpus: two passes, O(characters).

    The result does not depend on the order of the documents nor on how they are cut into batches.
    """
    place, num_duplicates = _sample(corpus, seed)
    normalize = normalizer().normalize_str
    index: defaultdict[str, int] = defaultdict(count().__next__)
    texts_words: list[np.ndarray] = [np.empty(0, np.int32)] * int((place >= 0).sum())
    row = 0
    for batch in corpus.batches(["title", "text"]):
        wanted = place[row : row + len(batch)]
        row += len(batch)
        for target, text in zip(wanted.tolist(), texts_of(batch), strict=True):
            if target >= 0:
                found = _WORD.findall(normalize(text))
                texts_words[target] = np.fromiter(map(index.__getitem__, found), np.int32, len(found))
    offsets = np.zeros(len(texts_words) + 1, dtype=np.int32)
    np.cumsum([len(words) for words in texts_words], out=offsets[1:])
    flat = np.concatenate([np.empty(0, np.int32), *texts_words])
    vocabulary, flat = _canonical(list(index), flat)
    return Words(vocabulary, flat, offsets, len(place), num_duplicates)


def texts_of(batch: pa.RecordBatch) -> list[str]:
    """Return what is encoded of each document: its title, a line end and its text."""
    columns = batch.column("title").to_pylist(), batch.column("text").to_pylist()
    return [f"{title}\n{text}" if title else text for title, text in zip(*columns, strict=True)]


def _sample(corpus: Corpus, seed: int) -> tuple[np.ndarray, int]:
    """Return int64 [docs]: place of each document in the sample, -1 when left out; and the number of duplicates."""
    keys, sizes = [], []
    for batch in corpus.batches(["title", "text"]):
        texts = texts_of(batch)
        keys.append(text_keys(texts))
        sizes.append(np.fromiter(map(len, texts), np.int64, len(texts)))
    keys_D = np.concatenate([np.empty(0, np.uint64), *keys])
    sizes_D = np.concatenate([np.empty(0, np.int64), *sizes])
    _, first = np.unique(keys_D, return_index=True)
    order = first[np.argsort(draws(keys_D[first], seed, "table"), kind="stable")]
    fits = np.cumsum(sizes_D[order]) <= MAX_CHARS
    fits[:1] = True
    chosen = order[:MAX_DOCS][fits[:MAX_DOCS]]
    place = np.full(len(keys_D), -1, dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    return place, len(keys_D) - len(first)


def _canonical(words: list[str], flat: np.ndarray) -> tuple[list[str], np.ndarray]:
    counts = np.bincount(flat, minlength=len(words)).tolist()
    order = sorted(range(len(words)), key=lambda i: (-counts[i], words[i]))
    position = np.empty(len(words), dtype=np.int32)
    position[order] = np.arange(len(words), dtype=np.int32)
    return [words[i] for i in order], position[flat]
