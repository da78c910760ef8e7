"""Ledger.diff: what entered, what left, whose reason changed, whose score moved, between two runs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Ledger, artefact, ledger
from tamis.errors import DataError


def book(folder, **stages):
    """Write a ledger: stage name -> list of (doc_id, decision, reason, score)."""
    for number, (name, found) in enumerate(stages.items(), 1):
        records = []
        for doc_id, decision, reason, score in found:
            seq = sum(r["doc_id"] == doc_id for r in records)
            row = {"doc_id": doc_id, "stage": name, "method": "m", "decision": decision, "reason": reason}
            records.append({**row, "score": score, "seq": seq})
        with artefact.stage(folder / f"{number}-{name}", "ledger", settings={}, inputs={}, seed=1) as staging:
            ledger.write(staging, ledger.rows(records))
    return Ledger(folder)


def test_hand_worked_changes(tmp_path):
    before = book(
        tmp_path / "a",
        ingest=[(d, "kept", "", None) for d in ("same", "leaves", "moved", "gone", "enters", "other", "little")],
        select=[
            ("same", "kept", "", 0.5),
            ("leaves", "kept", "", 0.9),
            ("moved", "kept", "", 0.25),
            ("little", "kept", "", 0.25),
            ("enters", "dropped", "over_budget", 0.1),
            ("other", "dropped", "over_budget", 0.1),
            ("gone", "kept", "", 0.4),
        ],
        index=[("same", "indexed", "", None), ("other", "indexed", "", None)],  # dropped before: it stays out
    )
    after = book(
        tmp_path / "b",
        ingest=[
            *[(d, "kept", "", None) for d in ("same", "leaves", "moved", "enters", "little", "new")],
            ("other", "dropped", "empty_text", None),
        ],
        select=[
            ("same", "kept", "", 0.5),
            ("leaves", "dropped", "over_budget", 0.2),
            ("moved", "kept", "", 0.75),
            ("little", "kept", "", 0.3125),
            ("enters", "kept", "", 0.8),
            ("new", "kept", "", 1.0),
        ],
    )
    told = {
        r["doc_id"]: (r["change"], r["stage_before"], r["stage_after"], r["reason_before"], r["reason_after"])
        for r in before.diff(after, min_score_change=0.1).to_pylist()
    }
    assert told == {
        "leaves": ("left", "select", "select", "", "over_budget"),
        "gone": ("left", "select", "", "", ""),
        "enters": ("entered", "select", "select", "over_budget", ""),
        "new": ("entered", "", "select", "", ""),
        "other": ("reason_changed", "select", "ingest", "over_budget", "empty_text"),
        "moved": ("score_moved", "select", "select", "", ""),
    }
    scores = {r["doc_id"]: (r["score_before"], r["score_after"]) for r in before.diff(after).to_pylist()}
    assert scores["little"] == (0.25, 0.3125) and scores["gone"] == (0.4, None)


def test_an_id_that_came_twice_is_in_while_one_of_its_rows_is(tmp_path):
    twice = [("a", "kept", "", None), ("a", "dropped", "repeated_document", None)]
    assert len(book(tmp_path / "a", pool=twice).diff(book(tmp_path / "b", pool=[("a", "kept", "", None)]))) == 0


def test_a_ledger_without_stages_is_refused(tmp_path):
    with pytest.raises(DataError, match="no finished stage"):
        book(tmp_path / "a", pool=[("a", "kept", "", None)]).diff(Ledger(tmp_path / "nothing"))


FATES = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["", "short", "over_budget"]), min_size=1)


@settings(max_examples=12)
@given(FATES, FATES)
def test_it_is_the_slow_definition_and_its_mirror(tmp_path_factory, old, new):
    def made(fates):
        rows = [(d, "dropped" if reason else "kept", reason, None) for d, reason in fates.items()]
        return book(tmp_path_factory.mktemp("ledger"), pool=rows)

    expected = {}
    for doc_id in old.keys() | new.keys():
        was, is_now = old.get(doc_id) == "", new.get(doc_id) == ""
        if was != is_now:
            expected[doc_id] = "entered" if is_now else "left"
        elif not was and old.get(doc_id) != new.get(doc_id):
            expected[doc_id] = "reason_changed"
    before, after = made(old), made(new)
    assert {r["doc_id"]: r["change"] for r in before.diff(after).to_pylist()} == expected
    mirror = {"entered": "left", "left": "entered"}
    assert {r["doc_id"]: r["change"] for r in after.diff(before).to_pylist()} == {
        d: mirror.get(c, c) for d, c in expected.items()
    }
