"""Fitting on held-out queries: the prior stays without evidence, files come back equal, layouts have their arms."""

import numpy as np
import pytest

from tamis.data import Corpus, Qrels, Queries
from tamis.data.artefact import open_verified, stage
from tamis.errors import ArtefactError
from tamis.search.fit import Fit, Fitted
from tamis.search.layout import Layout, prose_fields, weights

NOUNS = ["anchor", "bowline", "canvas", "dinghy", "ebb", "fender", "galley", "halyard"]


class FirstLetters:
    """A vector of first letters: knows something, not much."""

    dim, fingerprint = 8, "first-letters"

    def encode_documents(self, texts):
        rows = [[sum(w[0] == c for w in t.lower().split()) for c in "abcdefgh"] for t in texts]
        counts = np.array(rows, np.float32).reshape(-1, 8)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)

    encode_queries = encode_documents

    def num_truncated(self, texts):
        return 0


def collection(num_queries, method="title_body"):
    rows = [
        {
            "doc_id": f"d{i}",
            "title": f"The {NOUNS[i % 8]}",
            "text": f"{NOUNS[i % 8]} and {NOUNS[i // 8 % 8]} number {i} at sea",
        }
        for i in range(64)
    ]
    queries = Queries.from_records(
        {"query_id": f"q{i}", "text": f"{NOUNS[i % 8]} {NOUNS[i // 8 % 8]}", "method": method}
        for i in range(num_queries)
    )
    qrels = Qrels.from_dict({f"q{i}": {f"d{i}": 1} for i in range(num_queries)})
    return Corpus.from_records(rows), queries, qrels


def fitted(num_queries, **settings):
    corpus, queries, qrels = collection(num_queries)
    return Fit(**settings).fit(corpus, FirstLetters(), queries, qrels, is_given=False, seed=3)


def test_without_enough_queries_the_prior_stays():
    few = fitted(8, min_queries=10)
    assert few.plan.weights["dense"] == Fit().dense
    assert any("are needed" in c["reason"] for c in few.choices)


def test_enough_queries_choose_and_say_so():
    found = fitted(40, min_queries=10)
    notes = {c["name"]: c for c in found.choices}
    assert "held-out queries" in notes["fusion weights"]["reason"]
    assert sum(found.plan.weights.values()) == pytest.approx(1)
    assert all(len(run.query_ids) == 40 for run in found.runs.values())


def test_an_infinite_price_keeps_the_prior():
    assert fitted(40, min_queries=10, penalty=1e9, feedback=False).plan.weights["dense"] == Fit().dense


class Blind(FirstLetters):
    """Says the same of every text."""

    def encode_documents(self, texts):
        return np.tile(np.eye(1, self.dim, dtype=np.float32), (len(texts), 1))

    encode_queries = encode_documents


def dense_weight(encoder, method="title_body", **settings):
    corpus, queries, qrels = collection(40, method)
    fit = Fit(min_queries=10, feedback=False, **settings)
    return fit.fit(corpus, encoder, queries, qrels, is_given=True, seed=3).plan.weights["dense"]


def test_the_weight_of_a_given_encoder_starts_where_the_arms_differ():
    """At an infinite price the moved prior alone decides: 0.55 + (gap - .05), to the next twentieth."""
    assert dense_weight(Blind(), penalty=1e9) == pytest.approx(0.1)
    assert dense_weight(Blind(), penalty=1e9, given_dense=1.0) == pytest.approx(0.25)  # word arms .80, blind .00
    even = dense_weight(FirstLetters(), penalty=1e9)
    assert even >= dense_weight(Blind(), penalty=1e9) + 0.2


def test_cut_sentences_move_a_given_encoder_half_as_far_and_the_own_one_not_at_all():
    titles, sentences = (dense_weight(Blind(), method, penalty=1e9) for method in ("title_body", "inverse_cloze"))
    assert titles < sentences < Fit().given_dense
    corpus, queries, qrels = collection(40, "inverse_cloze")
    own = Fit(min_queries=10).fit(corpus, Blind(), queries, qrels, is_given=False, seed=3)
    assert own.plan.weights["dense"] == Fit().dense


def test_the_same_seed_gives_the_same_and_files_come_back_equal(tmp_path):
    first, second = fitted(40, min_queries=10), fitted(40, min_queries=10)
    folders = []
    for number, found in enumerate((first, second)):
        folders.append(tmp_path / str(number))
        with stage(folders[-1], "runs", settings={}, inputs={}, seed=3) as staging:
            found.save(staging)
    manifests = [open_verified(folder, "runs") for folder in folders]
    assert manifests[0].content == manifests[1].content
    loaded = Fitted.load(folders[0])
    assert (loaded.layout, loaded.plan, loaded.choices) == (first.layout, first.plan, first.choices)
    assert set(loaded.runs) == set(first.runs)
    (folders[0] / "fit.json").write_bytes(b"{}")
    with pytest.raises(ArtefactError, match=r"fit\.json"):
        Fitted.load(folders[0])


def test_layout_has_the_control_first_and_twins_for_fields():
    assert next(iter(Layout().lexical())) == "bm25"
    plain, fields = set(Layout().lexical()), set(Layout(fields=("abstract",)).lexical())
    assert fields - plain == {"words+fields", "grams+fields"}
    assert set(Layout(language=None).lexical()) == plain


def test_weights_share_the_lexical_rest():
    assert weights(0.25, 0.5, 0.0) == {"dense": 0.5, "words": 0.375, "grams": 0.125}
    assert sum(weights(0.25, 0.5, 0.5).values()) == 1


def test_prose_fields_are_sentences_not_names():
    metadata = b'{"abstract": "words about ships that sail the seas", "author": "A. Name", "url": "https://a.b/c"}'
    rows = [{"doc_id": str(n), "text": "x", "metadata": metadata} for n in range(10)]
    corpus = Corpus.from_records(rows)
    assert prose_fields(corpus) == ("abstract",)
    assert prose_fields(corpus, without=["abstract"]) == ()
