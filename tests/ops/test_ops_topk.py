import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.ops import postings
from tamis.ops.topk import exact_scores, top_k


def slow(query, vectors, k, ranks, allowed):
    rows = []
    for q in query:
        scores = exact_scores(q[None], vectors, np.zeros(len(vectors), np.int64), np.arange(len(vectors)))
        order = sorted(np.flatnonzero(allowed), key=lambda d: (-scores[d], ranks[d]))[:k]
        rows.append([*order, *[-1] * (min(k, len(vectors)) - len(order))])
    return np.array(rows, dtype=np.int64).reshape(len(query), -1)


def test_the_tie_goes_to_the_smaller_id():
    vectors = np.array([(1, 0), (0.6, 0.8), (0, 1), (0.6, 0.8)], np.float32)  # d1, d4, d3, d2
    ranks = np.array([0, 3, 2, 1])
    rows, scores = top_k(np.array([[0.6, 0.8]], np.float32), vectors, 4, ranks=ranks)
    assert rows.tolist() == [[3, 1, 2, 0]]
    assert np.allclose(scores, [[1, 1, 0.8, 0.6]], atol=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 70), st.integers(0, 12), st.sampled_from([1, 3, 7, 64]), st.booleans())
def test_any_block_size_gives_the_slow_answer(seed, num_docs, k, block, mask):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (num_docs, 5)).astype(np.float32)  # many exact ties
    query = rng.integers(-2, 3, (4, 5)).astype(np.float32)
    ranks = rng.permutation(num_docs)
    allowed = rng.random(num_docs) < 0.6 if mask else np.ones(num_docs, bool)
    rows, scores = top_k(query, vectors, k, ranks=ranks, allowed=allowed, block_docs=block)
    assert np.array_equal(rows, slow(query, vectors, k, ranks, allowed))
    deeper, _ = top_k(query, vectors, k + 1, ranks=ranks, allowed=allowed, block_docs=2)
    assert np.array_equal(rows, deeper[:, : rows.shape[1]])
    assert (scores[rows < 0] == 0).all()


def test_near_ties_below_float32_are_ordered_by_their_exact_scores():
    rng = np.random.default_rng(0)
    base = rng.standard_normal(384).astype(np.float32)
    vectors = np.repeat(base[None], 500, 0)
    vectors[np.arange(500), rng.integers(0, 384, 500)] *= np.float32(1 + 2**-22)
    query = rng.standard_normal((3, 384)).astype(np.float32)
    expected = slow(query, vectors, 20, np.arange(500), np.ones(500, bool))
    for block in (7, 100, 500):
        assert np.array_equal(top_k(query, vectors, 20, block_docs=block)[0], expected)


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 30]))
def test_a_bias_moves_rows_as_one_more_dimension_would(seed, block):
    rng = np.random.default_rng(seed)
    vectors, query = rng.integers(-2, 3, (30, 3)).astype(np.float32), rng.integers(-2, 3, (4, 3)).astype(np.float32)
    bias = rng.integers(-3, 4, 30).astype(np.float64)
    longer = (
        np.hstack([vectors, bias[:, None]]).astype(np.float32),
        np.hstack([query, np.ones((4, 1))]).astype(np.float32),
    )
    got, expected = top_k(query, vectors, 7, bias=bias, block_docs=block), top_k(longer[1], longer[0], 7)
    assert np.array_equal(got[0], expected[0])
    assert np.array_equal(got[1], expected[1])


def test_faiss_flat_agrees():
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(1)
    vectors, query = (
        rng.standard_normal((3000, 48)).astype(np.float32),
        rng.standard_normal((20, 48)).astype(np.float32),
    )
    index = faiss.IndexFlatIP(48)
    index.add(vectors)
    scores, rows = index.search(query, 10)
    mine, my_scores = top_k(query, vectors, 10, block_docs=1000)
    assert np.array_equal(mine, rows)
    assert np.allclose(my_scores, scores, atol=1e-4)


def test_float16_vectors_and_no_vectors():
    vectors = np.eye(3, dtype=np.float16)
    assert top_k(np.eye(3, dtype=np.float32), vectors, 1)[0].ravel().tolist() == [0, 1, 2]
    rows, scores = top_k(np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32), 5)
    assert rows.shape == scores.shape == (2, 0)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 45))
def test_postings_give_the_dense_answer(seed, num_docs, k):
    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 3, (num_docs, 6)) * (rng.random((num_docs, 6)) < 0.5)
    rows, columns = np.nonzero(dense)
    starts, docs, counts = postings.transpose(
        np.searchsorted(rows, np.arange(num_docs + 1)), columns, dense[rows, columns], 6
    )
    queries = rng.integers(-1, 3, (5, 6)) * (rng.random((5, 6)) < 0.6)
    q_rows, q_terms = np.nonzero(queries)
    packed = np.searchsorted(q_rows, np.arange(6)), q_terms, queries[q_rows, q_terms]
    ranks = rng.permutation(num_docs)
    pairs = np.arange(6) * num_docs, np.tile(np.arange(num_docs), 5)
    found, scores, every = postings.search((starts, docs, counts), ranks, packed, k, pairs)
    expected = queries @ dense.T
    assert np.array_equal(every.reshape(5, num_docs), expected)
    for query in range(5):
        best = [
            d for d in sorted(range(num_docs), key=lambda d: (-expected[query, d], ranks[d])) if expected[query, d] > 0
        ][:k]
        assert found[query][found[query] >= 0].tolist() == best
        assert scores[query][: len(best)].tolist() == expected[query, best].tolist()
