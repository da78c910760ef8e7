"""ListDistil: the card's numbers for each kind, invariances, ties, and sentence-transformers' divergence."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objective_cases import NAN, batch_of, vectors_of

from tamis.errors import RecipeError
from tamis.training.objectives.list_distil import ListDistil

TEACHER, STUDENT = [2.0, 1.0, 0.0], [1.0, 2.0, 0.0]
BY_DISTRIBUTION = ("kl", "clipped_kl", "stable")
BY_RANK = ("lambda", "rank_weighted")


def of(kind, student, teacher, *, relevant=(), **settings):
    """Loss of one list."""
    told = torch.tensor([teacher], dtype=torch.float64)
    known = told.isfinite()
    is_relevant = torch.tensor([[column in relevant for column in range(len(teacher))]])
    objective = ListDistil(kind=kind, **settings)
    scores = torch.tensor([student], dtype=torch.float64)
    return objective.of_scores(scores, told.masked_fill(~known, 0), known, is_relevant).item()


@pytest.mark.parametrize(
    ("kind", "expected"), [("kl", 0.42051), ("clipped_kl", 0.46212), ("stable", 0.96746), ("lambda", 0.88663)]
)
def test_by_hand(kind, expected):
    settings = {} if kind == "lambda" else {"teacher_temperature": 1.0}
    assert of(kind, STUDENT, TEACHER, **settings) == pytest.approx(expected, abs=1e-5)


def test_rank_weighted_by_hand():
    terms = [math.log(math.e + math.e**2 + 1) - 1, math.log(math.e**2 + 1) - 2, 0]
    weights = [1, 1 / math.log2(3), 1 / 2]
    expected = sum(w * t for w, t in zip(weights, terms, strict=True))
    assert of("rank_weighted", STUDENT, TEACHER) == pytest.approx(expected)


def test_pointwise_by_hand():
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    expected = sum((sigmoid(s - 1) - sigmoid(t)) ** 2 for s, t in zip(STUDENT, TEACHER, strict=True)) / 3
    assert of("pointwise", STUDENT, TEACHER, offset=-1.0) == pytest.approx(expected)


def test_in_batch_documents_stand_against_every_answer_of_stable():
    # The third is unknown to the teacher; the fourth too, but is an answer.
    found = of("stable", [1.0, 2.0, 0.5, 9.0], [1.0, 0.0, NAN, NAN], relevant=(3,), teacher_temperature=1.0)
    share = 1 / (1 + math.exp(-1))
    first = math.log(math.e + math.e**2 + math.exp(0.5)) - 1
    second = math.log(math.e**2 + math.exp(0.5)) - 2
    assert found == pytest.approx(share * first + (1 - share) * second)


def test_the_teachers_temperature_is_its_spread_by_default():
    spread = math.sqrt(2 / 3)
    for kind in BY_DISTRIBUTION:
        assert of(kind, STUDENT, TEACHER) == pytest.approx(of(kind, STUDENT, TEACHER, teacher_temperature=spread))
        stretched = of(kind, STUDENT, [100 * t for t in TEACHER])
        assert stretched == pytest.approx(of(kind, STUDENT, TEACHER))


LISTS = st.integers(1, 6).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-12, 12).map(lambda x: x / 4), min_size=n, max_size=n)] * 2)
)


@given(LISTS, st.sampled_from([*BY_DISTRIBUTION, *BY_RANK]), st.floats(-8, 8), st.floats(-8, 8))
def test_shifts_change_nothing(lists, kind, move_student, move_teacher):
    student, teacher = lists
    moved = of(kind, [s + move_student for s in student], [t + round(move_teacher) for t in teacher])
    assert moved == pytest.approx(of(kind, student, teacher), rel=1e-9, abs=1e-9)


@given(LISTS, st.sampled_from(["kl", "clipped_kl", "stable", "lambda", "rank_weighted", "pointwise"]), st.randoms())
def test_the_order_of_columns_and_unknown_columns_change_nothing(lists, kind, random):
    pairs = list(zip(*lists, strict=True))
    before = of(kind, *map(list, zip(*pairs, strict=True)))
    random.shuffle(pairs)
    student, teacher = map(list, zip(*pairs, strict=True))
    assert of(kind, student, teacher) == pytest.approx(before, rel=1e-9, abs=1e-9)
    padded = of(kind, [7.0, *student], [NAN, *teacher], relevant=(0,))
    assert padded == pytest.approx(before, rel=1e-9, abs=1e-9)


@given(LISTS)
def test_ranks_see_no_scale(lists):
    student, teacher = lists
    for kind in BY_RANK:
        assert of(kind, student, [math.sinh(t) for t in teacher]) == pytest.approx(of(kind, student, teacher))


@given(LISTS)
def test_lambda_against_a_double_loop(lists):
    student, teacher = lists
    ranks = [1 + sum(other > t for other in teacher) for t in teacher]
    expected = sum(
        (1 / ranks[i] - 1 / ranks[j]) * math.log1p(math.exp(student[j] - student[i]))
        for i, j in itertools.permutations(range(len(teacher)), 2)
        if teacher[i] > teacher[j]
    )
    assert of("lambda", student, teacher) == pytest.approx(expected)


@given(LISTS, st.floats(0.05, 1))
def test_clipped_keeps_the_fewest_best_that_hold_the_mass(lists, mass):
    student, teacher = lists
    weights = [math.exp(t) for t in teacher]
    share = [w / sum(weights) for w in weights]
    kept = [i for i, t in enumerate(teacher) if sum(s for s, o in zip(share, teacher, strict=True) if o > t) < mass]
    head_student, head_teacher = ([values[i] for i in kept] for values in (student, teacher))
    expected = of("kl", head_student, head_teacher, teacher_temperature=1.0)
    found = of("clipped_kl", student, teacher, teacher_temperature=1.0, mass=mass)
    assert found == pytest.approx(expected, abs=1e-9)


def test_clipped_stops_where_the_mass_is_reached():
    assert of("clipped_kl", STUDENT, [1000.0, 0.0, 0.0], teacher_temperature=1.0, mass=1.0) == 0


def test_a_student_that_agrees_costs_nothing():
    assert of("kl", TEACHER, TEACHER, teacher_temperature=1.0) == pytest.approx(0, abs=1e-12)
    assert of("pointwise", TEACHER, TEACHER) == 0


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_against_sentence_transformers(temperature):
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

    cosines = [[0.5, 0.25, -0.25], [0.125, 0.0, 0.25]]
    query, document = vectors_of(cosines)
    teacher = torch.tensor([[2.0, -1.0, 0.5], [0.25, 0.75, 3.0]], dtype=torch.float64)
    peer = DistillKLDivLoss(None, student_temperature=temperature, teacher_temperature=2.0)
    columns = [document[[at, at]] for at in range(3)]
    expected = peer.compute_loss_from_embeddings([query, *columns], teacher)
    objective = ListDistil(temperature=temperature, teacher_temperature=2.0)
    value = objective.value(query, document, batch_of([0, 1], 3, teacher=teacher.tolist()))
    torch.testing.assert_close(value * temperature**2, expected)  # the peer's factor, which is left out here


def test_settings_without_effect_are_refused():
    for settings in ({"kind": "lambda", "teacher_temperature": 2.0}, {"kind": "kl", "offset": 1.0}, {"mass": 0.5}):
        with pytest.raises(RecipeError, match="has no effect"):
            ListDistil(**settings)
