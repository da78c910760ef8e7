"""Subset: the same as the kept rows loaded into memory, whatever is asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, artefact
from tamis.data.subset import Subset
from tamis.errors import DataError


def corpus_of(num_docs):
    return Corpus.from_records({"doc_id": f"d{n}", "title": f"t{n % 3}", "text": f"text {n}"} for n in range(num_docs))


def test_the_worked_example():
    subset = Subset(corpus_of(5), np.array([True, False, False, True, True]))
    assert len(subset) == 3
    assert subset.doc_ids.to_pylist() == ["d0", "d3", "d4"]
    assert subset.rows_of(["d4", "d1"]).tolist() == [2, -1]
    assert subset.take([2, 0], ["text"])["text"].to_pylist() == ["text 4", "text 0"]
    assert subset.document("d3")["text"] == "text 3"


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 9))
def test_it_equals_the_rows_loaded(mask, batch_docs):
    whole, kept = corpus_of(len(mask)), np.array(mask)
    subset, loaded = Subset(whole, kept), whole.select(np.flatnonzero(kept))
    assert len(subset) == len(loaded)
    assert subset.table().equals(loaded.table())
    assert sum(len(b) for b in subset.batches(["text"], batch_docs=batch_docs)) == len(loaded)
    assert subset.id_ranks.tolist() == loaded.id_ranks.tolist()


def test_it_reads_files_without_loading_them(tmp_path):
    with artefact.stage(tmp_path / "c", "corpus", settings={}, inputs={}, seed=0) as staging:
        corpus_of(10_000).write(staging)
    stored = Corpus.open(tmp_path / "c")
    kept = np.zeros(10_000, bool)
    kept[[3, 4096, 9999]] = True
    subset = Subset(stored, kept)
    assert [len(b) for b in subset.batches()] == [1, 1, 1]
    assert subset.table(["doc_id"])["doc_id"].to_pylist() == ["d3", "d4096", "d9999"]


def test_nothing_kept_is_an_empty_corpus():
    subset = Subset(corpus_of(3), np.zeros(3, bool))
    assert len(subset) == 0
    assert subset.table().num_rows == 0


@pytest.mark.parametrize("row", [-1, 2])
def test_rows_outside_are_refused(row):
    with pytest.raises(DataError, match="of 2 documents"):
        Subset(corpus_of(3), np.array([True, False, True])).take([row])


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(DataError, match="mask of 2 rows for 3"):
        Subset(corpus_of(3), np.array([True, False]))
