"""Winnowing, shared runs and who keeps them, against their definitions in plain Python."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.ops import winnow, winnow_kernels
from tamis.ops.bytes import character_tables, text_buffers, token_hashes


def slow_select(hashes, width):
    """Follow the definition window by window."""
    kept, found = -1, []
    for start in range(len(hashes) - width + 1) if len(hashes) >= width else [0] * bool(hashes):
        window = range(start, min(start + width, len(hashes)))
        least = min(hashes[at] for at in window)
        if kept < start or hashes[kept] != least:
            kept = max(at for at in window if hashes[at] == least)
            found.append(kept)
    return found


def select(hashes, width):
    out = np.empty(len(hashes) + 1, np.int64)
    return out[: winnow_kernels.select(np.array(hashes, np.uint64), width, out)].tolist()


def test_select_hand_worked():
    assert select([7, 4, 5, 4, 9, 9, 9], 3) == [1, 3, 6]  # [1] stays while 4 is least; then 3; of three 9 the last
    assert select([3, 1, 1], 5) == [2]
    assert select([], 3) == []


@settings(max_examples=200)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 9))
def test_select_is_the_definition(hashes, width):
    assert select(hashes, width) == slow_select(hashes, width)


WORDS = st.lists(st.sampled_from("abc"), max_size=60)


@settings(max_examples=200)
@given(WORDS, WORDS, st.lists(st.sampled_from("abcd"), min_size=9, max_size=40), st.integers(2, 5))
def test_samples_of_a_shared_run_cover_it(before, after, run, width):
    """The windows kept in one text, with hashes kept in the other, leave out less than a width at either end."""
    one, other = [*before, "x", *run, "y", *after], [*after, "z", *run, "u", *before]
    found = winnow.samples([" ".join(one), " ".join(other)], width)
    kept = set(found.hashes[found.rows == 1].tolist())
    first = len(before) + 1
    covered = set()
    for row, at, h in zip(found.rows.tolist(), found.positions.tolist(), found.hashes.tolist(), strict=True):
        if row == 0 and h in kept and first <= at <= first + len(run) - width:
            covered |= set(range(at - first, at - first + width))
    assert covered >= set(range(width - 1, len(run) - width + 1))
    assert covered  # 9 words are 2 * 5 - 1


def test_samples_of_short_and_odd_texts():
    texts = pa.array(["a b", None, "a b c", "", "... ! ...", "A, b; C"], pa.large_string())
    found = winnow.samples(texts, 3)
    assert (found.rows.tolist(), found.positions.tolist()) == ([2, 5], [0, 0])
    assert found.hashes[0] == found.hashes[1]  # case and marks aside
    assert len(winnow.samples(texts.slice(0, 2), 3).hashes) == 0
    sliced = winnow.samples(texts.slice(2), 3)
    assert (sliced.rows.tolist(), sliced.hashes.tolist()) == ([0, 3], found.hashes.tolist())


def test_samples_of_text_that_repeats_itself_stay_few():
    found = winnow.samples(["a " * 100_000, "a b " * 50_000], 50)
    assert np.bincount(found.rows).max() <= 2 * 100_000 / 50


def test_parts_are_the_whole():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.integers(50, size=300)) for _ in range(20)]
    whole = winnow.samples(texts, 5)
    parts = [winnow.samples(texts, 5, part=k, num_parts=3) for k in range(3)]
    assert min(len(p.hashes) for p in parts) > len(whole.hashes) / 5
    together = sorted(zip(*(np.concatenate(c).tolist() for c in zip(*parts, strict=True)), strict=True))
    assert together == sorted(zip(*(c.tolist() for c in whole), strict=True))


@given(st.lists(st.integers(0, 200), max_size=200))
def test_crowded_has_all_that_occur_twice(values):
    hashes = np.array(values, np.uint64) << np.uint64(20)
    found = winnow.crowded(hashes).tolist()
    assert found == sorted(set(found)) and len(found) <= len(values)
    assert {i for i, v in enumerate(values) if values.count(v) > 1} <= set(found)


def test_crowded_leaves_nearly_all_others_out():
    minima = np.random.default_rng(0).integers(1 << 58, size=100_000, dtype=np.uint64)  # small, as minima are
    assert len(winnow.crowded(minima)) < 15_000


def run_of(one, other, at, other_at, width):
    array = [np.array([x]) for x in (0, at, 1, other_at)]
    found = winnow.runs([" ".join(one), " ".join(other)], *array, width=width)
    columns = (found.starts, found.stops, found.other_starts)
    return [tuple(int(v) for v in row) for row in zip(*columns, strict=True)], found.num_unequal


def test_run_hand_worked():
    assert run_of([*"abcde"], [*"xBcDy"], 1, 1, 3) == ([(1, 4, 1)], 0)  # b c d
    assert run_of([*"abcde"], [*"xbcyd"], 1, 1, 3) == ([], 1)


@settings(max_examples=200)
@given(st.lists(st.sampled_from("aAbé東"), min_size=4, max_size=40), st.data())
def test_a_run_is_as_long_as_it_can_be(one, data):
    other = data.draw(st.lists(st.sampled_from("abÉ東"), min_size=4, max_size=40))
    width = data.draw(st.integers(1, 4))
    at, other_at = data.draw(st.integers(0, len(one) - width)), data.draw(st.integers(0, len(other) - width))
    lower, low = [w.lower() for w in one], [w.lower() for w in other]
    found, unequal = run_of(one, other, at, other_at, width)
    if lower[at : at + width] != low[other_at : other_at + width]:
        assert (found, unequal) == ([], 1)
        return
    start, stop, shift = at, at + width, other_at - at
    while start and start + shift and lower[start - 1] == low[start - 1 + shift]:
        start -= 1
    while stop < len(one) and stop + shift < len(other) and lower[stop] == low[stop + shift]:
        stop += 1
    assert (found, unequal) == ([(start, stop, start + shift)], 0)


def test_equal_hashes_are_not_equal_words():
    data, offsets = text_buffers(["cat dog", "cat cow", "CAT DOG", "cat dogs"])
    starts = np.arange(0, 10, 2)
    begins, ends = winnow_kernels.word_bytes(data, offsets, character_tables()[0], 8)
    entries = [np.array(x, np.int64) for x in ([1, 2, 3], [0, 0, 0], [0, 0, 0], [0, 0, 0])]
    found = np.empty((3, 4), np.int64)
    same = np.zeros(len(begins), np.uint64)  # one hash for all
    num, unequal = winnow_kernels.extend(data, (same, begins, ends), starts, character_tables()[1], *entries, 2, found)
    assert (num, unequal) == (1, 2) and found[0].tolist() == [1, 0, 2, 0]


def test_work_is_linear_in_texts_that_repeat_themselves():
    size = 400_000
    texts = ["a " * size, "a " * (size - 7)]
    samples = winnow.samples(texts, 50)
    member = samples.rows == 1
    first = np.full(member.sum(), samples.positions[0])
    rows = np.ones(member.sum(), np.int64)
    found = winnow.runs(texts, rows, samples.positions[member], rows - 1, first, width=50)
    assert len(found.entries) <= 2  # each sample alone would take 400,000 steps
    assert found.stops.max() - found.starts.min() >= size - 100


@given(st.lists(st.text(st.sampled_from("aB9_ .-\n\u0301é東ก🙂\xa0\ud7ff"), max_size=20), max_size=4))
def test_words_have_the_bytes_that_are_hashed(texts):
    hashes, starts = token_hashes(texts)
    data, offsets = text_buffers(texts)
    begins, ends = winnow_kernels.word_bytes(data, offsets, character_tables()[0], len(hashes))
    pieces = [bytes(data[a:b]).decode() for a, b in zip(begins, ends, strict=True)]
    again, single = token_hashes(pieces)
    assert again.tolist() == hashes.tolist() and np.all(np.diff(single) == 1)
    rows = np.repeat(np.arange(len(texts)), np.diff(starts))
    assert np.all(begins >= offsets[rows]) and np.all(ends <= offsets[rows + 1])


def test_bytes_of_runs():
    texts = ["Ünder the, old bridge.", "", "x", "東京 tower"]
    rows, starts, stops = np.array([0, 0, 3, 3]), np.array([0, 2, 0, 1]), np.array([2, 4, 1, 3])
    begins, ends = winnow.located(texts, rows, starts, stops)
    cut = [texts[r].encode()[a:b].decode() for r, a, b in zip(rows, begins, ends, strict=True)]
    assert cut == ["Ünder the", "old bridge", "東", "京 tower"]
    assert len(token_hashes(["東京 tower"])[0]) == 3


def settled(runs, num_texts, width, are_cut=True):
    return winnow.settle(np.array(runs, np.int64).reshape(-1, 5), num_texts, width=width, are_cut=are_cut).tolist()


def test_settle_hand_worked():
    first = [1, 10, 20, 0, 40]  # text 1 has lost its words 10 to 20: text 0 keeps them at 40
    assert settled([first, [2, 0, 30, 1, 0]], 3, 5) == [
        first,
        [2, 0, 10, 1, 0],
        [2, 10, 20, 0, 40],
        [2, 20, 30, 1, 20],
    ]
    assert settled([first, [2, 0, 30, 1, 0]], 3, 5, are_cut=False) == [first, [2, 0, 30, 1, 0]]
    # the run begins 3 words into what text 1 has lost
    assert settled([first, [2, 0, 15, 1, 13]], 3, 5) == [first, [2, 0, 7, 0, 43], [2, 7, 15, 1, 20]]
    # 4 of text 2's words stand where text 1 lost them, 5 where it did not
    assert settled([first, [2, 3, 12, 1, 5]], 3, 5) == [first, [2, 3, 8, 1, 5]]
    assert settled([first, [2, 3, 11, 1, 6]], 3, 5) == [first]  # 4 and 4: nobody keeps 5 in one piece
    assert settled([[3, 0, 9, 0, 0], [3, 2, 20, 1, 5], [3, 4, 12, 2, 0]], 4, 5) == [[3, 0, 9, 0, 0], [3, 2, 20, 1, 5]]
    assert settled([], 3, 5) == []


@settings(max_examples=200)
@given(st.integers(2, 5), st.integers(1, 4), st.data())
def test_pieces_are_kept_where_they_say_and_nothing_else_is_cut(num_texts, width, data):
    lengths = [data.draw(st.integers(width, 30)) for _ in range(num_texts)]
    runs = []
    for _ in range(data.draw(st.integers(0, 12))):
        member = data.draw(st.integers(1, num_texts - 1))
        other = data.draw(st.integers(0, member - 1))
        size = data.draw(st.integers(width, min(lengths[member], lengths[other])))
        start, there = (data.draw(st.integers(0, lengths[row] - size)) for row in (member, other))
        runs.append([member, start, start + size, other, there])
    for are_cut in (True, False):
        pieces = settled(runs, num_texts, width, are_cut)
        lost, allowed = ([set() for _ in lengths] for _ in range(2))
        for member, start, stop, other, _ in pieces:
            assert stop - start >= width and other < member
            lost[member] |= set(range(start, stop))
        for member, start, stop, _, _ in runs:
            allowed[member] |= set(range(start, stop))
        assert all(a <= b for a, b in zip(lost, allowed, strict=True))
        if not are_cut:
            assert lost == allowed
        for _, start, stop, other, there in pieces if are_cut else []:
            assert not lost[other] & set(range(there, there + stop - start))
        for a, b in pairwise(pieces):
            assert a[0] < b[0] or (a[0] == b[0] and a[1] < b[1] and a[2] < b[2])
        assert pieces == settled(runs[::-1], num_texts, width, are_cut)


def test_settle_grows():
    runs = [[1, 10 * k, 10 * k + 5, 0, 10 * k] for k in range(100)] + [[2, 0, 1000, 1, 0]]
    pieces = settled(runs, 3, 5)
    assert len(pieces) == 100 + 200
    assert sorted({row[3] for row in pieces[100:]}) == [0, 1]


@pytest.mark.parametrize("num_texts", [0, 1])
def test_nothing_shared(num_texts):
    none = np.zeros(0, np.int64)
    found = winnow.runs(["a b c"] * num_texts, none, none, none, none, width=3)
    assert len(found.entries) == 0 and found.num_unequal == 0
