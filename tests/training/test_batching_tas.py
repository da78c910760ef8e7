"""TAS-Balanced: the card's numbers, even bins and clusters, batches of one topic, and harder in-batch negatives."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tamis.errors import DataError
from tamis.ops.hashing import text_keys
from tamis.training.batching.random import RandomOrder
from tamis.training.batching.tas import MarginPairs, TASBalanced, margin_bins
from tamis.training.finetune.pairs import Lists

MARGINS = np.array([0.0, 1, 2, 3, 9, 10])


def blobs(num_topics, size, *, seed=0, width=16, noise=0.3):
    """Unit vectors around a random direction for each topic, rows in random order; and each row's topic."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_topics, width))
    topic = rng.permutation(np.repeat(np.arange(num_topics), size))
    vectors = centres[topic] / np.linalg.norm(centres[topic], axis=1, keepdims=True)
    vectors = vectors + noise * rng.normal(size=vectors.shape) / np.sqrt(width)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), topic


def test_bins_by_hand():
    assert margin_bins(np.zeros(6, np.int64), MARGINS, 10, 1).tolist() == [0, 1, 2, 3, 9, 9]
    # each query has its own range; equal margins are one bin; a single pair stays
    queries = np.array([0, 1, 0, 2, 1, 3, 3])
    margins = np.array([-1.0, 5, 1, 7, 6, 2, 2])
    assert margin_bins(queries, margins, 10, 4).tolist() == [0, 0, 9, 0, 9, 0, 0]
    huge = np.array([-1.7e308, 0.0, 1.7e308])
    assert margin_bins(np.zeros(3, np.int64), huge, 10, 1).tolist() == [0, 5, 9]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-50, 50)), min_size=1), st.integers(1, 12))
def test_bins_are_the_slow_ones(pairs, num_bins):
    queries, margins = (np.array(column) for column in zip(*pairs, strict=True))
    found = margin_bins(queries, margins / 4, num_bins, 4)
    for query, margin, number in zip(queries, margins, found, strict=True):
        mine = margins[queries == query]
        width = int(mine.max() - mine.min())
        exact = 0 if width == 0 else min(num_bins - 1, int(margin - mine.min()) * num_bins // width)
        on_an_edge = width > 0 and int(margin - mine.min()) * num_bins % width == 0
        assert number == exact or (on_an_edge and number == exact - 1)  # a float may fall below its edge


def test_bins_are_drawn_evenly_and_so_are_the_pairs_of_a_bin():
    """Five bins are not empty: margin 0 has one in five, margins 9 and 10 share the last bin, one in ten each."""
    counts = Counter()
    for epoch in range(3000):
        (pairs,) = TASBalanced(size=2).batches(np.array([0]), np.zeros(6, np.int64), MARGINS, seed=1, epoch=epoch)
        counts.update(pairs.tolist())
    expected = 3000 * np.array([0.2, 0.2, 0.2, 0.2, 0.1, 0.1])
    assert stats.chisquare([counts[i] for i in range(6)], expected).pvalue > 1e-3


def test_a_batch_is_of_one_topic_where_the_topic_is_large_and_clusters_are_even():
    clusters = np.repeat([0, 1, 2], [40, 20, 20])
    seen = Counter()
    for epoch in range(120):
        for rows in TASBalanced(size=16).queries(clusters, seed=3, epoch=epoch):
            assert len(rows) == len(set(rows.tolist())) == 16
            assert len(set(clusters[rows].tolist())) == 1
            seen[int(clusters[rows[0]])] += 1
    assert sum(seen.values()) == 120 * 5  # as many batches as would show each query once
    assert stats.chisquare([seen[c] for c in range(3)]).pvalue > 1e-3


def test_a_small_cluster_is_filled_up_and_every_query_of_it_is_there():
    clusters = np.array([0] * 5 + [1] * 7 + [2] * 30)
    for rows in TASBalanced(size=10).queries(clusters, seed=0, epoch=0):
        assert len(rows) == len(set(rows.tolist())) == 10
        complete = [c for c in range(3) if set(np.flatnonzero(clusters == c)) <= set(rows.tolist())]
        assert len(set(clusters[rows].tolist())) <= len(complete) + 1
    rows = TASBalanced(size=64).queries(clusters, seed=0, epoch=0)
    assert [sorted(r.tolist()) for r in rows] == [list(range(42))]


@settings(max_examples=60)
@given(
    clusters=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    pairs=st.lists(st.tuples(st.integers(0, 39), st.integers(-9, 9)), min_size=1, max_size=80),
    size=st.integers(2, 12),
    seed=st.integers(0, 5),
)
def test_each_query_of_a_batch_has_one_pair_of_its_own(clusters, pairs, size, seed):
    queries = np.array([q % len(clusters) for q, _ in pairs])
    margins = np.array([m for _, m in pairs]) / 2
    sampler = TASBalanced(size=size)
    made = sampler.batches(np.array(clusters), queries, margins, seed=seed, epoch=1)
    with_pairs = len(set(queries.tolist()))
    assert len(made) == -(-with_pairs // size)
    for rows in made:
        asked = queries[rows].tolist()
        assert len(asked) == len(set(asked)) == min(size, with_pairs)
    again = sampler.batches(np.array(clusters), queries, margins, seed=seed, epoch=1)
    assert [r.tolist() for r in again] == [r.tolist() for r in made]


def test_epochs_seeds_and_batches_differ():
    clusters, queries = np.zeros(60, np.int64), np.repeat(np.arange(60), 3)
    margins = np.tile([0.0, 1, 2], 60)

    def drawn(seed, epoch):
        return [r.tolist() for r in TASBalanced(size=8).batches(clusters, queries, margins, seed=seed, epoch=epoch)]

    first = drawn(0, 0)
    assert first != drawn(0, 1)
    assert first != drawn(1, 0)
    assert len({tuple(r) for r in first}) == len(first)


def test_topics_are_the_blobs_whatever_the_order_of_rows():
    vectors, topic = blobs(12, 40)
    keys = text_keys([f"query {i}" for i in range(len(vectors))])
    sampler = TASBalanced(num_clusters=24)
    labels = sampler.topics(vectors, keys, seed=0)
    purity = sum(Counter(topic[labels == c].tolist()).most_common(1)[0][1] for c in set(labels.tolist())) / len(topic)
    assert purity > 0.85  # 12 kinds: labels drawn by lot would reach .2
    order = np.random.default_rng(1).permutation(len(vectors))
    turned = sampler.topics(vectors[order], keys[order], seed=0)
    assert (turned == labels[order]).all()
    assert len(set(TASBalanced().topics(vectors, keys, seed=0).tolist())) <= 8  # max(8, 480 / 64)
    assert TASBalanced().topics(vectors[:1], keys[:1], seed=0).tolist() == [0]


def test_negatives_in_the_batch_are_harder_than_at_random_and_with_permuted_clusters():
    """The effect of the card; its control: the same cluster sizes, who is in them drawn by lot."""
    vectors, _ = blobs(20, 64, noise=0.8)
    keys = text_keys([f"query {i}" for i in range(len(vectors))])
    sampler = TASBalanced(size=32)
    labels = sampler.topics(vectors, keys, seed=0)
    permuted = np.random.default_rng(2).permutation(labels)

    def similarity(batches):
        values = []
        for rows in batches:
            cosines = vectors[rows] @ vectors[rows].T
            values.append(cosines[~np.eye(len(rows), dtype=bool)].mean())
        return float(np.mean(values))

    topical = similarity(sampler.queries(labels, seed=0, epoch=0))
    control = similarity(sampler.queries(permuted, seed=0, epoch=0))
    at_random = similarity(RandomOrder(size=32).batches(len(vectors), 0, 0))
    assert topical > 0.3
    assert abs(control) < 0.1
    assert abs(at_random) < 0.1


def test_margin_pairs_by_hand_and_by_the_slow_one():
    # query 0: answers 5 and 7 score 2.0 and 1.0, documents 1 and 3 score 0.5 and -1; query 1 has no scored answer
    positives = Lists(np.array([5, 7, 4]), np.array([0, 2, 3]))
    scored = Lists(np.array([1, 5, 3, 7, 2]), np.array([0, 4, 5]))
    scores = np.array([0.5, 2.0, -1.0, 1.0, 9.0], dtype=np.float32)
    made = MarginPairs.of(positives, scored, scores)
    rows = zip(
        made.queries.tolist(), made.positives.tolist(), made.negatives.tolist(), made.margins.tolist(), strict=True
    )
    assert sorted(rows) == [(0, 5, 1, 1.5), (0, 5, 3, 3.0), (0, 7, 1, 0.5), (0, 7, 3, 2.0)]
    nothing = MarginPairs.of(Lists.of(np.zeros(0, np.int64), np.zeros(0, np.int64), 2), scored, scores)
    assert len(nothing.queries) == len(nothing.margins) == 0


@settings(max_examples=60)
@given(st.data())
def test_margin_pairs_are_the_slow_ones(data):
    docs = st.sets(st.integers(0, 7))
    answers, scored = (data.draw(st.lists(docs, min_size=3, max_size=3)) for _ in range(2))
    values = [{d: data.draw(st.integers(-9, 9)) / 4 for d in sorted(found)} for found in scored]

    def lists(found):
        owners = np.repeat(np.arange(3), [len(f) for f in found])
        return Lists.of(owners, np.array([d for f in found for d in sorted(f)], dtype=np.int64), 3)

    flat = np.array([v[d] for v in values for d in sorted(v)], dtype=np.float32)
    made = MarginPairs.of(lists(answers), lists(scored), flat)
    slow = [
        (q, p, n, values[q][p] - values[q][n])
        for q in range(3)
        for p in answers[q] & scored[q]
        for n in scored[q] - answers[q]
    ]
    rows = zip(
        made.queries.tolist(), made.positives.tolist(), made.negatives.tolist(), made.margins.tolist(), strict=True
    )
    assert sorted(rows) == sorted(slow)


def test_bad_input_is_refused():
    clusters, queries, margins = np.zeros(2, np.int64), np.array([0, 1]), np.array([0.0, 1.0])
    sampler = TASBalanced()
    with pytest.raises(DataError, match="query 1 has cluster -1"):
        sampler.queries(np.array([0, -1]), seed=0, epoch=0)
    with pytest.raises(DataError, match="pair 1 has no finite margin"):
        sampler.batches(clusters, queries, np.array([0.0, np.nan]), seed=0, epoch=0)
    for wrong in (np.array([0, 2]), np.array([0, -1]), np.array([0, 1, 1])):
        with pytest.raises(DataError, match="Give each pair a query and a margin"):
            sampler.batches(clusters, wrong, margins, seed=0, epoch=0)
    with pytest.raises(DataError, match="no pair to draw from"):
        sampler.batches(clusters, np.zeros(0, np.int64), np.zeros(0), seed=0, epoch=0)
    with pytest.raises(DataError, match="row 1 holds NaN"):
        sampler.topics(np.array([[1.0], [np.inf]]), np.arange(2, dtype=np.uint64), seed=0)
    with pytest.raises(DataError, match="3 rows are needed, got shape"):
        sampler.topics(np.ones((2, 2)), np.arange(3, dtype=np.uint64), seed=0)
    assert sampler.queries(np.zeros(0, np.int64), seed=0, epoch=0) == []
