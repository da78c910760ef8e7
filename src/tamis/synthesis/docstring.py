"""Docstring to code: the first paragraph of a docstring is the query, the code without it the positive.

Source: bimodal pairs of CodeT5 (Wang et al. 2021, arXiv:2109.00859); CodeSearchNet (Husain et al. 2019,
arXiv:1909.09436).
"""

import ast
import re
import textwrap
import warnings
from inspect import cleandoc
from typing import Annotated, Literal

from pydantic import Field

from tamis.data.corpus import Corpus
from tamis.ops.text import sentence_spans, word_spans
from tamis.synthesis.fields import field_value
from tamis.synthesis.pairs import (
    NOTHING,
    Candidate,
    PairBuilder,
    PairMaker,
    Pairs,
    Positive,
    add_grouped,
    count_words,
    documents,
)

_QUOTED = re.compile(r":[ \t]*(?:#[^\n]*)?\n[ \t\n]*([rRuU]?)(\"\"\"|''')")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_LOOKS_LIKE_CODE = re.compile(r"^[ \t]*(?:@[\w.]+|async[ ]+def|def|class)\b", re.MULTILINE)


class DocstringPairs(PairMaker):
    """Ask for code with what its author wrote about it.

    The docstring comes from ``metadata.docstring``, or from the text where it is Python source. Wherever it
    stands in the text the positive leaves it out.

    Attributes:
      min_query_words: shortest description.
      max_query_words: longest; of a longer paragraph the first sentence is taken.
      max_docs_per_query: documents that may share a description; all of them are then positives.
      min_code_words: words that the code must have without the docstring.
    """

    method: Literal["docstring_pairs"] = "docstring_pairs"
    min_query_words: Annotated[int, Field(ge=1)] = 3
    max_query_words: Annotated[int, Field(ge=3)] = 64
    max_docs_per_query: Annotated[int, Field(ge=1)] = 3
    min_code_words: Annotated[int, Field(ge=0)] = 5

    def mine(self, corpus: Corpus, *, seed: int) -> Pairs:
        """Make the pairs; one pass, about 10,000 short functions a second.

        Args:
          corpus: documents, each a function, method or class.
          seed: unused; every maker takes it.

        Returns:
          Pairs with reasons ``no_docstring``, ``too_few_words``, ``too_many_words``, ``no_code``, ``ambiguous_query``.
        """
        builder = PairBuilder(self.label)
        candidates, rests = [], []
        for doc in documents(corpus, ["doc_id", "text", "metadata"]):
            in_text = find_docstring(doc["text"])
            written = field_value(doc["metadata"], "docstring")
            full = written if isinstance(written, str) and written.strip() else (in_text[2] if in_text else "")
            query = self._first_part(full)
            if not query:
                builder.dropped["no_docstring"] += 1
                continue
            start, stop = (in_text[0], in_text[1]) if in_text else NOTHING  # the view leaves the metadata out
            at = doc["text"].find(query, start, stop) if in_text else -1
            span = (at, at + len(query)) if at >= 0 else (-1, -1)
            candidates.append(Candidate(query, Positive(doc["doc_id"], start, stop), doc["doc_id"], 0, span))
            rests.append(doc["text"][: max(0, start)] + doc["text"][max(0, stop) :])
        usable = []
        counts = zip(candidates, count_words([c.text for c in candidates]), count_words(rests), strict=True)
        for candidate, words, code_words in counts:
            if words < self.min_query_words:
                builder.dropped["too_few_words"] += 1
            elif words > self.max_query_words:
                builder.dropped["too_many_words"] += 1
            elif code_words < self.min_code_words:
                builder.dropped["no_code"] += 1
            else:
                usable.append(candidate)
        add_grouped(builder, usable, max_units=self.max_docs_per_query)
        return builder.pairs()

    def _first_part(self, docstring: str) -> str:
        """First paragraph on one line; its first sentence where it is longer than max_query_words."""
        paragraph = _PARAGRAPH.split(cleandoc(docstring), maxsplit=1)[0]
        paragraph = " ".join(paragraph.split())
        if len(word_spans(paragraph)) <= self.max_query_words:
            return paragraph
        start, stop = sentence_spans(paragraph)[0]
        return paragraph[start:stop]


def find_docstring(text: str) -> tuple[int, int, str] | None:
    """Return (start, stop, content) of the first docstring in Python source: the whole literal, quotes and prefix.

    Source that does not parse (Python 2, a fragment) is searched for a triple quote after a colon.
    """
    if not _LOOKS_LIKE_CODE.search(text):
        return None
    found = _by_syntax(text)
    if found is not None:
        return found
    opening = _QUOTED.search(text)
    if opening is None:
        return None
    stop = text.find(opening.group(2), opening.end())
    if stop < 0:
        return None
    return opening.start(1), stop + 3, text[opening.end() : stop]


def _by_syntax(text: str) -> tuple[int, int, str] | None:
    dedented = textwrap.dedent(text)
    if dedented != text:  # offsets must be those of the text; a dedented method is found by its quotes
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in [tree, *tree.body]:
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            lines = _LINE.findall(text)  # the parser's line ends; str.splitlines knows more
            start = _offset(lines, first.lineno, first.col_offset)
            stop = _offset(lines, first.end_lineno or first.lineno, first.end_col_offset or 0)
            return start, stop, first.value.value
    return None


def _offset(lines: list[str], line: int, column_bytes: int) -> int:
    """Characters before a position that the parser gives as line (from 1) and byte column."""
    before = sum(len(part) for part in lines[: line - 1])
    return before + len(lines[line - 1].encode()[:column_bytes].decode())
