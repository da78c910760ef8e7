import bm25s
import numpy as np
import pyarrow as pa
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Corpus, Qrels, Queries
from tamis.data.artefact import Staging, open_verified, stage
from tamis.errors import ArtefactError, DataError
from tamis.search.bm25 import BM25, BM25Index
from tamis.search.lexical import Code, Words

PLAIN = BM25(analyser=Words(stemmer=None, stop_words=None))
WORDS = ["alpha", "beta", "gamma", "delta", "running", "runs", "the", "日本語", "naïve", "x_1", "😀"]


def corpus_of(texts, titles=None, ids=None):
    rows = [{"doc_id": ids[i] if ids else f"d{i}", "text": t or " "} for i, t in enumerate(texts)]
    for row, title in zip(rows, titles or [], strict=False):
        row["title"] = title
    return Corpus.from_records(rows)


def test_hand_worked_scores():
    corpus = corpus_of(["aa bb aa", "bb cc", "cc cc cc dd"])
    run = PLAIN.index(corpus, seed=0).search(Queries.from_texts({"q": "aa cc"}), 10)
    assert [d for d, _ in run.ranked("q")] == ["d0", "d2", "d1"]
    assert [s for _, s in run.ranked("q")] == pytest.approx([0.560474, 0.289233, 0.221178], abs=1e-6)


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire"])
def test_scores_are_those_of_bm25s(variant):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(200)]
    queries = [" ".join(rng.choice(WORDS, 3)) for _ in range(30)]
    stemmer = Stemmer.Stemmer("english")
    tokens = [
        bm25s.tokenize(t, stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False)
        for t in (texts, queries)
    ]
    peer = bm25s.BM25(method=variant, k1=1.5, b=0.75)
    peer.index(tokens[0], show_progress=False)
    index = BM25(variant=variant).index(corpus_of(texts), seed=0)
    asked = Queries.from_texts({f"q{i}": q for i, q in enumerate(queries)})
    mine = index.search(asked, 200).to_dict()
    compared = 0
    for row, terms in enumerate(tokens[1]):
        expected = peer.get_scores(terms) if terms else np.zeros(200)
        got = np.array([mine[f"q{row}"].get(f"d{d}", 0.0) for d in range(200)])
        assert np.allclose(got, np.maximum(expected, 0), atol=1e-6)
        compared += int((got > 0).sum())
    assert compared > 1000


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=12),
    st.integers(0, 14),
    st.randoms(),
)
def test_order_of_documents_and_depth_change_nothing(texts, k, random):
    queries = Queries.from_texts(
        {"a": "alpha beta running alpha", "b": "unknownword", "c": "", "d": "x_1 naïve 日本語"}
    )
    order = list(range(len(texts)))
    random.shuffle(order)
    run = BM25().index(corpus_of(texts), seed=0).search(queries, k)
    shuffled = BM25().index(corpus_of([texts[i] for i in order], ids=[f"d{i}" for i in order]), seed=0)
    assert shuffled.search(queries, k) == run
    assert shuffled.search(queries, k + 1).truncate(k) == run
    assert (run.scores > 0).all()
    assert run.ranked("b") == run.ranked("c") == []


def test_weighted_queries_are_linear():
    index = PLAIN.index(corpus_of(["aa bb aa", "bb cc", "cc cc cc dd"]), seed=0)
    run = index.search_weighted(["q", "empty"], [{"aa": 0.5, "cc": 0.5, "zz": 9.0}, {}], 3)
    assert [s for _, s in run.ranked("q")] == pytest.approx([0.280237, 0.1446165, 0.110589], abs=1e-6)
    assert run.ranked("empty") == []
    with pytest.raises(DataError, match="finite"):
        index.search_weighted(["q"], [{"aa": float("nan")}], 3)


def test_included_documents_are_scored_whatever_their_rank():
    index = PLAIN.index(corpus_of(["aa bb aa", "bb cc", "cc cc cc dd", "aa"]), seed=0)
    qrels = Qrels.from_dict({"q": {"d1": 1, "d2": 1, "gone": 1}, "other": {"d1": 1}})
    run = index.search(Queries.from_texts({"q": "aa", "r": "dd"}), 1, include=qrels)
    everything = index.search(Queries.from_texts({"q": "aa"}), 9).to_dict()["q"]
    assert (
        run.to_dict() == {"q": {"d0": everything["d0"], "d1": 0.0, "d2": 0.0}, "r": run.to_dict()["r"]}
        or "d3" in run.to_dict()["q"]
    )
    assert set(run.to_dict()["q"]) >= {"d1", "d2"}


def test_title_weight_metadata_and_extra_text():
    corpus = Corpus.from_records(
        [
            {"doc_id": "a", "title": "rope", "text": "knot", "metadata": '{"tags": ["sail", 5], "n": 1}'},
            {"doc_id": "b", "text": "rope"},
        ]
    )
    asked = Queries.from_texts({"q": "sail"})
    assert BM25().index(corpus, seed=0).search(asked, 5).ranked("q") == []
    assert [d for d, _ in BM25(metadata=("tags", "n")).index(corpus, seed=0).search(asked, 5).ranked("q")] == ["a"]
    assert [d for d, _ in BM25().index(corpus, seed=0, extra=["", "sail"]).search(asked, 5).ranked("q")] == ["b"]
    twice = BM25(title_weight=2).index(corpus, seed=0)
    assert twice.lengths.tolist() == [3, 1]
    assert BM25(title_weight=0).index(corpus, seed=0).lengths.tolist() == [1, 1]
    with pytest.raises(DataError, match="1 texts for 2"):
        BM25().index(corpus, seed=0, extra=["x"])


def test_saved_is_loaded_and_damage_is_named(tmp_path):
    index = BM25(analyser=Code()).index(corpus_of(["parseHTTP reply", "", "the"]), seed=0)
    assert index.num_without_terms == 2
    with stage(tmp_path / "i", "index", settings={}, inputs={}, seed=0) as staging:
        index.save(staging, "words/")
    open_verified(tmp_path / "i", "index")
    again = BM25Index.load(tmp_path / "i" / "words")
    asked = Queries.from_texts({"q": "http"})
    assert again.search(asked, 3) == index.search(asked, 3)
    assert len(again.search(asked, 3)) == 1
    assert again.settings == index.settings
    (tmp_path / "i" / "words" / "docs.npy").write_bytes(b"no")
    with pytest.raises(ArtefactError, match=r"docs\.npy"):
        BM25Index.load(tmp_path / "i" / "words")
    (tmp_path / "plain").mkdir()
    index.doc_ids = pa.array(["x"], pa.large_string())
    index.save(Staging(tmp_path / "plain"))
    with pytest.raises(ArtefactError, match="differ in length"):
        BM25Index.load(tmp_path / "plain")


def test_an_empty_corpus_answers_nothing():
    index = BM25().index(Corpus.from_records([]), seed=0)
    assert len(index.search(Queries.from_texts({"q": "a word"}), 5)) == 0
