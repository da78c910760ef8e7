"""Keyed randomness: hand-worked values, independence of order and streams, uniform in the statistical sense."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tamis.ops.hashing import STREAMS, content_hashes, draws, splitmix64, text_keys, uniform


def test_hand_worked_key_and_draw():
    key = text_keys(["the cat"])
    assert int(key[0]) == 0xAB243B8774E852F8
    base = splitmix64(np.uint64(7) ^ splitmix64(0))
    unit = (int(splitmix64(base ^ key)[0]) >> 11) + 0.5
    assert unit * 2.0**-53 == 0.8605714564940703


def slow_splitmix64(x: int) -> int:
    mask = (1 << 64) - 1
    z = (x + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_splitmix_equals_whole_number_arithmetic(values):
    assert splitmix64(np.array(values, dtype=np.uint64)).tolist() == [slow_splitmix64(v) for v in values]


@given(st.lists(st.text(max_size=20), min_size=2, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_a_draw_belongs_to_its_text_not_to_its_place(texts, random):
    shuffled = random.sample(texts, len(texts))
    before = dict(zip(texts, uniform(text_keys(texts), 3, "split"), strict=True))
    after = dict(zip(shuffled, uniform(text_keys(shuffled), 3, "split"), strict=True))
    assert before == after
    assert all(0 < u < 1 for u in before.values())


def test_streams_and_seeds_differ():
    keys = text_keys(str(n) for n in range(100))
    columns = [draws(keys, seed, stream) for seed in (0, 1, 2**63) for stream in STREAMS]
    assert len({column.tobytes() for column in columns}) == len(columns)


def test_uniform_has_the_mean_and_variance_of_the_uniform():
    units = uniform(text_keys(str(n) for n in range(20_000)), 0, "select")
    assert abs(units.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(units))
    assert abs(units.var() - 1 / 12) < 0.002


def test_content_hashes_are_sixteen_bytes_and_equal_for_equal_texts():
    found = content_hashes(["a", "b", "a"])
    assert found.dtype == "S16" and found[0] == found[2] != found[1]
