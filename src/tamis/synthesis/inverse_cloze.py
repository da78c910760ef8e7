"""Inverse Cloze: a sentence is the query, the rest of its document the positive.

Source: Lee et al. 2019, Latent Retrieval for Weakly Supervised Open Domain QA, arXiv:1906.00300.
"""

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.corpus import Corpus
from tamis.ops.bytes import text_hashes
from tamis.ops.hashing import uniform
from tamis.ops.text import sentence_spans, word_spans
from tamis.synthesis.pairs import BATCH_DOCS, TEXT, PairBuilder, PairMaker, Pairs, Positive, key_of, keyed_order

_KEEP = 1 << 20  # draws from here on decide whether a sentence stays in its document


class InverseCloze(PairMaker):
    """Take sentences out of documents and ask for the document.

    Works in any language with or without sentence marks: a sentence longer than ``max_query_words`` is
    taken in pieces of at most that many words.

    Attributes:
      per_doc: queries of one document.
      keep_frac: share of the queries whose sentence stays in the positive; the paper keeps 10 %. Development
        queries need 0.
      min_query_words: shortest sentence; two characters of a script without blanks count as one word.
      max_query_words: longest piece.
      min_rest_words: words that the document must have beyond the sentences taken.
      max_sentence_docs: documents that may hold the sentence; boilerplate is in more.
    """

    method: Literal["inverse_cloze"] = "inverse_cloze"
    per_doc: Annotated[int, Field(ge=1)] = 2
    keep_frac: Annotated[float, Field(ge=0, le=1)] = 0.1
    min_query_words: Annotated[int, Field(ge=1)] = 5
    max_query_words: Annotated[int, Field(ge=4)] = 64
    min_rest_words: Annotated[int, Field(ge=0)] = 10
    max_sentence_docs: Annotated[int, Field(ge=1)] = 3

    def mine(self, corpus: Corpus, *, seed: int) -> Pairs:
        """Make the pairs; two passes over the documents, 16 bytes a sentence in memory.

        Args:
          corpus: documents or passages; overlapping passages would still hold a cut sentence.
          seed: of the choice of sentences and of those that stay.

        Returns:
          Pairs with reasons ``too_few_sentences``, ``common_sentence``, ``too_little_left``.
        """
        common = self._common_sentences(corpus)
        builder = PairBuilder(self.label)
        for batch in corpus.batches(["doc_id", "text"], batch_docs=BATCH_DOCS):
            doc_ids, texts = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            spans, bounds = self._spans(texts)
            pieces = pa.array([texts[d][a:b] for d, a, b in spans], TEXT)
            hashes, tokens, spaceless = text_hashes(pieces)
            words = tokens - spaceless / 2
            is_common = np.isin(hashes, common)
            for row, doc_id in enumerate(doc_ids):
                part = slice(bounds[row], bounds[row + 1])
                own = [(a, b) for _, a, b in spans[part]]
                self._document(builder, doc_id, texts[row], own, words[part], is_common=is_common[part], seed=seed)
        return builder.pairs()

    def _spans(self, texts: list[str]) -> tuple[list[tuple[int, int, int]], list[int]]:
        """Return (document, start, stop) of every piece and where each document's pieces begin."""
        spans: list[tuple[int, int, int]] = []
        bounds = [0]
        for row, text in enumerate(texts):
            for start, stop in sentence_spans(text):
                # Too short to hold more words (two characters each), or plainly few blanks: no need to count.
                few = (
                    stop - start <= 2 * self.max_query_words or text.count(" ", start, stop) < self.max_query_words / 2
                )
                if few and (stop - start <= 2 * self.max_query_words or text[start:stop].isascii()):
                    spans.append((row, start, stop))
                    continue
                spans += [(row, a, b) for a, b in _pieces(text, start, stop, self.max_query_words)]
            bounds.append(len(spans))
        return spans, bounds

    def _common_sentences(self, corpus: Corpus) -> np.ndarray:
        """Sorted hashes of the pieces that occur in more than max_sentence_docs documents."""
        seen = [np.zeros(0, np.uint64)]
        for batch in corpus.batches(["text"], batch_docs=BATCH_DOCS):
            texts = batch.column(0).to_pylist()
            spans, _ = self._spans(texts)
            hashes, _, _ = text_hashes(pa.array([texts[d][a:b] for d, a, b in spans], TEXT))
            docs = np.array([d for d, _, _ in spans], dtype=np.uint64)
            seen.append(np.unique(np.stack([hashes, docs], axis=1), axis=0)[:, 0])
        values, counts = np.unique(np.concatenate(seen), return_counts=True)
        return values[counts > self.max_sentence_docs]

    def _document(
        self,
        builder: PairBuilder,
        doc_id: str,
        text: str,
        spans: list[tuple[int, int]],
        words: np.ndarray,
        *,
        is_common: np.ndarray,
        seed: int,
    ) -> None:
        usable = (words >= self.min_query_words) & (words <= self.max_query_words) & ~is_common
        if usable.sum() < 2:
            had_enough = ((words >= self.min_query_words) & (words <= self.max_query_words)).sum() >= 2
            builder.dropped["common_sentence" if had_enough else "too_few_sentences"] += 1
            return
        left, taken = float(words.sum()), 0
        for piece in keyed_order(doc_id, len(spans), seed, "crop"):
            if taken == self.per_doc:
                return
            if not usable[piece] or left - words[piece] < self.min_rest_words:
                continue
            left -= float(words[piece])
            start, stop = spans[piece]
            draw = uniform(np.array([key_of(doc_id, _KEEP + int(piece))]), seed, "crop")[0]
            positive = Positive(doc_id) if draw < self.keep_frac else Positive(doc_id, start, stop)
            builder.add(text[start:stop], doc_id, int(piece), [positive], span=(start, stop))
            taken += 1
        if not taken:
            builder.dropped["too_little_left"] += 1


def _pieces(text: str, start: int, stop: int, max_words: int) -> list[tuple[int, int]]:
    """Cut a sentence into runs of at most ``max_words`` words; two characters count as one where it has no blanks."""
    words = [(a + start, b + start) for a, b in word_spans(text[start:stop])]
    longest = 2 * max_words
    atoms = []
    for a, b in words:  # a run without blanks may be a whole clause
        atoms += [(x, min(x + longest, b)) for x in range(a, b, longest)] if b - a > longest else [(a, b)]
    pieces: list[tuple[int, int]] = []
    begin = 0
    size = 0.0
    for number, (a, b) in enumerate(atoms):
        weight = max(1.0, (b - a) / 2) if _is_spaceless(text[a]) else 1.0
        if number > begin and size + weight > max_words:
            pieces.append((atoms[begin][0], atoms[number - 1][1]))
            begin, size = number, 0.0
        size += weight
    if begin < len(atoms):
        pieces.append((atoms[begin][0], stop if stop - atoms[-1][1] <= 2 else atoms[-1][1]))
    return pieces


def _is_spaceless(char: str) -> bool:
    return "\u0e00" <= char <= "\u109f" or "\u1780" <= char <= "\u17ff" or "\u3005" <= char <= "\u9fff"
