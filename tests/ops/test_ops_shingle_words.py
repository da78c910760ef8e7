"""The scanner of words finds what `token_hashes` defines, wherever blocks, pieces and long words end; minima are exact."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.ops import shingle_words, shingles
from tamis.ops.bytes import character_tables, minhash, minhash_parameters, text_buffers, token_hashes
from tamis.ops.shingle_vectors import LANES, fold_bytes, minima, occupied

# of every class, in one byte and in several; letters whose lower case has another length; characters of their own
CHARACTERS = "aZ09_ .-\t\x00\x7fé\u00a0\u2014\u3000漢かไ\U00020000\U0001f600\u212a\u0130\u023a\ufffd\U000e0001"
WORDS = st.text(st.sampled_from(CHARACTERS), max_size=12) | st.integers(1, 70).map(lambda n: "aB3_" * n)


def check(texts):
    hashes, starts = shingles.word_hashes(texts)
    expected, expected_starts = token_hashes(texts)
    assert starts.tolist() == expected_starts.tolist()
    assert hashes.tolist() == expected.tolist()
    return len(hashes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=12).map(" ".join), max_size=4), st.integers(0, 3))
def test_words_are_those_of_the_general_rule(texts, first):
    check(texts)
    check(pa.array(texts, pa.large_string())[first:])  # a view into a longer buffer


def test_every_pair_of_characters_behind_every_part_of_a_block():
    pairs = [a + b for a in CHARACTERS for b in CHARACTERS]
    assert check([x * (i % 67) + pair + "tail" * 20 for x in ("a", ".", "é") for i, pair in enumerate(pairs)]) > 3000


def test_words_of_every_length():
    assert check([" ".join("x" * n + "é" * (n % 3) for n in range(first, 60)) for first in range(1, 12)]) == 594


@pytest.mark.parametrize("part", ["word and more, ", "字", "é", "слово ", "a", "x1\n", " ", "."])
def test_texts_of_several_pieces(part):
    num = 3 * shingle_words.PIECE // len(part.encode())
    for rest in ("", " end", "é"):
        check([part * num + rest, "between", part * (num // 3) + rest, part * (num // 3 - 1) + "xyz" + part * 3])


def test_ascii_is_folded_as_the_table_says():
    classes, lowers = character_tables()
    data = np.arange(256, dtype=np.uint8)
    letters = np.full(256, 9, np.uint8)
    from numba import njit

    @njit
    def fold(data, letters):
        high = [fold_bytes(data, np.uint64(at), letters, np.uint64(at)) for at in range(0, 256, 64)]
        return high, [occupied(letters, np.uint64(at)) for at in range(0, 128, 64)]

    high, marks = fold(data, letters)
    assert high == [0, 0, 2**64 - 1, 2**64 - 1]
    expected = np.where(classes[:128] == 1, lowers[:128], 0)
    assert letters[:128].tolist() == expected.tolist() and 60 < (expected > 0).sum() < 70
    assert marks == [sum(1 << i for i in range(64) if expected[first + i]) for first in (0, 64)]


@pytest.mark.parametrize("count", [0, 1, 2, 63, 300])
def test_minima_are_those_of_integers(count):
    values = np.random.default_rng(count).integers(0, 1 << 32, count + 5, dtype=np.uint32)
    a, b = minhash_parameters(2 * LANES, seed=7)
    out = np.zeros(2 * LANES, np.uint32)
    minima(values, count, a, b, out)
    slow = [
        min([(int(f) * int(x) + int(s)) % 2**32 for x in values[:count]], default=2**32 - 1)
        for f, s in zip(a, b, strict=True)
    ]
    assert out.tolist() == slow
    assert count < 2 or len(set(out.tolist())) > LANES


@pytest.mark.parametrize("num_words", [1, 2, 3, 511, 512, 513, 514, 515, 1600])
def test_bands_and_sets_of_long_texts_are_those_of_all_shingles(num_words):
    words = np.random.default_rng(num_words).integers(0, 400, num_words)
    text = [" ".join(f"w{w}" for w in words)]
    none = shingles.CommonShingles(np.zeros(0))
    signature, positions = minhash(text, seed=3)
    hashes, used, counts = shingles.band_hashes(text, bands=256, width=3, seed=3, common=none, minimum=1)
    assert counts[0] == num_words and used[0] == positions[0] == max(1, num_words - 2)
    g = signature[0].astype(np.uint64)  # a band of one row: mix of the minimum, its high half
    g = (g ^ g >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
    assert hashes[0].tolist() == ((g ^ g >> np.uint64(32)) >> np.uint64(32)).tolist()
    tokens, starts = token_hashes(text)
    sets, at = shingles.shingle_sets(tokens, starts, np.ones(1, np.bool_), 3)
    width = min(3, num_words)
    distinct = {tuple(words[i : i + width]) for i in range(num_words - width + 1)}
    assert at.tolist() == [0, len(sets)] and len(sets) == len(distinct)
    assert sets.tolist() == sorted(set(sets.tolist()))


@pytest.mark.parametrize("num_words", [18, 34, 40, 65_530, 65_600, 200_000])
def test_sets_of_texts_of_many_words(num_words):
    tokens = np.random.default_rng(num_words).integers(0, 2**64, num_words, dtype=np.uint64)
    sets, at = shingles.shingle_sets(tokens, np.array([0, num_words]), np.ones(1, np.bool_), 3)
    assert at.tolist() == [0, num_words - 2] and (sets[1:] > sets[:-1]).all()


def test_sets_where_many_shingles_are_one():
    text = ["a b c " * 400 + " ".join(f"w{i}" for i in range(900)) + " a b c" * 400]
    tokens, starts = token_hashes(text)
    sets, _ = shingles.shingle_sets(tokens, starts, np.ones(1, np.bool_), 3)
    assert sets.tolist() == sorted(set(sets.tolist())) and len(sets) == 3 + 898 + 4  # abc bca cab; of w; across


@pytest.mark.parametrize("num_words", [65_535, 65_538, 140_000])
def test_a_shingle_that_fills_its_counter_is_not_forgotten(num_words):
    counts = shingles.ShingleCounts(3)
    for text in ("the " * num_words, "the the the", "an other text"):
        counts.add(*shingles.word_hashes([text]))
    assert len(counts.frequent(1)) == 2
    assert len(counts.frequent(2)) == 1


def test_members_among_common_shingles_and_strangers():
    tokens, starts = token_hashes([" ".join(f"w{i}" for i in range(5000))])
    sets, _ = shingles.shingle_sets(tokens, starts, np.ones(1, np.bool_), 3)
    common = shingles.CommonShingles(sets[::2])
    left, _ = shingles.shingle_sets(tokens, starts, np.ones(1, np.bool_), 3, common)
    assert left.tolist() == sets[1::2].tolist()


def test_empty_buffers():
    data, offsets = text_buffers([])
    assert len(data) == 0 and shingle_words.word_hashes(data, offsets, *character_tables())[1].tolist() == [0]
    assert check(["", "", "."]) == 0
