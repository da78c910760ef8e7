"""The n-gram language model against numbers worked by hand and plain Python."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import UsageError
from tamis.ops.ngram_lm import DEFAULT_LAMBDAS, NgramModel, fit_lambdas

WORDS = st.lists(st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join), min_size=1, max_size=6)


def test_worked_probability():
    # "h w" 3 times after 4 "h"; "w" 5 times of 100 tokens
    text = "h w h w h w h x w w " + " ".join(f"f{i}" for i in range(90))
    model = NgramModel.train([text], order=2, bits=18, lambdas=(0.6, 0.35, 0.05))
    assert model.num_tokens == 100
    bits, tokens = model.bits_per_token(["h w"])
    first = -math.log2(0.35 * 4 / 100 + 0.05 / 2**18)
    assert tokens.tolist() == [2]
    assert 2 * bits[0] - first == pytest.approx(1.09696, abs=5e-6)
    assert 2 ** -(2 * bits[0] - first) == pytest.approx(0.4675002, abs=5e-8)


def slow_bits(train, text, order, lambdas, num_buckets):
    counts, total = Counter(), 0
    for line in train:
        words = line.split()
        total += len(words)
        counts.update(
            tuple(words[i - n + 1 : i + 1]) for i in range(len(words)) for n in range(1, order + 1) if i >= n - 1
        )
    words, bits = text.split(), 0.0
    for i in range(len(words)):
        p = lambdas[-1] / num_buckets
        for n in range(1, min(order, i + 1) + 1):
            gram = tuple(words[i - n + 1 : i + 1])
            history = counts[gram[:-1]] if n > 1 else total
            p += lambdas[order - n] * (counts[gram] / history if history else 0.0)
        bits -= math.log2(p)
    return bits / max(len(words), 1)


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS, st.sampled_from([1, 2, 3]))
def test_bits_equal_their_definition(train, texts, order):
    lambdas = DEFAULT_LAMBDAS[order]
    model = NgramModel.train(train, order=order, bits=16, lambdas=lambdas)
    bits, tokens = model.bits_per_token(texts)
    assert tokens.tolist() == [len(text.split()) for text in texts]
    assert bits == pytest.approx([slow_bits(train, text, order, lambdas, 1 << 16) for text in texts])


@settings(max_examples=30, deadline=None)
@given(WORDS.filter(lambda texts: len(texts) > 1), st.sampled_from([1, 2, 3]))
def test_weights_are_fitted_on_each_text_without_its_own_counts(texts, order):
    def slow_ratios():
        for at, text in enumerate(texts):
            others, words = texts[:at] + texts[at + 1 :], text.split()
            counts = Counter()
            for line in others:
                w = line.split()
                counts.update(
                    tuple(w[i - n + 1 : i + 1]) for i in range(len(w)) for n in range(1, order + 1) if i >= n - 1
                )
            total = sum(len(line.split()) for line in others)
            for i in range(len(words)):
                row = []
                for n in range(order, 0, -1):
                    gram = tuple(words[max(0, i - n + 1) : i + 1])
                    history = (counts[gram[:-1]] if n > 1 else total) if len(gram) == n else 0
                    row.append(counts[gram] / history if history else 0.0)
                yield row

    wanted = fit_lambdas(np.array(list(slow_ratios())).reshape(-1, order), 2.0**-16)
    model = NgramModel.train(texts, order=order, bits=16)
    assert model.lambdas == pytest.approx(wanted, abs=1e-9)
    assert model.lambdas.sum() == pytest.approx(1)
    plain = NgramModel.train(texts, order=order, bits=16, lambdas=DEFAULT_LAMBDAS[order])
    assert (plain.counts == model.counts).all()  # counts that were taken out are back


def test_fitted_weights_make_tokens_likelier():
    rng = np.random.default_rng(0)
    ratios = rng.random((500, 3)) * [0.9, 0.2, 0.02] * (rng.random((500, 3)) < [0.6, 0.8, 1.0])

    def likelihood(lambdas):
        return np.log(np.c_[ratios, np.full(500, 2.0**-22)] @ np.array(lambdas)).sum()

    fitted = fit_lambdas(ratios, 2.0**-22)
    assert fitted[0] == max(fitted)
    assert likelihood(fitted) > likelihood(DEFAULT_LAMBDAS[3])
    for other in np.eye(4):  # a step to any corner of the simplex gains nothing
        assert likelihood(fitted) >= likelihood(0.99 * np.array(fitted) + 0.01 * other) - 0.2
    assert fit_lambdas(np.zeros((0, 2)), 0.1) == DEFAULT_LAMBDAS[2]
    assert fit_lambdas(np.ones((9, 1)), 1e-9)[-1] == pytest.approx(1e-3, rel=1e-2)  # no word becomes impossible


def test_one_text_gets_the_default_weights():
    assert NgramModel.train(["a b c"], order=3, bits=10).lambdas.tolist() == list(DEFAULT_LAMBDAS[3])


def test_copies_are_read_more_easily():
    model = NgramModel.train(["one two three four", "five six seven"], order=3, bits=20, lambdas=DEFAULT_LAMBDAS[3])
    more = NgramModel.train(
        ["one two three four"] * 10 + ["five six seven"], order=3, bits=20, lambdas=DEFAULT_LAMBDAS[3]
    )
    assert more.bits_per_token(["one two three four"])[0] < model.bits_per_token(["one two three four"])[0]
    assert model.bits_per_token(["one two three four"])[0] < model.bits_per_token(["two four one three"])[0]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"order": 4, "bits": 10}, "order 4"),
        ({"order": 2, "bits": 0}, "0, |bits 0"),
        ({"order": 2, "bits": 10, "lambdas": (0.5, 0.5)}, "give 3 weights"),
        ({"order": 1, "bits": 10, "lambdas": (0.5, 0.6)}, "sum to 1"),
        ({"order": 1, "bits": 10, "lambdas": (1.0, 0.0)}, "above 0"),
    ],
)
def test_settings_that_cannot_be_meant(options, match):
    with pytest.raises(UsageError, match=match):
        NgramModel.train(["a"], **options)
