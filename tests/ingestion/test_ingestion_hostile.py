"""Hostile input: fuzzed lines, long lines, bombs, odd files. Nothing crashes, hangs, grows or is lost."""

import gzip
import io
import os
import random
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from test_ingestion_ingest import Run, good, lines, write

from tamis.errors import DataError
from tamis.ingestion import resolve
from tamis.ingestion.decompress import ByteStream

HOSTILE = {
    b"[" * 20_000: "too_deep",
    b'{"id":"s","text":"\xff"}': "invalid_utf8",
    b'{"id":"s","text":"\\ud800"}': "lone_surrogate",
    b'{"id":"s","text":"x","a":NaN}': "invalid_json",
    b'{"id":1180591620717411303424,"text":"x"}': "bad_id",
    b"42": "not_an_object",
    b"null": "not_an_object",
    b'{"id":"s","text":["x"]}': "text_not_a_string",
    b'{"id":"s","text":7}': "text_not_a_string",
    b'{"id":"s","text":null}': "text_not_a_string",
    b'{"id":"s","text":{"a":"b"}}': "text_not_a_string",
    b'{"id":"s","body":"x"}': "text_missing",
    b'{"text":"x"}': "bad_id",
    b'{"id":"","text":"x"}': "bad_id",
    b'{"id":null,"text":"x"}': "bad_id",
    b'{"id":true,"text":"x"}': "bad_id",
    b'{"id":1.5,"text":"x"}': "bad_id",
    b'{"id":"a\\nb","text":"x"}': "bad_id",
    b'{"id":"' + b"i" * 1_000_000 + b'","text":"x"}': "bad_id",
    b'{"id":"s","text":"x","deep":' + b"[" * 500 + b"]" * 500 + b"}": "too_deep",
    b'{"id":"s","text":"x"': "invalid_json",
    b'\xef\xbb\xbf{"id":"s","text":"x"}': "invalid_json",
    b"{\x00}": "invalid_json",
}


def in_child(code: str, *arguments: object) -> list[str]:
    """Run code in a fresh process; it prints its results. Returns them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


READ = """
import sys, time
from pathlib import Path
from tamis.data.artefact import Staging
from tamis.evaluation.cost import peak_bytes  # not ru_maxrss: that would begin at the parent's
from tamis.ingestion import Ingest, ingest
folders = {n: Path(sys.argv[2]) / n for n in ("corpus", "dropped", "ledger")}
for folder in folders.values(): folder.mkdir(parents=True)
base = peak_bytes()
start = time.perf_counter()
counts = ingest([sys.argv[1]], Ingest(max_reject_frac=1.0), **{n: Staging(f) for n, f in folders.items()})
print(counts["documents"], counts["rejected"], (peak_bytes() - base) / 2**20, time.perf_counter() - start)
"""


def test_each_hostile_line_is_rejected_by_name_and_the_good_ones_are_kept(tmp_path):
    records = []
    for i, line in enumerate(HOSTILE):
        records += [line, {"id": f"good{i}", "text": f"text {i}"}]
    data = b'{"id":"first","text":"f"}\n' + lines(*records)
    run = Run(tmp_path / "o", [write(tmp_path / "a.jsonl", data)], max_reject_frac=0.9)
    assert run.counts["documents"] == len(HOSTILE) + 1
    assert [r["reason"] for r in run.rejects] == list(HOSTILE.values())
    for number, (reject, line) in enumerate(zip(run.rejects, HOSTILE, strict=True)):
        assert reject["line"] == 2 + 2 * number
        assert data[reject["offset"] :].startswith(line + b"\n")
        assert len(reject["detail"]) <= 200


def test_odd_but_legal_ids_are_opaque(tmp_path):
    ids = ["../x", "a b", "=cmd()", "<b>", "é", "i" * 512, -(2**63), 2**63 - 1, "'; DROP TABLE"]
    run = Run(
        tmp_path / "o", [write(tmp_path / "a.jsonl", lines(*({"id": i, "text": f"t{n}"} for n, i in enumerate(ids))))]
    )
    assert [d["doc_id"] for d in run.docs] == [str(i) for i in ids]


def test_fuzzed_lines(tmp_path):
    rng = random.Random(7)
    seeds = [orjson.dumps(r) for r in good(50)] + [h for h in HOSTILE if len(h) < 1000]
    made = []
    for number in range(20_000):
        line = bytearray(rng.choice(seeds))
        kind = rng.random()
        if kind < 0.1:
            line = bytearray(rng.randbytes(rng.randrange(200)))
        elif kind < 0.8:
            for _ in range(rng.randrange(1, 4)):
                at = rng.randrange(len(line) + 1)
                line[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
        else:
            line = bytearray(orjson.dumps({"id": f"n{number}", "text": f"t{number}"}))
        made.append(bytes(line).replace(b"\n", b" "))
    data = b'{"id":"first","text":"f"}\n' + b"\n".join(made) + b"\n"
    path = write(tmp_path / "fuzz.jsonl", data)
    run = Run(tmp_path / "o", [path], max_reject_frac=1.0, on_duplicate="suffix")
    blank = sum(not line.strip(b" \t\r\n") for line in made)
    assert run.counts["documents_read"] + run.counts["rejected"] + blank == 20_001
    assert run.counts["documents_read"] == len(run.docs) + len(run.dropped) == len(run.ledger)
    split = data.split(b"\n")
    offsets = [0]
    for line in split:
        offsets.append(offsets[-1] + len(line) + 1)
    for reject in run.rejects:
        assert set(reject) == {"path", "line", "offset", "reason", "detail"}
        assert offsets[reject["line"] - 1] == reject["offset"]
        assert reject["reason"] in set(HOSTILE.values())
    assert run.counts["rejected"] > 5000
    assert run.counts["documents"] > 4000


def test_a_line_of_64_mib_is_rejected_in_bounded_memory(tmp_path):
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"id":"a","text":"before"}\n{"id":"b","text":"')
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"id":"c","text":"after"}')
    documents, rejected, growth, _ = in_child(READ, tmp_path / "a.jsonl", tmp_path / "o")
    assert (documents, rejected) == ("2", "1")
    assert float(growth) < 256
    row = orjson.loads((tmp_path / "o" / "dropped" / "rejects.jsonl").read_bytes())
    assert (row["line"], row["offset"], row["reason"]) == (2, 27, "line_too_long")


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_a_bomb_of_1_gib_is_stopped(tmp_path, packing):
    path = tmp_path / f"bomb.jsonl.{packing}"
    first = b'{"id":"a","text":"before"}\n'
    if packing == "gz":  # 16 members of 64 MiB each
        path.write_bytes(gzip.compress(first) + 16 * gzip.compress(bytes(64 << 20)))
    else:
        press = zstandard.ZstdCompressor().compressobj()
        path.write_bytes(
            press.compress(first) + b"".join(press.compress(bytes(1 << 20)) for _ in range(1024)) + press.flush()
        )
    documents, rejected, growth, seconds = in_child(READ, path, tmp_path / "o")
    assert documents == "1"
    assert float(growth) < 128  # a line of 16 MiB, and what a decoder gives at once
    assert float(seconds) < 5
    rows = [orjson.loads(line) for line in (tmp_path / "o" / "dropped" / "rejects.jsonl").read_bytes().splitlines()]
    assert rows[-1]["reason"] == "decompression_bomb"
    assert len(rows) == int(rejected)


def unpack(data: bytes, packing: str) -> tuple[bytes, str]:
    stream = ByteStream(io.BytesIO(data), packing)
    out = io.BufferedReader(stream, 1 << 12).read()
    return out, stream.problem[0] if stream.problem else ""


@pytest.mark.parametrize(("packing", "compress"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_members_cuts_and_garbage(packing, compress):
    data = random.Random(1).randbytes(50_000) + b"y" * 500_000
    assert unpack(compress(data), packing) == (data, "")
    assert unpack(compress(data) + compress(b"") + compress(b"tail"), packing) == (data + b"tail", "")
    assert unpack(compress(data) + bytes(700), packing) == (data, "")
    assert unpack(compress(data) + b"garbage", packing) == (data, "trailing_garbage")
    for cut in (1, 10, len(compress(data)) // 2):
        out, problem = unpack(compress(data)[:-cut], packing)
        assert problem == "truncated_stream"
        assert data.startswith(out)
    assert unpack(compress(bytes(10 << 20))[:-4], packing)[1] == "truncated_stream"
    assert unpack(b"no archive", packing) == (b"", "corrupt_stream")
    assert unpack(b"", packing) == (b"", "truncated_stream")


def test_output_held_back_by_zlib_is_not_lost():
    data = bytes(10 << 20)
    assert unpack(gzip.compress(data)[:-8], "gz") == (data, "truncated_stream")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_cut_file_keeps_its_good_lines_and_names_the_rest(tmp_path, compress):
    rng = random.Random(3)
    records = [{"id": f"d{i}", "text": rng.randbytes(300).hex()} for i in range(2000)]
    packed = compress(lines(*records))
    suffix = "gz" if compress is gzip.compress else "zst"
    path = write(tmp_path / f"a.jsonl.{suffix}", packed[: len(packed) * 2 // 3])
    run = Run(tmp_path / "o", [path], max_reject_frac=0.5)
    assert 500 < run.counts["documents"] < 2000
    assert [d["text"] for d in run.docs] == [r["text"] for r in records[: len(run.docs)]]
    assert [(r["reason"], r["line"]) for r in run.rejects] == [("truncated_stream", len(run.docs) + 1)]


def test_a_cut_table_names_the_first_line_that_is_lost(tmp_path):
    rng = random.Random(3)
    packed = gzip.compress(
        b"id,text\n" + b"".join(b"%d,%s\n" % (i, rng.randbytes(300).hex().encode()) for i in range(500))
    )
    run = Run(tmp_path / "o", [write(tmp_path / "a.csv.gz", packed[: len(packed) // 2])], max_reject_frac=0.5)
    assert len(run.docs) > 100
    assert [(r["reason"], r["line"]) for r in run.rejects] == [("truncated_stream", len(run.docs) + 2)]


def test_utf16_is_named(tmp_path):
    write(tmp_path / "in" / "good.jsonl", lines(*good(2)))
    for name, data in {
        "a.jsonl": '{"id":1,"text":"x"}\n'.encode("utf-16"),
        "b.jsonl": '{"id":1,"text":"x"}\n'.encode("utf-16-le"),
        "c.csv": "id,text\n1,x\n".encode("utf-16"),
        "d.txt": "text".encode("utf-16"),
    }.items():
        write(tmp_path / "in" / name, data)
    run = Run(tmp_path / "o", [tmp_path / "in"], max_reject_frac=1.0)
    assert [r["reason"] for r in run.rejects] == ["utf16"] * 4


def test_odd_files_are_passed_over_and_counted(tmp_path):
    root = tmp_path / "in"
    write(root / "a.jsonl", lines(*good(2)))
    write(tmp_path / "outside.jsonl", lines({"id": "secret", "text": "outside"}))
    write(root / ".hidden" / "h.jsonl", b"x")
    write(root / "__pycache__" / "p.py", b"x")
    write(root / "image.png", b"x")
    (root / "loop").symlink_to(root)
    (root / "out.jsonl").symlink_to(tmp_path / "outside.jsonl")
    os.mkfifo(root / "pipe.jsonl")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root)  # the name of a socket is short
    try:
        server.bind("s.jsonl")
    finally:
        os.chdir(here)
        server.close()
    run = Run(tmp_path / "o", [root])
    assert len(run.docs) == 2
    skipped = {k: v for k, v in run.counts.items() if k.startswith("skipped_")}
    assert skipped == {"skipped_hidden": 2, "skipped_link": 2, "skipped_special": 2, "skipped_unknown_suffix": 1}


def test_paths_that_cannot_be_meant(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    write(tmp_path / "a.xyz", b"x")
    (tmp_path / "empty").mkdir()
    for path, message in {
        "pipe.jsonl": "not a regular file",
        "a.xyz": "unknown suffix",
        "nowhere": "no such file",
        "*.md": "none a regular file",
        "empty": "no file to read",
    }.items():
        with pytest.raises(DataError, match=message):
            resolve([str(tmp_path / path)])
    with pytest.raises(DataError, match="no path"):
        resolve([])
    with pytest.raises(DataError, match="not a regular file"):
        resolve(["/dev/zero"])


def test_labels_and_exclusion(tmp_path):
    for name in (
        "a/x.txt",
        "b/x.txt",
        "b/tests/y.txt",
        "b/z\n.txt",
        "b/" + "n" * 200 + "/" + "m" * 200 + "/" + "o" * 200 + ".txt",
    ):
        write(tmp_path / name, b"t")
    found = resolve([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "b" / "x.txt")], ["*/tests/*"])
    labels = [f.label for f in found.files]
    assert labels[0].endswith("o.txt") and len(labels[0].encode()) <= 480
    assert labels[1:] == ["a/x.txt", "b/x.txt", "b/z\\n.txt"]
    assert found.skipped == {"excluded": 1}
    assert [f.label for f in resolve([str(tmp_path / "**" / "x.txt")]).files] == ["a/x.txt", "b/x.txt"]


def test_an_unreadable_file_is_one_reject(tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.jsonl", lines(*good(200)))
    write(tmp_path / "in" / "b.jsonl", lines(*good(2, "b")))
    from tamis.ingestion import readers

    original = readers.open_stream

    def open_stream(source):
        if source.label == "b.jsonl":
            raise PermissionError(13, "Permission denied")
        return original(source)

    monkeypatch.setattr(readers, "open_stream", open_stream)
    run = Run(tmp_path / "o", [tmp_path / "in"], max_reject_frac=0.02)
    assert [(r["path"], r["reason"], r["detail"]) for r in run.rejects] == [
        ("b.jsonl", "unreadable", "Permission denied")
    ]


def test_damaged_parquet_is_one_reject_a_file(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    write(root / "good.jsonl", lines(*good(5)))
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), root / "ok.parquet")
    pq.write_table(pa.table({"id": [1, 2], "text": [[1], [2]]}), root / "types.parquet")
    sound = (root / "ok.parquet").read_bytes()
    write(root / "cut.parquet", sound[:-7])
    write(root / "empty.parquet", b"")
    rng = random.Random(5)
    for number in range(8):
        damaged = bytearray(sound)
        for _ in range(8):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        write(root / f"fuzz{number}.parquet", bytes(damaged))
    run = Run(tmp_path / "o", [root], max_reject_frac=1.0, on_duplicate="first")
    assert {"d0", "1", "2"} <= set(run.by_id)
    reasons = {r["path"]: r["reason"] for r in run.rejects}
    assert reasons["cut.parquet"] == reasons["empty.parquet"] == "invalid_parquet"
    assert reasons["types.parquet"] == "text_not_a_string"


def test_a_parquet_file_without_the_text_column_is_named(tmp_path):
    pq.write_table(pa.table({"id": [1], "Text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no field 'text' \(has: id, Text\); use --text-field Text"):
        Run(tmp_path / "o", [tmp_path / "a.parquet"])


@pytest.mark.parametrize(
    ("data", "documents", "reasons"),
    [
        (b'id,text\n1,"a\nb"\n2,c\n', ["a\nb", "c"], []),
        (b"id,text\n1,a,b\n2\n3,c\n", ["c"], ["too_many_columns", "too_few_columns"]),
        (b'id,text\n1,a\n2,"never closed\n3,c\n4,d\n', ["a"], ["unbalanced_quote"]),
        (b'id,text\n1,a\n2,"x"y\n3,c\n', ["a"], ["misplaced_quote"]),
        (b"id,text\n1,\xff\n2,c\n", ["c"], ["invalid_utf8"]),
        (b"id,text\n1," + b"x" * (17 << 20) + b"\n2,c\n", ["c"], ["line_too_long"]),
    ],
)
def test_csv(tmp_path, data, documents, reasons):
    run = Run(tmp_path / "o", [write(tmp_path / "a.csv", data)], max_reject_frac=1.0)
    assert [d["text"] for d in run.docs] == documents
    assert [r["reason"] for r in run.rejects] == reasons


def test_csv_with_a_million_columns_is_rejected(tmp_path):
    write(tmp_path / "in" / "a.csv", b",".join([b"c"] * 1_000_000) + b"\n")
    write(tmp_path / "in" / "b.csv", b"id,text,id\n1,a,2\n")
    write(tmp_path / "in" / "c.csv", b"id,text\n1,a\n")
    start = time.perf_counter()
    run = Run(tmp_path / "o", [tmp_path / "in"], max_reject_frac=1.0)
    assert time.perf_counter() - start < 5
    assert [r["reason"] for r in run.rejects] == ["too_many_columns", "repeated_column"]


def test_json_files(tmp_path):
    write(tmp_path / "in" / "array.json", orjson.dumps([{"id": "a", "text": "A"}, 3]))
    write(tmp_path / "in" / "lines.json", lines({"id": "b", "text": "B"}))
    write(tmp_path / "in" / "object.json", b'{\n "name": "package"\n}\n')
    run = Run(tmp_path / "o", [tmp_path / "in"], max_reject_frac=1.0)
    assert set(run.by_id) == {"a", "b"}
    assert [(r["path"], r["line"], r["reason"]) for r in run.rejects] == [
        ("array.json", 2, "not_an_object"),
        ("object.json", 1, "not_json_lines"),
    ]
