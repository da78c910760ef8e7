"""Ingest end to end: counts, ids, duplicates, rejects, equal bytes for any number of workers."""

import gzip
import hashlib
import os
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.data.artefact import Staging
from tamis.data.corpus import Corpus
from tamis.errors import DataError
from tamis.ingestion import Ingest, ingest
from tamis.ingestion import parts as parts_module

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def lines(*records) -> bytes:
    return b"".join((r if isinstance(r, bytes) else orjson.dumps(r)) + b"\n" for r in records)


class Run:
    """One run of ingest into fresh folders."""

    def __init__(self, out: Path, paths, workers=1, **settings):
        self.out = out
        stagings = {}
        for name in ("corpus", "dropped", "ledger"):
            (out / name).mkdir(parents=True)
            stagings[name] = Staging(out / name)
        self.seen = []
        self.counts = ingest(
            [str(p) for p in paths], Ingest(**settings), **stagings, workers=workers, progress=self.seen.append
        )
        self.corpus = Corpus.open(out / "corpus")
        self.docs = self.corpus.table().to_pylist()
        self.by_id = {d["doc_id"]: d for d in self.docs}
        self.dropped = Corpus.open(out / "dropped").table().to_pylist()
        self.dropped = pa.concat_tables(
            [pq.read_table(p) for p in sorted((out / "dropped").glob("part-*"))]
        ).to_pylist()
        self.rejects = [orjson.loads(line) for line in (out / "dropped" / "rejects.jsonl").read_bytes().splitlines()]
        self.ledger = pa.concat_tables([pq.read_table(p) for p in sorted((out / "ledger").glob("part-*"))]).to_pylist()

    def tree(self):
        return {
            p.relative_to(self.out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(self.out.rglob("*"))
            if p.is_file()
        }


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def good(num: int, prefix: str = "d"):
    return [
        {"id": f"{prefix}{i}", "title": f"Title {i}", "text": f"text number {i}", "year": 2000 + i} for i in range(num)
    ]


def test_one_document_works(tmp_path):
    run = Run(tmp_path / "o", [write(tmp_path / "a.jsonl", lines({"_id": "x", "text": "hello"}))])
    assert run.docs == [
        {"doc_id": "x", "title": "", "text": "hello", "source": "a.jsonl", "metadata": "{}", "group_id": "x"}
    ]
    assert run.counts["documents"] == run.counts["documents_read"] == run.counts["files"] == 1
    assert [r["decision"] for r in run.ledger] == ["kept"]
    assert run.seen == [1]
    assert not (tmp_path / "o" / "corpus" / ".scratch").exists()


def test_fields_are_found_and_others_become_metadata(tmp_path):
    record = {
        "docid": 7,
        "body": "the text",
        "title": "T",
        "b": 1,
        "a": [1, {"z": None}],
        "metadata": {"url": "u", "b": 2},
    }
    run = Run(tmp_path / "o", [write(tmp_path / "a.jsonl", lines(record))])
    assert run.docs[0]["doc_id"] == "7"
    assert (run.docs[0]["title"], run.docs[0]["text"]) == ("T", "the text")
    assert run.docs[0]["metadata"] == '{"a":[1,{"z":null}],"b":1,"metadata.b":2,"url":"u"}'


def test_ids_are_made_from_file_and_line(tmp_path):
    write(tmp_path / "in" / "sub" / "a.jsonl", b'\n{"text":"one"}\r\n\n{"text":"two"}')
    run = Run(tmp_path / "o", [tmp_path / "in"])
    assert [d["doc_id"] for d in run.docs] == ["sub/a.jsonl:2", "sub/a.jsonl:4"]


def test_a_text_field_of_another_name_is_suggested(tmp_path):
    path = write(
        tmp_path / "a.jsonl", lines({"id": 1, "title": "t", "body2": "x" * 50}, {"id": 2, "title": "t", "body2": "y"})
    )
    with pytest.raises(DataError, match=r"no field 'text' \(has: id, title, body2\); use --text-field body2"):
        Run(tmp_path / "o", [path])
    assert Run(tmp_path / "p", [path], text_field="body2").counts["documents"] == 2


def test_repeated_ids(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        lines({"id": "a", "text": "A"}, {"id": "a", "text": "B"}, {"id": "a", "text": "A"}, {"id": "a~2", "text": "C"}),
    )
    with pytest.raises(DataError, match=r"1 id\(s\).*\n.*'a': a.jsonl:1 and a.jsonl:2\n.*--on-duplicate"):
        Run(tmp_path / "e", [path])
    first = Run(tmp_path / "f", [path], on_duplicate="first")
    assert [(d["doc_id"], d["text"]) for d in first.docs] == [("a", "A"), ("a~2", "C")]
    assert [(d["text"], d["reason"]) for d in first.dropped] == [("B", "repeated_id"), ("A", "repeated_document")]
    last = Run(tmp_path / "l", [path], on_duplicate="last")
    assert [(d["doc_id"], d["text"]) for d in last.docs] == [("a", "A"), ("a~2", "C")]
    assert [(d["text"], d["reason"]) for d in last.dropped] == [("A", "repeated_document"), ("B", "repeated_id")]
    suffix = Run(tmp_path / "s", [path], on_duplicate="suffix")
    assert [(d["doc_id"], d["text"]) for d in suffix.docs] == [("a", "A"), ("a~3", "B"), ("a~2", "C")]
    for run in (first, last, suffix):
        assert len(run.ledger) == run.counts["documents_read"] == 4
        assert len({(r["doc_id"], r["seq"]) for r in run.ledger}) == 4


def test_same_id_same_text_is_dropped_and_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", lines({"id": 1, "text": "A"}, {"id": "1", "text": "A"}, {"id": 2, "text": "B"}))
    run = Run(tmp_path / "o", [path])
    assert [d["doc_id"] for d in run.docs] == ["1", "2"]
    assert run.counts["dropped_repeated_document"] == 1
    assert [r["other_id"] for r in run.ledger if r["decision"] == "dropped"] == ["a.jsonl:1"]


def test_equal_texts_are_grouped_under_the_first_id_in_byte_order(tmp_path):
    records = [
        {"id": "z", "text": "same"},
        {"id": "é", "text": "same"},
        {"id": "b", "text": "same "},
        {"id": "c", "title": "t", "text": "same"},
    ]
    run = Run(tmp_path / "o", [write(tmp_path / "a.jsonl", lines(*records))])
    assert {d["doc_id"]: d["group_id"] for d in run.docs} == {"z": "b", "é": "b", "b": "b", "c": "c"}
    assert sorted(r["decision"] for r in run.ledger) == ["grouped", "grouped", "kept", "kept"]


@pytest.mark.parametrize("data", [b"", b"\n\n", lines({"id": 1, "text": " \u200b\n"})])
def test_nothing_left_is_an_error(tmp_path, data):
    with pytest.raises(DataError, match="no document is left"):
        Run(tmp_path / "o", [write(tmp_path / "a.jsonl", data)])


def test_all_rejected_is_an_error_with_the_first_three(tmp_path):
    with pytest.raises(DataError, match=r"4 of 4 records rejected.*4 invalid_json(.|\n)*a\.jsonl, line 3, byte 8"):
        Run(tmp_path / "o", [write(tmp_path / "a.jsonl", b"{x}\n" * 4)])
    with pytest.raises(DataError, match="rejected"):
        Run(tmp_path / "p", [tmp_path / "a.jsonl"], max_reject_frac=0.99)


def test_empty_text_is_dropped(tmp_path):
    run = Run(
        tmp_path / "o",
        [write(tmp_path / "a.jsonl", lines({"id": 1, "text": ""}, {"id": 2, "text": "x"}, {"id": 3, "text": "😀"}))],
    )
    assert [d["doc_id"] for d in run.docs] == ["2", "3"]
    assert [(d["doc_id"], d["reason"]) for d in run.dropped] == [("1", "empty_text")]


def test_a_file_that_changes_while_it_is_read_is_not_believed(tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.jsonl", lines(*good(3)))
    write(tmp_path / "in" / "b.jsonl", lines(*good(3, "e")))
    original = parts_module.read

    def read(unit, names, reading):
        yield from original(unit, names, reading)
        if unit.source.path.endswith("a.jsonl"):
            os.utime(unit.source.path, ns=(1, 1))

    monkeypatch.setattr(parts_module, "read", read)
    run = Run(tmp_path / "o", [tmp_path / "in"], max_reject_frac=0.6)
    assert [d["doc_id"] for d in run.docs] == ["e0", "e1", "e2"]
    assert [(r["path"], r["reason"]) for r in run.rejects] == [("a.jsonl", "changed_while_reading")]
    assert len(run.ledger) == 3


def mixed(root: Path) -> Path:
    """Files of every kind, some large enough to be cut into ranges."""
    records = good(700) + [{"id": f"copy{i}", "title": "Title 1", "text": "text number 1"} for i in range(3)]
    write(root / "big.jsonl", b"\xef\xbb\xbf" + lines(*records[:350], b"{bad", *records[350:], b'{"id":"bad2"}'))
    write(root / "noid.jsonl", lines(*({"text": f"without id {i} " + "x" * (i % 97)} for i in range(400)), b"[1]"))
    write(root / "packed.jsonl.gz", gzip.compress(lines(*good(50, "g"))))
    pq.write_table(pa.Table.from_pylist(good(80, "p")), root / "t.parquet")
    write(root / "t.csv", b'id,text\nc1,one\nc2,"two\nlines"\n')
    write(root / "t.tsv", b'id\ttext\nt1\tsay "hi\n')
    write(root / "docs" / "a.md", b"# Guide\n\nSome words.\n")
    write(root / "docs" / "b.txt", "caf\u00e9 text".encode())
    write(root / "docs" / "c.html", b"<title>Page</title><p>Hello <a href=x>there</a>")
    write(root / "docs" / "d.py", b'def f():\n    """Doc."""\n    return 1\n')
    return root


def test_bytes_do_not_depend_on_workers_ranges_or_batches(tmp_path, monkeypatch):
    source = mixed(tmp_path / "in")
    one = Run(tmp_path / "one", [source])
    trees = [one.tree()]
    from tamis.ingestion import ingest as _  # noqa: F401

    module = __import__("sys").modules["tamis.ingestion.ingest"]
    monkeypatch.setattr(module, "RANGE_BYTES", 1009)
    monkeypatch.setattr(module, "TASK_BYTES", 5000)
    monkeypatch.setattr(parts_module.Task, "__init__", _small_batches(parts_module.Task.__init__))
    trees += [Run(tmp_path / "cut", [source]).tree(), Run(tmp_path / "two", [source], workers=2).tree()]
    assert trees[0] == trees[1] == trees[2]
    assert one.counts["documents"] == 703 + 400 + 50 + 80 + 2 + 1 + 1 + 1 + 1 + 2
    assert one.counts["grouped"] == 80 + 50 + 3  # p, g and the copies repeat texts of d
    assert [(r["path"], r["line"], r["reason"]) for r in one.rejects] == [
        ("big.jsonl", 351, "invalid_json"),
        ("big.jsonl", 705, "text_missing"),
        ("noid.jsonl", 401, "not_an_object"),
    ]
    for reject in one.rejects:
        line = (source / reject["path"]).read_bytes()[reject["offset"] :].split(b"\n")[0]
        assert line in (b"{bad", b'{"id":"bad2"}', b"[1]")
    assert {"docs/d.py:f", "docs/d.py", "docs/a.md", "noid.jsonl:400", "c2"} <= set(one.by_id)
    assert (
        sum(r["decision"] in ("kept", "changed", "grouped", "dropped") for r in one.ledger)
        == one.counts["documents_read"]
    )


def _small_batches(original):
    def init(self, *args, **kwargs):
        original(self, *args, **{**kwargs, "batch_docs": 7})

    return init


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="shared data absent")
def test_a_beir_folder_gives_its_corpus(tmp_path):
    run = Run(tmp_path / "o", [DATA / "cranfield"])
    raw = [orjson.loads(x) for x in gzip.decompress((DATA / "cranfield" / "corpus.jsonl.gz").read_bytes()).splitlines()]
    assert run.counts["documents_read"] == len(raw)
    assert run.counts["skipped_beside_beir_corpus"] >= 2
    assert {d["doc_id"] for d in run.docs} | {d["doc_id"] for d in run.dropped} == {str(r["_id"]) for r in raw}
