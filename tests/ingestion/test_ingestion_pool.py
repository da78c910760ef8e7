"""Pools: the same documents, ids and rejects as ingestion without cleaning; verbatim texts and lines; fast and lean."""

import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import artefact, ledger
from tamis.data.corpus import DOCUMENT_SCHEMA, Corpus
from tamis.errors import DataError, ResourceError
from tamis.ingestion import pool_lines, readers
from tamis.ingestion.decompress import open_stream
from tamis.ingestion.ingest import Ingest, ingest, plan
from tamis.ingestion.pool import Pool
from tamis.ingestion.pool_lines import LineBlocks, parse_each, parse_plain
from tamis.ingestion.readers import FieldNames, LineReader
from tamis.ingestion.records import Fields, Record, Reject
from tamis.ingestion.sources import resolve

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
LINES = [
    '{"_id": "a", "title": "One", "text": "first  text\\n", "year": 1999}',
    '{"_id": "b", "text": "zweiter \\u00fcber", "title": null, "metadata": {"k": [1, {"z": 2}]}}',
    '{"_id": "c", "text": "dritter", "title": ["not", "a", "string"]}',
]


def write(path: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(b"".join((x if isinstance(x, bytes) else x.encode()) + end for x in lines))
    return path


def opened(tmp_path, *paths, **options) -> Pool:
    return Pool.open([str(p) for p in paths], scratch=tmp_path / "scratch", **options)


def rows(pool, columns=None):
    return pa.Table.from_batches(list(pool.batches(columns)), schema=None).to_pylist()


def rejects(pool):
    return [orjson.loads(line) for line in pool.rejects.read_bytes().splitlines()]


def found(doc_id, title, text):
    return {"doc_id": doc_id, "title": title, "text": text, "source": "x.jsonl", "metadata": "{}", "group_id": doc_id}


def test_hand_worked_documents(tmp_path):
    with opened(tmp_path, write(tmp_path / "x.jsonl", *LINES)) as pool:
        assert len(pool) == 3 and pool.schema == DOCUMENT_SCHEMA
        assert rows(pool) == [
            {**found("a", "One", "first  text\n"), "metadata": '{"year":1999}'},
            {**found("b", "", "zweiter über"), "metadata": '{"k":[1,{"z":2}]}'},
            {**found("c", "", "dritter"), "metadata": '{"title":["not","a","string"]}'},
        ]
        assert [b.schema.names for b in pool.batches(["text", "doc_id"])] == [["text", "doc_id"]]
        assert pool.doc_ids.to_pylist() == ["a", "b", "c"]
        assert list(pool.raw([2, 0])) == [LINES[2].encode(), LINES[0].encode()]
        assert pool.num_bytes == len("Onefirst  text\ndritter") + len("zweiter über".encode())
        assert pool.counts["documents"] == pool.counts["documents_read"] == 3 and rejects(pool) == []
        with pytest.raises(DataError, match=r"no column 'txt' \(has: doc_id"):
            list(pool.batches(["txt"]))
        folder = next((tmp_path / "scratch").iterdir())
    assert not folder.exists() and (tmp_path / "scratch").is_dir()


def test_lines_without_ids_are_named_by_file_and_line(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.jsonl", '{"text": "x"}', "", "   ", '{"text": "y"}')
    write(tmp_path / "in" / "b.jsonl", '{"text": "x"}')
    with opened(tmp_path, tmp_path / "in") as pool:
        assert pool.doc_ids.to_pylist() == ["a.jsonl:1", "a.jsonl:4", "b.jsonl:1"]


def test_odd_lines_are_the_rejects_of_ingestion(tmp_path):
    deep = '{"_id": "deep", "text": "x", "more": ' + "[" * 300 + "]" * 300 + "}"
    bad = [
        b'\xef\xbb\xbf{"_id": "bom", "text": "with a mark"}\r',
        b'{"_id": "half", "text": "\\ud800"}',
        b'{"_id": "cut", "text": "',
        b"[1, 2]",
        b'{"_id": "none"}',
        b'{"_id": "number", "text": 7}',
        b'{"_id": "", "text": "no id"}',
        b'{"_id": "tab\\tid", "text": "control"}',
        b'{"_id": true, "text": "boolean"}',
        b'{"_id": 18446744073709551615, "text": "too large"}',
        b'{"_id": 12, "text": "an integer"}',
        b'{"_id": "latin", "text": "\xe9"}',
        b'{"_id": "' + b"i" * 513 + b'", "text": "long id"}',
        b'{"_id": "' + b"i" * 512 + b'", "text": "long enough"}',
        deep.encode(),
        b'{"_id": "empty", "text": " \\n"}',
        b'{"_id": "last", "text": "without an end"}',
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(bad))
    kept, dropped, found = ingested(tmp_path, path)
    with opened(tmp_path, path, max_reject_frac=1.0) as pool:
        assert rejects(pool) == found and len(found) == 12
        assert rows(pool) == kept and [r["doc_id"] for r in kept] == ["bom", "12", "i" * 512, "last"]
        assert [dropped[0]["doc_id"], pool.counts["dropped_empty_text"]] == ["empty", 1]
        assert next(pool.raw([0])) == b'{"_id": "bom", "text": "with a mark"}'


def ingested(tmp_path, *paths, **settings):
    """Return (kept, dropped, rejects) of ingestion without cleaning."""
    folder = tmp_path / "ingested"
    stages = []
    with (
        artefact.stage(folder / "corpus", "corpus", settings={}, inputs={}, seed=1) as corpus,
        artefact.stage(folder / "dropped", "dropped", settings={}, inputs={}, seed=1) as dropped,
        artefact.stage(folder / "ledger", "ledger", settings={}, inputs={}, seed=1) as book,
    ):
        options = Ingest(unicode=False, max_reject_frac=1.0, **settings)
        ingest([str(p) for p in paths], options, corpus=corpus, dropped=dropped, ledger=book)
    stages = [Corpus.open(folder / name).table().to_pylist() for name in ("corpus", "dropped")]
    lines = (folder / "dropped" / "rejects.jsonl").read_bytes().splitlines()
    for row in stages[0]:
        row["group_id"] = row["doc_id"]  # a pool groups nothing
    return *stages, [orjson.loads(line) for line in lines]


def everything(folder: Path) -> Path:
    """Make one file of each format below a folder."""
    folder.mkdir()
    write(folder / "a.jsonl", *LINES, '{"_id": "broken"')
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "packed", "n": 1}\n{"text": "zwei"}\n'))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(b'{"_id": "zst", "text": "packed", "tag": "t"}\n'))
    write(folder / "d.csv", "id,text,kind", 'csv1,"a, b",k', "csv2,zwei,l")
    write(folder / "e.txt", "plain text")
    write(folder / "f.md", "# Title", "", "Body.")
    write(folder / "g.html", "<title>T</title><p>Some words.</p>")
    write(folder / "h.py", '"""Doc."""', "def f():", '    """Say."""', "    return 1")
    write(folder / "i.json", '[{"id": 5, "text": "in an array"}, 6]')
    pq.write_table(pa.table({"id": ["p1", "p2"], "text": ["parquet", "rows"], "n": [1, 2]}), folder / "j.parquet")
    write(folder / "k.tsv", "id\ttext", "t1\tzeile")
    (folder / "l.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "torn1", "text": "whole"}\n' * 1)[:-9])
    return folder


def test_every_format_gives_what_ingestion_gives(tmp_path):
    folder = everything(tmp_path / "in")
    kept, _, found = ingested(tmp_path, folder)
    with opened(tmp_path, folder, max_reject_frac=1.0) as pool:
        assert rows(pool) == kept and len(kept) > 12
        assert rejects(pool) == found and len(found) == 3
        raw = list(pool.raw(range(len(pool))))
        assert raw[:5] == [*(line.encode() for line in LINES), b'{"text": "packed", "n": 1}', b'{"text": "zwei"}']
        at = pool.doc_ids.to_pylist().index("csv1")
        assert orjson.loads(raw[at]) == {"_id": "csv1", "title": "", "text": "a, b", "metadata": {"kind": "k"}}


def test_a_beir_folder_and_fields_that_were_named(tmp_path):
    folder = tmp_path / "beir"
    folder.mkdir()
    write(folder / "corpus.jsonl", '{"key": 7, "title": "wrong", "head": "H", "abstract": "Abc"}')
    write(folder / "queries.jsonl", '{"_id": "q", "text": "not a document"}')
    names = FieldNames(doc_id="key", text="abstract", title="head")
    with opened(tmp_path, folder, fields=names) as pool:
        (row,) = rows(pool)
    assert (row["doc_id"], row["title"], row["text"], row["metadata"]) == ("7", "H", "Abc", '{"title":"wrong"}')
    with pytest.raises(DataError, match="use --text-field abstract"):
        opened(tmp_path, folder, max_reject_frac=1.0)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_copies_are_dropped_and_conflicts_refused(tmp_path):
    (tmp_path / "in").mkdir()
    one = write(tmp_path / "in" / "a.jsonl", *LINES)
    two = write(tmp_path / "in" / "b.jsonl", LINES[1], LINES[0].replace("1999", "2000"), '{"_id": "d", "text": "t"}')
    with opened(tmp_path, tmp_path / "in") as pool:
        assert pool.doc_ids.to_pylist() == ["a", "b", "c", "d"]
        assert pool.counts["dropped_repeated_document"] == 2
        told = pa.concat_tables(pool.decisions()).to_pylist()
        assert [(r["doc_id"], r["decision"], r["reason"], r["other_id"], r["seq"]) for r in told] == [
            ("a", "kept", "", "", 0),
            ("b", "kept", "", "", 0),
            ("c", "kept", "", "", 0),
            ("b", "dropped", "repeated_document", "a.jsonl:2", 1),
            ("a", "dropped", "repeated_document", "a.jsonl:1", 1),
            ("d", "kept", "", "", 0),
        ]
        with artefact.stage(tmp_path / "l" / "1-pool", "ledger", settings={}, inputs={}, seed=1) as staging:
            ledger.write(staging, pa.concat_tables(pool.decisions()))
        assert list(pool.raw([3])) == [b'{"_id": "d", "text": "t"}']
        assert pool.take([3, 0, 3], ["doc_id", "text"]).to_pylist()[0] == {"doc_id": "d", "text": "t"}
    write(two, '{"_id": "c", "text": "another"}')
    with pytest.raises(DataError, match=r"1 id\(s\) come with more than one text[^a]*'c': a.jsonl:3 and b.jsonl:1"):
        opened(tmp_path, one, two)
    write(two, '{"_id": "a.jsonl:1", "text": "made elsewhere"}')
    write(one, '{"text": "without an id"}')
    with pytest.raises(DataError, match=r"'a.jsonl:1': a.jsonl:1 and b.jsonl:1"):
        opened(tmp_path, one, two)


def test_refusals_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        opened(tmp_path, tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match=r"1 of 2 records rejected.*invalid_json"):
        opened(tmp_path, write(tmp_path / "x.jsonl", LINES[0], "{"))
    with pytest.raises(DataError, match=r"no document is left: .*1 empty_text"):
        opened(tmp_path, write(tmp_path / "x.jsonl", '{"text": " "}'))
    pool = opened(tmp_path, write(tmp_path / "x.jsonl", *LINES))
    for wrong in ([3], [-1]):
        with pytest.raises(DataError, match="of 3 documents: rows count from 0"):
            pool.take(wrong)
    write(tmp_path / "x.jsonl", *LINES, LINES[0])
    with pytest.raises(DataError, match="changed since the pool was opened"):
        list(pool.raw([0]))
    assert pool.take([0], ["text"]).num_rows == 1  # what was read stays readable
    pool.close()
    with pytest.raises(ResourceError, match="cannot read"):
        list(pool.batches(["text"]))


def many(path: Path, num: int, *, seed: int = 3) -> Path:
    """Write documents of very different sizes."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        for number in range(num):
            text = "wörd " * int(rng.integers(1, 40)) + "x" * int(rng.integers(0, 3) == 0) * 3000
            file.write(
                orjson.dumps({"_id": f"d{number}", "title": f"T{number % 7}", "text": text, "n": number}) + b"\n"
            )
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setitem(LineBlocks.__init__.__kwdefaults__, "block_bytes", 10_000)


def test_pieces_cover_the_pool_and_travel(tmp_path, small_blocks):
    path = many(tmp_path / "x.jsonl", 500)
    with path.open("ab") as file:
        file.write(b'{"_id": "d3", "title": "T3", "text": " "}\n')
    with opened(tmp_path, path) as pool:
        pieces = pickle.loads(pickle.dumps(pool.pieces()))  # noqa: S301 - our own
        assert len(pieces) > 5 and [p.first for p in pieces] == np.cumsum([0, *map(len, pieces)])[:-1].tolist()
        again = [row for piece in pieces for batch in piece.read() for row in batch.to_pylist()]
        assert again == rows(pool) and len(again) == len(pool) == 500
        assert orjson.loads(again[123]["metadata"]) == {"n": 123}


def test_take_is_the_table_in_any_order(tmp_path, small_blocks):
    lines = many(tmp_path / "y.jsonl", 300).read_bytes().splitlines()
    lines[50:50] = [b'{"_id": "e%d", "text": ""}' % n for n in range(20)]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    with opened(tmp_path, tmp_path / "x.jsonl.gz") as pool:
        table = pa.Table.from_batches(list(pool.batches()))
        chosen = np.random.default_rng(1).integers(0, 300, 80)
        assert pool.take(chosen).to_pylist() == table.take(pa.array(chosen)).to_pylist()
        assert pool.take([], ["text"]).schema == table.schema.field("text") or pool.take([]).num_rows == 0
        texts = [orjson.loads(line)["_id"] for line in pool.raw(chosen)]
        assert texts == table["doc_id"].take(pa.array(chosen)).to_pylist()


def test_block_sizes_and_workers_change_nothing(tmp_path, monkeypatch):
    folder = everything(tmp_path / "in")
    many(folder / "m.jsonl", 3000)
    results = []
    for block, workers in ((1 << 22, 1), (777, 1), (1 << 22, 2)):
        monkeypatch.setitem(LineBlocks.__init__.__kwdefaults__, "block_bytes", block)
        monkeypatch.setattr("tamis.ingestion.pool._PROCESS_BYTES", 0)
        with opened(tmp_path, folder, max_reject_frac=1.0, workers=workers) as pool:
            results.append((rows(pool), rejects(pool), pool.counts, pool.content, pool.num_bytes))
    assert results[0] == results[1] == results[2]


def test_byte_ranges_of_one_file_count_its_lines(tmp_path, monkeypatch):
    lines = [orjson.dumps({"text": f"line {n} " + "x" * (n % 50), "n": n}) for n in range(1, 401)]
    lines[299] = b"{"
    path = write(tmp_path / "x.jsonl", *lines)
    results = []
    for size, together in ((1 << 30, 1 << 25), (1000, 1 << 25), (1000, 1)):
        monkeypatch.setitem(plan.__globals__, "RANGE_BYTES", size)
        monkeypatch.setitem(plan.__globals__, "TASK_BYTES", together)
        with opened(tmp_path, path) as pool:
            results.append((rows(pool), rejects(pool), list(pool.raw(range(399)))))
            assert (len(pool.pieces()) > 10) == (together == 1)
    assert results[0] == results[1] == results[2]
    assert [r["doc_id"] for r in results[0][0]] == [f"x.jsonl:{n}" for n in range(1, 401) if n != 300]
    assert [r["line"] for r in results[0][1]] == [300]


def test_ids_alone_hold_no_room_for_texts(tmp_path):
    with opened(
        tmp_path, write(tmp_path / "x.jsonl", *(f'{{"_id": "{n}", "text": "{"x" * 9999}"}}' for n in range(900)))
    ) as pool:
        before = pa.total_allocated_bytes()
        batches = list(pool.batches(["doc_id", "source"]))
        assert sum(map(len, batches)) == 900 and len(batches) > 1
        assert pa.total_allocated_bytes() - before < 100_000


def test_the_content_hash_sees_metadata_and_order(tmp_path):
    hashes = set()
    for lines in (
        LINES,
        LINES[::-1],
        [*LINES[:2], LINES[2].replace('"c"', '"e"')],
        [LINES[0].replace("1999", "2"), *LINES[1:]],
    ):
        with opened(tmp_path, write(tmp_path / "x.jsonl", *lines)) as pool:
            hashes.add(pool.content)
        with opened(tmp_path, tmp_path / "x.jsonl") as pool:
            hashes.add(pool.content)
    assert len(hashes) == 4


FRAGMENTS = st.lists(st.sampled_from([b"\n", b"{}", b"ab", b"\r\n", b" ", b"longer line here"]), max_size=30).map(
    b"".join
)


@settings(max_examples=300)
@given(FRAGMENTS, st.integers(1, 12), st.integers(3, 20), st.data())
def test_blocks_give_the_lines_of_the_line_reader(tmp_path_factory, data, block_bytes, max_line, draw):
    """Any block size, any bound, any two byte ranges: every line comes once, where the slow reader has it."""
    path = tmp_path_factory.getbasetemp() / "blocks.jsonl"
    path.write_bytes(data or b"x")
    source = resolve([str(path)]).files[0]
    slow = LineReader(open_stream(source), max_line_bytes=max_line)
    expected = [(slow.offset, "long" if isinstance(x, Reject) else x.rstrip(b"\r")) for x in slow]
    cut = draw.draw(st.integers(1, len(data or b"x")))
    for ranges in ([(0, -1)], [(0, cut), (cut, source.num_bytes)]):
        found = []
        for start, stop in ranges:
            if start >= source.num_bytes:
                continue
            blocks = LineBlocks(open_stream(source), start, stop, block_bytes=block_bytes, max_line_bytes=max_line)
            number = 0
            for block in blocks:
                if isinstance(block, Reject):
                    number += 1
                    assert block.line == number
                    found.append((block.offset, "long"))
                    continue
                assert block.first == number + 1
                number += len(block.lines)
                for line, offset in zip(block.lines, block.starts.tolist(), strict=True):
                    found.append((offset, "long" if len(line) > max_line else line.rstrip(b"\r")))
        assert found == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.fixed_dictionaries(
    {"_id": st.text(max_size=5) | st.integers(-5, 5) | VALUES, "text": st.text(max_size=9) | VALUES},
    optional={"title": st.text(max_size=4) | VALUES, "more": VALUES},
)
FIELDS = Fields("_id", "text", "title", (), "")


@settings(max_examples=300)
@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_the_plain_way_says_what_line_by_line_says(records):
    lines = [json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") for record in records]
    sizes = np.array([len(line) for line in lines])
    block = pool_lines.Lines(lines, 1, np.cumsum(sizes + 1) - sizes - 1, sizes)
    plain = parse_plain(block, FIELDS)
    each = [row for _, row in parse_each(block, FIELDS)]
    if plain is not None:
        assert all(isinstance(row, Record) for row in each)
        assert list(zip(*plain, strict=True)) == [(r.doc_id, r.title, r.text) for r in each]


def test_plain_lines_are_read_the_plain_way():
    def read(*records):
        lines = [orjson.dumps(record) for record in records]
        sizes = np.array([len(line) for line in lines])
        return parse_plain(pool_lines.Lines(lines, 1, np.cumsum(sizes + 1) - sizes - 1, sizes), FIELDS)

    nested = {"_id": "é-1", "text": "[[{" * 200, "metadata": {"k": [1, 2]}}
    assert read(nested, {"_id": "b", "title": None, "text": ""}) == (["é-1", "b"], ["", ""], ["[[{" * 200, ""])
    assert read({"_id": 1, "title": "T", "text": "x"}, {"_id": -2, "text": "y"}) == (["1", "-2"], ["T", ""], ["x", "y"])
    assert read({"_id": 1, "text": "x"}, {"_id": "2", "text": "y"}) is None
    assert read({"_id": 1, "text": "x", "more": nest(200)}, {"_id": 2, "text": "[" * 300}) == (
        ["1", "2"],
        ["", ""],
        ["x", "[" * 300],
    )
    lines = [b'{"_id": 1, "text": "x", "more": ' + b"[" * 254 + b"]" * 254 + b"}"]
    assert parse_plain(pool_lines.Lines(lines, 1, np.zeros(1, np.int64), np.array([len(lines[0])])), FIELDS) is None


def nest(depth):
    deep: list = []
    for _ in range(depth):
        deep = [deep]
    return deep


def test_a_long_line_is_passed_over_not_gathered(tmp_path):
    path = write(tmp_path / "x.jsonl", "short", "x" * 5000, "y")
    blocks = list(LineBlocks(open_stream(resolve([str(path)]).files[0]), block_bytes=100, max_line_bytes=200))
    assert [b.lines if isinstance(b, pool_lines.Lines) else b.detail for b in blocks] == [
        [b"short"],
        "5001 bytes, the bound is 200",
        [b"y"],
    ]


def test_a_line_beyond_the_bound_costs_one_reject(tmp_path):
    long = b'{"_id": "long", "text": "' + b"x" * readers.MAX_LINE_BYTES + b'"}'
    path = write(tmp_path / "x.jsonl", LINES[0], long, LINES[1])
    with opened(tmp_path, path, max_reject_frac=1.0) as pool:
        assert pool.doc_ids.to_pylist() == ["a", "b"]
        (row,) = rejects(pool)
        assert (row["line"], row["offset"], row["reason"]) == (2, len(LINES[0]) + 1, "line_too_long")


@pytest.mark.data
def test_memory_stays_small_and_reading_is_fast(shared, tmp_path):
    """A hundred megabytes of real texts: peak memory far below the file, and no slower than a slow disk."""
    path = tmp_path / "x.jsonl"
    with path.open("wb") as out:
        for turn in range(6):
            with gzip.open(shared / "newsgroups" / "corpus.jsonl.gz") as file:
                for line in file:
                    out.write(line.replace(b'"_id": "', b'"_id": "%d-' % turn, 1))
    script = (
        "import re, sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {SOURCE!r})\nfrom tamis.ingestion.pool import Pool\n"
        f"pool = Pool.open([{str(path)!r}], scratch=Path({str(tmp_path / 'scratch')!r}))\n"
        "num = sum(len(b) for b in pool.batches(['title', 'text']))\nids = pool.doc_ids\npool.close()\n"
        "status = Path('/proc/self/status').read_text()\n"  # ru_maxrss would count the parent's memory, too
        "print(num, int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    num, peak_mib = map(int, done.stdout.split())
    assert num > 60_000
    assert peak_mib < 450  # 215 of them are the interpreter and compiled kernels, before anything is read
