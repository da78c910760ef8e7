"""The commands of the data half: what they print, how they end, what they say when they refuse."""

import json

import pytest

from tamis.cli.curate import METHODS, VECTOR_METHODS, make_selector, parse_budget
from tamis.errors import UsageError
from tamis.selection import Budget

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


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5%", Budget(frac=0.05)),
        ("10docs", Budget(docs=10)),
        ("1.5k docs", Budget(docs=1500)),
        ("2Mwords", Budget(words=2_000_000)),
        ("100MB", Budget(bytes=100_000_000)),
        ("7bytes", Budget(bytes=7)),
    ],
)
def test_budgets_are_read_as_people_write_them(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "5", "5 percent", "0%", "101%", "5k%", "0docs", "-3docs", "1e3docs", "docs"])
def test_other_budgets_are_refused_with_examples(text):
    with pytest.raises(UsageError, match="--budget"):
        parse_budget(text)


def test_every_method_can_be_made_and_takes_settings(tmp_path):
    for method in (*METHODS, *VECTOR_METHODS):
        assert make_selector(method, Budget(docs=1), None).budget == Budget(docs=1)
    file = tmp_path / "dsir.toml"
    file.write_text("prior = 2.0\n")
    assert make_selector("dsir", Budget(docs=1), file).prior == 2.0
    file.write_text("prior = [\n")
    with pytest.raises(UsageError, match="TOML"):
        make_selector("dsir", Budget(docs=1), file)


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
