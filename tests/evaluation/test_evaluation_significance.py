"""Significance: the card's hand-worked p-values, symmetry, the null, and independence of names and blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Qrels, Run
from tamis.errors import UsageError
from tamis.evaluation import PairedTest, compare
from tamis.evaluation.significance import bootstrap_means, holm, sign_flip_p


def only(values, **rest):
    return PairedTest(**rest).test(values, "b", "m", seed=3).comparisons[0]


def test_hand_worked_exact_p_and_holm():
    assert sign_flip_p(np.array([[0.5, 0.25, 0.25]]), draws=100, seed=0) == [0.25]
    assert sign_flip_p(np.array([[0.5, 0.25, -0.25]]), draws=100, seed=0) == [0.75]
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_wins_ties_losses_and_what_could_be_detected():
    c = only({"a": np.array([1.0, 0.5, 0.0, 0.5]), "b": np.array([0.5, 0.5, 0.25, 0.0])})
    assert (c.wins, c.ties, c.losses, c.num_queries, c.delta) == (2, 1, 1, 4, 0.1875)
    sd = np.std([0.5, 0, -0.25, 0.5], ddof=1)
    assert c.smallest_detectable == pytest.approx(2.8 * sd / 2, abs=1e-9)
    assert only({"a": np.array([0.16, -0.16] * 300) / np.sqrt(600 / 599), "b": np.zeros(600)}).num_queries_needed == 502


def test_random_signs_agree_with_all_signs_and_the_t_test():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    deltas = rng.normal(0.02, 0.16, (3, 225))
    for p, row in zip(sign_flip_p(deltas, draws=20_000, seed=1), deltas, strict=True):
        assert p == pytest.approx(stats.ttest_1samp(row, 0).pvalue, abs=0.02)
    small = rng.normal(0.2, 0.5, (2, 13))
    slow = []
    for row in small:
        means = [abs(np.mean([x if i >> j & 1 else -x for j, x in enumerate(row)])) for i in range(1 << 13)]
        slow.append(float(np.mean(np.array(means) >= abs(row.mean()) - 1e-12)))
    assert sign_flip_p(small, draws=100, seed=0) == slow


def test_p_is_never_below_what_the_draws_can_show():
    assert sign_flip_p(np.ones((1, 60)), draws=999, seed=0) == [1 / 1000]


def test_the_null_rejects_at_the_level_of_the_test():
    rng = np.random.default_rng(5)
    p_values = np.concatenate([sign_flip_p(rng.normal(0, 1, (50, 40)), draws=1000, seed=s) for s in range(20)])
    assert 0.036 <= (p_values < 0.05).mean() <= 0.064


def test_the_interval_covers_the_true_mean():
    rng = np.random.default_rng(6)
    covered = 0
    for i in range(200):
        low, high = np.percentile(bootstrap_means(rng.normal(0.3, 1, (1, 80)), draws=400, seed=i)[0], [2.5, 97.5])
        covered += low <= 0.3 <= high
    assert covered >= 180


def test_names_order_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    a, b, c = rng.random((3, 100))
    one = PairedTest().test({"a": a, "b": b, "c": c}, "b", "m", seed=7)
    other = PairedTest().test({"c": c, "b": b, "a": a}, "b", "m", seed=7)
    assert {x.system: x for x in one.comparisons} == {x.system: x for x in other.comparisons}
    assert {x.system: x for x in one.means} == {x.system: x for x in other.means}
    monkeypatch.setattr("tamis.evaluation.significance._BLOCK_CELLS", 1300)
    assert PairedTest().test({"a": a, "b": b, "c": c}, "b", "m", seed=7) == one
    assert PairedTest().test({"a": a, "b": b, "c": c}, "b", "m", seed=8) != one


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30))
def test_swapping_keeps_p_and_equal_runs_have_p_1(pairs):
    a, b = np.array(pairs, dtype=float).T / 8
    forth, back = only({"a": a, "b": b}, draws=200), only({"a": b, "b": a}, draws=200)
    assert forth.p == back.p
    assert (forth.wins, forth.losses, forth.low) == (back.losses, back.wins, pytest.approx(-back.high, abs=1e-11))
    assert only({"a": a + 1, "b": b + 1}, draws=200).p == forth.p
    same = only({"a": a, "b": a}, draws=200)
    assert (same.p, same.delta, same.low, same.high, same.significant) == (1.0, 0.0, 0.0, 0.0, False)


def test_compare_measures_all_runs_on_the_judged_queries():
    grades = {f"q{i}": {"r": 1} for i in range(6)}
    good = {f"q{i}": {"r": 2.0, "x": 1.0} for i in range(6)}
    half = {f"q{i}": {"r": 2.0, "x": 1.0} if i < 3 else {"x": 1.0} for i in range(5)}
    table = compare(
        {"half": Run.from_dict(half), "good": Run.from_dict(good)}, "half", Qrels.from_dict(grades), "RR@10", seed=0
    )
    c = table.comparisons[0]
    assert (c.system, c.baseline, c.measure, c.delta, c.wins, c.ties) == ("good", "half", "RR@10", 0.5, 3, 3)
    assert c.p == 2 / 8
    assert [m.mean for m in table.means] == [0.5, 1.0]


def test_tables_of_several_measures_are_those_of_each_alone():
    rng = np.random.default_rng(2)
    values = {m: dict(zip("abc", rng.random((3, 40)), strict=True)) for m in ("m", "n")}
    tables = PairedTest(draws=300).tables(values, "b", seed=4)
    assert tables == tuple(PairedTest(draws=300).test(values[m], "b", m, seed=4) for m in ("m", "n"))
    assert tables[0].comparisons[0].p_adjusted >= tables[0].comparisons[0].p


def test_a_baseline_that_is_not_there_or_other_queries_are_refused():
    with pytest.raises(UsageError, match="baseline"):
        PairedTest().test({"a": np.ones(3)}, "b", "m", seed=0)
    with pytest.raises(UsageError, match="same queries"):
        PairedTest().test({"a": np.ones(3), "b": np.ones(4)}, "b", "m", seed=0)
    with pytest.raises(UsageError):
        PairedTest().test({"b": np.ones(0)}, "b", "m", seed=0)
