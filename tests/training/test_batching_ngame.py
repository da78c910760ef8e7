"""NGAME: the card's example, even clusters, each query once, copies apart, refreshed on time, and harder negatives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import DataError, RecipeError
from tamis.ops.hashing import text_keys
from tamis.training.batching.ngame import NGAME, in_steps
from tamis.training.batching.random import RandomOrder


def keys_of(num):
    return text_keys([f"query {i}" for i in range(num)])


def noise(num, width=8, seed=0):
    return np.random.default_rng(seed).normal(size=(num, width)).astype(np.float32)


def members(labels):
    return {frozenset(np.flatnonzero(labels == c).tolist()) for c in set(labels.tolist())}


@pytest.mark.parametrize("seed", range(8))  # other keys are another first mean
def test_by_hand(seed):
    """Four unit vectors at 0, 10, 90 and 100 degrees: the near ones are together."""
    angles = np.deg2rad([0, 10, 90, 100])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    keys = np.random.default_rng(seed).integers(0, 2**63, 4).astype(np.uint64)
    labels = NGAME(start_epoch=0).clusters(vectors, keys, epoch=0)
    assert members(labels) == {frozenset({0, 1}), frozenset({2, 3})}
    longer = NGAME(start_epoch=0).clusters(vectors * [[1], [100], [0.01], [7]], keys, epoch=0)
    assert (longer == labels).all()  # directions count, not lengths


def test_pairs_along_a_line_stay_together():
    """Eight pairs of neighbours; the halves are found from far apart to near."""
    angles = np.deg2rad([10 * (i // 2) + i % 2 for i in range(16)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = NGAME(start_epoch=0, cluster_sizes=(2,)).clusters(vectors, keys_of(16), epoch=0)
    assert members(labels) == {frozenset({2 * i, 2 * i + 1}) for i in range(8)}


@settings(max_examples=60)
@given(num=st.integers(1, 90), size=st.integers(2, 12), seed=st.integers(0, 9), copies=st.integers(0, 5))
def test_clusters_differ_by_one_and_copies_stand_alone(num, size, seed, copies):
    keys = np.concatenate([keys_of(num), keys_of(num)[:copies]])
    vectors = noise(num, seed=seed)
    vectors = np.concatenate([vectors, vectors[:copies]])
    sampler = NGAME(start_epoch=0, cluster_sizes=(size,), size=64)
    labels = sampler.clusters(vectors, keys, epoch=0)
    counts = np.bincount(labels)
    first = np.unique(keys, return_index=True)[1]
    copied = np.setdiff1d(np.arange(len(keys)), first)
    assert (counts[labels[copied]] == 1).all()
    sizes = np.bincount(labels[first])
    assert sizes.max() <= size
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == -(-num // size)
    order = np.random.default_rng(seed).permutation(len(keys))
    if not copies:
        turned = sampler.clusters(vectors[order], keys[order], epoch=0)
        assert (turned == labels[order]).all()  # the order of rows does not matter
    made = sampler.order(vectors, keys, seed=seed, epoch=0)
    assert sorted(made.tolist()) == list(range(len(keys)))
    assert (np.diff(labels[made]) != 0).sum() == len(counts) - 1  # a cluster's members stand together


def slow_halves(points, rows, half, rounds=10):
    """Balanced 2-means with Python integers and exact sorting."""
    first = [points[rows[0]]]
    far = min(
        reversed(rows), key=lambda r: sum(int(a) * int(b) for a, b in zip(points[r], points[rows[0]], strict=True))
    )
    second, found = [points[far]], rows

    def direction(group):
        total = np.sum(np.array(group, dtype=np.int64), axis=0).astype(np.float64)
        norm = np.sqrt(sum(x * x for x in total))
        return total * (1 / norm) if norm else total

    for _ in range(rounds):
        gap = direction(first) - direction(second)
        norm = np.sqrt(sum(x * x for x in gap))
        steps = [int(np.rint(x * (2048.0 / norm))) if norm else 0 for x in gap]
        ranked = sorted(rows, key=lambda r: (-sum(int(a) * s for a, s in zip(points[r], steps, strict=True)), r))
        again = sorted(ranked[:half]) + sorted(ranked[half:])
        if again == found:
            break
        found = again
        first, second = [points[r] for r in found[:half]], [points[r] for r in found[half:]]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_halving_is_the_slow_one(seed):
    num = 36 + seed
    clusters = -(-num // 5)
    vectors = noise(num, 5, seed) if seed % 2 else np.sign(noise(num, 5, seed))  # the latter with many ties
    points = in_steps(vectors)
    wanted, parts = list(range(num)), [(0, clusters)]
    while parts:
        low, high = parts.pop()
        if high - low > 1:
            middle = (low + high) // 2
            start, cut, stop = (place * num // clusters for place in (low, middle, high))
            wanted[start:stop] = slow_halves(points, sorted(wanted[start:stop]), cut - start)
            parts += [(low, middle), (middle, high)]
    slow = np.empty(num, np.int64)
    for cluster in range(clusters):
        slow[wanted[cluster * num // clusters : (cluster + 1) * num // clusters]] = cluster
    keys = np.arange(num, dtype=np.uint64)
    labels = NGAME(start_epoch=0, cluster_sizes=(5,)).clusters(vectors, keys, epoch=0)
    assert len(set(labels.tolist())) == clusters
    assert labels.tolist() == slow.tolist()


class Encoder:
    """Vectors that change with each epoch they are asked for."""

    def __init__(self, num):
        self.num, self.asked = num, []

    def __call__(self, epoch):
        self.asked.append(epoch)
        return noise(self.num, seed=epoch)


def test_the_encoder_is_asked_when_clusters_are_made_anew_and_only_then():
    encoder = Encoder(100)
    sampler = NGAME(size=32, start_epoch=2, refresh_every=3, cluster_sizes=(2, 4)).sampler(encoder, keys_of(100))
    made = {}
    for epoch in range(9):
        made[epoch] = sampler.batches(100, 5, epoch)
        again = sampler.batches(100, 5, epoch)
        assert [a.tolist() for a in again] == [b.tolist() for b in made[epoch]]
        assert sorted(np.concatenate(made[epoch]).tolist()) == list(range(100))
        assert [len(rows) for rows in made[epoch]] == [32, 32, 32, 4]
    assert encoder.asked == [2, 5, 8]
    for epoch in (0, 1):  # nothing is known yet: random batches
        assert [a.tolist() for a in made[epoch]] == [b.tolist() for b in RandomOrder(size=32).batches(100, 5, epoch)]
    order = np.concatenate(made[3])  # clusters of epoch 2, another order of them
    labels = NGAME(size=32, start_epoch=2, refresh_every=3, cluster_sizes=(2, 4)).clusters(
        noise(100, seed=2), keys_of(100), epoch=2
    )
    assert (np.diff(labels[order]) != 0).sum() == 49
    assert order.tolist() != np.concatenate(made[2]).tolist()


def test_sizes_grow_with_each_clustering_and_the_last_stays():
    sampler = NGAME(start_epoch=1, refresh_every=2, cluster_sizes=(2, 4, 8), size=32)
    sizes = [np.bincount(sampler.clusters(noise(64), keys_of(64), epoch=e)).max() for e in range(1, 11)]
    assert sizes == [2, 2, 4, 4, 8, 8, 8, 8, 8, 8]


def test_a_run_that_goes_on_in_an_epoch_finds_its_batches_by_the_kept_clusters():
    before, after = (NGAME(size=32).sampler(Encoder(50), keys_of(50)) for _ in range(2))
    made = before.batches(50, 0, 1)
    after.labels.update(before.labels)
    assert [r.tolist() for r in after.batches(50, 0, 1)] == [r.tolist() for r in made]
    assert (before.vectors.asked, after.vectors.asked) == ([1], [])


def test_negatives_are_harder_than_in_random_batches_and_with_random_vectors():
    """The effect of the card, and its control: clusters of vectors that have nothing to do with the queries."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(60, 32))
    vectors = np.repeat(topics, 16, axis=0) + 1.2 * rng.normal(size=(960, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sampler = NGAME(start_epoch=0, cluster_sizes=(8,), size=64)

    def hardest(batches):
        found = []
        for rows in batches:
            cosines = vectors[rows] @ vectors[rows].T
            np.fill_diagonal(cosines, -1)
            found += cosines.max(axis=1).tolist()
        return float(np.mean(found))

    keys = keys_of(960)
    clustered = hardest(sampler.sampler(lambda _: vectors, keys).batches(960, 0, 0))
    control = hardest(sampler.sampler(lambda _: noise(960, 32), keys).batches(960, 0, 0))
    at_random = hardest(RandomOrder(size=64).batches(960, 0, 0))
    assert clustered > at_random + 0.05
    assert abs(control - at_random) < 0.02


def test_equal_and_empty_vectors_are_no_trouble():
    labels = NGAME(start_epoch=0).clusters(np.ones((7, 3)), keys_of(7), epoch=0)
    assert sorted(np.bincount(labels).tolist()) == [1, 2, 2, 2]
    labels = NGAME(start_epoch=0).clusters(np.zeros((4, 3)), keys_of(4), epoch=0)
    assert np.bincount(labels).tolist() == [2, 2]
    assert NGAME().order(np.zeros((0, 3)), keys_of(0), seed=0, epoch=1).tolist() == []
    assert NGAME().order(np.ones((1, 3)), keys_of(1), seed=0, epoch=1).tolist() == [0]


def test_products_stay_exact_however_wide_the_vectors():
    steps = in_steps(noise(50, 4096)).astype(np.int64)
    products = np.abs(steps) @ np.abs(steps).T
    assert products.max() < 2**24


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="row 2 holds NaN"):
        NGAME().clusters(np.array([[1.0], [1.0], [np.nan]]), keys_of(3), epoch=1)
    with pytest.raises(DataError, match="3 rows are needed"):
        NGAME().clusters(np.ones((2, 2)), keys_of(3), epoch=1)
    with pytest.raises(DataError, match="batches of 4 queries are wanted, 3 are known"):
        NGAME().sampler(Encoder(3), keys_of(3)).batches(4, 0, 0)
    with pytest.raises(RecipeError, match="a cluster of 64 in batches of 128"):
        NGAME(cluster_sizes=(2, 64))
    with pytest.raises(RecipeError):
        NGAME(cluster_sizes=())
