"""Views of a corpus that is itself a view: a subset, whose documents are read through another corpus."""

import numpy as np

from tamis.data.corpus import Corpus
from tamis.data.queries import Qrels
from tamis.data.subset import Subset
from tamis.synthesis import apply_views


def test_a_view_of_a_subset_has_its_documents():
    corpus = Corpus.from_records([{"doc_id": f"d{n}", "text": f"first {n}, second {n}"} for n in range(5)])
    subset = Subset(corpus, np.array([False, True, True, False, True]))
    row = {"query_id": "q", "doc_id": "d2", "cut_start": 0, "cut_stop": 7}
    view = apply_views(subset, Qrels.from_records([row]))
    assert len(view) == 3
    assert view.doc_ids.to_pylist() == ["d1", "d2", "d4"]
    texts = view.table(["text"])["text"].to_pylist()
    assert texts[0] == "first 1, second 1"
    assert "first" not in texts[1] and "second 2" in texts[1]
    assert view.take([1], ["text"])["text"].to_pylist() == [texts[1]]
    assert view.id_ranks.tolist() == [0, 1, 2]
