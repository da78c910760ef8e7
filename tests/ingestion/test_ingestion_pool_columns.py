"""Compiled reading of JSON lines: it accepts what orjson accepts, gives what orjson gives, and else says so."""

import itertools
import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.ingestion import pool_kernels
from tamis.ingestion.pool_lines import Lines, parse_columns, parse_each
from tamis.ingestion.records import Fields, Record

FIELDS = Fields("_id", "text", "title", (), "")
WITHOUT_ID = Fields(None, "text", "title", (), "")


def block_of(*lines):
    sizes = np.array([len(line) for line in lines], np.int64)
    return Lines(list(lines), 1, np.cumsum(sizes + 1) - sizes - 1, sizes)


def compiled(*lines, fields=FIELDS):
    """Return rows of (id, title, text, empty) where compiled code read all lines, else None."""
    names = [name.encode() for name in (fields.text, fields.title, fields.doc_id) if name is not None]
    block = block_of(*lines)
    data = np.frombuffer(block.data, np.uint8)
    out = np.empty((len(names), len(data)), np.uint8)
    stops = np.cumsum([len(name) for name in names])
    num, offsets, blank = pool_kernels.line_columns(
        data, block.begins, block.sizes, np.frombuffer(b"".join(names), np.uint8), stops, out
    )
    if num < len(lines):
        return None
    columns = [
        [bytes(out[row, a:b]).decode() for a, b in itertools.pairwise(ends)]
        for row, ends in enumerate(offsets.tolist())
    ]
    texts, titles = columns[:2]
    ids = columns[2] if len(columns) == 3 else [None] * num
    found = parse_columns(block, fields)
    assert found is not None  # the way that the pool takes agrees
    assert (found.ids.to_pylist(), found.titles.to_pylist(), found.texts.to_pylist()) == (ids, titles, texts)
    assert found.empty.tolist() == [not t or t.isspace() for t in texts]
    assert all(flag or t.strip() for flag, t in zip(blank, texts, strict=True))
    return list(zip(ids, titles, texts, strict=True))


def test_hand_worked_lines():
    lines = (
        rb'{"_id": "a", "title": "One \"1\"", "text": "tab\t \\ \/ \b\f\n\r", "n": [1, -2.5, {"k": [true, null]}]}',
        rb' { "text" : "\u00fcber \ud83d\ude00 \u0041\u20ac" , "_id" : -12 , "more" : { } , "x" : [ ] } ' + b"\r",
        '{"t\\u0065xt": "żółw 漢字 😀", "_id": "b", "title": null}'.encode(),
    )
    assert compiled(*lines) == [
        ("a", 'One "1"', "tab\t \\ / \b\f\n\r"),
        ("-12", "", "über 😀 A€"),
        ("b", "", "żółw 漢字 😀"),
    ]
    assert compiled(b'{"text": "x", "_id": [1]}', fields=WITHOUT_ID) == [(None, "", "x")]
    texts = (b" ", b"", rb"\u3000", "é".encode(), rb"\u001c\n", b" x")
    assert parse_columns(block_of(*(b'{"text": "%s"}' % t for t in texts)), WITHOUT_ID).empty.tolist() == [
        True,
        True,
        True,
        False,
        True,
        False,
    ]


ODD = [
    b"",
    b"  ",
    b"[1]",
    b'{"_id": "a"}',
    b'{"text": "x"}',
    b'{"_id": "a", "text": 7}',
    b'{"_id": "a", "text": null}',
    b'{"_id": null, "text": "x"}',
    b'{"_id": "", "text": "x"}',
    b'{"_id": -0, "text": "x"}',
    b'{"_id": 1.0, "text": "x"}',
    b'{"_id": "' + b"i" * 129 + b'", "text": "x"}',
    b'{"_id": "tab\\tid", "text": "x"}',
    '{"_id": "\u00e9", "text": "x"}'.encode(),
    b'{"_id": "a", "text": "x", "text": "y"}',
    b'{"_id": "a", "text": "x", "_id": "b"}',
    b'{"_id": "a", "text": "x"',
    b'{"_id": "a", "text": "x"} {}',
    b'{"_id": "a", "text": "x",}',
    b'{"_id": "a" "text": "x"}',
    b'{"_id": "a", "text": "x\ty"}',
    b'{"_id": "a", "text": "\\x"}',
    b'{"_id": "a", "text": "\\ud800"}',
    b'{"_id": "a", "text": "\\udc00"}',
    b'{"_id": "a", "text": "\\udc00\\ud800"}',
    b'{"_id": "a", "text": "\\ud800\\u0041"}',
    b'{"_id": "a", "text": "\\u12g4"}',
    b'{"_id": "a", "text": "\xe9"}',
    b'{"_id": "a", "text": "\xc0\xaf"}',
    b'{"_id": "a", "text": "\xed\xa0\x80"}',
    b'{"_id": "a", "text": "\xf4\x90\x80\x80"}',
    b'{"_id": "a", "text": "\xe2\x82"}',
    b'\xef\xbb\xbf{"_id": "a", "text": "x"}',
    *(b'{"_id": "a", "text": "x", "n": %s}' % v for v in (b"01", b"1.", b".5", b"-", b"+1", b"1e5", b"9" * 19, b"NaN")),
    *(b'{"_id": "a", "text": "x", "n": %s}' % v for v in (b"tru", b"[1,]", b"[1 2]", b'{"k" 1}', b'{"k": 1,}', b"[}")),
    b'{"_id": "a", "text": "x", "n": ' + b"[" * 33 + b"]" * 33 + b"}",
]


@pytest.mark.parametrize("line", ODD)
def test_what_is_doubtful_goes_the_slow_way(line):
    good = b'{"_id": "good", "text": "x"}'
    assert compiled(good) == [("good", "", "x")]
    assert compiled(good, line) is None


def test_depth_and_numbers_within_bounds_are_plain():
    nested = (
        b'{"_id": "a", "text": "x", "n": ' + b"[" * 32 + b"]" * 32 + b', "m": [-1.25, 123456789012345678, 0, -0.5]}'
    )
    assert compiled(nested) == [("a", "", "x")]


def slow(*lines, fields):
    """What line by line makes of the lines; None where one is a reject or blank."""
    rows = [row for _, row in parse_each(block_of(*lines), fields)]
    if len(rows) < len(lines) or not all(isinstance(row, Record) for row in rows):
        return None
    return [(row.doc_id, row.title, row.text) for row in rows]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.fixed_dictionaries(
    {"_id": st.text(max_size=5) | st.integers(-5, 5) | VALUES, "text": st.text(max_size=9) | VALUES},
    optional={"title": st.text(max_size=4) | VALUES, "more": VALUES},
)
PLAIN = st.fixed_dictionaries(
    {"_id": st.text("abc-1 ", min_size=1, max_size=5), "text": st.text(max_size=20)},
    optional={"title": st.text(max_size=4) | st.none(), "more": st.lists(st.integers(-9, 9), max_size=3)},
)


@settings(max_examples=200, deadline=None)
@given(st.lists(RECORDS | PLAIN, min_size=1, max_size=3), st.booleans(), st.sampled_from([FIELDS, WITHOUT_ID]))
def test_records_are_those_of_line_by_line(records, ascii_only, fields):
    lines = [json.dumps(r, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for r in records]
    found = compiled(*lines, fields=fields)
    assert found is None or found == slow(*lines, fields=fields)


@settings(max_examples=100, deadline=None)
@given(st.lists(PLAIN, min_size=1, max_size=3), st.booleans())
def test_plain_records_are_read_by_compiled_code(records, ascii_only):
    lines = [json.dumps(r, ensure_ascii=ascii_only).encode() for r in records]
    assert compiled(*lines) == slow(*lines, fields=FIELDS) is not None


@settings(max_examples=400, deadline=None)
@given(
    RECORDS | PLAIN,
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from("rid"), st.binary(min_size=1, max_size=2)), max_size=3),
)
def test_damaged_bytes_are_never_taken_for_something_else(record, edits):
    line = bytearray(json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    for place, kind, data in edits:
        at = place % (len(line) + 1)
        line[at : at + (kind != "i")] = b"" if kind == "d" else data
    whole = bytes(line).replace(b"\n", b" ")
    found = compiled(whole)
    assert found is None or found == slow(whole, fields=FIELDS)
    if found is not None:
        orjson.loads(whole)
