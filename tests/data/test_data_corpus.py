"""Corpus: the same documents however they were cut, stored and read back; what cannot be a corpus is refused."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import DOCUMENT_SCHEMA, PASSAGE_SCHEMA, Corpus, CorpusWriter, artefact
from tamis.data import corpus as module
from tamis.errors import ArtefactError, DataError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
doc_ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
records = st.lists(
    st.fixed_dictionaries(
        {"doc_id": doc_ids, "text": words}, optional={"title": words, "source": words, "group_id": doc_ids}
    ),
    max_size=30,
    unique_by=lambda record: record["doc_id"],
)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_DOCS", 4)
    monkeypatch.setattr(module, "SHARD_DOCS", 12)
    monkeypatch.setattr(module, "SHARD_BYTES", 150)


def write(folder, table, cuts):
    """Write a table in batches that end at ``cuts``; return the manifest."""
    with artefact.stage(folder, "corpus", settings={}, inputs={}, seed=1) as staging:
        with CorpusWriter(staging, table.schema) as writer:
            for start, stop in zip([0, *cuts], [*cuts, len(table)], strict=True):
                for batch in table.slice(start, stop - start).to_batches():
                    writer.append(batch)
        assert writer.num_rows == len(table)
    return artefact.read_manifest(folder)


def test_hand_worked_defaults_and_rows():
    corpus = Corpus.from_records(
        [{"doc_id": "b", "text": "x"}, {"doc_id": "a", "text": "y", "title": None, "group_id": "b"}]
    )
    assert corpus.table().to_pylist() == [
        {"doc_id": "b", "title": "", "text": "x", "source": "", "metadata": "{}", "group_id": "b"},
        {"doc_id": "a", "title": "", "text": "y", "source": "", "metadata": "{}", "group_id": "b"},
    ]
    assert corpus.schema == DOCUMENT_SCHEMA
    assert not corpus.is_passages
    assert corpus.rows_of(["a", "zzz", "b"]).tolist() == [1, -1, 0]
    assert corpus.rows_of(pa.array(["a"])).tolist() == [1]
    assert corpus.id_ranks.tolist() == [1, 0]
    assert corpus.document("a")["text"] == "y"
    assert corpus.select([1]).doc_ids.to_pylist() == ["a"]
    assert len(Corpus.from_records([])) == 0
    passage = {"doc_id": "p", "text": "t", "parent_doc_id": "d", "ordinal": 0, "start": 0, "stop": 1, "section": ""}
    passages = Corpus.from_records([passage])
    assert passages.is_passages
    assert passages.schema == PASSAGE_SCHEMA


@given(records, st.data())
def test_written_bytes_do_not_depend_on_the_batches(tmp_path_factory, small_shards, listed, data):
    table = Corpus.from_records(listed).table()
    tmp_path = tmp_path_factory.mktemp("cuts")
    whole = write(tmp_path / "whole", table, [])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(table)), max_size=6)))
    assert write(tmp_path / "cut", table, cuts).files == whole.files
    assert write(tmp_path / "rows", table, list(range(1, len(table)))).files == whole.files
    opened = Corpus.open(tmp_path / "cut")
    assert opened.table() == table
    assert len(opened) == len(table)
    with artefact.stage(tmp_path / "again", "corpus", settings={}, inputs={}, seed=1) as staging:
        opened.write(staging)
    assert artefact.read_manifest(tmp_path / "again").files == whole.files


@given(records, st.data())
def test_take_and_rows_of_agree_with_a_list(tmp_path_factory, small_shards, listed, data):
    memory = Corpus.from_records(listed)
    tmp_path = tmp_path_factory.mktemp("take")
    write(tmp_path / "c", memory.table(), [])
    stored = Corpus.open(tmp_path / "c")
    rows = data.draw(st.lists(st.integers(0, len(listed) - 1), max_size=9)) if listed else []
    batch_docs = data.draw(st.integers(1, 9))
    expected = [memory.table().to_pylist()[row] for row in rows]
    for corpus in (memory, stored):
        assert corpus.take(rows).to_pylist() == expected
        assert corpus.take(rows, ["text", "doc_id"]).column_names == ["text", "doc_id"]
        wanted = [record["doc_id"] for record in expected]
        assert corpus.rows_of(wanted).tolist() == rows
        batches = list(corpus.batches(["doc_id"], batch_docs=batch_docs))
        assert [d for batch in batches for d in batch["doc_id"].to_pylist()] == memory.doc_ids.to_pylist()
        assert all(0 < len(batch) <= batch_docs for batch in batches)
        assert (
            corpus.id_ranks.tolist()
            == np.argsort(np.argsort([r["doc_id"].encode() for r in listed], kind="stable")).tolist()
        )


def test_parts_end_at_documents_or_bytes(tmp_path, small_shards):
    short = Corpus.from_records([{"doc_id": f"{i:02}", "text": "x"} for i in range(30)]).table()
    assert list(write(tmp_path / "short", short, []).files) == [f"part-{i:05d}.parquet" for i in range(3)]
    long = Corpus.from_records([{"doc_id": f"{i:02}", "text": "x" * 50} for i in range(16)]).table()
    assert len(write(tmp_path / "long", long, []).files) == 4
    exact = Corpus.from_records([{"doc_id": f"{i:02}", "text": "x"} for i in range(12)]).table()
    assert len(write(tmp_path / "exact", exact, [5]).files) == 1
    empty = write(tmp_path / "empty", short.slice(0, 0), [])
    assert list(empty.files) == ["part-00000.parquet"]
    assert len(Corpus.open(tmp_path / "empty")) == 0
    assert Corpus.open(tmp_path / "empty").take([]).schema == DOCUMENT_SCHEMA


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "x"}], "rows have no doc_id"),
        ([{"doc_id": "a"}], "rows have no text"),
        ([{"doc_id": "", "text": "x"}], "the id '' .0 bytes. is refused"),
        ([{"doc_id": "a\nb", "text": "x"}], "is refused"),
        ([{"doc_id": "a\x85b", "text": "x"}], "is refused"),
        ([{"doc_id": "é" * 273, "text": "x"}], "546 bytes"),
        ([{"doc_id": "a", "text": "x"}, {"doc_id": "a", "text": "y"}], "'a' occurs more than once"),
        ([{"doc_id": 7, "text": "x"}], "records: "),
        ([{"doc_id": "a", "text": ["x"]}], "records: "),
        ([{"doc_id": "\ud800", "text": "x"}], "records: "),
        ([{"doc_id": "a", "text": "x", "parent_doc_id": "p", "ordinal": 2**40}], "records: "),
        ([{"doc_id": "a", "text": "x", "parent_doc_id": None}], "rows have no parent_doc_id"),
    ],
)
def test_records_that_cannot_be_documents(rows, message):
    with pytest.raises(DataError, match=message):
        Corpus.from_records(rows)


def test_longest_and_odd_ids_are_kept():
    odd = ["é" * 256, "../x", "a b", "=cmd()", "1", "01", '"', " "]
    assert Corpus.from_records({"doc_id": d, "text": "x"} for d in odd).doc_ids.to_pylist() == odd


def test_tables_that_cannot_be_documents():
    with pytest.raises(DataError, match=r"no column 'text' \(has: doc_id\)"):
        Corpus.from_table(pa.table({"doc_id": ["a"]}))
    with pytest.raises(DataError, match="table: "):
        Corpus.from_table(pa.table({"doc_id": ["a"], "text": [["x"]]}))
    assert Corpus.from_table(pa.table({"doc_id": [7], "text": ["x"], "other": [1]})).document("7")["text"] == "x"


def test_unknown_ids_and_rows_are_named(tmp_path):
    memory = Corpus.from_records([{"doc_id": "a", "text": "x"}])
    write(tmp_path / "c", memory.table(), [])
    for corpus in (memory, Corpus.open(tmp_path / "c")):
        with pytest.raises(DataError, match="no document 'A' among 1"):
            corpus.document("A")
        with pytest.raises(DataError, match="doc_id: "):
            corpus.document("\udcff")
        for row in (-1, 1):
            with pytest.raises(DataError, match=f"row {row} of 1 documents"):
                corpus.take([row])


def test_folders_that_hold_no_corpus(tmp_path):
    with pytest.raises(DataError, match=r"no part-\*\.parquet"):
        Corpus.open(tmp_path)
    with (
        artefact.stage(tmp_path / "other", "x", settings={}, inputs={}, seed=1) as staging,
        CorpusWriter(staging, pa.schema([("n", pa.int64())])) as writer,
    ):
        writer.append(pa.record_batch({"n": [1]}))
    with pytest.raises(DataError, match="no column 'doc_id'"):
        Corpus.open(tmp_path / "other")
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 not at all PAR1")
    with pytest.raises(ArtefactError, match=r"part-00000\.parquet: damaged"):
        Corpus.open(tmp_path)


def test_damage_while_copying_is_not_called_a_full_disk(tmp_path):
    write(tmp_path / "c", Corpus.from_records([{"doc_id": "a", "text": "x" * 500}]).table(), [])
    part = tmp_path / "c" / "part-00000.parquet"
    corpus = Corpus.open(tmp_path / "c")
    part.write_bytes(part.read_bytes()[:4] + b"\xff" * 40 + part.read_bytes()[44:])
    with (
        pytest.raises(ArtefactError, match="damaged"),
        artefact.stage(tmp_path / "d", "c", settings={}, inputs={}, seed=1) as staging,
    ):
        corpus.write(staging)
    part.unlink()
    with pytest.raises(ArtefactError, match="unreadable"):
        len(Corpus(files=[part]))


def test_a_failing_source_leaves_no_part(tmp_path, small_shards):
    table = Corpus.from_records([{"doc_id": f"{i}", "text": "x"} for i in range(9)]).table()
    for num_rows in (2, 9):  # before and after the first row group
        with (
            pytest.raises(DataError, match="bad"),
            artefact.stage(tmp_path / "c", "corpus", settings={}, inputs={}, seed=1) as staging,
            CorpusWriter(staging, table.schema) as writer,
        ):
            writer.append(table.slice(0, num_rows).to_batches()[0])
            raise DataError("bad")
        assert list(tmp_path.iterdir()) == []
