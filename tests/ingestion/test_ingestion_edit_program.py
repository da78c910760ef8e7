"""Edit programs: what runs, what is refused, and that everything can be undone."""

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import DataError, UsageError
from tamis.ingestion.edit_program import (
    LOG_SCHEMA,
    DropDoc,
    EditProgram,
    RemoveLines,
    Replace,
    program_table,
    text_key,
    undo,
)
from tamis.ingestion.lines import FrequentLines

LOOSE = EditProgram(max_removed_frac=0.99, max_dropped_frac=1.0)


def corpus_of(*texts):
    return Corpus.from_records([{"doc_id": f"d{i}", "text": text} for i, text in enumerate(texts)])


def run(text, *ops, method=LOOSE):
    corpus = corpus_of(text)
    result = method.run(corpus, program_table(corpus, {"d0": ops}))
    return result.kept.table()["text"].to_pylist(), result.log.to_pylist()


def test_hand_worked():
    corpus = corpus_of("A\nmenu\nmenu\nB")
    result = LOOSE.run(corpus, program_table(corpus, {"d0": [RemoveLines(start=1, stop=2)]}))
    assert result.kept.table()["text"].to_pylist() == ["A\nB"]
    row = result.log.to_pylist()[0]
    assert (row["start"], row["stop"], row["old"], row["new"], row["status"]) == (2, 12, "menu\nmenu\n", "", "applied")
    assert undo(result.kept, result.log).table().equals(corpus.table())


@pytest.mark.parametrize(
    ("text", "ops", "left"),
    [
        ("a(b), c and a(b) d", [Replace(old="), c", new=") x")], "a(b) x and a(b) d"),
        ("aa b aa", [Replace(old="aa", new="", all=True)], " b "),
        ("one\ntwo\nthree", [Replace(old="three", new="3"), RemoveLines(start=0, stop=1)], "3"),
        ("one\ntwo\nthree", [Replace(old="two", new="2"), RemoveLines(start=1, stop=1)], "one\nthree"),
        ("one\ntwo\nthree", [RemoveLines(start=2, stop=2), RemoveLines(start=1, stop=2)], "one"),
        ("one\ntwo\nthree", [RemoveLines(start=2, stop=2), RemoveLines(start=0, stop=0)], "two"),
        ("Grüße für dich", [Replace(old="ü", new="ue", all=True)], "Grueße fuer dich"),
    ],
)
def test_what_runs(text, ops, left):
    assert run(text, *ops)[0] == [left]


@pytest.mark.parametrize(
    ("ops", "reason"),
    [
        ([RemoveLines(start=1, stop=3)], "line_out_of_range"),
        ([RemoveLines(start=2, stop=1)], "line_out_of_range"),
        ([Replace(old="", new="x")], "blank_old"),
        ([Replace(old=" ", new="x")], "blank_old"),
        ([Replace(old="zzz", new="x")], "old_not_found"),
        ([Replace(old="o", new="x")], "old_not_unique"),
        ([Replace(old="one", new="a\nb")], "line_end_in_replacement"),
        ([Replace(old="one\ntwo", new="x")], "line_end_in_replacement"),
        ([Replace(old="one", new="x"), Replace(old="ne", new="y")], "overlapping_edits"),
        ([RemoveLines(start=0, stop=2)], "program_too_destructive"),
        ([RemoveLines(start=0, stop=1)], "program_too_destructive"),
    ],
)
def test_what_is_refused_changes_nothing(ops, reason):
    method = EditProgram(max_removed_frac=0.4)
    texts, log = run("one\ntwo\nfour", RemoveLines(start=1, stop=1), *ops, method=method)
    assert texts == ["one\ntwo\nfour"]
    assert [row["reason"] for row in log if row["status"] == "refused"] == [reason]
    assert len(log) == len(ops) + 1
    assert {row["status"] for row in log} == {"refused", "not_run"}


def test_adjacent_copies_of_an_overlapping_string_are_not_unique():
    assert run("aaa", Replace(old="aa", new="b"))[1][0]["reason"] == "old_not_unique"


def test_bad_programs_and_unknown_documents():
    corpus = corpus_of("text")
    table = program_table(corpus, {"d0": [DropDoc()]})
    for bad in (
        '[{"op": "exec", "code": "1"}]',
        "[",
        '{"op": "drop_doc"}',
        '[{"op": "remove_lines", "start": "1", "stop": 1}]',
    ):
        result = LOOSE.run(corpus, table.set_column(2, "ops", pa.array([bad], pa.large_string())))
        assert result.log.to_pylist()[0]["reason"] == "bad_program", bad
        assert result.kept.table().equals(corpus.table())
    result = LOOSE.run(corpus, table.set_column(0, "doc_id", pa.array(["zz"], pa.large_string())))
    assert [(r["reason"], r["row"]) for r in result.log.to_pylist()] == [("unknown_document", -1)]
    with pytest.raises(DataError, match="two for document"):
        LOOSE.run(corpus, table.take([0, 0]))
    with pytest.raises(DataError, match="no column 'ops'"):
        LOOSE.run(corpus, table.drop_columns(["ops"]))
    with pytest.raises(DataError, match="no such document"):
        program_table(corpus, {"zz": []})


def test_programs_may_not_drop_most_of_a_corpus():
    corpus = corpus_of("a", "b", "c")
    table = program_table(corpus, {"d0": [DropDoc()], "d1": [DropDoc()]})
    with pytest.raises(DataError, match="2 of 3 documents"):
        EditProgram().run(corpus, table)
    result = EditProgram(max_dropped_frac=0.7).run(corpus, table)
    assert result.dropped["reason"].to_pylist() == ["edit_program"] * 2
    assert undo(result.kept, result.log, result.dropped).table().equals(corpus.table())
    assert undo(result.kept, result.log).doc_ids.to_pylist() == ["d2"]


def test_programs_from_a_file(tmp_path):
    corpus = corpus_of("one\ntwo")
    path = tmp_path / "programs.jsonl"
    record = {"doc_id": "d0", "text_key": text_key("one\ntwo"), "ops": [{"op": "remove_lines", "start": 0, "stop": 0}]}
    path.write_bytes(orjson.dumps(record) + b"\n\n")
    result = EditProgram(programs=str(path)).sift(corpus, seed=0)
    assert result.kept.table()["text"].to_pylist() == ["two"]
    path.write_text('{"doc_id": "d0"}\n')
    with pytest.raises(DataError, match=r"programs.jsonl:1"):
        EditProgram(programs=str(path)).sift(corpus, seed=0)
    with pytest.raises(DataError, match="cannot read"):
        EditProgram(programs=str(tmp_path / "none")).sift(corpus, seed=0)
    with pytest.raises(UsageError, match="no programs"):
        EditProgram().sift(corpus, seed=0)


LINE = st.text(st.sampled_from("abé \n"), min_size=1, max_size=24)
OPS = st.one_of(
    st.builds(DropDoc),
    st.builds(RemoveLines, start=st.integers(0, 4), stop=st.integers(0, 5)),
    st.builds(Replace, old=st.sampled_from(["a", "b", "é", "ab", "a b", ""]), new=st.sampled_from(["", "a", "xyz"]), all=st.booleans()),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=4), st.data())
def test_undo_gives_the_original_and_a_second_run_is_refused(texts, data):
    corpus = corpus_of(*texts)
    few = st.lists(OPS, max_size=3)
    programs = {f"d{i}": data.draw(few) for i in range(len(texts)) if data.draw(st.booleans())}
    table = program_table(corpus, programs)
    result = LOOSE.run(corpus, table)
    assert result.log.schema.equals(LOG_SCHEMA)
    assert undo(result.kept, result.log, result.dropped).table().equals(corpus.table())
    again = LOOSE.run(result.kept, table)
    assert again.kept.table().equals(result.kept.table())
    changed = [row for row in result.log.to_pylist() if row["key_before"] != row["key_after"]]
    if changed:
        with pytest.raises(DataError, match="not the one"):
            undo(corpus, result.log)


def test_rule_made_programs_give_what_the_rules_give():
    copyright_line = "Copyright 2024 Example Corporation, all rights reserved"
    texts = [f"{copyright_line}\nbody {c} of words\nhome\nabout\nmore {c}\n{copyright_line}" for c in "abcd"]
    corpus = corpus_of(*texts)
    rules = FrequentLines(min_docs=3, min_docs_frac=0.0, min_words=1).sift(corpus, seed=0)
    programs = {}
    for span in rules.spans.to_pylist():
        text = texts[int(span["doc_id"][1:])]
        start = text.encode()[: span["start"]].decode().count("\n") + span["text"].startswith("\n")
        removed = span["text"].strip("\n").count("\n")
        programs.setdefault(span["doc_id"], []).append(RemoveLines(start=start, stop=start + removed))
    result = LOOSE.run(corpus, program_table(corpus, programs))
    assert len(rules.spans) == 12
    assert result.kept.table().equals(rules.kept.table())
