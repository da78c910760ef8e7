"""Lines of many texts at memory speed: hashes that ignore case, digits and marks, and cutting spans out.

Source: line normalisation of CCNet (Wenzek et al. 2019, arXiv:1911.00359), in the form of method card K6.

Offsets are bytes of the text they speak of, stop exclusive; they never fall inside a character.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tamis.ops.bytes import Texts, character_tables, text_buffers

TERMINAL, FEW_WORDS, LONG_WORD, FIRST_PHRASE, OTHER_PHRASE = 1, 2, 4, 8, 16
"""Bits of `flags`."""


@dataclass(frozen=True)
class Lines:
    """The L lines of n texts; text i has lines first[i] up to first[i + 1]. An empty text has one empty line.

    Attributes:
      first: int64 [n + 1].
      hashes: uint64 [L]; 0 for a line without letters, digits or characters above U+007F.
      starts: int64 [L], byte of the text.
      stops: int64 [L], exclusive, the line end left out.
      chars: int32 [L], code points without the blanks at both ends.
      blank: bool [L].
    """

    first: np.ndarray
    hashes: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    chars: np.ndarray
    blank: np.ndarray

    def rows(self) -> np.ndarray:
        """int64 [L]: the text of each line."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))


@dataclass(frozen=True)
class Spans:
    """S spans of bytes, ascending by row and start, not overlapping.

    Attributes:
      rows: int64 [S], the text.
      starts: int64 [S].
      stops: int64 [S], exclusive.
    """

    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


def scan(texts: Texts) -> Lines:
    """Find and hash the lines. About 300 MB/s a core.

    A hash is that of the line's bytes with ASCII letters lower-cased, every digit as 0, and other ASCII but "_" left
    out: `Copyright 2023` and `(copyright 2024)` have one hash.

    Args:
      texts: n strings; null is empty.
    """
    from tamis.ops import line_kernels

    data, offsets = text_buffers(texts)
    first = line_kernels.count_lines(data, offsets)
    hashes, starts, stops, chars, blank = line_kernels.scan_lines(data, offsets, first)
    return Lines(first, hashes, starts, stops, chars, blank)


def mark_runs(lines: Lines, frequent: np.ndarray, *, min_chars: int, min_run: int = 2) -> np.ndarray:
    """Return bool [L]: the frequent lines to remove, and the blank lines between two of one run.

    Args:
      lines: of n texts.
      frequent: bool [L].
      min_chars: a frequent line of this length goes wherever it stands.
      min_run: so many frequent lines go together, with nothing but blank lines between them, whatever their length.
    """
    from tamis.ops import line_kernels

    marked: np.ndarray = line_kernels.mark_runs(frequent, lines.chars, lines.blank, lines.first, min_chars, min_run)
    return marked


def spans_of(lines: Lines, removed: np.ndarray) -> tuple[Spans, np.ndarray]:
    """Return a span for each removed line, and int64 [S] its number.

    A span takes along the line end after it; of a run up to the end of a text the first takes the one before it.

    Args:
      lines: of n texts.
      removed: bool [L].
    """
    numbers = np.flatnonzero(removed)
    rows = lines.rows()[numbers]
    is_last = numbers == lines.first[rows + 1] - 1
    following = lines.starts[np.minimum(numbers + 1, len(lines.starts) - 1)] if len(numbers) else numbers
    starts, stops = lines.starts[numbers].copy(), np.where(is_last, lines.stops[numbers], following)
    begins_run = np.r_[True, (numbers[1:] != numbers[:-1] + 1) | (rows[1:] != rows[:-1])][: len(numbers)]
    runs = np.cumsum(begins_run) - 1
    ends_text = np.zeros(len(numbers), dtype=bool)
    ends_text[runs[is_last]] = True  # by run
    first = begins_run & ends_text[runs]
    starts[first] = np.maximum(starts[first] - 1, 0)
    return Spans(rows, starts, stops), numbers


def merged(spans: Spans) -> Spans:
    """Return the spans with those that touch each other made one."""
    if not len(spans.rows):
        return spans
    joins = (spans.rows[1:] == spans.rows[:-1]) & (spans.starts[1:] <= spans.stops[:-1])
    begins = np.flatnonzero(np.r_[True, ~joins])
    ends = np.r_[begins[1:] - 1, len(spans.rows) - 1]
    return Spans(spans.rows[begins], spans.starts[begins], spans.stops[ends])


def flags(texts: Texts, lines: Lines, phrases: tuple[str, ...], *, min_words: int, max_word_chars: int) -> np.ndarray:
    """Return uint8 [L]: bits TERMINAL, FEW_WORDS, LONG_WORD, FIRST_PHRASE and OTHER_PHRASE of each line.

    Args:
      texts: n strings.
      lines: what `scan` gave for them.
      phrases: lower-case ASCII letters and blanks; found in any case. At least one.
      min_words: a line with fewer runs of non-blanks has FEW_WORDS.
      max_word_chars: a line with a longer run has LONG_WORD.
    """
    from tamis.ops import line_kernels

    data, offsets = text_buffers(texts)
    letters = np.frombuffer("".join(phrases).encode("ascii"), np.uint8)
    starts = np.cumsum([0, *map(len, phrases)])
    begins = np.zeros(256, np.bool_)
    begins[letters[starts[:-1]]] = True
    result: np.ndarray = line_kernels.line_flags(
        data, offsets, lines.first, lines.starts, lines.stops, character_tables()[0], letters, starts, begins,
        min_words, max_word_chars,
    )  # fmt: skip
    return result


def cut(texts: Texts, spans: Spans) -> pa.LargeStringArray:
    """Return the texts without the spans."""
    from tamis.ops import line_kernels

    data, offsets = text_buffers(texts)
    out, new = line_kernels.cut(data, offsets, spans.rows, spans.starts, spans.stops)
    return pa.LargeStringArray.from_buffers(len(new) - 1, pa.py_buffer(new), pa.py_buffer(out))


def excerpts(texts: Texts, spans: Spans) -> pa.LargeStringArray:
    """Return the S pieces of text inside the spans."""
    data, offsets = text_buffers(texts)
    starts = offsets[spans.rows] + spans.starts
    sizes = spans.stops - spans.starts
    new = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(sizes, out=new[1:])
    picked = data[np.repeat(starts - new[:-1], sizes) + np.arange(new[-1])]
    return pa.LargeStringArray.from_buffers(len(starts), pa.py_buffer(new), pa.py_buffer(picked))
