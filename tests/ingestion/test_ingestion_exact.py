"""Exact duplicates: groups by equality, not by hash, led by the first id in byte order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.ingestion import Exact
from tamis.ingestion.exact import leaders


def corpus_of(*texts, ids=None):
    return Corpus.from_records(
        {"doc_id": i, "text": t} for i, t in zip(ids or [f"d{n}" for n in range(len(texts))], texts, strict=True)
    )


def test_hand_worked():
    corpus = corpus_of("A a", "A a", "a A", "B", ids=["z", "b", "c", "d"])
    assert Exact().group(corpus).to_pylist() == ["b", "b", "c", "d"]
    assert Exact(normalise="tokens").group(corpus).to_pylist() == ["b", "b", "b", "d"]  # "A a", "a A" are both "a a"
    sifted = Exact().sift(corpus, seed=0)
    assert sifted.kept.doc_ids.to_pylist() == ["b", "c", "d"]
    assert [(r["doc_id"], r["group_id"], r["reason"]) for r in sifted.dropped.to_pylist()] == [("z", "b", "exact_copy")]


def test_the_title_counts():
    corpus = Corpus.from_records(
        [
            {"doc_id": "a", "title": "x", "text": "y"},
            {"doc_id": "b", "title": "", "text": "x\0y"},
            {"doc_id": "c", "text": "y"},
        ]
    )
    assert Exact().group(corpus).to_pylist() == ["a", "b", "c"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_leaders_equal_the_slow_version_even_when_hashes_collide(rows):
    keys = np.array([key for key, _ in rows], dtype=np.uint64)
    found = leaders(keys, lambda a, b: rows[a] == rows[b])
    assert found.tolist() == [rows.index(row) for row in rows]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "A", "a b", "b  a"]), min_size=1, max_size=12), st.randoms())
def test_groups_do_not_depend_on_the_order(texts, rng):
    ids = [f"é{i}" if i % 3 else f"z{i}" for i in range(len(texts))]
    pairs = list(zip(ids, texts, strict=True))
    groups = dict(zip(ids, Exact().group(corpus_of(*texts, ids=ids)).to_pylist(), strict=True))
    rng.shuffle(pairs)
    shuffled = Exact().group(corpus_of(*[t for _, t in pairs], ids=[i for i, _ in pairs])).to_pylist()
    assert groups == dict(zip([i for i, _ in pairs], shuffled, strict=True))
    for doc_id, text in pairs:
        assert groups[doc_id] == min((i for i, t in pairs if t == text), key=str.encode)
