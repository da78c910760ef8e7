"""PG-RANK: the card's numbers, the distribution of its rankings, and its gradient against all rankings enumerated."""

import dataclasses
import itertools

import pytest
import torch
from objective_cases import batch_of, vectors_of

from tamis.training.objectives.pg_rank import PGRank, leave_one_out, ndcg, plackett_luce_log


def test_log_probability_by_hand():
    scores = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)  # 1, 0, -1 in the order 1, 0, 2
    assert plackett_luce_log(scores, 3).item() == pytest.approx(-1.53453, abs=1e-5)
    assert plackett_luce_log(scores, 1).item() == pytest.approx(-1.40761, abs=1e-5)


def test_probabilities_of_all_rankings_sum_to_one():
    scores = torch.tensor([2.0, 0.5, -1.0, 0.25], dtype=torch.float64)
    whole = torch.stack([scores[list(order)] for order in itertools.permutations(range(4))])
    assert plackett_luce_log(whole, 4).exp().sum().item() == pytest.approx(1)
    heads = torch.stack([scores[list(order)] for order in itertools.permutations(range(4)) if order[2] < order[3]])
    assert plackett_luce_log(heads, 2).exp().sum().item() == pytest.approx(1)


def test_advantages_by_hand():
    assert leave_one_out(torch.tensor([[1.0, 0.5, 0.0]])).tolist() == [[0.75, 0.0, -0.75]]


def test_ndcg_by_hand():
    relevant = torch.tensor([[[True, False, True], [False, True, True], [True, True, False]]])
    gain = [1, 1 / torch.tensor(3.0).log2().item(), 0.5]
    ideal = gain[0] + gain[1]
    found = ndcg(relevant, torch.tensor([2]), 3)[0].tolist()
    assert found == pytest.approx([(gain[0] + gain[2]) / ideal, (gain[1] + gain[2]) / ideal, 1])
    assert ndcg(relevant, torch.tensor([2]), 1)[0].tolist() == [1, 0, 1]
    assert ndcg(torch.zeros(1, 1, 3), torch.tensor([0]), 3).item() == 0


@pytest.mark.parametrize("k", [1, 2, 3])
def test_value_and_gradient_against_enumeration(k):
    query, document = vectors_of([[0.5, 0.25, 0.625]])
    query.requires_grad_(), document.requires_grad_()
    batch = batch_of([1], 3, relevant=[(0, 0)])
    score = (query @ document.T)[0] / 0.25
    orders = list(itertools.permutations(range(3)))
    utility = ndcg(batch.relevant_BD[0][torch.tensor(orders)][None], torch.tensor([2]), k)[0]
    chance = torch.stack([plackett_luce_log(score[list(order)], 3) for order in orders]).exp()
    expected = 1 - chance @ utility
    slopes = torch.autograd.grad(expected, (query, document))
    objective, found = PGRank(num_rankings=16, k=k, temperature=0.25), []
    for seed in range(400):
        unit = torch.nn.functional.normalize(query), torch.nn.functional.normalize(document)
        value = objective.value(*unit, dataclasses.replace(batch, seed=seed))
        found.append((value.detach(), *torch.autograd.grad(value, unit)))
    values, query_slopes, document_slopes = (torch.stack(part) for part in zip(*found, strict=True))
    error = 4 / 400**0.5
    assert abs(values.mean() - expected.item()) < error * values.std()
    for drawn, exact, at in ((query_slopes, slopes[0], query), (document_slopes, slopes[1], document)):
        # the objective's cosine takes out the part along the vector
        flat = exact - (exact * at).sum(dim=1, keepdim=True) * at
        assert flat.abs().max() > 0.01
        assert ((drawn.mean(dim=0) - flat).abs() < error * drawn.std(dim=0) + 1e-9).all()


def test_equally_good_rankings_teach_nothing():
    query, document = vectors_of([[0.5, 0.25, 0.625]])
    query.requires_grad_()
    every = batch_of([0], 3, relevant=[(0, 1), (0, 2)])
    value = PGRank().value(query, document, every)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert query.grad.abs().max() < 1e-12
