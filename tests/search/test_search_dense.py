import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Corpus, Qrels, Queries
from tamis.data.artefact import Staging, open_verified, stage
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.search.dense import Dense, DenseIndex


class Letters:
    """Counts of a, b, c, d; unit rows, zero without any."""

    dim = 4
    fingerprint = "f" * 64

    def encode_documents(self, texts):
        counts = np.array([[t.count(c) for c in "abcd"] for t in texts], np.float32).reshape(-1, 4)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)

    encode_queries = encode_documents


class Fixed(Letters):
    def __init__(self, rows):
        self.rows = np.array(rows, np.float32)
        self.dim = self.rows.shape[1]
        self.fingerprint = hashlib.sha256(self.rows.tobytes()).hexdigest()

    def encode_documents(self, texts):
        return self.rows[: len(texts)]

    encode_queries = encode_documents


def corpus_of(texts, ids=None):
    return Corpus.from_records([{"doc_id": ids[i] if ids else f"d{i}", "text": t or " "} for i, t in enumerate(texts)])


def test_the_tie_goes_to_the_smaller_id():
    index = Dense().index(
        corpus_of("abcd", ["d1", "d4", "d3", "d2"]), Fixed([(1, 0), (0.6, 0.8), (0, 1), (0.6, 0.8)]), seed=0
    )
    run = index.search_vectors(["q"], np.array([[0.6, 0.8]]), 4)
    assert [d for d, _ in run.ranked("q")] == ["d2", "d4", "d3", "d1"]
    assert [s for _, s in run.ranked("q")] == pytest.approx([1, 1, 0.8, 0.6])


@given(st.lists(st.text("abcdx ", max_size=5), min_size=1, max_size=12), st.integers(0, 14), st.randoms())
def test_order_blocks_batches_and_depth_change_nothing(texts, k, random):
    queries = Queries.from_texts({"a": "ab", "b": "xx", "c": "dddc"})
    order = list(range(len(texts)))
    random.shuffle(order)
    run = Dense().index(corpus_of(texts), Letters(), seed=0).search(queries, k)
    small = Dense(block_docs=3, batch_docs=2)
    shuffled = small.index(corpus_of([texts[i] for i in order], [f"d{i}" for i in order]), Letters(), seed=0)
    assert shuffled.search(queries, k) == run
    assert shuffled.search(queries, k + 1).truncate(k) == run
    assert run.ranked("b") == []
    zero = {f"d{i}" for i, t in enumerate(texts) if not set(t) & set("abcd")}
    assert not zero & set(run.doc_column.to_pylist())
    assert len(shuffled.zero_rows) == len(zero)


def test_included_documents_are_scored():
    index = Dense().index(corpus_of(["a", "ab", "c", "x"]), Letters(), seed=0)
    run = index.search(Queries.from_texts({"q": "a"}), 1, include=Qrels.from_dict({"q": {"d2": 1, "d1": 1, "d0": 1}}))
    assert run.ranked("q") == [("d0", 1.0), ("d1", pytest.approx(0.70710678)), ("d2", 0.0)]


def test_vectors_of_any_length_are_made_unit_and_bad_ones_refused():
    index = Dense().index(corpus_of("ab"), Fixed([(3, 4), (0, 0)]), seed=0)
    assert np.allclose(index.vectors, [(0.6, 0.8), (0, 0)])
    with pytest.raises(DataError, match="document 'd1'"):
        Dense().index(corpus_of("ab"), Fixed([(1, 0), (np.nan, 0)]), seed=0)
    with pytest.raises(DataError, match="query's vector"):
        index.search_vectors(["q"], np.array([[np.inf, 0]]), 1)
    with pytest.raises(ArtefactError, match="3 dimensions, the index 2"):
        index.search_vectors(["q"], np.zeros((1, 3)), 1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_streamed_and_saved_are_one(tmp_path, dtype):
    corpus, queries = corpus_of(["ab", "bc", "x", "dddc"]), Queries.from_texts({"q": "abc", "r": "d"})
    dense = Dense(dtype=dtype, batch_docs=2)
    plain = dense.index(corpus, Letters(), seed=0).corrected(np.array([0.0, -0.5, 0.0, 0.25]))
    with stage(tmp_path / "a", "index", settings={}, inputs={}, seed=0) as staging:
        streamed = dense.index(corpus, Letters(), seed=0, staging=staging, prefix="dense/").corrected(plain.bias)
        streamed.save(staging, "dense/")
    with stage(tmp_path / "b", "index", settings={}, inputs={}, seed=0) as staging:
        plain.save(staging, "dense/")
    assert open_verified(tmp_path / "a", "index").content == open_verified(tmp_path / "b", "index").content
    again = DenseIndex.load(tmp_path / "a" / "dense", Letters())
    assert again.search(queries, 3) == plain.search(queries, 3) == streamed.search(queries, 3)
    assert len(plain.search(queries, 3)) == 6
    with pytest.raises(UsageError, match="without its encoder"):
        DenseIndex.load(tmp_path / "a" / "dense").search(queries, 3)


def test_another_encoder_and_swapped_ids_are_refused(tmp_path):
    index = Dense().index(corpus_of(["ab", "bc"]), Letters(), seed=0)
    index.save(Staging(tmp_path))
    with pytest.raises(ArtefactError, match=r"ffffffffffff \(4 dimensions\).* \(2 dimensions\)"):
        DenseIndex.load(tmp_path, Fixed([(1, 0)]))
    other = DenseIndex(index.settings, pa.array(["x"]), index.vectors, index.zero_rows, encoder=None, made_by="m")
    (tmp_path / "bad").mkdir()
    other.save(Staging(tmp_path / "bad"))
    with pytest.raises(ArtefactError, match="for 1 ids"):
        DenseIndex.load(tmp_path / "bad")
    (tmp_path / "dense.json").write_text("[]")
    with pytest.raises(ArtefactError, match=r"dense\.json: damaged"):
        DenseIndex.load(tmp_path)


@pytest.mark.parametrize("copies", [0, 200])
def test_faiss_gives_the_answer_of_the_reference(copies, monkeypatch):
    """Ties longer than faiss' candidates, zero rows and few documents included."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((3000, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:copies] = vectors[0]
    vectors[[7, 2000]] = 0
    ids = pa.array([f"d{n:05d}" for n in rng.permutation(len(vectors))], pa.large_string())
    index = DenseIndex(Dense(), ids, vectors, np.array([7, 2000]), encoder=None, made_by="x")
    queries = np.vstack([vectors[[0, 1, 50, 999]], rng.standard_normal((20, 24)).astype(np.float32)])
    for k in (1, 10, 100, 5000):
        expected = index.search_rows(queries, k)
        monkeypatch.setattr("tamis.search.dense._MIN_FAISS_DOCS", 1)
        found = index.search_rows(queries, k)
        monkeypatch.setattr("tamis.search.dense._MIN_FAISS_DOCS", 20_000)
        assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    monkeypatch.setattr("tamis.search.dense._MIN_FAISS_DOCS", 1)
    assert index._suits_faiss(10)
