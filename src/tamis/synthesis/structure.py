"""Structure pairs: queries from a document's headings, and from its first passage for its other passages.

Source: Chang et al. 2020, Pre-training Tasks for Embedding-based Large-scale Retrieval, arXiv:2002.03932
(Body First Selection); headings as queries: tamis method card A2.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from tamis.data.corpus import Corpus
from tamis.ops.text import sentence_spans
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
    keyed_order,
)

# A heading line follows a blank line or begins the text: a comment inside code rarely does.
_HEADING = re.compile(r"(?:\A|(?<=\n))(#{1,6})[ \t]+([^\n]*?)[ \t#]*(?:\n|\Z)")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n\Z")
_FENCE = re.compile(r"^[ \t]{0,3}(?:```|~~~)", re.MULTILINE)


class Headings(PairMaker):
    """Ask for a document or passage with one of its headings; the positive leaves the heading line out.

    Attributes:
      per_doc: queries of one document (of one parent, for passages).
      path: ``leaf`` asks with the heading alone, ``full`` with title and all headings above it ("A > B > C").
      min_query_words: shortest heading.
      max_query_words: longest heading or path.
      max_docs_per_query: documents that may share a heading; all of them are then positives.
      max_docs_frac: a leaf heading in more documents than this share says nothing ("Introduction").
    """

    method: Literal["headings"] = "headings"
    per_doc: Annotated[int, Field(ge=1)] = 2
    path: Literal["leaf", "full"] = "leaf"
    min_query_words: Annotated[int, Field(ge=1)] = 2
    max_query_words: Annotated[int, Field(ge=1)] = 64
    max_docs_per_query: Annotated[int, Field(ge=1)] = 3
    max_docs_frac: Annotated[float, Field(gt=0, le=1)] = 0.01

    def mine(self, corpus: Corpus, *, seed: int) -> Pairs:
        """Make the pairs; one pass, the headings in memory.

        Args:
          corpus: documents with markdown ``#`` headings in their text, or passages with a ``section``.
          seed: of the choice of headings.

        Returns:
          Pairs with reasons ``no_heading``, ``generic_heading``, ``ambiguous_query``, ``too_few_words``,
          ``too_many_words``, ``over_per_doc``, ``too_many_passages``.
        """
        builder = PairBuilder(self.label)
        by_passage = corpus.is_passages
        columns = ["doc_id", "title", "text", *(["parent_doc_id", "section"] if by_passage else [])]
        candidates = []
        for doc in documents(corpus, columns):
            found = self._of_passage(doc) if by_passage else self._of_document(doc)
            if not found:
                builder.dropped["no_heading"] += 1
            candidates += found
        usable = []
        for candidate, words in zip(candidates, count_words([c.text for c in candidates]), strict=True):
            if words < self.min_query_words:
                builder.dropped["too_few_words"] += 1
            elif words > self.max_query_words:
                builder.dropped["too_many_words"] += 1
            else:
                usable.append(candidate)
        usable = self._without_generic(builder, usable, len(corpus))
        add_grouped(builder, self._capped(builder, usable, seed), max_units=self.max_docs_per_query)
        return builder.pairs()

    def _of_document(self, doc: dict[str, Any]) -> list[Candidate]:
        found = []
        for number, (path, start, stop, span) in enumerate(heading_lines(doc["text"])):
            full = self.path == "full"
            text = " > ".join([p for p in (doc["title"].strip(), *path) if p]) if full else path[-1]
            positive = Positive(doc["doc_id"], start, stop, cut_title=full and bool(doc["title"].strip()))
            found.append(Candidate(text, positive, doc["doc_id"], number, (-1, -1) if full else span))
        return found

    def _of_passage(self, doc: dict[str, Any]) -> list[Candidate]:
        section = (doc["section"] or "").strip()
        if not section:
            return []
        full = self.path == "full"
        title = doc["title"].strip()
        text = " > ".join(p for p in (title, section) if p) if full else section.split(" > ")[-1]
        own = heading_lines(doc["text"])
        first = own[0] if own and doc["text"][: own[0][1]].strip() == "" else None
        cut = (first[1], first[2]) if first else NOTHING  # the view leaves the section out
        span = first[3] if first and not full and first[0][-1] == text else (-1, -1)
        positive = Positive(doc["doc_id"], *cut, cut_title=full and bool(title))
        return [Candidate(text, positive, doc["parent_doc_id"], 0, span)]

    def _without_generic(self, builder: PairBuilder, candidates: list[Candidate], num_docs: int) -> list[Candidate]:
        if self.path == "full":
            return candidates
        units: dict[str, set[str]] = {}
        for c in candidates:
            units.setdefault(c.text.casefold(), set()).add(c.unit)
        limit = max(self.max_docs_per_query, self.max_docs_frac * num_docs)
        kept = [c for c in candidates if len(units[c.text.casefold()]) <= limit]
        if len(kept) < len(candidates):
            builder.dropped["generic_heading"] += len(candidates) - len(kept)
        return kept

    def _capped(self, builder: PairBuilder, candidates: list[Candidate], seed: int) -> list[Candidate]:
        """Keep per_doc distinct headings of each unit, by keyed order of the headings' words."""
        by_unit: dict[str, dict[str, list[int]]] = {}
        for place, c in enumerate(candidates):
            by_unit.setdefault(c.unit, {}).setdefault(c.text.casefold(), []).append(place)
        kept = set()
        for unit, places in by_unit.items():
            names = sorted(places)
            chosen = keyed_order(unit, len(names), seed)[: self.per_doc]
            kept |= {place for n in chosen for place in places[names[n]]}
        if len(kept) < len(candidates):
            builder.dropped["over_per_doc"] += len(candidates) - len(kept)
        return [c for place, c in enumerate(candidates) if place in kept]


def heading_lines(text: str) -> list[tuple[tuple[str, ...], int, int, tuple[int, int]]]:
    """Return the markdown headings outside code fences.

    Returns:
      For each (path of headings down to it, start and stop of its line, span of its words).
    """
    if "#" not in text:
        return []
    fences = [m.start() for m in _FENCE.finditer(text)]
    found: list[tuple[tuple[str, ...], int, int, tuple[int, int]]] = []
    above: list[tuple[int, str]] = []
    passed = 0
    for match in _HEADING.finditer(text):
        while passed < len(fences) and fences[passed] < match.start():
            passed += 1
        before = text[max(0, match.start() - 80) : match.start()].rstrip(" \t\r")
        stands_alone = not before.strip() or _BLANK_LINE.search(before) or (found and found[-1][2] == match.start())
        if passed % 2 or not match.group(2).strip() or not stands_alone:
            continue
        level, name = len(match.group(1)), match.group(2).strip()
        above = [(n, h) for n, h in above if n < level] + [(level, name)]
        start = match.start(2) + match.group(2).index(name)
        found.append((tuple(h for _, h in above), match.start(), match.end(), (start, start + len(name))))
    return found


class BodyFirst(PairMaker):
    """Ask with a sentence of a document's first passage for another passage of the same document.

    The other passages of the document are positives too, never negatives.

    Attributes:
      per_doc: queries of one parent document.
      min_query_words: shortest sentence.
      max_query_words: longest sentence.
      min_passages: passages that a document must have.
    """

    method: Literal["body_first"] = "body_first"
    per_doc: Annotated[int, Field(ge=1)] = 2
    min_query_words: Annotated[int, Field(ge=1)] = 5
    max_query_words: Annotated[int, Field(ge=1)] = 64
    min_passages: Annotated[int, Field(ge=2)] = 2

    def mine(self, corpus: Corpus, *, seed: int) -> Pairs:
        """Make the pairs; one pass, the first passages and all ids in memory.

        Args:
          corpus: passages; whole documents have no first passage.
          seed: of the choice of sentences and passages.

        Returns:
          Pairs with reasons ``no_passages``, ``too_few_passages``, ``too_few_sentences``.
        """
        builder = PairBuilder(self.label)
        if not corpus.is_passages:
            builder.dropped["no_passages"] += len(corpus)
            return builder.pairs()
        leads: dict[str, dict[str, Any]] = {}
        others: dict[str, list[tuple[int, str]]] = {}
        for doc in documents(corpus, ["doc_id", "text", "parent_doc_id", "ordinal"]):
            parent = doc["parent_doc_id"]
            lead = leads.setdefault(parent, doc)
            if doc["ordinal"] < lead["ordinal"]:
                others.setdefault(parent, []).append((lead["ordinal"], lead["doc_id"]))
                leads[parent] = doc
            elif lead is not doc:
                others.setdefault(parent, []).append((doc["ordinal"], doc["doc_id"]))
        for parent, lead in leads.items():
            rest = sorted(others.get(parent, []))
            if len(rest) + 1 < self.min_passages:
                builder.dropped["too_few_passages"] += 1
                continue
            self._add(builder, lead, [doc_id for _, doc_id in rest], seed)
        return builder.pairs()

    def _add(self, builder: PairBuilder, lead: dict[str, Any], others: list[str], seed: int) -> None:
        spans = sentence_spans(lead["text"])
        words = count_words([lead["text"][a:b] for a, b in spans])
        usable = [s for s, n in zip(spans, words, strict=True) if self.min_query_words <= n <= self.max_query_words]
        if not usable:
            builder.dropped["too_few_sentences"] += 1
            return
        targets = keyed_order(lead["doc_id"], len(others), seed, "mine")
        for number, pick in enumerate(keyed_order(lead["doc_id"], len(usable), seed, "crop")[: self.per_doc]):
            start, stop = usable[pick]
            target = others[targets[number % len(others)]]
            builder.add(lead["text"][start:stop], lead["doc_id"], int(pick), [Positive(target)], span=(start, stop))
