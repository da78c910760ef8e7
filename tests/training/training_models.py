"""Tiny encoders for the tests of training, made in the process: a 2-layer BERT of width 32 and a token table."""

import json
from pathlib import Path

import numpy as np

from tamis.data import Corpus, Qrels, Queries
from tamis.models import StaticEncoder, load_encoder

WORDS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def bert(folder: Path, *, dropout: float = 0.1, num_rows: int = len(VOCABULARY)) -> Path:
    """Write a transformers folder with random weights from a fixed seed; its words are the letters."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=num_rows,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def transformer(folder: Path, *, dropout: float = 0.1):
    return load_encoder(bert(folder, dropout=dropout))


def static() -> StaticEncoder:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = np.random.default_rng(3).standard_normal((len(WORDS) + 1, 16)).astype(np.float32)
    return StaticEncoder(table, tokenizer)


def toy(num: int = 24, *, seed: int = 0) -> tuple[Corpus, Queries, Qrels]:
    """Documents of 2 to 30 letters; the query of each is three of its letters; the tenth has two answers."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(list(WORDS), int(rng.integers(2, 31)))) for _ in range(num)]
    corpus = Corpus.from_records({"doc_id": f"d{i}", "text": text} for i, text in enumerate(texts))
    queries = Queries.from_texts({f"q{i}": " ".join(text.split()[:3]) for i, text in enumerate(texts)})
    grades = {f"q{i}": {f"d{i}": 1} for i in range(num)}
    if num > 11:
        grades["q10"]["d11"] = 1
    return corpus, queries, Qrels.from_dict(grades)
