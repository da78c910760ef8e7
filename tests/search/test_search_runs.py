"""Aggregation, expansion, hubness and snippets."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.errors import DataError
from tamis.search.aggregate import FirstP, MaxP, TopK
from tamis.search.dense import Dense, DenseIndex
from tamis.search.expand import Neighbours
from tamis.search.hubness import CSLS, QueryBank, skewness
from tamis.search.lexical import Code, Neutral, Words
from tamis.search.snippet import Snippet


def passages_of(parents):
    return Corpus.from_records(
        {"doc_id": p, "text": p, "parent_doc_id": d, "ordinal": i, "start": 0, "stop": 1, "section": ""}
        for i, (p, d) in enumerate(parents)
    )


FOUR = passages_of([("p4", "A"), ("p3", "A"), ("p2", "B"), ("p1", "A")])
RUN = Run.from_dict({"q": {"p1": 0.9, "p2": 0.8, "p3": 0.7, "p4": 0.6}})


def test_aggregation_by_hand():
    best = MaxP().aggregate(RUN, FOUR, seed=0)
    assert best.run.ranked("q") == [("A", 0.9), ("B", 0.8)]
    assert best.passages.to_pylist() == ["p1", "p2"]
    assert TopK(k=2).aggregate(RUN, FOUR, seed=0).run.ranked("q") == [("A", pytest.approx(0.8)), ("B", 0.8)]
    first = FirstP().aggregate(RUN, FOUR, seed=0)
    assert first.run.ranked("q") == [("B", 0.8), ("A", 0.6)]
    assert first.passages.to_pylist() == ["p2", "p4"]


@given(
    st.dictionaries(
        st.sampled_from(["q", "r", "s"]), st.dictionaries(st.integers(0, 9), st.integers(-3, 3).map(float)), min_size=1
    )
)
def test_max_p_is_the_slow_answer(ranked):
    parents = [(f"p{i}", f"d{i * 7 % 4}") for i in range(10)]
    run = Run.from_dict({q: {f"p{i}": s for i, s in docs.items()} for q, docs in ranked.items()})
    got = MaxP().aggregate(run, passages_of(parents), seed=0)
    for query, docs in ranked.items():
        expected = {}
        for i, score in docs.items():
            expected[f"d{i * 7 % 4}"] = max(score, expected.get(f"d{i * 7 % 4}", -9.0))
        assert dict(got.run.ranked(query)) == expected
    for passage, doc, score, query in zip(
        got.passages.to_pylist(), got.run.doc_column.to_pylist(), got.run.scores, got.run.query_rows, strict=True
    ):
        assert dict(parents)[passage] == doc
        assert run.to_dict()[got.run.query_ids[int(query)].as_py()][passage] == score
    single = passages_of([(f"p{i}", f"p{i}") for i in range(10)])
    assert MaxP().aggregate(run, single, seed=0).run == run


def test_aggregation_refuses_what_it_does_not_know():
    with pytest.raises(DataError, match="p9"):
        MaxP().aggregate(Run.from_dict({"q": {"p9": 1.0}}), FOUR, seed=0)
    with pytest.raises(DataError, match="parent_doc_id"):
        MaxP().aggregate(RUN, Corpus.from_records([{"doc_id": "p1", "text": "x"}]), seed=0)


class Axes:
    dim, fingerprint = 2, "axes"

    def encode_queries(self, texts):
        return np.array([[float(t[0] == "x"), float(t[0] == "y")] for t in texts], np.float32)


def dense_index(rows, encoder=None):
    ids = pa.array([f"d{i}" for i in range(len(rows))], pa.large_string())
    return DenseIndex(Dense(), ids, np.array(rows, np.float32), np.zeros(0, np.int64), encoder=encoder, made_by="axes")


def test_corrections_by_hand():
    scores = np.array([(0.9, 0.1), (0.8, 0.2)])
    assert QueryBank().bias_of(scores) == pytest.approx([-0.931326, -0.231326], abs=1e-6)
    assert np.isfinite(QueryBank(beta=50_000.0).bias_of(scores)).all()
    assert CSLS(k=1).bias_of(scores) == pytest.approx([-0.45, -0.1])
    assert np.array([0.6, 0.5]) + QueryBank().bias_of(scores) == pytest.approx([-0.331326, 0.268674], abs=1e-6)


def test_a_correction_is_kept_only_when_held_out_queries_gain():
    hub = dense_index([(0.8, 0.6), (1.0, 0.0), (0.0, 1.0), (0.79, 0.613)], Axes())
    bank = Queries.from_texts({f"b{i}": "y" for i in range(3)})
    bias = QueryBank(num_bank=2).fit(hub, bank, seed=0)
    assert bias == pytest.approx([-(v + np.log(2) / 10) for v in (0.6, 0.0, 1.0, 0.613)], abs=1e-6)
    queries, qrels = Queries.from_texts({"q": "x", "r": "y"}), Qrels.from_dict({"q": {"d1": 1}, "r": {"d2": 1}})
    assert not CSLS().keeps(hub, np.zeros(4), queries, qrels)
    with pytest.raises(DataError, match="none of the 1"):
        CSLS().fit(hub, Queries.from_texts({"z": "z"}), seed=0)
    assert skewness(np.array([0, 1, 2, 3]), 4) == 0.0
    assert skewness(np.array([0, 0, 0, 3]), 4) > 0


def test_neighbours_give_their_titles():
    corpus = Corpus.from_records(
        {"doc_id": f"d{i}", "title": t, "text": "x"} for i, t in enumerate(["a", "b c b", "d", "copy"])
    )
    index = dense_index([(1.0, 0.0), (0.8, 0.6), (0.0, 1.0), (1.0, 0.0)])
    assert Neighbours(neighbours=1).expand(corpus, index, seed=0) == ["b c", "a", "b c", "b c"]
    assert Neighbours(neighbours=1, max_similarity=1.01).expand(corpus, index, seed=0)[0] == "copy"
    assert Neighbours(neighbours=0).expand(corpus, index, seed=0) == [""] * 4


def test_a_snippet_holds_most_of_the_query_and_marks_it():
    text = "Nothing here. " * 20 + "Keys are rotated weekly; rotate the KEYS by hand. " + "More of it. " * 20 + "Keys."
    window = Snippet(max_chars=80).window(text, "how to rotate keys", Words())
    shown = text[window.start : window.stop]
    assert "rotated weekly" in shown
    assert len(shown) <= 80
    assert {text[a:b] for a, b in window.highlights} == {"Keys", "rotated", "rotate", "KEYS"}
    rare = Snippet(max_chars=20).window("alpha " + "x " * 40 + "beta", "alpha beta", Words(), {"beta": 5.0})
    assert rare.highlights[0][0] == 86
    twice = Snippet(max_chars=20).window("beta " + "x " * 40 + "beta", "beta", Words())
    assert twice.highlights == ((0, 4),)
    nothing = Snippet(max_chars=30).window("one two three four five six seven eight", "zebra", Words())
    assert (nothing.start, nothing.highlights) == (0, ())
    assert Snippet().window("", "a", Words()).stop == 0


@given(st.text(max_size=200), st.text(max_size=20), st.sampled_from([Words(), Code(), Neutral()]))
def test_snippets_of_any_text_stay_inside(text, query, analyser):
    window = Snippet(max_chars=20).window(text, query, analyser)
    assert 0 <= window.start <= window.stop <= len(text)
    assert window.stop - window.start <= 20
    for start, stop in window.highlights:
        assert window.start <= start < stop <= window.stop
