"""What holds for every selection: budgets, order, batches, several targets, and bad input."""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import DataError, RecipeError, UsageError
from tamis.selection import DSIR, Budget, Uniform, choose_for_targets, kl_reduction, select_for_targets
from tamis.selection.budget import prefix, quotas
from tamis.selection.choice import Measures

WORDS = [
    "river",
    "stone",
    "cloud",
    "maple",
    "engine",
    "carbon",
    "signal",
    "garden",
    "window",
    "planet",
    "copper",
    "violin",
]
COOKING = ["simmer", "butter", "onion", "garlic", "oven", "dough", "whisk", "salt", "pepper", "broth"]


def document(row, words, rng, length=40):
    return {"doc_id": f"d{row:03d}", "text": " ".join(rng.choice(words, length)), "source": f"s{row % 3}"}


def pool(num_docs=60, num_cooking=12):
    rng = np.random.default_rng(5)
    return Corpus.from_records(
        [document(row, COOKING if row < num_cooking else WORDS, rng, 30 + row % 7) for row in range(num_docs)]
    )


def cooking(num_docs=3):
    rng = np.random.default_rng(6)
    return Corpus.from_records([document(row + 900, COOKING, rng) for row in range(num_docs)])


METHODS = [
    Uniform(budget=Budget(docs=12)),
    Uniform(budget=Budget(words=500), stratify="source"),
    Uniform(budget=Budget(frac=0.5), stratify="length"),
    DSIR(budget=Budget(docs=12)),
    DSIR(budget=Budget(bytes=3000), sampling="gumbel", num_buckets=1000),
    DSIR(budget=Budget(words=400), mode="paper", min_tokens=5),
]


class Recut:
    """The same documents in batches of another size."""

    def __init__(self, corpus, batch_docs):
        self._corpus, self._batch_docs, self.schema = corpus, batch_docs, corpus.schema

    def __len__(self):
        return len(self._corpus)

    def batches(self, columns=None):
        return self._corpus.batches(columns, batch_docs=self._batch_docs)

    def take(self, rows, columns=None):
        return self._corpus.take(rows, columns)


class Piece:
    """Some rows that a worker reads for itself."""

    def __init__(self, corpus, start, stop):
        self._corpus, self._start, self._stop = corpus, start, stop

    def __len__(self):
        return self._stop - self._start

    def read(self, columns):
        part = self._corpus.select(range(self._start, self._stop))
        return part.batches(columns, batch_docs=4)


class InPieces(Recut):
    """A pool that comes in pieces."""

    def pieces(self):
        return [Piece(self._corpus, at, min(at + 11, len(self))) for at in range(0, len(self), 11)]

    def batches(self, columns=None):
        raise AssertionError("the pieces are to be read")


def outcome(choice):
    return dict(
        zip(
            choice.doc_ids.to_pylist(),
            zip(choice.kept.tolist(), choice.scores.tolist(), choice.reasons.to_pylist(), strict=True),
            strict=True,
        )
    )


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_document_is_kept_or_dropped_with_a_reason(method):
    corpus, target = pool(), cooking()
    before = corpus.table().to_pydict()
    chosen = method.select(corpus, target, seed=1)
    kept, dropped = chosen.kept.doc_ids.to_pylist(), chosen.dropped["doc_id"].to_pylist()
    assert kept
    assert dropped
    assert sorted(kept + dropped) == corpus.doc_ids.to_pylist()
    assert kept == sorted(kept)  # corpus order
    assert set(chosen.dropped["reason"].to_pylist()) <= {"over_budget", "too_few_tokens"}
    rows = corpus.rows_of(dropped)
    assert chosen.dropped["score"].to_pylist() == chosen.scores[rows].tolist()
    assert chosen.figures["num_kept"] == len(kept)
    unit = method.budget.unit
    assert chosen.figures[f"kept_{unit}"] <= chosen.figures["budget"]
    assert corpus.table().to_pydict() == before
    assert type(method).from_json(method.model_dump_json(), "x") == method
    assert pickle.loads(pickle.dumps(method)) == method  # noqa: S301 - our own


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_batches_row_order_and_threads_change_nothing(method):
    corpus, target = pool(), cooking()
    wanted = method.choose(corpus, target, seed=1)
    for batch_docs in (1, 7, 1000):
        again = method.choose(Recut(corpus, batch_docs), Recut(target, 2), seed=1)
        assert outcome(again) == outcome(wanted)
        assert again.figures == wanted.figures
    shuffled = corpus.select(np.random.default_rng(0).permutation(len(corpus)))
    assert outcome(method.choose(shuffled, target, seed=1)) == outcome(wanted)
    in_pieces = method.choose(InPieces(corpus, 1), target, seed=1)
    assert outcome(in_pieces) == outcome(wanted)
    assert in_pieces.figures == wanted.figures
    with ThreadPoolExecutor(2) as threads:
        assert outcome(method.choose(Recut(corpus, 9), target, seed=1, engine=threads.map)) == outcome(wanted)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_model_can_be_sent_to_another_process(method):
    corpus, target = pool(), cooking()
    batch = next(iter(corpus.batches()))
    model = method.fit(method.survey(corpus, seed=1), target, seed=1)
    assert dataclasses.is_dataclass(model)
    sent = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    assert method.score(batch, sent).tolist() == method.score(batch, model).tolist()


def test_what_a_smaller_budget_keeps_a_larger_one_keeps():
    corpus, target = pool(), cooking()
    for method in (Uniform, DSIR):
        previous = np.zeros(len(corpus), bool)
        for words in (100, 300, 301, 900, 10**9):
            kept = method(budget=Budget(words=words)).choose(corpus, target, seed=1).kept
            assert (previous <= kept).all()
            assert kept.sum() > previous.sum() or words == 301
            previous = kept


def test_budget_stops_before_the_first_that_does_not_fit():
    sizes = np.array([5, 3, 9, 1])
    assert Budget(words=9).keep(np.array([1, 0, 2, 3]), sizes).tolist() == [True, True, False, False]
    assert Budget(words=8).keep(np.array([1, 0, 2, 3]), sizes).tolist() == [True, True, False, False]
    assert Budget(words=7).keep(np.array([1, 0, 2, 3]), sizes).tolist() == [False, True, False, False]
    assert Budget(frac=0.5).keep(np.array([2, 3, 1]), sizes).tolist() == [False, False, True, False]
    assert prefix(np.array([], np.int64), sizes, 4).tolist() == [False] * 4


def test_a_share_is_taken_as_it_is_written():
    assert 0.29 * 100 < 29  # what floats would do
    assert Budget(frac=0.29).limit(100) == 29
    assert Budget(frac=1.0).limit(7) == 7


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 400), st.integers(0, 400), st.randoms())
def test_prefixes_are_nested(sizes, one, other, random):
    order = list(range(len(sizes)))
    random.shuffle(order)
    kept = [prefix(np.array(order), np.array(sizes), limit) for limit in sorted([one, other])]
    assert (kept[0] <= kept[1]).all()
    assert kept[0] @ np.array(sizes) <= min(one, other)


def test_worked_quotas():
    assert quotas(7, np.array([50, 30, 20])).tolist() == [4, 2, 1]
    assert quotas(3, np.array([1, 1])).tolist() == [2, 1]
    assert quotas(10, np.array([0.25, 0.75])).tolist() == [3, 7]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=8).filter(any), st.integers(0, 10**12))
def test_quotas_add_up_and_are_within_one(weights, total):
    shared = quotas(total, np.array(weights))
    assert shared.sum() == total
    assert all(abs(q * sum(weights) - total * w) < sum(weights) for q, w in zip(shared.tolist(), weights, strict=True))


def test_units_of_a_budget():
    batch = next(iter(Corpus.from_records([{"doc_id": "a", "title": "Ab", "text": "c, dé!"}]).batches()))
    assert Budget(docs=1).sizes(batch).tolist() == [1]
    assert Budget(words=1).sizes(batch).tolist() == Budget(frac=1.0).sizes(batch).tolist() == [3]
    assert Budget(bytes=1).sizes(batch).tolist() == [len("Ab\nc, dé!".encode())]


def test_ties_are_broken_by_key_and_then_by_id():
    ids = pa.array(["é", "b", "a", "z", "c"], pa.large_string())
    measures = Measures(ids, np.array([1.0, 1, 1, 1, 2]), np.array([3, 3, 3, 1, 9], np.uint64), np.ones(5, np.int64))
    assert measures.order(np.arange(5)).tolist() == [4, 3, 2, 1, 0]
    assert measures.order(np.array([0, 2, 1])).tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("given_budget", "match"),
    [({}, "got none"), ({"docs": 3, "frac": 0.5}, "got docs and frac"), ({"docs": 0}, "greater"), ({"frac": 1.5}, "1")],
)
def test_budgets_that_cannot_be_meant(given_budget, match):
    with pytest.raises(RecipeError, match=match):
        Budget(**given_budget)
    with pytest.raises(RecipeError, match="budget"):
        Uniform()


def test_an_empty_target_or_one_without_words_is_refused():
    empty = Corpus.from_table(
        pa.table({"doc_id": pa.array([], pa.large_string()), "text": pa.array([], pa.large_string())})
    )
    marks = Corpus.from_records([{"doc_id": "a", "text": "?!"}])
    for target in (empty, marks):
        with pytest.raises(DataError, match="no words"):
            DSIR(budget=Budget(docs=1)).select(pool(), target, seed=0)
    chosen = Uniform(budget=Budget(docs=4)).select(pool(), empty, seed=0)  # the control needs none
    assert len(chosen.kept) == 4
    assert "kl_reduction" not in chosen.figures
    with pytest.raises(DataError, match="no documents"):
        Uniform(budget=Budget(docs=1)).select(empty, cooking(), seed=0)


def test_a_target_larger_than_the_pool_is_said():
    chosen = DSIR(budget=Budget(docs=2)).select(pool(5, 2), pool(), seed=0)
    assert chosen.notes == ("The target (60) is larger than the pool (5 docs).",)
    assert len(chosen.kept) == 2


def test_a_budget_larger_than_the_pool_keeps_all_and_says_so():
    for budget in (Budget(docs=61), Budget(words=10**9), Budget(bytes=10**9)):
        chosen = DSIR(budget=budget).select(pool(), cooking(), seed=0)
        assert len(chosen.kept) == 60
        assert len(chosen.dropped) == 0
        assert "larger than" in chosen.notes[0]
        assert chosen.figures["kl_reduction"] == 0
    exact = DSIR(budget=Budget(frac=1.0)).select(pool(), cooking(), seed=0)
    assert len(exact.kept) == 60
    assert exact.notes == ()


def test_identical_documents_are_kept_by_id():
    text = " ".join(WORDS * 3)
    corpus = Corpus.from_records([{"doc_id": f"d{row}", "text": text} for row in (3, 1, 2, 0)])
    for method in (
        Uniform(budget=Budget(docs=2)),
        DSIR(budget=Budget(docs=2)),
        DSIR(budget=Budget(docs=2), mode="paper", min_tokens=1),
    ):
        chosen = method.select(corpus, cooking(), seed=0)
        assert chosen.kept.doc_ids.to_pylist() == ["d1", "d0"]


def test_one_huge_document():
    huge = {"doc_id": "huge", "text": " ".join(WORDS) * 40_000, "source": ""}
    corpus = Corpus.from_records([huge, {"doc_id": "small", "text": " ".join(COOKING * 3), "source": ""}])
    chosen = DSIR(budget=Budget(docs=1)).select(corpus, cooking(), seed=0)
    assert chosen.kept.doc_ids.to_pylist() == ["small"]
    with pytest.raises(UsageError, match=r"budget: 10 words, and the best document has 30\. Give at least"):
        DSIR(budget=Budget(words=10)).select(corpus, cooking(), seed=0)
    with pytest.raises(UsageError, match="strata"):
        Uniform(budget=Budget(words=10), stratify="source").select(corpus, cooking(), seed=0)


def test_a_pool_of_refused_documents_is_an_error():
    with pytest.raises(DataError, match=r"none of the 60 documents may be kept: 60 too_few_tokens"):
        DSIR(budget=Budget(docs=1), min_tokens=1000).select(pool(), cooking(), seed=0)


class Greedy(DSIR):
    """A method that must not keep the target itself, and one that breaks."""

    excludes_target = True


class Broken(Uniform):
    def score(self, batch, model):
        return np.full(len(batch), np.nan)


def test_documents_of_the_target_can_be_left_out():
    corpus = pool()
    target = corpus.select([0, 1, 2])
    plain = DSIR(budget=Budget(docs=6)).select(corpus, target, seed=0)
    assert plain.figures["num_in_target"] == 3
    assert {"d000", "d001", "d002"} <= set(plain.kept.doc_ids.to_pylist())
    chosen = Greedy(budget=Budget(docs=6)).select(corpus, target, seed=0)
    reasons = dict(zip(chosen.dropped["doc_id"].to_pylist(), chosen.dropped["reason"].to_pylist(), strict=True))
    assert [reasons[d] for d in ("d000", "d001", "d002")] == ["in_target"] * 3
    assert len(chosen.kept) == 6
    with pytest.raises(DataError, match=r"document 'd000': Broken gave NaN"):
        Broken(budget=Budget(docs=1)).select(corpus, target, seed=0)


def other(num_docs=2):
    rng = np.random.default_rng(7)
    return Corpus.from_records([document(row + 800, WORDS, rng) for row in range(num_docs)])


def test_several_targets_share_the_budget_without_overlap():
    corpus = pool()
    chosen = select_for_targets(DSIR(budget=Budget(docs=20)), corpus, {"a": cooking(3), "b": other(2)}, seed=0)
    kept = [set(s.kept.doc_ids.to_pylist()) for s in chosen.values()]
    assert [len(k) for k in kept] == [12, 8]  # as their words, 120 and 80
    assert not kept[0] & kept[1]
    assert kept[0] == {f"d{row:03d}" for row in range(12)}
    shares = choose_for_targets(
        DSIR(budget=Budget(frac=0.5)), corpus, {"a": cooking(3), "b": other(2)}, {"a": 1, "b": 3}, seed=0
    )
    assert shares["b"].figures["budget"] == pytest.approx(3 * shares["a"].figures["budget"], abs=2)


def test_neither_names_nor_the_order_of_targets_and_their_documents_matter():
    corpus, some, more = pool(), cooking(3), cooking(5)
    method = DSIR(budget=Budget(docs=20))
    one = choose_for_targets(method, corpus, {"a": some, "b": more}, seed=0)
    other = choose_for_targets(method, corpus, {"y": more.select([4, 2, 0, 1, 3]), "x": some.select([2, 1, 0])}, seed=0)
    assert outcome(one["a"]) == outcome(other["x"])
    assert outcome(one["b"]) == outcome(other["y"])
    third = choose_for_targets(method, corpus, {"b": more.select([1, 0, 2, 3, 4]), "a": some}, seed=0)
    assert outcome(one["a"]) == outcome(third["a"])


def test_what_one_target_took_is_not_there_for_the_next():
    corpus = pool()
    method = DSIR(budget=Budget(docs=20))
    choices = choose_for_targets(method, corpus, {"a": cooking(3), "b": cooking(4)}, seed=0)
    reasons = [set(c.dropped()["reason"].to_pylist()) for c in choices.values()]
    assert sorted(len(r) for r in reasons) == [1, 2]
    assert {"taken_for_other_target"} | {"over_budget"} in reasons


@pytest.mark.parametrize(
    ("targets", "shares", "match"),
    [
        ({}, None, "at least one target"),
        ({"a": cooking()}, {"b": 1.0}, "one of at least 0"),
        ({"a": cooking()}, {"a": 0.0}, "less than one"),
    ],
)
def test_shares_that_cannot_be_meant(targets, shares, match):
    with pytest.raises(UsageError, match=match):
        choose_for_targets(DSIR(budget=Budget(docs=2)), pool(), targets, shares, seed=0)


def test_worked_kl_reduction():
    raw, target = np.array([4, 2, 1, 1]), np.array([1, 0, 3, 0])
    x, y = np.array([2, 0, 1, 0]), np.array([0, 1, 2, 0])
    assert kl_reduction(raw, target, x, prior=0.0) == pytest.approx(0.80754, abs=5e-6)
    assert kl_reduction(raw, target, y, prior=0.0) == pytest.approx(-4.32769, abs=5e-6)
    assert kl_reduction(raw, target, x) == pytest.approx(0.19303, abs=5e-6)
    assert kl_reduction(raw, target, y) == pytest.approx(0.22031, abs=5e-6)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=2, max_size=6).filter(
        lambda r: any(t for _, t in r)
    )
)
def test_the_whole_pool_reduces_nothing_and_the_target_itself_reduces_most(rows):
    raw, target = np.array([r for r, _ in rows]), np.array([t for _, t in rows])
    assert kl_reduction(raw, target, raw) == pytest.approx(0, abs=1e-12)
    assert kl_reduction(raw, target, 3 * target) >= max(kl_reduction(raw, target, raw), -1e-9) - 1e-9


def test_a_control_that_holds_no_document_does_not_refuse_what_the_method_keeps():
    """The budget fits the one short document the method wants; a uniform draw would begin with a long one."""
    target = cooking(2)
    short = target.take([0]).to_pylist()[0] | {"doc_id": "short", "group_id": "short"}
    rng = np.random.default_rng(8)
    rows = [document(n, COOKING, rng) for n in range(8)]
    long = [
        row | {"doc_id": f"long{n}", "text": row["text"] + " of the rain in winter" * 400} for n, row in enumerate(rows)
    ]
    pool = Corpus.from_records([short, *long])
    found = [DSIR(budget=Budget(words=300)).choose(pool, target, seed=seed) for seed in range(4)]
    assert all(one.doc_ids.filter(pa.array(one.kept)).to_pylist() == ["short"] for one in found)
    assert min(one.figures["kl_reduction_uniform"] for one in found) == 0.0
