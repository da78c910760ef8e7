"""C4's line rules: keep the lines of a page that read like sentences, drop pages without enough of them.

Source: Raffel et al. 2020 (C4), arXiv:1910.10683, section 2.2.

Made for English web pages. Text wrapped at a fixed width loses most of its lines: a line in the middle of a sentence
ends without a mark; FineWeb (arXiv:2406.17557) leaves that rule out for what it costs, as ``need_terminal_mark`` does.
"""

import re
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus
from tamis.data.settings import Settings
from tamis.ingestion.quality import english_like
from tamis.ingestion.spans import Cleaned, Edited, collected, cut_batch
from tamis.ops import lines as line_ops
from tamis.ops import textstats

_PHRASES = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_CITATION = re.compile(rb"\[(?:[0-9]*|edit|citation needed)\]")
_REASONS = (
    (line_ops.FIRST_PHRASE, "javascript_line"),
    (line_ops.OTHER_PHRASE, "policy_line"),
    (line_ops.LONG_WORD, "line_with_long_word"),
    (line_ops.FEW_WORDS, "line_of_few_words"),
)
_FAULTS = line_ops.FIRST_PHRASE | line_ops.OTHER_PHRASE | line_ops.LONG_WORD | line_ops.FEW_WORDS


class C4Lines(Settings):
    """Remove lines that are no sentences and citation marks; drop pages of few sentences, braces or filler text.

    Documents recognised as another language than English, or in other letters, are left as they are.

    Attributes:
      need_terminal_mark: remove lines that do not end in . ? ! or a quotation mark, or that end in an ellipsis.
      min_line_words: words of a line, blanks between them; 3.
      max_word_chars: of a word of a line; 1,000.
      min_sentences: left in the document, or it is dropped (``too_few_sentences``); 5.
      drop_braces: drop a document with a "{" (``curly_braces``).
      drop_lorem_ipsum: drop a document with filler text (``lorem_ipsum``).
      remove_citations: cut ``[12]``, ``[edit]`` and ``[citation needed]`` out, before anything else.
    """

    method: Literal["c4_lines"] = "c4_lines"
    need_terminal_mark: bool = True
    min_line_words: Annotated[int, Field(ge=0)] = 3
    max_word_chars: Annotated[int, Field(ge=1)] = 1000
    min_sentences: Annotated[int, Field(ge=0)] = 5
    drop_braces: bool = True
    drop_lorem_ipsum: bool = True
    remove_citations: bool = True

    def clean(self, batch: pa.RecordBatch) -> Cleaned:
        """Clean a batch; nothing outside it is looked at. A blank line goes with the removed line before it."""
        texts = batch["text"]
        applies = english_like(texts)
        citations = self._citations(texts, applies)
        without = line_ops.cut(texts, citations)
        lines = line_ops.scan(without)
        flags = line_ops.flags(
            without, lines, _PHRASES, min_words=self.min_line_words, max_word_chars=self.max_word_chars
        )
        removed = (flags & _FAULTS != 0) & ~lines.blank
        if self.need_terminal_mark:
            removed |= ((flags & line_ops.TERMINAL) == 0) & ~lines.blank
        removed &= applies[lines.rows()]
        removed = _with_blanks(removed, lines)
        spans, numbers = line_ops.spans_of(lines, removed)
        names = _line_reasons(flags, removed, lines)[numbers]
        both, reasons = _combined(citations, spans, names.tolist())
        left = line_ops.cut(texts, both)
        return cut_batch(batch, both, reasons, self._drop_reasons(left, applies))

    def sift(self, corpus: Corpus, *, seed: int) -> Edited:
        """Clean all documents, each on its own. One pass, about 40 MB/s a core.

        Args:
          corpus: any documents.
          seed: unused; every sieve takes it.
        """
        return collected(corpus.schema, [self.clean(batch) for batch in corpus.batches()])

    def _citations(self, texts: pa.Array, applies: np.ndarray) -> line_ops.Spans:
        rows, starts, stops = [], [], []
        if self.remove_citations:
            has_bracket = np.asarray(pc.match_substring_regex(texts, r"\[([0-9]*|edit|citation needed)\]"))
            for row in np.flatnonzero(has_bracket & applies).tolist():
                for match in _CITATION.finditer(texts[row].as_py().encode()):
                    rows.append(row)
                    starts.append(match.start())
                    stops.append(match.end())
        return line_ops.Spans(*(np.array(column, dtype=np.int64) for column in (rows, starts, stops)))

    def _drop_reasons(self, left: pa.Array, applies: np.ndarray) -> list[str]:
        values = textstats.statistics(left)
        result = np.full(len(left), "", dtype=object)
        few = textstats.field(values, "sentences") < self.min_sentences
        result[applies & few] = "too_few_sentences"
        result[np.asarray(pc.equal(pc.binary_length(left), 0))] = "empty_text"
        if self.drop_braces:
            result[applies & (textstats.field(values, "braces") > 0)] = "curly_braces"
        if self.drop_lorem_ipsum:
            result[applies & (textstats.field(values, "lorem_ipsum") > 0)] = "lorem_ipsum"
        names: list[str] = result.tolist()
        return names


def _with_blanks(removed: np.ndarray, lines: line_ops.Lines) -> np.ndarray:
    """Add the blank lines whose last line before them, in the same text, is removed."""
    numbers = np.arange(len(removed))
    before = np.maximum.accumulate(np.where(lines.blank, -1, numbers)) if len(removed) else numbers
    inside = before >= lines.first[lines.rows()]
    result: np.ndarray = removed | (lines.blank & inside & removed[before])
    return result


def _line_reasons(flags: np.ndarray, removed: np.ndarray, lines: line_ops.Lines) -> np.ndarray:
    names = np.full(len(removed), "line_without_end_mark", dtype=object)
    for bit, name in reversed(_REASONS):
        names[(flags & bit) != 0] = name
    names[lines.blank & removed] = "blank_line"
    return names


def _combined(
    first: line_ops.Spans, second: line_ops.Spans, second_reasons: list[str]
) -> tuple[line_ops.Spans, list[str]]:
    """Return both in the original's bytes; ``second`` speaks of what ``first`` left and swallows those inside it."""
    found = []
    sizes = first.stops - first.starts
    for row in np.unique(first.rows).tolist():
        mine, other = first.rows == row, second.rows == row
        gone = np.cumsum(sizes[mine])
        at = first.starts[mine] - gone + sizes[mine]  # where each lies in what is left
        for column in (second.starts, second.stops):
            shift = np.r_[0, gone][np.searchsorted(at, column[other], side="left")]
            column[other] += shift
    for start, stop, row, reason in zip(second.starts, second.stops, second.rows, second_reasons, strict=True):
        found.append((int(row), int(start), int(stop), reason))
    starts, stops = _order(second)
    for row, start, stop in zip(first.rows.tolist(), first.starts.tolist(), first.stops.tolist(), strict=True):
        at = int(np.searchsorted(starts, (row << 40) + start, side="right")) - 1
        if at < 0 or stops[at] < (row << 40) + stop:
            found.append((row, start, stop, "citation_mark"))
    found.sort()
    columns = (np.array([item[i] for item in found], dtype=np.int64) for i in range(3))
    return line_ops.Spans(*columns), [item[3] for item in found]


def _order(spans: line_ops.Spans) -> tuple[np.ndarray, np.ndarray]:
    return (spans.rows << 40) + spans.starts, (spans.rows << 40) + spans.stops
