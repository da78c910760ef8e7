"""Representative word sets: of two word sets drawn from a document's language model the likelier is its query.

Source: Ma et al. 2021, PROP: Pre-training with Representative Words Prediction, arXiv:2010.10137. The sampling
vocabulary is the whole corpus's, exactly: p(w|d) is a mixture of the document's words and the background, so a
word is drawn from one or the other (the paper cuts the background to some 500 words a document).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus
from tamis.ops.hashing import splitmix64, text_keys, uniform
from tamis.synthesis.pairs import BATCH_DOCS, TEXT, PairBuilder, PairMaker, Pairs, Positive

_SMALL_CORPUS = 5000
_COMMON_FRAC = 0.2  # a word in more documents than this share is a stop word, in any language
_MIN_DOCS_FOR_COMMON = 20
_SPACELESS = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}]{2})"
_SPLIT = r"[^\p{L}\p{M}\p{N}_]+"
_DRAWS = np.uint64(1 << 12)  # draws of one word set


class PROP(PairMaker):
    """Draw keyword queries from a document's own word statistics; any language, any document with words.

    Text without blanks is taken in pairs of characters. Words in over 20 % of the documents are left out.

    Attributes:
      pairs_per_doc: queries of one document.
      mean_words: mean of the Poisson number of words; numbers under min_words are redrawn.
      min_words: fewest distinct words of a query; 1 in the paper.
      min_corpus_count: occurrences that a background word needs; None is 10, or 2 under 5,000 documents.
      score: ``likelihood``, sum of ln p(w|d), or ``log_odds`` against the background.
      subsample: word2vec's threshold against frequent words; None leaves it out. The paper uses 1e-4.
      worse_sets: also return the less likely set of each pair, judged 0, for a preference loss.
    """

    method: Literal["prop"] = "prop"
    pairs_per_doc: Annotated[int, Field(ge=1)] = 4
    mean_words: Annotated[float, Field(gt=0, le=20)] = 3.0
    min_words: Annotated[int, Field(ge=1, le=8)] = 2
    min_corpus_count: Annotated[int, Field(ge=1)] | None = None
    score: Literal["likelihood", "log_odds"] = "likelihood"
    subsample: Annotated[float, Field(gt=0)] | None = None
    worse_sets: bool = False

    def mine(self, corpus: Corpus, *, seed: int) -> Pairs:
        """Make the pairs; two passes, O(tokens), the counts of the words in memory.

        Args:
          corpus: documents or passages.
          seed: of the draws.

        Returns:
          Pairs with reasons ``no_words`` (documents), ``too_few_words`` (word sets), and where the worse set is
          returned too ``tie`` and ``same_words``.
        """
        builder = PairBuilder(self.label)
        model = _Background.of(corpus, self)
        for batch in corpus.batches(["doc_id", "text"], batch_docs=BATCH_DOCS):
            doc_ids = batch.column(0).to_pylist()
            counts = _Counts.of(_words(batch.column(1)), model.vocabulary)
            empty = np.bincount(counts.docs, minlength=len(doc_ids)) == 0
            builder.dropped["no_words"] += int(empty.sum())
            rows = np.flatnonzero(~empty)
            if len(rows):
                self._sample(builder, doc_ids, rows, counts, model=model, seed=seed)
        return builder.pairs()

    def _sample(
        self,
        builder: PairBuilder,
        doc_ids: list[str],
        rows: np.ndarray,
        counts: "_Counts",
        *,
        model: "_Background",
        seed: int,
    ) -> None:
        num_sets = 2 * self.pairs_per_doc
        keys_D = text_keys([doc_ids[r] for r in rows])
        keys_DS = splitmix64(keys_D[:, None] + (np.arange(num_sets, dtype=np.uint64) // np.uint64(2))[None] * _DRAWS)
        sides = (np.arange(num_sets) % 2).astype(np.uint64)
        length_DS = np.searchsorted(_poisson(self.mean_words, self.min_words), uniform(keys_DS, seed, "crop"))
        length_DS += self.min_words  # equal for both of a pair
        longest = int(length_DS.max())
        steps = np.arange(longest, dtype=np.uint64)
        keys_DSL = splitmix64(keys_DS + np.uint64(1) + sides[None])[:, :, None] + steps[None, None]
        used_DSL = np.broadcast_to(steps[None, None] < length_DS[:, :, None], keys_DSL.shape)
        owner_DSL = np.broadcast_to(rows[:, None, None], keys_DSL.shape)
        words_DSL = self._draw(keys_DSL, owner_DSL, counts, model, seed)
        score_DSL = model.log_scores(owner_DSL, words_DSL, counts, log_odds=self.score == "log_odds")
        score_DS = np.where(used_DSL, score_DSL, 0.0).sum(axis=2)
        for place, row in enumerate(rows):
            for pair in range(self.pairs_per_doc):
                sets = words_DSL[place, 2 * pair : 2 * pair + 2, : length_DS[place, 2 * pair]]
                scores = score_DS[place, 2 * pair : 2 * pair + 2]
                better = int(scores[1] > scores[0])
                reason = self._refused(sets, scores, better)
                if reason:
                    builder.dropped[reason] += 1
                    continue
                positive = [Positive(doc_ids[row])]
                builder.add(model.text(sets[better]), doc_ids[row], 2 * pair, positive)
                if self.worse_sets:
                    builder.add(model.text(sets[1 - better]), doc_ids[row], 2 * pair + 1, positive, relevance=0)

    def _draw(
        self, keys: np.ndarray, owner: np.ndarray, counts: "_Counts", model: "_Background", seed: int
    ) -> np.ndarray:
        """Draw a word for every key with probability in proportion to p(w|d) keep(w)."""
        weights = counts.tf * model.keep[counts.words]
        ends = np.cumsum(weights)
        first, last = np.searchsorted(counts.docs, owner), np.searchsorted(counts.docs, owner, side="right")
        before = np.where(first > 0, ends[first - 1], 0.0)
        own = ends[last - 1] - before
        background = model.mu * float((model.prior * model.keep).sum())
        u = uniform(keys, seed, "mine") * (own + background)
        inside = np.clip(np.searchsorted(ends, before + u, side="right"), first, last - 1)
        prior_ends = np.cumsum(model.prior * model.keep) * model.mu
        outside = np.minimum(np.searchsorted(prior_ends, u - own, side="right"), len(prior_ends) - 1)
        drawn: np.ndarray = np.where(u < own, counts.words[inside], outside)
        return drawn

    def _refused(self, sets: np.ndarray, scores: np.ndarray, better: int) -> str:
        """Why a pair of word sets is no example, "" when it is one."""
        if self.worse_sets and sorted(sets[0].tolist()) == sorted(sets[1].tolist()):
            return "same_words"
        if self.worse_sets and scores[0] == scores[1]:
            return "tie"
        return "too_few_words" if len(np.unique(sets[better])) < self.min_words else ""


def likelihood(tf: np.ndarray, num_words: np.ndarray, prior: np.ndarray, mu: float) -> np.ndarray:
    """p(w|d) = (tf + mu P(w|C)) / (|d| + mu), the Dirichlet-smoothed unigram model; element by element."""
    smoothed: np.ndarray = (tf + mu * prior) / (num_words + mu)
    return smoothed


def keep_share(share: np.ndarray, threshold: float) -> np.ndarray:
    """word2vec's subsampling: min(1, sqrt(t / f) + t / f) for words with share f of all occurrences."""
    kept: np.ndarray = np.minimum(1.0, np.sqrt(threshold / share) + threshold / share)
    return kept


def _poisson(mean: float, least: int) -> np.ndarray:
    """Cumulative probabilities of least, least + 1, ... of a Poisson number not below least."""
    most = int(mean + 12 * mean**0.5 + 12 + least)
    terms = mean ** np.arange(1, most) / np.cumprod(np.arange(1, most, dtype=np.float64))
    terms = terms[least - 1 :]
    return np.cumsum(terms / terms.sum())[:-1]


def _words(texts: pa.Array) -> pa.Array:
    """Lower-cased words of each text, as a list array."""
    lowered = pc.utf8_lower(texts.cast(TEXT))
    spaced = pc.replace_substring_regex(lowered, pattern=_SPACELESS, replacement=r" \1 ")
    return pc.split_pattern_regex(spaced, pattern=_SPLIT)


@dataclass(frozen=True)
class _Counts:
    """Words of a batch: for each (document, word) of the vocabulary its tf, sorted by document and word."""

    docs: np.ndarray
    words: np.ndarray
    tf: np.ndarray
    num_words: np.ndarray  # of the vocabulary, by document

    @classmethod
    def of(cls, words: pa.Array, vocabulary: pa.Array) -> "_Counts":
        """Count the words of a list array that are in the vocabulary."""
        docs = pc.list_parent_indices(words).to_numpy()
        codes = pc.fill_null(pc.index_in(pc.list_flatten(words), value_set=vocabulary), -1).to_numpy()
        known = codes >= 0
        size = max(1, len(vocabulary))
        pairs, tf = np.unique(docs[known] * size + codes[known], return_counts=True)
        lengths = np.bincount(docs[known], minlength=len(words)).astype(np.float64)
        return cls(pairs // size, pairs % size, tf.astype(np.float64), lengths)

    def tf_of(self, docs: np.ndarray, words: np.ndarray, size: int) -> np.ndarray:
        """Return the tf of the given (document, word) pairs, 0 where the document lacks the word."""
        keys, wanted = self.docs * size + self.words, docs * size + words
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found: np.ndarray = np.where(keys[at] == wanted, self.tf[at], 0.0)
        return found


@dataclass(frozen=True)
class _Background:
    """Statistics of the corpus: P(w|C) = df(w) / sum of df, over words that are neither rare nor in most documents."""

    vocabulary: pa.Array
    prior: np.ndarray
    keep: np.ndarray
    mu: float

    @classmethod
    def of(cls, corpus: Corpus, settings: PROP) -> "_Background":
        """Count words; words that nothing is left of after the rare and the common are allowed again."""
        parts = [pa.table({"w": pa.array([], TEXT), "cf": pa.array([], pa.int64()), "df": pa.array([], pa.int64())})]
        for batch in corpus.batches(["text"], batch_docs=BATCH_DOCS):
            lists = _words(batch.column(0))
            table = pa.table({"w": pc.list_flatten(lists).cast(TEXT), "d": pc.list_parent_indices(lists)})
            counted = table.group_by(["w", "d"]).aggregate([([], "count_all")])
            totals = counted.group_by("w").aggregate([("count_all", "sum"), ([], "count_all")])
            parts.append(totals.rename_columns(["w", "cf", "df"]))
        merged = pa.concat_tables(parts).group_by("w").aggregate([("cf", "sum"), ("df", "sum")])
        merged = merged.filter(pc.not_equal(merged["w"], "")).sort_by("w").combine_chunks()
        cf, df = merged["cf_sum"].to_numpy().astype(np.float64), merged["df_sum"].to_numpy().astype(np.float64)
        num_docs = len(corpus)
        least = settings.min_corpus_count or (2 if num_docs < _SMALL_CORPUS else 10)
        common = df > _COMMON_FRAC * num_docs if num_docs >= _MIN_DOCS_FOR_COMMON else np.zeros(len(df), bool)
        chosen = (cf >= least) & ~common
        for fallback in (cf >= least, ~common, np.ones(len(cf), bool)):
            if chosen.any():
                break
            chosen = fallback
        vocabulary = merged["w"].combine_chunks().filter(pa.array(chosen))
        vocabulary = vocabulary.chunk(0) if isinstance(vocabulary, pa.ChunkedArray) else vocabulary
        share = cf[chosen] / max(1.0, cf[chosen].sum())
        keep = np.ones(len(share)) if settings.subsample is None else keep_share(share, settings.subsample)
        mu = float(cf[chosen].sum() / max(1, num_docs))
        return cls(vocabulary, df[chosen] / max(1.0, df[chosen].sum()), keep, mu)

    def log_scores(self, docs: np.ndarray, words: np.ndarray, counts: _Counts, *, log_odds: bool) -> np.ndarray:
        """Return ln p(w|d), or ln p(w|d) / P(w|C), of (document, word) pairs of any shape."""
        tf = counts.tf_of(docs, words, len(self.vocabulary))
        p = likelihood(tf, counts.num_words[docs], self.prior[words], self.mu)
        scores: np.ndarray = np.log(p / self.prior[words]) if log_odds else np.log(p)
        return scores

    def text(self, words: np.ndarray) -> str:
        """The distinct words of a set in the order drawn."""
        distinct = list(dict.fromkeys(words.tolist()))
        return " ".join(self.vocabulary.take(pa.array(distinct)).to_pylist())
