"""Passages: long documents cut at their own joints (headings, code, paragraphs, sentences), with offsets.

Source: the structure-first cutting of DOM-LM (Deng et al. 2022, arXiv:2201.10608); the packing rule is ours.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field, model_validator

from tamis.data.corpus import PASSAGE_SCHEMA, Corpus
from tamis.data.settings import Settings
from tamis.errors import DataError, RecipeError
from tamis.ops.text import sentence_spans

MAX_CHARS_A_WORD = 32
_WORD = re.compile(r"\w+")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(\S[^\n]*)")
_UNDERLINE = re.compile(r"(={3,}|-{3,})[ \t]*$")
_MAX_HEADING_CHARS = 200
_BATCH_PASSAGES = 4096


class Piece(NamedTuple):
    """A stretch of a document that is not cut further: [start, stop) in characters.

    Attributes:
      start: first character.
      stop: exclusive; the blanks that follow belong to it.
      num_words: runs of word characters in it.
      level: 1 to 6 for a heading, 0 otherwise.
      heading: the heading's words.
    """

    start: int
    stop: int
    num_words: int
    level: int = 0
    heading: str = ""


class Passages(Settings):
    """Split documents that are too long for one vector; each character belongs to exactly one passage.

    Attributes:
      max_words: a document, and a passage, has at most this many words (and 32 times as many characters).
      target_words: passages of a longer document are filled up to this.
    """

    method: Literal["passages"] = "passages"
    max_words: Annotated[int, Field(ge=16)] = 400
    target_words: Annotated[int, Field(ge=8)] = 160

    @model_validator(mode="after")
    def _check(self) -> "Passages":
        if self.target_words > self.max_words:
            raise RecipeError(f"passages: target_words {self.target_words} is above max_words {self.max_words}.")
        return self

    def is_long(self, text: str) -> bool:
        """Say whether a text is more than one passage; short texts are not even counted."""
        if len(text) < 2 * self.max_words:
            return False
        return len(text) > MAX_CHARS_A_WORD * self.max_words or len(_WORD.findall(text)) > self.max_words

    def needs_passages(self, corpus: Corpus) -> bool:
        """Say whether any document is long; stops at the first. O(bytes) at most."""
        return any(self.is_long(text) for batch in corpus.batches(["text"]) for text in batch["text"].to_pylist())

    def cut(self, corpus: Corpus) -> Iterator[pa.RecordBatch]:
        """Yield the passages of all documents in order, batches of PASSAGE_SCHEMA. O(characters), streaming.

        A passage's id is ``parent#ordinal``; equal documents have equal passages, so its group is
        ``group of the parent#ordinal``. A short document is one passage.

        Raises:
          DataError: the corpus is made of passages already.
        """
        if corpus.is_passages:
            raise DataError("the corpus holds passages already. Cut the documents it was made from.")
        rows: list[dict[str, Any]] = []
        for batch in corpus.batches():
            for document in batch.to_pylist():
                rows += self._rows(document)
                while len(rows) >= _BATCH_PASSAGES:
                    yield pa.RecordBatch.from_pylist(rows[:_BATCH_PASSAGES], schema=PASSAGE_SCHEMA)
                    rows = rows[_BATCH_PASSAGES:]
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema=PASSAGE_SCHEMA)

    def _rows(self, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
        parent, text = document["doc_id"], document["text"]
        for ordinal, (start, stop, section) in enumerate(self.spans(text, code=document["source"].endswith(".py"))):
            yield {
                **document,
                "doc_id": f"{parent}#{ordinal}",
                "text": text[start:stop],
                "group_id": f"{document['group_id']}#{ordinal}",
                "parent_doc_id": parent,
                "ordinal": ordinal,
                "start": start,
                "stop": stop,
                "section": section,
            }

    def spans(self, text: str, *, code: bool = False) -> list[tuple[int, int, str]]:
        """Return (start, stop, section) of each passage: contiguous, from 0 to the end of the text.

        Args:
          text: the document.
          code: source code: lines that start with ``#`` are no headings.
        """
        if not self.is_long(text):
            return [(0, len(text), "")]
        pieces = [p for block in _blocks(text, code=code) for p in self._fit(text, block)]
        return _with_sections(pieces, self._pack(pieces))

    def _fit(self, text: str, block: Piece) -> Iterator[Piece]:
        """Cut a block that is too long: paragraphs by sentence, sentences by words, words by characters."""
        is_code = block.level == 0 and _FENCE.match(text, block.start) is not None
        limit = self.max_words if is_code else self.target_words
        if self._fits(block, limit):
            yield block
            return
        cuts = _line_starts(text, block) if is_code else [s for s, _ in sentence_spans(text[block.start : block.stop])]
        offset = 0 if is_code else block.start
        inner = sorted({c + offset for c in cuts if block.start < c + offset < block.stop})
        for start, stop in zip([block.start, *inner], [*inner, block.stop], strict=True):
            yield from self._cut_hard(text, start, stop, limit)

    def _fits(self, piece: Piece, limit: int) -> bool:
        return piece.num_words <= limit and piece.stop - piece.start <= MAX_CHARS_A_WORD * limit

    def _cut_hard(self, text: str, start: int, stop: int, limit: int) -> Iterator[Piece]:
        piece = Piece(start, stop, len(_WORD.findall(text, start, stop)))
        if self._fits(piece, limit):
            yield piece
            return
        words = _WORD.finditer(text, start, stop)
        next(words, None)
        cuts = [m.start() for m in islice(words, limit - 1, None, limit)]  # one cut every `limit` words
        for first, last in zip([start, *cuts], [*cuts, stop], strict=True):
            width = MAX_CHARS_A_WORD * limit
            for begin in range(first, last, width):
                end = min(begin + width, last)
                yield Piece(begin, end, len(_WORD.findall(text, begin, end)))

    def _pack(self, pieces: list[Piece]) -> list[tuple[int, int]]:
        """Return [first, last) pieces of each passage.

        A passage closes before a piece that would take it beyond the target (the maximum while it is
        below a quarter of the target), and before a heading once it is half full. Headings at its end
        move to the next one. A last passage below a quarter of the target joins the one before it.
        """
        quarter = self.target_words // 4
        groups: list[tuple[int, int]] = []
        first = words = chars = 0
        for i, piece in enumerate(pieces):
            limit = self.max_words if words < quarter else self.target_words
            size = piece.stop - piece.start
            full = words + piece.num_words > limit or chars + size > MAX_CHARS_A_WORD * limit
            if i > first and (full or (piece.level and words >= self.target_words // 2)):
                last = self._before_headings(pieces, first, i)
                groups.append((first, last))
                first = last
                words = sum(p.num_words for p in pieces[first:i])
                chars = sum(p.stop - p.start for p in pieces[first:i])
            words += piece.num_words
            chars += size
        groups.append((first, len(pieces)))
        if len(groups) > 1 and words < quarter:
            (start, _), (_, end) = groups[-2:]
            joined = Piece(pieces[start].start, pieces[-1].stop, sum(p.num_words for p in pieces[start:end]))
            if self._fits(joined, self.max_words):
                groups[-2:] = [(start, end)]
        return groups

    def _before_headings(self, pieces: list[Piece], first: int, stop: int) -> int:
        """Return where to close [first, stop): before its last headings, if they and the next piece fit one passage."""
        last = stop
        while last > first and pieces[last - 1].level:
            last -= 1
        together = Piece(pieces[last].start, pieces[stop].stop, sum(p.num_words for p in pieces[last : stop + 1]))
        return last if last > first and self._fits(together, self.max_words) else stop


def _with_sections(pieces: list[Piece], groups: list[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """Name the headings above each passage, its own first heading among them."""
    path: list[tuple[int, str]] = []
    spans = []
    for first, last in groups:
        section = ""
        named = False
        for piece in pieces[first:last]:
            if piece.level:
                path = [*(h for h in path if h[0] < piece.level), (piece.level, piece.heading)]
            elif not named:
                section, named = " > ".join(h for _, h in path), True
        section = section if named else " > ".join(h for _, h in path)
        spans.append((pieces[first].start, pieces[last - 1].stop, section))
    return spans


def _line_starts(text: str, block: Piece) -> list[int]:
    starts, at = [], text.find("\n", block.start, block.stop)
    while at >= 0:
        starts.append(at + 1)
        at = text.find("\n", at + 1, block.stop)
    return starts


def _blocks(text: str, *, code: bool) -> Iterator[Piece]:
    """Cut a text into headings, fenced code and paragraphs; blank lines belong to the block before them."""
    marks = [(0, 0, "")]  # (start, level, heading) of each block; what precedes the first line's end is block 0
    fence = ""
    previous_blank, previous_text = True, ""
    position = 0
    for line in text.split("\n"):
        start, position = position, position + len(line) + 1
        blank = not line.strip()
        mark = None if blank or code else _FENCE.match(line)
        if fence:
            if mark and mark.group(1).startswith(fence) and not line.strip(" `~"):
                fence, previous_blank = "", True  # what follows is a new block
            continue
        heading = None if blank or mark or code else _ATX.match(line)
        if mark:
            fence = mark.group(1)
            marks.append((start, 0, ""))
        elif heading:
            marks.append((start, len(heading.group(1)), heading.group(2).rstrip(" #")[:_MAX_HEADING_CHARS]))
            previous_blank, previous_text = True, ""
            continue
        elif (
            not code
            and previous_text
            and (rule := _UNDERLINE.match(line))
            and marks[-1][0] + len(previous_text) + 1 == start
        ):
            level = 1 if rule.group(1)[0] == "=" else 2  # the line above stood alone: it is a heading
            marks[-1] = (marks[-1][0], level, previous_text.strip()[:_MAX_HEADING_CHARS])
            previous_blank, previous_text = True, ""
            continue
        elif previous_blank and not blank:
            marks.append((start, 0, ""))
        previous_text = "" if blank or mark else line
        previous_blank = blank
    starts = [m for i, m in enumerate(marks) if i + 1 == len(marks) or marks[i + 1][0] > m[0]]
    for i, (start, level, heading_text) in enumerate(starts):
        stop = starts[i + 1][0] if i + 1 < len(starts) else len(text)
        yield Piece(start, stop, len(_WORD.findall(text, start, stop)), level, heading_text)
