"""AdaGrad and tf-idf kernels against numbers worked by hand and plain Python; calibration; spelled-out features."""

import itertools
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import UsageError
from tamis.ops.linear import (
    cut_texts,
    document_frequencies,
    named_features,
    num_features,
    platt,
    tfidf_rows,
    train_logistic,
)
from tamis.ops.ngrams import feature_buckets, score_ngrams

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=6)
V = 1 << 12


def train(texts, labels, rows, importance=None, **options):
    factors = np.ones(len(texts)) if importance is None else importance
    return train_logistic(texts, np.array(labels, float), factors, np.array(rows), num_buckets=V, **options)


def test_worked_steps():
    texts = ["red green blue black", "red"]
    assert len(set(feature_buckets(texts, V, 1)[0].tolist())) == 4
    one = train(texts, [1, 0], [0], order=1, epochs=1)
    buckets = feature_buckets(texts[:1], V, 1)[0]
    assert one.weights_V[buckets] == pytest.approx([0.1] * 4, abs=1e-7)
    assert one.bias == pytest.approx(0.005)
    assert one.logits(texts) == pytest.approx([0.205, 0.105], abs=1e-6)
    assert 1 / (1 + math.exp(-one.logits(texts)[0])) == pytest.approx(0.55107, abs=5e-6)
    two = train(texts, [1, 0], [0, 1], order=1, epochs=1)
    assert two.weights_V[buckets[0]] == pytest.approx(0.0096751, abs=5e-8)
    assert two.bias == pytest.approx(-0.0002623, abs=5e-8)
    assert two.weights_V[buckets[1:]] == pytest.approx([0.1] * 3, abs=1e-7)


def slow_train(texts, labels, importance, rows, epochs, rate, order):
    weights, squares, bias = np.zeros(V), np.zeros(V), 0.0
    for _ in range(epochs):
        for row in rows:
            buckets = feature_buckets([texts[row]], V, order)[0].tolist()
            if not buckets:
                continue
            root = math.sqrt(len(buckets))
            s = sum(weights[b] for b in buckets) / root + bias
            g = importance[row] * (1 / (1 + math.exp(-s)) - labels[row])
            for b in buckets:
                squares[b] += (g / root) ** 2
                weights[b] -= rate * (g / root) / math.sqrt(squares[b] + 1e-8)
            bias -= 0.01 * g
    return weights, bias


@settings(max_examples=30, deadline=None)
@given(TEXTS, st.sampled_from([1, 2]), st.randoms(use_true_random=False))
def test_training_equals_its_definition(texts, order, random):
    labels = [float(random.random() < 0.5) for _ in texts]
    importance = np.array([random.choice([0.5, 1.0, 3.0]) for _ in texts])
    rows = [random.randrange(len(texts)) for _ in range(2 * len(texts))]
    weights, bias = slow_train(texts, labels, importance, rows, 2, 0.3, order)
    model = train(texts, labels, rows, importance, order=order, epochs=2, rate=0.3)
    assert model.weights_V == pytest.approx(weights, abs=1e-9)
    assert model.bias == pytest.approx(bias, abs=1e-12)
    again = train(
        pa.array(["x", *texts], pa.large_string()).slice(1), labels, rows, importance, order=order, epochs=2, rate=0.3
    )
    assert again.weights_V.tolist() == model.weights_V.tolist()  # where the buffer begins changes nothing


@settings(max_examples=20, deadline=None)
@given(TEXTS, st.sampled_from([1, 2]))
def test_flipped_labels_flip_the_logits(texts, order):
    labels = np.arange(len(texts)) % 2
    rows = np.arange(len(texts))
    one, other = train(texts, labels, rows, order=order), train(texts, 1 - labels, rows, order=order)
    assert one.logits(texts) == pytest.approx(-other.logits(texts), abs=1e-9)
    _, tokens = score_ngrams(texts, np.zeros(1), order)
    assert num_features(tokens, order).tolist() == np.diff(feature_buckets(texts, V, order)[1]).tolist()


@settings(max_examples=30, deadline=None)
@given(TEXTS, st.sampled_from([1, 2]), st.sampled_from([3, V]))
def test_document_frequencies_and_tfidf_equal_their_definition(texts, order, num_buckets):
    buckets, starts = feature_buckets(texts, num_buckets, order)
    rows = [buckets[a:b].tolist() for a, b in itertools.pairwise(starts)]
    frequency = Counter(b for row in rows for b in set(row))
    counted = document_frequencies(texts, num_buckets, order)
    assert counted.tolist() == [frequency[b] for b in range(num_buckets)]
    idf = np.abs(np.sin(np.arange(num_buckets)))
    idf[::3] = 0.0
    values, columns, begins = tfidf_rows(texts, idf, order)
    for row, (a, b) in zip(rows, itertools.pairwise(begins), strict=True):
        counts = {bucket: num for bucket, num in Counter(row).items() if idf[bucket]}
        assert columns[a:b].tolist() == list(counts)  # in the order of first occurrence
        raw = np.array([(1 + math.log(num)) * idf[bucket] for bucket, num in counts.items()])
        assert values[a:b] == pytest.approx(raw / np.linalg.norm(raw) if len(raw) else raw)


def test_tfidf_rows_outgrow_their_first_room():
    texts = [" ".join(f"w{i}" for i in range(start, start + 900)) for start in (0, 500, 5000)]
    values, columns, starts = tfidf_rows(texts, np.ones(1 << 20))
    assert np.diff(starts).min() > 1790
    for (a, b), text in zip(itertools.pairwise(starts), texts, strict=True):
        wanted = feature_buckets([text], 1 << 20)[0]
        assert columns[a:b].tolist() == list(dict.fromkeys(wanted.tolist()))
        assert np.sum(values[a:b] ** 2) == pytest.approx(1)


def test_orders_and_buckets_that_cannot_be_meant():
    with pytest.raises(UsageError, match="order 3"):
        train(["a"], [1], [0], order=3)
    with pytest.raises(UsageError, match="0 buckets"):
        document_frequencies(["a"], 0)
    with pytest.raises(UsageError, match="order 0"):
        tfidf_rows(["a"], np.ones(4), 0)


def test_calibration_against_scikit_learn_and_its_edges():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(3)
    labels = rng.random(4000) < 0.3
    logits = 5 + rng.normal(size=4000) * 2 + 3 * labels
    importance = np.where(labels, 2.0, 0.5)
    peer = LogisticRegression(C=1e9, tol=1e-9).fit(logits[:, None], labels, sample_weight=importance)
    scale, offset = platt(logits, labels, importance)
    assert scale == pytest.approx(peer.coef_[0, 0], rel=1e-2)
    assert offset == pytest.approx(peer.intercept_[0], rel=1e-2)  # the labels are drawn in by a count
    separable = platt(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([False, False, True, True]), np.ones(4))
    assert 0 < separable[0] < 100
    assert platt(-logits, labels, importance)[0] == 1e-6  # never turns the order round
    assert np.isfinite(platt(np.zeros(4), np.array([True, False, False, False]), np.ones(4))).all()


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.sampled_from([1, 2]))
def test_every_feature_has_a_name(text, order):
    named = named_features(text, V, order)
    assert [bucket for _, bucket in named] == feature_buckets([text], V, order)[0].tolist()


def test_names_are_words_and_pairs_in_small_letters():
    assert [n for n, _ in named_features("The Café, 東京!", V)] == [
        *("the", "café", "the café", ",", "café ,", "東", ", 東", "京", "東 京", "!", "京 !"),
    ]
    assert [n for n, _ in named_features("a😀b 𠀀𠀁", V, 1)] == ["a", "😀", "b", "𠀀", "𠀁"]


def test_texts_are_cut_by_characters():
    texts = pa.array(["ééééé", None, "abc", ""], pa.large_string())
    assert cut_texts(texts, 3).to_pylist() == ["ééé", None, "abc", ""]
    assert cut_texts(texts, 10) is texts
