"""Uniform: nested, free of row order, and true to the strata's shares."""

import numpy as np
import pytest
from scipy import stats

from tamis.data.corpus import Corpus
from tamis.ops.hashing import text_keys, uniform
from tamis.selection import Budget, Uniform


def corpus_of(lengths, sources=None):
    records = [
        {"doc_id": f"{i:04d}", "text": " ".join([f"w{i}"] * n), "source": sources[i] if sources else ""}
        for i, n in enumerate(lengths)
    ]
    return Corpus.from_records(records)


def test_it_keeps_the_largest_draws_of_the_contents():
    corpus = corpus_of([3] * 50)
    chosen = Uniform(budget=Budget(docs=10)).select(corpus, corpus, seed=4)
    draws = uniform(text_keys([" ".join([f"w{i}"] * 3) for i in range(50)]), 4, "select")
    assert chosen.scores.tolist() == draws.tolist()
    assert chosen.kept.doc_ids.to_pylist() == [f"{i:04d}" for i in np.sort(np.argsort(-draws)[:10])]
    other = Uniform(budget=Budget(docs=10)).select(corpus, corpus, seed=5)
    assert other.kept.doc_ids.to_pylist() != chosen.kept.doc_ids.to_pylist()


def test_every_document_is_as_likely_as_another():
    corpus = corpus_of([4] * 20)
    hits = np.zeros(20)
    none = corpus.select([])
    for seed in range(400):
        hits[Uniform(budget=Budget(docs=5)).choose(corpus, none, seed=seed).kept] += 1
    assert stats.chisquare(hits).pvalue > 1e-4  # 100 hits each are expected


def test_strata_by_source_keep_their_shares_of_words():
    sources = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    corpus = corpus_of([2] * 100, sources)
    chosen = Uniform(budget=Budget(words=14), stratify="source").select(corpus, corpus, seed=0)
    kept = chosen.kept.table(["source"])["source"].to_pylist()
    assert [kept.count(s) for s in "abc"] == [3, 2, 1]  # quotas 7, 4, 3 words; two words a document
    chosen = Uniform(budget=Budget(docs=7), stratify="source").select(corpus, corpus, seed=0)
    kept = chosen.kept.table(["source"])["source"].to_pylist()
    assert [kept.count(s) for s in "abc"] == [4, 2, 1]


def test_strata_by_length_are_powers_of_two():
    corpus = corpus_of([3] * 40 + [100] * 4)
    chosen = Uniform(budget=Budget(frac=0.5), stratify="length").select(corpus, corpus, seed=0)
    lengths = [len(t.split()) for t in chosen.kept.table(["text"])["text"].to_pylist()]
    assert lengths.count(100) == 2
    assert lengths.count(3) == 20
    batch = next(iter(corpus_of([1, 2, 3, 4, 7, 8]).batches()))
    assert Uniform(budget=Budget(docs=1), stratify="length").strata(batch).to_pylist() == [
        "01",
        "02",
        "02",
        "03",
        "03",
        "04",
    ]


@pytest.mark.parametrize("stratify", ["none", "source", "length"])
def test_a_whole_budget_keeps_all(stratify):
    corpus = corpus_of([1, 5, 9, 30], list("aabb"))
    assert len(Uniform(budget=Budget(frac=1.0), stratify=stratify).select(corpus, corpus, seed=0).kept) == 4
