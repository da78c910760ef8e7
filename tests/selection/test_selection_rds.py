"""RDS+: worked round robin, the slow loop, what the target may and may not do, and bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection_kit import Recut

from tamis.data.corpus import Corpus
from tamis.errors import DataError, UsageError
from tamis.selection import Budget, choose_for_targets
from tamis.selection import rds as module
from tamis.selection.rds import RDSPlus
from tamis.selection.rds_kernels import take_in_turn

NO_LIMIT = 10**9


class Vectors:
    """A text's vector is the one it was made with."""

    fingerprint = "vectors"

    def __init__(self, vectors):
        self._vectors = {text: np.asarray(vector, np.float32) for text, vector in vectors.items()}
        self.dim = len(next(iter(self._vectors.values())))

    def encode_documents(self, texts):
        return np.stack([self._vectors[text] for text in texts])

    encode_queries = encode_documents

    def num_truncated(self, texts):
        return 0

    def save(self, staging):
        raise NotImplementedError


def corpus(texts, sources=None):
    sources = sources or [""] * len(texts)
    rows = [{"doc_id": t.replace(" ", ""), "text": t, "source": s} for t, s in zip(texts, sources, strict=True)]
    return Corpus.from_records(rows)


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def random_world(num_docs, num_targets, seed, dim=8):
    rng = np.random.default_rng(seed)
    texts = [f"doc {i} {'word ' * (i % 4)}".strip() for i in range(num_docs)]
    targets = [f"target {i}" for i in range(num_targets)]
    vectors = unit(rng.normal(size=(num_docs + num_targets, dim)))
    return texts, targets, Vectors(dict(zip([*texts, *targets], vectors, strict=True))), vectors


def order_of(choice):
    """The documents' names, first taken first, as far as they were kept."""
    names = choice.doc_ids.to_pylist()
    return [names[row] for row in np.argsort(-choice.scores, kind="stable") if choice.kept[row]]


def slow_round_robin(lists, sizes, limit):
    taken, amount = [], 0
    while len(taken) < len(sizes):
        wanted = next(row for row in lists[len(taken) % len(lists)] if row not in taken)
        taken.append(wanted)
        amount += sizes[wanted]
        if amount > limit:
            break
    return taken


def test_worked_round_robin():
    lists = np.array([[0, 1, 2], [0, 2, 1]])  # t1: c1 .9, c2 .8, c3 .1; t2: c1 .95, c3 .5, c2 .2
    ones = np.ones(3, np.int64)
    picks, ended = take_in_turn(lists, 3, ones, 1)
    assert (picks.tolist(), ended) == ([0, 2], False)  # max-then-top would take c1 and c2; the last does not fit
    assert take_in_turn(lists, 3, ones, NO_LIMIT)[0].tolist() == [0, 2, 1]
    picks, ended = take_in_turn(lists[:, :1], 3, ones, NO_LIMIT)
    assert (picks.tolist(), ended) == ([0], True)
    picks, ended = take_in_turn(np.zeros((2, 0), np.int64), 0, ones[:0], 5)
    assert (picks.tolist(), ended) == ([], False)


@given(st.integers(1, 5), st.integers(1, 14), st.integers(0, 40), st.randoms())
def test_kernel_is_the_slow_loop(num_lists, num_rows, limit, random):
    lists = np.array([random.sample(range(num_rows), num_rows) for _ in range(num_lists)])
    sizes = np.array([random.randint(0, 6) for _ in range(num_rows)])
    picks, ended = take_in_turn(lists, num_rows, sizes, limit)
    assert picks.tolist() == slow_round_robin(lists.tolist(), sizes.tolist(), limit)
    assert not ended
    assert len(set(picks.tolist())) == len(picks)


def test_each_example_gets_its_share():
    vectors = {"a": [1, 0], "b": [0, 1]}
    near_a = {f"a{i:02d}": unit([[1, 0.01 * (i + 1)]])[0] for i in range(30)}
    near_b = {f"b{i:02d}": unit([[0.3 + 0.01 * i, 1]])[0] for i in range(5)}
    far = {f"c{i}": [-1.0, 0.0] for i in range(5)}
    pool = corpus([*near_a, *near_b, *far])
    encoder = Vectors(vectors | near_a | near_b | far)
    choice = RDSPlus(budget=Budget(docs=6)).choose(pool, corpus(["a", "b"]), encoder, seed=0)
    kept = order_of(choice)
    assert sorted(kept) == ["a00", "a01", "a02", "b00", "b01", "b02"]  # by the best cosine all would be near a
    assert [name[0] for name in kept] in (["a", "b"] * 3, ["b", "a"] * 3)
    assert sorted(choice.scores.tolist(), reverse=True)[:6] == [0, -1, -2, -3, -4, -5]
    assert choice.figures["num_examples"] == 2
    assert choice.figures["target_distance_max"] < choice.figures["target_distance_max_uniform"]
    nearest = [np.linalg.norm(near_a["a00"] - vectors["a"]), np.linalg.norm(near_b["b00"] - vectors["b"])]
    assert choice.figures["target_distance_mean"] == pytest.approx(np.mean(nearest), abs=1e-6)
    assert choice.figures["target_distance_max"] == pytest.approx(max(nearest), abs=1e-6)


@pytest.mark.parametrize(("num_docs", "num_targets", "docs"), [(60, 3, 20), (60, 70, 20), (9, 2, 500), (400, 2, 350)])
def test_selection_is_the_slow_loop_over_exact_cosines(num_docs, num_targets, docs, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_TARGET_BLOCK", 4)
    monkeypatch.setattr(module, "_MIN_DEPTH", 2)  # lists run out, and are made again
    texts, targets, encoder, vectors = random_world(num_docs, num_targets, num_docs)
    similar = vectors[num_docs:] @ vectors[:num_docs].T
    choice = RDSPlus(budget=Budget(docs=docs)).choose(corpus(texts), corpus(targets), encoder, seed=0)
    turn_of = np.argsort(module.array_keys(corpus(targets).table(["text"])["text"]))
    lists = [np.argsort(-similar[t], kind="stable").tolist() for t in turn_of]
    names = corpus(texts).doc_ids.to_pylist()
    wanted = [names[row] for row in slow_round_robin(lists, [1] * num_docs, min(docs, num_docs))]
    assert order_of(choice) == wanted[:docs]
    below = np.flatnonzero(~choice.kept)
    if len(below) > 1:
        best = similar.max(axis=0)[below]
        unreached = choice.scores[below] < -docs
        assert np.argsort(choice.scores[below][unreached]).tolist() == np.argsort(best[unreached]).tolist()


def test_lists_that_run_out_are_made_again(monkeypatch):
    monkeypatch.setattr(module, "_MIN_DEPTH", 2)
    docs = {f"d{i:02d}": unit([[1, 0.02 * i]])[0] for i in range(60)}
    examples = {f"e{i}": unit([[1, -0.5 - i]])[0] for i in range(20)}  # all want the same
    choice = RDSPlus(budget=Budget(docs=40)).choose(corpus(docs), corpus(examples), Vectors(docs | examples), seed=0)
    assert order_of(choice) == list(docs)[:40]
    assert choice.scores[:40].tolist() == list(range(0, -40, -1))


def test_what_another_target_took_uses_up_no_turn():
    texts, targets, encoder, _ = random_world(50, 4, 6)
    method, taken = RDSPlus(budget=Budget(docs=12)), np.arange(50) % 3 > 0
    choice = method.choose(corpus(texts), corpus(targets), encoder, seed=0, taken=taken)
    alone = corpus([text for text, gone in zip(texts, taken, strict=True) if not gone])
    assert order_of(choice) == order_of(method.choose(alone, corpus(targets), encoder, seed=0))
    assert len(order_of(choice)) == 12


def test_sources_take_in_turn():
    near = {f"x{i}": unit([[1, 0.1 * i, 0]])[0] for i in range(1, 6)}
    other = {f"y{i}": unit([[0, 0.1 * i, 1]])[0] for i in range(1, 6)}
    examples = {"e1": [1, 0, 0], "e2": unit([[1, 0.05, 0]])[0], "e3": [-1, 0, 0], "f": [0, 0, 1]}
    encoder, pool = Vectors(near | other | examples), corpus([*near, *other])
    target = corpus(list(examples), ["one", "one", "one", "two"])
    kept = {}
    for turns in ("example", "source"):
        kept[turns] = order_of(RDSPlus(budget=Budget(docs=4), turns=turns).choose(pool, target, encoder, seed=0))
    assert sorted(kept["source"]) == ["x1", "x2", "y1", "y2"]  # the far example of the first source takes nothing
    assert kept["source"] != kept["example"]


def test_documents_of_the_target_and_copies_of_examples():
    texts, targets, encoder, _ = random_world(30, 4, 1)
    pool = corpus([*texts, targets[0]])
    method = RDSPlus(budget=Budget(docs=10))
    choice = method.choose(pool, corpus(targets), encoder, seed=0)
    assert choice.reasons.to_pylist()[-1] == "in_target"
    plain = method.choose(corpus(texts), corpus(targets), encoder, seed=0)
    assert order_of(choice) == order_of(plain)
    few = RDSPlus(budget=Budget(docs=2)).choose(corpus([*texts[:2], *targets]), corpus(targets), encoder, seed=0)
    assert few.kept.tolist() == [True] * 2 + [False] * 4
    assert few.figures["coverage_max"] == few.figures["coverage_max_uniform"]  # nor does the control have them
    rows = [{"doc_id": f"t{i}", "text": text} for i, text in enumerate([*targets, targets[2], targets[2]])]
    again = method.choose(corpus(texts), Corpus.from_records(rows), encoder, seed=0)
    assert order_of(again) == order_of(plain)  # an example said twice has one turn
    assert again.figures["num_examples"] == 4


def test_examples_above_max_targets_are_drawn_by_content():
    texts, targets, encoder, _ = random_world(30, 20, 2)
    method = RDSPlus(budget=Budget(docs=8), max_targets=5)
    one = method.choose(corpus(texts), corpus(targets), encoder, seed=0)
    other = method.choose(corpus(texts), corpus(targets[::-1]), encoder, seed=0)
    assert one.figures["num_examples"] == 5
    assert order_of(one) == order_of(other)
    assert order_of(method.choose(corpus(texts), corpus(targets), encoder, seed=1)) != order_of(one)


@pytest.mark.parametrize("budget", [Budget(docs=15), Budget(words=60), Budget(frac=0.4)], ids=repr)
def test_batches_and_row_order_change_nothing(budget):
    texts, targets, encoder, _ = random_world(70, 6, 3)
    method, pool, target = RDSPlus(budget=budget), corpus(texts), corpus(targets)
    wanted = method.choose(pool, target, encoder, seed=0)
    places = dict(zip(wanted.doc_ids.to_pylist(), wanted.scores.tolist(), strict=True))
    assert wanted.kept.any()
    assert not wanted.kept.all()
    assert wanted.figures[f"kept_{budget.unit}"] <= wanted.figures["budget"]
    for given_pool, given_target in (
        (Recut(pool, 1), Recut(target, 2)),
        (Recut(pool, 9), Recut(target, 1)),
        (pool.select(np.random.default_rng(0).permutation(70)), target.select(np.arange(6)[::-1])),
    ):
        again = method.choose(given_pool, given_target, encoder, seed=0)
        assert dict(zip(again.doc_ids.to_pylist(), again.scores.tolist(), strict=True)) == places
        assert set(order_of(again)) == set(order_of(wanted))
        assert again.figures == wanted.figures
    smaller = method.model_copy(update={"budget": Budget(docs=3)}).choose(pool, target, encoder, seed=0)
    assert order_of(smaller) == order_of(wanted)[:3]


def test_several_targets_share_no_document():
    texts, targets, encoder, _ = random_world(40, 6, 4)
    two = {"one": corpus(targets[:3]), "two": corpus(targets[3:])}
    choices = choose_for_targets(RDSPlus(budget=Budget(docs=20)), corpus(texts), two, None, encoder, seed=0)
    assert [int(choice.kept.sum()) for choice in choices.values()] == [10, 10]
    assert not (choices["one"].kept & choices["two"].kept).any()


def test_bad_input():
    texts, targets, encoder, _ = random_world(10, 2, 5)
    pool, target, method = corpus(texts), corpus(targets), RDSPlus(budget=Budget(docs=3))
    with pytest.raises(UsageError, match="RDSPlus selects by vectors and got no encoder"):
        method.choose(pool, target, None, seed=0)
    with pytest.raises(DataError, match="the target has 0 documents"):
        method.choose(pool, Corpus.from_records([]), encoder, seed=0)
    with pytest.raises(DataError, match="the pool has no documents"):
        method.choose(Corpus.from_records([]), target, encoder, seed=0)
    nothing = Vectors({"known": [1, 0], "unknown": [0, 0], "unknown too": [0, 0]})
    with pytest.raises(DataError, match="none of the 1 documents of the target has a vector"):
        method.choose(corpus(["known"]), corpus(["unknown"]), nothing, seed=0)
    chosen = method.select(corpus(["unknown", "unknown too", "known"]), corpus(["known "]), Vectors(
        {"known": [1, 0], "known ": [1, 0], "unknown": [0, 0], "unknown too": [0, 0]}), seed=0)  # fmt: skip
    assert chosen.kept.doc_ids.to_pylist() == ["known"]
    assert chosen.dropped["reason"].to_pylist() == ["zero_vector"] * 2
    with pytest.raises(DataError, match="1 in_target"):
        method.choose(corpus(["known"]), corpus(["known"]), nothing, seed=0)
    identical = Corpus.from_records([{"doc_id": f"d{i}", "text": "known"} for i in range(9)])
    same = Vectors({"known": [1, 0], "k": [1, 0]})
    assert method.choose(identical, corpus(["k"]), same, seed=0).kept.tolist() == [True] * 3 + [False] * 6
    everything = RDSPlus(budget=Budget(docs=99)).choose(pool, target, encoder, seed=0)
    assert everything.kept.all()
    with pytest.raises(UsageError, match="Give at least that many words"):
        RDSPlus(budget=Budget(words=1)).choose(pool, target, encoder, seed=0)
