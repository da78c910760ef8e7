"""Pairs: what every maker of the room returns, and the spans of text they are made from.

Source: tamis design (conventions of the pair makers): a query names its source document and span; a
positive is a view of its document, the text minus a cut; nothing is copied and nothing dropped uncounted.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from tamis.data.columns import MAX_ID_BYTES
from tamis.data.corpus import Corpus
from tamis.data.queries import Qrels, Queries
from tamis.data.settings import Settings
from tamis.ops.bytes import text_hashes
from tamis.ops.hashing import splitmix64, text_keys, uniform

TEXT = pa.large_string()
BATCH_DOCS = 2048
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NOTHING = (0, 0)
"""A cut of no text: the query stands in the metadata or section, which no view shows."""


@dataclass(frozen=True)
class Positive:
    """A document that answers a query, as a view: its text minus [cut_start, cut_stop), its title or not."""

    doc_id: str
    cut_start: int = -1
    cut_stop: int = -1
    cut_title: bool = False


@dataclass
class Pairs:
    """Queries with their positives, and how many candidates were dropped for which reason."""

    queries: Queries
    qrels: Qrels
    dropped: Counter[str] = field(default_factory=Counter)


class PairBuilder:
    """Collects the pairs of one maker in the order in which they are added."""

    def __init__(self, label: str) -> None:
        """Start empty; ``label`` becomes the ``method`` column and the head of each query id."""
        self.label = label
        self.dropped: Counter[str] = Counter()
        self._queries: list[dict[str, Any]] = []
        self._qrels: list[dict[str, Any]] = []

    def add(
        self,
        text: str,
        source: str,
        number: int,
        positives: Iterable[Positive],
        *,
        span: tuple[int, int] = (-1, -1),
        relevance: int = 1,
    ) -> None:
        """Add a query made from document ``source``; ``number`` tells its queries apart.

        Args:
          text: the query, as it is written.
          source: document id.
          number: part of the query id; must not depend on the order of documents.
          positives: views of the documents that answer it.
          span: characters of the source's text that the query is; -1 where it is not a span.
          relevance: grade of the positives.
        """
        query_id = self._query_id(source, number)
        row = {"query_id": query_id, "text": text, "method": self.label, "source_doc_id": source}
        self._queries.append(row | {"start": span[0], "stop": span[1]})
        for p in positives:
            view = {"cut_start": p.cut_start, "cut_stop": p.cut_stop, "cut_title": p.cut_title}
            self._qrels.append({"query_id": query_id, "doc_id": p.doc_id, "relevance": relevance} | view)

    def _query_id(self, source: str, number: int) -> str:
        """Label, source and number; hashed where a long id or an odd field name makes that no id."""
        plain = f"{self.label}:{source}:{number}"
        if len(plain.encode()) <= MAX_ID_BYTES and not _CONTROL.search(plain):
            return plain
        return f"{self.label.split('.')[0]}:{xxhash.xxh3_128_hexdigest(f'{self.label}:{source}'.encode())}:{number}"

    def pairs(self) -> Pairs:
        """Return what was collected."""
        return Pairs(Queries.from_records(self._queries), Qrels.from_records(self._qrels), self.dropped)


class PairMaker(Settings, ABC):
    """A method of this room: frozen settings with the verb ``generate``."""

    method: str

    @property
    def label(self) -> str:
        """What the maker's queries are filed under."""
        return self.method

    @abstractmethod
    def mine(self, corpus: Corpus, *, seed: int) -> Pairs:
        """Make the pairs and count what was dropped.

        Args:
          corpus: documents or passages.
          seed: of the keyed choices; the result does not depend on the order of the documents.
        """

    def generate(self, corpus: Corpus, generator: None = None, *, seed: int) -> tuple[Queries, Qrels]:
        """Make queries and their positives; `mine` also tells what was dropped and why.

        Args:
          corpus: documents or passages.
          generator: unused; makers that write with a language model take one.
          seed: of the keyed choices.
        """
        made = self.mine(corpus, seed=seed)
        return made.queries, made.qrels


def documents(corpus: Corpus, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the documents as dicts of the given columns, a batch in memory at a time."""
    for batch in corpus.batches(columns, batch_docs=BATCH_DOCS):
        yield from batch.to_pylist()


def key_of(doc_id: str, number: int = 0) -> np.uint64:
    """Key of a document's draw: the same whatever the order of documents."""
    return np.uint64(splitmix64(text_keys([doc_id]) + np.uint64(number))[0])


def keyed_order(doc_id: str, num: int, seed: int, stream: str = "mine") -> np.ndarray:
    """Return a permutation of range(num), keyed by document and seed; a longer one keeps the relative order."""
    with np.errstate(over="ignore"):
        keys = splitmix64(key_of(doc_id) + np.arange(num, dtype=np.uint64))
    return np.argsort(uniform(keys, seed, stream), kind="stable")


def keyed_uniform(doc_ids: Sequence[str], seed: int, stream: str = "mine") -> np.ndarray:
    """Return float64 [n] in (0, 1), one a document id."""
    return uniform(text_keys(doc_ids), seed, stream)


def long_enough(num_tokens: np.ndarray, num_spaceless: np.ndarray, min_words: int) -> np.ndarray:
    """Say for each text whether it has ``min_words`` words; two characters of a script without blanks are one."""
    enough: np.ndarray = num_tokens - num_spaceless / 2 >= min_words
    return enough


def count_words(texts: Sequence[str] | pa.Array) -> np.ndarray:
    """float64 [n]: words of each text, two characters of a script without blanks counted as one."""
    _, num_tokens, num_spaceless = text_hashes(texts)
    words: np.ndarray = num_tokens - num_spaceless / 2
    return words


def leading_copy(text: str, phrase: str) -> tuple[int, int]:
    """Return the span of ``phrase`` at the start of ``text``, marks and case ignored; (-1, -1) when it is not there.

    The marks and blanks that follow the copy belong to the span.
    """
    wanted = [c for c in phrase.lower() if c.isalnum()]
    if not wanted:
        return -1, -1
    matched = at = 0
    limit = min(len(text), 4 * len(phrase) + 64)
    while at < limit and matched < len(wanted):
        char = text[at].lower()
        if char == wanted[matched]:
            matched += 1
        elif char.isalnum():
            return -1, -1
        at += 1
    if matched < len(wanted) or (at < len(text) and text[at].isalnum()):
        return -1, -1
    while at < len(text) and not (text[at].isalnum() or text[at] in "([{<\"'“‘«`#*_$\\"):
        at += 1
    return 0, at


@dataclass(frozen=True)
class Candidate:
    """A query that several documents may share. ``unit`` is what makes a query ambiguous: a document or its parent."""

    text: str
    positive: Positive
    unit: str
    number: int = 0
    span: tuple[int, int] = (-1, -1)


def add_grouped(builder: PairBuilder, candidates: list[Candidate], *, max_units: int, max_positives: int = 20) -> None:
    """Add one query for each distinct text, with every document that has it as positive.

    Texts that differ in case, marks and blanks alone are one query. Its source is the lowest document id,
    so that the result does not depend on the order of documents. O(candidates log candidates).

    Args:
      builder: where the queries go and drops are counted: ``ambiguous_query`` for a text of more than
        max_units units, ``too_many_passages`` for one of more than max_positives documents.
      candidates: texts of at least one word, in document order.
      max_units: units that may share a query.
      max_positives: documents that may share a query.
    """
    if not candidates:
        return
    hashes, _, _ = text_hashes([c.text for c in candidates])
    _, group_of = np.unique(hashes, return_inverse=True)
    members: dict[int, list[Candidate]] = {}
    for group, candidate in zip(group_of.tolist(), candidates, strict=True):
        members.setdefault(group, []).append(candidate)
    for group in members.values():
        views = {c.positive.doc_id: c.positive for c in reversed(group)}
        if len({c.unit for c in group}) > max_units:
            builder.dropped["ambiguous_query"] += len(group)
        elif len(views) > max_positives:
            builder.dropped["too_many_passages"] += len(group)
    kept = {
        id(min(group, key=lambda c: (c.positive.doc_id.encode(), c.number))): group
        for group in members.values()
        if len({c.unit for c in group}) <= max_units and len({c.positive.doc_id for c in group}) <= max_positives
    }
    for candidate in candidates:
        if id(candidate) in kept:
            views = {c.positive.doc_id: c.positive for c in reversed(kept[id(candidate)])}
            positives = [views[d] for d in sorted(views, key=str.encode)]
            builder.add(candidate.text, candidate.positive.doc_id, candidate.number, positives, span=candidate.span)
