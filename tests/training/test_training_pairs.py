"""Pairs: texts, copies and answers as arrays; what cannot be learnt from is refused or left out and counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.errors import DataError
from tamis.training.finetune.pairs import Lists, TrainingPairs


def corpus(*texts, **titled):
    records = [{"doc_id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    return Corpus.from_records(records + [{"doc_id": k, "title": v, "text": "body"} for k, v in titled.items()])


def named(pairs, lists):
    """query text -> document texts, in order."""
    return {q: [pairs.documents[i] for i in lists.of_row(row)] for row, q in enumerate(pairs.queries)}


def test_pairs_by_hand():
    docs = corpus("one", "two", "three", "two", " ", t="title")
    queries = Queries.from_texts({"a": "?a", "b": "?b", "c": "?c", "blank": " \n", "d": "?d"})
    qrels = Qrels.from_dict(
        {
            "b": {"d1": 1, "d0": 2, "d2": 0},
            "a": {"t": 1},
            "c": {"d4": 1},  # its only answer is blank
            "blank": {"d0": 1},
            "elsewhere": {"gone": 1},  # of no query here: passed over, its document too
        }
    )
    mined = Run.from_dict({"b": {"d2": 9.0, "d3": 5.0, "t": 7.0}, "a": {"d1": 3.0, "d3": 2.0, "d4": 8.0}})
    scored = Run.from_dict({"a": {"t": 0.5, "d1": 0.25, "d3": 0.125}, "b": {"d0": 4.0}, "d": {"d0": 1.0}})
    pairs = TrainingPairs.of(docs, queries, qrels, negatives=mined, teacher=scored)
    assert list(pairs.queries) == ["?a", "?b"] and len(pairs) == 2
    assert pairs.num_unanswered == 3
    assert sorted(pairs.documents) == [" ", "one", "three", "title\nbody", "two"]
    found = named(pairs, pairs.positives)
    assert {q: sorted(texts) for q, texts in found.items()} == {"?a": ["title\nbody"], "?b": ["one", "two"]}
    # d3 is a copy of b's answer d1: no negative of b; for a it is d1 a second time
    assert named(pairs, pairs.negatives) == {"?a": ["two"], "?b": ["three", "title\nbody"]}
    assert named(pairs, pairs.teacher) == {"?a": ["title\nbody", "two"], "?b": ["one"]}
    assert pairs.teacher_scores.tolist() == [0.5, 0.25, 4.0]
    assert pairs.teacher_scores.dtype == np.float32


def test_runs_may_be_absent():
    pairs = TrainingPairs.of(corpus("x", "y"), Queries.from_texts({"a": "?"}), Qrels.from_dict({"a": {"d0": 1}}))
    assert len(pairs.negatives.values) == len(pairs.teacher.values) == len(pairs.teacher_scores) == 0
    assert len(pairs.negatives) == len(pairs.teacher) == 1
    assert list(pairs.documents) == ["x"] and pairs.num_unanswered == 0


@pytest.mark.parametrize(
    ("queries", "grades"),
    [
        ({}, {}),
        ({"a": "?"}, {}),
        ({"a": "?"}, {"a": {"d0": 0}}),
        ({"a": " "}, {"a": {"d0": 1}}),
        ({"a": "?"}, {"a": {"d1": 1}}),
        ({"a": "?"}, {"b": {"d0": 1}}),
    ],
    ids=["no query", "no judgement", "none above 0", "blank query", "blank answer", "another's"],
)
def test_no_pair_at_all_is_refused(queries, grades):
    with pytest.raises(DataError, match=f"none of {len(queries)} queries has an answer with words"):
        TrainingPairs.of(corpus("x", "  "), Queries.from_texts(queries), Qrels.from_dict(grades))


@pytest.mark.parametrize("where", ["qrels", "negatives", "teacher"])
def test_an_unknown_document_is_named(where):
    grades = {"a": {"d0": 1, **({"gone": 1} if where == "qrels" else {})}}
    runs = {where: Run.from_dict({"a": {"gone": 1.0, "d0": 2.0}})} if where != "qrels" else {}
    with pytest.raises(DataError, match=r"1 of 2 documents are not in the corpus of 2, 'gone'"):
        TrainingPairs.of(corpus("x", "y"), Queries.from_texts({"a": "?"}), Qrels.from_dict(grades), **runs)


@given(st.data())
def test_pairs_are_those_of_dictionaries(data):
    """The slow version: sets of texts, query by query."""
    texts = data.draw(st.lists(st.sampled_from(["p", "q", "r", "s", " "]), min_size=1, max_size=7))
    ids = [f"d{i}" for i in range(len(texts))]
    grade = st.dictionaries(st.sampled_from(ids), st.integers(0, 2), max_size=4)
    grades = data.draw(st.dictionaries(st.sampled_from(["a", "b", "c"]), grade, max_size=3))
    ranked = st.dictionaries(st.sampled_from(ids), st.integers(-3, 3).map(float), max_size=5)
    mined = Run.from_dict(data.draw(st.dictionaries(st.sampled_from(["a", "b", "c"]), ranked, max_size=3)))
    text_of = dict(zip(ids, texts, strict=True))
    answers = {q: {text_of[d] for d, g in docs.items() if g > 0} - {" "} for q, docs in grades.items()}
    answers = {q: found for q, found in answers.items() if found and q != "c"}
    queries = Queries.from_texts({"a": "?a", "b": "?b"})
    give = (corpus(*texts), queries, Qrels.from_dict(grades))
    if not answers:
        with pytest.raises(DataError):
            TrainingPairs.of(*give, negatives=mined, teacher=mined)
        return
    pairs = TrainingPairs.of(*give, negatives=mined, teacher=mined)
    assert {q: set(t) for q, t in named(pairs, pairs.positives).items()} == {f"?{q}": t for q, t in answers.items()}
    expected, scores = {}, []
    for q in sorted(answers):
        ranking = [(text_of[d], s) for d, s in mined.ranked(q)] if q in mined.query_ids.to_pylist() else []
        first = {}
        for text, score in ranking:
            if text != " ":
                first.setdefault(text, score)
        scores += first.values()
        expected[f"?{q}"] = [text for text in first if text not in answers[q]]
    assert named(pairs, pairs.negatives) == expected
    assert pairs.teacher_scores.tolist() == scores


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6), st.randoms())
def test_lists_are_those_of_python(given_lists, random):
    flat = [(owner, value) for owner, values in enumerate(given_lists) for value in values]
    keyed = sorted(flat, key=lambda pair: random.random() * 0 + pair[0])
    lists = Lists.of(np.array([o for o, _ in keyed], np.int64), np.array([v for _, v in keyed], np.int64), len(given_lists))  # fmt: skip
    assert [lists.of_row(row).tolist() for row in range(len(lists))] == given_lists
    rows = np.array([random.randrange(len(given_lists)) for _ in range(4)])
    taken = lists.take(rows)
    assert [taken.of_row(i).tolist() for i in range(4)] == [given_lists[row] for row in rows]
    assert np.array_equal(lists.values[lists.places(rows)], taken.values)
    assert taken.owners.tolist() == [i for i, row in enumerate(rows) for _ in given_lists[row]]
