"""MultiPositive and SoftTopK: the card's numbers, the equation of the top-k, and what competes with what."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objective_cases import batch_of, random_case, vectors_of

from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.multi_positive import MultiPositive, decoupled_softmax_loss
from tamis.training.objectives.soft_top_k import SoftTopK, soft_top_k_logits

SCORES = torch.tensor([[2.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
RIGHT = torch.tensor([[True, True, False, False]])
NONE = torch.zeros_like(RIGHT)


def test_decoupled_softmax_by_hand():
    assert decoupled_softmax_loss(SCORES, RIGHT, NONE).item() == pytest.approx(0.63480, abs=5e-6)
    first = decoupled_softmax_loss(SCORES, torch.tensor([[True, False, False, False]]), RIGHT)
    assert first.item() == pytest.approx(0.40761, abs=5e-6)


def test_it_is_the_mean_of_infonce_over_each_answer_alone():
    query, document = vectors_of([[0.5, 0.25, 0.0, 0.25], [0.125, 0.25, 0.5, 0.625]])
    value = MultiPositive().value(query, document, batch_of([0, 2], 4, relevant=[(0, 1)]))
    each = [InfoNCE().value(query, document, batch_of([own, 2], 4, relevant=[(0, 0), (0, 1)])) for own in (0, 1)]
    torch.testing.assert_close(value, sum(each) / 2)


def test_with_one_answer_it_is_infonce():
    query, document, _ = random_case()
    batch = batch_of([3, 1, 4, 1, 5, 9, 2], 17)
    torch.testing.assert_close(MultiPositive().value(query, document, batch), InfoNCE().value(query, document, batch))


@given(st.floats(-30, 30), st.floats(0.01, 50))
def test_a_better_score_of_one_answer_leaves_the_others_terms(score, more):
    row = torch.tensor([[score, 1.0, 0.0, 1.0]], dtype=torch.float64)
    higher = row + torch.tensor([[more, 0.0, 0.0, 0.0]])
    one, alone = torch.tensor([[True, False, False, False]]), torch.tensor([[False, True, False, False]])
    of_other = [
        2 * decoupled_softmax_loss(s, RIGHT, NONE) - decoupled_softmax_loss(s, one, RIGHT) for s in (row, higher)
    ]
    torch.testing.assert_close(of_other[0], of_other[1])
    torch.testing.assert_close(of_other[0], decoupled_softmax_loss(row, alone, RIGHT))
    assert decoupled_softmax_loss(higher, RIGHT, NONE) <= decoupled_softmax_loss(row, RIGHT, NONE)


def test_a_query_whose_documents_are_all_answers_costs_nothing():
    score = SCORES.clone().requires_grad_()
    loss = decoupled_softmax_loss(score, torch.ones_like(RIGHT), NONE)
    (slope,) = torch.autograd.grad(loss.sum(), score)
    assert loss.item() == 0
    assert slope.tolist() == [[0.0] * 4]


def top_k(score, k, slope):
    """Soft memberships."""
    return soft_top_k_logits(score, torch.full((len(score), 1), k), slope).sigmoid()


def test_soft_top_k_by_hand():
    found = top_k(torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64), 1, 2.0)
    assert found[0].tolist() == pytest.approx([0.70915, 0.24810, 0.04275], abs=5e-6)
    shift = soft_top_k_logits(torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64), torch.tensor([[1]]), 2.0) / 2
    assert (shift - torch.tensor([[2.0, 1.0, 0.0]]))[0].tolist() == pytest.approx([-1.55437] * 3, abs=5e-6)


@given(
    st.lists(st.floats(-60, 60), min_size=2, max_size=12),
    st.integers(1, 11),
    st.sampled_from([0.1, 2.0, 40.0]),
    st.floats(-100, 100),
)
def test_memberships_sum_to_k_and_follow_the_scores(scores, k, slope, shift):
    row = torch.tensor([scores], dtype=torch.float64)
    k = min(k, len(scores) - 1)
    found = top_k(row, k, slope)
    assert found.sum().item() == pytest.approx(k, abs=1e-7)
    order = row[0].argsort()
    assert (found[0][order].diff() >= 0).all()
    torch.testing.assert_close(top_k(row + shift, k, slope), found, atol=1e-6, rtol=0)


def test_thousands_of_equal_scores():
    for k in (1, 29_999):
        found = top_k(torch.zeros(1, 30_000, dtype=torch.float64), k, 2.0)
        torch.testing.assert_close(found, torch.full_like(found, k / 30_000))


def test_gradient_of_memberships_is_the_formula():
    row = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    found = top_k(row, 2, 2.0)
    slopes = torch.stack([torch.autograd.grad(y, row, retain_graph=True)[0][0] for y in found[0]])
    inner = (2 * found * (1 - found))[0].detach()
    torch.testing.assert_close(slopes, torch.diag(inner) - torch.outer(inner, inner) / inner.sum())
    assert torch.autograd.gradcheck(lambda s: top_k(s, 2, 2.0), (row,))


def test_soft_top_k_loss_by_hand():
    query, document = vectors_of([[0.5, 0.25, 0.0]])
    objective = SoftTopK(k=1, temperature=0.25)
    both = objective.value(query, document, batch_of([0], 3, relevant=[(0, 2)]))
    logs = torch.tensor([0.70915, 0.04275], dtype=torch.float64).log()
    torch.testing.assert_close(both, -logs.mean(), atol=1e-4, rtol=0)


def test_k_of_the_answers_lets_both_in():
    query, document = vectors_of([[0.5, 0.5, 0.0, 0.0]])
    batch = batch_of([0], 4, relevant=[(0, 1)])
    assert SoftTopK(k=None).value(query, document, batch) < 0.01
    assert SoftTopK(k=1).value(query, document, batch) > 0.5  # two answers compete for one place


def test_a_query_all_of_whose_documents_are_answers_teaches_nothing():
    query, document = vectors_of([[0.5, 0.25, 0.0], [0.25, 0.5, 0.0]])
    batch = batch_of([0, 1], 3, relevant=[(0, 1), (0, 2)])
    for k in (None, 1, 2):
        found = SoftTopK(k=k).value(query, document, batch)
        torch.testing.assert_close(found, SoftTopK(k=k).value(query[1:], document, batch.rows(slice(1, 2))) / 2)


def test_k_beyond_the_batch_leaves_one_out():
    query, document, batch = random_case(num_queries=2, num_docs=4)
    torch.testing.assert_close(
        SoftTopK(k=3).value(query, document, batch), SoftTopK(k=50).value(query, document, batch)
    )
