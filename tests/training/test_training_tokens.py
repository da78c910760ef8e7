"""Token arrays: flat ids, cuts, padding, and the file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_models import static

from tamis.data import artefact
from tamis.training.tokens import Tokens, concat

rows = st.lists(st.lists(st.integers(0, 99), max_size=6).map(lambda r: np.array(r, np.int32)), max_size=8)


def test_tokens_of_texts_by_hand():
    tokenizer = static().tokenizer
    tokenizer.enable_truncation(1)  # ours has none of it
    made = Tokens.of(tokenizer, ["a b", "", "c ? z"], prompt="b ", special=False)
    assert made.ids.tolist() == [2, 1, 2, 2, 2, 3, 0, 26]
    assert made.offsets.tolist() == [0, 3, 4, 8]
    assert made.lengths.tolist() == [3, 1, 4]
    cut = Tokens.of(tokenizer, ["a b c", "d"], max_tokens=2, special=False)
    assert cut.ids.tolist() == [1, 2, 4]
    assert tokenizer.truncation["max_length"] == 1
    assert len(Tokens.of(tokenizer, [], special=False)) == 0


def test_padding_by_hand():
    made = Tokens.from_rows([np.array([5, 6]), np.array([], np.int32), np.array([7])])
    ids, mask = made.padded(9)
    assert ids.tolist() == [[5, 6], [9, 9], [7, 9]]
    assert mask.tolist() == [[1, 1], [0, 0], [1, 0]]
    ids, mask = Tokens.from_rows([np.array([], np.int32)]).padded(9)
    assert ids.tolist() == [[9]] and mask.tolist() == [[0]]


@given(rows, st.randoms())
def test_take_and_concat_are_those_of_lists(given_rows, random):
    made = Tokens.from_rows(given_rows)
    order = [random.randrange(len(given_rows)) for _ in range(5)] if given_rows else []
    taken = made.take(np.array(order, np.int64))
    assert taken.ids.tolist() == [i for row in order for i in given_rows[row]]
    assert taken.lengths.tolist() == [len(given_rows[row]) for row in order]
    both = concat([made, taken])
    assert both.ids.tolist() == made.ids.tolist() + taken.ids.tolist()
    assert both.lengths.tolist() == made.lengths.tolist() + taken.lengths.tolist()


@pytest.mark.parametrize("num", [0, 1, 5000])
def test_saved_tokens_are_read_back(tmp_path, num):
    made = Tokens.from_rows([np.arange(i % 7, dtype=np.int32) for i in range(num)])
    with artefact.stage(tmp_path / "tokens", "tokens", settings={}, inputs={}, seed=0) as staging:
        made.save(staging)
    found = Tokens.load(tmp_path / "tokens")
    assert np.array_equal(found.ids, made.ids) and np.array_equal(found.offsets, made.offsets)
    assert found.ids.dtype == np.int32 and found.offsets.dtype == np.int64
