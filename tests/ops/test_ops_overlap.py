"""Overlap of word n-grams and set joins, against their definitions in plain Python."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.ops import overlap_kernels as kernels
from tamis.ops.bytes import character_tables, text_buffers, token_hashes
from tamis.ops.overlap import Overlap
from tamis.ops.set_join import SimilarTexts

NONE = np.zeros(0, np.int64)
WORD = re.compile(r"\w+")
# of every class, in one byte and in several; marks of one, three and four bytes; a letter whose lower case is longer
CHARACTERS = "aZ0_ .-\t\x00\x7fé\u00a0\u2014\u3000漢ไ\U00020000\U0001f600\u212a\u0130\ufffd\U000e0001"


def words(text):
    return WORD.findall(text.lower())


def no_common(overlap, num_sources=1):
    return overlap.common(NONE, NONE, num_sources, NONE)


def found(overlap, texts, common=None, sources=None, needed=1):
    sources = np.zeros(len(texts), np.int64) if sources is None else np.array(sources)
    least = np.full(overlap.num_items, needed)
    pairs = overlap.pairs_in(texts, sources, common or no_common(overlap), least)
    columns = (pairs.rows, pairs.items, pairs.evidence, pairs.matched)
    return [tuple(int(v) for v in row) for row in zip(*columns, strict=True)]


def slow_grams(text, width, min_letters):
    tokens = words(text)
    w = min(width, len(tokens))
    runs = [tuple(tokens[i : i + w]) for i in range(len(tokens) - w + 1)] if tokens else []
    return {run for run in runs if sum(bool(re.search("[a-z]", t)) for t in run) >= min_letters}


def slow_pairs(items, texts, width, min_letters):
    pairs = []
    for row, text in enumerate(texts):
        tokens = words(text)
        for item, wanted in enumerate(items):
            grams = slow_grams(wanted, width, min_letters)
            w = min(width, len(words(wanted)))
            there = {tuple(tokens[i : i + w]) for i in range(len(tokens) - w + 1)}
            if grams & there:
                pairs.append((row, item, len(grams & there), len(grams & there)))
    return pairs


def prefix_differences(text):
    """The words' hashes, from the prefix hashes: P[i + 1] - P[i] * g."""
    data, offsets = text_buffers([text])
    classes, lowers = character_tables()
    prefix = np.full(len(data) + 2, 7, np.uint64)
    steps = kernels._word_steps(classes, lowers)
    num = kernels._prefixes(data, offsets[0], offsets[1], classes, lowers, steps, prefix)
    assert prefix[0] == 0
    return (prefix[1 : num + 1] - prefix[:num] * kernels._GOLDEN).tolist()


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(CHARACTERS), max_size=12))
def test_prefixes_are_of_the_words(text):
    assert prefix_differences(text) == token_hashes([text])[0].tolist()


def test_every_pair_of_characters_is_cut_where_it_should_be():
    texts = [a + b for a in CHARACTERS for b in CHARACTERS]
    expected = [token_hashes([text])[0].tolist() for text in texts]
    assert [prefix_differences(text) for text in texts] == expected
    assert {len(e) for e in expected} == {0, 1, 2}


def test_worked_coverage():
    """20 words are 8 grams of 13; 17 of them hold 5 grams; 4 of the 5 common leave 1."""
    tokens = [f"w{i}" for i in range(20)]
    overlap = Overlap([" ".join(tokens)])
    assert overlap.num_grams.tolist() == [8]
    text = " ".join(tokens[:17])
    assert found(overlap, [text]) == [(0, 0, 5, 5)]
    _, grams = overlap.grams_in([" ".join(tokens[:16])])
    assert len(grams) == 4
    common = overlap.common(np.ones(4, int), grams, 2, NONE)
    assert found(overlap, [text, text], common, [0, 1]) == [(0, 0, 5, 5), (1, 0, 1, 5)]
    assert found(overlap, [text], overlap.common(NONE, NONE, 1, grams)) == [(0, 0, 1, 5)]


def test_what_can_be_found():
    items = ["two words", "1 2 3 4 5", "x 2 y 4 z", "", "a b c", "東京タワー"]
    overlap = Overlap(items)
    assert overlap.num_grams.tolist() == [0, 0, 1, 0, 1, 1]
    assert overlap.num_tokens.tolist() == [2, 5, 5, 0, 3, 5]
    texts = ["two words 1 2 3 4 5", "0 X 2,\ny 4 (z)", "a-b\n\nc d", "昔の東京タワーは", "a b", ""]
    assert found(overlap, texts) == [(1, 2, 1, 1), (2, 4, 1, 1), (3, 5, 1, 1)]


def test_number_grams_of_a_long_item_do_not_count():
    table = " ".join(str(i) for i in range(30))
    overlap = Overlap([f"the long table of values {table}"])
    assert overlap.num_grams.tolist() == [3]  # those that hold three of its five words
    assert found(overlap, [table]) == []


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "7"]), max_size=9).map(" ".join), min_size=1, max_size=5),
    st.lists(st.lists(st.sampled_from(["a", "B", "7", "-"]), max_size=16).map(" ".join), max_size=5),
    st.integers(2, 5),
    st.integers(1, 2),
)
def test_pairs_equal_the_definition(items, texts, width, min_letters):
    overlap = Overlap(items, num_tokens=width, min_letter_tokens=min_letters)
    assert overlap.num_grams.tolist() == [len(slow_grams(i, width, min_letters)) for i in items]
    assert found(overlap, texts) == slow_pairs(items, texts, width, min_letters)
    assert [p for i, t in enumerate(texts) for p in found(overlap, [t]) for p in [(i, *p[1:])]] == found(overlap, texts)
    rows, grams = overlap.grams_in(texts)
    total = {(int(r), int(g)) for r, g in zip(rows, grams, strict=True)}
    wanted = set().union(*(slow_grams(i, width, min_letters) for i in items)) if items else set()
    for row, text in enumerate(texts):
        tokens = words(text)
        runs = {tuple(tokens[i : i + w]) for w in range(1, width + 1) for i in range(len(tokens) - w + 1)}
        assert len([r for r, _ in total if r == row]) == len(runs & wanted)


@given(st.lists(st.sampled_from("abc"), max_size=20), st.lists(st.sampled_from("abcd"), max_size=10))
def test_more_text_never_lowers_a_count(first, more):
    overlap = Overlap(["a b c a b", "b b c", "c a c b a b c"], num_tokens=4)
    before = {p[1]: p[3] for p in found(overlap, [" ".join(first)])}
    after = {p[1]: p[3] for p in found(overlap, [" ".join(first + more)])}
    assert all(after[item] >= count for item, count in before.items())


def test_many_hits_outgrow_the_buffers():
    tokens = [f"w{i}" for i in range(600)]
    items = [" ".join(tokens[i : i + 20]) for i in range(0, 580, 2)]
    text = " ".join(tokens)
    assert found(Overlap(items), [text, "nothing", text]) == slow_pairs(items, [text, "nothing", text], 13, 3)


def test_locate_gives_the_longest_run_in_bytes():
    item = " ".join(f"w{i}" for i in range(20))
    overlap = Overlap([item, "Käse aus dem Wald"])
    text = "é " + " ".join(f"W{i}" for i in range(14)) + "; x\n" + item + " y"
    begin, end, agrees = overlap.locate(text, 0, source=0, common=no_common(overlap))
    assert (text.encode()[begin:end].decode(), agrees) == (item, True)
    text = "über (KÄSE, aus\ndem wald) hinaus"
    begin, end, agrees = overlap.locate(text, 1, source=0, common=no_common(overlap))
    assert (text.encode()[begin:end].decode(), agrees) == ("KÄSE, aus\ndem wald", True)
    assert overlap.locate("nothing of it", 1, source=0, common=no_common(overlap)) == (0, 0, False)


def test_locate_can_leave_common_grams_out():
    tokens = [f"w{i}" for i in range(20)]
    overlap = Overlap([" ".join(tokens)])
    common = overlap.common(NONE, NONE, 1, overlap.grams_in([" ".join(tokens[:16])])[1])
    text = " ".join(tokens)
    assert overlap.locate(text, 0, source=0, common=common)[0] == len(" ".join(tokens[:4]) + " ")
    assert overlap.locate(text, 0, source=0, common=common, with_common=True)[0] == 0


def test_locate_notices_two_texts_with_one_hash():
    overlap = Overlap(["alpha beta gamma", "one two three"])
    grams = overlap._index.grams.copy()
    overlap._index = overlap._index._replace(items=overlap._index.items[::-1].copy())
    assert len(grams) == 2
    begin, end, agrees = overlap.locate("x one two three", 0, source=0, common=no_common(overlap))
    assert (begin, end, agrees) == (2, 15, True)  # the words still stand where the posting says
    overlap._index = overlap._index._replace(begins=overlap._index.begins[::-1].copy())
    assert overlap.locate("x one two three", 0, source=0, common=no_common(overlap)) == (2, 15, False)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The  cat!", "the CAT", True),
        ("the cat", "the cats", False),
        ("the cats", "the cat", False),
        ("the cat", "the cat sat", False),
        ("the cat sat", "the cat", False),
        ("thecat", "the cat", False),
        ("東京", "東 京", True),
        ("東京", "東亰", False),
        ("", " .", True),
    ],
)
def test_same_words(one, other, same):
    a, at = text_buffers([one])
    b, other_at = text_buffers([other])
    assert kernels.same_words(a, at[0], at[1], b, other_at[0], other_at[1], *character_tables()) is same


def test_arrow_slices_give_the_same():
    overlap = Overlap(["alpha beta gamma"])
    array = pa.array(["x", "alpha beta gamma", None, "y alpha beta gamma"], pa.large_string())
    assert found(overlap, array.slice(1)) == [(0, 0, 1, 1), (2, 0, 1, 1)]


# --- set joins


def slow_set(text, kind):
    tokens = words(text)
    if kind == "words":
        return set(tokens)
    line = " ".join(tokens)
    return {line[i : i + 4] for i in range(max(1, len(line) - 3))} if line else set()


def slow_nearest(items, text, kind, least):
    best = (-1, 0.0)
    mine = slow_set(text, kind)
    for i, item in enumerate(items):
        theirs = slow_set(item, kind)
        if mine and theirs:
            score = len(mine & theirs) / len(mine | theirs)
            if score >= least and score > best[1]:
                best = (i, score)
    return best


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=7).map(" ".join), max_size=6),
    st.lists(st.lists(st.sampled_from("abcdefg"), max_size=7).map(" ".join), max_size=6),
    st.sampled_from(["words", "chars"]),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_nearest_equals_comparing_all(items, texts, kind, least):
    item, score = SimilarTexts(items, kind, least).nearest(texts)
    wanted = [slow_nearest(items, t, kind, least) for t in texts]
    assert list(zip(item.tolist(), score.tolist(), strict=True)) == wanted


def test_worked_similarities():
    """Four of five words shared: .8; "bakes" for "bake" keeps 16 of 17 character grams."""
    near = SimilarTexts(["how do i bake bread", "red green blue cyan pink"], "words", 0.8)
    item, score = near.nearest(["I do bake bread, how?", "red green blue cyan", "red green blue", "..."])
    assert item.tolist() == [0, 1, -1, -1]
    assert score.tolist() == [1.0, 0.8, 0.0, 0.0]
    item, score = SimilarTexts(["how do i bake bread"], "chars", 0.8).nearest(["how do i bake breads"])
    assert (item.tolist(), score.tolist()) == ([0], [16 / 17])


def test_character_grams_of_other_scripts():
    item, score = SimilarTexts(["ÄÖÜ straße über", "東京タワー"], "chars", 0.9).nearest(
        ["äöü STRASSE", "äöü Straße, Über", "東京タワー"]
    )
    assert item.tolist() == [-1, 0, 1]
    assert score.tolist() == [0.0, 1.0, 1.0]
