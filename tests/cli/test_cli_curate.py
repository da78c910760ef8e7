"""The commands of the data half: what they print, how they end, what they say when they refuse."""

import json

import pytest

from tamis.cli.selecting import METHODS, VECTOR_METHODS, make_preselect, make_selector
from tamis.errors import UsageError
from tamis.selection import Budget
from tamis.selection.names import NAMED

SEA = "the anchor and the sail of the ship lie by the pier in the harbour near the tide"
LAND = "the plough and the barn of the farm lie by the hedge in the field near the mill"


@pytest.fixture
def pool(tmp_path):
    """40 records, the even ones about the sea, one of them twice."""
    path = tmp_path / "pool.jsonl"
    rows = [{"id": f"d{n}", "text": f"{(LAND if n % 2 else SEA)} number {n} " * 4} for n in range(40)]
    rows.append({**rows[0], "id": "copy"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "target.jsonl"
    path.write_text(json.dumps({"text": SEA}) + "\n")
    return path


def test_every_method_can_be_made_and_takes_settings(tmp_path):
    assert {*METHODS, *VECTOR_METHODS} == set(NAMED)
    for method in (*METHODS, *VECTOR_METHODS):
        assert make_selector(method, Budget(docs=1), None).budget == Budget(docs=1)
    file = tmp_path / "dsir.toml"
    file.write_text("prior = 2.0\n")
    assert make_selector("dsir", Budget(docs=1), file).prior == 2.0
    file.write_text("prior = [\n")
    with pytest.raises(UsageError, match="TOML"):
        make_selector("dsir", Budget(docs=1), file)


def test_settings_of_preselect_have_a_table_for_the_classifier(tmp_path):
    file = tmp_path / "pre.toml"
    file.write_text("max_docs = 5\n[classifier]\nepochs = 2\n")
    how, learner = make_preselect(Budget(docs=1), file)
    assert (how.max_docs, learner.epochs, learner.budget) == (5, 2, Budget(docs=1))
    file.write_text("classifier = 3\n")
    with pytest.raises(UsageError, match="table"):
        make_preselect(Budget(docs=1), file)


def test_select_why_verify_and_diff(tamis, pool, target, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    code, out, err = tamis("select", pool, "-t", target, "-b", "10docs", "-o", first)
    assert (code, err) == (0, "")
    assert "select made, 10 of 41 documents" in out.splitlines()[-1] and "kl_reduction" in out
    code, out, _ = tamis("select", pool, "-b", "10docs", "-o", second, "--method", "uniform", "--json")
    assert code == 0 and json.loads(out)["counts"]["documents"] == 10
    code, out, _ = tamis("why", first, "d1")
    assert code == 0 and "over_budget" in out
    code, out, _ = tamis("verify", first, "--deep")
    assert code == 0 and "whole" in out
    code, out, _ = tamis("diff", first, second, "--json")
    assert code == 1 and json.loads(out)
    assert tamis("diff", first, first)[0] == 0


def test_conditioned_scores_show_how_well_they_tell_the_source(tamis, pool, target, tmp_path):
    code, out, _ = tamis("select", pool, "-t", target, "-b", "10docs", "-o", tmp_path / "out", "--condition")
    assert code == 0 and "max_auc_gap_before" in out and "max_auc_gap_after" in out


def test_vectors_of_an_engine_spread_a_selection(tamis, pool, engine, tmp_path):
    code, out, _ = tamis(
        "select", pool, "-b", "4docs", "-o", tmp_path / "out", "--method", "k-center", "--encoder", engine / "encoder"
    )
    assert code == 0 and "coverage_mean" in out
    code, _, err = tamis("select", pool, "-b", "4docs", "-o", tmp_path / "no", "--method", "k-center")
    assert code == 2 and "--encoder" in err


def test_dedup_and_clean_say_what_they_dropped(tamis, pool, tmp_path):
    code, out, _ = tamis("dedup", pool, "-o", tmp_path / "dedup", "--min-same-words", "0.99")
    assert code == 0 and "1 exact_copy" in out.splitlines()[-1]
    code, out, _ = tamis("clean", pool, "-o", tmp_path / "clean", "--preset", "off", "-q")
    assert (code, out.strip()) == (0, str(tmp_path / "clean"))


def test_decontaminate_needs_queries_or_the_self_test(tamis, pool, tmp_path):
    code, _, err = tamis("decontaminate", pool, "-o", tmp_path / "out")
    assert code == 2 and "--queries" in err
    queries = tmp_path / "q.jsonl"
    queries.write_text(json.dumps({"_id": "q", "text": f"{SEA} number 4"}) + "\n")
    code, out, _ = tamis("decontaminate", pool, "-o", tmp_path / "out", "--queries", queries, "--json")
    assert code == 0 and json.loads(out)["figures"]["num_protected"] == 1


def test_audit_names_its_page(tamis, pool, tmp_path):
    code, out, _ = tamis("audit", pool, "-o", tmp_path / "out", "--no-near")
    page = tmp_path / "out" / "report" / "audit.html"
    assert code == 0 and str(page) in out and page.is_file()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("-b", "5%"), 2, "--target"),
        (("-b", "lots", "-t", "{target}"), 2, "10000docs"),
        (("-b", "5%", "-t", "{pool}x"), 3, "{pool}x"),
        (("-b", "1words", "-t", "{target}"), 2, "budget"),
        (("-b", "5%", "-t", "{target}", "--method", "magic"), 2, "perplexity"),
        (("-b", "5%", "-t", "{target}", "--share", "target"), 2, "NAME=VALUE"),
        (("-b", "5%", "-t", "{target}", "--share", "other=1"), 2, "shares"),
    ],
)
def test_what_cannot_be_meant_is_refused(tamis, pool, target, tmp_path, args, code, words):
    given = [str(arg).format(pool=pool, target=target) for arg in args]
    found, _, err = tamis("select", pool, "-o", tmp_path / "out", *given)
    assert found == code and words.format(pool=pool) in err
    assert "Traceback" not in err


@pytest.fixture
def runs(tmp_path):
    """12 runs over two domains; more of the sea is better."""
    rows = ["run,sea,land,loss"]
    rows += [f"r{n},{n / 11:.4f},{1 - n / 11:.4f},{2 + 2.718281828 ** (-n / 11):.6f}" for n in range(12)]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_mix_then_select_by_the_mixture(tamis, runs, tmp_path):
    code, out, err = tamis("mix", runs, "--metric", "loss", "-o", tmp_path / "mix", "--kl", "0.5")
    assert (code, err) == (0, "")
    assert "sea" in out and "best_run" in out and "spearman" not in out  # 12 runs leave none to rank
    assert str(tmp_path / "mix" / "report" / "mixture.json") in out
    code, out, _ = tamis("mix", runs, "--metric", "loss", "-o", tmp_path / "mix", "--kl", "0.5", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["status"] == "kept" and facts["weights"]["sea"] > 0.6
    assert tamis("mix", runs, "--metric", "loss", "-o", tmp_path / "mix", "--kl", "0.5", "-q")[1].strip().endswith("mixture.json")  # fmt: skip
    for name, text in (("sea", SEA), ("land", LAND)):
        lines = [json.dumps({"id": f"{name}{n}", "text": f"{text} {n}"}) + "\n" for n in range(20)]
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / f"{name}.jsonl").write_text("".join(lines))
    given = ("select", tmp_path / "docs", "--mixture", tmp_path / "mix", "-b", "10docs", "-o", tmp_path / "out")
    code, out, err = tamis(*given)
    assert (code, err) == (0, "") and "select made" in out and "is_capped" in out
    share = facts["weights"]["sea"]
    found = json.loads(tamis(*given, "--json")[1])
    assert found["status"] == "kept"
    assert {row["domain"]: row["got"] for row in found["figures"]["domains"]} == {"sea": int(10 * share), "land": int(10 - 10 * share)}  # fmt: skip
    code, out, _ = tamis("why", tmp_path / "out", "sea0")
    assert code == 0 and "mixture" in out and "sea" in out
    assert tamis("verify", tmp_path / "out", "--deep")[0] == 0


def test_a_mixture_folder_is_verified(tamis, runs, tmp_path):
    tamis("mix", runs, "--metric", "loss", "-o", tmp_path / "mix")
    assert tamis("verify", tmp_path / "mix", "--deep")[:2] == (0, f"{tmp_path / 'mix'}: whole\n")
    (tmp_path / "mix" / "report" / "mixture.json").write_text("{}")
    code, out, _ = tamis("verify", tmp_path / "mix")
    assert code == 1 and "mixture.json" in out


def test_correlations_on_the_command_line(tamis, tmp_path):
    rows = ["model,sea,land,error"] + [f"m{n},{1 + n},{9 - n},{n / 10}" for n in range(6)]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    caps = ("--available", "sea=6B", "--available", "land=10B", "--tokens", "10B")
    given = ("mix", tmp_path / "t.csv", "--method", "correlations", "--metric", "error", "-o", tmp_path / "mix")
    code, out, _ = tamis(*given, *caps, "--json")
    assert code == 0 and json.loads(out)["weights"] == {"sea": 0.6, "land": 0.4}
    assert tamis(*given, "--kl", "1")[0] == 2
    code, _, err = tamis(*given)
    assert code == 2 and "--available" in err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "--metric"),
        (("--metric", "nope"), 2, "no such column"),
        (("--metric", "loss", "--method", "magic"), 2, "log-linear"),
        (("--metric", "loss", "--method", "gp", "--kl", "1"), 2, "--kl"),
        (("--metric", "loss", "--tokens", "10B"), 2, "--available"),
        (("--metric", "loss", "--max-epochs", "2"), 2, "--available and --tokens"),
        (("--metric", "loss", "--available", "sea=lots", "--tokens", "1"), 2, "20M"),
        (("--metric", "loss", "--prior", "sea"), 2, "NAME=VALUE"),
        (("--metric", "loss", "--prior", "sea=.1", "--prior", "sea=.9"), 2, "twice"),
        (("--metric", "loss", "--domain", "sea"), 3, "sum to 1"),
    ],
)
def test_mixtures_that_cannot_be_meant_are_refused(tamis, runs, tmp_path, args, code, words):
    found, _, err = tamis("mix", runs, "-o", tmp_path / "mix", *args)
    assert found == code and words in err and "Traceback" not in err
    assert not (tmp_path / "mix" / "report").exists()


def test_preselect_keeps_what_better_models_predict_better(tamis, pool, tmp_path):
    rows = ["doc_id,model,bits_per_byte"]
    rows += [f"d{n},{m},{1 + (at if n % 2 else -at) / 10}" for n in range(20) for at, m in enumerate(("low", "mid", "top"))]  # fmt: skip
    (tmp_path / "losses.csv").write_text("\n".join(rows) + "\n")
    ability = [x for m, a in (("low", 0.1), ("mid", 0.2), ("top", 0.3)) for x in ("--ability", f"{m}={a}")]
    given = ("select", pool, "--method", "preselect", "--losses", tmp_path / "losses.csv", *ability, "-b", "10docs")
    code, out, err = tamis(*given, "-o", tmp_path / "out")
    assert (code, err) == (0, "") and "label_num_positives" in out
    assert json.loads(tamis(*given, "-o", tmp_path / "out", "--json")[1])["status"] == "kept"
    code, out, _ = tamis("why", tmp_path / "out", "d1")
    assert code == 0 and "over_budget" in out and "preselect" in out
    assert tamis("verify", tmp_path / "out")[0] == 0
    for extra, words in (
        (("-t", pool), "--target"),
        (("--condition",), "--condition"),
        (("--mixture", "m"), "--method"),
    ):
        code, _, err = tamis(*given, "-o", tmp_path / "no", *extra)
        assert code == 2 and words in err
    code, _, err = tamis("select", pool, "--method", "preselect", "-b", "5%", "-o", tmp_path / "no")
    assert code == 2 and "--losses TABLE" in err
    code, _, err = tamis("select", pool, "--losses", tmp_path / "losses.csv", "-b", "5%", "-o", tmp_path / "no")
    assert code == 2 and "only with --method preselect" in err


def test_semantic_duplicates_are_a_pass_of_their_own(tamis, pool, engine, tmp_path):
    given = ("dedup", pool, "--semantic", "--encoder", engine / "encoder", "--min-cosine", "0.9")
    code, out, err = tamis(*given, "-o", tmp_path / "out")
    assert (code, err) == (0, "") and "examples.parquet" in out and "semantic_copy" in out
    assert json.loads(tamis(*given, "-o", tmp_path / "out", "--json")[1])["status"] == "kept"
    code, out, _ = tamis("dedup", pool, "-o", tmp_path / "plain", "--min-same-words", "0.99")
    assert code == 0 and "semantic_copy" not in out and "1 exact_copy" in out
    assert tamis("verify", tmp_path / "out", "--deep")[0] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--semantic",), "--encoder FOLDER"),
        (("--semantic", "--encoder", "x", "--against", "{pool}"), "--against"),
        (("--semantic", "--encoder", "x", "--any-title"), "--any-title"),
        (("--semantic", "--encoder", "x", "--keep", "first"), "farthest, nearest, longest"),
        (("--semantic", "--encoder", "nowhere"), "nowhere"),
        (("--semantic", "--encoder", "x", "--engine", "ray"), "--engine"),
        (("--encoder", "x", "--min-cosine", "0.9"), "--encoder, --min-cosine: only with --semantic"),
        (("--parts", "2"), "only with --semantic"),
        (("--keep", "nearest"), "longest, first"),
    ],
)
def test_semantic_options_that_cannot_be_meant_are_refused(tamis, pool, tmp_path, args, words):
    code, _, err = tamis("dedup", pool, "-o", tmp_path / "out", *(arg.format(pool=pool) for arg in args))
    assert code == 2 and words in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_programs_edit_and_restore_brings_back(tamis, pool, tmp_path):
    from tamis.ingestion.edit_program import text_key

    texts = {row["id"]: row["text"] for row in map(json.loads, pool.read_text().splitlines())}
    op = {"op": "replace", "old": "the anchor and", "new": "", "all": True}
    rows = [{"doc_id": "d0", "text_key": text_key(texts["d0"]), "ops": [op]}]
    rows.append({"doc_id": "d1", "text_key": text_key(texts["d1"]), "ops": [{"op": "drop_doc"}]})
    rows.append({"doc_id": "d2", "text_key": "0", "ops": [op]})
    programs = tmp_path / "programs.jsonl"
    programs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("clean", pool, "--programs", programs, "-o", tmp_path / "out", "--format", "jsonl")
    code, out, err = tamis(*given)
    assert (code, err) == (0, "") and "text_changed" in out and "1 edit_program" in out
    assert json.loads(tamis(*given, "--json")[1])["status"] == "kept"
    assert "edited" in tamis("why", tmp_path / "out", "d0")[1]
    assert tamis("verify", tmp_path / "out", "--deep")[0] == 0
    code, out, err = tamis("restore", tmp_path / "out", "-o", tmp_path / "back", "--format", "jsonl")
    assert (code, err) == (0, "") and "restore made, 40 of 40 documents" in out
    assert json.loads(tamis("restore", tmp_path / "out", "-o", tmp_path / "back", "--format", "jsonl", "--json")[1])["status"] == "kept"  # fmt: skip
    lines = (tmp_path / "back" / "documents" / "documents.jsonl").read_text().splitlines()
    assert {row["_id"]: row["text"] for row in map(json.loads, lines)} == {i: t for i, t in texts.items() if i != "d1"}
    assert "restored" in tamis("why", tmp_path / "back", "d0")[1]
    assert tamis("verify", tmp_path / "back", "--deep")[0] == 0


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--programs", "{tmp}/none.jsonl"), 3, "none.jsonl"),
        (("--programs", "{pool}"), 3, "no program"),
        (("--programs", "{pool}", "--preset", "web"), 2, "--preset: not with --programs"),
        (("--programs", "{pool}", "--lines"), 2, "--lines"),
        (("--max-dropped-frac", "0.5"), 2, "only with --programs"),
    ],
)
def test_programs_that_cannot_be_meant_are_refused(tamis, pool, tmp_path, args, code, words):
    found, _, err = tamis("clean", pool, "-o", tmp_path / "out", *(a.format(tmp=tmp_path, pool=pool) for a in args))
    assert found == code and words in err and "Traceback" not in err


def test_restore_refuses_what_it_did_not_make(tamis, pool, tmp_path):
    code, _, err = tamis("restore", tmp_path, "-o", tmp_path / "back")
    assert code == 1 and "no result of a step" in err
    tamis("clean", pool, "-o", tmp_path / "clean", "--preset", "off")
    code, _, err = tamis("restore", tmp_path / "clean", "-o", tmp_path / "back")
    assert code == 2 and "no text was changed" in err


@pytest.mark.parametrize("args", [("--mixture", "{tmp}/none.json"), ("--max-epochs", "2", "-t", "{tmp}/pool.jsonl")])
def test_mixture_options_alone_are_refused(tamis, pool, tmp_path, args):
    code, _, err = tamis("select", pool, "-b", "5%", "-o", tmp_path / "out", *(a.format(tmp=tmp_path) for a in args))
    assert code in (2, 3) and ("none.json" in err or "only with --mixture" in err)


@pytest.mark.parametrize("command", ["select", "dedup", "clean", "decontaminate", "audit"])
def test_every_step_has_the_common_options_once(tamis, command):
    code, out, _ = tamis(command, "--help")
    assert code == 0
    names = ("--seed", "--workers", "--id-field", "--text-field", "--title-field", "--max-reject-frac", "--exclude")
    for name in (
        *names,
        "--engine",
        "--no-progress",
        "--json",
        "--quiet",
        *(() if command == "audit" else ("--format",)),
    ):
        assert sum(f"{name} " in line[:36] for line in out.splitlines()) == 1, name
    assert "--common" not in out
