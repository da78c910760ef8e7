"""Quality rules: reasons, presets, languages, per-source counts, C4's line rules and what they cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import RecipeError
from tamis.ingestion.c4 import C4Lines
from tamis.ingestion.quality import C4Documents, FineWebLines, GopherQuality, GopherRepetition, Quality
from tamis.ingestion.spans import restored
from tamis.ops import textstats

PROSE = [
    "The house that stands on the hill is the one we saw from the road.",
    "It was very old and nobody had lived there for a long time.",
    "We walked up to it with our friends on a fine day in the spring.",
    "The garden behind it was full of weeds and of flowers that had no name.",
    "My brother said that he would like to have such a garden.",
    "Later we heard that it had been sold to a family from the city.",
]
GERMAN = (
    "Das Haus auf dem Hügel ist sehr alt. Wir haben es von der Straße aus gesehen und sind dann nach Hause gegangen. "
)


def corpus_of(texts, sources=None):
    sources = sources or [""] * len(texts)
    pairs = zip(texts, sources, strict=True)
    return Corpus.from_records([{"doc_id": f"d{i}", "text": t, "source": s} for i, (t, s) in enumerate(pairs)])


def reasons(rules, text):
    return rules.judge([text]).all()[0]


def test_hand_worked():
    assert "top_2_gram" in reasons(GopherRepetition(), "a b a b a b c d")
    assert reasons(Quality(preset="web"), "one two three four five six seven eight")[0] == "too_few_words"


@pytest.mark.parametrize(
    ("rules", "text", "reason"),
    [
        (GopherQuality(), "", "too_few_words"),
        (GopherQuality(num_words=(1, 5)), "a b c d e f", "too_many_words"),
        (GopherQuality(num_words=(1, 99)), "a b c d", "short_words"),
        (GopherQuality(num_words=(1, 99)), "counterrevolutionary institutionalisation", "long_words"),
        (GopherQuality(num_words=(1, 99)), "#one #two three", "many_hash_marks"),
        (GopherQuality(num_words=(1, 99)), "read more... read more…", "many_ellipses"),
        (GopherQuality(num_words=(1, 99)), "- one\n• two", "bullet_lines"),
        (GopherQuality(num_words=(1, 99)), "read more...\nsee also…\nend", "ellipsis_lines"),
        (GopherQuality(num_words=(1, 99)), "1999 2000 2001 report", "few_alphabetic_words"),
        (GopherQuality(num_words=(1, 99)), "cheap shoes sale offer", "few_stop_words"),
        (GopherRepetition(), "home\nhome\nabout us", "duplicate_lines"),
        (GopherRepetition(), "x y\nz\n\nx y\nz\n\nw", "duplicate_paragraphs"),
        (GopherRepetition(), "the quick brown fox jumps " * 6, "duplicate_5_grams"),
        (FineWebLines(), "Home\nAbout\nContact", "few_terminal_lines"),
        (FineWebLines(), "Home.\nAbout.\nContact.", "short_lines"),
        (FineWebLines(), "Some line of text.\nSome line of text.", "repeated_line_chars"),
        (FineWebLines(), "a\nb\nc\nd", "many_line_ends"),
        (C4Documents(), "Lorem IPSUM dolor", "lorem_ipsum"),
        (C4Documents(), "if (x) { y }", "curly_braces"),
        (C4Documents(), "One. Two. Three. Four", "too_few_sentences"),
    ],
)
def test_each_rule(rules, text, reason):
    assert reason in reasons(rules, text)


def test_a_threshold_itself_passes():
    line = "abc de fgh"
    text = "\n".join([line] * 4 + [f"{c}bcdefghij" for c in "klmnop"])  # 3 of 10 lines repeat: not more than 0.3
    assert textstats.field(textstats.statistics([text]), "duplicate_line_frac")[0] == np.float32(0.3)
    assert "duplicate_lines" not in reasons(GopherRepetition(), text)
    assert "duplicate_lines" in reasons(GopherRepetition(), text + "\n" + line)


def test_english_rules_leave_other_languages_alone():
    german = " ".join(GERMAN for _ in range(4))
    assert "few_stop_words" not in reasons(GopherQuality(), german)
    assert "few_stop_words" in reasons(GopherQuality(), "cheap shoes sale offer " * 20)
    chinese = "我们的房子在山上这是一个很好的地方大家都喜欢" * 5
    assert not {"short_words", "top_2_gram", "duplicate_5_grams"} & set(reasons(Quality(preset="documents"), chinese))


def test_presets():
    text = "\n".join(PROSE)
    for preset in ("web", "documents", "code", "off"):
        assert reasons(Quality(preset=preset), text) == [], preset
    assert reasons(Quality(preset="off"), "") == []
    code = "def f(x):\n    return {x: 1}\n" + "\n".join(f"name_{i} = {{}}  # {chr(97 + i)} value" for i in range(12))
    assert reasons(Quality(preset="code"), code) == []
    assert "curly_braces" in reasons(Quality(preset="web"), code)
    for preset in ("documents", "code"):
        assert reasons(Quality(preset=preset), "")[0] == "too_few_words", preset
    assert {c.reason for c in Quality(preset="code").checks()} == {"too_few_words", "duplicate_10_grams"}
    replaced = Quality(preset="documents", words=GopherQuality(num_words=(200, 1000)))
    assert reasons(replaced, text) == ["too_few_words"]
    assert reasons(Quality(preset="off", documents=C4Documents(min_sentences=9)), text) == ["too_few_sentences"]


def test_settings_are_checked():
    with pytest.raises(RecipeError, match="preset"):
        Quality(preset="strict")
    with pytest.raises(RecipeError, match="max_duplicate_frac"):
        GopherRepetition(max_duplicate_frac=1.5)


def test_sift_names_every_rule_and_counts_by_source():
    bad = "#tag\n#tag\n#tag"
    corpus = corpus_of(["\n".join(PROSE), bad, bad, " ".join(PROSE)], ["a", "a", "b", "a"])
    result = Quality(preset="documents").sift(corpus, seed=0)
    assert result.kept.doc_ids.to_pylist() == ["d0", "d3"]
    row = result.dropped.to_pylist()[0]
    assert (row["doc_id"], row["text"], row["reason"]) == ("d1", bad, "too_few_words")
    assert set(row["reasons"]) >= {"too_few_words", "duplicate_lines", "duplicate_line_chars"}
    sources = {r["source"]: r for r in result.sources.to_pylist()}
    assert (sources["a"]["num_docs"], sources["a"]["num_dropped"], sources["a"]["is_flagged"]) == (3, 1, False)
    assert sources["b"]["drop_frac"] == 1.0 and sources["b"]["is_flagged"]
    rules = {(r["source"], r["reason"]): r["num_docs"] for r in result.rules.to_pylist()}
    assert rules["a", "too_few_words"] == rules["b", "too_few_words"] == 1
    empty = Quality().sift(corpus_of([]), seed=0)
    assert len(empty.kept) == len(empty.dropped) == len(empty.sources) == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*PROSE, "menu", "#x", "", GERMAN]), max_size=9), min_size=1, max_size=6),
    st.data(),
)
def test_each_document_is_judged_on_its_own(documents, data):
    texts = ["\n".join(lines) or "x" for lines in documents]
    rules = Quality(preset="web")
    whole = rules.judge(texts)
    for text, expected in zip(texts, whole.all(), strict=True):
        assert reasons(rules, text) == expected
    order = data.draw(st.permutations(range(len(texts))))
    np.testing.assert_array_equal(rules.judge([texts[i] for i in order]).failed, whole.failed[order])
    np.testing.assert_array_equal(rules.judge(texts, textstats.statistics(texts)).failed, whole.failed)
    assert whole.first() == [found[0] if found else "" for found in whole.all()]


def test_c4_lines_by_hand():
    text = (
        "Menu\n\nThe first sentence ends here.[1] It is the one.\nClick here\nThis site uses cookies and so on for you.\n\n"
        "[2] Another sentence stands in this line[edit]!\nand so on...[3]"
    )
    result = C4Lines(min_sentences=3).sift(corpus_of([text]), seed=0)
    left = "The first sentence ends here. It is the one.\n Another sentence stands in this line!"
    assert result.kept.table()["text"].to_pylist() == [left]
    assert result.spans["reason"].to_pylist() == [
        "line_of_few_words", "blank_line", "citation_mark", "line_of_few_words", "policy_line", "blank_line",
        "citation_mark", "citation_mark", "line_without_end_mark", "citation_mark",
    ]  # fmt: skip
    assert restored(result.kept, result.spans).table()["text"].to_pylist() == [text]
    dropped = C4Lines(min_sentences=4).sift(corpus_of([text]), seed=0).dropped.to_pylist()
    assert [(r["text"], r["reason"]) for r in dropped] == [(text, "too_few_sentences")]


@pytest.mark.parametrize(
    ("values", "text", "reason"),
    [
        ({}, "Lorem ipsum dolor sit.", "lorem_ipsum"),
        ({}, "A { b. " * 9, "curly_braces"),
        ({"min_sentences": 0}, "Menu\nHome", "empty_text"),
        ({"drop_lorem_ipsum": False, "min_sentences": 1}, "Lorem ipsum dolor sit.", None),
        ({"drop_braces": False, "min_sentences": 1}, "A { b c.", None),
        ({"need_terminal_mark": False, "min_sentences": 0}, "three words here", None),
        ({"remove_citations": False, "min_sentences": 1}, "Three words here [1].", None),
    ],
)
def test_c4_documents(values, text, reason):
    result = C4Lines(**values).sift(corpus_of([text]), seed=0)
    assert result.dropped["reason"].to_pylist() == ([reason] if reason else [])
    if not reason:
        assert result.kept.table()["text"].to_pylist() == [text]


def test_c4_lines_leave_other_languages_alone():
    german = "Startseite\n" + "\n".join(GERMAN.strip()[:-1] for _ in range(5))
    result = C4Lines().sift(corpus_of([german]), seed=0)
    assert result.kept.table()["text"].to_pylist() == [german]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["[1]", "[edit]", "[", "]", "\n", "\n\n", "é ", "A line of words. ", "menu ", "Use cookies", '"']), max_size=14),
        min_size=1,
        max_size=4,
    )
)  # fmt: skip
def test_c4_cuts_can_be_put_back_and_a_second_pass_finds_no_lines(documents):
    texts = ["".join(pieces) or "x" for pieces in documents]
    corpus = corpus_of(texts)
    method = C4Lines(min_sentences=0, drop_braces=False)
    result = method.sift(corpus, seed=0)
    back = restored(result.kept, result.spans)
    assert back.table().equals(corpus.select(corpus.rows_of(result.kept.doc_ids)).table())
    parts = [method.clean(b) for b in corpus.batches(batch_docs=1)]
    assert [t for p in parts for t in p.kept["text"].to_pylist()] == result.kept.table()["text"].to_pylist()
    again = method.sift(result.kept, seed=0)
    assert set(again.spans["reason"].to_pylist()) <= {"citation_mark"}  # "[[1]1]" leaves one behind
