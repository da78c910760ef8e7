"""Statistics of each document that quality rules compare with thresholds: words, lines, repetition, one pass.

Source: tamis design (method card I2); statistics of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), C4
(Raffel et al. 2020, arXiv:1910.10683) and FineWeb (Penedo et al. 2024, arXiv:2406.17557).

Words are the word tokens of `tamis.ops.bytes` (marks are no words; a character each where no blanks are written).
Lines are what is not blank between line ends, blanks at both ends left out; paragraphs are separated by blank lines.
"""

from functools import cache

import numpy as np
import pyarrow as pa

from tamis.ops.bytes import Texts, character_tables, text_buffers, token_hashes

FIELDS = (
    "chars",  # code points
    "words",
    "spaceless_words",  # single characters of scripts written without blanks
    "mean_word_chars",
    "hashes_per_word",  # "#"
    "ellipses_per_word",
    "alphabetic_word_frac",  # words with a letter; a word character above U+007F counts as one
    "stop_words",  # how many of STOP_WORDS occur
    "lines",
    "bullet_line_frac",  # starting with a bullet or a hyphen
    "ellipsis_line_frac",  # ending in an ellipsis
    "terminal_line_frac",  # ending in a mark that ends sentences, or in a quotation mark
    "short_line_frac",  # of at most 30 characters
    "line_ends_per_word",
    "duplicate_line_frac",  # lines that an earlier one equals
    "duplicate_line_char_frac",  # their characters, of the characters of all lines
    "duplicate_paragraph_frac",
    "duplicate_paragraph_char_frac",
    "top_2_gram_char_frac",  # blanks between the words included; 0 where none occurs twice
    "top_3_gram_char_frac",
    "top_4_gram_char_frac",
    "duplicate_5_gram_char_frac",  # scanned without overlap, word characters alone
    "duplicate_6_gram_char_frac",
    "duplicate_7_gram_char_frac",
    "duplicate_8_gram_char_frac",
    "duplicate_9_gram_char_frac",
    "duplicate_10_gram_char_frac",
    "sentences",  # marks . ! ? before a blank or the end, and the full stops of other scripts
    "braces",  # "{"
    "lorem_ipsum",  # 1 where the words occur, in any case
)
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


def statistics(texts: Texts) -> np.ndarray:
    """Return float32 [n, len(FIELDS)], one column a name of FIELDS. About 80 MB/s a core.

    A text without words or lines has 0 everywhere it could not be divided. Counts are exact to 2^24. A share in
    float32 is compared with a threshold in float32: 0.3 is then not more than 0.3.

    Args:
      texts: n strings; null is empty.
    """
    from tamis.ops import statistics_kernels

    result: np.ndarray = statistics_kernels.statistics(*text_buffers(texts), *character_tables(), _stop_hashes())
    return result


def table(texts: Texts) -> pa.Table:
    """Return `statistics` as a table with a float32 column for each of FIELDS."""
    return pa.table(dict(zip(FIELDS, np.ascontiguousarray(statistics(texts).T), strict=True)))


def field(values: np.ndarray, name: str) -> np.ndarray:
    """Return the column ``name`` of what `statistics` gave: float32 [n]."""
    column: np.ndarray = values[:, FIELDS.index(name)]
    return column


@cache
def _stop_hashes() -> np.ndarray:
    hashes, _ = token_hashes(list(STOP_WORDS))
    return hashes
