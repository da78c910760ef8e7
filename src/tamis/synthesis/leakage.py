"""Leakage: development queries whose words stand where training or tuning can read them.

Source: tamis design; measured cost of leaking queries: a fusion weight tuned on sentences that were still in
the documents fell to 0 for the better arm (method card C1 of the search half).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tamis.data.corpus import Corpus
from tamis.data.queries import Queries
from tamis.errors import DataError
from tamis.ops.bytes import Phrases, text_hashes
from tamis.synthesis.pairs import long_enough

MIN_WORDS = 4
_NUM_EXAMPLES = 5


@dataclass(frozen=True)
class Leak:
    """One leaking query and where its words were found: a document id or a training query id."""

    query_id: str
    kind: str  # "exact" or "contained"
    found_in: str


@dataclass(frozen=True)
class Report:
    """What the scan found.

    Attributes:
      num_queries: development queries looked at.
      num_exact: equal to a training query or to a document's title, at any length.
      num_contained: at least MIN_WORDS words, found as consecutive words in a text, title or training query.
      leaks: every leaking query once.
    """

    num_queries: int
    num_exact: int
    num_contained: int
    leaks: tuple[Leak, ...]

    @property
    def query_ids(self) -> set[str]:
        """Ids of the leaking queries."""
        return {leak.query_id for leak in self.leaks}

    @property
    def examples(self) -> tuple[Leak, ...]:
        """The first few leaks, for a message."""
        return self.leaks[:_NUM_EXAMPLES]


def leakage(dev_queries: Queries, train_queries: Queries, view_corpus: Corpus) -> Report:
    """Look for every development query in the training queries and in the corpus of views.

    The views of training positives are parts of the corpus of views, so they are covered. Case, marks and
    blanks are ignored. One pass over the corpus, about 200 MB/s; memory is one batch.

    Args:
      dev_queries: held-out queries.
      train_queries: what training will read as queries.
      view_corpus: the corpus as training and tuning read it (`apply_views`), the queries' own sources included.
    """
    scan = _Scan(dev_queries)
    train_ids = pa.array(train_queries.ids, pa.large_string())
    train_texts = pa.array(train_queries.texts, pa.large_string())
    scan.equal(train_texts, train_ids)
    scan.contained(train_texts, train_ids)
    for batch in view_corpus.batches(["doc_id", "title", "text"]):
        scan.equal(batch.column(1), batch.column(0))
        scan.contained(batch.column(1), batch.column(0))
        scan.contained(batch.column(2), batch.column(0))
    leaks = tuple(scan.found[row] for row in sorted(scan.found))
    num_exact = sum(leak.kind == "exact" for leak in leaks)
    return Report(len(dev_queries), num_exact, len(leaks) - num_exact, leaks)


class _Scan:
    """The first place of each development query that was found."""

    def __init__(self, queries: Queries) -> None:
        self._ids = queries.ids
        hashes, num_tokens, num_spaceless = text_hashes(queries.texts)
        self._hashes, self._has_words = hashes, num_tokens > 0
        self._is_long = long_enough(num_tokens, num_spaceless, MIN_WORDS)
        self._phrases = Phrases(queries.texts)
        self.found: dict[int, Leak] = {}

    def equal(self, texts: pa.Array, names: pa.Array) -> None:
        """Note the queries that have the same words as one of the texts."""
        hashes, _, _ = text_hashes(texts)
        known = np.flatnonzero(np.isin(hashes, self._hashes[self._has_words]))
        for place in known:
            for row in np.flatnonzero((self._hashes == hashes[place]) & self._has_words):
                self._note(int(row), "exact", names[int(place)].as_py())

    def contained(self, texts: pa.Array, names: pa.Array) -> None:
        """Note the long queries that stand in one of the texts."""
        places = self._phrases.first_in(texts)
        for row in np.flatnonzero((places >= 0) & self._is_long):
            self._note(int(row), "contained", names[int(places[row])].as_py())

    def _note(self, row: int, kind: str, where: str) -> None:
        self.found.setdefault(row, Leak(self._ids[row], kind, where))


def gate(report: Report) -> None:
    """Refuse to go on with a leaking development set.

    Raises:
      DataError: a leak remains; names the first few.
    """
    if report.leaks:
        listed = "; ".join(f"{leak.query_id} ({leak.kind} in {leak.found_in})" for leak in report.examples)
        raise DataError(
            f"development queries: {len(report.leaks)} of {report.num_queries} can be read in the training "
            f"material: {listed}. "
            "Drop these queries, or cut their text from the documents."
        )
