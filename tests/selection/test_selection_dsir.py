"""DSIR: the numbers worked by hand, a second implementation with another hash, and what it finds in real text."""

import gzip
import hashlib
import itertools
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tamis.data.corpus import Corpus
from tamis.errors import DataError
from tamis.ops.hashing import gumbel, text_keys
from tamis.ops.ngrams import feature_buckets, score_ngrams
from tamis.selection import DSIR, Budget, Uniform
from tamis.selection.dsir import DSIRModel, paper_weights, small_target_weights

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RAW, TARGET = np.array([4, 2, 1, 1]), np.array([1, 0, 3, 0])
X, Y = np.array([2, 0, 1, 0]), np.array([0, 1, 2, 0])
ONE = Budget(docs=1)


def batch_of(*texts):
    ids = [str(i) for i in range(len(texts))]
    return pa.record_batch({"doc_id": pa.array(ids, pa.large_string()), "text": pa.array(texts, pa.large_string())})


def test_worked_weights():
    paper = paper_weights(RAW, TARGET)
    assert paper == pytest.approx([-0.6931, -17.0344, 1.7918, -16.3412], abs=5e-5)
    assert [X @ paper, Y @ paper] == pytest.approx([0.4055, -13.4509], abs=5e-5)
    small = small_target_weights(RAW, TARGET, 1.0)
    assert small == pytest.approx([-0.28768, -0.69315, 1.25276, -0.69315], abs=5e-6)
    assert [X @ small, Y @ small] == pytest.approx([0.67740, 1.81238], abs=5e-6)  # the order flips
    assert [X @ small / 2, Y @ small / 2] == pytest.approx([0.33870, 0.90619], abs=5e-6)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=8).filter(
        lambda rows: any(r for r, _ in rows) and any(t for _, t in rows)
    ),
    st.integers(2, 9),
)
def test_copies_of_the_pool_or_of_the_target_change_no_weight(rows, times):
    raw, target = (np.array(column) for column in zip(*rows, strict=True))
    for weigh in (paper_weights, lambda r, t: small_target_weights(r, t, 1.0)):
        assert weigh(raw * times, target) == pytest.approx(weigh(raw, target), abs=1e-9)
        assert weigh(raw, target * times) == pytest.approx(weigh(raw, target), abs=1e-9)
    weights = small_target_weights(raw, target, 1.0)
    assert (weights[raw == 0] == 0).all()
    assert weights[(raw > 0) & (target == 0)] == pytest.approx(np.log(0.5))


def test_scores_are_sums_or_means_over_tokens():
    texts = ("the cat sat", "a. b", "")
    weights = np.sin(np.arange(1000.0))
    buckets, starts = feature_buckets(list(texts), 1000)
    sums = [weights[buckets[a:b]].sum() for a, b in itertools.pairwise(starts)]
    model = DSIRModel(weights, 1.0, 3)
    paper = DSIR(budget=ONE, mode="paper", num_buckets=1000, sampling="top", min_tokens=1)
    assert paper.score(batch_of(*texts), model) == pytest.approx([sums[0], sums[1], -np.inf])
    small = DSIR(budget=ONE, num_buckets=1000, min_tokens=1)
    assert small.score(batch_of(*texts), model) == pytest.approx([sums[0] / 3, sums[1] / 3, -np.inf])
    assert DSIR(budget=ONE, num_buckets=1000, min_tokens=4).score(batch_of("a b c", "a b c d"), model)[0] == -np.inf


def test_a_draw_adds_noise_keyed_by_content():
    words = " ".join(f"w{i % 9}" for i in range(30))
    batch = batch_of(words, words + " end")
    model = DSIRModel(np.full(1000, 0.5), 40.0, 3)
    noise = gumbel(text_keys([words, words + " end"]), 3, "gumbel")
    drawn = DSIR(budget=ONE, num_buckets=1000, sampling="gumbel", temperature=2.0).score(batch, model)
    means = np.array([59 * 0.5 / 30, 61 * 0.5 / 31])
    assert drawn == pytest.approx(means * 40 / 2 + noise)
    paper = DSIR(budget=ONE, mode="paper", num_buckets=1000, min_tokens=1)
    assert paper.score(batch, DSIRModel(np.full(1000, 0.5), 1.0, 3)) == pytest.approx(np.array([29.5, 30.5]) + noise)


def test_the_median_of_a_draw_is_that_of_the_pool():
    corpus = Corpus.from_records([{"doc_id": str(n), "text": "w " * n} for n in (10, 20, 30, 40, 50)])
    method = DSIR(budget=ONE, sampling="gumbel")
    assert method.fit(method.survey(corpus, seed=0), corpus, seed=0).scale == 30
    assert DSIR(budget=ONE).fit(DSIR(budget=ONE).survey(corpus, seed=0), corpus, seed=0).scale == 1


def test_defaults_of_the_modes():
    small, paper = DSIR(budget=ONE), DSIR(budget=ONE, mode="paper")
    assert (small._num_buckets, small._draws) == (1 << 18, False)
    assert (paper._num_buckets, paper._draws) == (10_000, True)
    texts = [" ".join(["w"] * n) for n in (19, 20, 99, 100)]
    for method, refused in ((small, [True, False, False, False]), (paper, [True, True, True, False])):
        model = DSIRModel(np.zeros(method._num_buckets), 1.0, 0)
        assert np.isneginf(method.score(batch_of(*texts), model)).tolist() == refused


def test_a_pool_or_target_without_words_is_refused():
    method = DSIR(budget=ONE)
    words, none = (Corpus.from_records([{"doc_id": "a", "text": t}]) for t in ("some words", " \n "))
    with pytest.raises(DataError, match="pool has no words"):
        method.fit(method.survey(none, seed=0), words, seed=0)
    with pytest.raises(DataError, match="target has no words"):
        method.fit(method.survey(words, seed=0), none, seed=0)


def slow_dsir(raw, target, num_buckets=10_000):
    """A second DSIR in plain Python, with the hash of the paper's code: log-weights of the raw texts."""

    def features(text):
        tokens = re.findall(r"\w+|[^\w\s]+", text.lower())
        grams = tokens + [f"{a} {b}" for a, b in itertools.pairwise(tokens)]
        return Counter(int(hashlib.sha256(g.encode()).hexdigest(), 16) % num_buckets for g in grams)

    def shares(counts):
        total = np.zeros(num_buckets)
        for count in counts:
            total[list(count)] += list(count.values())
        return total / total.sum()

    raw_counts = [features(text) for text in raw]
    weights = np.log(shares(features(t) for t in target) + 1e-8) - np.log(shares(raw_counts) + 1e-8)
    return np.array([weights[list(c)] @ list(c.values()) for c in raw_counts])


def read(name, num_docs, start=0):
    """Every tenth document: the files are sorted, so neighbours are alike."""
    with gzip.open(DATA / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in itertools.islice(lines, start, start + 10 * num_docs, 10)]
    return [r["text"][:5000] for r in records if len(r["text"]) > 300]


@pytest.fixture(scope="module")
def mixed():
    if not DATA.exists():
        pytest.skip("shared data absent")
    texts = {name: read(name, 700) for name in ("newsgroups", "medquad", "wikipedia")}
    records = [
        {"doc_id": f"{name}/{i}", "text": text, "source": name}
        for name, group in texts.items()
        for i, text in enumerate(group)
    ]
    target = [{"doc_id": f"t{i}", "text": text} for i, text in enumerate(read("medquad", 400, start=5)[::5])]
    return Corpus.from_records(records), Corpus.from_records(target)


@pytest.mark.data
def test_paper_mode_agrees_with_a_second_implementation(mixed):
    corpus, target = mixed
    raw, wanted = (c.table(["text"])["text"].to_pylist() for c in (corpus, target))
    method = DSIR(budget=ONE, mode="paper", sampling="top", min_tokens=1)
    scores = method.choose(corpus, target, seed=0).scores
    slow = slow_dsir(raw, wanted)
    assert len(scores) > 1500
    lengths = score_ngrams(raw, np.zeros(1))[1]
    assert stats.spearmanr(scores, slow).statistic >= 0.98
    assert stats.spearmanr(scores / lengths, slow / lengths).statistic >= 0.8  # without what length explains
    elsewhere = Corpus.from_records(
        [{"doc_id": str(i), "text": t} for i, t in enumerate(read("newsgroups", 400, 5)[::5])]
    )
    control = method.choose(corpus, elsewhere, seed=0).scores
    assert stats.spearmanr(control / lengths, slow / lengths).statistic < 0.5


@pytest.mark.data
def test_five_documents_find_their_domain(mixed):
    corpus, target = mixed
    few = target.select(range(5))
    is_medical = np.array(corpus.table(["source"])["source"].to_pylist()) == "medquad"
    budget = Budget(docs=int(is_medical.sum()))
    precision = {
        name: is_medical[method.choose(corpus, few, seed=0).kept].mean()
        for name, method in {
            "small": DSIR(budget=budget),
            "paper": DSIR(budget=budget, mode="paper", min_tokens=1, sampling="top"),
            "uniform": Uniform(budget=budget),
        }.items()
    }
    assert precision["small"] > 0.75
    assert precision["small"] > precision["paper"]
    assert precision["uniform"] == pytest.approx(is_medical.mean(), abs=0.06)


@pytest.mark.data
def test_the_selection_is_nearer_to_the_target_than_a_uniform_draw(mixed):
    corpus, target = mixed
    figures = DSIR(budget=Budget(frac=0.1)).choose(corpus, target, seed=0).figures
    assert figures["kl_reduction"] > figures["kl_reduction_uniform"] + 0.1
    own = DSIR(budget=Budget(frac=0.1), num_buckets=10_000).choose(corpus, target, seed=0)
    assert own.figures["kl_reduction"] > own.figures["kl_reduction_uniform"] + 0.05
    assert own.figures["kl_reduction_uniform"] == figures["kl_reduction_uniform"]  # counted apart on the same buckets
