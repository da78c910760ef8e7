"""Statistics of documents against their definition in plain Python, and the worked figures."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tamis.ops import bytes as byte_ops
from tamis.ops import textstats
from tamis.ops.textstats import FIELDS, STOP_WORDS, field, statistics

CLASSES, LOWERS = byte_ops.character_tables()
TERMINAL = set("!\"'.?\u2019\u201d\u2026\u3002\uff01\uff1f\u061f\u06d4\u0964")
CLOSING = set("\"')]\u2019\u201d")
PIECES = st.sampled_from(
    [
        "a",
        "b",
        "The ",
        "to ",
        "of ",
        " ",
        "\n",
        "\n\n",
        ".",
        "...",
        "…",
        "!",
        "?",
        '"',
        "#",
        "- ",
        "•",
        "•x\n",
        "{",
        "1",
        "_",
        "é",
        "東",
        "京",
        "\t",
        "\r\n",
        "\xa0",
        "Lorem Ipsum",
        "x y z x y z x y z x y z",
        "。",
        "a b c d e f g h i j k\n",
        "😀",
    ]
)


def class_of(char):
    code = ord(char)
    if code < 0x10000:
        return int(CLASSES[code])
    return 3 if 0x20000 <= code <= 0x3FFFF else 2 if 0x1F000 <= code <= 0x1FAFF else 1


def slow_words(text):
    words, last = [], 0
    for char in text:
        kind = class_of(char)
        if kind == 3 or (kind == 1 and last != 1):
            words.append("")
        if kind in (1, 3):
            words[-1] += char
        last = kind
    return words


def lowered(word):
    return "".join(chr(LOWERS[ord(c)]) if ord(c) < 0x10000 else c for c in word)


def slow_sentences(text):
    count, open_mark = 0, False
    for char in text:
        kind = class_of(char)
        if kind == 0 and open_mark:
            count, open_mark = count + 1, False
        elif char in ".!?":
            open_mark = True
        elif char in "\u3002\uff01\uff1f\u0964\u06d4\u061f":
            count, open_mark = count + 1, False
        elif char not in CLOSING:
            open_mark = False
    return count + open_mark


def repeats(items, size):
    seen, number, chars = set(), 0, 0
    for item in items:
        if item in seen:
            number, chars = number + 1, chars + size(item)
        seen.add(item)
    return number, chars


def slow(text):
    words = slow_words(text)
    lowers = [lowered(w) for w in words]
    raw = text.split("\n")
    lines = [x.strip(" \t\r") for x in raw]
    paragraphs, current = [], []
    for line in [*lines, ""]:
        if line:
            current.append(line)
        elif current:
            paragraphs.append(tuple(current))
            current = []
    lines = [x for x in lines if x]
    num_words, num_lines = max(len(words), 1), max(len(lines), 1)
    line_chars = max(sum(map(len, lines)), 1)
    out = dict.fromkeys(FIELDS, 0.0)
    out["chars"], out["words"] = len(text), len(words)
    out["spaceless_words"] = sum(class_of(w[0]) == 3 for w in words)
    out["mean_word_chars"] = sum(map(len, words)) / num_words
    out["hashes_per_word"] = text.count("#") / num_words
    out["ellipses_per_word"] = (text.count("…") + len(re.findall(r"\.{3,}", text))) / num_words
    out["alphabetic_word_frac"] = (
        sum(any((c.isascii() and c.isalpha()) or c > "\x7f" for c in w) for w in words) / num_words
    )
    out["stop_words"] = sum(w in lowers for w in STOP_WORDS)
    out["lines"] = len(lines)
    out["bullet_line_frac"] = sum(x[0] in "•-" for x in lines) / num_lines
    out["ellipsis_line_frac"] = sum(x.endswith(("...", "…")) for x in lines) / num_lines
    out["terminal_line_frac"] = sum(x[-1] in TERMINAL for x in lines) / num_lines
    out["short_line_frac"] = sum(len(x) <= 30 for x in lines) / num_lines
    out["line_ends_per_word"] = text.count("\n") / num_words
    number, chars = repeats(lines, len)
    out["duplicate_line_frac"], out["duplicate_line_char_frac"] = number / num_lines, chars / line_chars
    number, chars = repeats(paragraphs, lambda p: sum(map(len, p)))
    out["duplicate_paragraph_frac"] = number / max(len(paragraphs), 1)
    out["duplicate_paragraph_char_frac"] = chars / line_chars
    for n in (2, 3, 4):
        grams = Counter(tuple(lowers[i : i + n]) for i in range(len(lowers) - n + 1))
        most = max(grams.values(), default=0)
        if most > 1:
            size = max(sum(map(len, g)) + n - 1 for g, c in grams.items() if c == most)
            out[f"top_{n}_gram_char_frac"] = min(1.0, most * size / len(text))
    for n in range(5, 11):
        seen, at, total = set(), 0, 0
        while at + n <= len(lowers):
            gram = tuple(lowers[at : at + n])
            if gram in seen:
                total += sum(map(len, gram))
                at += n
            else:
                seen.add(gram)
                at += 1
        out[f"duplicate_{n}_gram_char_frac"] = total / max(len(text), 1)
    out["sentences"], out["braces"] = slow_sentences(text), text.count("{")
    out["lorem_ipsum"] = float("lorem ipsum" in text.lower())
    return np.array([out[name] for name in FIELDS], dtype=np.float32)


def test_hand_worked_top_2_gram():
    values = statistics(["a b a b a b c d"])
    assert field(values, "top_2_gram_char_frac")[0] == np.float32(0.6)
    assert field(values, "words")[0] == 8
    assert field(values, "mean_word_chars")[0] == 1


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=40).map("".join), min_size=1, max_size=4))
@example(["the cat. " * 30, "", "a\n" * 9, "ab cd ef gh ij kl " * 12, "..." * 4 + "\n…", "x\n\nx\n\nx y\n\nx y"])
@example(["•", "•x\n-\n", 'A." b', "東京。タワー"])
def test_against_the_definition(texts):
    found = statistics(texts)
    for text, row in zip(texts, found, strict=True):
        expected = slow(text)
        wrong = [(n, a, b) for n, a, b in zip(FIELDS, row, expected, strict=True) if not np.isclose(a, b, rtol=1e-6)]
        assert not wrong, text


def test_row_order_slices_and_nulls():
    texts = ["the cat sat. " * n + "x\n" * n for n in range(40)]
    whole = statistics(texts)
    np.testing.assert_array_equal(statistics(texts[::-1]), whole[::-1])
    array = pa.array(["odd", *texts, None], pa.large_string())
    np.testing.assert_array_equal(statistics(array.slice(1, 40)), whole)
    np.testing.assert_array_equal(statistics(array)[-1], statistics([""])[0])
    assert not statistics([""]).any()
    assert statistics([]).shape == (0, len(FIELDS))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["ab", "c", "a longer line of text", "", "x y"]), min_size=1, max_size=12), st.data())
def test_a_further_copy_of_a_line_never_lowers_the_duplicate_shares(lines, data):
    more = [*lines, data.draw(st.sampled_from(lines))]
    before, after = statistics(["\n".join(lines), "\n".join(more)])
    for name in ("duplicate_line_frac", "duplicate_line_char_frac"):
        assert after[FIELDS.index(name)] >= before[FIELDS.index(name)]


@pytest.mark.parametrize("unit", ["a ", "a\n", "the cat sat on the mat ", "東", ". ", "\n"])
def test_one_long_document(unit):
    text = unit * 60_000
    values = textstats.table([text, "short"])
    assert values["chars"][0].as_py() == len(text)
    assert values["chars"][1].as_py() == 5
