"""The scanner of n-grams finds the tokens that `token_hashes` defines, whatever characters meet; two counts are two."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import UsageError
from tamis.ops.byte_kernels import mix
from tamis.ops.bytes import character_tables, text_buffers, token_hashes
from tamis.ops.ngram_kernels import scan_tokens, steps_of
from tamis.ops.ngrams import count_ngrams, count_ngrams_twice, count_words

# of every class, in one byte and in several; letters whose lower case has another length; a cut-off table's ends
CHARACTERS = "aZ09_ .-\t\x00\x7fé\u00a0\u2014\u3000漢かไ\U00020000\U0001f600\u212a\u0130\ufffd\U000e0001"


def scanned(text):
    data, offsets = text_buffers([text])
    classes, lowers = character_tables()
    out = np.empty(len(data) + 1, np.uint64)
    num = scan_tokens(data, offsets[0], offsets[1], classes, lowers, steps_of(classes, lowers), out)
    return [int(mix(h)) for h in out[:num]]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(CHARACTERS), max_size=12))
def test_scanned_tokens_are_the_tokens(text):
    assert scanned(text) == token_hashes([text], words_only=False)[0].tolist()
    assert count_words([text]).tolist() == [len(token_hashes([text], words_only=True)[0])]


def test_every_pair_of_characters_is_cut_where_it_should_be():
    texts = [a + b for a in CHARACTERS for b in CHARACTERS]
    hashes, starts = token_hashes(texts, words_only=False)
    assert [scanned(t) for t in texts] == [hashes[a:b].tolist() for a, b in itertools.pairwise(starts)]
    assert max(len(scanned(t)) for t in texts) == 2 and min(len(scanned(t)) for t in texts) == 0


@pytest.mark.parametrize("order", [1, 2])
def test_two_numbers_of_buckets_are_counted_in_one_pass(order):
    texts = ["the cat (of the house)", "", "é—漢字 x"]
    counts, others = count_ngrams_twice(texts, 10_000, 64, order)
    assert counts.tolist() == count_ngrams(texts, 10_000, order).tolist()
    assert others.tolist() == count_ngrams(texts, 64, order).tolist() and others.sum() == counts.sum() > 10
    assert len(count_ngrams_twice(texts, 64, 0, order)[1]) == 0
    with pytest.raises(UsageError, match="buckets"):
        count_ngrams_twice(texts, 64, 1 << 33, order)
