"""Queries and Qrels: files come back as they went; a line that cannot be meant is named, never skipped."""

import gzip
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Qrels, Queries
from tamis.data import queries as module
from tamis.errors import DataError

ODD_IDS = ["../x", "a b", " a", "=cmd()", "1", "01", '"q"', "50%", "a\u2028b", "a\xa0b"]
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6) | st.sampled_from(ODD_IDS)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
provenance = {"method": texts, "source_doc_id": texts, "start": st.integers(-1, 2**40), "stop": st.integers(-1, 9)}
query_records = st.lists(
    st.fixed_dictionaries({"query_id": ids, "text": texts}, optional=provenance),
    max_size=6,
    unique_by=lambda record: record["query_id"],
)
grades = st.dictionaries(
    ids, st.dictionaries(ids, st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4), max_size=4
)


def put(path, data: bytes):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@given(query_records)
def test_queries_round_trip(tmp_path_factory, listed):
    queries = Queries.from_records(listed)
    file = io.BytesIO()
    queries.write(file)
    folder = tmp_path_factory.mktemp("q")
    for name in ("q.jsonl", "q.jsonl.gz"):
        back = Queries.read(put(folder / name, file.getvalue()))
        assert back.ids == queries.ids == [record["query_id"] for record in listed]
        assert back.texts == queries.texts
    assert Queries(queries.table).table == queries.table


@given(grades)
def test_qrels_round_trip(tmp_path_factory, given_grades):
    qrels = Qrels.from_dict(given_grades)
    file = io.BytesIO()
    qrels.write(file)
    assert Qrels.read(put(tmp_path_factory.mktemp("r") / "test.tsv", file.getvalue())).grades == given_grades


def test_hand_worked_judgements():
    qrels = Qrels.from_dict({"a": {"x": 2, "y": 0, "z": -1}, "b": {"x": 1}})
    assert qrels.relevant("a") == {"x"}
    assert qrels.relevant("unknown") == set()
    assert len(qrels) == 4
    assert qrels.of(Queries.from_texts({"b": "?"})).grades == {"b": {"x": 1}}
    row = Qrels.from_records([{"query_id": "a", "doc_id": "x", "cut_start": None}]).table.to_pylist()[0]
    assert row == {"query_id": "a", "doc_id": "x", "relevance": 1, "cut_start": -1, "cut_stop": -1, "cut_title": False}


def test_select_by_row_and_by_mask():
    queries = Queries.from_texts({"a": "one", "b": "two", "c": "three"})
    assert queries.select(np.array([2, 0])).ids == ["c", "a"]
    assert queries.select(np.array([True, False, True])).texts == ["one", "three"]
    assert len(queries.select(np.array([], dtype=np.int64))) == 0


def test_foreign_query_files(tmp_path):
    data = b'\n{"_id": 7, "text": "a\xe2\x80\xa8b"}\r\n\n{"query_id": "x", "text": ""}\n{"id": "y", "text": "c"}'
    queries = Queries.read(put(tmp_path / "q.jsonl", data))
    assert queries.ids == ["7", "x", "y"]
    assert queries.texts == ["a\u2028b", "", "c"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"_id": "a", "text": "x"}\n\n{"_id": "b"}\n', r"line 3: a query needs '_id' and 'text'.*has: _id"),
        (b'{"_id": 1180591620717411303424, "text": "x"}', "line 1: a query needs"),
        (b'{"_id": true, "text": "x"}', "line 1: a query needs"),
        (b'{"_id": null, "text": "x"}', "line 1: a query needs"),
        (b'["a"]\n', "line 1: not a JSON object"),
        (b'{"_id": "a", "text": NaN}\n', "line 1: not a JSON object"),
        (b'{"_id": "a", "text": "\\ud800"}\n', "line 1: not a JSON object"),
        (b"[" * 20_000, "line 1: not a JSON object"),
        (b"\xff\n", "line 1: not a JSON object"),
        (b'{"_id": "", "text": "x"}', "the id '' .0 bytes. is refused"),
        (b'{"_id": "a\\tb", "text": "x"}', "is refused"),
        (b'{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}', "queries: the id 'a' occurs more than once"),
    ],
)
def test_query_lines_that_cannot_be_meant(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        Queries.read(put(tmp_path / "q.jsonl", data))


@pytest.mark.parametrize(
    "data",
    [
        b"query-id\tcorpus-id\tscore\nq 1\td1\t2\nq 1\td2\t0\r\n",
        b"q 1\td1\t2\n\nq 1\td2\t0",
        b"q%201 0 d1 2\nq%201\t0  d2 0\n",
    ],
)
def test_beir_and_trec_judgements(tmp_path, data):
    assert Qrels.read(put(tmp_path / "r", data)).grades == {"q 1": {"d1": 2, "d2": 0}}


def test_trec_judgements_split_at_ascii_blanks_only(tmp_path):
    data = 'q"1 0 a\xa0b 1\nq"1 0 AP%2D88 1\n'.encode()
    assert Qrels.read(put(tmp_path / "r", data)).relevant('q"1') == {"a\xa0b", "AP%2D88"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"q1\td1\t1.5\nq1\td2\t1\n", r"line 1: expected query-id.*1\.5"),
        (b"a\tb\tc\nq1\td1\tyes\n", "line 2: expected"),
        (b"q1\td1\n", "line 1: expected"),
        (b"\nq 0 d 1 2 3\n", "line 2: expected"),
        (b"q1\t\xff\t1\n", "line 1: expected"),
        (b"q1\td1\t1\nq1\td1\t2\n", "query 'q1' judges document 'd1' more than once"),
        (b"q1\t\t1\n", "the id ''"),
        (b"q1\td1\t99999999999\n", "records: "),
    ],
)
def test_judgements_that_cannot_be_meant(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        Qrels.read(put(tmp_path / "r.tsv", data))


def test_bounded_lines_and_broken_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 32)
    just = b'{"_id": "a", "text": "%s"}' % (b"x" * (31 - 24))
    assert Queries.read(put(tmp_path / "q.jsonl", just)).ids == ["a"]
    with pytest.raises(DataError, match="line 2: longer than"):
        Queries.read(put(tmp_path / "q.jsonl", just + b"\n" + just + b" \n"))
    for number, data in enumerate([b"no gzip", gzip.compress(just)[:-9], gzip.compress(just)[:12] + b"\xff" * 30]):
        (tmp_path / f"{number}.gz").write_bytes(data)
        with pytest.raises(DataError, match="cannot read"):
            Queries.read(tmp_path / f"{number}.gz")
    with pytest.raises(DataError, match="cannot read"):
        Qrels.read(tmp_path / "absent.tsv")


def test_tables_that_cannot_be_meant():
    with pytest.raises(DataError, match="queries: no column 'text'"):
        Queries(pa.table({"query_id": ["a"]}))
    with pytest.raises(DataError, match="queries: 1 rows have no query_id"):
        Queries.from_records([{"text": "x"}])
    with pytest.raises(DataError, match=r"queries: .*Failed to parse"):
        Queries(Queries.from_texts({"a": "b"}).table.set_column(4, "start", pa.array(["x"])))
    with pytest.raises(DataError, match="qrels: 1 rows have no doc_id"):
        Qrels.from_records([{"query_id": "a"}])
