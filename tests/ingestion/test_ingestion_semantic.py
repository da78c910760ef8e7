"""Semantic duplicates: worked vectors, the laws of a removal, row order."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import UsageError
from tamis.ingestion.semantic import SemanticDuplicates


def corpus_of(num_docs):
    return Corpus.from_table(
        pa.table(
            {
                "doc_id": [f"d{i:03d}" for i in range(num_docs)],
                "text": [f"text {i} " * (i + 1) for i in range(num_docs)],
            }
        )
    )


def at_degrees(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_worked_chain_is_not_closed():
    # 0, 15 and 30 degrees: neighbours have cosine .966, the ends .866; the longest is the last
    found = SemanticDuplicates(min_cosine=0.95, keep="longest").find(
        corpus_of(3), seed=0, vectors=at_degrees(0, 15, 30)
    )
    assert found.removed.tolist() == [1]
    assert found.representatives.tolist() == [2]
    assert found.scores[0] == pytest.approx(np.cos(np.radians(15)), abs=1e-6)
    assert found.group_ids.to_pylist() == ["d000", "d002", "d002"]
    assert found.counts[0.95] == found.counts[0.96] == 1
    assert found.counts[0.97] == 0


def test_which_one_is_kept():
    vectors = at_degrees(0, 10, 18)  # mean direction near 9.3
    corpus = corpus_of(3)
    assert SemanticDuplicates(min_cosine=0.94, keep="nearest").find(
        corpus, seed=0, vectors=vectors
    ).removed.tolist() == [0, 2]
    assert SemanticDuplicates(min_cosine=0.94, keep="farthest").find(
        corpus, seed=0, vectors=vectors
    ).removed.tolist() == [1, 2]
    assert SemanticDuplicates(min_cosine=0.94, keep="longest").find(
        corpus, seed=0, vectors=vectors
    ).removed.tolist() == [0, 1]


@given(st.integers(0, 1000), st.sampled_from([1, 4]), st.sampled_from(["farthest", "nearest", "longest"]))
@settings(max_examples=20)
def test_removals_lead_to_kept_documents_and_kept_ones_are_apart(seed, num_clusters, keep):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(15, 8))
    vectors = (base[rng.integers(15, size=60)] + 0.1 * rng.normal(size=(60, 8))).astype(np.float32)
    method = SemanticDuplicates(min_cosine=0.97, num_clusters=num_clusters, keep=keep)
    corpus = corpus_of(60)
    found = method.find(corpus, seed=seed, vectors=vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = np.setdiff1d(np.arange(60), found.removed)
    assert set(found.representatives.tolist()) <= set(kept.tolist())
    cosines = np.einsum("nh,nh->n", unit[found.removed], unit[found.representatives])
    assert np.allclose(cosines, found.scores, atol=1e-5)
    assert (found.scores >= 0.97).all()
    assert len(found.removed) > 5
    if num_clusters == 1:
        among = unit[kept] @ unit[kept].T - 2 * np.eye(len(kept))
        assert among.max() < 0.97 + 1e-6
    order = rng.permutation(60)
    moved = method.find(corpus.select(order), seed=seed, vectors=vectors[order])
    assert sorted(order[moved.removed].tolist()) == found.removed.tolist()


def test_several_blocks_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(30, 6)), 3, axis=0) + 0.05 * rng.normal(size=(90, 6))
    method = SemanticDuplicates(min_cosine=0.98)
    expected = method.find(corpus_of(90), seed=0, vectors=vectors.astype(np.float32))
    monkeypatch.setattr("tamis.ingestion.semantic._BLOCK", 7)
    found = method.find(corpus_of(90), seed=0, vectors=vectors.astype(np.float32))
    assert found.removed.tolist() == expected.removed.tolist()
    assert found.representatives.tolist() == expected.representatives.tolist()


def test_sift():
    sifted = SemanticDuplicates(keep="longest").sift(corpus_of(3), seed=0, vectors=at_degrees(0, 15, 30))
    assert sifted.kept.doc_ids.to_pylist() == ["d000", "d002"]
    assert sifted.dropped.select(["doc_id", "reason", "other_id"]).to_pylist() == [
        {"doc_id": "d001", "reason": "semantic_copy", "other_id": "d002"}
    ]
    assert len(SemanticDuplicates().sift(corpus_of(0), seed=0, vectors=np.zeros((0, 4))).kept) == 0


def test_vectors_that_are_refused():
    with pytest.raises(UsageError, match="one row a document"):
        SemanticDuplicates().find(corpus_of(3), seed=0, vectors=at_degrees(0, 1))
    with pytest.raises(UsageError, match="no direction"):
        SemanticDuplicates().find(corpus_of(2), seed=0, vectors=np.array([[0.0, 0.0], [1.0, 0.0]]))
