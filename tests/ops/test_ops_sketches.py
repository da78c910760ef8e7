"""The laws of every sketch, over random cuts and merges, and the bins worked by hand."""

from functools import reduce

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import DataError
from tamis.ops.sketches import BottomK, DocumentFrequency, Histogram, OrderedHistogram, TopK, bin_of, lower_end

FLOATS = st.floats(allow_nan=False, width=64)
ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.5, 2.0]), st.integers(0, 40)), max_size=25)


def table_of(rows):
    return pa.table(
        {
            "score": pa.array([r[1] for r in rows], pa.float64()),
            "key": pa.array([r[0] for r in rows], pa.uint64()),
            "doc_id": pa.array([f"d{r[2]:02d}" for r in rows], pa.large_string()),
        }
    )


def frequency(sketch, rows):
    lists = [[r[0] % 3, r[0] % 5, r[0] % 3] for r in rows]  # a function of the content, which the key stands for
    starts = np.arange(len(rows) + 1) * 3
    keys = np.array([r[0] for r in rows], np.uint64)
    ids = pa.array([f"d{r[2]:02d}" for r in rows], pa.large_string())
    return sketch.add(keys, ids, np.array([h for row in lists for h in row], np.uint64), starts)


KINDS = {
    "histogram": (lambda: Histogram.empty(16), lambda s, rows: s.add(np.array([r[0] for r in rows], np.int64))),
    "ordered": (OrderedHistogram.empty, lambda s, rows: s.add(np.array([r[1] * r[2] for r in rows]))),
    "bottom": (lambda: BottomK(4), lambda s, rows: s.add(table_of(rows).drop_columns("score"))),
    "top": (lambda: TopK(4), lambda s, rows: s.add(table_of(rows))),
    "frequency": (lambda: DocumentFrequency.empty(4), frequency),
}


def same(one, other):
    return one.to_table().to_pydict() == other.to_table().to_pydict()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_laws(kind, data):
    empty, add = KINDS[kind]
    rows = data.draw(ROWS)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    parts = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    whole = add(empty(), rows)
    sketches = data.draw(st.permutations([add(empty(), part) for part in parts]))
    merged = reduce(lambda a, b: a.merge(b), sketches)
    assert same(merged, whole)
    assert same(reduce(lambda a, b: b.merge(a), sketches), whole)
    assert same(reduce(add, parts, empty()), whole)
    assert same(type(whole).from_table(whole.to_table()), whole)
    assert same(whole.merge(empty()), whole)
    assert same(empty().merge(whole), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_sketch_survives_its_table(kind):
    empty = KINDS[kind][0]()
    assert same(type(empty).from_table(empty.to_table()), empty)
    assert same(empty.merge(empty), empty)


def test_worked_bins():
    values = [-1.0, 0.0, 0.5, 1.0, 1.0039, 1.004, 2.0]
    assert bin_of(np.array(values)).tolist() == [262399, 524288, 785920, 786176, 786176, 786177, 786432]
    assert bin_of(np.array([-0.0])) == 524288
    assert lower_end(np.array([786176, 524288, 786432])).tolist() == [1.0, 0.0, 2.0]
    with pytest.raises(DataError, match="value 1 is NaN"):
        bin_of(np.array([0.0, np.nan]))


@given(st.lists(FLOATS, min_size=2, max_size=10))
def test_bins_ascend_and_hold_their_lower_end(values):
    ordered = np.sort(np.array(values))
    bins = bin_of(ordered)
    assert (np.diff(bins) >= 0).all()
    assert (bin_of(lower_end(bins[np.isfinite(lower_end(bins))])) == bins[np.isfinite(lower_end(bins))]).all()


def test_quantiles_are_within_a_bin_and_the_cdf_counts_ties_half():
    values = np.random.default_rng(0).lognormal(size=5000)
    histogram = OrderedHistogram.empty().add(values[:1000]).merge(OrderedHistogram.empty().add(values[1000:]))
    assert len(histogram) == 5000
    for frac in (0.0, 0.1, 0.5, 0.99, 1.0):
        exact = np.sort(values)[max(1, int(np.ceil(frac * 5000))) - 1]
        assert exact * (1 - 2.0**-8) <= histogram.quantile(frac) <= exact
    few = OrderedHistogram.empty().add(np.array([1.0, 2.0, 2.0, 4.0]))
    assert few.cdf(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 9.0])).tolist() == [0, 0.125, 0.5, 0.75, 0.875, 1]
    with pytest.raises(DataError, match="no values"):
        OrderedHistogram.empty().quantile(0.5)


def test_bottom_k_is_one_item_a_content_and_nested_in_k():
    rows = [(5, 0.0, 2), (1, 0.0, 9), (5, 0.0, 1), (9, 0.0, 0), (1, 0.0, 7), (1, 0.0, 8)]
    three, two = BottomK(3).add(table_of(rows)), BottomK(2).add(table_of(rows))
    assert three.items["key"].to_pylist() == [1, 5, 9]
    assert three.items["doc_id"].to_pylist() == ["d07", "d01", "d00"]  # the smallest id of equal contents
    assert two.items.equals(three.items.slice(0, 2))


def test_top_k_breaks_ties_by_key_and_then_id():
    rows = [(7, 1.0, 3), (2, 1.0, 8), (2, 1.0, 5), (0, 0.5, 1), (9, 2.0, 2)]
    assert TopK(4).add(table_of(rows)).items["doc_id"].to_pylist() == ["d02", "d05", "d08", "d03"]


def test_document_frequency_counts_a_document_once():
    found, counts = frequency(DocumentFrequency.empty(9), [(0, 0, 1), (1, 0, 2), (6, 0, 3)]).counts()
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == {0: 2, 1: 2}
    assert [len(x) for x in DocumentFrequency.empty(9).counts()] == [0, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [(Histogram.empty(2), Histogram.empty(3)), (BottomK(2), BottomK(3)), (TopK(2), TopK(3))],
)
def test_sketches_of_other_sizes_are_refused(one, other):
    with pytest.raises(DataError, match="cannot be merged"):
        one.merge(other)
