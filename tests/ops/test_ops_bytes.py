"""The byte kernels against their definition in plain Python."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.ops import bytes as byte_ops
from tamis.ops.bytes import Phrases, minhash, minhash_parameters, text_hashes, token_hashes

MASK = (1 << 64) - 1
CLASSES, LOWERS = byte_ops.character_tables()


def mix(h):
    h ^= h >> 32
    h = h * 0xD6E8FEB86659FD93 & MASK
    return h ^ h >> 32


def class_of(code):
    if code < 0x10000:
        return int(CLASSES[code])
    if 0x20000 <= code <= 0x3FFFF:
        return 3
    return 2 if 0x1F000 <= code <= 0x1FAFF else 1


def slow_tokens(text, words_only):
    """The definition: runs of one class, lower-cased, FNV-1a over class and bytes, mixed."""
    runs = []
    for char in text:
        kind = class_of(ord(char))
        if kind == 0 or (kind == 2 and words_only):
            runs.append((0, ""))
        elif runs and runs[-1][0] == kind != 3:
            runs[-1] = (kind, runs[-1][1] + char)
        else:
            runs.append((kind, char))
    hashes = []
    for kind, run in runs:
        if kind:
            h = 0xCBF29CE484222325 ^ kind
            lowered = "".join(chr(LOWERS[ord(c)]) if ord(c) < 0x10000 else c for c in run)
            for byte in lowered.encode():
                h = (h ^ byte) * 0x100000001B3 & MASK
            hashes.append(mix(h))
    return hashes


def slow_minhash(text, num_hashes, width, seed=0):
    tokens = slow_tokens(text, words_only=True)
    signature = [0xFFFFFFFF] * num_hashes
    a, b = (p.tolist() for p in minhash_parameters(num_hashes, seed))
    w = min(width, len(tokens))
    for start in range(len(tokens) - w + 1) if tokens else ():
        g = 0
        for token in tokens[start : start + w]:
            g = (g * 0x9E3779B97F4A7C15 + token) & MASK
        x = mix(g) >> 32
        signature = [min(s, (a[k] * x + b[k]) & 0xFFFFFFFF) for k, s in enumerate(signature)]
    return signature


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def test_worked_hashes():
    hashes, starts = token_hashes(["the", "cat", "The CAT"])
    assert hashes.tolist() == [8952997813166541625, 13684969401331089737] * 2
    assert starts.tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("text", "count"), [("a\u00a0b", 2), ("Café’s ½ price: 東京タワー 2024!", 13), ("", 0), ("..", 1)]
)
def test_worked_token_counts(text, count):
    assert len(token_hashes([text], words_only=False)[0]) == count


def test_worked_signature():
    signature, num = minhash(["The quick brown fox jumps over the lazy dog. The quick brown fox sleeps."])
    a, b = minhash_parameters(3, 0)
    assert a.tolist() == [3793791033, 113532185, 456755563]
    assert b.tolist() == [1853398634, 4169906344, 1405853452]
    assert signature[0, :4].tolist() == [177145394, 271306792, 269202969, 6556448]
    assert num.tolist() == [12]


def test_tables_agree_with_the_rule():
    """On the basic plane a class is what the regular expressions say, up to the Unicode version."""
    assert int(CLASSES[ord("a")]) == 1
    assert [int(CLASSES[ord(c)]) for c in " \t\n\u00a0\u2003"] == [0] * 5
    assert [int(CLASSES[ord(c)]) for c in "東タก"] == [3, 3, 3]
    sample = [c for c in range(0x20, 0x2000) if bool(re.match(r"\w", chr(c))) != (CLASSES[c] in (1, 3))]
    assert len(sample) < 100  # only what a newer Unicode version has added
    assert chr(LOWERS[ord("Ä")]) == "ä"


@given(st.lists(TEXTS, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_tokens_equal_the_definition(texts, words_only):
    hashes, starts = token_hashes(texts, words_only=words_only)
    wanted = [slow_tokens(t, words_only) for t in texts]
    assert hashes.tolist() == [h for tokens in wanted for h in tokens]
    assert np.diff(starts).tolist() == [len(tokens) for tokens in wanted]
    whole, counts, _ = text_hashes(texts)
    assert counts.tolist() == [len(slow_tokens(t, True)) for t in texts]
    assert [h == 0 for h in whole.tolist()] == [c == 0 for c in counts.tolist()]


@given(st.lists(TEXTS, max_size=3), st.integers(1, 4), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_minhash_equals_the_definition(texts, width, seed):
    signatures, _ = minhash(texts, num_hashes=8, width=width, seed=seed)
    assert signatures.tolist() == [slow_minhash(t, 8, width, seed) for t in texts]


def test_minhash_of_a_union_is_the_minimum():
    parts, _ = minhash(["alpha", "beta", "alpha beta"], num_hashes=16, width=1)
    assert np.array_equal(np.minimum(parts[0], parts[1]), parts[2])


def test_minhash_estimates_jaccard():
    words = [f"w{i}" for i in range(400)]
    a, b = " ".join(words[:300]), " ".join(words[100:])
    signatures, _ = minhash([a, b], num_hashes=1024, width=1)
    assert abs((signatures[0] == signatures[1]).mean() - 0.5) < 4 * 0.5 / 32


def test_common_shingles_are_left_out():
    tokens, _ = token_hashes(["alpha"])
    shingle = np.array([mix(int(tokens[0]))], dtype=np.uint64)
    signatures, num = minhash(["alpha beta", "alpha"], num_hashes=4, width=1, common=shingle)
    assert num.tolist() == [1, 0]
    assert np.array_equal(signatures[0], minhash(["beta"], num_hashes=4, width=1)[0][0])
    assert (signatures[1] == 0xFFFFFFFF).all()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_chunks_and_nulls(kind):
    array = pa.array(["zero", "one two", None, "three"], kind)
    wanted = text_hashes(["one two", "", "three"])[0]
    assert np.array_equal(text_hashes(array.slice(1))[0], wanted)
    chunked = pa.chunked_array([array.slice(1, 1), array.slice(2)])
    assert np.array_equal(text_hashes(chunked)[0], wanted)
    assert len(text_hashes(pa.chunked_array([], kind))[0]) == 0


def test_phrases_are_found_across_case_and_marks():
    phrases = Phrases(["Brown fox, jumps over!", "fox jumps over it", "too short now", "", "東京タワー"])
    assert phrases.first_in(["", "the brown (fox) JUMPS over", "x fox jumps over it", "昔の東京タワーは"]).tolist() == [
        1,
        2,
        -1,
        -1,
        3,
    ]


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=12), max_size=5),
    st.lists(st.lists(st.sampled_from("abc"), max_size=7), max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_phrases_equal_the_obvious_search(texts, phrases):
    found = Phrases([" ".join(p) for p in phrases]).first_in([" ".join(t) for t in texts])
    for phrase, row in zip(phrases, found.tolist(), strict=True):
        holds = [any(t[i : i + len(phrase)] == phrase for i in range(len(t) - len(phrase) + 1)) for t in texts]
        assert row == (holds.index(True) if len(phrase) >= 4 and any(holds) else -1)
