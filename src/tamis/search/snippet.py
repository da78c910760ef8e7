"""Snippet: the stretch of a document that answers a query best, and where the query's words stand in it.

Source: tamis design; the densest window of distinct weighted terms, two pointers over the matches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tamis.data.settings import Settings
from tamis.search.lexical import Analysis


@dataclass(frozen=True)
class Window:
    """Characters start to stop (exclusive) of a text; highlights are such pairs within the text as well."""

    start: int
    stop: int
    highlights: tuple[tuple[int, int], ...]


class Snippet(Settings):
    """Choose the window with the largest sum of weights of distinct query terms; of equal ones the first.

    Attributes:
      max_chars: length of the window.
    """

    method: Literal["snippet"] = "snippet"
    max_chars: Annotated[int, Field(ge=20)] = 240

    def window(self, text: str, query: str, analyser: Analysis, weights: Mapping[str, float] | None = None) -> Window:
        """Find the window. O(characters of the text).

        Args:
          text: a document's text.
          query: what was asked.
          analyser: that of the index, so that a highlight is what matched.
          weights: term -> weight (its idf); 1 for those left out.

        Returns:
          The window, cut at blanks; the text's beginning when nothing matches.
        """
        terms = set(analyser.query_terms(query))
        hits = [
            (a, b, terms.intersection(found)) for a, b, found in analyser.spans(text) if not terms.isdisjoint(found)
        ]
        first, last = self._best(hits, weights or {})
        if first < 0:
            start, stop = 0, min(len(text), self.max_chars)
        else:
            spare = max(0, self.max_chars - (hits[last][1] - hits[first][0]))
            start = max(0, hits[first][0] - spare // 3)
            stop = min(len(text), start + self.max_chars)
            start = max(0, min(start, stop - self.max_chars))
        start, stop = _at_blanks(text, start, stop, hits[first][0] if first >= 0 else start)
        return Window(start, stop, tuple((a, b) for a, b, _ in hits if a >= start and b <= stop))

    def _best(self, hits: Sequence[tuple[int, int, set[str]]], weights: Mapping[str, float]) -> tuple[int, int]:
        """Return the first and last match of the best window, (-1, -1) without matches."""
        counts: dict[str, int] = {}
        best, value, total, first = (-1, -1), -1.0, 0.0, 0
        for last, (_, stop, found) in enumerate(hits):
            for term in found:
                counts[term] = counts.get(term, 0) + 1
                total += weights.get(term, 1.0) if counts[term] == 1 else 0.0
            while first < last and stop - hits[first][0] > self.max_chars:
                for term in hits[first][2]:
                    counts[term] -= 1
                    total -= weights.get(term, 1.0) if counts[term] == 0 else 0.0
                first += 1
            if total > value + 1e-9:
                best, value = (first, last), total
        return best


def _at_blanks(text: str, start: int, stop: int, match: int) -> tuple[int, int]:
    """Move both ends inwards to blanks, by at most 30 characters, never past the first match."""
    if start > 0:
        blank = next((i for i in range(start, min(start + 30, match)) if text[i].isspace()), -1)
        start = blank + 1 if blank >= 0 else start
    if stop < len(text):
        blank = next((i for i in range(stop, max(stop - 30, match, start), -1) if text[i].isspace()), -1)
        stop = blank if blank > start else stop
    return start, stop
