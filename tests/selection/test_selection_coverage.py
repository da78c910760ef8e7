"""Coverage by clusters and by the farthest point: worked examples, the slow greedy, bad input, and what is reported."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection_kit import NOTHING, kept_ids, outcome

from tamis.data.corpus import Corpus
from tamis.errors import DataError, RecipeError, UsageError
from tamis.ops.hashing import draws, text_keys
from tamis.selection import Budget, choose_for_targets
from tamis.selection import coverage as module
from tamis.selection.coverage import ClusterCoverage, KCenter, _kmeans, _spread, far_from_nearest, farthest_first
from tamis.selection.vectors import STEPS, in_steps, squared_distances


class Angles:
    """A text that begins with a number of degrees has that direction in the plane; others have none."""

    dim = 2
    fingerprint = "angles"

    def encode_documents(self, texts):
        return np.array([self._direction(text) for text in texts], np.float32).reshape(-1, 2)

    encode_queries = encode_documents

    @staticmethod
    def _direction(text):
        first = text.split()[0] if text.split() else ""
        if first == "nan":
            return [np.nan, 0.0]
        if first == "long":
            return [2.0, 0.0]
        try:
            return [np.cos(np.radians(float(first))), np.sin(np.radians(float(first)))]
        except ValueError:
            return [0.0, 0.0]

    def num_truncated(self, texts):
        return 0

    def save(self, staging):
        raise NotImplementedError


def corpus(texts, prefix="d"):
    return Corpus.from_records([{"doc_id": f"{prefix}{i:03d}", "text": str(text)} for i, text in enumerate(texts)])


def texts_of(documents):
    return documents.table(["text"])["text"].to_pylist()


def slow_greedy(points, start, count):
    """The definition: a loop over picks, every distance anew."""
    picks = [start]
    while len(picks) < count:
        left = [row for row in range(len(points)) if row not in picks]
        gaps = [min(((points[row] - points[pick]) ** 2).sum() for pick in picks) for row in left]
        picks.append(left[int(np.argmax(gaps))])
    return picks


def mixed_pool():
    rng = np.random.default_rng(3)
    degrees = np.r_[rng.normal(10, 3, 40), rng.normal(100, 3, 12), rng.normal(200, 2, 5)].round(2).tolist()
    texts = [f"{d} {'word ' * int(n)}" for d, n in zip(degrees, rng.integers(1, 9, 57), strict=True)]
    return corpus([*texts, texts[0], texts[0], texts[50], "no direction", ""])


METHODS = [
    ClusterCoverage(budget=Budget(docs=12), num_clusters=5),
    ClusterCoverage(budget=Budget(words=60), num_clusters=4, share="sqrt", within="nearest"),
    KCenter(budget=Budget(docs=12), outlier_frac=0.1),
    KCenter(budget=Budget(frac=0.3), max_docs=40),
]


def test_worked_farthest_first():
    points = np.array([[0.0], [1.0], [4.0], [10.0]])
    ones = np.ones(4, np.int64)
    picks, radii, nearest = farthest_first(points, 0, ones, 3)
    assert picks.tolist() == [0, 3, 2]
    assert radii.tolist() == [np.inf, 100, 16]
    assert nearest.tolist() == [0, 1, 0, 0]
    assert farthest_first(points, 0, ones, 99)[0].tolist() == [0, 3, 2, 1]
    assert farthest_first(points, 0, np.array([5, 1, 1, 3]), 8)[0].tolist() == [0, 3]  # the next, row 2, has no room
    picks, _, nearest = farthest_first(points, 2, np.array([1, 1, 5, 1]), 4)  # not even the start
    assert (picks.tolist(), nearest.tolist()) == ([2], [16, 9, 0, 36])


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30),
    st.integers(1, 30),
    st.integers(1, 5),
)
def test_blocks_are_the_slow_greedy(cells, count, candidates):
    points = np.array(cells, np.float64)
    start = len(points) // 2
    saved, module._CANDIDATES, module._BLOCK = (module._CANDIDATES, module._BLOCK), candidates, 7
    try:
        picks, radii, nearest = farthest_first(points, start, np.ones(len(points), np.int64), count)
    finally:
        module._CANDIDATES, module._BLOCK = saved
    assert picks.tolist() == slow_greedy(points, start, min(count, len(points)))
    assert (np.diff(radii) <= 0).all() or len(radii) == 1  # the radius never grows
    assert nearest.tolist() == squared_distances(points, points[picks]).min(axis=1).tolist()


def test_distances_are_exact_and_never_negative():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = in_steps(vectors)
    found = squared_distances(points, points)
    whole = [[int(x) for x in row] for row in points.tolist()]
    wanted = [[sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for b in whole] for a in whole]
    assert [[int(x) for x in row] for row in found.tolist()] == wanted
    assert np.abs(np.sqrt(found) / STEPS - np.linalg.norm(vectors[:, None] - vectors, axis=2)).max() < 1e-5
    tenths = np.full((2, 3), 0.1)
    tenths[1, 0] += 1e-9
    assert (squared_distances(tenths, tenths) >= 0).all()


def test_k_center_closes_the_largest_gap_and_takes_copies_last():
    pool = corpus([0, 0, 0, 90, 180, "180 again", 100])
    choice = KCenter(budget=Budget(docs=4)).choose(pool, NOTHING, Angles(), seed=0)
    texts = texts_of(pool)
    directions = {float(texts[row].split()[0]) for row in np.flatnonzero(choice.kept)}
    assert len(directions) == 4
    assert choice.figures["coverage_max"] == 0.0
    assert choice.figures["coverage_max_uniform"] > 0.0
    assert sorted(choice.scores.tolist())[:3] == [0.0, 0.0, 0.0]
    everything = KCenter(budget=Budget(docs=6)).choose(pool, NOTHING, Angles(), seed=0)
    assert everything.kept[:3].sum() == 2 or everything.kept[4:6].sum() == 1
    assert (choice.kept <= everything.kept).all()


def test_k_center_starts_at_a_draw_and_scores_by_the_radius():
    pool = corpus([0, 60, 180])
    started = set()
    for seed in range(20):
        choice = KCenter(budget=Budget(docs=1)).choose(pool, NOTHING, Angles(), seed=seed)
        start = int(np.argmin(draws(text_keys(texts_of(pool)), seed, "centers")))
        assert np.flatnonzero(choice.kept).tolist() == [start]
        assert choice.scores[start] == 3.0
        started.add(start)
        if start == 0:
            assert choice.scores.tolist() == pytest.approx([3.0, 1.0, 2.0])
    assert started == {0, 1, 2}


def test_outliers_are_refused_by_the_distance_to_their_ten_nearest():
    rng = np.random.default_rng(1)
    points = np.r_[rng.normal(size=(60, 3)), [[50.0, 0, 0]], [[0, 40.0, 0]]].round(3)
    gaps = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    slow = np.sort(gaps, axis=1)[:, 1:11].mean(axis=1)
    for num_far in range(1, 40):
        assert far_from_nearest(points, num_far).tolist() == sorted(np.argsort(-slow)[:num_far].tolist())
    assert not len(far_from_nearest(np.ones((30, 2)), 5))  # equal points: none is far
    assert not len(far_from_nearest(np.ones((1, 2)), 1))
    pool = corpus([*np.linspace(0, 20, 49).round(2), 180])
    choice = KCenter(budget=Budget(docs=5), outlier_frac=0.02).choose(pool, NOTHING, Angles(), seed=0)
    assert choice.reasons.to_pylist()[-1] == "outlier"
    assert choice.scores[-1] == -np.inf
    assert "1 of 50 documents are refused as outlier." in choice.notes
    assert choice.figures["coverage_max"] == pytest.approx(2 * np.sin(np.radians(80)), abs=1e-6)  # it still counts
    assert KCenter(budget=Budget(docs=2), outlier_frac=0).choose(pool, NOTHING, Angles(), seed=0).kept[-1]


def test_clusters_give_in_turn_and_a_small_one_passes_on_its_share():
    degrees = [*np.linspace(0, 9, 40).round(2), *np.linspace(120, 124, 8).round(2), 240, 241]
    pool, groups = corpus(degrees), np.repeat([0, 1, 2], [40, 8, 2])
    for within in ("random", "nearest"):
        before = np.zeros(50, bool)
        for docs, wanted in ((3, [1, 1, 1]), (6, [2, 2, 2]), (12, [5, 5, 2]), (20, [10, 8, 2])):
            method = ClusterCoverage(budget=Budget(docs=docs), num_clusters=3, within=within)
            choice = method.choose(pool, NOTHING, Angles(), seed=4)
            assert np.bincount(groups[choice.kept]).tolist() == wanted
            assert choice.figures["num_clusters"] == 3
            assert choice.figures["clusters_hit"] == 1.0
            assert (before <= choice.kept).all()
            before = choice.kept
    sqrt = ClusterCoverage(budget=Budget(docs=11), num_clusters=3, share="sqrt").choose(pool, NOTHING, Angles(), seed=4)
    # 6.3 : 2.8 : 1.4; one each first, then always the smallest count over weight
    assert np.bincount(groups[sqrt.kept]).tolist() == [6, 3, 2]


def test_first_centres_are_drawn_by_the_squared_distance():
    points = np.array([[0.0], [1.0], [1.0], [3.0]])
    seconds = np.zeros(4)
    for seed in range(4000):
        drawn = _spread(points, text_keys(list("abcd")), 4, seed)
        assert len(drawn) == len({points[row, 0] for row in drawn}) == 3  # equal points share a centre
        seconds[drawn[1]] += drawn[0] == 0
    assert (seconds / seconds.sum())[1:] == pytest.approx([1 / 11, 1 / 11, 9 / 11], abs=0.03)


def test_centres_are_those_of_plain_k_means():
    rng = np.random.default_rng(2)
    degrees = np.radians(np.r_[rng.normal(0, 5, 30), rng.normal(150, 5, 9)])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    centres = _kmeans(vectors, np.arange(39, dtype=np.uint64), 2, 0) / STEPS
    wanted = np.array([vectors[:30].sum(axis=0), vectors[30:].sum(axis=0)])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert centres[np.argsort(-centres[:, 0])] == pytest.approx(wanted, abs=1e-6)


def test_within_a_cluster_the_nearest_to_its_centre_goes_first():
    degrees = [0, 10, 20, 30, 40, 20.5, 20.25]
    choice = ClusterCoverage(budget=Budget(docs=3), num_clusters=1, within="nearest").choose(
        corpus(degrees), NOTHING, Angles(), seed=0
    )
    centre = np.degrees(np.angle(np.exp(1j * np.radians(degrees)).sum()))
    order = np.argsort(np.abs(np.array(degrees) - centre), kind="stable")
    assert np.argsort(-choice.scores).tolist() == order.tolist()
    assert choice.scores[order].tolist() == [0, -1, -2, -3, -4, -5, -6]


def test_shares_are_measured_in_the_unit_of_the_budget():
    texts = [*(f"{d} " + "long " * 30 for d in range(10)), *(f"{d} x" for d in range(120, 140))]
    choice = ClusterCoverage(budget=Budget(words=140), num_clusters=2).choose(corpus(texts), NOTHING, Angles(), seed=0)
    words = [31 * int(choice.kept[:10].sum()), 2 * int(choice.kept[10:].sum())]
    assert words == [93, 40]  # the short ones are all there before the long ones get more


def test_copies_come_after_everything_else_of_their_cluster():
    for within in ("random", "nearest"):
        for seed in range(5):
            method = ClusterCoverage(budget=Budget(docs=5), num_clusters=1, within=within)
            choice = method.choose(corpus(["5 same"] * 6 + [4, 5, 6, 7]), NOTHING, Angles(), seed=seed)
            assert choice.kept.tolist() == [True] + [False] * 5 + [True] * 4


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_document_is_kept_or_dropped_with_a_reason(method):
    pool = mixed_pool()
    chosen = method.select(pool, NOTHING, Angles(), seed=1)
    names, dropped = chosen.kept.doc_ids.to_pylist(), chosen.dropped.to_pylist()
    assert names
    assert sorted(names + [row["doc_id"] for row in dropped]) == pool.doc_ids.to_pylist()
    assert names == sorted(names)
    reasons = {row["doc_id"]: row["reason"] for row in dropped}
    assert reasons["d060"] == reasons["d061"] == "zero_vector"
    assert set(reasons.values()) <= {"over_budget", *method.reasons}
    assert "over_budget" in reasons.values()
    assert chosen.figures[f"kept_{method.budget.unit}"] <= chosen.figures["budget"]
    assert type(method).from_json(method.model_dump_json(), "x") == method
    for part in ("mean", "max"):
        assert 0 <= chosen.figures[f"coverage_{part}"] <= 2
        if "outlier" not in method.reasons:  # here a rare kind is trimmed
            assert chosen.figures[f"coverage_{part}"] <= chosen.figures[f"coverage_{part}_uniform"] <= 2


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_parts_of_a_choice(method):
    pool = mixed_pool()
    vectors = method.prepare(method.embed(pool, Angles()), seed=1)
    model = pickle.loads(pickle.dumps(method.fit(vectors, NOTHING, seed=1)))  # noqa: S301 - our own
    wanted = method.choose(pool, NOTHING, Angles(), seed=1)
    found = np.concatenate([method.score(batch, model) for batch in pool.batches(batch_docs=9)])
    assert found.tolist() == wanted.scores.tolist()
    assert method.measure(pool, NOTHING, Angles(), seed=1).scores.tolist() == wanted.scores.tolist()
    again = method.choose(pool, NOTHING, None, seed=1, pool=method.embed(pool, Angles()))
    assert outcome(again) == outcome(wanted)
    if getattr(method, "within", "random") == "random":
        assert outcome(method.choose(pool, NOTHING, Angles(), seed=2)) != outcome(wanted)
    with pytest.raises(DataError, match="'x000' was not in the pool"):
        method.score(next(iter(corpus(["1"], "x").batches())), model)


def test_a_pool_prepared_by_another_method_or_seed_is_prepared_anew():
    pool = mixed_pool()
    for method in METHODS:
        for other in METHODS:
            given = other.study(pool, Angles(), seed=2)
            for seed in (1, 2):
                if method.budget.unit == other.budget.unit:
                    wanted = method.choose(pool, NOTHING, Angles(), seed=seed)
                    assert outcome(method.choose(pool, NOTHING, None, seed=seed, pool=given)) == outcome(wanted)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_several_targets_share_no_document(method):
    pool = mixed_pool()
    targets = {"one": corpus(["5 some words"], "t"), "two": corpus(["7 other words here"], "t")}
    choices = choose_for_targets(method, pool, targets, {"one": 1, "two": 1}, Angles(), seed=0)
    assert not (choices["one"].kept & choices["two"].kept).any()
    assert all(choice.kept.any() for choice in choices.values())
    reasons = [set(choice.reasons.to_pylist()) for choice in choices.values()]
    assert sum("taken_for_other_target" in found for found in reasons) == 1
    taken = np.ones(len(pool), bool)
    none = method.choose(pool, targets["one"], Angles(), seed=0, taken=taken)
    assert not none.kept.any()


@pytest.mark.parametrize(
    "method",
    [ClusterCoverage(budget=Budget(docs=9), num_clusters=1), KCenter(budget=Budget(docs=9), outlier_frac=0.0)],
    ids=repr,
)
def test_what_another_target_took_uses_up_no_share(method):
    degrees = np.linspace(0, 350, 40).round(2)
    taken = np.arange(40) % 3 > 0
    choice = method.choose(corpus(degrees), NOTHING, Angles(), seed=0, taken=taken)
    rest = [f"d{row:03d}" for row in np.flatnonzero(~taken)]
    alone = Corpus.from_records([{"doc_id": name, "text": str(degrees[int(name[1:])])} for name in rest])
    assert kept_ids(choice) == kept_ids(method.choose(alone, NOTHING, Angles(), seed=0))
    assert len(kept_ids(choice)) == 9
    assert set(choice.reasons.to_pylist()) == {None, "over_budget", "taken_for_other_target"}
    taken[3 * np.arange(10)] = True  # four are left, and so the control has them, too
    few = method.choose(corpus(degrees), NOTHING, Angles(), seed=0, taken=taken)
    assert len(kept_ids(few)) == 4
    assert few.figures["coverage_mean"] == few.figures["coverage_mean_uniform"] > 0


def test_a_cluster_that_another_target_took_from_still_gives_its_share():
    degrees = np.r_[np.linspace(0, 9, 20), np.linspace(180, 189, 20)].round(2)
    taken = np.arange(40) < 16
    for within in ("random", "nearest"):
        method = ClusterCoverage(budget=Budget(docs=8), num_clusters=2, within=within)
        choice = method.choose(corpus(degrees), NOTHING, Angles(), seed=0, taken=taken)
        assert (choice.kept[:20].sum(), choice.kept[20:].sum()) == (4, 4)


def test_copies_have_no_vote_on_the_centres():
    method = ClusterCoverage(budget=Budget(docs=1), num_clusters=1, within="nearest")
    choice = method.choose(corpus([*["0 copy"] * 50, 10, 20, 30, 40]), NOTHING, Angles(), seed=0)
    assert kept_ids(choice) == ["d051"]


def test_a_pool_above_max_docs_is_drawn_down():
    pool = corpus(np.linspace(0, 350, 60).round(2))
    method = KCenter(budget=Budget(docs=5), max_docs=20)
    choice = method.choose(pool, NOTHING, Angles(), seed=0)
    reasons = choice.reasons.to_pylist()
    assert (reasons.count("not_drawn"), reasons.count("over_budget"), reasons.count(None)) == (40, 15, 5)
    drawn = [reason != "not_drawn" for reason in reasons]
    keys = draws(text_keys(texts_of(pool)), 0, "centers")
    assert np.argsort(keys)[:20].tolist() == np.argsort(np.where(drawn, keys, 2**64 - 1))[:20].tolist()


def test_bad_input():
    pool = mixed_pool()
    for method in METHODS:
        with pytest.raises(UsageError, match=r"got no encoder. Give one: load_encoder\(folder\)"):
            method.choose(pool, NOTHING, None, seed=0)
        with pytest.raises(DataError, match="the pool has no documents"):
            method.choose(NOTHING, NOTHING, Angles(), seed=0)
        with pytest.raises(DataError, match="2 zero_vector"):
            method.choose(corpus(["nothing", "here"]), NOTHING, Angles(), seed=0)
        with pytest.raises(DataError, match=r"'d001': the encoder gave a vector of length 2\. Vectors must"):
            method.choose(corpus(["3", "long"]), NOTHING, Angles(), seed=0)
        with pytest.raises(DataError, match="length nan"):
            method.choose(corpus(["3", "nan"]), NOTHING, Angles(), seed=0)
        identical = method.choose(corpus(["30 same text"] * 20), NOTHING, Angles(), seed=0)
        assert identical.kept.sum() == (method.budget.docs or method.budget.limit(60) // 3)
        assert identical.figures["coverage_max"] == 0
        assert kept_ids(identical) == sorted(kept_ids(identical))
        assert kept_ids(identical)[0] == "d000"
        assert identical.kept.tolist() == sorted(identical.kept.tolist(), reverse=True)  # equal contents go by id
    few = ClusterCoverage(budget=Budget(docs=50), num_clusters=1000).choose(pool, NOTHING, Angles(), seed=0)
    assert few.figures["num_clusters"] <= 57
    one = KCenter(budget=Budget(docs=3)).choose(corpus(["3"]), NOTHING, Angles(), seed=0)
    assert one.kept.tolist() == [True]
    assert "larger than the 1" in one.notes[0]
    for method in (ClusterCoverage, KCenter):
        with pytest.raises(UsageError, match="Give at least that many words"):
            method(budget=Budget(words=1)).choose(corpus(["30 two", "31 three"]), NOTHING, Angles(), seed=0)
    with pytest.raises(RecipeError, match="outlier_frac"):
        KCenter(budget=Budget(docs=1), outlier_frac=1.0)
