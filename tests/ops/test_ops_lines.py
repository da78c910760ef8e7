"""Line hashes, runs, spans and cutting against plain Python."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.ops import lines as line_ops

MASK = (1 << 64) - 1
TEXT = st.text(st.sampled_from("aB9_ .-\t\r\n\né東\xa0"), max_size=30)


def slow_hash(line):
    h, kept = 0xCBF29CE484222325, False
    for byte in line.encode():
        if byte < 0x80:
            char = chr(byte).lower()
            if char.isdigit():
                char = "0"
            elif not (char.isalpha() or char == "_"):
                continue
            byte = ord(char)  # noqa: PLW2901
        h, kept = (h ^ byte) * 0x100000001B3 & MASK, True
    if not kept:
        return 0
    h ^= h >> 32
    h = h * 0xD6E8FEB86659FD93 & MASK
    return h ^ h >> 32


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_scan(texts):
    lines = line_ops.scan(texts)
    at = 0
    for row, text in enumerate(texts):
        data = text.encode()
        assert lines.first[row] == at
        for line in text.split("\n"):
            assert data[lines.starts[at] : lines.stops[at]].decode() == line
            assert lines.hashes[at] == slow_hash(line)
            assert lines.chars[at] == len(line.strip(" \t\r"))
            assert lines.blank[at] == (not line.strip(" \t\r"))
            at += 1
    assert lines.first[-1] == at == len(lines.hashes)
    np.testing.assert_array_equal(lines.rows(), np.repeat(range(len(texts)), np.diff(lines.first)))


def test_one_hash_for_digits_case_and_marks():
    one, other, third = line_ops.scan(["Copyright 2023 …", "(copyright 2024) …", "copyright 2024"]).hashes
    assert one == other != third
    assert line_ops.scan(["--- ***"]).hashes[0] == 0


def test_slices_and_nulls():
    array = pa.array(["x", "a\nb", None, "c"], pa.large_string()).slice(1, 3)
    lines = line_ops.scan(array)
    assert lines.first.tolist() == [0, 2, 3, 4]
    assert line_ops.scan(pa.array([], pa.large_string())).first.tolist() == [0]


def slow_runs(frequent, chars, blank, min_chars, min_run):
    marked = [False] * len(frequent)
    start = 0
    while start < len(frequent):
        stop = start
        while stop < len(frequent) and (frequent[stop] or blank[stop]):
            stop += 1
        members = [i for i in range(start, stop) if frequent[i]]
        if len(members) >= min_run:
            marked[members[0] : members[-1] + 1] = [True] * (members[-1] + 1 - members[0])
        else:
            for i in members:
                marked[i] = chars[i] >= min_chars
        start = stop + 1
    return marked


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["", "word", "a long line here"]), min_size=1, max_size=9), max_size=4), st.data()
)
def test_runs(documents, data):
    texts = ["\n".join(lines) for lines in documents]
    lines = line_ops.scan(texts)
    wanted = data.draw(st.lists(st.booleans(), min_size=len(lines.hashes), max_size=len(lines.hashes)))
    frequent = np.array(wanted, dtype=bool) & ~lines.blank
    min_run = data.draw(st.integers(2, 3))
    marked = line_ops.mark_runs(lines, frequent, min_chars=10, min_run=min_run)
    expected = []
    for start, stop in zip(lines.first, lines.first[1:], strict=False):
        part = slice(start, stop)
        expected += slow_runs(frequent[part], lines.chars[part], lines.blank[part], 10, min_run)
    assert marked.tolist() == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, max_size=5), st.data())
def test_cutting_lines(texts, data):
    lines = line_ops.scan(texts)
    flags = data.draw(st.lists(st.booleans(), min_size=len(lines.hashes), max_size=len(lines.hashes)))
    removed = np.array(flags, dtype=bool)
    spans, numbers = line_ops.spans_of(lines, removed)
    assert numbers.tolist() == np.flatnonzero(removed).tolist()
    expected, at = [], 0
    for text in texts:
        parts = text.split("\n")
        expected.append(
            "\n".join(line for line, gone in zip(parts, flags[at : at + len(parts)], strict=True) if not gone)
        )
        at += len(parts)
    for cut in (spans, line_ops.merged(spans)):
        assert line_ops.cut(texts, cut).to_pylist() == expected
        pieces = line_ops.excerpts(texts, cut).to_pylist()
        for row, start, stop, piece in zip(cut.rows, cut.starts, cut.stops, pieces, strict=True):
            assert texts[row].encode()[start:stop].decode() == piece
    joined = line_ops.merged(spans)
    assert ((joined.rows[1:] != joined.rows[:-1]) | (joined.starts[1:] > joined.stops[:-1])).all()


def test_flags():
    texts = [
        "Enable JavaScript to go on.\nShort one.\nOur privacy policy is here now\nThis is a sentence.\nand so on it goes...\n"
        + "x" * 21
    ]
    lines = line_ops.scan(texts)
    flags = line_ops.flags(texts, lines, ("javascript", "privacy policy"), min_words=3, max_word_chars=20)
    end, few, long, first, other = (
        line_ops.TERMINAL, line_ops.FEW_WORDS, line_ops.LONG_WORD, line_ops.FIRST_PHRASE, line_ops.OTHER_PHRASE,
    )  # fmt: skip
    assert flags.tolist() == [end | first, end | few, other, end, 0, few | long]
