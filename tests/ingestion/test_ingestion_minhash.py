"""Verified near copies: worked pairs, the laws of a removal, and the same result however the corpus is cut."""

import csv
import gzip

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import RecipeError, UsageError
from tamis.ingestion import minhash_candidates
from tamis.ingestion.minhash import MinHash
from tamis.ingestion.minhash_candidates import Documents, outline
from tamis.ingestion.minhash_verify import REASONS, Check, verify
from tamis.ops.shingles import CommonShingles
from tamis.ops.text import words

NONE = np.zeros(0, np.uint64)


def corpus_of(texts, titles=None, ids=None, sources=None):
    return Corpus.from_table(
        pa.table(
            {
                "doc_id": ids or [f"d{i:03d}" for i in range(len(texts))],
                "text": texts,
                "title": titles or [""] * len(texts),
                "source": sources or [""] * len(texts),
            }
        )
    )


def sentence(rng, num_words, num_kinds=5000):
    return " ".join(f"w{k}" for k in rng.integers(num_kinds, size=num_words))


def edited(rng, text, frac):
    out = []
    for word in text.split():
        kind = rng.integers(3) if rng.random() < frac else -1
        out += [f"new{rng.integers(5000)}"] if kind == 0 else [word, f"new{rng.integers(5000)}"] if kind == 1 else []
        if kind == -1:
            out.append(word)
    return " ".join(out)


def family(seed=0, num_texts=40, num_words=60):
    """Texts and edited copies of them, in families of up to 6."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(num_texts):
        base = sentence(rng, num_words)
        texts.append(base)
        for _ in range(rng.integers(6)):
            texts.append(edited(rng, base, rng.choice([0.0, 0.02, 0.08, 0.15])))
    return texts


def check_pair(one, other, rule="aligned", frac=0.8, titles=None, same_title=True):
    documents = Documents([corpus_of([one, other], titles)], same_title)
    check = Check(rule, 3, frac, same_title, CommonShingles(NONE))
    codes, scores = verify(documents, outline(documents), np.array([1]), np.array([0]), check, workers=1)
    return REASONS[codes[0]], float(scores[0])


R, M = "a b c d e f g h i j", "a b c X e f g h i j"


def test_worked_pair_is_aligned_and_not_contained():
    assert check_pair(R, M) == ("accepted", 0.9)  # one edit in ten, Jaccard 5/11
    assert check_pair(R, M, "contained") == ("new_words", 0.0)
    assert check_pair(R, "b c d e f", "contained") == ("accepted", 1.0)
    assert check_pair("b c d e f", R, "contained") == ("member_is_longer", 0.0)


def test_limit_of_edits_is_exact():
    text = " ".join(f"w{i}" for i in range(20))
    one = text.replace("w19", "x").replace("w18", "x").replace("w17", "x")
    assert check_pair(text, one.replace("w16", "x"))[0] == "accepted"  # 4 of 20: int((1 - 0.8) * 20) is 3
    assert check_pair(text, one.replace("w16", "x").replace("w15", "x"))[0] == "too_many_edits"


def test_alignment_alone_does_not_accept_common_text():
    letters = [chr(97 + i) for i in range(20)]
    spread = " ".join(x if i % 5 else "X" + x for i, x in enumerate(letters))
    assert check_pair(" ".join(letters), spread)[0] == "too_little_in_common"  # 4 edits of 20, no shingle left but few


def test_contained_repetitions_and_characters():
    assert check_pair("x y x y x y x y z q", "x y x y x y", "contained")[0] == "accepted"
    assert check_pair("x y x y x y z q", "y x x y y x", "contained")[0] == "new_words"  # no new word, another sequence
    code = "abcdefghijklmnopqrstuvwxyz0123456789"
    assert check_pair(code + "Z", code, "contained")[0] == "accepted"
    assert check_pair(code + "Z", code[::-1], "contained")[0] == "new_words"


def test_titles_must_be_equal_where_both_are_given():
    for titles, reason in (
        (["Ash", "Elm"], "other_title"),
        (["Ash tree", "ash  Tree!"], "accepted"),
        (["Ash", ""], "accepted"),
    ):
        assert check_pair(R, R, titles=titles)[0] == reason
    assert check_pair(R, M, titles=["Ash", "Elm"], same_title=False)[0] == "accepted"


def three_in_a_row():
    rng = np.random.default_rng(5)
    a = sentence(rng, 100).split()
    b = a[:98]
    for i in range(0, 96, 6):
        b[i] = f"b{i}"
    c = b[:96]
    for i in range(1, 96, 6):
        c[i] = f"c{i}"
    return [" ".join(x) for x in (a, b, c)]


def test_no_closure():
    found = MinHash(bands=256).find(corpus_of(three_in_a_row()), seed=0)
    assert found.edges.tolist() == [[1, 0], [2, 1]]  # A~B and B~C, but not A~C
    assert found.removed.tolist() == [1]  # C's only edge leads to a document that is gone
    assert found.group_ids.to_pylist() == ["d000", "d000", "d002"]
    assert found.scores.tolist() == [0.82]
    assert found.group_sizes == {2: 1}
    assert found.rejections == {"too_many_edits": 1}


def test_short_documents_take_no_part():
    found = MinHash(bands=256).find(corpus_of([R, M]), seed=0)
    assert (found.num_without_text, found.num_candidates, len(found.removed)) == (2, 0, 0)


def test_equal_bytes_follow_their_leader():
    a, b, c = three_in_a_row()
    found = MinHash(bands=256).find(corpus_of([b, c, a, b, "x", "x", c]), seed=0)
    assert found.removed.tolist() == [0, 3, 5, 6]
    assert found.representatives.tolist() == [2, 2, 4, 1]  # the copy of B goes by B's own edge, to A
    assert found.scores.tolist() == [0.82, 0.82, 1.0, 1.0]
    assert found.num_exact == 3


def check_laws(corpus, found):
    edges = {tuple(edge): score for edge, score in zip(found.edges.tolist(), found.edge_scores.tolist(), strict=True)}
    removed = set(found.removed.tolist())
    rows = corpus.table(["text", "title"]).to_pylist()
    for row, other, score in zip(
        found.removed.tolist(), found.representatives.tolist(), found.scores.tolist(), strict=True
    ):
        assert other not in removed
        equal = [r for r in range(len(rows)) if rows[r] == rows[row]]
        assert rows[row] == rows[other] or any(edges.get((r, other)) == score for r in equal)
        one, two = words(rows[row]["text"]), words(rows[other]["text"])
        previous = list(range(len(two) + 1))
        for i, x in enumerate(one, 1):
            current = [i]
            for j, y in enumerate(two, 1):
                current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (x != y)))
            previous = current
        assert score == pytest.approx(1 - previous[-1] / max(len(one), len(two)))
        assert score >= 0.8


@given(st.integers(0, 10_000))
@settings(max_examples=8)
def test_every_removal_has_a_verified_edge_to_a_kept_document(seed):
    corpus = corpus_of(family(seed, 12, 40))
    found = MinHash(max_source_removed_frac=1.0).find(corpus, seed=seed)
    check_laws(corpus, found)
    kept = corpus.select(np.setdiff1d(np.arange(len(corpus)), found.removed))
    again = MinHash(max_source_removed_frac=1.0).find(kept, seed=seed, common=found.common)
    assert len(again.removed) == 0 or len(found.removed) == 0


METHOD = MinHash(max_source_removed_frac=1.0)


def removed_ids(corpus, found):
    ids = corpus.doc_ids.to_pylist()
    return {ids[row]: (other, score) for row, other, score in zip(
        found.removed.tolist(), found.representative_ids.to_pylist(), found.scores.tolist(), strict=True
    )}  # fmt: skip


class Cut:
    """A corpus that hands out its batches in another size."""

    def __init__(self, corpus, size):
        self.corpus, self.size, self.schema = corpus, size, corpus.schema

    def __len__(self):
        return len(self.corpus)

    def take(self, rows, columns):
        return self.corpus.take(rows, columns)

    def batches(self, columns):
        return self.corpus.batches(columns, batch_docs=self.size)


def test_same_result_for_any_batches_workers_and_rows():
    texts = family(1, 60, 50)
    corpus = corpus_of([*texts, texts[0], texts[5]])
    expected = METHOD.find(corpus, seed=3)
    assert len(expected.removed) > 50
    for size, workers in ((1, 1), (7, 2), (64, 4)):
        found = METHOD.find(Cut(corpus, size), seed=3, workers=workers)
        assert found.removed.tolist() == expected.removed.tolist()
        assert found.edges.tolist() == expected.edges.tolist()
        assert found.group_ids.to_pylist() == expected.group_ids.to_pylist()
    order = np.random.default_rng(0).permutation(len(corpus))
    moved = corpus.select(order)
    assert removed_ids(moved, METHOD.find(moved, seed=3)) == removed_ids(corpus, expected)


def test_small_batches_of_pairs_and_scratch_give_the_same(monkeypatch, tmp_path):
    corpus = corpus_of(family(2, 30, 50))
    expected = METHOD.find(corpus, seed=0)
    monkeypatch.setattr("tamis.ingestion.minhash_verify.BATCH_BYTES", 1000)
    monkeypatch.setattr(minhash_candidates, "MEMORY_DOCS", 10)
    monkeypatch.setattr(minhash_candidates, "_PENDING_PAIRS", 10)
    found = METHOD.find(Cut(corpus, 9), seed=0, scratch=tmp_path, workers=2)
    assert found.edges.tolist() == expected.edges.tolist()
    assert found.removed.tolist() == expected.removed.tolist()
    assert not list(tmp_path.iterdir())


def test_which_one_is_kept():
    rng = np.random.default_rng(4)
    base = sentence(rng, 80)
    corpus = corpus_of([base + " more words", base, base + " x"], ids=["c", "b", "a"])
    assert METHOD.find(corpus, seed=0).removed.tolist() == [1, 2]
    assert METHOD.find(corpus, seed=0, keep="first").removed.tolist() == [0, 1]
    assert METHOD.find(corpus, seed=0, keep="best", scores=np.array([0.0, 2.0, 1.0])).removed.tolist() == [0, 2]
    with pytest.raises(UsageError, match="one score a document"):
        METHOD.find(corpus, seed=0, keep="best")
    with pytest.raises(UsageError, match="alone"):
        METHOD.find(corpus, seed=0, scores=np.zeros(3))
    with pytest.raises(UsageError, match="not numbers"):
        METHOD.find(corpus, seed=0, keep="best", scores=np.array([0.0, np.nan, 1.0]))


def test_against_another_corpus_removes_ours_alone():
    texts = family(6, 20, 50)
    theirs = corpus_of(texts[::3], ids=[f"t{i}" for i in range(len(texts[::3]))])
    rng = np.random.default_rng(1)
    unseen = [sentence(rng, 50) for _ in range(5)]
    ours = corpus_of([*texts, *unseen, unseen[0]])
    found = METHOD.find(ours, seed=0, against=theirs)
    assert set(range(0, len(texts), 3)) <= set(found.removed.tolist())  # equal bytes at least
    assert not set(range(len(texts), len(ours))) & set(found.removed.tolist())  # copies among ours stay
    assert found.representative_ids.to_pylist() == [f"t{r}" for r in found.representatives]
    for row, other, score in zip(
        found.removed.tolist(), found.representatives.tolist(), found.scores.tolist(), strict=True
    ):
        assert check_pair(theirs.table()["text"][other].as_py(), ours.table()["text"][row].as_py()) == (
            "accepted",
            score,
        )
    longest = max(found.group_sizes)
    assert longest >= 2


def test_sift_says_what_became_of_each_document():
    corpus = corpus_of(family(7, 20, 50))
    sifted = METHOD.sift(corpus, seed=0)
    assert len(sifted.kept) + len(sifted.dropped) == len(corpus)
    kept = set(sifted.kept.doc_ids.to_pylist())
    assert len(sifted.dropped) > 10
    assert set(sifted.dropped["reason"].to_pylist()) == {"near_copy"}
    assert set(sifted.dropped["other_id"].to_pylist()) <= kept
    assert sifted.dropped["group_id"].to_pylist() == sifted.dropped["other_id"].to_pylist()
    assert sifted.kept.table()["group_id"].to_pylist() == sifted.kept.doc_ids.to_pylist()
    assert min(sifted.dropped["score"].to_pylist()) >= 0.8


def test_edge_cases():
    empty = corpus_of([])
    assert len(MinHash().find(empty, seed=0).removed) == 0
    assert len(MinHash().sift(empty, seed=0).kept) == 0
    same = METHOD.find(corpus_of(["the very same text " * 10] * 50), seed=0)
    assert len(same.removed) == 49
    assert same.group_sizes == {50: 1}
    huge = "word " * 400_000
    assert len(METHOD.find(corpus_of([huge, huge + "end", *family(8, 5, 40)]), seed=0).removed) >= 1
    with pytest.raises(RecipeError, match="bands"):
        MinHash(bands=0)


def test_collision_curve():
    curve = MinHash().collision_curve()
    assert round(curve[0.3], 3) == 0.406
    assert round(curve[0.5], 3) == 0.984


@pytest.mark.parametrize(("frac", "recall"), [(0.0, 1.0), (0.05, 0.95)])
def test_recall_on_edited_copies_among_boilerplate(frac, recall):
    rng = np.random.default_rng(9)
    header = sentence(rng, 40)
    texts = [header + " " + sentence(rng, 150) for _ in range(400)]
    copies = [edited(rng, text, frac) for text in texts[:100]]
    found = METHOD.find(corpus_of(texts + copies), seed=0)
    pairs = {tuple(sorted(p)) for p in zip(found.removed.tolist(), found.representatives.tolist(), strict=True)}
    assert len(found.common) >= 38  # the header
    assert sum((i, 400 + i) in pairs for i in range(100)) >= 100 * recall
    assert len(pairs) <= 100


@pytest.mark.data
def test_labelled_pairs_of_real_texts(shared):
    """Pairs with a Jaccard similarity of 0.9 and more; their titles name the service, so titles do not matter."""
    with gzip.open(shared / "tos" / "corpus.jsonl.gz", "rb") as file:
        records = [orjson.loads(line) for line in file]
    with (shared / "tos" / "near_duplicates.tsv").open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        labelled = [(row["id1"], row["id2"]) for row in rows if float(row["jaccard"]) >= 0.9]
    wanted = sorted({doc_id for pair in labelled for doc_id in pair})
    records = [r for i, r in enumerate(records) if r["_id"] in wanted or i % 4 == 0]
    corpus = corpus_of([r["text"] for r in records], [r["title"] for r in records], [r["_id"] for r in records])
    found = MinHash(same_title=False, max_source_removed_frac=1.0).find(corpus, seed=0)
    ids = corpus.doc_ids.to_pylist()
    edges = {frozenset((ids[a], ids[b])) for a, b in found.edges.tolist()}
    assert len(labelled) == 66
    assert sum(frozenset(pair) in edges for pair in labelled) >= 63
