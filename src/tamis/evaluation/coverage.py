"""Coverage of queries: how many documents hold all content words of a query.

Source: Kandpal et al. 2023, Large Language Models Struggle to Learn Long-Tail Knowledge, arXiv:2211.08411
(method card E1, step 5).
"""

import math

import numpy as np
import pyarrow as pa

from tamis.data import Queries
from tamis.data.corpus import Documents
from tamis.data.settings import Settings
from tamis.evaluation.keyed_sample import pieces
from tamis.ops.bytes import token_hashes
from tamis.ops.language import stop_words
from tamis.ops.text import joined

TAIL, TORSO, HEAD, NO_WORDS = "tail", "torso", "head", "no content words"
MAX_TAIL = 1
MIN_HEAD = 100


class QueryFacts(Settings):
    """Queries against the corpus.

    Attributes:
      num_queries: how many there are; ``mean_words`` their mean length, ``longest`` the longest.
      seen_frac: share of their words that occur in any document.
      mean_idf: mean of ln(documents / documents with the word) over the words that occur.
      num_tail: queries of which at most one document holds all content words (no stop words);
        ``num_torso`` 2 to 99, ``num_head`` 100 and more; ``num_no_words`` without content words.
    """

    num_queries: int
    mean_words: float
    longest: int
    seen_frac: float
    mean_idf: float
    num_tail: int
    num_torso: int
    num_head: int
    num_no_words: int


class QueryCoverage:
    """Counts, over a corpus, the documents that hold all content words of each query."""

    def __init__(self, queries: Queries, language: str | None) -> None:
        """Prepare queries; content words are those that are no stop words of the language (None: all words)."""
        from scipy.sparse import csr_matrix

        texts = pa.array(queries.texts, pa.large_string())
        self.query_ids = queries.ids
        self._hashes, self._starts = token_hashes(texts)
        self._words = np.unique(self._hashes)
        stops = token_hashes(sorted(stop_words(language)))[0] if language else np.zeros(0, np.uint64)
        content = ~np.isin(self._hashes, stops)
        rows = np.repeat(np.arange(len(texts)), np.diff(self._starts))[content]
        pairs = np.unique(rows * max(1, len(self._words)) + np.searchsorted(self._words, self._hashes[content]))
        rows, terms = np.divmod(pairs, max(1, len(self._words)))
        shape = (max(1, len(self._words)), len(texts))
        self._terms = csr_matrix((np.ones(len(pairs), np.int32), (terms, rows)), shape=shape)
        self.num_terms = np.bincount(rows, minlength=len(texts))
        self.num_docs_with_word = np.zeros(len(self._words), np.int64)
        self.num_covering = np.zeros(len(texts), np.int64)
        self.num_docs = 0

    def add(self, hashes: np.ndarray, starts: np.ndarray) -> None:
        """Count n documents given as token hashes (words only)."""
        from scipy.sparse import csr_matrix

        num_docs, width = len(starts) - 1, max(1, len(self._words))
        self.num_docs += num_docs
        if not len(self._words):
            return
        places = np.minimum(np.searchsorted(self._words, hashes), width - 1)
        known = np.flatnonzero(self._words[places] == hashes)
        docs = np.repeat(np.arange(num_docs), np.diff(starts))[known]
        docs, terms = np.divmod(np.unique(docs * width + places[known]), width)
        self.num_docs_with_word += np.bincount(terms, minlength=width)
        held = csr_matrix((np.ones(len(docs), np.int32), (docs, terms)), shape=(num_docs, width)) @ self._terms
        full = held.data == self.num_terms[held.indices]
        self.num_covering += np.bincount(held.indices[full], minlength=len(self.num_covering))

    def read(self, corpus: Documents) -> "QueryCoverage":
        """Count all documents of a corpus; one pass."""
        for batch in corpus.batches(["title", "text"]):
            for piece in pieces(batch):
                self.add(*token_hashes(joined(piece)))
        return self

    def classes(self) -> dict[str, str]:
        """Return query id -> tail, torso, head or "no content words"."""
        names = np.where(self.num_covering >= MIN_HEAD, HEAD, np.where(self.num_covering > MAX_TAIL, TORSO, TAIL))
        names = np.where(self.num_terms == 0, NO_WORDS, names)
        return dict(zip(self.query_ids, names.tolist(), strict=True))

    def facts(self) -> QueryFacts:
        """Return the figures over all queries."""
        lengths = np.diff(self._starts)
        with_word = self.num_docs_with_word[np.searchsorted(self._words, self._hashes)]
        seen = with_word[with_word > 0]
        kinds = list(self.classes().values())
        idf = math.fsum(np.log(self.num_docs / seen).tolist()) / len(seen) if len(seen) else 0.0
        return QueryFacts(
            num_queries=len(lengths),
            mean_words=int(lengths.sum()) / max(1, len(lengths)),
            longest=int(lengths.max(initial=0)),
            seen_frac=len(seen) / max(1, len(with_word)),
            mean_idf=idf,
            num_tail=kinds.count(TAIL),
            num_torso=kinds.count(TORSO),
            num_head=kinds.count(HEAD),
            num_no_words=kinds.count(NO_WORDS),
        )
