"""What is printed: control characters shown, not obeyed; tables and snippets that fit."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tamis.cli import show

HOSTILE = "a\x1b]0;title\x07\x1b[31mred\x9b2J\u202egnp\r\n\tz\ud800"


def test_control_characters_become_escapes():
    assert show.safe("plain é 日本") == "plain é 日本"
    assert show.safe("\x1b[1m\n\x9b") == "\\x1b[1m\\n\\x9b"
    assert show.safe("\u202e\ud800") == "\\u202e\\ud800"
    assert show.prose(" two\n\n words\x1b ") == "two words\\x1b"


@given(st.text())
@example(HOSTILE)
def test_safe_text_is_printable(text):
    assert show.safe(text).isprintable()
    assert show.prose(text).isprintable()
    assert all(line.isprintable() for line in show.marked(text, [(0, len(text) // 2)], 20))


@given(st.text())
@example(HOSTILE)
def test_json_holds_the_text_and_no_steering_character(text):
    printed = show._json({"text": text})
    assert json.loads(printed)["text"] == text
    assert not any(ord(c) < 32 and c != "\n" for c in printed)
    assert not set(printed) & set("\x7f\x9b\x9d\u202e\u2066\u2028")


@given(st.lists(st.text("abc日", min_size=1, max_size=12), min_size=1), st.integers(1, 30))
def test_wrapping_keeps_every_word_and_the_width(words, columns):
    lines = show.wrap(" ".join(words), columns)
    assert " ".join(lines).split(" ") == words
    assert all(show.cells(line) <= columns or " " not in line for line in lines)


def test_cells_counts_columns_of_a_terminal():
    assert [show.cells(x) for x in ("abc", "日本", "e\u0301", "\x01a\x02", "")] == [3, 4, 1, 1, 0]


def test_matches_stand_between_asterisks_without_a_terminal():
    assert show.marked("how to\nrotate  keys", [(7, 13), (15, 19)]) == ["how to *rotate* *keys*"]
    assert show.marked("one two three", [(4, 7)], 8) == ["one *two*", "three"]  # the marks take no room on a terminal


def test_table_is_aligned_and_escapes(capsys):
    show.table(("name", "n"), [("日本", "1"), ("a\x1b", "22")], right=(1,))
    assert capsys.readouterr().out.splitlines() == ["name    n", "-----  --", "日本    1", "a\\x1b  22"]


def test_table_wraps_its_last_column_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(show, "width", lambda: 40)
    show.table(("stage", "what"), [("ingest", "twelve documents from three files and a half")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == ["ingest  twelve documents from three", "        files and a half"]
    assert all(len(line) <= 40 for line in lines)


@pytest.mark.parametrize(
    ("json_mode", "quiet", "expected"), [(True, False, "1\n"), (False, True, "a\tb\n"), (False, False, "h\n")]
)
def test_emit_prints_one_of_three(capsys, json_mode, quiet, expected):
    show.emit(1, json=json_mode, quiet=quiet, ids=["a\tb"], human=lambda: show.out("h"))
    assert capsys.readouterr().out == expected


def test_progress_is_off_without_a_terminal(capsys):
    with show.progress(True) as advance:
        assert advance is None
    assert capsys.readouterr().err == ""
