"""The most similar of many short texts, by Jaccard similarity of words or of characters, without comparing all.

Source: Chaudhuri, Ganti, Kaushik 2006 (prefix filter); Bayardo, Ma, Srikant 2007 (All-Pairs, rarest first).
"""

from typing import Literal, TypeAlias

import numpy as np

from tamis.ops.bytes import Texts, character_tables, text_buffers, token_hashes

CHAR_GRAM = 4
SetKind: TypeAlias = Literal["words", "chars"]


class SimilarTexts:
    """Short texts prepared for a similarity join: which of them is nearest to each text of a batch.

    Words are compared as sets; chars are all runs of CHAR_GRAM characters of the lower-cased words.
    """

    def __init__(self, items: Texts, kind: SetKind, min_jaccard: float) -> None:
        """Index the prefixes of Q texts: what two texts of that similarity cannot but share."""
        self._kind: SetKind = kind
        self._min_jaccard = min_jaccard
        values, self._starts = _sets(items, kind)
        self._vocabulary, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        self._ranks = np.empty(len(counts), np.int64)
        self._ranks[np.lexsort((self._vocabulary, counts))] = np.arange(len(counts))
        sizes = np.diff(self._starts)
        row = np.repeat(np.arange(len(sizes)), sizes)
        ranks = self._ranks[inverse]
        self._sets = ranks[np.lexsort((ranks, row))]
        prefixes = sizes - np.ceil(min_jaccard * sizes - 1e-9).astype(np.int64) + 1
        in_prefix = np.arange(len(row)) - self._starts[row] < prefixes[row]
        order = np.lexsort((row[in_prefix], self._sets[in_prefix]))
        self._postings = row[in_prefix][order]
        self._posting_starts = np.searchsorted(self._sets[in_prefix][order], np.arange(len(counts) + 1))

    def nearest(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """Return int64 [n] the item of highest Jaccard similarity (the first of equals; -1: below), and it [n]."""
        from tamis.ops import set_join_kernels as kernels

        item, similarity = kernels.most_similar(
            *_sets(texts, self._kind), self._vocabulary, self._ranks, self._sets, self._starts,
            self._posting_starts, self._postings, self._min_jaccard,
        )  # fmt: skip
        return item, similarity


def _sets(texts: Texts, kind: SetKind) -> tuple[np.ndarray, np.ndarray]:
    from tamis.ops import set_join_kernels as kernels

    if kind == "words":
        hashes, starts = token_hashes(texts)
    else:
        hashes, starts = kernels.char_grams(*text_buffers(texts), *character_tables(), CHAR_GRAM)
    values, value_starts = kernels.distinct(hashes, starts)
    return values, value_starts
