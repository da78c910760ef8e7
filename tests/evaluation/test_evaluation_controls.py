"""The random run, the cost of a stage, hubness, and corpus statistics."""

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.errors import DataError, UsageError
from tamis.evaluation import (
    CorpusStatistics,
    cost,
    environment,
    evaluate,
    folder_bytes,
    measure_calls,
    measure_hubness,
    measure_stage,
    random_expectation,
    random_run,
)
from tamis.evaluation.cost import peak_bytes, summarise
from tamis.evaluation.hubness import concentration
from tamis.evaluation.statistics import _lower_edge, _Sketch


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 3))
def test_a_random_run_holds_k_different_documents_whatever_the_order(num_docs, k, seed):
    docs, queries = [f"d{i}" for i in range(num_docs)], [f"q{i}" for i in range(5)]
    run = random_run(queries, docs, k=k, seed=seed)
    assert np.diff(run.offsets).tolist() == [min(k, num_docs)] * 5
    again = random_run(queries[::-1], docs[::-1], k=k, seed=seed)
    assert again.to_dict() == {q: dict(run.ranked(q)) for q in queries[::-1]}


def test_the_random_run_lands_on_its_expectation():
    rng = np.random.default_rng(0)
    docs, queries = [f"d{i}" for i in range(300)], [f"q{i}" for i in range(3000)]
    grades = {
        q: {docs[d]: int(g) for d, g in zip(rng.permutation(300)[:5], rng.integers(1, 4, 5), strict=True)}
        for q in queries
    }
    qrels = Qrels.from_dict(grades)
    found = evaluate(random_run(queries, docs, k=100, seed=1), qrels, ["R@100", "P@100", "nDCG@100"]).aggregate
    expected = random_expectation(qrels, 300, k=100)
    assert expected["R@100"] == pytest.approx(1 / 3)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.05)
    assert random_expectation(Qrels.from_dict({"q": {"a": 1}}), 1400, k=100)["R@100"] == pytest.approx(0.0714, abs=5e-5)


def test_no_documents_and_no_relevant_are_refused():
    with pytest.raises(DataError, match="no documents"):
        random_run(["q"], [], k=3, seed=0)
    with pytest.raises(DataError, match="0 queries"):
        random_expectation(Qrels.from_dict({"q": {"a": 0}}), 5, k=1)


def test_a_stage_is_measured_also_when_it_fails(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "sub" / "b").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="no"), measure_stage("s", tmp_path) as meter:
        block = np.ones(8_000_000)
        time.sleep(0.02)
        del block
        raise ValueError("no")
    assert (meter.cost.name, meter.cost.disk_bytes) == ("s", 8)
    assert 0.02 <= meter.cost.seconds < 5
    assert meter.cost.peak_bytes >= 64_000_000
    assert folder_bytes(tmp_path / "nowhere") == 0


def test_the_peak_is_that_of_the_stage_where_the_system_can_say_so(monkeypatch, tmp_path):
    with measure_stage("large") as large:
        np.ones(30_000_000).sum()
    with measure_stage("small") as small:
        pass
    if cost._CLEAR.exists():
        assert small.cost.peak_bytes < large.cost.peak_bytes - 100_000_000
    monkeypatch.setattr(cost, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(cost, "_CLEAR", tmp_path / "none")
    with measure_stage("elsewhere") as other:
        pass
    assert other.cost.peak_bytes > 20_000_000
    monkeypatch.setattr("sys.platform", "darwin")
    assert 0 < peak_bytes() < other.cost.peak_bytes / 100  # that system counts bytes, not kilobytes


def test_the_environment_is_text():
    found = environment()
    assert {"python", "system", "cores", "numpy", "ir-measures"} <= set(found)
    assert all(isinstance(value, str) for value in found.values())
    assert not any("/" in value for value in found.values())


def test_hand_worked_timing():
    timing = summarise([0.5, 0.4, 0.6, 0.4, 2.0], cpu_seconds=0.1)
    assert (timing.median_seconds, timing.p95_seconds, timing.repeats) == (0.5, 2.0, 5)
    calls = []
    assert measure_calls(lambda: calls.append(1), warmups=2, repeats=3).repeats == 3
    assert len(calls) == 5
    with pytest.raises(UsageError):
        measure_calls(list, repeats=0)


def test_hand_worked_concentration():
    found = concentration("x", np.array([0, 0, 1, 3]), 0.5)
    assert (found.skewness, found.gini, found.robin_hood) == (pytest.approx(0.816497, abs=1e-6), 0.625, 0.5)
    assert (found.never_frac, found.largest) == (0.5, 3)
    even = concentration("x", np.array([2, 2, 2]), 0.0)
    assert (even.skewness, even.gini, even.robin_hood) == (0.0, 0.0, 0.0)


def test_one_document_that_answers_everything_is_flagged():
    corpus = Corpus.from_records([{"doc_id": f"d{i}", "text": "t", "title": f"T{i}"} for i in range(50)])
    run = Run.from_dict({f"q{i}": {"d7": 9.0, f"d{i + 10}": 1.0} for i in range(10)})
    found = measure_hubness(run, corpus, Qrels.from_dict({"q1": {"d1": 1, "gone": 1}}), k=2, seed=0)
    assert found.flagged
    assert (found.hubs[0].doc_id, found.hubs[0].title, found.hubs[0].num_queries) == ("d7", "T7", 10)
    assert [row.name for row in found.rows] == ["run", "random", "relevant"]
    assert (found.rows[0].largest, found.rows[0].never_frac, found.rows[0].top1_frac) == (10, 39 / 50, 1.0)
    few = Run.from_dict({f"q{i}": {"d7" if i < 5 else f"d{i + 10}": 1.0} for i in range(10)})
    assert not measure_hubness(few, corpus, k=2, seed=0).flagged
    assert [row.name for row in measure_hubness(run, corpus, k=2, seed=0).rows] == ["run", "random"]
    with pytest.raises(DataError, match="not in the corpus"):
        measure_hubness(Run.from_dict({"q": {"alien": 1.0}}), corpus, seed=0)
    with pytest.raises(DataError):
        measure_hubness(Run.from_dict({}), corpus, seed=0)


DOCS = [
    {"doc_id": "a", "title": "T", "text": "one two three", "source": "x", "metadata": '{"year": 1, "gone": null}'},
    {"doc_id": "b", "text": "Ärger straße", "source": "y", "metadata": '{"year": 2, "by": "me"}'},
    {"doc_id": "c", "text": "один два", "source": "x"},
    {"doc_id": "d", "text": "one two three", "source": "x", "group_id": "a"},
    {"doc_id": "e", "text": "日本 123 !?", "source": "x"},
]


def test_hand_worked_statistics():
    found = CorpusStatistics.of(Corpus.from_records(DOCS))
    assert (found.num_docs, found.titled_frac, found.num_duplicates, found.num_duplicate_groups) == (5, 0.2, 1, 1)
    assert [(s.name, s.count) for s in found.sources] == [("x", 4), ("y", 1)]
    assert [(f.name, f.count) for f in found.fields] == [("year", 2), ("by", 1)]
    assert {s.name: s.count for s in found.scripts} == {"Latin": 11 + 11 + 11, "Cyrillic": 7, "Han": 2}
    assert (found.chars.total, found.chars.p50, found.chars.largest) == (13 + 12 + 8 + 13 + 9, 12, 13)
    assert (found.words.total, found.words.p10, found.words.p50, found.words.p90) == (3 + 2 + 2 + 3 + 3, 2, 3, 3)
    assert [(b.name, b.count) for b in found.histogram] == [("2–3", 5)]


def test_batches_do_not_matter_and_an_empty_corpus_has_statistics():
    batch = Corpus.from_records(DOCS).table().combine_chunks().to_batches()[0]
    whole = CorpusStatistics.of_batches([batch])
    assert CorpusStatistics.of_batches([batch.slice(0, 2), batch.slice(2, 0), batch.slice(2)]) == whole
    empty = CorpusStatistics.of_batches([])
    assert (empty.num_docs, empty.words.p50, empty.histogram, empty.scripts) == (0, 0, (), ())
    with pytest.raises(DataError, match="metadata"):
        CorpusStatistics.of(Corpus.from_records([{"doc_id": "a", "text": "t", "metadata": "[1"}]))


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50))
def test_quantiles_are_exact_below_4096_and_to_one_percent_above(values):
    sketch = _Sketch()
    sketch.add(np.array(values))
    found = sketch.lengths()
    for q, got in ((10, found.p10), (50, found.p50), (90, found.p90), (99, found.p99)):
        true = sorted(values)[max(1, -(-len(values) * q // 100)) - 1]
        assert got <= true <= got * 1.01 + 1e-9 if true >= 4096 else got == true
    assert (found.total, found.largest) == (sum(values), max(values))
    assert sum(c.count for c in sketch.doubling(len(values))) == len(values)


def test_edges_grow():
    edges = [_lower_edge(i) for i in range(6000)]
    assert edges == sorted(set(edges))
    assert pa.scalar(edges[4096]).as_py() == 4096


@pytest.mark.data
def test_the_random_run_over_cranfield(shared):
    qrels = Qrels.read(shared / "cranfield" / "qrels" / "test.tsv")
    queries = Queries.read(shared / "cranfield" / "queries.jsonl.gz")
    docs = [f"{i}" for i in range(1, 1401)]
    found = [
        evaluate(random_run(queries.ids, docs, k=100, seed=s), qrels, ["R@100", "nDCG@10"]).aggregate for s in range(8)
    ]
    assert np.mean([f["R@100"] for f in found]) == pytest.approx(100 / 1400, abs=0.01)
    assert np.mean([f["nDCG@10"] for f in found]) == pytest.approx(
        random_expectation(qrels, 1400, k=10)["nDCG@10"], abs=0.003
    )
