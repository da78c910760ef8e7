import time
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Qrels, Run
from tamis.errors import UsageError
from tamis.search.fuse import Convex, FusionTuner, ReciprocalRank

A = Run.from_dict({"q": {"d1": 4.0, "d2": 2.0, "d3": 0.0}})
B = Run.from_dict({"q": {"d3": 0.9, "d1": 0.5}})
RUNS = st.lists(
    st.dictionaries(st.sampled_from("abcdefg"), st.integers(-4, 4).map(float), max_size=7), min_size=1, max_size=3
).map(lambda queries: Run.from_dict({f"q{i}": ranked for i, ranked in enumerate(queries)}))


def simplex(num_arms: int, steps: int) -> np.ndarray:
    """float64 [G, A]: all weights that are multiples of 1 / steps and sum to 1, zero included."""
    points: list[list[int]] = [[]] if num_arms else []
    for _ in range(num_arms - 1):
        points = [[*p, n] for p in points for n in range(steps - sum(p) + 1)]
    return np.array([[*p, steps - sum(p)] for p in points], dtype=np.float64) / steps


def test_reciprocal_rank_by_hand():
    run = ReciprocalRank().fuse([A, B], seed=0)
    assert [d for d, _ in run.ranked("q")] == ["d1", "d3", "d2"]
    assert [s for _, s in run.ranked("q")] == pytest.approx([0.032522, 0.032266, 0.016129], abs=1e-6)


def test_minmax_by_hand_with_its_tie():
    run = Convex(weights=(0.5, 0.5), normalise="minmax").fuse([A, B], seed=0)
    assert run.ranked("q") == [("d1", 0.5), ("d3", 0.5), ("d2", 0.25)]


def test_zscore_and_padding_by_hand():
    assert [s for _, s in Convex().fuse([A], seed=0).ranked("q")] == pytest.approx([1.224745, 0, -1.224745], abs=1e-6)
    padded = Convex(normalise="padded").fuse([B, A], seed=0).to_dict()["q"]  # B over 3 documents: .9, .5, 0
    mean, deviation = 1.4 / 3, np.std([0.9, 0.5, 0])
    assert padded["d2"] == pytest.approx((0 + (0 - mean) / deviation) / 2)
    lowest = Convex().fuse([B, A], seed=0).to_dict()["q"]
    assert lowest["d2"] == pytest.approx((0 - 1.0) / 2)


@given(st.lists(RUNS, min_size=1, max_size=4), st.sampled_from(["padded", "zscore", "minmax"]), st.randoms())
def test_order_and_scale_of_runs_change_nothing(runs, normalise, random):
    shuffled = runs[:]
    random.shuffle(shuffled)
    for fuser in (ReciprocalRank(), Convex(normalise=normalise)):
        fused = fuser.fuse(runs, seed=0)
        assert fuser.fuse(shuffled, seed=0).answer(fused.query_ids) == fused
        assert set(fused.query_ids.to_pylist()) == {q for r in runs for q in r.query_ids.to_pylist()}
    scaled = [runs[0].with_scores(runs[0].scores * 4), *runs[1:]]
    fused, other = Convex(normalise=normalise).fuse(runs, seed=0), Convex(normalise=normalise).fuse(scaled, seed=0)
    assert np.allclose(fused.scores, other.scores, atol=1e-9)


def test_four_arms_in_any_order_give_the_same_bits():
    runs = [r.with_scores(np.random.default_rng(i).random(len(r))) for i, r in enumerate(random_runs(5, 30, 4))]
    fused = Convex().fuse(runs, seed=0)
    for order in permutations(runs):
        assert Convex().fuse(order, seed=0) == fused


@given(RUNS)
def test_one_run_keeps_its_ranking_unless_scores_are_equal(run):
    for fuser in (ReciprocalRank(), Convex(), Convex(normalise="padded")):
        fused = fuser.fuse([run], seed=0)
        for query in run.query_ids.to_pylist():
            assert [d for d, _ in fused.ranked(query)] == [d for d, _ in run.ranked(query)]


def test_a_query_that_one_run_lacks_is_ranked_by_the_other():
    other = Run.from_dict({"r": {"d9": 3.0, "d8": 1.0}, "q": {}})
    fused = Convex().fuse([A, other], seed=0)
    assert [d for d, _ in fused.ranked("q")] == ["d1", "d2", "d3"]
    assert [d for d, _ in fused.ranked("r")] == ["d9", "d8"]


def test_wrong_numbers_of_weights_are_refused():
    with pytest.raises(UsageError, match="2 weights for 1 runs"):
        Convex(weights=(1.0, 1.0)).fuse([A], seed=0)
    with pytest.raises(UsageError, match="no run"):
        ReciprocalRank().fuse([], seed=0)


def random_runs(num_queries, num_docs, num_runs, seed=0):
    rng = np.random.default_rng(seed)
    ids, docs = [f"q{i}" for i in range(num_queries)], [f"d{i:04d}" for i in range(1000)]
    rows = np.array([rng.choice(1000, num_docs, replace=False) for _ in ids])
    return [Run.from_blocks(ids, docs, rows, rng.integers(0, 9, rows.shape).astype(float)) for _ in range(num_runs)]


def test_the_tuner_measures_what_the_fuser_ranks():
    ir_measures = pytest.importorskip("ir_measures")
    runs = random_runs(30, 40, 3)
    qrels = Qrels.from_dict(
        {f"q{i}": {f"d{j:04d}": (j * 7 + i) % 4 for j in range(0, 1000, 5)} for i in range(0, 30, 2)}
    )
    grid = simplex(3, 4)
    pool = Convex(depth=20).pool(runs)
    values = FusionTuner(pool, qrels).evaluate(grid)
    assert values.shape == (15, 15)
    for weights, row in zip(grid, values, strict=True):
        fused = pool.fuse(weights)
        ranked = {q: {d: -float(i) for i, (d, _) in enumerate(fused.ranked(q))} for q in fused.query_ids.to_pylist()}
        peer = {
            m.query_id: m.value
            for m in ir_measures.iter_calc([ir_measures.parse_measure("nDCG@10")], qrels.grades, ranked)
        }
        assert row == pytest.approx([peer[f"q{i}"] for i in range(0, 30, 2)], abs=1e-9)
    assert values.std() > 0


def test_a_grid_of_four_arms_takes_under_two_seconds():
    runs = random_runs(500, 100, 4)
    qrels = Qrels.from_dict({f"q{i}": {f"d{i:04d}": 1} for i in range(500)})
    pool = Convex().pool(runs)
    FusionTuner(pool, qrels).evaluate(simplex(4, 1))
    started = time.process_time()
    values = FusionTuner(Convex().pool(runs), qrels).evaluate(simplex(4, 10))
    assert values.shape == (286, 500)
    assert time.process_time() - started < 2
