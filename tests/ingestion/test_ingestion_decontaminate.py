"""Decontamination: coverage of the item, common n-grams, what is reported, and that nothing depends on batches."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Queries
from tamis.errors import DataError, RecipeError, UsageError
from tamis.ingestion import contamination_passes
from tamis.ingestion.contamination import Protected, least_matches
from tamis.ingestion.decontaminate import Decontaminate

TOKENS = [f"w{i}" for i in range(20)]
ITEM = " ".join(TOKENS)


def protect(*texts, kind="query"):
    ids = [f"q{i}" for i in range(len(texts))]
    return Protected(pa.table({"item_id": ids, "kind": [kind] * len(texts), "text": list(texts)}))


def corpus(texts, sources=None, **columns):
    ids = [f"d{i:03d}" for i in range(len(texts))]
    sources = sources or ["s"] * len(texts)
    return Corpus.from_table(pa.table({"doc_id": ids, "text": list(texts), "source": sources, **columns}))


class Rebatched:
    """A corpus that comes in batches of another size."""

    def __init__(self, corpus, batch_docs):
        self._corpus, self._size = corpus, batch_docs
        self.schema, self.take = corpus.schema, corpus.take

    def __len__(self):
        return len(self._corpus)

    def batches(self, columns=None):
        return self._corpus.batches(columns, batch_docs=self._size)


def sift(texts, protected, method=None, sources=None, **extra):
    return (method or Decontaminate()).sift(corpus(texts, sources), seed=0, protect=protected, **extra)


def test_worked_coverage_and_hit():
    """5 of 8 n-grams: .625."""
    sifted = sift(["clean", "Before, " + " ".join(TOKENS[:17]).upper() + "\nafter"], protect(ITEM))
    row = sifted.dropped.select(["doc_id", "reason", "score", "other_id"]).to_pylist()
    assert row == [{"doc_id": "d001", "reason": "contains_query", "score": 0.625, "other_id": "q0"}]
    assert sifted.kept.doc_ids.to_pylist() == ["d000"]
    (hit,) = sifted.findings.hits.to_pylist()
    assert (hit["num_matched"], hit["num_grams"], hit["coverage"]) == (5, 8, 0.625)
    assert (hit["start_bytes"], hit["excerpt"]) == (8, " ".join(TOKENS[:17]).upper())
    assert hit["stop_bytes"] == 8 + len(hit["excerpt"])
    assert sifted.findings.num_collisions == 0


def test_worked_common_grams():
    """4 of the 5 are held by 5 documents of the source: 1 of 8 is evidence, the document stays and is listed."""
    texts = [" ".join(TOKENS[:17])] + [" ".join(TOKENS[:16]) + f" x{i}" for i in range(4)]
    sifted = sift(texts, protect(ITEM))
    assert len(sifted.dropped) == 0
    (row,) = sifted.findings.suppressed_common.to_pylist()
    assert row["excerpt"] == " ".join(TOKENS[:17])
    assert (row["item_id"], row["source"], row["num_docs"], row["example_doc_id"]) == ("q0", "s", 5, "d000")
    assert len(sift(texts[:-1], protect(ITEM)).dropped) == 4  # 4 documents are not 5
    other = sift([*texts, ITEM], protect(ITEM), sources=["s"] * 5 + ["t"])  # common there, not here
    assert other.dropped["doc_id"].to_pylist() == ["d005"]


def test_copies_do_not_make_their_text_common():
    assert len(sift([ITEM] * 9, protect(ITEM)).dropped) == 9
    assert len(sift([f"{ITEM} x{i}" for i in range(9)], protect(ITEM)).dropped) == 0


def test_global_common_needs_documents_and_sources():
    texts, method = [f"{ITEM} x{i}" for i in range(12)], Decontaminate(global_common_docs=12)
    three = [f"s{i % 3}" for i in range(12)]
    assert len(sift(texts, protect(ITEM), method, [f"s{i % 4}" for i in range(12)]).dropped) == 0
    assert len(sift(texts, protect(ITEM), method, three).dropped) == 0
    assert len(sift(texts[:11], protect(ITEM), method, [f"s{i % 4}" for i in range(11)]).dropped) == 11
    assert len(sift(texts, protect(ITEM), method.model_copy(update={"source_common_frac": 1.0}), three).dropped) == 0


def test_two_sources_are_not_everywhere():
    texts = [f"{ITEM} x{i}" for i in range(12)] + ["clean", "clean too", "clean as well"]
    method = Decontaminate(global_common_docs=12, source_common_frac=1.0)
    two, three = [f"s{i % 2}" for i in range(15)], [f"s{i % 3}" for i in range(15)]
    assert len(sift(texts, protect(ITEM), method, two).dropped) == 12
    assert len(sift(texts, protect(ITEM), method, three).dropped) == 0


def test_a_gram_common_in_two_ways_counts_once():
    """4 of 8 n-grams are common, here and everywhere: 4 are left, which is half."""
    texts = [" ".join(TOKENS[:16]) + f" x{i}" for i in range(15)]
    method = Decontaminate(global_common_docs=15)
    assert sift(texts, protect(ITEM), method, [f"s{i % 3}" for i in range(15)]).findings.unprotectable.num_rows == 0


def test_suppressed_rows_are_ordered_by_source_name():
    texts = [f"{ITEM} x{i}" for i in range(10)]
    found = sift(texts, protect(ITEM), sources=["z", "a"] * 5).findings.suppressed_common
    assert found["source"].to_pylist() == ["a", "z"]


def test_unprotectable_items_say_why():
    items = protect("two words", "1 2 3 4", ITEM, "how are you", "never in any text")
    texts = [f"{ITEM} how are you x{i}" for i in range(5)] + ["clean"]
    found = sift(texts, items, sources=["s"] * 5 + ["t"]).findings.unprotectable.to_pylist()
    assert [(r["item_id"], r["reason"], r["source"]) for r in found] == [
        ("q0", "too_few_tokens", None),
        ("q1", "too_few_words_with_letters", None),
        ("q2", "mostly_common", "s"),
        ("q3", "mostly_common", "s"),
    ]
    everywhere = Decontaminate(global_common_docs=5)
    found = sift(texts[:5], items, everywhere, ["a", "b", "c", "d", "e"]).findings.unprotectable.to_pylist()
    assert [(r["item_id"], r["source"]) for r in found] == [("q0", None), ("q1", None), ("q2", None), ("q3", None)]


def test_titles_count_and_marking_keeps_all():
    table = pa.table({"doc_id": ["a"], "title": ["How do trees"], "text": ["drink water? They do."]})
    items = protect("how do trees drink water")
    sifted = Decontaminate(action="mark").sift(Corpus.from_table(table), seed=0, protect=items)
    assert (len(sifted.kept), len(sifted.dropped)) == (1, 0)
    assert sifted.findings.is_contaminated.tolist() == [True]
    assert sifted.findings.hits["excerpt"].to_pylist() == ["How do trees\ndrink water"]
    assert sifted.dropped.column_names[-3:] == ["reason", "score", "other_id"]


def test_best_item_and_hits_per_document():
    texts = [f"item number {i} is here now" for i in range(contamination_passes.MAX_HITS_PER_DOC + 3)]
    sifted = sift([" . ".join(texts)], protect(" ".join([*texts[:2], "and then more"]), *texts))
    assert sifted.dropped["other_id"].to_pylist() == ["q1"]  # all of it, not a part; the first of equals
    assert len(sifted.findings.hits) == contamination_passes.MAX_HITS_PER_DOC


@pytest.mark.parametrize("num_grams", [1, 2, 3, 5, 7, 10, 15, 20, 25, 999])
def test_least_matches_is_exact(num_grams):
    for frac in (0.01, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.999, 1.0):
        least = int(least_matches(np.array([num_grams]), frac)[0])
        assert least == next(m for m in range(1, num_grams + 1) if m / num_grams >= frac)


WORDS = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=14).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, min_size=1, max_size=3), st.lists(WORDS, min_size=4))
@settings(max_examples=60)
def test_more_text_never_unflags(texts, items, more):
    """Fewer than five documents: nothing is common."""
    method = Decontaminate(num_tokens=4)
    before = method.find(corpus(texts), seed=0, protect=protect(*items))
    longer = [f"{m} {t} {m}" for t, m in zip(texts, more, strict=False)]
    after = method.find(corpus(longer), seed=0, protect=protect(*items))
    assert (after.coverage >= before.coverage).all()
    assert (after.is_contaminated >= before.is_contaminated).all()


def crowd():
    draws = np.random.default_rng(0).integers(0, 60, (400, 40))
    texts = [" ".join(f"w{x}" for x in row) for row in draws]
    items = [" ".join(t.split()[5:25]) for t in texts[:30]] + ["w1 w2 w3", "w4 w5 w6 w7"]
    texts += [f"{items[0]} y{i}" for i in range(97)] + [texts[3]] * 3
    texts += [f"{items[i % 6]} z{i}" for i in range(200)]  # some of these are common in some samples
    return texts, protect(*items), ["s", "t", "s", "u"] * 175


def findings(data, seed=0, order=None, workers=1, batch_docs=4096):
    texts, items, sources = data
    whole = corpus(texts, sources)
    whole = whole if order is None else whole.select(order)
    return Decontaminate().find(Rebatched(whole, batch_docs), seed=seed, protect=items, workers=workers)


def same(one, other):
    tables = ("hits", "suppressed_common", "unprotectable")
    arrays = ("is_contaminated", "coverage", "item")
    return all(getattr(one, t).equals(getattr(other, t)) for t in tables) and all(
        np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays
    )


def test_workers_and_batches_do_not_matter(monkeypatch):
    monkeypatch.setattr(contamination_passes, "SAMPLE_DOCS", 60)
    monkeypatch.setattr(contamination_passes, "_COMPACT_DOCS", 100)
    data = crowd()
    plain = findings(data)
    assert len(plain.hits) > 20
    assert len(plain.suppressed_common) > 1
    assert len(plain.unprotectable) > 1
    for workers, size in ((1, 1), (2, 7), (3, 64), (2, 4096)):
        assert same(plain, findings(data, workers=workers, batch_docs=size))
    assert not same(plain, findings(data, seed=1))  # another sample
    order = np.random.default_rng(1).permutation(len(data[0]))
    moved = findings(data, order=order, batch_docs=50)
    assert np.array_equal(moved.coverage, plain.coverage[order])
    assert np.array_equal(moved.item, plain.item[order])
    assert moved.suppressed_common.equals(plain.suppressed_common)
    assert moved.unprotectable.equals(plain.unprotectable)


def test_the_sample_is_of_the_smallest_draws(monkeypatch):
    """With limits in force early or late the same texts are counted."""
    monkeypatch.setattr(contamination_passes, "SAMPLE_DOCS", 60)
    data = crowd()
    late = findings(data)
    monkeypatch.setattr(contamination_passes, "_COMPACT_DOCS", 1)
    assert same(late, findings(data, batch_docs=5))


def test_an_answer_of_the_searched_collection_is_refused():
    whole = corpus([ITEM, "clean text of some words"])
    answers = Protected.of(positives=whole.select([0]))
    with pytest.raises(DataError, match=r"1 of 1 protected positives.*'d000'.*protect the queries alone"):
        Decontaminate().sift(whole, seed=0, protect=answers)
    assert Decontaminate(action="mark").sift(whole, seed=0, protect=answers).findings.is_contaminated.tolist() == [
        True,
        False,
    ]
    other = Corpus.from_records([{"doc_id": "x", "title": "T", "text": "T " + ITEM}])
    sifted = Decontaminate().sift(other, seed=0, protect=answers)
    assert sifted.dropped["reason"].to_pylist() == ["contains_positive"]


def test_protected_of_queries_and_positives():
    queries = Queries.from_texts({"1": "what is that thing"})
    answers = Corpus.from_records([{"doc_id": "1", "title": "T", "text": "x"}])
    table = Protected.of(queries, answers).items
    assert table.to_pylist() == [
        {"item_id": "1", "kind": "query", "text": "what is that thing"},
        {"item_id": "1", "kind": "positive", "text": "T\nx"},
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_id": [], "kind": [], "text": []}, "there are none"),
        ({"item_id": ["a"], "kind": ["test"], "text": ["x"]}, "kind 'test' is unknown"),
        ({"item_id": ["a", "a"], "kind": ["query"] * 2, "text": ["x", "y"]}, "'a'"),
        ({"item_id": ["a"], "text": ["x"]}, "no column 'kind'"),
        ({"item_id": ["a"], "kind": ["query"], "text": [None]}, "have no text"),
    ],
)
def test_protected_is_checked(columns, message):
    with pytest.raises(DataError, match=message):
        Protected(pa.table({n: pa.array(v, pa.large_string()) for n, v in columns.items()}))


def test_settings_are_checked():
    with pytest.raises(RecipeError):
        Decontaminate(min_coverage=0.0)
    with pytest.raises(UsageError, match="min_short_tokens 5, num_tokens 4"):
        sift(["x"], protect(ITEM), Decontaminate(num_tokens=4, min_short_tokens=5))
    with pytest.raises(UsageError, match="workers 0"):
        sift(["x"], protect(ITEM), workers=0)


def test_an_empty_corpus_and_no_sources():
    sifted = sift([], protect(ITEM))
    assert (len(sifted.kept), len(sifted.dropped), len(sifted.findings.hits)) == (0, 0, 0)
    bare = Corpus(table=pa.table({"doc_id": ["a"], "text": pa.array([ITEM], pa.large_string())}))
    assert Decontaminate().find(bare, seed=0, protect=protect(ITEM)).is_contaminated.tolist() == [True]


def test_colliding_hashes_are_not_hits(monkeypatch):
    monkeypatch.setattr(contamination_passes.Overlap, "locate", lambda *_, **__: (0, 3, False))
    found = Decontaminate().find(corpus([ITEM]), seed=0, protect=protect(ITEM))
    assert (found.is_contaminated.tolist(), found.num_collisions, len(found.hits)) == ([False], 1, 0)


def test_queries_are_sifted_by_likeness():
    items = protect("how do trees drink their water", ITEM, kind="query")
    queries = Queries.from_texts(
        {
            "same": "Water: how do their trees drink?",
            "near": "how do the trees drink their water",
            "typo": "how do trees drink their waters",
            "around": "tell me whether and why and where the text " + ITEM + " occurs in the book of the author here",
            "clean": "how do birds drink",
        }
    )
    kept, dropped = Decontaminate().sift_queries(queries, items, seed=0)
    assert kept.ids == ["clean"]
    rows = {r["query_id"]: (r["reason"], r["other_id"]) for r in dropped.to_pylist()}
    assert rows == {
        "same": ("same_words", "q0"),
        "near": ("similar_words", "q0"),
        "typo": ("similar_chars", "q0"),
        "around": ("contains_query", "q1"),
    }
    scores = dict(zip(dropped["query_id"].to_pylist(), dropped["score"].to_pylist(), strict=True))
    assert scores["same"] == scores["around"] == 1.0
    assert scores["near"] == 6 / 7
    repeated = Queries.from_texts({"r": "how how do trees drink their water"})
    assert Decontaminate().sift_queries(repeated, items, seed=0)[1]["reason"].to_pylist() == ["similar_words"]


def test_a_short_item_inside_a_longer_query_stays():
    """Only items of num_tokens words are looked for inside queries: "how to cook" is in many."""
    kept, _ = Decontaminate().sift_queries(
        Queries.from_texts({"a": "how to cook rice on a fire"}), protect("how to cook"), seed=0
    )
    assert kept.ids == ["a"]
