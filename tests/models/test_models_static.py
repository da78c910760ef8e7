"""Static encoder: hand-worked means, the folder that sentence-transformers reads, bad tables and bad files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tamis.data import artefact
from tamis.errors import DataError
from tamis.models import Encoder, StaticEncoder, load_encoder
from tamis.models.vectors import unit_rows

WORDS = ["[UNK]", "red", "green", "blue", "the"]


def make_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def make_encoder(**prompts):
    table_VH = np.array([[0, 0], [3, 4], [0, 2], [-1, 0], [0, 0]], dtype=np.float32)
    return StaticEncoder(table_VH, make_tokenizer(), **prompts)


def save(encoder, folder: Path) -> Path:
    with artefact.stage(folder, "encoder", settings={}, inputs={}, seed=0) as staging:
        encoder.save(staging)
    return folder


def test_hand_worked_means():
    # red = (3,4)/5; red + green = (1.5, 3), norm 3.3541; "the" weighs nothing but counts in the mean only.
    vectors = make_encoder().encode_queries(["red", "red green", "the red", "red red"])
    assert np.allclose(vectors, [[0.6, 0.8], [0.447214, 0.894427], [0.6, 0.8], [0.6, 0.8]], atol=1e-6)
    assert vectors.dtype == np.float32


def test_text_without_weight_is_a_zero_row():
    vectors = make_encoder().encode_documents(["", "   ", "unknown words", "the the", "😀"])
    assert not vectors.any()
    # What cancels out exactly is zero too, not noise blown up to norm 1.
    table_VH = np.array([[0, 0], [1, 1], [-1, -1], [1, 0], [0, 0]], dtype=np.float32)
    assert not StaticEncoder(table_VH, make_tokenizer()).encode_queries(["red green"]).any()


def test_no_texts():
    assert make_encoder().encode_queries([]).shape == (0, 2)


@given(st.lists(st.lists(st.sampled_from([*WORDS, "x"]), max_size=8).map(" ".join), max_size=12))
def test_equals_the_slow_version_and_ignores_order_and_batches(texts):
    encoder = make_encoder()
    vectors = encoder.encode_documents(texts)
    for text, vector in zip(texts, vectors, strict=True):
        rows = [encoder.table_VH[WORDS.index(w) if w in WORDS else 0] for w in text.replace("[UNK]", "x").split()]
        mean = np.mean(rows, axis=0) if rows else np.zeros(2)
        norm = np.linalg.norm(mean)
        assert np.allclose(vector, mean / norm if norm > 1e-5 else 0, atol=1e-6)
    one_by_one = [encoder.encode_documents([t])[0] for t in texts]
    assert np.array_equal(vectors, np.array(one_by_one, dtype=np.float32).reshape(-1, 2))


def test_prompts_are_text_and_part_of_the_fingerprint():
    plain, prompted = make_encoder(), make_encoder(query_prompt="green ", document_prompt="{{7*7}} ")
    assert np.allclose(prompted.encode_queries(["red"]), plain.encode_queries(["green red"]))
    assert np.allclose(prompted.encode_documents(["red"]), plain.encode_documents(["red"]))
    assert plain.fingerprint != prompted.fingerprint
    assert plain.fingerprint == make_encoder().fingerprint


def test_save_then_load_is_identity(tmp_path):
    encoder = make_encoder(query_prompt="green ")
    folder = save(encoder, tmp_path / "encoder")
    loaded = load_encoder(folder)
    assert isinstance(loaded, StaticEncoder)
    assert isinstance(loaded, Encoder)
    assert loaded.fingerprint == encoder.fingerprint
    assert (loaded.dim, loaded.num_truncated(["red " * 9])) == (2, 0)
    texts = ["red", "green blue", "", "the"]
    assert np.array_equal(loaded.encode_queries(texts), encoder.encode_queries(texts))
    again = save(encoder, tmp_path / "again")
    assert artefact.read_manifest(again).content == artefact.read_manifest(folder).content


def test_sentence_transformers_loads_and_encodes_the_same(tmp_path):
    from sentence_transformers import SentenceTransformer

    rng = np.random.default_rng(3)
    encoder = StaticEncoder(rng.standard_normal((5, 48)), make_tokenizer(), query_prompt="green ")
    model = SentenceTransformer(str(save(encoder, tmp_path / "encoder")), device="cpu")
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 30))) for _ in range(50)]
    for ours, theirs in (
        (encoder.encode_queries(texts), model.encode_query(texts, normalize_embeddings=True)),
        (encoder.encode_documents(texts), model.encode_document(texts, normalize_embeddings=True)),
    ):
        assert (ours * theirs).sum(axis=1).min() >= 1 - 1e-6
    assert not np.isnan(model.encode([""])).any()


def test_reads_what_sentence_transformers_writes(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    table_VH = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
    modules = [StaticEmbedding(make_tokenizer(), embedding_weights=table_VH), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"query": "red ", "document": "blue "}, device="cpu")
    model.save_pretrained(str(tmp_path), create_model_card=False)
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded, StaticEncoder)
    assert np.allclose(loaded.encode_queries(["green"]), model.encode_query(["green"]), atol=1e-6)
    assert np.allclose(loaded.encode_documents(["green"]), model.encode(["blue green"]), atol=1e-6)


def test_poisoned_row_names_the_text():
    encoder = make_encoder()
    encoder.table_VH[2, 1] = np.nan
    assert encoder.encode_queries(["red"]).any()
    with pytest.raises(DataError, match=r"text 1 \('a green one'\).*NaN or infinity \(1 of 2"):
        encoder.encode_queries(["red", "a green one"])
    with pytest.raises(DataError, match="text 0"):
        unit_rows(np.array([[np.inf, 1.0]], dtype=np.float32), ["x"], floor=0.0)


def test_rows_at_the_floor_are_zero():
    rows = unit_rows(np.array([[1e-7, 0], [0, 2e-6], [0, 0]], dtype=np.float32), ["a", "b", "c"], floor=1e-6)
    assert rows.tolist() == [[0, 0], [0, 1], [0, 0]]


def test_poisoned_file_names_the_row(tmp_path):
    folder = save(make_encoder(), tmp_path / "encoder")
    path = folder / "0_StaticEmbedding" / "model.safetensors"
    table_VH = load_file(path)["embedding.weight"]
    table_VH[3, 0] = np.inf
    save_file({"embedding.weight": table_VH}, path)
    with pytest.raises(DataError, match=r"1 of 5 rows.*row 3 \('blue'\)"):
        load_encoder(folder)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 200, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_damaged_files_are_data_errors(tmp_path, name, damage):
    folder = save(make_encoder(), tmp_path / "encoder")
    (folder / "0_StaticEmbedding" / name).write_bytes(damage)
    with pytest.raises(DataError, match=name):
        load_encoder(folder)


def test_table_smaller_than_the_vocabulary():
    with pytest.raises(DataError, match="every token needs"):
        StaticEncoder(np.ones((3, 2), dtype=np.float32), make_tokenizer())


def test_tokenizer_with_a_limit_counts_what_it_cuts():
    tokenizer = make_tokenizer()
    tokenizer.enable_truncation(3)
    encoder = StaticEncoder(np.ones((5, 2), dtype=np.float32), tokenizer)
    assert encoder.num_truncated(["red", "red red red", "red red red red"]) == 1


def test_needs_no_torch():
    code = "import sys, tamis.models, tamis.training.pretrain.static_svd; sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'numba')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
