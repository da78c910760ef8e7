import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Corpus, Queries, Run
from tamis.search.bm25 import BM25
from tamis.search.dense import Dense, DenseIndex
from tamis.search.feedback import RM3, Rocchio, first_documents
from tamis.search.lexical import Words

PLAIN = BM25(analyser=Words(stemmer=None, stop_words=None))


def corpus_of(texts):
    return Corpus.from_records([{"doc_id": f"d{i}", "text": t or " "} for i, t in enumerate(texts)])


def weights_of(index, packed, query=0):
    names = index.terms.to_pylist()
    inside = slice(packed[0][query], packed[0][query + 1])
    return {names[t]: w for t, w in zip(packed[1][inside], packed[2][inside], strict=True)}


def test_rm3_by_hand():
    index = PLAIN.index(corpus_of(["aa aa bb bb", "bb cc cc cc"]), seed=0)
    queries = Queries.from_texts({"q": "aa cc"})
    firsts = first_documents(Run.from_dict({"q": {"d0": 3.0, "d1": 1.0}}), queries, index, 5)
    expanded = RM3(num_terms=2).expand(index, index.pack(queries), firsts)
    assert weights_of(index, expanded) == pytest.approx({"aa": 0.480769, "cc": 0.25, "bb": 0.269231}, abs=1e-6)


def test_rm3_leaves_frequent_and_odd_terms_out():
    index = PLAIN.index(corpus_of(["aa " + "x" * 21, "aa bb", "bb"]), seed=0)
    queries = Queries.from_texts({"q": "bb"})
    firsts = first_documents(Run.from_dict({"q": {"d0": 1.0}}), queries, index, 5)
    assert weights_of(index, RM3().expand(index, index.pack(queries), firsts)) == {"aa": 0.5, "bb": 0.5}
    assert weights_of(index, RM3(max_df_frac=0.5).expand(index, index.pack(queries), firsts)) == {"bb": 1.0}


@given(
    st.lists(st.lists(st.sampled_from(["aa", "bb", "cc", "dd"]), max_size=5).map(" ".join), min_size=1, max_size=8),
    st.integers(1, 9),
)
def test_full_original_weight_keeps_the_ranking_and_the_unanswered(texts, num_docs):
    index, queries = PLAIN.index(corpus_of(texts), seed=0), Queries.from_texts({"q": "aa bb aa", "none": "zz"})
    run = index.search(queries, 20)
    same = RM3(original_weight=1.0, num_docs=num_docs).rerank(run, queries, index, seed=0, k=20)
    assert [d for d, _ in same.ranked("q")] == [d for d, _ in run.ranked("q")]
    expanded = RM3(num_docs=num_docs).rerank(run, queries, index, seed=0, k=20)
    assert expanded.ranked("none") == []
    assert set(expanded.doc_column.to_pylist()) >= set(run.doc_column.to_pylist())


def dense_index(rows):
    ids = pa.array([f"d{i}" for i in range(len(rows))], pa.large_string())
    return DenseIndex(Dense(), ids, np.array(rows, np.float32), np.zeros(0, np.int64), encoder=None, made_by="test")


def test_rocchio_by_hand():
    index = dense_index([(0.6, 0.8), (0.0, 1.0), (1.0, 0.0)])
    firsts = np.array([0, 2]), np.array([0, 1]), np.array([1.0, 0.5])
    moved = Rocchio(beta=0.5).expand(index, np.array([[2.0, 0.0]]), firsts)
    assert moved[0].tolist() == pytest.approx([0.931243, 0.364399], abs=1e-6)
    assert Rocchio(beta=0.0).expand(index, np.array([[2.0, 0.0]]), firsts)[0].tolist() == [1.0, 0.0]
    assert Rocchio().expand(index, np.array([[0.0, 0.0]]), firsts)[0].tolist() == [0.0, 0.0]


def test_feedback_documents_are_the_first_above_zero_that_the_index_knows():
    index = dense_index([(1.0, 0.0), (0.0, 1.0)])
    run = Run.from_dict({"b": {"d1": 2.0, "gone": 1.5, "d0": 1.0}, "a": {"d0": -1.0}})
    starts, docs, scores = first_documents(run, Queries.from_texts({"a": "x", "b": "y", "c": "z"}), index, 2)
    assert (starts.tolist(), docs.tolist(), scores.tolist()) == ([0, 0, 1, 1], [1], [2.0])
