"""Frequent lines: the worked figures, what is removed can be put back, and nothing depends on order or batches."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import DataError
from tamis.ingestion.lines import FrequentLines, LineCounts, LineSketch
from tamis.ingestion.spans import restored

COPYRIGHT = "Copyright 2024 Example Corporation, all rights reserved"
SMALL = FrequentLines(min_docs=3, min_docs_frac=0.0, min_chars=12, min_words=2)
LINES = [
    "a long frequent line 7",
    "A long, frequent line 8",
    "short",
    "menu",
    "",
    "  ",
    "---",
    "one more line, long",
    "Über allen Gipfeln",
]


def corpus_of(texts, sources=None):
    sources = sources or [""] * len(texts)
    pairs = zip(texts, sources, strict=True)
    return Corpus.from_records([{"doc_id": f"d{i}", "text": t, "source": s} for i, (t, s) in enumerate(pairs)])


def texts_of(corpus):
    return dict(zip(corpus.table()["doc_id"].to_pylist(), corpus.table()["text"].to_pylist(), strict=True))


def test_hand_worked():
    words = ["alpha", "beta", "gamma", "delta"]
    texts = [
        f"body {w} is here\nUsage\nmore of {w[::-1]}\n{COPYRIGHT.replace('2024', str(2020 + i))}"
        for i, w in enumerate(words)
    ]
    result = FrequentLines(min_docs=3, min_docs_frac=0.0, min_words=1).sift(corpus_of(texts), seed=0)
    assert texts_of(result.kept)["d0"] == "body alpha is here\nUsage\nmore of ahpla"
    span = result.spans.to_pylist()[0]
    assert (span["doc_id"], span["reason"], span["text"]) == (
        "d0",
        "frequent_line",
        "\n" + COPYRIGHT.replace("2024", "2020"),
    )
    assert span["stop"] - span["start"] == 56
    assert [(r["num_docs"], r["num_removed"]) for r in result.lines.to_pylist()] == [(4, 4)]
    beside = FrequentLines(min_docs=3, min_docs_frac=0.0, min_words=1).sift(
        corpus_of([t.replace("\nmore", "\n\nUsage\nmore") for t in texts]), seed=0
    )
    assert texts_of(beside.kept)["d0"] == "body alpha is here\nmore of ahpla"


def test_only_boilerplate_is_dropped_as_it_was_and_short_documents_stay():
    texts = [f"{COPYRIGHT}\n{w}" for w in ("one", "two", "three")] + ["two words"]
    result = SMALL.sift(corpus_of(texts), seed=0)
    assert texts_of(result.kept) == {"d3": "two words"}
    assert [(r["text"], r["reason"]) for r in result.dropped.to_pylist()] == [
        (t, "only_boilerplate") for t in texts[:3]
    ]
    assert len(result.spans) == 0 and len(result.lines) == 0


def test_bounds_by_source_and_overall():
    rare = "a licence line of the small source"
    texts = [f"{rare}\nbody of {c} text" for c in "mn"] + [f"body of {c} text" for c in "op"]
    texts += [f"other words {chr(97 + i)} here" for i in range(26)]
    sources = ["small"] * 4 + ["large"] * 26
    method = FrequentLines(min_docs=2, min_docs_frac=0.5, min_chars=12, min_words=1)
    split = method.sift(corpus_of(texts, sources), seed=0)
    assert {r["line"] for r in split.lines.to_pylist()} == {rare}
    assert split.lines["num_docs"].to_pylist() == [2]  # half of the source: just enough
    whole = method.sift(corpus_of(texts), seed=0)  # 2 of 30 documents of one source are too few
    assert len(whole.spans) == 0
    spread = corpus_of([f"{rare}\nbody {chr(97 + i)}" for i in range(6)], [str(i) for i in range(6)])
    assert len(method.sift(spread, seed=0).spans) == 6  # a file each: counted overall


def test_a_line_counts_once_a_document():
    texts = [f"{COPYRIGHT}\n{COPYRIGHT}\nfirst body", f"{COPYRIGHT}\nsecond body", "third body"]
    assert len(SMALL.sift(corpus_of(texts), seed=0).spans) == 0


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=8), min_size=1, max_size=9), st.data())
def test_spans_put_it_back_and_order_and_batches_do_not_matter(documents, data):
    texts = ["\n".join([*lines, f"end {chr(97 + i)}"]) for i, lines in enumerate(documents)]
    sources = [data.draw(st.sampled_from("ab")) for _ in texts]
    corpus = corpus_of(texts, sources)
    result = SMALL.sift(corpus, seed=0)
    kept = texts_of(result.kept)
    assert {k: v for k, v in texts_of(corpus).items() if k in kept} == texts_of(restored(result.kept, result.spans))
    order = data.draw(st.permutations(range(len(texts))))
    other = SMALL.sift(corpus.select(order), seed=0)
    assert texts_of(other.kept) == kept
    assert other.lines.equals(result.lines)
    found = SMALL.sources(corpus)
    sketches = [SMALL.sketch(b, found) for b in corpus.batches(["text", "source"], batch_docs=2)]
    total = LineSketch()
    for sketch in reversed(sketches):
        total = sketch.merge(total)
    whole = SMALL.sketch(next(iter(corpus.batches())), found)
    for name in ("overall", "within"):
        part = getattr(total, name)
        assert part.to_table().equals(getattr(whole, name).to_table())
        assert LineCounts.from_table(part.to_table()).to_table().equals(part.to_table())
    model = SMALL.fit(total, found, len(corpus))
    parts = [SMALL.clean(b, model) for b in corpus.batches(batch_docs=3)]
    assert pa.concat_tables([p.kept for p in parts]).equals(result.kept.table())
    again = SMALL.clean(result.kept.table().combine_chunks().to_batches()[0], model) if len(result.kept) else None
    if again is not None:  # at the same frequencies nothing is left to remove
        assert len(again.spans) == 0
        assert len(again.dropped) == 0


def test_restored_refuses_what_does_not_belong_together():
    texts = [f"{COPYRIGHT}\nbody of words {c}" for c in "abc"]
    result = SMALL.sift(corpus_of(texts), seed=0)
    assert len(result.spans) == 3
    with pytest.raises(DataError, match="no such document"):
        restored(result.kept.select([0]), result.spans)
    with pytest.raises(DataError, match="does not fit"):
        restored(result.kept, result.spans.set_column(1, "start", pa.array([900, 900, 900])))


def test_nothing_to_do():
    empty = corpus_of([])
    assert len(FrequentLines().sift(empty, seed=0).kept) == 0
    corpus = corpus_of(["x y z", "- \n--\n..."])
    result = FrequentLines(min_docs=2).sift(corpus, seed=0)
    assert result.kept.table().equals(corpus.table())
    assert np.array_equal(result.kept.rows_of(corpus.doc_ids), [0, 1])
