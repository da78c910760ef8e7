"""Semantic duplicates of a pool: what the method finds in a corpus, with a reason of its own, and words of warning."""

import gzip
from itertools import islice

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Ledger, artefact
from tamis.errors import DataError, UsageError
from tamis.ingestion.pool import Pool
from tamis.ingestion.semantic import SemanticDuplicates
from tamis.pipeline import semantic
from tamis.pipeline.curation import verify


class Angles:
    """An encoder for tests: a text is an angle in degrees; "none" has no direction, "bad" a wrong length."""

    dim = 2

    def __init__(self, turn=0.0):
        self.turn = turn

    @property
    def fingerprint(self):
        return f"angles {self.turn}"

    def encode_documents(self, texts):
        rows = []
        for text in texts:
            word = text.split()[0]
            angle = np.deg2rad(float(word) + self.turn) if word not in ("none", "bad") else 0.0
            rows.append((np.cos(angle), np.sin(angle)) if word != "none" else (0.0, 0.0))
            if word == "bad":
                rows[-1] = (2.0, 0.0)
        return np.array(rows, np.float32)


def write_pool(path, texts):
    path.write_bytes(b"".join(orjson.dumps({"id": i, "text": t}) + b"\n" for i, t in texts.items()))
    return path


TEXTS = {"a": "0", "b": "5 longer text", "c": "90", "d": "93", "e": "none", "f": "180"}


@pytest.fixture
def pool(tmp_path):
    return write_pool(tmp_path / "pool.jsonl", TEXTS)


def test_parallel_documents_go_and_the_rest_stays(pool, tmp_path):
    method = SemanticDuplicates(min_cosine=0.99, keep="longest")
    found = semantic.dedup_semantic(str(pool), tmp_path / "out", Angles(), method, format="jsonl")
    kept = {orjson.loads(line)["id"] for line in (tmp_path / "out/documents/documents.jsonl").read_bytes().splitlines()}
    assert kept >= {"b", "e", "f"} and len(kept) == 4 and ("c" in kept) != ("d" in kept)
    assert found.counts["dropped_semantic_copy"] == 2 and found.figures["num_groups"] == 2
    assert found.figures["num_without_vector"] == 1 and "1 documents hold no word" in " ".join(found.notes)
    assert found.figures["lowest_cosine"] == pytest.approx(np.cos(np.deg2rad(5)), abs=1e-6)
    decision = Ledger(tmp_path / "out" / "ledger").why("a")[-1]
    assert (decision["reason"], decision["other_id"], decision["method"]) == ("semantic_copy", "b", "semantic")
    report = tmp_path / "out" / "report"
    (worst, _) = pq.read_table(report / "examples.parquet").to_pylist()
    assert (worst["dropped_id"], worst["kept_id"], worst["kept_text"]) == ("a", "b", "5 longer text")
    assert pq.read_table(report / "levels.parquet")["num_docs"].to_pylist() == [2, 0]
    clusters = {row["doc_id"]: row["group_id"] for row in pq.read_table(report / "clusters.parquet").to_pylist()}
    assert clusters["a"] == clusters["b"] == "b" and set(clusters) == {"a", "b", "c", "d"}
    assert verify(tmp_path / "out", deep=True) == []


def test_the_same_call_keeps_another_encoder_or_threshold_makes_anew(pool, tmp_path):
    method = SemanticDuplicates(min_cosine=0.99)
    out = tmp_path / "out"
    assert semantic.dedup_semantic(str(pool), out, Angles(), method).status == "made"
    assert semantic.dedup_semantic(str(pool), out, Angles(), method).status == "kept"
    semantic.dedup_semantic(str(pool), tmp_path / "again", Angles(), method, workers=3)
    assert artefact.hash_tree(out) == artefact.hash_tree(tmp_path / "again")
    assert semantic.dedup_semantic(str(pool), out, Angles(1.0), method).status == "made"
    assert semantic.dedup_semantic(str(pool), out, Angles(), SemanticDuplicates(min_cosine=0.9)).status == "made"


@given(st.lists(st.integers(0, 359), min_size=1, max_size=25), st.integers(1, 3), st.integers(0, 3))
@settings(max_examples=15)
def test_a_pool_loses_what_a_corpus_loses(tmp_path_factory, angles, num_clusters, seed):
    folder = tmp_path_factory.mktemp("semantic")
    texts = {f"d{n}": f"{angle} n{n}" for n, angle in enumerate(angles)}
    corpus = Corpus.from_records({"doc_id": i, "text": t} for i, t in texts.items())
    method = SemanticDuplicates(min_cosine=0.9, num_clusters=num_clusters)
    vectors = Angles().encode_documents(list(texts.values()))
    wanted = method.sift(corpus, seed=seed, vectors=vectors)
    with Pool.open([str(write_pool(folder / "p.jsonl", texts))], scratch=folder / "scratch") as pool:
        found = semantic.dedup_vectors(pool, vectors, method, seed)
    assert [i for i, is_kept in zip(texts, found.kept, strict=True) if is_kept] == wanted.kept.doc_ids.to_pylist()
    assert found.others.filter(~found.kept).to_pylist() == wanted.dropped["other_id"].to_pylist()


def test_an_empty_group_and_a_pool_without_vectors_are_no_error(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", {"a": "none", "b": "none at all"})
    found = semantic.dedup_semantic(str(pool), tmp_path / "out", Angles())
    assert found.counts["documents"] == 2 and found.figures["num_groups"] == 0
    assert len(pq.read_table(tmp_path / "out" / "report" / "examples.parquet")) == 0


def test_a_source_that_loses_more_than_half_is_told(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", {f"d{n}": f"1 n{n}" for n in range(3)})
    found = semantic.dedup_semantic(str(pool), tmp_path / "out", Angles())
    assert "pool.jsonl: 2 of 3 documents go as semantic copies" in found.notes


def test_vectors_that_are_none_are_refused_with_the_document(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", {"a": "1", "b": "bad"})
    with pytest.raises(DataError, match="'b'"):
        semantic.dedup_semantic(str(pool), tmp_path / "out", Angles())
    with pytest.raises(UsageError, match="min_cosine"):
        SemanticDuplicates(min_cosine=1.5)


def test_real_pages_of_one_command_are_found(shared, tmp_path):
    """Copies with one word changed are parallel to the letters' counts of their originals; other pages are not."""
    with gzip.open(shared / "medquad" / "corpus.jsonl.gz") as file:
        rows = [orjson.loads(line) for line in islice(file, 200)]
    texts = {row["_id"]: row["text"] for row in rows}
    texts |= {f"{i}-again": text + " also" for i, text in list(texts.items())[:50]}

    class Hashed(Angles):
        dim = 512

        def encode_documents(self, texts):
            counts = np.zeros((len(texts), self.dim), np.float32)
            for row, text in enumerate(texts):
                for word in text.split():
                    counts[row, sum(map(ord, word)) % self.dim] += 1
            return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    pool = write_pool(tmp_path / "pool.jsonl", texts)
    method = SemanticDuplicates(min_cosine=0.97, keep="longest")
    semantic.dedup_semantic(str(pool), tmp_path / "out", Hashed(), method)
    rows = pq.read_table(tmp_path / "out" / "report" / "clusters.parquet").to_pylist()
    gone = {row["doc_id"]: row["group_id"] for row in rows if not row["is_kept"]}
    assert sum(gone.get(i.removesuffix("-again")) == i for i in texts if i.endswith("-again")) >= 40
