"""Editing: programs over a pool are those over a corpus, the log says all, and `restore` is the way back."""

import gzip
import shutil
from itertools import islice

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Ledger, artefact
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.ingestion.edit_program import DropDoc, EditProgram, RemoveLines, Replace, program_table, text_key
from tamis.ingestion.lines import FrequentLines
from tamis.ingestion.pool import Pool
from tamis.ingestion.quality import Quality
from tamis.pipeline import cleaning, editing
from tamis.pipeline.curation import verify

TEXTS = {
    "a": "Menu\nThe harbour is quiet.\nFooter",
    "b": "Home | About\nBoats come in at ten.\n",
    "c": "Buy now!",
    "d": "Nothing to change here.",
    "é/7": "Ω first\nsecond Ω",
}


def write_pool(path, texts):
    path.write_bytes(b"".join(orjson.dumps({"id": i, "text": t, "tag": 1}) + b"\n" for i, t in texts.items()))
    return path


def write_programs(path, ops, keys=None):
    rows = [
        {"doc_id": i, "text_key": (keys or {}).get(i) or text_key(TEXTS.get(i, "")), "ops": o} for i, o in ops.items()
    ]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def read(folder, name="documents.jsonl"):
    rows = map(orjson.loads, (folder / "documents" / name).read_bytes().splitlines())
    return {row["_id"]: row["text"] for row in rows}


OPS = {
    "a": [{"op": "remove_lines", "start": 0, "stop": 0}, {"op": "remove_lines", "start": 2, "stop": 2}],
    "b": [{"op": "replace", "old": "ten", "new": "noon"}],
    "c": [{"op": "drop_doc"}],
    "é/7": [{"op": "replace", "old": "Ω", "new": "omega", "all": True}],
}


@pytest.fixture
def pool(tmp_path):
    return write_pool(tmp_path / "pool.jsonl", TEXTS)


def test_programs_change_what_they_say_and_nothing_else(tmp_path):
    out, pool = tmp_path / "out", tmp_path / "pool"
    pool.mkdir()
    write_pool(pool / "1.jsonl", {i: TEXTS[i] for i in "ab"})  # two files are two batches
    write_pool(pool / "2.jsonl", {i: text for i, text in TEXTS.items() if i not in "ab"})
    found = editing.edit(str(pool), out, write_programs(tmp_path / "p.jsonl", OPS), format="jsonl")
    assert read(out) == {
        "a": "The harbour is quiet.",
        "b": "Home | About\nBoats come in at noon.\n",
        "d": TEXTS["d"],
        "é/7": "omega first\nsecond omega",
    }
    assert found.counts["dropped_edit_program"] == 1
    assert found.figures["num_docs_edited"] == 3 and found.figures["num_operations_applied"] == 6
    assert found.figures["bytes_removed"] == 5 + 7 + 3 + 4 and found.figures["bytes_added"] == 4 + 10
    ledger = Ledger(out / "ledger")
    assert [ledger.why(i)[-1]["other_id"] for i in "abcd"] == ["edited", "edited", "edited", ""]
    assert ledger.why("c")[-1]["reason"] == "edit_program"
    rows = pq.read_table(out / "report" / "edits.parquet").to_pylist()
    assert {row["doc_id"]: row["row"] for row in rows} == {"a": 0, "b": 1, "c": 2, "é/7": 4}
    assert verify(out, deep=True) == []


@given(
    st.dictionaries(st.sampled_from(["x1", "x2", "x3", "x4"]), st.text("ab \n", min_size=1, max_size=30).filter(str.strip), min_size=1),
    st.data(),
)  # fmt: skip
@settings(max_examples=25)
def test_a_pool_is_edited_as_a_corpus_is_and_restored(tmp_path_factory, texts, data):
    folder = tmp_path_factory.mktemp("edit")
    pool = write_pool(folder / "pool.jsonl", texts)
    op = st.one_of(
        st.builds(RemoveLines, start=st.integers(0, 2), stop=st.integers(0, 2)),
        st.builds(Replace, old=st.sampled_from(["a", "b", "ab"]), new=st.sampled_from(["", "cc"]), all=st.booleans()),
        st.just(DropDoc()),
    )
    ops = data.draw(st.dictionaries(st.sampled_from(sorted(texts)), st.lists(op, max_size=3), min_size=1))
    corpus = Corpus.from_records({"doc_id": i, "text": t} for i, t in texts.items())
    programs = program_table(corpus, ops)
    method = EditProgram(max_dropped_frac=1.0, max_removed_frac=0.9)
    wanted = method.run(corpus, programs)
    with Pool.open([str(pool)], scratch=folder / "scratch") as opened:
        view = editing.EditedPool(opened, method, programs)
        decided = editing.edit_pool(view)
        made = view.take(np.flatnonzero(decided.kept), ["doc_id", "text"]).to_pylist()
    assert made == wanted.kept.table(["doc_id", "text"]).to_pylist()
    assert decided.tables["edits"].sort_by("doc_id").to_pylist() == wanted.log.sort_by("doc_id").to_pylist()
    left = {row["doc_id"]: row["text"] for row in made if row["text"].strip()}  # no reader takes a blank text
    if left:
        write_pool(pool, left)
        log = decided.tables["edits"].filter(pc.is_in(decided.tables["edits"]["doc_id"], pa.array(list(left))))
        with Pool.open([str(pool)], scratch=folder / "scratch") as opened:
            back = editing.RestoredPool(opened, log).take(np.arange(len(left)), ["doc_id", "text"]).to_pylist()
        assert {row["doc_id"]: row["text"] for row in back} == {i: texts[i] for i in left}


def test_what_a_program_may_not_do_is_told_and_changes_nothing(pool, tmp_path):
    ops = {
        "a": [{"op": "remove_lines", "start": 0, "stop": 9}],
        "b": [{"op": "eval", "code": "import os"}],
        "d": [{"op": "replace", "old": "Nothing", "new": "All"}],
        "z": [{"op": "drop_doc"}],
    }
    programs = write_programs(tmp_path / "p.jsonl", ops, keys={"d": "0" * 16})
    found = editing.edit(str(pool), tmp_path / "out", programs, format="jsonl")
    assert read(tmp_path / "out") == TEXTS
    assert found.figures["num_programs_refused"] == 4 and found.figures["num_docs_edited"] == 0
    notes = " ".join(found.notes)
    assert all(
        word in notes for word in ("line_out_of_range", "bad_program", "text_changed", "1 program(s) are for no")
    )
    ledger = Ledger(tmp_path / "out" / "ledger")
    assert ledger.why("a")[-1]["other_id"] == "refused: line_out_of_range"


def test_the_same_call_keeps_other_programs_make_anew_and_packing_does_not_matter(pool, tmp_path):
    programs = write_programs(tmp_path / "p.jsonl", OPS)
    first = editing.edit(str(pool), tmp_path / "out", programs)
    assert editing.edit(str(pool), tmp_path / "out", programs).status == "kept" and first.status == "made"
    editing.edit(str(pool), tmp_path / "again", programs, workers=3)
    assert artefact.hash_tree(tmp_path / "out") == artefact.hash_tree(tmp_path / "again")
    write_programs(programs, {"a": OPS["a"]})
    assert editing.edit(str(pool), tmp_path / "out", programs).status == "made"


def test_parquet_programs_may_hold_structs(pool, tmp_path):
    rows = [{"doc_id": "a", "text_key": text_key(TEXTS["a"]), "ops": OPS["a"] + [{"op": "replace", "old": "quiet", "new": "loud"}]}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    editing.edit(str(pool), tmp_path / "out", tmp_path / "p.parquet", format="jsonl")
    assert read(tmp_path / "out")["a"] == "The harbour is loud."


@pytest.mark.parametrize("format", ["jsonl", "jsonl.zst", "parquet", "hf"])
def test_restore_gives_the_texts_back_in_every_format(pool, tmp_path, format):
    editing.edit(str(pool), tmp_path / "out", write_programs(tmp_path / "p.jsonl", OPS), format=format)
    found = editing.restore(tmp_path / "out", tmp_path / "back", format="jsonl")
    assert read(tmp_path / "back") == {i: text for i, text in TEXTS.items() if i != "c"}
    assert found.counts == {"documents_read": 4, "documents": 4, "files": 1} | found.counts
    assert "rejected" not in found.counts and found.figures["num_docs_restored"] == 3
    assert found.notes == ("1 document(s) were dropped by clean and are not here: its input files have them.",)
    ledger = Ledger(tmp_path / "back" / "ledger")
    assert [ledger.why(i)[-1]["other_id"] for i in "abd"] == ["restored", "restored", ""]
    assert verify(tmp_path / "back", deep=True) == []
    assert editing.restore(tmp_path / "out", tmp_path / "back", format="jsonl").status == "kept"


def test_lines_that_were_cut_come_back(tmp_path):
    words = ["".join(chr(97 + int(digit)) for digit in str(n)) for n in range(40)]
    texts = {
        f"d{n}": f"Log in | Help\nPage on {word} and nothing else.\nAll rights reserved" for n, word in enumerate(words)
    }
    texts["only"] = "Log in | Help\nAll rights reserved"
    texts["bad"] = "Log in | Help\n" + "spam " * 400 + "\nAll rights reserved"
    pool = write_pool(tmp_path / "pool.jsonl", texts)
    lines = FrequentLines(min_docs=3, min_docs_frac=0.0, min_chars=10, min_words=2)
    found = cleaning.clean(str(pool), tmp_path / "out", Quality(), lines, format="jsonl")
    cut = read(tmp_path / "out")
    assert found.figures["num_spans_cut"] >= 80 and cut["d3"] != texts["d3"] and "bad" not in cut
    editing.restore(tmp_path / "out", tmp_path / "back", format="jsonl")
    assert read(tmp_path / "back") == {i: texts[i] for i in cut}


def test_what_cannot_be_restored_is_refused(pool, tmp_path):
    cleaning.clean(str(pool), tmp_path / "rules", Quality(preset="off"))
    with pytest.raises(UsageError, match="no text was changed"):
        editing.restore(tmp_path / "rules", tmp_path / "back")
    with pytest.raises(ArtefactError, match="no result of a step"):
        editing.restore(tmp_path, tmp_path / "back")
    editing.edit(str(pool), tmp_path / "out", write_programs(tmp_path / "p.jsonl", OPS), format="jsonl")
    shutil.copytree(tmp_path / "out", tmp_path / "hurt")
    file = tmp_path / "hurt" / "documents" / "documents.jsonl"
    file.write_bytes(file.read_bytes().replace(b"noon", b"nine"))
    with pytest.raises(ArtefactError, match=r"documents\.jsonl: content differs"):
        editing.restore(tmp_path / "hurt", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_text_that_is_blank_now_is_told_before_anything_is_written(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", {"a": " \nx", "b": "y"})
    row = {"doc_id": "a", "text_key": text_key(" \nx"), "ops": [{"op": "replace", "old": "x", "new": ""}]}
    (tmp_path / "p.jsonl").write_bytes(orjson.dumps(row))
    editing.edit(str(pool), tmp_path / "out", tmp_path / "p.jsonl", format="jsonl")
    with pytest.raises(DataError, match="blank"):
        editing.restore(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back" / "documents").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"doc_id": "a"}\n', "p.jsonl:1: no program"),
        (b"{", "p.jsonl:1: no program"),
        (b"", "none of 0 is for a document"),
        (b'{"doc_id": "zz", "text_key": "", "ops": []}', "'zz'"),
        (b'{"doc_id": "a", "text_key": "", "ops": []}\n' * 2, "2 programs for document 'a'"),
    ],
)
def test_programs_that_are_none_are_refused(pool, tmp_path, content, words):
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=words):
        editing.edit(str(pool), tmp_path / "out", tmp_path / "p.jsonl")
    assert not (tmp_path / "out" / "documents").exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"doc_id": ["a"], "ops": ["[]"]}, "no column 'text_key'"),
        ({"doc_id": ["a"], "text_key": [None], "ops": ["[]"]}, "row 0 is no program"),
        ({"doc_id": ["a"], "text_key": ["k"], "ops": [3]}, "row 0 is no program"),
        ({"doc_id": ["a"], "text_key": ["k"], "ops": [[1]]}, "row 0 is no program"),
    ],
)
def test_parquet_programs_that_are_none_are_refused(pool, tmp_path, table, words):
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=words):
        editing.edit(str(pool), tmp_path / "out", tmp_path / "p.parquet")


def test_programs_that_drop_too_much_stop_before_anything_is_written(pool, tmp_path):
    programs = write_programs(tmp_path / "p.jsonl", {i: [{"op": "drop_doc"}] for i in "abc"})
    with pytest.raises(DataError, match="drop 3 of 5"):
        editing.edit(str(pool), tmp_path / "out", programs)
    assert not (tmp_path / "out" / "documents").exists()
    method = EditProgram(max_dropped_frac=0.6)
    assert editing.edit(str(pool), tmp_path / "out", programs, method).counts["documents"] == 2


def test_real_texts_come_back_to_the_byte(shared, tmp_path):
    with gzip.open(shared / "tldr" / "corpus.jsonl.gz") as file:
        rows = [orjson.loads(line) for line in islice(file, 1500)]
    texts = {row["_id"]: row["text"] for row in rows}
    pool = write_pool(tmp_path / "pool.jsonl", texts)
    lines = []
    for number, (doc_id, text) in enumerate(texts.items()):
        word = max(text.split(), key=len)
        ops = [{"op": "remove_lines", "start": 0, "stop": number % 2}, {"op": "replace", "old": word, "new": "Ω", "all": True}]  # fmt: skip
        lines.append(orjson.dumps({"doc_id": doc_id, "text_key": text_key(text), "ops": ops}))
    (tmp_path / "p.jsonl").write_bytes(b"\n".join(lines))
    found = editing.edit(str(pool), tmp_path / "out", tmp_path / "p.jsonl")
    assert found.figures["num_docs_edited"] > 1000
    editing.restore(tmp_path / "out", tmp_path / "back", format="jsonl")
    assert read(tmp_path / "back") == texts
