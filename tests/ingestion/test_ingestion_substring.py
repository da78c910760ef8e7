"""Repeated substrings: the worked figures, what is promised to be found, and that nothing is lost."""

import re

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import DataError, RecipeError
from tamis.ingestion import minhash, minhash_candidates, substring_find
from tamis.ingestion.pool import Pool
from tamis.ingestion.spans import restored
from tamis.ingestion.substring import RepeatedSubstrings
from tamis.ops import winnow

THREE = RepeatedSubstrings(num_tokens=3, action="remove")
WORD = re.compile(r"\w+")


def corpus_of(texts, ids=None):
    ids = ids or [f"d{i:03d}" for i in range(len(texts))]
    return Corpus.from_records([{"doc_id": d, "text": t} for d, t in zip(ids, texts, strict=True)])


def texts_of(corpus):
    return dict(zip(corpus.table()["doc_id"].to_pylist(), corpus.table()["text"].to_pylist(), strict=True))


def repeats_of(result):
    return [tuple(row.values()) for row in result.repeats.to_pylist()]


def words(rng, num, kinds=100_000):
    return [f"w{k}" for k in rng.integers(kinds, size=num)]


def test_hand_worked():
    """A run of 2 * 3 - 1 words is always found; one of 3 where a window of it is sampled in both texts."""
    texts = ["p a b c d e q r s t", "x A, b: c d; E! y", "k l m n o"]
    marked = RepeatedSubstrings(num_tokens=3).sift(corpus_of(texts), seed=0)
    assert repeats_of(marked) == [("d001", 2, 14, 5, "d000")]  # the longest document has it first
    assert marked.kept.table().equals(corpus_of(texts).table())
    assert len(marked.spans) == len(marked.dropped) == 0
    cut = THREE.sift(corpus_of(texts), seed=0)
    assert texts_of(cut.kept) == {"d000": texts[0], "d001": "x ! y", "d002": texts[2]}
    assert [tuple(row.values()) for row in cut.spans.to_pylist()] == [("d001", 2, 14, "repeated_text", "A, b: c d; E")]
    assert repeats_of(cut) == repeats_of(marked)


def test_nothing_left_is_dropped_as_it_was():
    result = THREE.sift(corpus_of(["a b c d e f g h i", "(b c d e f.)", "p q r s t", "..."]), seed=0)
    assert texts_of(result.kept) == {"d000": "a b c d e f g h i", "d002": "p q r s t", "d003": "..."}
    assert [(r["doc_id"], r["text"], r["reason"]) for r in result.dropped.to_pylist()] == [
        ("d001", "(b c d e f.)", "only_repeated_text")
    ]
    assert len(result.spans) == 0 and repeats_of(result) == [("d001", 1, 10, 5, "d000")]


def test_pieces_of_one_document_are_cut_with_the_blank_between():
    texts = ["a b c d e f g h i j k l", "p q r s t u v w x y z", "0 d e f g h q r s t u 1"]
    texts[0] += " and more"
    texts[1] += " too"
    result = THREE.sift(corpus_of(texts), seed=0)
    assert texts_of(result.kept)["d002"] == "0  1"
    assert [r["text"] for r in result.spans.to_pylist()] == ["d e f g h q r s t u"]
    assert repeats_of(result) == [("d002", 2, 11, 5, "d000"), ("d002", 12, 21, 5, "d001")]


def tokens_of(corpus):
    return {doc_id: WORD.findall(text.lower()) for doc_id, text in texts_of(corpus).items()}


def slow_runs(one, other, least):
    """Yield (start, stop) in ``one`` of every maximal run of ``least`` words or more that it shares with ``other``."""
    for i in range(len(one)):
        for j in range(len(other)):
            if i and j and one[i - 1] == other[j - 1]:
                continue
            size = 0
            while i + size < len(one) and j + size < len(other) and one[i + size] == other[j + size]:
                size += 1
            if size >= least:
                yield i, i + size


@st.composite
def documents(draw):
    """Texts over few words, with passages pasted here and there."""
    word = st.sampled_from(draw(st.sampled_from(["ab", "abcdÉé東h"])))
    passages = draw(st.lists(st.lists(word, min_size=3, max_size=18), min_size=1, max_size=3))
    part = st.one_of(st.lists(word, max_size=5), st.sampled_from(passages))
    join = draw(st.sampled_from([" ", "\n", " - "]))
    return [join.join(w for p in draw(st.lists(part, min_size=1, max_size=5)) for w in p) + f" end{i}" for i in
            range(draw(st.integers(2, 6)))]  # fmt: skip


@settings(max_examples=100)
@given(documents(), st.integers(2, 5))
def test_every_long_shared_run_is_found_and_every_piece_is_there(texts, width):
    corpus = corpus_of(texts)
    found = RepeatedSubstrings(num_tokens=width).find(corpus, seed=0)
    split = tokens_of(corpus)
    order = substring_find.global_order(substring_find.outline(corpus, workers=1)).tolist()
    ids = [f"d{row:03d}" for row in order]
    marked = {doc_id: set() for doc_id in ids}
    for at, doc_id in enumerate(found.doc_ids.to_pylist()):
        for k in range(found.first[at], found.first[at + 1]):
            start, stop, there = int(found.starts[k]), int(found.stops[k]), int(found.other_starts[k])
            other = found.other_ids[k].as_py()
            assert stop - start >= width and ids.index(other) < ids.index(doc_id)
            assert split[doc_id][start:stop] == split[other][there : there + stop - start]
            marked[doc_id] |= set(range(start, stop))
    for place, member in enumerate(ids):
        for other in ids[:place]:
            for start, stop in slow_runs(split[member], split[other], 2 * width - 1):
                assert set(range(start + width - 1, stop - width + 1)) <= marked[member]
    assert found.num_unequal == 0


@settings(max_examples=100)
@given(documents(), st.integers(2, 5), st.data())
def test_what_is_cut_stays_elsewhere_and_can_be_put_back(texts, width, data):
    method = RepeatedSubstrings(num_tokens=width, action="remove")
    corpus = corpus_of(texts)
    result = method.sift(corpus, seed=0)
    whole = texts_of(corpus)
    kept = texts_of(result.kept)
    assert {k: v for k, v in whole.items() if k in kept} == texts_of(restored(result.kept, result.spans))
    found = method.find(corpus, seed=0)
    split = tokens_of(corpus)
    lost = {doc_id: set() for doc_id in whole}
    pieces = []
    for at, doc_id in enumerate(found.doc_ids.to_pylist()):
        for k in range(found.first[at], found.first[at + 1]):
            start, stop = int(found.starts[k]), int(found.stops[k])
            lost[doc_id] |= set(range(start, stop))
            pieces.append((start, stop, found.other_ids[k].as_py(), int(found.other_starts[k]), doc_id))
    for start, stop, other, there, doc_id in pieces:
        assert split[doc_id][start:stop] == split[other][there : there + stop - start]
        assert not lost[other] & set(range(there, there + stop - start))  # the other document keeps all of it
    for doc_id, text in kept.items():
        assert WORD.findall(text.lower()) == [w for at, w in enumerate(split[doc_id]) if at not in lost[doc_id]]
    assert set(whole) - set(kept) == {d for d in whole if lost[d] and len(lost[d]) == len(split[d])}
    order = data.draw(st.permutations(range(len(texts))))
    other = method.sift(corpus.select(order), seed=1)
    assert texts_of(other.kept) == kept
    assert sorted(repeats_of(other)) == sorted(repeats_of(result))
    parts = [method.clean(batch, found) for batch in corpus.batches(batch_docs=2)]
    assert pa.concat_tables([p.kept for p in parts]).equals(result.kept.table())


def test_a_passage_of_two_documents_is_found_whole():
    rng = np.random.default_rng(0)
    passages = [words(rng, 99 + k) for k in range(60)]
    hosts = [words(rng, 400) for _ in range(120)]
    texts = []
    for k, host in enumerate(hosts):
        at = int(rng.integers(400))
        texts.append(" ".join([*host[:at], *passages[k % 60], *host[at:]]))
    result = RepeatedSubstrings(action="remove").sift(corpus_of(texts), seed=0)
    cut = {row["text"] for row in result.spans.to_pylist()}
    assert cut == {" ".join(p) for p in passages} and len(result.spans) == 60


def test_a_template_costs_one_comparison_a_document():
    rng = np.random.default_rng(1)
    template = words(rng, 150)
    texts = [" ".join([*words(rng, 20), *template, *words(rng, int(rng.integers(20)))]) for _ in range(3000)]
    corpus = corpus_of(texts)
    noted = substring_find.outline(corpus, workers=1)
    order = substring_find.global_order(noted)
    ranks = np.argsort(order)
    windows = substring_find.shared_windows(corpus, ranks, 50, parts=1, workers=1)
    assert len(windows.members) <= 12 * 3000  # not 3000 * 3000 / 2
    found = substring_find.shared_runs(corpus, noted, windows, 50, workers=1)
    assert len(found.runs) <= 2 * 3000
    result = RepeatedSubstrings(action="remove").sift(corpus, seed=0)
    assert len(result.spans) == 2999
    assert set(result.spans["text"].to_pylist()) == {" ".join(template)}


def test_workers_parts_and_batches_do_not_matter(monkeypatch):
    rng = np.random.default_rng(2)
    shared = [words(rng, 130) for _ in range(8)]
    texts = []
    for _ in range(300):
        chosen = [shared[i] for i in rng.integers(8, size=3)]
        texts.append(" ".join(w for p in chosen for w in [*words(rng, 10), *p[: int(rng.integers(60, 131))]]))
    corpus = corpus_of(texts)
    method = RepeatedSubstrings(action="remove")
    plain = method.find(corpus, seed=0)
    assert len(plain.starts) > 300
    monkeypatch.setattr(substring_find, "PART_SAMPLES", 5_000)
    monkeypatch.setattr(substring_find, "BATCH_BYTES", 4_000)
    assert substring_find.num_parts(substring_find.outline(corpus, workers=1), 50) > 1

    class Small:
        schema = corpus.schema

        def __len__(self):
            return len(corpus)

        def batches(self, columns=None):
            return corpus.batches(columns, batch_docs=7)

        def take(self, rows, columns=None):
            return corpus.take(rows, columns)

    for workers in (1, 3):
        other = method.find(Small(), seed=5, workers=workers)
        for name in plain.__dataclass_fields__:
            one, two = getattr(plain, name), getattr(other, name)
            assert one.equals(two) if isinstance(one, pa.Array) else np.array_equal(one, two), name


def test_a_pool_of_raw_files_gives_the_same(tmp_path):
    rng = np.random.default_rng(3)
    passage = words(rng, 120)
    texts = [" ".join([*words(rng, 40 + k), *passage[: 100 + k], "ü"]) for k in range(20)]
    corpus = corpus_of(texts)
    lines = [orjson.dumps({"id": f"d{row:03d}", "text": text}) for row, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    method = RepeatedSubstrings(action="remove")
    with Pool.open([str(tmp_path / "in.jsonl")], scratch=tmp_path / "scratch") as pool:
        found = method.find(pool, seed=0, workers=2)
        parts = [method.clean(batch, found) for batch in pool.batches()]
    cut = pa.concat_tables([part.spans for part in parts])
    assert len(cut) == 19
    assert cut.equals(method.sift(corpus, seed=0).spans)


def test_the_order_is_that_of_the_longest_near_copy():
    texts = ["b b", "aa a", "b b", "é é", "longer text", ""]
    corpus = corpus_of(texts, ["z", "y", "k", "x", "w", "v"])
    documents = minhash_candidates.Documents([corpus], True)
    theirs = minhash._global_order(minhash_candidates.outline(documents), "longest", None, 0)
    ours = substring_find.global_order(substring_find.outline(corpus, workers=2))
    assert ours.tolist() == theirs.tolist()
    assert ours[0] == 4 and ours.tolist().index(2) < ours.tolist().index(0)  # equal texts: by doc_id


def test_hashes_alone_decide_nothing(monkeypatch):
    def all_alike(texts, width, **_):
        rows = np.arange(len(texts), dtype=np.uint32)
        return winnow.Samples(np.ones(len(texts), np.uint64), rows, np.zeros(len(texts), np.uint32))

    monkeypatch.setattr(winnow, "samples", all_alike)
    found = RepeatedSubstrings(num_tokens=3).find(corpus_of(["a b c d", "a b x", "A b c"]), seed=0)
    assert found.doc_ids.to_pylist() == ["d002"]
    assert (found.num_samples, found.num_shared, found.num_unequal) == (3, 2, 1)


def test_a_text_that_changed_is_refused():
    corpus = corpus_of(["a b c d e f g h i", "x b c d e f y"])
    found = THREE.find(corpus, seed=0)
    changed = corpus_of(["a b c d e f g h i", "x b c d e y f"])
    for verb in (THREE.clean, THREE.marks):
        with pytest.raises(DataError, match="'d001': its text is not the one"):
            verb(next(iter(changed.batches())), found)
    unknown = corpus_of(["x b c d e f y"], ["new"])
    assert len(THREE.clean(next(iter(unknown.batches())), found).spans) == 0


def test_nothing_to_do():
    for texts in ([], [""], ["a b c d e f a b c d e f"], ["a b c", "d e f", "... --- !!!"]):
        corpus = corpus_of(texts)
        result = THREE.sift(corpus, seed=0)
        assert result.kept.table().equals(corpus.table())
        assert len(result.spans) == len(result.repeats) == len(result.dropped) == 0
    with pytest.raises(RecipeError, match="num_tokens"):
        RepeatedSubstrings(num_tokens=1)


def test_long_texts_of_one_word_end():
    texts = ["a " * 100_000, "a " * 99_000 + "b", "a b " * 50_000, "a b " * 49_000 + "c"]
    result = RepeatedSubstrings(action="remove").sift(corpus_of(texts), seed=0)
    left = texts_of(result.kept)
    assert sorted(len(t) > 1000 for t in left.values()) == [False, False, True, True]
    assert all(len(WORD.findall(left[d])) <= 2 * 49 + 1 for d, t in left.items() if len(t) <= 1000)
