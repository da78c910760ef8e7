"""Tokenizer fit: the worked entropies, the direction of every figure, and the same sample whatever the batches."""

import gzip
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tamis.data import Corpus
from tamis.errors import DataError, UsageError
from tamis.evaluation.tokenizer_fit import TokenizerFit, bits_per_byte, load_tokenizer, renyi_efficiency

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MANY = 10**9


class Cut:
    """A corpus read in another order and in other batches."""

    def __init__(self, corpus, size, order):
        self.table = corpus.table().take(pa.array(order))
        self.size = size

    def batches(self, columns):
        yield from self.table.select(columns).combine_chunks().to_batches(max_chunksize=self.size)


def word_pieces(*entries):
    vocabulary = {entry: i for i, entry in enumerate(["[UNK]", *entries])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def trained(texts, size=600):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=["[UNK]"], show_progress=False)
    )
    return tokenizer


def corpus_of(texts):
    return Corpus.from_records({"doc_id": f"d{i}", "text": t} for i, t in enumerate(texts))


@pytest.mark.parametrize(("counts", "expected"), [([4, 3, 1], 1.40564), ([3, 1], 0.40564), ([1, 1], 0.25)])
def test_entropies_of_the_worked_example(counts, expected):
    counts = np.array(counts)
    assert bits_per_byte(counts * MANY, counts, 8) == pytest.approx(expected, abs=1e-5)


def test_one_half_is_added_to_every_count():
    assert bits_per_byte(np.array([3, 0]), np.array([0, 2]), 4) == pytest.approx(2 * 3 / 4)  # p = .5 / 4


def test_efficiency_of_the_worked_example():
    assert renyi_efficiency(np.array([4, 3, 1]), 2.5, 3) == pytest.approx(0.79811, abs=1e-5)
    assert renyi_efficiency(np.array([5, 5, 5, 5]), 2.5, 4) == pytest.approx(1)
    assert renyi_efficiency(np.array([0, 0]), 2.5, 2) == 0
    assert renyi_efficiency(np.array([5]), 2.5, 1) == 0


def test_the_figures_of_a_tokenizer_made_by_hand():
    tokenizer = word_pieces("cat", "do", "##g", "##s", "a", "##b", "##c", "##d")
    corpus = corpus_of(["cat dogs cat", "cat abcd zebra", "cat"])
    row = TokenizerFit(min_count=1).report(corpus, {"hand": tokenizer}, seed=0).rows[0]
    tokens = 1 + 3 + 1 + 1 + 4 + 1 + 1
    assert row.fertility == pytest.approx(tokens / 7)
    assert row.bytes_per_token == pytest.approx((12 + 14 + 3) / tokens)
    assert (row.split3_frac, row.split4_frac) == (pytest.approx(2 / 7), pytest.approx(1 / 7))
    assert row.unknown_frac == pytest.approx(1 / tokens)
    assert (row.p50, row.p90, row.vocabulary) == (5, 6, 9)
    assert [(w.word, w.count, w.pieces, w.num_saved) for w in row.words] == [("abcd", 1, 4, 3), ("dogs", 1, 3, 2)]
    assert row.saved_frac == pytest.approx(5 / tokens)
    assert row.over == {"256": 0.0, "512": 0.0, "8192": 0.0}
    assert "14 % of the words need 4 pieces" in row.advice


def test_the_reference_gives_advice():
    corpus = corpus_of(["alpha beta gamma " * 9, "alpha delta"])
    good, poor = trained(["alpha beta gamma delta"] * 9), trained(["x y z a l p h b e t g m d"])
    facts = TokenizerFit(reference="good").report(corpus, {"good": good, "poor": poor}, seed=0)
    assert facts.rows[0].advice == ""
    assert "times as many tokens a word as the reference" in facts.rows[1].advice
    with pytest.raises(UsageError, match="reference 'nobody'"):
        TokenizerFit(reference="nobody").report(corpus, {"good": good}, seed=0)
    with pytest.raises(UsageError, match="no tokenizers"):
        TokenizerFit().report(corpus, {}, seed=0)
    with pytest.raises(DataError, match="corpus is empty"):
        TokenizerFit().report(corpus.select([]), {"good": good}, seed=0)


def test_a_tokenizer_is_a_file_or_an_object_and_is_left_as_it_was(tmp_path):
    tokenizer = word_pieces("a")
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for given in (tokenizer, tmp_path / "tokenizer.json", str(tmp_path / "tokenizer.json")):
        assert len(load_tokenizer(given).encode("a a a a a").ids) == 5
    assert len(tokenizer.encode("a a a a a").ids) == 8
    with pytest.raises(DataError, match="cannot read"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="not a tokenizer"):
        load_tokenizer(tmp_path / "bad.json")


def test_the_sample_is_free_of_order_and_batches():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["alpha", "beta", "gamma", "delta", "eps"], 40)) for _ in range(60)]
    corpus, tokenizer = corpus_of(texts), trained(texts, 40)
    fit = TokenizerFit(sample_bytes=4000)
    facts = fit.report(corpus, {"t": tokenizer}, seed=1)
    assert facts.num_docs < 60
    for size in (1, 7, 100):
        assert fit.report(Cut(corpus, size, rng.permutation(60)), {"t": tokenizer}, seed=1) == facts
    assert fit.report(corpus, {"t": tokenizer}, seed=2) != facts


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="shared data absent")
def test_a_tokenizer_of_the_corpus_fits_it_better_than_one_of_another_and_than_one_of_shuffled_letters():
    def texts_of(name):
        with gzip.open(DATA / name / "corpus.jsonl.gz") as file:
            return [orjson.loads(next(file))["text"] for _ in range(700)]

    own, other = texts_of("arxiv"), texts_of("newsgroups")
    rng = np.random.default_rng(0)
    letters = list(" ".join(own))
    rng.shuffle(letters)
    shuffled = "".join(letters)
    tokenizers = {"own": trained(own[:500], 1000), "other": trained(other[:500], 1000),
                  "shuffled": trained([shuffled[i : i + 500] for i in range(0, len(shuffled), 500)], 1000)}  # fmt: skip
    rows = TokenizerFit(sample_bytes=100_000).report(corpus_of(own[500:]), tokenizers, seed=0).rows
    bits, fertility = [row.bits_per_byte for row in rows], [row.fertility for row in rows]
    assert bits == sorted(bits)
    assert fertility == sorted(fertility)
    assert fertility[2] > 1.5 * fertility[0]
