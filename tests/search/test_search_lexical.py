from itertools import pairwise

import bm25s
import numpy as np
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from tamis.search.lexical import QUERY_STOP_WORDS, Code, Grams, Neutral, Vocabulary, Words, weigh

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(
        [
            "The",
            "running",
            "a",
            "and",
            "İstanbul",
            "naïve",
            "e.g.",
            "x_1",
            "日本語",
            "don't",
            "5",
            "ﬁne",
            "no",
            "\u0301a",
        ]
    ),
    max_size=12,
).map(" ".join)


@given(st.lists(TEXTS, max_size=5))
def test_words_are_those_of_bm25s(texts):
    tokenised = bm25s.tokenize(
        texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False, return_ids=False
    )
    assert [Words().terms(text) for text in texts] == tokenised
    vocabulary = Vocabulary(Words())
    starts, codes = vocabulary.encode(texts)
    names = list(vocabulary.terms)
    assert [[names[c] for c in codes[a:b]] for a, b in pairwise(starts)] == tokenised


@pytest.mark.parametrize(
    "analyser",
    [Words(stemmer=None, stop_words="german"), Code(), Grams(), Neutral(), Grams(num_chars=3, stop_words=None)],
)
@given(texts=st.lists(TEXTS, max_size=4))
def test_batches_give_the_terms_of_each_text(analyser, texts):
    vocabulary, names = Vocabulary(analyser), []
    for batch in (texts, texts[::-1]):
        starts, codes = vocabulary.encode(batch)
        names = list(vocabulary.terms)
        for row, text in enumerate(batch):
            assert [names[c] for c in codes[starts[row] : starts[row + 1]]] == analyser.terms(text)


@given(TEXTS)
def test_spans_point_at_their_words(text):
    for start, stop, terms in Code(stemmer=None).spans(text):
        assert terms == Code(stemmer=None).expand(text[start:stop])


def test_identifiers_keep_the_whole_and_gain_their_parts():
    code = Code(stemmer=None)
    assert code.terms("parseHTTPReply_2 of the_file MAX v2 plain Title") == [
        *("parsehttpreply_2", "parse", "http", "reply", "the_file", "file", "max"),
        *("v2", "plain", "title"),
    ]
    assert code.terms("x1y22 HTTPServer") == ["x1y22", "22", "httpserver", "http", "server"]


def test_grams_mark_the_ends_of_words():
    assert Grams().terms("the cat ab") == ["_cat", "cat_", "_ab_"]
    assert Grams(num_chars=8).terms("cat") == ["_cat_"]


def test_neutral_gives_characters_and_pairs_where_there_are_no_blanks():
    assert Neutral().terms("Ein C 我爱你 café") == ["ein", "c", "我", "爱", "你", "我爱", "爱你", "café"]


def test_query_stop_words_go_while_something_remains():
    asking = Words(query_stop_words=True, stemmer=None)
    assert asking.query_terms("How do I rotate keys") == ["rotate", "keys"]
    assert asking.query_terms("how do you do") == ["how", "do", "you", "do"]
    assert asking.terms("how do") == ["how", "do"]
    assert "rotate" not in QUERY_STOP_WORDS


def test_weigh_counts_repeats_and_leaves_out_the_unknown():
    starts, terms, weights = weigh([["b", "a", "b", "x"], [], ["x"]], {"a": 0, "b": 1})
    assert (starts.tolist(), terms.tolist(), weights.tolist()) == ([0, 2, 2, 2], [0, 1], [1.0, 2.0])
    assert terms.dtype == np.int64
