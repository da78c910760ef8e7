import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tamis.search
from tamis.data import Corpus, Qrels, Queries
from tamis.data.artefact import open_verified, stage
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.search import (
    BM25,
    RM3,
    Arm,
    Dense,
    Feedback,
    FusionTuner,
    Grams,
    MaxP,
    Plan,
    ReciprocalRank,
    Rocchio,
    SearchIndex,
)
from tamis.search.layout import with_passages

WORDS = ["anchor", "bowline", "canvas", "dinghy", "ebb", "fender", "galley", "halyard"]
QUERIES = Queries.from_texts(
    {"a": "anchor canvas", "b": "zzz", "c": "halyards", "d": "bowline ebb galley ebb", "e": ""}
)


class FirstLetters:
    dim, fingerprint = 8, "first-letters"

    def encode_documents(self, texts):
        counts = np.array([[sum(w[0] == c for w in t.split()) for c in "abcdefgh"] for t in texts], np.float32).reshape(
            -1, 8
        )
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)

    encode_queries = encode_documents


PLAN = Plan(
    weights={"words": 0.4, "grams": 0.3, "dense": 0.2, "rm3": 0.05, "rocchio": 0.05},
    feedback={"rm3": Feedback(of="words", expand=RM3()), "rocchio": Feedback(of="dense", expand=Rocchio())},
    depth=6,
)


def corpora(texts, order=None):
    """Documents and their passages of three words."""
    order = list(range(len(texts))) if order is None else order
    docs = Corpus.from_records([{"doc_id": f"d{i}", "text": texts[i] or " "} for i in order])
    rows, parents = [], []
    for row, i in enumerate(order):
        words = texts[i].split()
        for n, at in enumerate(range(0, max(1, len(words)), 3)):
            text = " ".join(words[at : at + 3]) or " "
            place = {"parent_doc_id": f"d{i}", "ordinal": n, "start": 0, "stop": 1, "section": ""}
            rows.append({"doc_id": f"d{i}#{n}", "text": text, **place})
            parents.append(row)
    return docs, Corpus.from_records(rows), np.array(parents)


def engine(texts, order=None, plan=PLAN, passages=False):
    docs, parts, parents = corpora(texts, order)
    arms = {
        "words": Arm(BM25().index(docs, seed=0)),
        "grams": Arm(BM25(analyser=Grams()).index(docs, seed=0)),
        "dense": Arm(Dense(block_docs=5).index(docs, FirstLetters(), seed=0)),
    }
    if passages:
        arms["parts"] = Arm(BM25().index(parts, seed=0), "passages")
        arms["part vectors"] = Arm(Dense().index(parts, FirstLetters(), seed=0), "passages")
    return SearchIndex(docs.doc_ids, arms, plan, parents if passages else None)


TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), min_size=1, max_size=10)
WITH_PASSAGES = Plan(weights={"words": 0.5, "parts": 0.3, "part vectors": 0.2}, depth=6)


@given(TEXTS, st.randoms(), st.integers(1, 5), st.sampled_from(["hybrid", "lexical", "dense", "rrf"]), st.booleans())
def test_order_of_documents_and_depth_change_nothing(texts, random, k, mode, passages):
    order = list(range(len(texts)))
    random.shuffle(order)
    plan = WITH_PASSAGES if passages else PLAN
    run = engine(texts, plan=plan, passages=passages).search(QUERIES, k, mode)
    shuffled = engine(texts, order, plan, passages)
    assert shuffled.search(QUERIES, k, mode) == run
    assert shuffled.search(QUERIES, k + 1, mode).truncate(k) == run
    assert run.ranked("e") == []
    assert np.isfinite(run.scores).all()


@given(TEXTS, st.integers(1, 12))
def test_passage_arms_give_the_best_passage_of_all(texts, k):
    index = engine(texts, plan=WITH_PASSAGES, passages=True)
    _, parts, _ = corpora(texts)
    for name in ("parts", "part vectors"):
        deep = index.arms[name].index.search(QUERIES, 1000)
        expected = MaxP().aggregate(deep, parts, seed=0)
        assert index.search_arm(name, QUERIES, k) == expected.run.truncate(k)
    run = index.search_arm("parts", QUERIES, k)
    assert index.evidence(QUERIES, run).to_pylist() == [
        p for p, rank in zip(MaxP().aggregate(index.arms["parts"].index.search(QUERIES, 1000), parts, seed=0).passages.to_pylist(),
                             MaxP().aggregate(index.arms["parts"].index.search(QUERIES, 1000), parts, seed=0).run.ranks, strict=True) if rank <= k
    ]  # fmt: skip


def many(num_docs=300, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(num_docs)]


@pytest.mark.parametrize("names", [("words", "dense"), ("parts", "part vectors", "grams")])
def test_a_pool_holds_every_arms_own_scores(names):
    plan = Plan(weights={"words": 1.0}, depth=20)
    index = engine(many(), order=np.random.default_rng(1).permutation(300).tolist(), plan=plan, passages=True)
    pool = index.pool(QUERIES, names)
    assert pool.names == names
    assert pool.doc_ids.to_pylist() == sorted(pool.doc_ids.to_pylist())
    queries = np.repeat(np.arange(5), np.diff(pool.starts))
    for arm, name in enumerate(pool.names):
        own = index.search_arm(name, QUERIES, 300).to_dict()
        top = index.search_arm(name, QUERIES, 20).to_dict()
        checked = 0
        for at, (query, doc) in enumerate(zip(queries, pool.docs, strict=True)):
            q, d = QUERIES.ids[query], pool.doc_ids[int(doc)].as_py()
            first = np.array([*top[q].values(), *[0.0] * (20 - len(top[q]))])
            expected = (own[q].get(d, 0.0) - first.mean()) / first.std() if top[q] and first.std() > 1e-9 else 0.0
            assert pool.z_AP[arm, at] == pytest.approx(expected, abs=1e-6)
            checked += 1
        assert checked > 60


def test_hybrid_is_the_fused_pool_and_tuning_can_use_it():
    index = engine(many())
    names, weights = list(PLAN.weights), list(PLAN.weights.values())
    pool = index.pool(QUERIES, names)
    assert index.search(QUERIES, 6) == pool.fuse(weights).truncate(6)
    tuner = FusionTuner(pool, Qrels.from_dict({"a": {"d7": 1}, "d": {"d9": 2, "d3": 1}}))
    even = [1 / len(names)] * len(names)
    values = tuner.evaluate(np.array([weights, even]))
    assert values.shape == (2, len(tuner.query_ids)) and (values >= 0).all() and (values <= 1 + 1e-9).all()
    other = index.with_plan(PLAN.model_copy(update={"weights": dict(zip(names, even, strict=True))}))
    assert len(other.search(QUERIES, 3))  # another plan has other feedback, so another pool


def test_a_document_of_many_passages_does_not_hide_the_others():
    index = engine(
        ["anchor " * 900, "ebb anchor canvas dinghy", "canvas"],
        plan=Plan(weights={"parts": 1.0}, depth=2),
        passages=True,
    )
    run = index.search_arm("parts", Queries.from_texts({"q": "anchor"}), 2)
    assert [d for d, _ in run.ranked("q")] == ["d0", "d1"]


def test_modes_use_their_arms_alone():
    index = engine(many())
    assert index.with_plan(Plan(weights={"words": 1.0})).search(QUERIES, 5) == index.search_arm("words", QUERIES, 5)
    assert index.with_plan(Plan(weights={"words": 1.0})).search(QUERIES, 5, "dense") == index.search_arm(
        "dense", QUERIES, 5
    )
    both = [index.search_arm(name, QUERIES, 100) for name in ("words", "dense")]
    assert index.search(QUERIES, 5, "rrf") == ReciprocalRank().fuse(both, seed=0).truncate(5)
    lexical = SearchIndex(index.doc_ids, {"words": index.arms["words"]}, Plan(weights={"words": 1.0}))
    with pytest.raises(UsageError, match="no dense arm"):
        lexical.search(QUERIES, 5, "dense")
    assert len(index.search(QUERIES, 50).ranked("d")) == 50


def test_similar_documents_by_vector_and_by_words():
    texts = ["anchor anchor", "anchor", "halyard ebb", "halyard", "ebb"]
    index = engine(texts)
    assert [d for d, _ in index.similar("d0", 2).ranked("d0")] == ["d1", "d2"]
    lexical = SearchIndex(index.doc_ids, {"words": index.arms["words"]}, Plan(weights={"words": 1.0}))
    assert {d for d, _ in lexical.similar("d2", 5).ranked("d2")} == {"d3", "d4"}
    whole = engine(texts, plan=WITH_PASSAGES, passages=True)
    parts = SearchIndex(
        whole.doc_ids,
        {"part vectors": whole.arms["part vectors"]},
        Plan(weights={"part vectors": 1.0}),
        whole.parents.of,
    )
    assert parts.similar("d3", 1).ranked("d3")[0][0] == "d2"
    with pytest.raises(DataError, match="no document 'D0'"):
        index.similar("D0", 3)


def test_saved_is_loaded(tmp_path):
    plan = PLAN.model_copy(update={"weights": {**PLAN.weights, "parts": 0.2}})
    index = engine(many(40), plan=plan, passages=True)
    with stage(tmp_path / "index", "index", settings={}, inputs={}, seed=0) as staging:
        index.save(staging)
    assert open_verified(tmp_path / "index", "index").counts == {"documents": 40, "arms": 5}
    again = SearchIndex.load(tmp_path / "index", FirstLetters())
    assert again.plan == plan
    for mode in ("hybrid", "lexical", "dense", "rrf"):
        assert again.search(QUERIES, 9, mode) == index.search(QUERIES, 9, mode)
    run = index.search(QUERIES, 9)
    assert again.evidence(QUERIES, run).equals(index.evidence(QUERIES, run))
    assert index.evidence(QUERIES, run).null_count == 0
    (tmp_path / "index" / "index.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"index\.json: damaged"):
        SearchIndex.load(tmp_path / "index")


def test_arms_and_plans_that_do_not_fit_are_refused():
    index, other = engine(many(5)), engine(many(6))
    with pytest.raises(ArtefactError, match="'words': its ids"):
        SearchIndex(index.doc_ids, {"words": other.arms["words"]}, Plan(weights={"words": 1.0}))
    for plan in (Plan(weights={"nothing": 1.0}), Plan(weights={})):
        with pytest.raises(UsageError, match="no arm"):
            index.with_plan(plan)
    with pytest.raises(UsageError, match="fitting arm"):
        index.with_plan(Plan(weights={"x": 1.0}, feedback={"x": Feedback(of="words", expand=Rocchio())}))


def test_an_engine_of_no_documents_answers_nothing():
    index = engine([])
    for mode in ("hybrid", "lexical", "dense", "rrf"):
        assert len(index.search(QUERIES, 3, mode)) == 0


def test_every_public_name_resolves():
    assert all(getattr(tamis.search, name) for name in tamis.search.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = tamis.search.nothing


def test_over_passages_the_weights_are_those_that_were_fitted_on_passages():
    """A plan of .6 for words, half of it over documents, is .6 again where passages are searched by themselves."""
    fitted = with_passages(Plan(weights={"words": 0.6, "dense": 0.4}, depth=10))
    assert fitted.weights == {"words": 0.3, "words/passages": 0.3, "dense": 0.4}
    texts = ["alpha beta gamma delta epsilon zeta", "eta theta iota kappa lambda mu"]
    docs, parts, parents = corpora(texts)
    arms = {
        "words": Arm(BM25().index(docs, seed=0), "documents"),
        "words/passages": Arm(BM25().index(parts, seed=0), "passages"),
        "dense": Arm(Dense().index(parts, FirstLetters(), seed=0), "passages"),
    }
    over = SearchIndex(docs.doc_ids, arms, fitted, parents).over_passages()
    assert over.plan.weights == {"words/passages": 0.6, "dense": 0.4}
    assert over.doc_ids.to_pylist() == parts.doc_ids.to_pylist()
