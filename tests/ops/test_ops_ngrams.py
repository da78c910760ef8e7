"""Hashed n-grams against their definition in plain Python, keys and joined texts against theirs."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import UsageError
from tamis.ops.bytes import token_hashes
from tamis.ops.hashing import array_keys, draws, gumbel, splitmix64, text_keys, uniform
from tamis.ops.ngrams import count_ngrams, count_words, feature_buckets, score_ngrams
from tamis.ops.text import joined

MASK = (1 << 64) - 1
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=6)


def mix(h):
    h ^= h >> 32
    h = h * 0xD6E8FEB86659FD93 & MASK
    return h ^ h >> 32


def slow_features(text, num_buckets, order):
    """The definition; token hashes have their own test."""
    tokens = token_hashes([text], words_only=False)[0].tolist()
    found = []
    for i, token in enumerate(tokens):
        found.append(token)
        if order == 2 and i:
            found.append(mix((tokens[i - 1] * 0x9E3779B97F4A7C15 & MASK) ^ token))
    return [(h >> 32) * num_buckets >> 32 for h in found]


def test_worked_buckets():
    tokens = token_hashes(["the cat"])[0].tolist()
    assert mix((tokens[0] * 0x9E3779B97F4A7C15 & MASK) ^ tokens[1]) == 3093699672187738964
    assert feature_buckets(["the cat"], 1 << 18)[0].tolist() == [127229, 194475, 43964]
    assert feature_buckets(["the cat"], 10_000)[0].tolist() == [4853, 7418, 1677]


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.sampled_from([1, 7, 10_000, 1 << 18]), st.sampled_from([1, 2]))
def test_features_counts_and_scores_equal_their_definition(texts, num_buckets, order):
    wanted = [slow_features(text, num_buckets, order) for text in texts]
    buckets, starts = feature_buckets(texts, num_buckets, order)
    assert [buckets[a:b].tolist() for a, b in itertools.pairwise(starts)] == wanted
    counts = count_ngrams(texts, num_buckets, order)
    assert counts.tolist() == np.bincount([b for w in wanted for b in w], minlength=num_buckets).tolist()
    weights = np.sin(np.arange(num_buckets))
    sums, tokens = score_ngrams(texts, weights, order)
    for row, features in enumerate(wanted):
        total = 0.0
        for bucket in features:
            total += weights[bucket]
        assert sums[row] == total  # to the bit: one sum in text order
        assert tokens[row] == ((len(features) + 1) // 2 if order == 2 else len(features))


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.integers(0, 6))
def test_counts_add_up_over_batches_and_slices(texts, cut):
    array = pa.array(texts, pa.large_string())
    parts = [array.slice(0, cut), array.slice(cut)]
    assert (sum(count_ngrams(p, 64) for p in parts) == count_ngrams(array, 64)).all()
    weights = np.cos(np.arange(64.0))
    assert (
        np.concatenate([score_ngrams(p, weights)[0] for p in parts]).tolist()
        == score_ngrams(array, weights)[0].tolist()
    )


def test_two_n_minus_one_features_and_none_across_documents():
    texts = ["one two three", "", "x", "(a) b!"]
    _, tokens = score_ngrams(texts, np.zeros(8))
    assert tokens.tolist() == [3, 0, 1, 5]
    assert count_ngrams(texts, 8).sum() == sum(max(0, 2 * n - 1) for n in tokens.tolist())
    assert count_ngrams(["a", "b"], 1 << 18).sum() == 2


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_words_are_the_tokens_without_marks(texts):
    assert count_words(texts).tolist() == np.diff(token_hashes(texts, words_only=True)[1]).tolist()


@pytest.mark.parametrize(("num_buckets", "order"), [(0, 2), (1 << 33, 1), (16, 3), (16, 0)])
def test_what_cannot_be_counted_is_refused(num_buckets, order):
    with pytest.raises(UsageError, match=r"buckets|order"):
        count_ngrams(["a"], num_buckets, order)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6), st.integers(0, 3)
)
def test_array_keys_are_xxh3_of_the_bytes(texts, start):
    array = pa.array(texts, pa.large_string()).slice(start)
    wanted = [xxhash.xxh3_64_intdigest((t or "").encode()) for t in texts[start:]]
    assert array_keys(array).tolist() == wanted
    assert array_keys(pa.chunked_array([array, array])).tolist() == wanted * 2
    assert text_keys([t or "" for t in texts[start:]]).tolist() == wanted


def test_worked_key_and_draws():
    key = array_keys(pa.array(["the cat"]))
    assert array_keys(pa.array(["a", "the cat", "b"], pa.large_string()).slice(1, 1)).tolist() == key.tolist()
    assert int(key[0]) == 0xAB243B8774E852F8
    bits = splitmix64(splitmix64(np.uint64(7) ^ splitmix64(0)) ^ key)  # stream 0
    unit = ((bits >> np.uint64(11)).astype(float) + 0.5) * 2.0**-53
    assert unit[0] == 0.8605714564940703
    assert -np.log(-np.log(unit[0])) == pytest.approx(1.896063036245657, rel=1e-15)
    assert draws(key, 7, "gumbel") != draws(key, 7, "select")
    assert gumbel(key, 7, "gumbel")[0] == -np.log(-np.log(uniform(key, 7, "gumbel")[0]))


def test_gumbel_has_its_mean_and_variance():
    noise = gumbel(np.arange(100_000, dtype=np.uint64), 1, "gumbel")
    assert noise.mean() == pytest.approx(0.57722, abs=4 * np.pi / np.sqrt(6 * 100_000))
    assert noise.var() == pytest.approx(np.pi**2 / 6, abs=4 * np.sqrt(4.4 * (np.pi**2 / 6) ** 2 / 100_000))


def test_top_two_of_noisy_weights_is_sampling_without_replacement():
    keys = np.arange(3, dtype=np.uint64)
    weights = np.log([0.5, 0.3, 0.2])
    hits = np.zeros(3)
    for seed in range(20_000):
        hits[np.argsort(-(weights + gumbel(keys, seed, "gumbel")))[:2]] += 1
    assert hits / 20_000 == pytest.approx([0.83929, 0.67500, 0.48571], abs=4 * 0.5 / np.sqrt(20_000))


def test_joined_puts_the_title_above_the_text():
    batch = pa.record_batch(
        {"title": pa.array(["T", "", None], pa.large_string()), "text": pa.array(["a", "b", "c"], pa.large_string())}
    )
    assert joined(batch).to_pylist() == ["T\na", "b", "c"]
    assert joined(batch.slice(1)).to_pylist() == ["b", "c"]
    assert joined(batch.select(["text"])).to_pylist() == ["a", "b", "c"]
    table = pa.Table.from_batches([batch, batch])
    assert joined(table).to_pylist() == ["T\na", "b", "c"] * 2
    assert joined(table.slice(0, 0)).to_pylist() == []
