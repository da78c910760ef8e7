"""Tf-idf nearest against scikit-learn, and where the two forms differ."""

import numpy as np
import pyarrow as pa
import pytest

from tamis.data.corpus import Corpus
from tamis.ops.ngrams import feature_buckets
from tamis.selection import Budget
from tamis.selection import nearest as module
from tamis.selection.nearest import TfidfNearest

ONE = Budget(docs=1)
WORDS = [f"word{i}" for i in range(60)]


def corpus(texts, prefix="d"):
    return Corpus.from_records([{"doc_id": f"{prefix}{i}", "text": text} for i, text in enumerate(texts)])


def random_texts(num, seed, words=WORDS):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, rng.integers(3, 30))) for _ in range(num)]


def peer_vectors(pool, texts, num_buckets):
    """The same vectors through scikit-learn."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    def features(text):
        return [str(b) for b in feature_buckets([text], num_buckets)[0].tolist()]

    vectoriser = TfidfVectorizer(analyzer=features, sublinear_tf=True, smooth_idf=False)
    counts = vectoriser.fit(pool)
    df = np.exp(1 - counts.idf_) * len(pool)  # idf_ = ln(D / df) + 1
    counts.idf_ = np.log((1 + len(pool)) / df)
    return counts.transform(texts)


@pytest.mark.parametrize("block", [512, 3])
def test_cosines_equal_those_of_scikit_learn(block, monkeypatch):
    monkeypatch.setattr(module, "_TARGET_BLOCK", block)
    pool, target = random_texts(40, 0), random_texts(7, 1)
    left, right = peer_vectors(pool, pool, 4096), peer_vectors(pool, target, 4096)
    mean = np.asarray(right.mean(axis=0)).ravel()
    wanted = {"nearest": (left @ right.T).toarray().max(axis=1), "centroid": left @ mean / np.linalg.norm(mean)}
    for similarity, cosines in wanted.items():
        method = TfidfNearest(budget=ONE, similarity=similarity, num_buckets=4096)
        model = method.fit(method.survey(corpus(pool), seed=0), corpus(target), seed=0)
        found = np.concatenate([method.score(b, model) for b in corpus(pool).batches(batch_docs=9)])
        assert found == pytest.approx(cosines, abs=1e-9)
        assert found.std() > 0.01


def test_a_target_in_two_places_wants_the_nearest():
    one, two = WORDS[:8], WORDS[20:28]
    pure = [" ".join(np.roll(words, i)[:6]) for words in (one, two) for i in range(8)]
    mixed = [" ".join([*np.roll(one, i)[:4], *np.roll(two, i)[:4]]) for i in range(8)]
    pool = corpus([*pure, *mixed, *random_texts(20, 2, WORDS[40:])])
    target = corpus([" ".join(one), " ".join(two)])
    for similarity, best in (("nearest", range(16)), ("centroid", range(16, 24))):
        scores = TfidfNearest(budget=ONE, similarity=similarity, order=1).choose(pool, target, seed=0).scores
        assert set(np.argsort(-scores)[: len(best)].tolist()) == set(best)


def test_texts_without_a_known_word_are_refused():
    method = TfidfNearest(budget=ONE)
    pool = corpus(["one two", "three two", "", "?"])
    model = method.fit(method.survey(pool, seed=0), corpus(["one unseen"]), seed=0)
    batch = pa.record_batch({"text": pa.array(["one two", "", "unknown", None, "?"], pa.large_string())})
    assert np.isneginf(method.score(batch, model)).tolist() == [False, True, True, True, False]
    for similarity in ("nearest", "centroid"):  # a target that shares nothing with the pool
        method = TfidfNearest(budget=Budget(docs=2), similarity=similarity)
        chosen = method.select(pool, corpus(["elsewhere"]), seed=0)
        assert chosen.scores.tolist() == [0, 0, -np.inf, 0]
        assert len(chosen.kept) == 2


def test_the_order_of_the_target_changes_nothing():
    pool, target = corpus(random_texts(30, 0)), random_texts(9, 1)
    for similarity in ("nearest", "centroid"):
        method = TfidfNearest(budget=ONE, similarity=similarity)
        one, other = (method.choose(pool, corpus(t), seed=0).scores.tolist() for t in (target, target[::-1]))
        assert one == other


def test_counts_of_parts_add_up():
    texts = random_texts(20, 3)
    method = TfidfNearest(budget=ONE, num_buckets=512)
    whole = method.survey(corpus(texts), seed=0)
    merged = method.survey(corpus(texts[:7]), seed=0).merge(method.survey(corpus(texts[7:]), seed=0))
    assert merged.num_docs == whole.num_docs == 20
    assert merged.counts_V.tolist() == whole.counts_V.tolist()
