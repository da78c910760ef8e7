"""Hashed classifier: samples, held-out scores, controls, explanations, and what it finds in real text."""

import dataclasses
import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import DataError
from tamis.ops.hashing import draws, text_keys
from tamis.selection import DSIR, Budget, Uniform
from tamis.selection.classifier import HashedClassifier, _folds, _steps
from tamis.selection.sample import SAMPLE_CHARS, TextSample, target_texts

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ONE = Budget(docs=1)
WORDS = [f"w{i}" for i in range(40)]


def corpus(texts, prefix="d"):
    return Corpus.from_records([{"doc_id": f"{prefix}{i}", "text": text} for i, text in enumerate(texts)])


def random_texts(num, seed, words=WORDS):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, 20)) for _ in range(num)]


def auc(scores, labels):
    wins = np.sign(scores[labels][:, None] - scores[~labels][None, :])
    return float((wins + 1).mean() / 2)


def batch_of(texts):
    return pa.record_batch({"text": pa.array(texts, pa.large_string())})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefghij"), max_size=30), st.integers(1, 6), st.lists(st.integers(1, 30), max_size=4)
)
def test_a_sample_is_the_distinct_contents_with_the_smallest_draws_however_merged(texts, k, cuts):
    ends = sorted({0, len(texts), *(min(c, len(texts)) for c in cuts)})
    parts = [TextSample.of(batch_of(texts[a:b]), k, seed=3) for a, b in itertools.pairwise(ends)] or [TextSample(k)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    backwards = parts[-1]
    for part in parts[-2::-1]:
        backwards = part.merge(backwards)
    keys = {text: int(draws(text_keys([text]), 3, "negatives")[0]) for text in set(texts)}
    assert merged.items()["text"].to_pylist() == sorted(keys, key=keys.get)[:k]
    assert merged.items().to_pydict() == backwards.items().to_pydict()
    assert merged.items()["key"].to_pylist() == text_keys(merged.items()["text"].to_pylist()).tolist()


def test_a_sample_holds_little_while_it_grows():
    sample = TextSample(10)
    for start in range(0, 5000, 50):
        sample = sample.merge(TextSample.of(batch_of([f"text {i}" for i in range(start, start + 50)]), 10, seed=0))
        assert sum(map(len, sample.parts)) <= 12
    assert len(sample.items()) == 10


def test_copies_do_not_crowd_a_sample():
    sample = TextSample(3)
    first, *others = sorted("abcdef", key=lambda t: draws(text_keys([t]), 0, "negatives")[0])
    for text in [first] * 20 + others:
        sample = sample.merge(TextSample.of(batch_of([text]), 3, seed=0))
    assert sample.items()["text"].to_pylist() == [first, *others[:2]]


def test_long_texts_are_learnt_from_in_part_and_known_as_a_whole():
    long, longer = "ab " * SAMPLE_CHARS, "ab " * SAMPLE_CHARS + "end"
    rows = TextSample.of(batch_of([long, longer]), 5, seed=0).items()
    assert rows["text"].to_pylist() == [long[:SAMPLE_CHARS]] * 2
    assert set(rows["key"].to_pylist()) == set(text_keys([long, longer]).tolist())
    texts, keys = target_texts([batch_of([long]), batch_of(["x"])])
    assert sorted(texts.to_pylist()) == sorted([long[:SAMPLE_CHARS], "x"])
    assert keys.tolist() == sorted(text_keys([long, "x"]).tolist())


def test_the_smaller_class_is_repeated_evenly():
    labels = np.array([True] * 4 + [False] * 18)
    keys = text_keys([str(i) for i in range(22)])
    steps = _steps(keys, labels, 0)
    assert np.bincount(steps).tolist() == [4] * 4 + [1] * 18
    quarters = np.array_split(labels[steps], 4)
    assert all(3 <= part.sum() <= 5 for part in quarters)
    order = np.random.default_rng(0).permutation(22)  # permuted inputs take the same steps
    assert keys[order][_steps(keys[order], labels[order], 0)].tolist() == keys[steps].tolist()
    assert _steps(keys, labels, 1).tolist() != steps.tolist()
    assert np.bincount(_steps(keys, ~labels, 0)).tolist() == [4] * 4 + [1] * 18


def test_folds_deal_out_each_class_evenly_and_equal_contents_together():
    labels = np.array([True] * 10 + [False] * 23)
    keys = text_keys([str(i // 2) for i in range(33)])
    folds = _folds(keys, labels, 5, 0)
    assert np.bincount(folds[labels]).tolist() == [2] * 5
    assert np.bincount(folds[~labels]).max() <= 6
    for key, label in set(zip(keys.tolist(), labels.tolist(), strict=True)):
        assert len(set(folds[(keys == key) & (labels == label)].tolist())) == 1


def test_no_document_is_judged_by_a_model_that_learnt_from_it():
    good, bad = random_texts(20, 0), random_texts(40, 1)
    method = HashedClassifier(budget=ONE, bits=12, num_folds=4)
    pool = corpus([*good[:10], *bad])
    model = method.fit(method.survey(pool, seed=0), corpus(good, "g"), seed=0)
    assert len(model.folds) == 4
    assert set(model.keys.tolist()) == set(text_keys([*good, *bad]).tolist())
    scores = method.score(batch_of([*good, *bad, "w1 w2 w39"]), model)
    fold = dict(zip(model.keys.tolist(), model.fold_of.tolist(), strict=True))
    for text, score in zip([*good, *bad], scores, strict=False):
        own = model.folds[fold[int(text_keys([text])[0])]].logits([text])[0]
        assert score == model.scale * own + model.offset
    assert scores[-1] == model.scale * model.whole.logits(["w1 w2 w39"])[0] + model.offset
    learnt = model.whole.logits([*good, *bad])
    labels = np.arange(60) < 20
    assert auc(learnt, labels) > 0.95  # what it has seen it knows by heart
    assert auc(scores[:-1], labels) < 0.7


def test_labels_that_mean_nothing_are_not_learnt_and_flipped_ones_turn_the_ranking():
    texts = random_texts(300, 2)
    labels = np.arange(300) < 150
    method = HashedClassifier(budget=ONE, bits=12)
    model = method.fit(method.survey(corpus(texts[150:]), seed=0), corpus(texts[:150]), seed=0)
    scores = method.score(batch_of(texts), model)
    assert auc(scores, labels) == pytest.approx(0.5, abs=0.1)
    good, bad, new = random_texts(60, 3, WORDS[:25]), random_texts(60, 4, WORDS[15:]), random_texts(40, 5)
    one = method.fit(method.survey(corpus(bad), seed=0), corpus(good), seed=0)
    other = method.fit(method.survey(corpus(good), seed=0), corpus(bad), seed=0)
    pair = [method.score(batch_of(new), model) for model in (one, other)]
    assert np.corrcoef(*pair)[0, 1] < -0.95


def test_calibrated_scores_are_log_odds():
    good, bad = random_texts(800, 6, WORDS[:38]), random_texts(800, 7, WORDS[2:])
    method = HashedClassifier(budget=ONE, bits=12, order=1)
    model = method.fit(method.survey(corpus(bad[:400]), seed=0), corpus(good[:400]), seed=0)
    scores = method.score(batch_of([*good[400:], *bad[400:]]), model)
    labels = np.arange(800) < 400
    probabilities = 1 / (1 + np.exp(-scores))
    unsure = (probabilities > 0.3) & (probabilities < 0.7)
    assert unsure.sum() > 50
    assert labels[unsure].mean() == pytest.approx(probabilities[unsure].mean(), abs=0.12)
    plain = HashedClassifier(budget=ONE, bits=12, order=1, num_folds=0)
    bare = plain.fit(plain.survey(corpus(bad[:400]), seed=0), corpus(good[:400]), seed=0)
    assert (bare.scale, bare.offset, bare.folds) == (1.0, 0.0, ())
    assert plain.score(batch_of(good[400:]), bare).tolist() == bare.whole.logits(good[400:]).tolist()
    assert method.score(batch_of(["", "?"]), model)[0] == -np.inf


def test_the_target_is_no_negative_and_a_pool_of_it_alone_is_refused():
    good, bad = random_texts(10, 0, WORDS[:20]), random_texts(10, 1, WORDS[20:])
    method = HashedClassifier(budget=ONE, bits=10)
    with_target = method.fit(method.survey(corpus([*good, *bad]), seed=0), corpus(good), seed=0)
    without = method.fit(method.survey(corpus(bad), seed=0), corpus(good), seed=0)
    assert with_target.whole.weights_V.tolist() == without.whole.weights_V.tolist()
    with pytest.raises(DataError, match="all 10 sampled documents of the pool are in the target"):
        method.select(corpus(good), corpus(good), seed=0)


def test_a_single_target_document_is_enough():
    bad = random_texts(30, 1, WORDS[20:])
    chosen = HashedClassifier(budget=Budget(docs=3)).select(
        corpus([*bad, *random_texts(3, 2, WORDS[:20])]), corpus(random_texts(1, 3, WORDS[:20]), "t"), seed=0
    )
    assert chosen.kept.doc_ids.to_pylist() == ["d30", "d31", "d32"]


def test_labelled_negatives_take_the_place_of_the_sample():
    good, bad = random_texts(40, 0, WORDS[:20]), random_texts(40, 1, WORDS[20:])
    pool = corpus([*random_texts(20, 2, WORDS[:20]), *random_texts(20, 3, WORDS[20:])])
    method = HashedClassifier(budget=Budget(docs=20))
    labelled = method.choose(pool, corpus(good), pool=method.survey(corpus(bad), seed=0), seed=0)
    assert labelled.kept.tolist() == [True] * 20 + [False] * 20


def test_an_explanation_names_what_moves_the_score():
    good, bad = random_texts(40, 0, [*WORDS[:10], "butter"]), random_texts(40, 1, [*WORDS[:10], "diesel"])
    method = HashedClassifier(budget=ONE)
    model = method.fit(method.survey(corpus(bad), seed=0), corpus(good), seed=0)
    reasons = method.explain("Butter butter and diesel", model)
    moved = dict(reasons)
    assert reasons[0][0] == "butter"
    assert moved["butter"] > 0 > moved["diesel"]
    assert sum(moved.values()) + model.whole.bias == pytest.approx(model.whole.logits(["Butter butter and diesel"])[0])
    assert len(method.explain(good[0], model, num_features=3)) == 3


def test_a_model_is_plain_data():
    method = HashedClassifier(budget=ONE, bits=8)
    model = method.fit(method.survey(corpus(random_texts(5, 0)), seed=0), corpus(random_texts(5, 1)), seed=0)
    assert dataclasses.is_dataclass(model)
    assert model.whole.weights_V.shape == (256,)


def read(name, num_docs, start=0):
    with gzip.open(DATA / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in itertools.islice(lines, start, start + 10 * num_docs, 10)]
    return [r["text"][:5000] for r in records if len(r["text"]) > 300]


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="shared data absent")
def test_a_hundred_documents_find_their_domain():
    groups = {name: read(name, 400) for name in ("newsgroups", "medquad", "wikipedia")}
    pool = corpus([text for group in groups.values() for text in group])
    is_medical = np.repeat([name == "medquad" for name in groups], [len(g) for g in groups.values()])
    target = corpus(read("medquad", 100, start=5), "t")
    budget = Budget(docs=int(is_medical.sum()))
    precision = {
        type(m).__name__: is_medical[m.choose(pool, target, seed=0).kept].mean()
        for m in (HashedClassifier(budget=budget), DSIR(budget=budget), Uniform(budget=budget))
    }
    assert precision["HashedClassifier"] > 0.9
    assert precision["Uniform"] == pytest.approx(is_medical.mean(), abs=0.08)
