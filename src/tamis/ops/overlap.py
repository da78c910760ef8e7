"""Protected texts looked up in many documents: which share of an item's word n-grams a document holds.

Source: 13-gram overlap (Brown et al. 2020, arXiv:2005.14165); coverage of the item rather than of the paragraph
and common n-grams: tamis (method card I8).
"""

from typing import NamedTuple

import numpy as np

from tamis.ops.bytes import Texts, character_tables, text_buffers

_FILTER_BITS_PER_GRAM = 32
_MIN_LOG_BITS = 16
_MAX_LOG_BITS = 30


class Pairs(NamedTuple):
    """Documents and items that share n-grams; one entry a pair, rows and then items ascending."""

    rows: np.ndarray  # int64: position in the batch
    items: np.ndarray  # int32
    evidence: np.ndarray  # int32: distinct grams of the item in the document that are not common
    matched: np.ndarray  # int32: with the common ones


class Common(NamedTuple):
    """Grams that are no evidence, in one source or anywhere; made by `Overlap.common`."""

    starts: np.ndarray  # int64 [S + 1]: source s has grams[starts[s]:starts[s + 1]], ascending
    grams: np.ndarray  # int32
    anywhere: np.ndarray  # uint8 [G]


class Index(NamedTuple):
    """The grams of all items, sorted, with filters that turn nearly every position of a document away."""

    grams: np.ndarray  # uint64 [G] sorted: hashes of the items' grams
    starts: np.ndarray  # int64 [G + 1]: gram i belongs to items[starts[i]:starts[i + 1]], ascending
    items: np.ndarray  # int32 [P]
    begins: np.ndarray  # int64 [P]: first word of the gram in its item, counted over all items' words
    item_widths: np.ndarray  # int32 [Q]: words in each gram of the item
    width: int  # words in a gram of a long item
    bits: np.ndarray  # uint64: bitmap over the high bits of the long grams; one word where there are none
    shift: int  # 64 - log2(bits of the bitmap)
    head_width: int  # words in the head of a short item
    heads: np.ndarray  # uint64 [H] sorted: hashes of the short items' first words
    head_lengths: np.ndarray  # int64 [H]: bit L is set where a short item of L words has that head
    head_bits: np.ndarray
    head_shift: int


class Overlap:
    """Items prepared for lookup. A gram is a run of ``num_tokens`` words; a shorter item is one gram.

    A gram counts when at least ``min_letter_tokens`` of its words hold a letter, so that tables of numbers and
    one-word stubs match nothing. Case, marks, blanks and line ends are ignored.

    Attributes:
      num_items: Q.
      num_grams: int32 [Q] distinct grams of each item; 0 where it cannot be found.
      num_tokens: int64 [Q] words of each item.
      total_grams: G, distinct grams of all items.
    """

    def __init__(self, items: Texts, *, num_tokens: int = 13, min_letter_tokens: int = 3) -> None:
        """Index the items; memory about 60 bytes a word of them, time about 20 MB/s.

        Args:
          items: Q texts.
          num_tokens: words in a gram, 2 to 62; shorter items are looked up as a whole.
          min_letter_tokens: words with a letter that a gram needs, 1 to ``num_tokens``; also the fewest words
            an item needs.
        """
        from tamis.ops import overlap_kernels as kernels

        self._item_bytes, offsets = text_buffers(items)
        hashes, begins, ends, letters, starts = kernels.word_spans(self._item_bytes, offsets, *character_tables())
        self._spans = np.stack([begins, ends])
        self.num_items, self.num_tokens = len(starts) - 1, np.diff(starts)
        widths = np.minimum(self.num_tokens, num_tokens).astype(np.int32)
        item, begin, gram = kernels.item_grams(hashes, letters, starts, num_tokens, min_letter_tokens)
        order = np.lexsort((begin, item, gram))
        item, begin, gram = item[order], begin[order], gram[order]
        first = np.r_[True, (gram[1:] != gram[:-1]) | (item[1:] != item[:-1])][: len(gram)]
        item, begin, gram = item[first], begin[first], gram[first]
        self.num_grams = np.bincount(item, minlength=self.num_items).astype(np.int32)
        grams, gram_starts = np.unique(gram, return_index=True)
        self.total_grams = len(grams)
        is_short = (self.num_tokens < num_tokens) & (self.num_grams > 0)
        heads, head_lengths = _heads(hashes, starts, np.flatnonzero(is_short), min_letter_tokens)
        long_grams = np.unique(gram[~is_short[item]])
        bits, shift = _bitmap(long_grams)
        head_bits, head_shift = _bitmap(heads)
        posting_starts = np.r_[gram_starts, len(gram)].astype(np.int64)
        self._index = Index(
            grams, posting_starts, item, begin, widths, num_tokens, bits, shift, min_letter_tokens,
            heads, head_lengths, head_bits, head_shift,
        )  # fmt: skip

    def grams_in(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct (row, gram) pairs of a batch: rows int64 and gram numbers int64, ascending."""
        from tamis.ops import overlap_kernels as kernels

        rows, grams = kernels.grams_in(*text_buffers(texts), *character_tables(), self._index)
        return rows, grams

    def common(self, sources: np.ndarray, grams: np.ndarray, num_sources: int, anywhere: np.ndarray) -> Common:
        """Bundle what is no evidence.

        Args:
          sources: int [C] source of each pair.
          grams: int [C] gram that is common in it.
          num_sources: S.
          anywhere: int, grams that are common in all sources.
        """
        order = np.lexsort((grams, sources))
        starts = np.searchsorted(np.asarray(sources, np.int64)[order], np.arange(num_sources + 1))
        everywhere = np.zeros(max(1, self.total_grams), np.uint8)
        everywhere[anywhere] = 1
        return Common(starts.astype(np.int64), np.asarray(grams, np.int32)[order], everywhere)

    def items_of(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return position in ``grams`` and item of every item that holds one of the grams."""
        starts, stops = self._index.starts[grams], self._index.starts[np.asarray(grams) + 1]
        which = np.repeat(np.arange(len(grams)), stops - starts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(stops - starts) - (stops - starts), stops - starts)
        return which, self._index.items[starts[which] + within]

    def pairs_in(self, texts: Texts, sources: np.ndarray, common: Common, needed: np.ndarray) -> Pairs:
        """Return the pairs of a batch whose matched grams, common ones included, reach what the item needs.

        Args:
          texts: n documents.
          sources: int [n], source of each, below the S of ``common``.
          common: what is no evidence.
          needed: int [Q], at least 1: matched grams from which a pair is returned.
        """
        from tamis.ops import overlap_kernels as kernels

        codes, least = np.ascontiguousarray(sources, np.int64), np.ascontiguousarray(needed, np.int32)
        found = kernels.pairs_in(*text_buffers(texts), *character_tables(), self._index, codes, common, least)
        return Pairs(*found)

    def locate(
        self, text: str, item: int, *, source: int, common: Common, with_common: bool = False
    ) -> tuple[int, int, bool]:
        """Return where a text holds an item: the longest run of its grams, the first of equals.

        Returns:
          First byte, end, and whether the words there are those of the item, character by character: False
          means two texts with one hash, or no gram at all (an empty span).
        """
        from tamis.ops import overlap_kernels as kernels

        data, offsets = text_buffers([text])
        begin, end, agrees = kernels.locate(
            data, offsets[0], offsets[1], *character_tables(), self._index, np.int32(item), source, common,
            with_common, self._item_bytes, self._spans,
        )  # fmt: skip
        return int(begin), int(end), bool(agrees)


def _heads(hashes: np.ndarray, starts: np.ndarray, short: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct hashes of the first words of the short items, and a bit for each of their lengths."""
    from tamis.ops import overlap_kernels as kernels

    found = kernels.head_hashes(hashes, starts, short, width)
    heads, inverse = np.unique(found, return_inverse=True)
    lengths = np.zeros(len(heads), np.int64)
    np.bitwise_or.at(lengths, inverse, np.int64(1) << np.diff(starts)[short])
    return heads, lengths


def _bitmap(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return a bitmap and its shift; a single word for no values at all."""
    from tamis.ops import overlap_kernels as kernels

    if not len(values):
        return np.zeros(1, np.uint64), 58
    wanted = int(np.ceil(np.log2(len(values) * _FILTER_BITS_PER_GRAM)))
    log_bits = min(max(wanted, _MIN_LOG_BITS), _MAX_LOG_BITS)
    return kernels.bitmap(values, log_bits), 64 - log_bits
