"""Exports: verbatim lines, parts that open as a corpus, a Hugging Face folder, dolma attributes beside every document."""

import gzip
import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tamis.data import artefact
from tamis.data.corpus import Corpus
from tamis.errors import DataError, UsageError
from tamis.ingestion import export as exports
from tamis.ingestion.export import export, export_attributes
from tamis.ingestion.pool import Pool

LINES = [
    b'{"_id": "a",  "title": "One", "text": "first  text", "year": 1999}',
    b'{"text": "zweiter \\u00fcber", "_id": "b"}',
    b'{"_id": "c", "text": "\xf0\x9f\x99\x82 x"}',
    b'{"_id": "empty", "text": " "}',
    b'{"_id": "d", "text": "vierter"}',
]


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(b"\n".join(LINES) + b"\n")
    (tmp_path / "in" / "b.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "e", "text": "gepackt"}\r\n'))
    (tmp_path / "in" / "c.csv").write_bytes(b"id,text,kind\nf,aus csv,k\n")
    with Pool.open([str(tmp_path / "in")], scratch=tmp_path / "scratch") as opened:
        yield opened


def written(folder: Path, verb, *args, **options):
    """Run an export into an artefact; return (folder, counts)."""
    with artefact.stage(folder, "export", settings={}, inputs={}, seed=1) as staging:
        counts = verb(*args, staging, **options)
    return folder, counts


def test_lines_of_a_pool_stand_as_they_stood(pool, tmp_path):
    kept = np.array([True, False, True, False, True, True])
    folder, counts = written(tmp_path / "out", export, pool, kept, format="jsonl")
    lines = (folder / "documents.jsonl").read_bytes().split(b"\n")
    assert lines[:3] == [LINES[0], LINES[2], b'{"_id": "e", "text": "gepackt"}']
    assert orjson.loads(lines[3]) == {"_id": "f", "title": "", "text": "aus csv", "metadata": {"kind": "k"}}
    assert lines[4:] == [b""] and counts == {"documents": 4, "files": 1}
    assert artefact.read_manifest(folder).counts == {"documents": 4}
    packed, _ = written(tmp_path / "packed", export, pool, np.flatnonzero(kept), format="jsonl.zst")
    with (packed / "documents.jsonl.zst").open("rb") as file:
        assert zstandard.ZstdDecompressor().stream_reader(file).read() == b"\n".join(lines)


def test_a_corpus_comes_back_from_its_lines(tmp_path):
    table = pa.table({"doc_id": ["x", "y"], "title": ["T", ""], "text": ["1", "2"], "metadata": ['{"k":[1]}', "{}"]})
    corpus = Corpus.from_table(table)
    folder, _ = written(tmp_path / "out", export, corpus, np.ones(2, bool), format="jsonl")
    with Pool.open([str(folder / "documents.jsonl")], scratch=tmp_path / "scratch") as pool:
        columns = ["doc_id", "title", "text", "metadata"]
        assert pool.take([0, 1], columns).to_pylist() == corpus.table(columns).to_pylist()


def test_parts_open_as_a_corpus(pool, tmp_path):
    kept = np.array([5, 1])[::-1]
    folder, counts = written(tmp_path / "out", export, pool, kept, format="parquet")
    assert Corpus.open(folder).table().to_pylist() == pool.take([1, 5]).to_pylist()
    assert counts == {"documents": 2, "files": 1}


def hub_rows(folder: Path) -> list[dict]:
    if find_spec("datasets") is None:  # the layout, read by its pattern
        files = sorted((folder / "data").glob("train-*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]
    import datasets

    return datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"), split="train").to_list()


@pytest.mark.filterwarnings("ignore")
def test_the_hub_folder_loads_in_order(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "SHARD_BYTES", 20)
    monkeypatch.setattr(exports, "ROW_GROUP_DOCS", 2)
    folder, counts = written(tmp_path / "out", export, pool, np.ones(6, bool), format="hf")
    assert counts == {"documents": 6, "files": 3}
    names = sorted(p.name for p in (folder / "data").iterdir())
    assert names == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert hub_rows(folder) == pool.take(range(6)).to_pylist()
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nconfigs:\n- config_name: default\n") and "path: data/train-*.parquet" in card


def test_nothing_kept_still_opens(pool, tmp_path):
    for format in ("jsonl", "parquet", "hf"):
        folder, counts = written(tmp_path / format, export, pool, np.zeros(6, bool), format=format)
        assert counts == {"documents": 0, "files": 1}
    assert pq.read_table(folder / "data" / "train-00000-of-00001.parquet").num_rows == 0
    assert len(Corpus.open(tmp_path / "parquet")) == 0


@pytest.mark.parametrize("format", ["jsonl", "jsonl.zst", "parquet", "hf"])
def test_batches_and_the_kind_of_source_change_nothing(tmp_path, monkeypatch, format):
    rng = np.random.default_rng(5)
    texts = ["w " * int(n) for n in rng.integers(1, 400, 700)]
    table = pa.table({"doc_id": [f"d{i}" for i in range(700)], "text": texts})
    kept = rng.random(700) < 0.5
    monkeypatch.setattr(exports, "SHARD_BYTES", 50_000)

    class Cut(Corpus):
        def batches(self, columns=None, *, batch_docs=37):
            yield from super().batches(columns, batch_docs=37)

    whole, cut = Corpus.from_table(table), Cut.from_table(table)
    trees = [
        artefact.read_manifest(written(tmp_path / f"{format}{n}", export, c, kept, format=format)[0]).files
        for n, c in enumerate((whole, cut))
    ]
    assert trees[0] == trees[1] and len(trees[0]) > (3 if format == "hf" else 0)


def attributes(path: Path) -> list[dict]:
    with gzip.open(path) as file:
        return [orjson.loads(line) for line in file]


def test_attributes_stand_beside_every_document(pool, tmp_path):
    scores = {"near": np.arange(6) / 4, "far": -np.arange(6.0)}
    folder, counts = written(tmp_path / "out", export_attributes, pool, scores, name="dsir")
    assert counts == {"documents": 7, "files": 3}
    rows = attributes(folder / "attributes" / "dsir" / "a.jsonl.gz")
    assert [r["id"] for r in rows] == ["a", "b", "c", "empty", "d"]
    assert rows[2]["attributes"] == {"dsir__near": [[0, 3, 0.5]], "dsir__far": [[0, 3, -2.0]]}  # characters, not bytes
    assert rows[3]["attributes"] == {}
    assert rows[4]["attributes"]["dsir__near"] == [[0, 7, 0.75]]
    assert attributes(folder / "attributes" / "dsir" / "b.jsonl.gz")[0]["attributes"]["dsir__near"] == [[0, 7, 1.0]]
    assert attributes(folder / "attributes" / "dsir" / "c.csv.gz")[0]["id"] == "f"
    again, _ = written(tmp_path / "again", export_attributes, pool, scores, name="dsir")
    assert artefact.read_manifest(again).files == artefact.read_manifest(folder).files


def test_refusals_say_what_to_do(pool, tmp_path):
    def refused(error, match, verb, *args, **options):
        with pytest.raises(error, match=match):
            written(tmp_path / "out", verb, *args, **options)
        assert not (tmp_path / "out").exists()

    refused(UsageError, "none of jsonl, jsonl.zst, parquet, hf", export, pool, np.ones(6, bool), format="xml")
    refused(DataError, "mask of 5 values for 6", export, pool, np.ones(5, bool), format="jsonl")
    for wrong in ([2, 1], [1, 1], [-1, 2], [3, 6]):
        refused(DataError, "must ascend", export, pool, np.array(wrong), format="jsonl")
    refused(DataError, "5 values, 0 of them", export_attributes, pool, {"s": np.zeros(5)}, name="n")
    refused(DataError, "6 values, 1 of them", export_attributes, pool, {"s": np.r_[np.nan, np.zeros(5)]}, name="n")
    refused(UsageError, "'../n'", export_attributes, pool, {"s": np.zeros(6)}, name="../n")
    for sources, match in (
        (["../x", "../x"], "no relative path"),
        (["", ""], "no relative path"),
        (["a", "a.gz"], "would get the same name"),
        (["/etc/x", "/etc/x"], "no relative path"),
    ):
        corpus = Corpus.from_table(pa.table({"doc_id": ["1", "2"], "text": ["x", "y"], "source": sources}))
        refused(DataError, match, export_attributes, corpus, {"s": np.zeros(2)}, name="n")
    corpus = Corpus.from_table(pa.table({"doc_id": list("123"), "text": list("xyz"), "source": ["a", "b", "a"]}))
    refused(DataError, "not together", export_attributes, corpus, {"s": np.zeros(3)}, name="n")


def test_lines_are_packed_in_blocks_of_one_size():
    """What a packer makes of the same bytes may depend on how they come."""

    class Packer:
        def __init__(self):
            self.sizes = []

        def compress(self, data):
            self.sizes.append(len(data))
            return data

        def flush(self):
            return b"."

    data = np.random.default_rng(1).integers(97, 105, (3 << 20) + 7).astype(np.uint8).tobytes()
    for step in (70_001, len(data)):
        file, packer = io.BytesIO(), Packer()
        lines = exports._Lines(file, packer)
        for start in range(0, len(data), step):
            lines.write(data[start : start + step])
        lines.finish()
        assert file.getvalue() == data + b"."
        assert packer.sizes == [1 << 20] * 3 + [7]
