"""Layout: which arms an engine has, and how they are put together over a corpus.

Source: tamis, docs/log.md 2026-11-20: words and their parts beside character 4-grams, title twice, a long list of
filler words left out of queries; the plain BM25 arm is the control and one half of untuned fusion.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import orjson
import pyarrow.compute as pc

from tamis.data import Corpus
from tamis.data.artefact import Staging
from tamis.data.settings import Settings
from tamis.search.arms import PASSAGES, Arm
from tamis.search.bm25 import BM25
from tamis.search.dense import Dense
from tamis.search.hubness import QueryBank
from tamis.search.index import SearchIndex
from tamis.search.lexical import Analyser, Code, Grams, Language, Neutral, Words
from tamis.search.plan import Plan

if TYPE_CHECKING:
    from tamis.data import Queries
    from tamis.models.encoder import Encoder

PLAIN, WORDS, GRAMS, DENSE = "bm25", "words", "grams", "dense"
FIELDS = "+fields"
_TITLE_WEIGHT = 2
_PROSE_WORD = re.compile(r"(?<!\S)[^\W\d_]{3,}(?=[\s,;:!?)]|\.?(?:\s|$))")
_MIN_FIELD_WORDS, _MIN_FIELD_SHARE, _SAMPLE_DOCS = 6.0, 0.2, 2000


class Layout(Settings):
    """The arms of an engine.

    Attributes:
      language: of stemmer and stop words; None for a neutral analysis.
      fields: metadata fields with prose that two further arms index besides title and text.
      hubness: correction of the dense arm, or None.
    """

    method: Literal["layout"] = "layout"
    language: Language | None = "english"
    fields: tuple[str, ...] = ()
    hubness: QueryBank | None = None

    @property
    def plain(self) -> BM25:
        """Stemmed BM25 over title and text: the control."""
        return BM25(analyser=Words(stemmer=self.language, stop_words=self.language) if self.language else Neutral())

    def _analyser(self, kind: str) -> Analyser:
        filler = self.language == "english"
        if kind == GRAMS:
            return Grams(stop_words=self.language, query_stop_words=filler)
        if self.language is None:
            return Neutral()
        return Code(stemmer=self.language, stop_words=self.language, query_stop_words=filler)

    def lexical(self) -> dict[str, BM25]:
        """Return the lexical arms by name, the control first."""
        arms = {PLAIN: self.plain}
        for kind in (WORDS, GRAMS):
            arms[kind] = BM25(title_weight=_TITLE_WEIGHT, analyser=self._analyser(kind))
        for kind in (WORDS, GRAMS) if self.fields else ():
            arms[kind + FIELDS] = arms[kind].model_copy(update={"metadata": self.fields})
        return arms

    def assemble(
        self,
        plan: Plan,
        documents: Corpus,
        passages: Corpus | None,
        encoder: "Encoder",
        *,
        bank: "Queries | None" = None,
        seed: int,
        staging: Staging | None = None,
    ) -> SearchIndex:
        """Index documents (and their passages) in all arms.

        Args:
          plan: how the arms will count.
          documents: what is found.
          passages: of the documents, where some are long: words, grams and vectors of passages are arms too,
            and the vectors are of passages alone.
          encoder: of the dense arm.
          bank: queries in the users' style, for the hubness correction.
          seed: of the correction's sample.
          staging: write vectors there while they are made, then everything (as `SearchIndex.save`).
        """
        arms: dict[str, Arm] = {}
        lexical = self.lexical()
        for name, method in lexical.items():
            arms[name] = Arm(method.index(documents, seed=seed), "documents")
        if passages is not None:
            for name in (WORDS, GRAMS):
                arms[name + PASSAGES] = Arm(lexical[name].index(passages, seed=seed), "passages")
        units = documents if passages is None else passages
        prefix = f"arm-{len(arms)}/"
        dense = Dense().index(units, encoder, seed=seed, staging=staging, prefix=prefix)
        if self.hubness is not None and bank is not None and len(bank):
            dense = dense.corrected(self.hubness.fit(dense, bank, seed=seed))
        arms[DENSE] = Arm(dense, "documents" if passages is None else "passages")
        passage_docs = (
            None
            if passages is None
            else documents.rows_of(passages.table(["parent_doc_id"])["parent_doc_id"].combine_chunks())
        )
        index = SearchIndex(documents.doc_ids, arms, plan, passage_docs)
        if staging is not None:
            index.save(staging)
            staging.counts |= {"texts_without_weight": len(dense.zero_rows)}
        return index


def weights(gram_share: float, dense: float, fields: float) -> dict[str, float]:
    """Return the arms' weights: dense, and the lexical rest shared among words and grams.

    Args:
      gram_share: of the lexical weight; the rest is for words.
      dense: weight of the dense arm.
      fields: share of each lexical arm that its twin with metadata fields takes.
    """
    found = {DENSE: dense}
    for kind, share in ((WORDS, 1 - gram_share), (GRAMS, gram_share)):
        found[kind] = (1 - dense) * share * (1 - fields)
        if fields:
            found[kind + FIELDS] = (1 - dense) * share * fields
    return {name: round(weight, 12) for name, weight in found.items()}


def with_passages(plan: Plan) -> Plan:
    """Return a plan fitted on passages for an engine of documents: lexical arms share with twins over passages."""
    found: dict[str, float] = {}
    for name, weight in plan.weights.items():
        if name in (WORDS, GRAMS):
            found |= {name: weight / 2, name + PASSAGES: weight / 2}
        else:
            found[name] = weight
    return plan.model_copy(update={"weights": found})


def prose_fields(corpus: Corpus, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the metadata fields that hold prose: at least six words a value, on a fifth of the documents.

    A word here has three letters or more and no mark inside: names, numbers, paths and addresses are no prose.
    Looks at the first 2,000 documents.

    Args:
      corpus: documents with metadata.
      without: fields that the queries were made from, of which nothing can be learnt.
    """
    words: dict[str, int] = {}
    values: dict[str, int] = {}
    docs: dict[str, int] = {}
    num_docs = 0
    for batch in corpus.batches(["metadata"]):
        for text in batch.column("metadata").to_pylist():
            num_docs += 1
            for name, value in orjson.loads(text or "{}").items():
                strings = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]
                if strings:
                    docs[name] = docs.get(name, 0) + 1
                for string in strings:
                    values[name] = values.get(name, 0) + 1
                    words[name] = words.get(name, 0) + len(_PROSE_WORD.findall(string))
        if num_docs >= _SAMPLE_DOCS:
            break
    banned = set(without)
    return tuple(
        sorted(
            name
            for name in words
            if name not in banned
            and words[name] / values[name] >= _MIN_FIELD_WORDS
            and docs[name] >= _MIN_FIELD_SHARE * num_docs
        )
    )


def sample(corpus: Corpus, keep: Iterable[str], num_docs: int, keys: np.ndarray, *, titles: bool) -> Corpus:
    """Return at most ``num_docs`` documents in memory, those named in ``keep`` among them, in corpus order.

    Args:
      corpus: any corpus.
      keep: ids that must be there.
      num_docs: size of the sample.
      keys: float64 [D], the others are taken by the smallest of these.
      titles: False blanks every title.
    """
    rows = np.arange(len(corpus))
    if len(corpus) > num_docs:
        needed = corpus.rows_of(sorted(set(keep)))
        rank = np.array(keys, dtype=np.float64)
        rank[needed[needed >= 0]] = -1.0
        rows = np.sort(np.argsort(rank, kind="stable")[: max(num_docs, len(needed))])
    table = corpus.take(rows)
    if not titles:
        at = table.schema.get_field_index("title")
        blank = pc.replace_substring_regex(table["title"], pattern="(?s).*", replacement="")
        table = table.set_column(at, "title", blank)
    return Corpus(table=table.combine_chunks())
