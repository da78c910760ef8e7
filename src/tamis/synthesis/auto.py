"""Which makers apply to a corpus: each is tried on a sample, so that the answer is what it yields.

Source: tamis design.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow.compute as pc

from tamis.data.corpus import Corpus
from tamis.ops.bytes import text_hashes, token_hashes
from tamis.ops.hashing import text_keys, uniform
from tamis.synthesis.docstring import DocstringPairs
from tamis.synthesis.fields import FieldPairs
from tamis.synthesis.inverse_cloze import InverseCloze
from tamis.synthesis.links import LinkPairs
from tamis.synthesis.pairs import PairMaker
from tamis.synthesis.prop import PROP
from tamis.synthesis.structure import BodyFirst, Headings
from tamis.synthesis.title_body import TitleBody

SAMPLE_DOCS = 2000
_MIN_YIELD_FRAC = 0.02
_MIN_FIELD_FRAC = 0.5
_MIN_DISTINCT_FRAC = 0.8
_FIELD_WORDS = (3, 48)
_MIN_OVERLAP, _MIN_OVERLAP_LIFT = 0.3, 0.15
_NOT_A_QUERY = {"docstring", "documentation", "links", "url", "source", "path", "code", "html"}


@dataclass(frozen=True)
class Available:
    """The makers that apply to a corpus, the most trustworthy first, and why each other does not."""

    makers: tuple[PairMaker, ...]
    left_out: dict[str, str]


def available(corpus: Corpus) -> Available:
    """Try every maker on at most 2,000 documents, chosen by a hash of their ids.

    A maker applies when it makes a query for at least 2 % of the sample. Metadata fields are queries when at
    least half of the records have one as text of 3 to 48 words (median), mostly distinct, that shares words
    with its own document far more than with another: a question does, an author or a place of print does not.

    Args:
      corpus: documents or passages. About a second for 2,000 short documents.

    Returns:
      Makers in the order title, fields, docstrings, headings, anchors, Inverse Cloze, body first, word sets;
      for each other what stopped it.
    """
    sample = _sample(corpus)
    left_out: dict[str, str] = {}
    makers: list[PairMaker] = []
    fields, why_not = query_fields(sample)
    left_out |= why_not
    tried: list[PairMaker] = [
        TitleBody(),
        *(FieldPairs(query_field=name) for name in fields),
        DocstringPairs(),
        Headings(),
    ]
    tried += [LinkPairs(), InverseCloze(), BodyFirst(), PROP()]
    for plain in tried:
        maker = scaled(plain, corpus)
        # links lead out of a sample, parents are cut apart in one: these are tried on all documents
        whole = isinstance(maker, LinkPairs | BodyFirst) and _worth_it(maker, sample)
        pairs = maker.mine(corpus if whole else sample, seed=0)
        size = len(corpus) if whole else len(sample)
        if len(pairs.queries) >= max(1.0, _MIN_YIELD_FRAC * size):
            makers.append(plain)
        else:
            reasons = ", ".join(f"{reason} {count}" for reason, count in pairs.dropped.most_common(3))
            left_out[maker.label] = (
                f"{len(pairs.queries)} queries from {size} documents ({reasons or 'nothing to make one of'})"
            )
    return Available(tuple(makers), left_out)


def scaled(maker: PairMaker, corpus: Corpus, per_doc: int = 0) -> PairMaker:
    """Return the maker with at least ``per_doc`` queries a document.

    Makers that count by parent take as many times more as a parent has passages on average: two headings of
    a book would be as good as none.
    """
    values: dict[str, Any] = {}
    for name in ("per_doc", "pairs_per_doc"):
        if name in type(maker).model_fields:
            values[name] = max(per_doc, getattr(maker, name))
    if corpus.is_passages and isinstance(maker, Headings | BodyFirst) and len(corpus):
        num_parents = pc.count_distinct(corpus.table(["parent_doc_id"])["parent_doc_id"]).as_py()
        values["per_doc"] *= -(-len(corpus) // num_parents)
    return maker.model_copy(update=values)


def _sample(corpus: Corpus) -> Corpus:
    if len(corpus) <= SAMPLE_DOCS:
        return corpus
    draws = uniform(text_keys(corpus.doc_ids.to_pylist()), 0, "mine")
    return corpus.select(np.sort(np.argsort(draws, kind="stable")[:SAMPLE_DOCS]))


def _worth_it(maker: PairMaker, sample: Corpus) -> bool:
    if isinstance(maker, BodyFirst):
        return sample.is_passages
    metadata = sample.table(["metadata"])["metadata"].to_pylist()
    return sum('"links"' in m for m in metadata) >= _MIN_YIELD_FRAC * len(metadata)


def query_fields(corpus: Corpus) -> tuple[list[str], dict[str, str]]:
    """Return the metadata fields that read like queries, and for each other text field why it does not.

    Args:
      corpus: a sample; all of its metadata is read.
    """
    values: dict[str, list[tuple[int, str]]] = {}
    table = corpus.table(["metadata", "text"])
    for row, metadata in enumerate(table["metadata"].to_pylist()):
        try:
            record: Any = orjson.loads(metadata)
        except orjson.JSONDecodeError:
            continue
        for name, value in record.items() if isinstance(record, dict) else ():
            if isinstance(value, str) and value.strip() and name not in _NOT_A_QUERY:
                values.setdefault(name, []).append((row, value))
    text_words = _word_sets(table["text"].to_pylist())
    num_docs = len(table)
    chosen, why_not = [], {}
    for name, found in sorted(values.items()):
        why = _why_no_query([row for row, _ in found], [text for _, text in found], text_words, num_docs)
        if why:
            why_not[f"field_pairs.{name}"] = why
        else:
            chosen.append(name)
    return chosen, why_not


def _why_no_query(rows: list[int], texts: list[str], text_words: list[np.ndarray], num_docs: int) -> str:
    hashes, tokens, spaceless = text_hashes(texts)
    words = float(np.median(tokens - spaceless / 2))
    distinct = len(np.unique(hashes)) / len(hashes)
    has_blanks = np.mean([len(t.split()) > 1 or s > 0 for t, s in zip(texts, spaceless, strict=True)])
    if len(texts) < _MIN_FIELD_FRAC * num_docs:
        return f"in {len(texts)} of {num_docs} records"
    if not _FIELD_WORDS[0] <= words <= _FIELD_WORDS[1] or has_blanks < _MIN_FIELD_FRAC:
        return f"median of {words:g} words, no question or short description"
    if distinct < _MIN_DISTINCT_FRAC and num_docs > 1:
        return f"only {distinct:.0%} of the values are distinct"
    values = _word_sets(texts)
    own = np.mean([np.isin(v, text_words[r]).mean() for v, r in zip(values, rows, strict=True) if len(v)])
    others = rows[1:] + rows[:1]
    other = np.mean([np.isin(v, text_words[r]).mean() for v, r in zip(values, others, strict=True) if len(v)])
    if own < _MIN_OVERLAP or (own - other < _MIN_OVERLAP_LIFT and num_docs > 1):
        return f"shares {own:.0%} of its words with its document, {other:.0%} with another"
    return ""


def _word_sets(texts: list[str]) -> list[np.ndarray]:
    hashes, starts = token_hashes(texts)
    return [np.unique(hashes[a:b]) for a, b in pairwise(starts)]
