"""N-gram perplexity: bands within languages, what order of words is worth, and settings that cannot be meant."""

import numpy as np
import pyarrow as pa
import pytest

from tamis.data.corpus import Corpus
from tamis.errors import DataError, RecipeError
from tamis.selection import Budget
from tamis.selection.perplexity import NgramPerplexity

ONE = Budget(docs=1)
WORDS = [f"w{i}" for i in range(30)]
GERMAN = [
    "der",
    "die",
    "und",
    "ist",
    "nicht",
    "das",
    "ein",
    "eine",
    "mit",
    "auf",
    "für",
    "von",
    "dem",
    "den",
    "im",
    "zu",
    "es",
    "sie",
    "wir",
    "auch",
    "als",
    "an",
]
ENGLISH = [
    "the",
    "of",
    "and",
    "is",
    "not",
    "that",
    "a",
    "with",
    "on",
    "for",
    "from",
    "in",
    "to",
    "it",
    "they",
    "we",
    "also",
    "as",
    "at",
    "this",
    "by",
    "are",
]


def corpus(texts, prefix="d"):
    return Corpus.from_records([{"doc_id": f"{prefix}{i:03d}", "text": text} for i, text in enumerate(texts)])


def chain(num_words, seed, noise=0.0):
    """Text in which a word mostly follows its neighbour."""
    rng = np.random.default_rng(seed)
    at, found = int(rng.integers(30)), []
    for _ in range(num_words):
        at = int(rng.integers(30)) if rng.random() < noise else (at + 1) % 30
        found.append(WORDS[at])
    return " ".join(found)


def fitted(method, target, pool=()):
    return method.fit(method.survey(corpus(pool), seed=0) if pool else None, corpus(target, "t"), seed=0)


def test_scores_are_minus_the_mean_bits_and_short_texts_have_none():
    method = NgramPerplexity(budget=ONE, bits=12)
    model = fitted(method, [chain(60, i, 0.2) for i in range(5)])
    texts = [chain(50, 9), chain(200, 9), chain(19, 1), ""]
    scores = method.score(pa.record_batch({"text": pa.array(texts, pa.large_string())}), model)
    bits, _ = model.target.bits_per_token(texts)
    assert scores[:2].tolist() == (-bits[:2]).tolist()
    assert scores[0] == pytest.approx(scores[1], abs=0.3)  # a mean, so length is no help
    assert np.isneginf(scores[2:]).all()


def test_shuffled_words_lose_what_their_order_gave():
    method = NgramPerplexity(budget=ONE, bits=12)
    model = fitted(method, [chain(80, i, 0.1) for i in range(6)])
    text = chain(80, 99, 0.1)
    shuffled = " ".join(np.random.default_rng(0).permutation(text.split()))
    single = NgramPerplexity(budget=ONE, bits=12, order=1)
    only_words = fitted(single, [chain(80, i, 0.1) for i in range(6)])
    batch = pa.record_batch({"text": pa.array([text, shuffled], pa.large_string())})
    scores, control = method.score(batch, model), single.score(batch, only_words)
    assert scores[0] > scores[1] + 2
    assert control[0] == pytest.approx(control[1])


def test_bands_are_quantiles_of_the_pool():
    pool = corpus([chain(60, i, i / 30) for i in range(30)])
    target = corpus([chain(80, 100 + i, 0.1) for i in range(6)], "t")
    head = NgramPerplexity(budget=Budget(docs=30), bits=12, keep="head").choose(pool, target, seed=0)
    middle = NgramPerplexity(budget=Budget(docs=30), bits=12).choose(pool, target, seed=0)
    tail = NgramPerplexity(budget=Budget(docs=30), bits=12, keep="tail").choose(pool, target, seed=0)
    assert [c.kept.sum() for c in (head, middle, tail)] == [10, 10, 10]
    assert (head.kept ^ middle.kept ^ tail.kept).all()
    reasons = set(head.dropped()["reason"].to_pylist())
    assert reasons == {"outside_band"}
    medians = [c.figures["kept_median_bits"] for c in (head, middle, tail)]
    assert medians == sorted(medians)
    assert head.figures["pool_median_bits"] == middle.figures["pool_median_bits"]
    assert head.kept[:5].all()
    assert tail.kept[-3:].all()


def test_what_comes_first_within_a_band():
    bits = np.array([5.0, 1.0, 3.0, 2.0, 4.0])  # quantiles .9 .1 .5 .3 .7
    places = {
        "head": [-np.inf, -0.3, -np.inf, -0.9, -np.inf],
        "tail": [-0.3, -np.inf, -np.inf, -np.inf, -0.9],
        "middle": [-np.inf, -np.inf, 0.0, -np.inf, -np.inf],
    }
    for keep, wanted in places.items():
        assert NgramPerplexity(budget=ONE, keep=keep)._places(bits) == pytest.approx(wanted)
    band = NgramPerplexity(budget=ONE, band=(0.1, 0.6))
    assert band._places(bits) == pytest.approx([-np.inf, -1.0, -0.6, -0.2, -np.inf])
    whole = NgramPerplexity(budget=ONE, keep="head", band=(0.0, 1.0))
    assert whole._places(bits) == pytest.approx([-0.9, -0.1, -0.5, -0.3, -0.7])
    assert band._places(np.array([2.0, 2.0])) == pytest.approx([-0.6, -0.6])  # equal perplexities, equal places


def test_thirds_are_taken_within_each_language():
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(words, 80)) for words in (ENGLISH, GERMAN) for _ in range(30)]
    target = corpus([" ".join(rng.choice([*ENGLISH * 9, *GERMAN], 80)) for _ in range(5)], "t")
    head = NgramPerplexity(budget=Budget(docs=60), keep="head", bits=14).choose(corpus(texts), target, seed=0)
    assert [head.kept[:30].sum(), head.kept[30:].sum()] == [10, 10]


def test_against_the_pool_common_words_stop_to_count():
    common = [f"c{i}" for i in range(5)]
    rng = np.random.default_rng(2)
    frequent = [" ".join(rng.choice(common, 40)) for _ in range(40)]
    like_target = [" ".join(rng.choice([*common, *WORDS[:8]], 40)) for _ in range(10)]
    target = [" ".join(rng.choice([*common * 4, *WORDS[:8]], 60)) for _ in range(8)]
    pool = corpus([*frequent, *like_target])
    for against, wins in (("none", False), ("pool", True)):
        method = NgramPerplexity(budget=Budget(docs=10), against=against, bits=14, order=1)
        model = method.fit(method.survey(pool, seed=0), corpus(target, "t"), seed=0)
        scores = np.concatenate([method.score(b, model) for b in pool.batches()])
        assert (scores[40:].min() > scores[:40].max()) == wins


def test_a_target_without_words_is_refused():
    method = NgramPerplexity(budget=ONE)
    with pytest.raises(DataError, match="nothing to read with"):
        method.fit(None, corpus([" "]), seed=0)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"keep": "band"}, "keep"),
        ({"band": (0.6, 0.2)}, "two quantiles"),
        ({"band": (0.6, 1.2)}, "two quantiles"),
        ({"order": 4}, "order"),
    ],
)
def test_settings_that_cannot_be_meant(given, match):
    with pytest.raises(RecipeError, match=match):
        NgramPerplexity(budget=ONE, **given)
