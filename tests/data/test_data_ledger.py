"""Ledger: every document that went in answers, stage by stage, and decisions add up."""

import pytest

from tamis.data import Ledger, artefact, ledger
from tamis.errors import ArtefactError, DataError


def put(folder, name, records, seed=1):
    with artefact.stage(folder / name, "ledger", settings={}, inputs={}, seed=seed) as staging:
        ledger.write(staging, ledger.rows(records))
    return artefact.read_manifest(folder / name)


def decision(doc_id, stage, choice, **more):
    return {"doc_id": doc_id, "stage": stage, "method": "m", "decision": choice, **more}


def test_hand_worked_four_inputs(tmp_path):
    put(
        tmp_path,
        "1-ingest",
        [
            decision("line 2", "ingest", "rejected", reason="invalid_json", other_id="docs.jsonl:2"),
            decision("copy", "ingest", "dropped", reason="exact_copy", other_id="kept"),
            decision("short", "ingest", "dropped", reason="too_few_words", score=31, threshold=50),
            decision("kept", "ingest", "changed", reason="whitespace", seq=1),
            decision("kept", "ingest", "kept", seq=0),
        ],
    )
    put(tmp_path, "10-select", [decision("kept", "select", "kept", score=0.75)])
    put(tmp_path, "2-dedup", [decision("kept", "dedup", "kept")])
    put(tmp_path, "notes", [])
    book = Ledger(tmp_path)
    assert [p.name for p in book.stages()] == ["notes", "1-ingest", "2-dedup", "10-select"]
    told = [(d["stage"], d["decision"], d["score"]) for d in book.why("kept")]
    assert told == [
        ("ingest", "kept", None),
        ("ingest", "changed", None),
        ("dedup", "kept", None),
        ("select", "kept", 0.75),
    ]
    short = book.why("short")[0]
    assert (short["reason"], short["score"], short["threshold"]) == ("too_few_words", 31.0, 50.0)
    assert book.why("line 2")[0]["other_id"] == "docs.jsonl:2"
    assert book.counts()["ingest", "dropped", "exact_copy"] == 1
    assert sum(n for (stage, _, _), n in book.counts().items() if stage == "ingest") == 5


def test_every_id_answers_and_order_does_not_matter(tmp_path):
    records = [
        decision(f"d{i}", "s", "kept" if i % 3 else "dropped", reason="r" if i % 3 == 0 else "") for i in range(500)
    ]
    files = put(tmp_path / "a", "1-s", records).files
    assert put(tmp_path / "b", "1-s", records[::-1]).files == files
    assert len(files) == 16
    book = Ledger(tmp_path / "a")
    assert all(len(book.why(r["doc_id"])) == 1 for r in records[::25])
    assert book.counts() == {("s", "dropped", "r"): 167, ("s", "kept", ""): 333}
    assert artefact.read_manifest(tmp_path / "a" / "1-s").counts == {"decisions": 500}


def test_unfinished_stages_are_not_counted(tmp_path):
    put(tmp_path, "1-s", [decision("a", "s", "kept")])
    put(tmp_path, "2-t", [decision("a", "t", "kept")])
    (tmp_path / "2-t").rename(tmp_path / ".2-t.partial")  # killed between the manifest and the rename
    (tmp_path / "2-t").mkdir()
    assert Ledger(tmp_path).counts() == {("s", "kept", ""): 1}


def test_unknown_ids_and_incomplete_rows_are_refused(tmp_path):
    put(tmp_path, "1-s", [decision("a", "s", "kept")])
    for unknown in ("A", "b"):
        with pytest.raises(DataError, match=f"no document '{unknown}'"):
            Ledger(tmp_path).why(unknown)
    with pytest.raises(DataError, match="document "):
        Ledger(tmp_path).why("\udcff")
    with pytest.raises(DataError, match="ledger: 1 rows have no decision"):
        ledger.rows([{"doc_id": "a", "stage": "s", "method": "m"}])
    with pytest.raises(DataError, match="ledger: "):
        ledger.rows([decision("a", "s", "kept", score="high")])
    assert ledger.empty().schema == ledger.LEDGER_SCHEMA


def test_a_deleted_or_damaged_part_is_noticed(tmp_path):
    manifest = put(tmp_path, "1-s", [decision("a", "s", "kept")])
    part = tmp_path / "1-s" / next(iter(manifest.files))
    part.write_bytes(part.read_bytes()[:-20])
    for read in (lambda: Ledger(tmp_path).why("a"), lambda: Ledger(tmp_path).counts()):
        with pytest.raises(ArtefactError, match="damaged"):
            read()
    part.unlink()
    assert artefact.problems(tmp_path / "1-s", manifest, deep=False) == [f"{part}: missing"]


def test_a_streamed_ledger_has_the_bytes_of_one_written_at_once(tmp_path, monkeypatch):
    table = ledger.rows(
        {"doc_id": f"d{n % 50}", "stage": "s", "method": "m", "decision": "kept", "seq": n // 50} for n in range(200)
    )
    trees = []
    for spill_rows, step in ((1 << 18, 200), (30, 7)):
        monkeypatch.setattr(ledger, "_SPILL_ROWS", spill_rows)
        folder = tmp_path / str(spill_rows)
        stage = artefact.stage(folder, "ledger", settings={}, inputs={}, seed=0)
        with stage as staging, ledger.LedgerWriter(staging) as writer:
            for start in range(0, len(table), step):
                writer.append(table.slice(start, step))
        trees.append(artefact.hash_tree(folder))
    assert trees[0] == trees[1]
    assert len(trees[0]) > 10
