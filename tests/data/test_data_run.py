"""Run: one order everywhere, no pair lost or invented, TREC files that come back as they went."""

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Run, align
from tamis.errors import DataError

ODD_IDS = [
    "../x",
    "a b",
    "=cmd()",
    "1180591620717411303424",
    "None",
    "1",
    "01",
    '"q"',
    "50%25",
    "%41",
    "x%20y",
    "é\u2028",
    "a\tb",
]
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.sampled_from(ODD_IDS)
scores = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 0.5, 0.5, -2.25])
answers = st.dictionaries(ids, st.dictionaries(ids, scores, max_size=6), max_size=5)


def slow_order(docs: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(docs.items(), key=lambda item: (-item[1], item[0].encode()))


def trec(run: Run, tag: str = "tamis") -> bytes:
    file = io.BytesIO()
    run.write_trec(file, tag)
    return file.getvalue()


def reread(data: bytes, tmp_path) -> Run:
    (tmp_path / "run.txt").write_bytes(data)
    return Run.read_trec(tmp_path / "run.txt")


def test_hand_worked_ties_negatives_and_an_unanswered_query():
    run = Run.from_dict({"q2": {"b": 0.5, "a": 0.5, "é": 0.75, "z": -1.5}, "q1": {}, "q0": {"a": -0.25}})
    assert run.ranked("q2") == [("é", 0.75), ("a", 0.5), ("b", 0.5), ("z", -1.5)]
    assert run.ranked("q1") == [] == run.ranked("unknown")
    assert run.offsets.tolist() == [0, 4, 4, 5]
    assert run.ranks.tolist() == [1, 2, 3, 4, 1]
    assert run.query_rows.tolist() == [0, 0, 0, 0, 2]
    assert len(run) == 5
    assert run.truncate(1).to_dict() == {"q2": {"é": 0.75}, "q1": {}, "q0": {"a": -0.25}}
    assert run.answer(["q0", "q9"]).to_dict() == {"q0": {"a": -0.25}, "q9": {}}
    assert run.without(["q2", "q2", "q7"], ["é", "none", "a"]).ranked("q2") == [("a", 0.5), ("b", 0.5), ("z", -1.5)]
    assert run.with_scores(-run.scores).ranked("q2") == [("z", 1.5), ("a", -0.5), ("b", -0.5), ("é", -0.75)]
    assert run.map(lambda query, ranked: ranked[1:2]).to_dict() == {"q2": {"a": 0.5}, "q1": {}, "q0": {}}
    assert trec(run, "a tag").decode().splitlines()[:2] == ["q2 Q0 é 1 0.75 a%20tag", "q2 Q0 a 2 0.5 a%20tag"]
    assert run.to_table().to_pylist()[-1] == {"query_id": "q0", "doc_id": "a", "rank": 1, "score": -0.25}


@given(answers)
def test_order_is_score_then_bytes_of_the_id(given_scores):
    run = Run.from_dict(given_scores)
    assert {q: run.ranked(q) for q in given_scores} == {q: slow_order(docs) for q, docs in given_scores.items()}
    assert Run.from_dict(run.to_dict()) == run
    assert run.to_table().num_rows == len(run)


@given(answers, st.randoms())
def test_rows_in_any_order_make_the_same_run(given_scores, random):
    run = Run.from_dict(given_scores)
    order = list(range(len(run)))
    random.shuffle(order)
    shuffled = Run(run.query_ids, run.doc_ids, run.query_rows[order], run.docs[order], run.scores[order])
    assert shuffled == run


@given(answers, st.integers(0, 7))
def test_k_results_are_a_prefix_of_more(given_scores, k):
    run = Run.from_dict(given_scores)
    assert {q: run.truncate(k).ranked(q) for q in given_scores} == {q: run.ranked(q)[:k] for q in given_scores}
    assert run.truncate(k + 1).truncate(k) == run.truncate(k)


@given(answers, st.lists(ids, unique=True, max_size=6))
def test_answer_holds_exactly_the_queries_asked_for(given_scores, wanted):
    run = Run.from_dict(given_scores).answer(wanted)
    assert run.query_ids.to_pylist() == wanted
    assert run.to_dict() == {q: dict(slow_order(given_scores.get(q, {}))) for q in wanted}


@given(answers, st.lists(st.tuples(ids, ids), max_size=4))
def test_without_leaves_out_those_pairs_alone(given_scores, extra):
    pairs = extra + [(q, d) for q, docs in given_scores.items() for d in list(docs)[:2]]
    run = Run.from_dict(given_scores).without([q for q, _ in pairs], [d for _, d in pairs])
    expected = {q: {d: s for d, s in slow_order(docs) if (q, d) not in pairs} for q, docs in given_scores.items()}
    assert run.to_dict() == expected


@given(answers)
def test_trec_round_trip(tmp_path_factory, given_scores):
    run = Run.from_dict(given_scores)
    answered = [q for q in given_scores if given_scores[q]]  # the format cannot say that a query has no answer
    back = reread(trec(run), tmp_path_factory.mktemp("trec"))
    assert back == run.answer(answered)


def test_blocks_equal_the_dict_and_padding_is_left_out():
    rows_QK = np.array([[2, 0, -1], [-1, -2, -1], [1, 2, 0]])
    scores_QK = np.array([[0.5, 0.75, np.nan], [np.nan, np.inf, 0], [1.0, 1.0, 1.0]], dtype=np.float32)
    run = Run.from_blocks(["a", "b", "c"], ["z", "y", "x"], rows_QK, scores_QK)
    expected = Run.from_dict({"a": {"x": 0.5, "z": 0.75}, "b": {}, "c": {"y": 1.0, "x": 1.0, "z": 1.0}})
    assert run.to_dict() == expected.to_dict()
    assert run == expected
    assert len(Run.from_blocks([], ["z"], np.empty((0, 3), np.int64), np.empty((0, 3)))) == 0
    assert Run.from_blocks(["a"], ["z"], np.array([[-1, -1]]), np.zeros((1, 2))).to_dict() == {"a": {}}


@given(st.data())
def test_blocks_equal_the_dict_for_any_block(data):
    num_docs = data.draw(st.integers(1, 6))
    blocks = data.draw(st.lists(st.permutations(range(num_docs)), min_size=1, max_size=4))
    depth = data.draw(st.integers(1, num_docs))
    rows_QK = np.array([row[:depth] for row in blocks])
    rows_QK[data.draw(st.lists(st.booleans(), min_size=len(blocks), max_size=len(blocks)).map(np.array))] = -1
    scores_QK = np.array(data.draw(st.lists(st.floats(-4, 4), min_size=rows_QK.size, max_size=rows_QK.size)))
    scores_QK = scores_QK.reshape(rows_QK.shape)
    doc_ids = [f"d{9 - i}" for i in range(num_docs)]
    expected = {
        f"q{q}": {doc_ids[row]: float(s) for row, s in zip(rows, values, strict=True) if row >= 0}
        for q, (rows, values) in enumerate(zip(rows_QK, scores_QK, strict=True))
    }
    assert Run.from_blocks(list(expected), doc_ids, rows_QK, scores_QK) == Run.from_dict(expected)


def test_equality_sees_every_part():
    run = Run.from_dict({"q": {"a": 1.0, "b": 0.5}})
    assert run == Run.from_dict({"q": {"b": 0.5, "a": 1.0}})
    assert run != Run.from_dict({"p": {"a": 1.0, "b": 0.5}})
    assert run != Run.from_dict({"q": {"a": 1.0, "b": 0.25}})
    assert run != Run.from_dict({"q": {"a": 1.0, "c": 0.5}})
    assert run != Run.from_dict({"q": {"a": 1.0}})
    assert run != "run"


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_refused_with_their_pair(score):
    with pytest.raises(DataError, match="query q1 gives document b the score"):
        Run.from_dict({"q0": {"a": 1.0}, "q1": {"a": 0.0, "b": score}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Run(["q"], ["a"], np.array([0, 0]), np.array([0, 0]), np.ones(2)), "holds document a twice"),
        (lambda: Run(["q", "q"], ["a"], np.array([0]), np.array([0]), np.ones(1)), "queries: the id 'q' occurs more"),
        (lambda: Run(["q"], ["a", "b", "a"], np.array([0]), np.array([0]), np.ones(1)), "documents: the id 'a' occurs"),
        (lambda: Run(["q"], ["a"], np.array([0]), np.array([1]), np.ones(1)), "document row 1 of 1 ids"),
        (lambda: Run(["q"], ["a"], np.array([1]), np.array([0]), np.ones(1)), "query row 1 of 1 ids"),
        (lambda: Run(["q"], ["a"], np.array([-1]), np.array([0]), np.ones(1)), "query row -1 of 1 ids"),
        (lambda: Run.from_blocks(["q"], ["a"], np.array([[5]]), np.ones((1, 1))), "document row 5 of 1 ids"),
        (lambda: Run(["q", None], [], np.array([]), np.array([]), np.array([])), "1 of 2 ids are missing"),
        (lambda: Run([7], [], np.array([]), np.array([]), np.array([])), "run: ids: "),
        (lambda: Run.from_dict({"q": {"a": "high"}}), "run: scores: "),
        (lambda: Run.from_dict({"q": {"a": None}}), "the score nan"),
        (lambda: trec(Run.from_dict({"q": {"": 1.0}})), "an id is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_many_queries_and_documents_do_not_overflow():
    """Q x D far above 2^31: keys of pairs are 64-bit."""
    queries, docs = [f"q{i:06d}" for i in range(70_000)], [f"d{i:06d}" for i in range(70_000)]
    last = np.array([69_999, 69_999, 0])
    run = Run(queries, docs, last, np.array([69_999, 69_998, 0]), np.array([1.0, 2.0, 3.0]))
    assert run.ranked("q069999") == [("d069998", 2.0), ("d069999", 1.0)]
    assert run.without(["q069999"], ["d069998"]).ranked("q069999") == [("d069999", 1.0)]
    with pytest.raises(DataError, match="q069999 holds document d069999 twice"):
        Run(queries, docs, last[:2], last[:2], np.ones(2))


@pytest.mark.parametrize(
    "text",
    [
        "q1 Q0 d1 1 2.5 tag\nq1 Q0 d2 9 0.5 tag\n",
        "q1\tQ0\td1\t1\t2.5\ttag\nq1\tQ0\td2\t9\t0.5\ttag",
        "\n q1  Q0 d1 1   2.5 tag \r\nq1 Q0 d2 9 0.5 tag\t\r\n\r\n",
        "q1 Q0 d2 1 0.5 tag\n  q1 Q0 d1 2 2.5 tag",
    ],
)
def test_other_peoples_spacing_and_ranks(tmp_path, text):
    assert reread(text.encode(), tmp_path).to_dict() == {"q1": {"d1": 2.5, "d2": 0.5}}


def test_trec_ids_with_quotes_and_foreign_percent_signs(tmp_path):
    run = reread(b'q"1 Q0 "d" 1 1 t\nq"1 Q0 AP%2D88 2 0.5 t\nq"1 Q0 a%20b 3 0.25 t\nq"1 Q0 %FF 4 0 t\n', tmp_path)
    assert run.to_dict() == {'q"1': {'"d"': 1.0, "AP%2D88": 0.5, "a b": 0.25, "%FF": 0.0}}
    assert reread(b" \n", tmp_path).to_dict() == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"q Q0 d 1 2.5\n", "not a TREC run"),
        (b"q Q0 d 1 high t\n", "not a TREC run"),
        (b"q Q0 \xff\xfe 1 1 t\n", "not a TREC run"),
        (b"q Q0 d 1 nan t\n", "scores must be finite"),
        (b"q Q0 d 1 1 t\nq Q0 d 2 1 t\n", "twice"),
    ],
)
def test_a_damaged_trec_file_is_refused(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        reread(data, tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        Run.read_trec(tmp_path / "absent")


def test_align_brings_runs_to_common_ids():
    one, two = (
        Run.from_dict({"a": {"x": 1.0}, "b": {"z": 2.0}}),
        Run.from_dict({"c": {"y": 3.0}, "a": {"z": 1.0, "x": 0.5}}),
    )
    query_ids, doc_ids, rows = align([one, two])
    assert query_ids.to_pylist() == ["a", "b", "c"]
    assert doc_ids.to_pylist() == ["x", "y", "z"]
    assert [(q.tolist(), d.tolist()) for q, d in rows] == [([0, 1], [0, 2]), ([2, 0, 0], [1, 2, 0])]
    assert isinstance(one.doc_column, pa.LargeStringArray)
