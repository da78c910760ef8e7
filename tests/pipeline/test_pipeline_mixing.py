"""Mixing: tables of runs become weights, weights become documents; what cannot be meant is refused by name."""

import json

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Ledger, artefact
from tamis.errors import DataError, UsageError
from tamis.pipeline import mixed, mixing
from tamis.pipeline.curation import verify
from tamis.pipeline.runs import read_swarm
from tamis.pipeline.tables import read_table
from tamis.selection import Budget, Mixture, PerplexityCorrelations, Ridge
from tamis.selection.mixture_laws import LogLinear

DOMAINS = ("books", "web", "code")
SLOPES = np.array([-1.0, 0.5, 0.2])


def swarm_table(num_runs=24, seed=0):
    """Runs whose loss is exactly 2 + exp(w · SLOPES)."""
    weights = np.random.default_rng(seed).dirichlet(np.ones(3), num_runs)
    columns = {name: weights[:, at] for at, name in enumerate(DOMAINS)}
    loss = 2 + np.exp(weights @ SLOPES)
    return pa.table({"run": [f"r{n}" for n in range(num_runs)], **columns, "dev_loss": loss, "other_loss": loss + 1})


@pytest.fixture
def swarm(tmp_path):
    path = tmp_path / "swarm.parquet"
    pq.write_table(swarm_table().drop_columns(["other_loss"]), path)
    return path


def test_a_law_that_holds_is_found_and_its_best_mixture_proposed(swarm, tmp_path):
    found = mixing.mix([swarm], tmp_path / "mix", metrics=["dev_loss"], kl=0.0, seed=1)
    facts = found.facts
    assert found.status == "made" and facts["method"] == "log_linear"
    assert facts["weights"]["books"] == pytest.approx(1, abs=1e-3)  # the only domain that lowers the loss
    (row,) = facts["metrics"]
    assert row["proposed"] == pytest.approx(2 + np.exp(-1), abs=0.01)
    assert row["low"] <= row["proposed"] <= row["high"] and row["proposed"] < row["best_run"] < row["uniform"]
    assert facts["figures"]["num_runs"] == 24
    assert [r["num_runs"] for r in facts["ablation"]] == [8, 16]
    assert facts["ablation"][-1]["spearman"] > 0.95
    report = tmp_path / "mix" / "report"
    assert pq.read_table(report / "weights.parquet")["domain"].to_pylist() == list(DOMAINS)
    assert {f.name for f in report.iterdir()} >= {
        "mixture.json",
        "report.md",
        "predictions.parquet",
        "ablation.parquet",
    }
    assert "| books |" in (report / "report.md").read_text()


def test_the_same_call_keeps_and_equal_calls_write_equal_bytes(swarm, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    mixing.mix([swarm], first, metrics=["dev_loss"])
    assert mixing.mix([swarm], first, metrics=["dev_loss"]).status == "kept"
    mixing.mix([swarm], second, metrics=["dev_loss"])
    assert artefact.hash_tree(first) == artefact.hash_tree(second)
    assert mixing.mix([swarm], first, metrics=["dev_loss"], kl=0.5).status == "made"


def test_a_large_price_stays_at_the_prior_and_caps_bound_the_weights(swarm, tmp_path):
    prior = {"books": 0.2, "web": 0.5, "code": 0.3}
    stays = mixing.mix([swarm], tmp_path / "a", metrics=["dev_loss"], prior=prior, kl=1e6, ablation=False)
    assert stays.facts["weights"] == pytest.approx(prior, abs=1e-4)
    caps = mixing.Caps({"books": 10, "web": 100, "code": 100}, num_tokens=100, max_epochs=4)
    bound = mixing.mix([swarm], tmp_path / "b", metrics=["dev_loss"], kl=0.0, caps=caps, ablation=False)
    assert bound.facts["weights"]["books"] == pytest.approx(0.4, abs=1e-6)
    assert [row["cap"] for row in bound.facts["domains"]] == [0.4, 1.0, 1.0]
    assert bound.facts["ablation"] == []


def test_importance_decides_between_metrics(tmp_path):
    table = swarm_table().drop_columns(["other_loss"])
    against = 2 + np.exp(-np.column_stack([table[name].to_numpy() for name in DOMAINS]) @ SLOPES)
    pq.write_table(table.append_column("against", pa.array(against)), tmp_path / "t.parquet")
    weights = {}
    for name, importance in (("dev", {"dev_loss": 1, "against": 0}), ("against", {"dev_loss": 0, "against": 1})):
        found = mixing.mix(
            [tmp_path / "t.parquet"], tmp_path / name, metrics=["dev_loss", "against"], kl=0.0,
            importance=importance, ablation=False,
        )  # fmt: skip
        weights[name] = found.facts["weights"]["books"]
    assert weights["dev"] > 0.9 and weights["against"] < 0.1


def test_two_files_and_one_table_are_the_same_runs(tmp_path):
    table = swarm_table()
    for name, columns in (("ratios.csv", DOMAINS), ("metrics.csv", ("dev_loss", "other_loss"))):
        pa.csv.write_csv(table.select(["run", *columns]), tmp_path / name)
    pa.csv.write_csv(table, tmp_path / "both.csv")
    paths = [tmp_path / "ratios.csv", tmp_path / "metrics.csv"]
    two = read_swarm(paths, [read_table(p) for p in paths], ["dev*"], [])
    one = read_swarm([tmp_path / "both.csv"], [read_table(tmp_path / "both.csv")], ["dev_loss"], DOMAINS)
    assert two.slices == one.slices == ("dev_loss",) and two.domains == one.domains == DOMAINS
    assert np.array_equal(two.weights, one.weights) and np.array_equal(two.losses, one.losses)


def test_a_column_is_its_own_name_before_it_is_a_pattern(tmp_path):
    names = ["loss[1]", *(name if name != "dev_loss" else "loss1" for name in swarm_table().column_names[1:])]
    table = swarm_table().append_column("x", swarm_table()["dev_loss"]).rename_columns(["run", *names[1:], names[0]])
    found = read_swarm(["t"], [table], ["loss[1]"], DOMAINS)
    assert found.slices == ("loss[1]",)
    assert read_swarm(["t"], [table], ["loss[0-9]"], DOMAINS).slices == ("loss1",)


def test_runs_without_a_loss_are_left_out_and_told(tmp_path):
    rows = swarm_table().drop_columns(["other_loss"]).to_pylist()
    rows[3]["dev_loss"] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = mixing.mix([tmp_path / "t.parquet"], tmp_path / "mix", metrics=["dev_loss"], ablation=False)
    assert found.facts["figures"]["num_runs"] == 23 and "1 of 24 runs" in found.facts["notes"][0]


def test_correlations_fill_the_domain_where_loss_and_error_rise_together(tmp_path):
    rng = np.random.default_rng(0)
    error = np.linspace(0.2, 0.8, 12)
    table = {"model": [f"m{n}" for n in range(12)], "good": error + 1, "noise": rng.random(12), "bad": 2 - error}
    pq.write_table(pa.table({**table, "error": error}), tmp_path / "t.parquet")
    caps = mixing.Caps({"good": 60, "noise": 100, "bad": 100}, num_tokens=100, max_epochs=1)
    method = PerplexityCorrelations()
    found = mixing.mix([tmp_path / "t.parquet"], tmp_path / "mix", method, metrics=["error"], caps=caps)
    assert found.facts["weights"] == pytest.approx({"good": 0.6, "noise": 0.4, "bad": 0})
    assert [row["correlation"] for row in found.facts["domains"]][::2] == pytest.approx([1, -1])
    assert mixed.read_weights(tmp_path / "mix") == found.facts["weights"]
    with pytest.raises(UsageError, match="--available"):
        mixing.mix([tmp_path / "t.parquet"], tmp_path / "no", method, metrics=["error"])
    assert not (tmp_path / "no" / "report").exists()


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({}, UsageError, "--metric is missing"),
        ({"metrics": ["nope"]}, UsageError, "no such column"),
        ({"metrics": ["dev_loss"], "domains": ["book*"]}, DataError, "sum to 1"),
        ({"metrics": ["dev_loss"], "prior": {"books": 1.0}}, UsageError, "'web' has none"),
        ({"metrics": ["dev_loss"], "prior": {"books": 1.0, "web": 0.0, "code": 0.0}}, DataError, "share 0"),
        ({"metrics": ["dev_loss"], "importance": {"x": 1.0}}, UsageError, "'x' is no domain"),
        ({"metrics": ["books"]}, DataError, "Taken as domains"),
        ({"metrics": ["dev_loss"], "caps": mixing.Caps(dict.fromkeys(DOMAINS, 1), 100)}, DataError, "below 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(swarm, tmp_path, options, kind, words):
    with pytest.raises(kind, match=words):
        mixing.mix([swarm], tmp_path / "mix", **options)
    assert not (tmp_path / "mix" / "report").exists()


def test_too_few_runs_are_refused_and_another_law_takes_what_it_can(tmp_path):
    pq.write_table(swarm_table(6), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="6 runs"):
        mixing.mix([tmp_path / "t.parquet"], tmp_path / "mix", LogLinear(), metrics=["*_loss"])
    pq.write_table(swarm_table(9).drop_columns(["other_loss"]), tmp_path / "t.parquet")
    found = mixing.mix([tmp_path / "t.parquet"], tmp_path / "mix", Ridge(), metrics=["dev_loss"])
    assert found.facts["method"] == "ridge" and found.facts["ablation"] == []  # nothing is left to rank


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"run,a,dev_loss\n1,x,1\n", "no number"),
        ("t.csv", b"run,a,a\n1,1,1\n", "twice"),
        ("t.csv", b"run,a,dev_loss\n1,1,1\n1,1,2\n", "run '1' occurs twice"),
        ("t.parquet", b"PAR1 no", "cannot be read"),
        ("t.txt", b"a", "unknown kind"),
        ("t.jsonl", b"{", "cannot be read"),
    ],
)
def test_tables_that_are_none_are_refused_by_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        mixing.mix([tmp_path / name], tmp_path / "mix", metrics=["dev_loss" if b"dev" in content else "a"])


# ---- applying weights


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two folders and a file: books (30 documents of 10 words), web (60 of 5), and code.jsonl (20 of 5)."""
    folder = tmp_path_factory.mktemp("pool")
    for name, num, words in (("books/a", 15, 10), ("books/b", 15, 10), ("web/x", 60, 5), ("code", 20, 5)):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        label = name.replace("/", "-")
        rows = ({"id": f"{label}-{n}", "text": " ".join(f"{label}{n}w{w}" for w in range(words))} for n in range(num))
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return folder


WEIGHTS = {"books": 0.5, "web": 0.3, "code": 0.2}


def kept(folder):
    return [json.loads(line) for line in (folder / "documents" / "documents.jsonl").read_text().splitlines()]


def test_documents_stand_in_the_shares_that_were_asked_for(pool, tmp_path):
    out = tmp_path / "out"
    found = mixed.sample(str(pool), out, WEIGHTS, Budget(docs=20), format="jsonl")
    domains = [row["id"].split("-")[0] for row in kept(out)]
    assert {name: domains.count(name) for name in WEIGHTS} == {"books": 10, "web": 6, "code": 4}
    assert found.counts["documents"] == 20 and found.counts["dropped_over_source_quota"] == 90
    told = pq.read_table(out / "report" / "domains.parquet").to_pylist()
    assert {row["domain"]: row["got"] for row in told} == {"books": 10, "web": 6, "code": 4}
    ledger = Ledger(out / "ledger")
    assert ledger.why(kept(out)[0]["id"])[-1]["other_id"] == "books"
    assert verify(out, deep=True) == []
    assert mixed.sample(str(pool), out, WEIGHTS, Budget(docs=20), format="jsonl").status == "kept"


@given(st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any), st.integers(1, 40))
@settings(max_examples=6)
def test_the_pool_chooses_what_the_method_itself_chooses(pool, tmp_path_factory, numbers, num_docs):
    weights = {name: float(n) for name, n in zip(WEIGHTS, numbers, strict=True)}
    rows = []
    for path in sorted(pool.rglob("*.jsonl")):
        domain = path.relative_to(pool).parts[0].removesuffix(".jsonl")
        rows += [
            {"doc_id": r["id"], "text": r["text"], "source": domain}
            for r in map(orjson.loads, path.read_bytes().splitlines())
        ]
    out = tmp_path_factory.mktemp("out") / "out"
    budget = Budget(docs=num_docs)
    try:
        wanted = Mixture(budget=budget, weights=weights, max_epochs=1.0).select(
            Corpus.from_records(rows), None, None, seed=3
        )
    except DataError:
        with pytest.raises(DataError):
            mixed.sample(str(pool), out, weights, budget, seed=3)
        return
    mixed.sample(str(pool), out, weights, budget, seed=3, format="jsonl")
    assert {row["id"] for row in kept(out)} == set(wanted.kept.doc_ids.to_pylist())


def test_more_epochs_say_how_often_each_document_is_seen(pool, tmp_path):
    out = tmp_path / "out"
    found = mixed.sample(str(pool), out, {"code": 1.0, "web": 0, "books": 0}, Budget(docs=50), max_epochs=3)
    copies = pq.read_table(out / "report" / "copies.parquet")
    assert sum(copies["num_copies"].to_pylist()) == 50 and len(copies) == found.counts["documents"] == 20
    assert "20 documents are to be seen more than once" in " ".join(found.notes)
    with pytest.raises(DataError, match="too few"):
        mixed.sample(str(pool), tmp_path / "no", {"code": 1.0, "web": 0, "books": 0}, Budget(docs=50))


def test_a_file_belongs_to_the_domain_of_its_name_or_folder():
    names = ["wiki", "books", "a/b", "x.tar"]
    for label, domain in (
        ("wiki.jsonl.gz", "wiki"),
        ("wiki/2024/part-0.parquet", "wiki"),
        ("data/books.jsonl", "books"),
        ("top/a/b/c.txt", "a/b"),
    ):
        assert mixed.domain_of(label, names) == domain
    with pytest.raises(DataError, match="none of the domains"):
        mixed.domain_of("wikis/part.jsonl", names)
    with pytest.raises(DataError, match="several domains"):
        mixed.domain_of("wiki/books.jsonl", names)


def test_domains_without_files_and_files_without_domains_are_named(pool, tmp_path):
    with pytest.raises(DataError, match=r"'code\.jsonl'"):
        mixed.sample(str(pool), tmp_path / "a", {"books": 1.0, "web": 1.0}, Budget(docs=5))
    with pytest.raises(DataError, match="'news' has weight"):
        mixed.sample(str(pool), tmp_path / "b", {**WEIGHTS, "news": 0.1}, Budget(docs=5))
    assert mixed.sample(str(pool), tmp_path / "c", {**WEIGHTS, "news": 0}, Budget(docs=10)).counts["documents"] == 10


@pytest.mark.parametrize("text", ["", "[]", '{"weights": {}}', '{"weights": {"a": -1}}', '{"weights": {"a": "x"}}', '{"weights": {"a": 0}}'])  # fmt: skip
def test_a_mixture_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(DataError, match=r"m\.json"):
        mixed.read_weights(tmp_path / "m.json")
