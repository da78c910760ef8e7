"""MarginMSE: the card's numbers, invariance, and sentence-transformers' loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objective_cases import NAN, batch_of, random_case

from tamis.training.objectives.margin_mse import MarginMSE, margin_mse_loss

SCORES = st.lists(st.floats(-20, 20), min_size=4, max_size=4)


def losses(student, teacher, target):
    """Of rows of scores, all known but NaN."""
    told = torch.tensor(teacher, dtype=torch.float64)
    known = told.isfinite()
    return margin_mse_loss(
        torch.tensor(student, dtype=torch.float64), told.masked_fill(~known, 0), known, torch.tensor(target)
    )


def test_by_hand():
    found = losses([[1.0, 0.5], [3.0, 1.0]], [[6.0, 2.0], [6.0, 2.0]], [0, 0])
    assert found.tolist() == [12.25, 4.0]
    assert found.mean().item() == 8.125


@given(SCORES, SCORES, st.floats(-50, 50), st.integers(0, 3))
def test_only_differences_count_and_several_negatives_are_the_mean_of_each(student, teacher, shift, own):
    found = losses([student], [teacher], [own])
    moved = losses([student], [[t + shift for t in teacher]], [own])
    torch.testing.assert_close(found, moved, rtol=1e-6, atol=1e-6)
    each = [
        losses([student], [[t if column in (own, other) else NAN for column, t in enumerate(teacher)]], [own])
        for other in range(4)
        if other != own
    ]
    torch.testing.assert_close(found, sum(each) / 3)
    assert losses([[t + shift for t in teacher]], [teacher], [own]).item() == pytest.approx(0, abs=1e-9)


def test_unknown_scores_and_unknown_answers():
    found = losses([[1.0, 0.5, 9.0]] * 3, [[6.0, 2.0, NAN], [NAN, 2.0, 6.0], [6.0, NAN, NAN]], [0, 0, 0])
    assert found.tolist() == [12.25, 0.0, 0.0]


def test_against_sentence_transformers():
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss

    draw = torch.Generator().manual_seed(4)
    query, *documents = torch.randn(4, 5, 8, generator=draw, dtype=torch.float64)
    teacher = torch.randn(5, 3, generator=draw, dtype=torch.float64)
    expected = MarginMSELoss(None).compute_loss_from_embeddings([query, *documents], teacher)
    told = [
        [teacher[row, at % 5 == row and at // 5].item() if at % 5 == row else NAN for at in range(15)]
        for row in range(5)
    ]
    batch = batch_of(list(range(5)), 15, teacher=told)
    value = MarginMSE(similarity="dot", scale=1.0).value(query, torch.cat(documents), batch)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


def test_cosines_are_scaled():
    query, document, batch = random_case()
    unit = torch.nn.functional.normalize
    whole = MarginMSE(scale=8.0).value(query, document, batch)
    by_dot = MarginMSE(similarity="dot", scale=1.0).value(8 * unit(query), unit(document), batch)
    torch.testing.assert_close(whole, by_dot)
