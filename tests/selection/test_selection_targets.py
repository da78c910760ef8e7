"""Several targets at once: shares, no document twice, and nothing of the pool found out twice."""

import numpy as np
import pytest
from selection_kit import NOTHING, ONE_EACH, WORDS, Recut, WordVectors, cooking, document, odd_pool, outcome, pool, sent

from tamis.data.corpus import Corpus
from tamis.errors import DataError, UsageError
from tamis.selection import DSIR, Budget, HashedClassifier, TfidfNearest, choose_for_targets, select_for_targets
from tamis.selection import selector as module
from tamis.selection import targets as module_of_targets
from tamis.selection.conditioned import Conditioned
from tamis.selection.vectors import VectorSelector

one_of_each = pytest.mark.parametrize("method", ONE_EACH.values(), ids=ONE_EACH)


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


@one_of_each
def test_targets_take_turns_by_content_under_any_method(method):
    corpus, encoder = odd_pool(), WordVectors()
    one, two = cooking(2), other(3)
    choices = choose_for_targets(method, corpus, {"a": one, "b": two}, {"a": 1, "b": 1}, encoder, seed=0)
    assert not (choices["a"].kept & choices["b"].kept).any()
    assert all(choice.kept.any() for choice in choices.values())
    reasons = [set(choice.reasons.to_pylist()) for choice in choices.values()]
    assert sorted("taken_for_other_target" in found for found in reasons) == [False, True]
    total = choices["a"].figures["budget"] + choices["b"].figures["budget"]
    unit = method.budget.unit
    assert total == method.budget.limit(int(choices["a"].figures[f"pool_{unit}"]))
    again = choose_for_targets(
        method, Recut(corpus, 7), {"y": two.select([2, 0, 1]), "x": one}, {"x": 3, "y": 3}, encoder, seed=0, engine=sent
    )
    for name, other_name in (("a", "x"), ("b", "y")):
        assert outcome(again[other_name]) == outcome(choices[name])
        assert again[other_name].figures == choices[name].figures


@one_of_each
def test_a_target_alone_gets_what_choose_gives(method):
    corpus, target, encoder = odd_pool(), cooking(), WordVectors()
    wanted = method.choose(corpus, target, encoder, seed=2)
    found = choose_for_targets(method, corpus, {"only": target}, None, encoder, seed=2)["only"]
    assert outcome(found) == outcome(wanted)
    assert found.figures == wanted.figures
    assert found.notes == wanted.notes


@one_of_each
def test_what_does_not_depend_on_a_target_is_found_once(method, monkeypatch):
    corpus, encoder, calls = odd_pool(), WordVectors(), []
    targets = {"a": cooking(2), "b": other(3), "c": cooking(4)}

    def spy(owner, name):
        plain = getattr(owner, name)

        def watched(*args, **given):
            calls.append(name)
            return plain(*args, **given)

        monkeypatch.setattr(owner, name, watched)

    spy(module, "_sketch")
    spy(module_of_targets, "count_pool")
    inner = method.of if isinstance(method, Conditioned) else method
    spy(type(inner), "prepare" if isinstance(method, VectorSelector) else "fit")
    plain = module._divergences
    monkeypatch.setattr(module, "_divergences", lambda *given: calls.append(given[3] is None) or plain(*given))
    choose_for_targets(method, corpus, targets, dict.fromkeys(targets, 1.0), encoder, seed=0)
    counts = isinstance(inner, DSIR | TfidfNearest | HashedClassifier)
    assert calls.count("_sketch") == counts
    assert calls.count("count_pool") == (not isinstance(inner, DSIR))
    assert (calls.count("prepare"), calls.count("fit")) == ((1, 0) if isinstance(method, VectorSelector) else (0, 3))
    assert [call for call in calls if isinstance(call, bool)] == [False] * 3  # nobody counts the pool's words again
    of_targets = sum(map(len, targets.values())) if method.needs_target and encoder.num_texts else 0
    assert encoder.num_texts in (0, len(corpus) + 2 * of_targets)  # examples: to take turns, and for their figures
    assert bool(encoder.num_texts) == isinstance(method, VectorSelector)


def test_an_empty_pool_is_said_by_the_method():
    for method in ONE_EACH.values():
        given = method.model_copy(update={"budget": Budget(docs=4)})
        with pytest.raises(DataError, match="the pool has no documents"):
            choose_for_targets(given, NOTHING, {"a": cooking(2)}, None, WordVectors(), seed=0)
