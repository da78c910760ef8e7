"""Spans: sentences, words, cuts."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.ops.text import cut, normalised, num_words, sentence_spans, word_spans, words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello world. See Fig. 3 for it.", ["Hello world.", "See Fig. 3 for it."]),
        ("It is e.g. this. Is it? Yes!", ["It is e.g. this.", "Is it?", "Yes!"]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("One\n\ntwo", ["One", "two"]),
        ("Version 1. 2 is next", ["Version 1.", "2 is next"]),
        ("J. Smith came. K. Doe left.", ["J. Smith came.", "K. Doe left."]),
        ("東京。大阪。", ["東京。", "大阪。"]),
        ("ends. with lower case", ["ends. with lower case"]),
        ("", []),
        ("  \n ", []),
    ],
)
def test_hand_worked_sentences(text, sentences):
    assert [text[a:b] for a, b in sentence_spans(text)] == sentences


@given(st.text(alphabet=st.sampled_from("aB. !?\n\"')12。é"), max_size=80))
def test_sentences_are_ordered_trimmed_and_lose_only_blanks(text):
    spans = sentence_spans(text)
    kept = "".join(text[a:b] for a, b in spans)
    assert "".join(kept.split()) == "".join(text.split())
    assert all(a < b and text[a:b] == text[a:b].strip() for a, b in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


@pytest.mark.parametrize("char", ["a", ".", "(", " ", "\n", '"'])
def test_sentences_are_linear_in_the_text(char):
    def seconds(size):
        started = time.perf_counter()
        sentence_spans(char * size)
        return time.perf_counter() - started

    best = min(seconds(400_000) / max(1e-3, seconds(200_000)) for _ in range(4))
    assert best < 3.5


def test_words():
    assert words("Café_2, x-Y") == ["café_2", "x", "y"]
    assert [("Ab c"[a:b]) for a, b in word_spans("Ab c")] == ["Ab", "c"]
    assert num_words("a b, c") == 3
    assert normalised("The  CAT, sat!") == "the cat sat"


def test_hand_worked_cut_leaves_one_blank():
    text = "A b c d e. F g h i j. K l m n o."
    assert cut(text, 11, 21) == "A b c d e. K l m n o."
    assert cut(text, 0, 10) == "F g h i j. K l m n o."
    assert cut(text, 22, 32) == "A b c d e. F g h i j."


@given(st.text(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_cut_never_grows_the_text(text, a, b):
    start, stop = sorted((min(a, len(text)), min(b, len(text))))
    assert len(cut(text, start, stop)) <= len(text) - (stop - start)
