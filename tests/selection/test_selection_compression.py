"""Compression alignment: worked distances, the exact form against gzip itself, and what it finds."""

import gzip

import numpy as np
import pyarrow as pa
import pytest

from tamis.data.corpus import Corpus
from tamis.errors import DataError
from tamis.selection import Budget
from tamis.selection.compression import CompressionAlignment, CompressionModel, ncd

ONE = Budget(docs=1)
KITCHEN = [
    "simmer",
    "the",
    "broth,",
    "fold",
    "the",
    "dough,",
    "salt",
    "the",
    "butter",
    "and",
    "whisk",
    "the",
    "eggs",
    "before",
    "the",
    "oven",
    "is",
    "hot",
]
HARBOUR = [
    "cranes",
    "lift",
    "steel",
    "boxes",
    "over",
    "wet",
    "quays",
    "while",
    "tugs",
    "push",
    "a",
    "tanker",
    "to",
    "its",
    "berth",
    "at",
    "dawn",
]


def texts(words, num, seed, length=80):
    rng = np.random.default_rng(seed)
    return [" ".join(" ".join(rng.permutation(words)[:5]) for _ in range(length // 5)) for _ in range(num)]


def corpus(*groups):
    return Corpus.from_records([{"doc_id": f"{g}{i}", "text": t} for g, group in groups for i, t in enumerate(group)])


def batch(*documents):
    return pa.record_batch({"text": pa.array(documents, pa.large_string())})


def test_worked_distances():
    assert [1 - ncd(100, 80, 140), 1 - ncd(100, 50, 120)] == pytest.approx([0.4, 0.3])


@pytest.mark.parametrize("level", [None, 1, 9])
def test_the_exact_form_is_gzip_of_each_pair(level):
    target = texts(KITCHEN, 4, 0)
    pool = texts(KITCHEN, 3, 1) + texts(HARBOUR, 3, 2) + ["é" * 300]
    method = CompressionAlignment(budget=ONE, exact=True, level=level)
    found = method.score(batch(*pool), method.fit(None, corpus(("t", target)), seed=0))

    def size(text):
        return len(gzip.compress(text.encode(), level or 6))

    slow = [np.mean([1 - ncd(size(x), size(t), size(x + t)) for t in target]) for x in pool]
    assert found == pytest.approx(slow, abs=1e-12)


def test_the_gain_is_the_share_of_bytes_saved():
    import zstandard

    target, pool = texts(KITCHEN, 5, 0), texts(HARBOUR, 4, 2)
    method = CompressionAlignment(budget=ONE)
    model = method.fit(None, corpus(("t", target)), seed=0)
    raw = zstandard.ZstdCompressionDict(model.dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    helped, plain = zstandard.ZstdCompressor(level=3, dict_data=raw), zstandard.ZstdCompressor(level=3)
    wanted = [1 - len(helped.compress(t.encode())) / len(plain.compress(t.encode())) for t in pool]
    assert method.score(batch(*pool), model) == pytest.approx(wanted, abs=0.02)  # a digested one may differ by bytes


@pytest.mark.parametrize("exact", [False, True])
def test_it_finds_what_the_target_helps_with_and_not_the_target_itself(exact):
    target, near, far = texts(KITCHEN, 5, 0), texts(KITCHEN, 10, 1), texts(HARBOUR, 10, 2)
    pool = corpus(("near", near), ("far", far), ("copy", target[:2]))
    method = CompressionAlignment(budget=Budget(docs=10), exact=exact)
    chosen = method.select(pool, corpus(("t", target)), seed=0)
    assert sorted(chosen.kept.doc_ids.to_pylist()) == [f"near{i}" for i in range(10)]
    reasons = dict(zip(chosen.dropped["doc_id"].to_pylist(), chosen.dropped["reason"].to_pylist(), strict=True))
    assert [reasons["copy0"], reasons["copy1"], reasons["far0"]] == ["in_target", "in_target", "over_budget"]
    scores = dict(zip(pool.doc_ids.to_pylist(), chosen.scores.tolist(), strict=True))
    assert scores["copy0"] > max(scores[f"near{i}"] for i in range(10))  # what leaving it out prevents
    other = method.select(pool, corpus(("t", texts(HARBOUR, 5, 4))), seed=0)  # another target turns the ranking round
    assert sorted(other.kept.doc_ids.to_pylist()) == [f"far{i}" for i in range(10)]


def test_a_pool_of_target_documents_is_refused():
    target = texts(KITCHEN, 3, 0)
    with pytest.raises(DataError, match="3 in_target"):
        CompressionAlignment(budget=ONE).select(corpus(("d", target)), corpus(("t", target)), seed=0)


def test_short_documents_are_refused_by_bytes():
    method = CompressionAlignment(budget=ONE, min_bytes=200)
    model = method.fit(None, corpus(("t", texts(KITCHEN, 2, 0))), seed=0)
    scores = method.score(batch("x" * 199, "x" * 200, "é" * 99, "é" * 100, "", None), model)
    assert np.isneginf(scores).tolist() == [True, False, True, False, True, True]
    assert method.refusal == "too_few_bytes"


def test_the_dictionary_is_cut_and_does_not_depend_on_order():
    target = texts(KITCHEN, 20, 0)
    method = CompressionAlignment(budget=ONE, dictionary_bytes=2000)
    model = method.fit(None, corpus(("t", target)), seed=0)
    assert len(model.dictionary) == 2000
    turned = method.fit(None, corpus(("u", target[::-1])), seed=1)
    assert turned.dictionary == model.dictionary
    whole = CompressionAlignment(budget=ONE).fit(None, corpus(("t", target)), seed=0)
    assert len(whole.dictionary) == sum(len(t.encode()) for t in target)
    assert whole.dictionary.startswith(model.dictionary)
    exact = CompressionAlignment(budget=ONE, exact=True).fit(None, corpus(("t", [*target, ""])), seed=0)
    assert isinstance(exact, CompressionModel)
    assert len(exact.texts) == 20  # an empty document has nothing to say
