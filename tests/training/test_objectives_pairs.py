"""OrthogonalProjection, Mixup and PairwiseLogistic: losses of pairs."""

import dataclasses

import numpy as np
import pytest
import torch
from objective_cases import batch_of, random_case, vectors_of

from tamis.errors import DataError
from tamis.training.objectives.mixup import Mixup, mixed_pair_loss
from tamis.training.objectives.orthogonal_projection import OrthogonalProjection
from tamis.training.objectives.pairwise_logistic import PairwiseLogistic, pairwise_logistic_loss


def test_orthogonal_projection_by_hand():
    query, document = vectors_of([[0.8, 0.3]])
    batch = batch_of([0], 2, negatives=[[1]])
    assert OrthogonalProjection().value(query, document, batch).item() == pytest.approx(0.065)


def test_an_opposite_costs_nothing_when_spared():
    query, document = vectors_of([[0.5, -0.5]])
    batch = batch_of([0], 2, negatives=[[1]])
    assert OrthogonalProjection().value(query, document, batch).item() == pytest.approx(0.25)
    assert OrthogonalProjection(spares_opposites=True).value(query, document, batch).item() == pytest.approx(0.125)


def test_a_batch_is_the_mean_of_its_queries_gradients():
    query, document, batch = random_case()
    objective = OrthogonalProjection()
    whole = torch.autograd.grad(objective.value(query, document, batch), (query, document))
    singles = [
        torch.autograd.grad(
            objective.value(query[row : row + 1], document, batch.rows(slice(row, row + 1))), (query, document)
        )
        for row in range(len(query))
    ]
    for place in range(2):
        torch.testing.assert_close(whole[place], sum(single[place] for single in singles) / len(query))


def test_positives_alone_are_refused():
    query, document, batch = random_case()
    for negatives in (batch.negative_BN[:, :0], torch.full_like(batch.negative_BN, -1)):
        with pytest.raises(DataError, match="num_negatives of at least 1"):
            OrthogonalProjection().value(query, document, dataclasses.replace(batch, negative_BN=negatives))


def test_mixup_by_hand():
    loss = mixed_pair_loss(torch.tensor(0.8), torch.tensor(0.7), 10.0, 0.5)
    assert loss.item() == pytest.approx(0.94859, abs=5e-6)


def test_mixup_of_a_document_with_itself_is_the_pair_loss():
    query, document = vectors_of([[0.75, 0.75]])
    document = document[[0, 0]]
    batch = batch_of([0], 2, negatives=[[1]])
    share = float(Mixup().shares(batch)[0])
    expected = mixed_pair_loss(torch.tensor(0.75), torch.tensor(share), 10.0, 0.5)
    assert Mixup().value(query, document, batch).item() == pytest.approx(expected.item(), rel=1e-6)


def test_mixup_against_the_plain_form():
    query, document, batch = random_case()
    objective, found = Mixup(shape=3), []
    unit = torch.nn.functional.normalize
    batch = dataclasses.replace(batch, negative_BN=batch.negative_BN[:, :1], weight_B=None)
    for row, share in enumerate(objective.shares(batch).tolist()):
        answer, other = (unit(document[column], dim=0) for column in (batch.target_B[row], batch.negative_BN[row, 0]))
        mixed = unit(share * answer + (1 - share) * other, dim=0)
        near = 1 / (1 + torch.exp(10 * (unit(query[row], dim=0) @ mixed - 0.5)))
        found.append(-share * torch.log(1 - near) - (1 - share) * torch.log(near))
    torch.testing.assert_close(objective.value(query, document, batch), sum(found) / len(found))


@pytest.mark.parametrize("shape", [1, 2, 5])
def test_shares_are_beta(shape):
    batch = batch_of([0] * 20_000, 1, seed=3)
    drawn = Mixup(shape=shape).shares(batch)
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * shape + 1)), rel=0.05)
    np.testing.assert_array_equal(Mixup(shape=shape).shares(batch.rows(slice(7, 9))), drawn[7:9])
    assert not np.array_equal(drawn, Mixup(shape=shape).shares(dataclasses.replace(batch, seed=4)))


def test_without_mined_negatives_one_of_the_batch_is_mixed_in_and_never_an_answer():
    query, document = vectors_of([[0.5, 0.75, 0.0], [0.0, 0.25, 0.5]])
    for seed in range(20):
        free = dataclasses.replace(batch_of([0, 2], 3, relevant=[(0, 1)], weight=[1.0, 0.0]), seed=seed)
        told = dataclasses.replace(free, negative_BN=torch.tensor([[2], [-1]]))
        drawn, mined = (Mixup().value(query, document, batch) for batch in (free, told))
        torch.testing.assert_close(drawn, mined)  # column 2 is the only one that is no answer of the first query


def test_pairwise_logistic_by_hand():
    # Columns: both answers, then the mined negative of each query.
    scores = torch.tensor([[2.0, 0.5, 1.0, 0.0], [1.5, 1.0, 2.0, 1.0]])
    terms = [0.20141, 0.31326, 0.12693, 0.97408, 1.31326, 0.69315]
    found = pairwise_logistic_loss(scores, torch.tensor([0, 1]), torch.zeros(2, 4, dtype=torch.bool))
    assert found.tolist() == pytest.approx([sum(terms[:3]) / 3, sum(terms[3:]) / 3], abs=1e-5)
    assert found.mean().item() == pytest.approx(0.60368, abs=5e-6)


def test_pairwise_logistic_leaves_other_answers_out():
    query, document = vectors_of([[0.5, 0.75, 0.25]])
    with_both = PairwiseLogistic().value(query, document, batch_of([0], 3, relevant=[(0, 1)]))
    torch.testing.assert_close(with_both, PairwiseLogistic().value(query, document[[0, 2]], batch_of([0], 2)))
