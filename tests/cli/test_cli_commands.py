"""Every command in this process: what it prints in each mode, how it ends, what it says when it refuses."""

import json
import os
import shutil

import pytest

from tamis.data import lock
from tamis.errors import Interrupted

COMMANDS = (
    *("build", "search", "similar", "evaluate", "compare", "why", "verify", "check", "doctor", "demo"),
    *("select", "mix", "dedup", "clean", "restore", "decontaminate", "audit", "diff"),
)


@pytest.fixture
def copied(engine, tmp_path):
    """A copy of the engine that a test may harm."""
    return shutil.copytree(engine, tmp_path / "engine")


@pytest.fixture
def judged(engine):
    return (
        "--qrels",
        engine / "collection" / "qrels" / "dev.tsv",
        "--queries",
        engine / "collection" / "queries.jsonl",
    )


def test_build_again_keeps_everything_and_ends_in_one_line(tamis, docs, engine):
    code, out, err = tamis("build", docs, "-o", engine)
    assert (code, err) == (0, "")
    assert out.count("kept") == 9
    last = out.splitlines()[-1]
    assert last.startswith(f"{engine}: 60 documents, 0 stages made, 8 kept")


def test_build_json_and_quiet(tamis, docs, engine):
    code, out, _ = tamis("build", docs, "-o", engine, "--json")
    assert code == 0
    value = json.loads(out)
    assert set(value) == {"folder", "stages", "verdict", "seconds", "peak_mib"}
    assert [s["name"] for s in value["stages"]] == [
        "ingest",
        "passages",
        "select",
        "synthesize",
        "encode",
        "tune",
        "index",
        "report",
    ]
    assert all(set(s) == {"name", "status", "seconds", "summary", "counts"} for s in value["stages"])
    assert tamis("build", docs, "-o", engine, "-q")[:2] == (0, f"{engine}\n")


def test_an_engine_inside_its_documents_is_not_read(tamis, docs, tmp_path):
    inside = shutil.copytree(docs, tmp_path / "docs") / "engine"
    for kept in (0, 8):
        code, out, err = tamis("build", tmp_path / "docs", "-o", inside)
        assert code == 0, err
        assert f"60 documents, {8 - kept} stages made, {kept} kept" in out
    assert "nothing to do" in tamis("check", tmp_path / "docs", "-o", inside)[1]


def test_search_modes(tamis, engine):
    code, out, err = tamis("search", engine, "rotate key", "-k", 3)
    assert (code, err) == (0, "")
    assert "*rotate*" in out.lower()
    assert out.splitlines()[-1] == "3 of 60 documents"
    code, listed, _ = tamis("search", engine, "rotate key", "-k", 3, "-q")
    ids = listed.splitlines()
    assert code == 0 and len(ids) == 3 and all(i.endswith(".md") for i in ids)
    code, out, _ = tamis("search", engine, "rotate key", "-k", 3, "--json")
    hits = json.loads(out)
    assert code == 0
    assert [h["doc_id"] for h in hits] == ids
    assert [h["rank"] for h in hits] == [1, 2, 3]
    assert {tuple(h) for h in hits} == {("rank", "doc_id", "score", "title", "snippet", "highlights", "start", "stop")}


def test_nothing_found_is_said_and_is_no_error(tamis, engine):
    code, out, _ = tamis("search", engine, "zzzqqqxxx", "--mode", "lexical")
    assert code == 0 and "no document matches" in out
    assert tamis("search", engine, "zzzqqqxxx", "--mode", "lexical", "-q")[:2] == (0, "")
    assert json.loads(tamis("search", engine, "zzzqqqxxx", "--mode", "lexical", "--json")[1]) == []


def test_many_queries_make_a_run(tamis, engine, tmp_path):
    queries, run = engine / "collection" / "queries.jsonl", tmp_path / "out.trec"
    code, out, _ = tamis("search", engine, "--queries", queries, "--run", run, "--json", "-k", 5)
    summary = json.loads(out)
    assert code == 0 and set(summary) == {"run", "queries", "rows", "unanswered"}
    lines = run.read_text().splitlines()
    assert len(lines) == summary["rows"] and all(len(line.split()) == 6 for line in lines)
    assert list(tmp_path.iterdir()) == [run]
    code, out, _ = tamis("search", engine, "--queries", queries, "--run", tmp_path / "second.trec")
    assert "unanswered" in out.splitlines()[-1]


def test_similar_leaves_the_document_itself_out(tamis, engine):
    code, out, _ = tamis("similar", engine, "00.md", "-k", 5, "--json")
    ids = [h["doc_id"] for h in json.loads(out)]
    assert code == 0 and len(ids) == 5 and "00.md" not in ids
    assert tamis("similar", engine, "00.md", "-k", 5, "-q")[1].split() == ids
    assert "*" not in tamis("similar", engine, "00.md", "-k", 5)[1]


def test_evaluate_shows_the_controls(tamis, engine, judged):
    code, out, _ = tamis("evaluate", engine, *judged)
    assert code == 0
    for control in ("BM25", "encoder alone", "untuned fusion", "random"):
        assert control in out
    code, out, _ = tamis("evaluate", engine, *judged, "-m", "RR@10", "--json")
    value = json.loads(out)
    assert code == 0 and {"systems", "comparisons"} <= set(value)
    code, out, _ = tamis("evaluate", engine, *judged, "-q")
    assert code == 0 and all(float(line.split("\t")[1]) >= 0 for line in out.splitlines())


def test_compare_two_runs(tamis, engine, judged):
    runs = engine / "runs"
    code, out, _ = tamis("compare", runs / "bm25.trec", runs / "tamis.trec", *judged[:2], "--json")
    assert code == 0 and json.loads(out)["comparisons"]
    code, out, _ = tamis("compare", runs / "bm25.trec", runs / "tamis.trec", *judged[:2])
    assert code == 0 and "wins/ties/losses" in out
    assert tamis("evaluate", runs / "tamis.trec", *judged[:2])[0] == 0


def test_why_tells_the_decisions(tamis, engine):
    code, out, _ = tamis("why", engine, "00.md")
    assert code == 0 and out.splitlines()[-1].startswith("00.md: ")
    code, out, _ = tamis("why", engine, "00.md", "--json")
    assert {"stage", "decision", "reason", "score", "other_id", "method"} <= set(json.loads(out)[0])
    assert all(":" in line for line in tamis("why", engine, "00.md", "-q")[1].splitlines())


def test_verify_names_what_is_damaged(tamis, copied):
    assert tamis("verify", copied)[0] == 0
    assert json.loads(tamis("verify", copied, "--deep", "--json")[1]) == {"ok": True, "problems": []}
    victim = copied / "collection" / "queries.jsonl"
    data = victim.read_bytes()
    victim.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert tamis("verify", copied)[0] == 0  # names and sizes do not show it
    code, out, _ = tamis("verify", copied, "--deep")
    assert code == 1 and "collection/queries.jsonl" in out and "1 problem(s)" in out.splitlines()[-1]
    code, out, _ = tamis("verify", copied, "--deep", "-q")
    assert code == 1 and len(out.splitlines()) == 1
    assert json.loads(tamis("verify", copied, "--deep", "--json")[1])["ok"] is False


def test_check_after_a_build_and_after_changes(tamis, docs, engine, judged, tmp_path):
    stages = ["ingest", "passages", "select", "synthesize", "encode", "tune", "index", "report"]

    def waiting(*more):
        code, out, _ = tamis("check", docs, "-o", engine, "-q", *more)
        assert code == 0
        return out.split()

    def recipe(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return "--recipe", path

    assert waiting() == []
    assert waiting("--seed", 1) == stages[2:]
    assert waiting("--exclude", "0*") == stages
    assert waiting("--text-field", "body") == stages
    assert waiting(*judged) == ["report"]
    assert waiting(*recipe("[passages]\ntarget_words = 100\n")) == [stages[1], *stages[3:]]
    assert waiting(*recipe("[select]\nnear_copies = false\n")) == stages[2:]
    assert waiting(*recipe("[scratch]\ndim = 32\n")) == stages[4:]
    assert waiting(*recipe("[search]\nhubness = true\n")) == stages[5:]
    _code, out, _ = tamis("check", docs, "-o", engine)
    assert "nothing to do" in out.splitlines()[-1]


def test_check_sees_changed_input_and_damage(tamis, docs, copied, tmp_path):
    assert "damaged" not in tamis("check", docs, "-o", copied)[1]
    data = (copied / "runs" / "fit.json").read_bytes()
    (copied / "runs" / "fit.json").write_bytes(data[:-1] + b" ")  # of the same size: only the hash shows it
    _code, out, _ = tamis("check", docs, "-o", copied, "--json")
    stages = {s["name"]: (s["status"], s["why"]) for s in json.loads(out)["stages"]}
    assert (
        stages["encode"][0] == "done" and stages["tune"] == ("to do", "damaged") and stages["index"][1] == "after tune"
    )
    changed = shutil.copytree(docs, tmp_path / "docs")
    (changed / "00.md").write_text("another text")
    out = tamis("check", changed, "-o", copied)[1]
    assert "input changed" in out


def test_check_json_and_estimates(tamis, docs, tmp_path):
    code, out, _ = tamis("check", docs, "-o", tmp_path / "new", "--json")
    value = json.loads(out)
    assert code == 0 and set(value) == {
        "num_files", "num_bytes", "stages", "seconds", "memory_bytes", "disk_bytes", "free_bytes", "problems",
    }  # fmt: skip
    assert value["num_files"] == 60 and 0.5 < value["seconds"] < 60
    assert not (tmp_path / "new").exists()


def test_check_names_problems(tamis, docs, tmp_path):
    code, out, _ = tamis("check", docs, "-o", tmp_path / "new", "--encoder", "some/model")
    assert code == 2 and "problem: the encoder 'some/model'" in out
    code, out, _ = tamis("check", docs, "-o", docs)
    assert code == 2 and "holds other files" in out
    code, out, _ = tamis("check", docs, "-o", docs / "00.md")
    assert code == 2 and "is a file" in out


def test_doctor(tamis, monkeypatch, tmp_path):
    code, out, _ = tamis("doctor")
    assert code == 0 and out.splitlines()[-1] == "ready to build"
    value = json.loads(tamis("doctor", "--json")[1])
    assert {"tamis", "python", "cores", "memory_gib", "disk_free_gib", "torch", "locks", "kernel_cache"} <= set(value)
    assert value["problems"] == [] and tamis("doctor", "-q")[:2] == (0, "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("")
    code, out, _ = tamis("doctor")
    assert code == 1 and "problem: compiled kernels cannot be kept" in out and "NUMBA_CACHE_DIR" in out
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert "more threads than cores" in " ".join(json.loads(tamis("doctor", "--json")[1])["notes"])


def refusals():
    return [
        (("search",), 2, "Missing argument"),
        (("nope",), 2, "No such command"),
        (("search", "ENGINE"), 2, "give either a text"),
        (("search", "ENGINE", "key", "--queries", "q.jsonl"), 2, "give either a text"),
        (("search", "ENGINE", "key", "--run", "r.trec"), 2, "--run goes with --queries"),
        (("search", "ENGINE", "--queries", "q.jsonl"), 2, "--run FILE"),
        (("search", "ENGINE", ""), 2, "the query is empty"),
        (("search", "ENGINE", "x" * 9000), 2, "8192"),
        (("search", "ENGINE", "key", "-k", "0"), 2, "greater than or equal to 1"),
        (("search", "ENGINE", "key", "--mode", "magic"), 2, "not one of"),
        (("search", "nowhere", "key"), 1, "tamis build"),
        (("search", "DOCS", "key"), 1, "no finished index"),
        (("search", "ENGINE", "--queries", "nowhere.jsonl", "--run", "r"), 3, "nowhere.jsonl"),
        (("similar", "ENGINE", "nope"), 3, "no document 'nope'"),
        (("why", "ENGINE", "nope"), 3, "no document 'nope'"),
        (("why", "nowhere", "00.md"), 1, "no such engine folder"),
        (("verify", "nowhere"), 1, "no such engine folder"),
        (("verify", "DOCS"), 1, "no engine"),
        (("evaluate", "ENGINE", "--qrels", "QRELS"), 2, "--queries"),
        (("evaluate", "nowhere", "--qrels", "QRELS"), 3, "no such engine folder or TREC run"),
        (("evaluate", "RUN", "--qrels", "nowhere.tsv"), 3, "nowhere.tsv"),
        (("evaluate", "RUN", "--qrels", "QRELS", "-m", "magic"), 2, "measure 'magic'"),
        (("compare", "RUN", "RUN", "--qrels", "QRELS"), 2, "give two files"),
        (("build", "DOCS"), 2, "--out"),
        (("build", "nowhere", "-o", "new"), 3, "no such file or folder"),
        (("build", "DOCS", "-o", "DOCS"), 2, "holds other files"),
        (("build", "DOCS", "-o", "RUN"), 2, "is a file"),
        (("build", "DOCS", "-o", "new", "--queries", "q.jsonl"), 2, "belong together"),
        (("build", "DOCS", "-o", "new", "--queries", "q.jsonl", "--qrels", "q.tsv"), 3, "q.jsonl: no such file"),
        (("build", "DOCS", "-o", "new", "--force", "magic"), 2, "no such stage"),
        (("build", "DOCS", "-o", "new", "--encoder", "some/model"), 2, "--allow-network"),
        (("build", "DOCS", "-o", "new", "--recipe", "nowhere.toml"), 2, "nowhere.toml"),
        (("build", "DOCS", "-o", "new", "--workers", "0"), 2, "--workers"),
        (("check", "nowhere"), 3, "no such file or folder"),
    ]


@pytest.mark.parametrize(
    ("args", "code", "words"), refusals(), ids=lambda x: " ".join(x)[:40] if isinstance(x, tuple) else None
)
def test_refusals_say_what_and_how(tamis, engine, docs, tmp_path, monkeypatch, args, code, words):
    monkeypatch.chdir(tmp_path)
    named = {
        "ENGINE": engine, "DOCS": docs, "RUN": engine / "runs" / "bm25.trec",
        "QRELS": engine / "collection" / "qrels" / "dev.tsv",
    }  # fmt: skip
    got, out, err = tamis(*[named.get(a, a) for a in args])
    assert (got, out) == (code, ""), err
    assert words in err and "Traceback" not in err
    assert not (tmp_path / "new" / "corpus").exists()


def test_a_field_that_is_not_there_is_named(tamis, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "1", "body": "hello"}\n')
    code, _, err = tamis("build", tmp_path / "a.jsonl", "-o", tmp_path / "new", "--text-field", "txt")
    assert code == 3 and "no field 'txt'" in err and "has: id, body" in err


def test_a_bad_recipe_is_refused_with_all_its_problems(tamis, docs, tmp_path):
    recipe = tmp_path / "bad.toml"
    recipe.write_text("seed = -1\n[ingestion]\nmax_reject_frac = 2.0\nmagic = 1\n")
    code, _, err = tamis("build", docs, "-o", tmp_path / "new", "--recipe", recipe)
    assert code == 2 and "3 problem(s)" in err
    for path in ("seed:", "ingestion.max_reject_frac:", "ingestion.magic:"):
        assert f"  {path}" in err


def test_a_locked_folder_names_its_holder(tamis, docs, copied):
    with lock.exclusive(copied):
        code, _, err = tamis("build", docs, "-o", copied)
    assert code == 4 and f"pid {os.getpid()}" in err and "Wait" in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 4, "out of memory"),
        (PermissionError(13, "Permission denied", "/some/where"), 4, "/some/where: Permission denied"),
        (Interrupted("stopped by SIGINT. Run the same command again: it continues."), 130, "continues"),
    ],
)
def test_what_the_machine_refuses(tamis, docs, tmp_path, monkeypatch, error, code, words):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("tamis.pipeline.build", fail)
    got, out, err = tamis("build", docs, "-o", tmp_path / "new")
    assert (got, out) == (code, "") and words in err


def test_terminal_sequences_in_documents_are_never_obeyed(tamis, tmp_path):
    escape = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
    rows = [
        {"id": f"a{n}", "title": f"title {escape} {n}", "text": f"plain words {escape} number {n}"} for n in range(5)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    engine = tmp_path / "engine"
    (tmp_path / "raw.toml").write_text("[ingestion]\nunicode = false\n")  # nothing is cleaned on the way in
    printed = [tamis("build", tmp_path / "a.jsonl", "-o", engine, "--recipe", tmp_path / "raw.toml")[1:]]
    for mode in ((), ("--json",), ("-q",)):
        printed.append(tamis("search", engine, "plain words", *mode)[1:])
        printed.append(tamis("similar", engine, "a0", *mode)[1:])
        printed.append(tamis("why", engine, "a0", *mode)[1:])
    printed.append(tamis("similar", engine, escape)[1:])
    assert sum("plain" in out for out, _ in printed) >= 3
    assert "\\x1b]0;owned" in printed[1][0] and "\\u009b" in printed[4][0]
    text = "".join(out + err for out, err in printed)
    assert not set(text) & set("\x1b\x07\x9b\u202e\x7f")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_json_and_quiet(tamis, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = tamis(command, "--help")
    assert code == 0
    assert "--json" in out and "-q, --quiet" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_help_lists_all_commands_in_full(tamis):
    code, out, _ = tamis("--help")
    assert code == 0 and "..." not in out.split("Commands:")[1]
    for command in COMMANDS:
        assert f"\n  {command} " in out
    assert "130 interrupted" in " ".join(out.split())
    assert tamis()[0] == 2
