"""Comparisons of token sequences against their plain definitions."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.ops import alignment, shingles
from tamis.ops.bytes import minhash, token_hashes


def slow_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last = [i]
        for j, y in enumerate(b, 1):
            last.append(min(row[j] + 1, last[-1] + 1, row[j - 1] + (x != y)))
        row = last
    return row[-1]


def array(values):
    return np.array(values, np.uint64)


def edited(rng, a, num_edits, num_words):
    b = list(a)
    for _ in range(num_edits):
        at, kind = int(rng.integers(len(b) + 1)), int(rng.integers(3))
        if kind == 0:
            b.insert(at, int(rng.integers(num_words)))
        elif b and kind == 1:
            del b[min(at, len(b) - 1)]
        elif b:
            b[min(at, len(b) - 1)] = int(rng.integers(num_words))
    return b


def test_worked_pair():
    tokens, starts = token_hashes(["a b c d e f g h i j", "a b c X e f g h i j"])
    assert alignment.word_distance(tokens[:10], tokens[10:], 2) == 1
    sets, at = shingles.shingle_sets(tokens, starts, np.ones(2, np.bool_), 3)
    both = alignment.intersections(sets, at, np.array([0]), np.array([1]))
    assert (both[0], np.diff(at).tolist()) == (5, [8, 8])  # Jaccard 5 / 11


WORDS = st.lists(st.integers(0, 6), max_size=150)


@given(WORDS, WORDS, st.integers(0, 160))
@settings(max_examples=200)
def test_distance_is_the_plain_one_up_to_the_limit(a, b, limit):
    assert alignment.word_distance(array(a), array(b), limit) == min(slow_distance(a, b), limit + 1)


@pytest.mark.parametrize("length", [63, 64, 65, 127, 128, 129, 300])
@pytest.mark.parametrize("num_words", [3, 40, 10_000])
def test_distance_over_several_words_of_the_band(length, num_words):
    rng = np.random.default_rng(length + num_words)
    for num_edits in (0, 1, 5, 30, 90):
        a = rng.integers(num_words, size=length).tolist()
        b = edited(rng, a, num_edits, num_words)
        expected = slow_distance(a, b)
        for limit in {max(0, expected - 1), expected, expected + 1, 20, 400}:
            assert alignment.word_distance(array(a), array(b), limit) == min(expected, limit + 1)
            assert alignment.word_distance(array(b), array(a), limit) == min(expected, limit + 1)


def test_distance_with_a_band_that_grows():
    rng = np.random.default_rng(3)
    for num_edits in (0, 20, 60, 200):
        a = rng.integers(2000, size=700).tolist()  # above 512 the band starts at 31
        b = edited(rng, a, num_edits, 2000)
        expected = slow_distance(a, b)
        for limit in (expected - 1, expected, 500):
            assert alignment.word_distance(array(a), array(b), max(0, limit)) == min(expected, max(0, limit) + 1)


@given(st.lists(WORDS, min_size=2, max_size=6), st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=20))
@settings(max_examples=60)
def test_many_pairs_are_each_pair(sequences, pairs):
    tokens, starts = array(list(chain(*sequences))), np.cumsum([0] + [len(s) for s in sequences])
    left, right, limits = (np.array([p[i] for p in pairs], np.int64) for i in range(3))
    left, right, limits = left % len(sequences), right % len(sequences), 9 * limits
    found = alignment.distances(tokens, starts, left, right, limits)
    expected = [
        alignment.word_distance(array(sequences[a]), array(sequences[b]), int(limit))
        for a, b, limit in zip(left, right, limits, strict=True)
    ]
    assert found.tolist() == expected


def distance_by_rows(a, b):
    """The plain programme again, a row at a time, for texts that `slow_distance` takes too long for."""
    row, steps = np.arange(len(b) + 1), np.arange(1, len(b) + 1)
    for i, x in enumerate(a, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (np.array(b) != x))
        row = np.r_[i, np.minimum(np.minimum.accumulate(best - steps), i) + steps]
    return int(row[-1])


def test_distance_beyond_what_diagonals_look_for():
    rng = np.random.default_rng(9)
    for size in (1150, 2700):  # above 1024 edits in one band, above 2048 in one that grows
        a, b = rng.integers(3000, size=size).tolist(), rng.integers(3000, size=size - 100).tolist()
        expected = distance_by_rows(a, b)
        assert expected > size - 200
        for limit in (1023, 1024, 1025, expected - 1, expected, expected + 1, 5000):
            assert alignment.word_distance(array(a), array(b), limit) == min(expected, limit + 1)


@given(WORDS, WORDS, WORDS)
@settings(max_examples=60)
def test_distance_is_a_metric_and_the_bag_distance_is_below(a, b, c):
    def distance(x, y):
        return alignment.word_distance(array(x), array(y), 1000)

    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert (distance(a, b) == 0) == (a == b)
    bag = alignment.bag_distance(array(sorted(a)), array(sorted(b)))
    one, other = Counter(a), Counter(b)
    assert bag == max((one - other).total(), (other - one).total()) <= distance(a, b)


def test_a_comparison_that_would_take_too_long_says_so():
    tokens = np.arange(4000, dtype=np.uint64)
    tokens[2000:] = tokens[:2000][::-1]
    starts, zero = np.array([0, 2000, 4000]), np.zeros(1, np.int64)
    assert alignment.distances(tokens, starts, zero, zero + 1, np.array([1999]), max_steps=10_000)[0] == -1
    assert alignment.distances(tokens, starts, zero, zero + 1, np.array([2000]))[0] in (1999, 2000)


@given(st.sets(st.integers(0, 80)), st.sets(st.integers(0, 2000), max_size=300))
def test_intersection_merging_and_galloping(a, b):
    assert alignment.sorted_intersection(array(sorted(a)), array(sorted(b))) == len(a & b)
    assert alignment.sorted_intersection(array(sorted(b)), array(sorted(a))) == len(a & b)


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=60))
def test_containment_of_a_sequence(a, b):
    tokens, starts = array(a + b), np.array([0, len(a), len(a) + len(b)])
    expected = any(b[i : i + len(a)] == a for i in range(len(b) - len(a) + 1))
    assert alignment.contains(tokens, starts, np.array([0]), np.array([1]))[0] == expected


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MIXED = st.lists(st.sampled_from(["a", "Word", " ", ".", "É", "東", "x1", "\u00a0", "—", "naïve", "\U0001f600"]))


@given(st.lists(TEXTS | MIXED.map("".join)))
@settings(max_examples=300)
def test_word_hashes_are_the_token_hashes(texts):
    expected, expected_starts = token_hashes(texts)
    hashes, starts = shingles.word_hashes(texts)
    assert hashes.tolist() == expected.tolist()
    assert starts.tolist() == expected_starts.tolist()


def shingle_lists(texts, width):
    tokens, starts = token_hashes(texts)
    for i in range(len(texts)):
        words = tokens[starts[i] : starts[i + 1]].tolist()
        w = min(width, len(words))
        yield [tuple(words[j : j + w]) for j in range(len(words) - w + 1)] if words else []


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), max_size=30), st.integers(1, 4))
def test_frequent_shingles_are_counted_by_documents(texts, minimum):
    counts = shingles.ShingleCounts(2)
    for part in (texts[:7], texts[7:]):
        counts.add(*shingles.word_hashes(part))
    expected = Counter(s for found in shingle_lists(texts, 2) for s in set(found))
    assert len(counts.frequent(minimum)) == sum(n >= minimum for n in expected.values())


@pytest.mark.parametrize("bands", [64, 51, 256, 1])
def test_bands_agree_where_the_rows_of_the_signatures_do(bands):
    texts = [
        "the quick brown fox jumps over the lazy dog again and again",
        "a quick brown fox jumps over the lazy dog",
        "",
    ]
    none = shingles.CommonShingles(np.zeros(0))
    signatures, positions = minhash(texts, seed=5)
    hashes, used, counts = shingles.band_hashes(texts, bands=bands, width=3, seed=5, common=none, minimum=1)
    assert used.tolist() == positions.tolist() == [10, 7, 0]
    assert counts.tolist() == [12, 9, 0]
    rows = 256 // bands
    blocks = signatures[:2, : bands * rows].reshape(2, bands, rows)
    agree = (blocks[0] == blocks[1]).all(axis=1)
    assert ((hashes[0] == hashes[1]) == agree).all()
    assert bands == 1 or 0 < agree.sum() < bands


def test_common_shingles_are_left_out_of_sets_and_signatures():
    texts = ["one two three four five six", "four five six"]
    tokens, starts = token_hashes(texts)
    everyone = np.ones(2, np.bool_)
    sets, at = shingles.shingle_sets(tokens, starts, everyone, 3)
    common = shingles.CommonShingles(sets[at[1] : at[2]])
    _, left_at = shingles.shingle_sets(tokens, starts, everyone, 3, common)
    assert np.diff(at).tolist() == [4, 1]
    assert np.diff(left_at).tolist() == [3, 0]
    _, used, _ = shingles.band_hashes(texts, bands=64, width=3, seed=0, common=common, minimum=1)
    assert used.tolist() == [3, 0]
    whole, _, _ = shingles.band_hashes(texts, bands=256, width=3, seed=0, common=common, minimum=1)
    again, _, _ = shingles.band_hashes(
        ["one two three four five"], bands=256, width=3, seed=0, common=common, minimum=1
    )
    assert (whole[0] == again[0]).all()  # the same three shingles are left


def test_character_sets():
    values, starts = shingles.character_sets(["ABCDEF", "abcde", "é", ""], 5)
    assert np.diff(starts).tolist() == [2, 1, 1, 0]
    assert set(values[starts[1] : starts[2]]) < set(values[: starts[1]])


def test_keep_walk_follows_no_chain():
    # A~B, B~C: B goes by A; C stays, as its only edge leads to B
    chosen = shingles.keep_walk(np.array([1, 2]), np.array([0, 1]), np.zeros(3, np.bool_))
    assert chosen.tolist() == [-1, 0, -1]
    assert shingles.keep_walk(np.array([1, 2]), np.array([0, 1]), np.array([False, True, False])).tolist() == [
        -1,
        -1,
        1,
    ]
