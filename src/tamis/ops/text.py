"""Spans in text: sentences, words, lines. Character offsets, stop exclusive; every pattern is linear."""

import re

import pyarrow as pa
import pyarrow.compute as pc

_ABBREVIATIONS = frozenset(
    word
    for line in (
        "mr mrs ms dr prof st vs etc fig figs eq eqs no nos vol sec al ed eds pp ch dept est inc ltd co jr sr",
        "e.g i.e cf approx jan feb mar apr jun jul aug sep sept oct nov dec",
    )
    for word in line.split()
)
# A mark, closing quotes or brackets, a blank, then a capital, digit or opening mark; or a blank line.
_BREAK = re.compile(r"(?:[.!?][\"'”’)\]]{0,3}[ \t\n]|[。！？]|\n[ \t]{0,8}\n)")
_WORD = re.compile(r"\w+")
_LAST_WORD = re.compile(r"[\w.]{1,12}$")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, stop) of each sentence, blanks at both ends left out. O(characters).

    A full stop ends a sentence when a blank and then no lower-case letter follow, and the word before
    it is neither a known abbreviation nor a single letter.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _BREAK.finditer(text):
        stop = match.start() + (0 if text[match.start()] == "\n" else len(match.group().rstrip()))
        if text[match.start()] == "." and not _ends_sentence(text, match.start(), match.end()):
            continue
        _append_trimmed(spans, text, start, stop)
        start = match.end()
    _append_trimmed(spans, text, start, len(text))
    return spans


def _ends_sentence(text: str, dot: int, following: int) -> bool:
    after = text[following : following + 1]
    if after.islower():
        return False
    before = _LAST_WORD.search(text, max(0, dot - 12), dot)
    word = before.group().lower() if before else ""
    return not (word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()))


def _append_trimmed(spans: list[tuple[int, int]], text: str, start: int, stop: int) -> None:
    while start < stop and text[start].isspace():
        start += 1
    while stop > start and text[stop - 1].isspace():
        stop -= 1
    if stop > start:
        spans.append((start, stop))


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of word characters."""
    return [m.span() for m in _WORD.finditer(text)]


def words(text: str) -> list[str]:
    """Return the lower-cased runs of word characters."""
    return _WORD.findall(text.lower())


def num_words(text: str) -> int:
    """Count the runs of word characters."""
    return sum(1 for _ in _WORD.finditer(text))


def normalised(text: str) -> str:
    """Return the words alone, lower-cased, joined by single blanks: equal for texts that differ in case and marks."""
    return " ".join(words(text))


def cut(text: str, start: int, stop: int) -> str:
    """Return ``text`` without [start, stop), with one blank where the two ends meet between blanks."""
    before, after = text[:start], text[stop:]
    if before and after and before[-1].isspace() and after[0].isspace():
        after = after.lstrip(" ")
    if not before:
        return after.lstrip()
    return before.rstrip() if not after else before + after


def joined(batch: pa.RecordBatch | pa.Table) -> pa.Array:
    """Return each document's title and text joined by a newline; the text alone where there is no title.

    This is what scores, keys and counts of a document are taken from.
    """
    text = _whole(batch.column("text"))
    if "title" not in batch.schema.names:
        return text
    title = _whole(batch.column("title"))
    lengths = pc.fill_null(pc.binary_length(title), 0)
    if not pc.any(pc.greater(lengths, 0)).as_py():
        return text
    newline = pa.scalar("\n", pa.large_string())
    both = pc.binary_join_element_wise(title, text, newline, null_handling="replace", null_replacement="")
    return pc.if_else(pc.greater(lengths, 0), both, pc.fill_null(text, ""))


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(column, pa.ChunkedArray):  # combine_chunks keeps an empty column wrapped in some versions
        column = pa.array([], column.type)
    return column.cast(pa.large_string())
