"""What holds for every selection: budgets, order, batches, workers, refusals, the control, and bad input."""

import dataclasses
import pickle
from functools import cache, partial

import numpy as np
import pyarrow as pa
import pytest
from selection_kit import (
    COOKING,
    METHODS,
    NOTHING,
    ONE_EACH,
    WORDS,
    InPieces,
    Recut,
    WordVectors,
    cooking,
    document,
    kept_ids,
    odd_pool,
    outcome,
    pool,
    sent,
)

import tamis.selection
from tamis.data.corpus import Corpus
from tamis.engines.threads import map_threads
from tamis.errors import DataError, UsageError
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.ngrams import count_ngrams
from tamis.ops.text import joined
from tamis.selection import DSIR, Budget, Conditioned, Selector, Uniform, kl_reduction
from tamis.selection.divergence import NUM_BUCKETS
from tamis.selection.vectors import VectorSelector

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
one_of_each = pytest.mark.parametrize("method", ONE_EACH.values(), ids=ONE_EACH)


@cache
def first_choice(method):
    return method.choose(odd_pool(), cooking(5), WordVectors(), seed=1)


def with_budget(method, budget):
    inner = {"of": with_budget(method.of, budget)} if isinstance(method, Conditioned) else {}
    return method.model_copy(update={"budget": budget} | inner)


def test_every_selector_is_under_contract():
    found = [getattr(tamis.selection, name) for name in tamis.selection.__all__]
    selectors = {kind for kind in found if isinstance(kind, type) and issubclass(kind, Selector)} - {Selector}
    assert selectors == {type(method) for method in METHODS.values()}
    assert len(selectors) > 8


@every_method
def test_every_document_is_kept_or_dropped_with_a_reason(method):
    corpus = odd_pool()
    before = corpus.table().to_pydict()
    chosen = first_choice(method).selected(corpus)
    kept, dropped = chosen.kept.doc_ids.to_pylist(), chosen.dropped["doc_id"].to_pylist()
    assert kept
    assert dropped
    rows = corpus.rows_of(kept)
    assert (np.diff(rows) > 0).all()  # corpus order
    assert np.sort(np.r_[rows, corpus.rows_of(dropped)]).tolist() == list(range(len(corpus)))
    rows = corpus.rows_of(dropped)
    scores = chosen.dropped["score"].to_pylist()
    assert scores == chosen.scores[rows].tolist()
    refusals = set(method.reasons or (method.refusal,))
    assert "refused" not in refusals or np.isfinite(chosen.scores).all()  # a method that refuses says why
    for reason, score in zip(chosen.dropped["reason"].to_pylist(), scores, strict=True):
        allowed = {"over_budget", "in_target"} if method.excludes_target else {"over_budget"}
        assert reason in (refusals if score == -np.inf else allowed)
    found = chosen.dropped["reason"].to_pylist()
    told = {f"{found.count(why)} of {len(corpus)} documents are refused as {why}." for why in method.reasons}
    assert {note for note in chosen.notes if "are refused as" in note} == {t for t in told if not t.startswith("0 ")}
    assert corpus.table().to_pydict() == before
    assert type(method).from_json(method.model_dump_json(), "x") == method
    assert pickle.loads(pickle.dumps(method)) == method  # noqa: S301 - our own


@every_method
def test_the_budget_is_kept_and_so_is_that_of_the_control(method):
    """The figures against a slow account of them: what was kept, and a uniform draw of all that might have been."""
    corpus, target, choice = odd_pool(), cooking(5), first_choice(method)
    batch = next(iter(corpus.batches(batch_docs=1000)))
    texts, sizes, unit = joined(batch), method.budget.sizes(batch), method.budget.unit
    limit = int(method.budget.frac * sizes.sum()) if method.budget.frac else getattr(method.budget, unit)
    assert choice.figures["num_docs"] == len(corpus)
    assert choice.figures["num_kept"] == choice.kept.sum()
    assert choice.figures["budget"] == limit
    assert choice.figures[f"pool_{unit}"] == sizes.sum()
    assert choice.figures[f"kept_{unit}"] == sizes[choice.kept].sum() <= limit
    assert choice.figures["num_in_target"] == 1
    spare = limit - sizes[choice.kept].sum()
    over = np.array([reason == "over_budget" for reason in choice.reasons.to_pylist()])
    if over.any() and getattr(method, "stratify", "none") == "none":
        best = np.flatnonzero(over & (choice.scores == choice.scores[over].max()))
        assert sizes[best].min() > spare or len(best) > 1  # the next one does not fit
    counts = [count_ngrams(texts, NUM_BUCKETS), count_ngrams(joined(target.table().to_batches()[0]), NUM_BUCKETS)]
    wanted = kl_reduction(*counts, count_ngrams(texts.filter(pa.array(choice.kept)), NUM_BUCKETS))
    assert choice.figures["kl_reduction"] == wanted
    if getattr(method, "stratify", "none") == "none":
        barred = (choice.scores == -np.inf) | np.array([r == "in_target" for r in choice.reasons.to_pylist()])
        drawn = np.lexsort((corpus.id_ranks, -uniform(array_keys(texts), 1, "sample")))
        order = [row for row in drawn.tolist() if not barred[row]]
        control = np.array(order)[np.cumsum(sizes[order]) <= limit]
        assert len(control)
        wanted = kl_reduction(*counts, count_ngrams(texts.take(pa.array(control)), NUM_BUCKETS))
        assert choice.figures["kl_reduction_uniform"] == wanted
    if isinstance(method, VectorSelector):
        assert choice.figures["coverage_mean"] != choice.figures["coverage_mean_uniform"] > 0


@every_method
def test_cuts_order_and_workers_change_nothing(method):
    corpus, target, encoder = odd_pool(), cooking(5), WordVectors()
    wanted = first_choice(method)
    rng = np.random.default_rng(0)
    turned, wishes = corpus.select(rng.permutation(len(corpus))), target.select(rng.permutation(5))
    assert turned.doc_ids != corpus.doc_ids
    others = {
        "batches, other machines": (Recut(corpus, 1, 2, 20), Recut(target, 2), sent),
        "pieces, 2 workers": (InPieces(corpus), wishes, partial(map_threads, workers=2)),
        "rows, 8 workers": (Recut(turned, 7), Recut(wishes, 1, 3), partial(map_threads, workers=8)),
    }
    for name, (given, wish, engine) in others.items():
        again = method.choose(given, wish, encoder, seed=1, engine=engine)
        assert outcome(again) == outcome(wanted), name
        assert again.figures == wanted.figures, name
        assert again.notes == wanted.notes, name


@every_method
def test_a_model_can_be_sent_to_another_process(method):
    corpus, target = odd_pool(), cooking()
    batch = next(iter(corpus.batches()))
    model = method.fit(method.study(corpus, WordVectors(), seed=1), target, seed=1)
    assert dataclasses.is_dataclass(model)
    sent = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    scores = method.score(batch, sent)
    assert scores.tolist() == method.score(batch, model).tolist()
    assert len(np.unique(scores)) > 5


@one_of_each
def test_what_a_smaller_budget_keeps_a_larger_one_keeps(method):
    corpus, target, encoder = pool(), cooking(), WordVectors()
    before = np.zeros(len(corpus), bool)
    for words in (100, 300, 301, 900, 10**9):
        choice = with_budget(method, Budget(words=words)).choose(corpus, target, encoder, seed=1)
        assert (before <= choice.kept).all()
        assert choice.kept.sum() > before.sum() or words == 301 or "over_budget" not in choice.reasons.to_pylist()
        before = choice.kept


@every_method
def test_copies_go_by_id(method):
    text = " ".join(COOKING * 4)
    corpus = Corpus.from_records([{"doc_id": f"d{row}", "text": text, "source": "s"} for row in (3, 1, 2, 0)])
    chosen = with_budget(method, Budget(docs=2)).choose(corpus, cooking(), WordVectors(), seed=0)
    assert kept_ids(chosen) == ["d1", "d0"]


@every_method
def test_bad_input_is_named(method):
    corpus, target, encoder = pool(), cooking(), WordVectors()
    with pytest.raises(DataError, match="the pool has no documents"):
        method.choose(NOTHING, target, encoder, seed=0)
    for wordless in (NOTHING, Corpus.from_records([{"doc_id": "a", "text": "?!"}])):
        if method.needs_target:
            with pytest.raises(DataError, match=r"the target has [01] documents and no words"):
                method.choose(corpus, wordless, encoder, seed=0)
        else:
            assert "kl_reduction" not in method.choose(corpus, wordless, encoder, seed=0).figures
    if isinstance(method, VectorSelector):
        with pytest.raises(
            UsageError, match=f"{type(method).__name__} selects by vectors and got no encoder. Give one"
        ):
            method.choose(corpus, target, None, seed=0)
    wordless = Corpus.from_records([{"doc_id": f"w{i}", "text": blank} for i, blank in enumerate(["", " ", "\n"])])
    if not isinstance(method, Uniform):
        with pytest.raises(DataError, match=rf"none of the 3 documents may be kept: 3 {method.refusal}|no words"):
            method.choose(wordless, target, encoder, seed=0)
    with pytest.raises(UsageError, match=r"budget: .* Give (at least that many|more) bytes"):
        with_budget(method, Budget(bytes=1)).choose(corpus, target, encoder, seed=0)


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
