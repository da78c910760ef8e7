"""Every objective has the gradient of its value, and minimising it ranks answers first."""

import dataclasses

import pytest
import torch
from objective_cases import OBJECTIVES, SINGLE, name, random_case, stacked

from tamis.training.objectives.base import Batch, cosine
from tamis.training.objectives.pg_rank import PGRank

ALL = pytest.mark.parametrize("objective", OBJECTIVES, ids=name)


@pytest.mark.parametrize("objective", [o for o in SINGLE if not isinstance(o, PGRank)], ids=name)
def test_gradients_are_those_of_finite_differences(objective):  # PGRank's is of an expectation: see its own tests
    query, document, batch = random_case(num_queries=4, num_docs=8)
    assert torch.autograd.gradcheck(lambda q, d: objective.loss(q[None], d[None], batch), (query, document), atol=1e-5)


@ALL
def test_minimising_it_ranks_answers_first(objective):
    query, document, batch = random_case(num_queries=12, num_docs=24, width=8)
    target = torch.arange(12)
    relevant = torch.zeros(12, 24, dtype=torch.bool).scatter(1, target[:, None], True)
    others = torch.rand(12, 24, generator=torch.Generator().manual_seed(3)).masked_fill(relevant, -1)
    told = torch.where(relevant, torch.tensor(4.0), -2 * others.abs())
    negative = others.argsort(dim=1, descending=True)[:, :8]
    batch = Batch(target, relevant, negative, told)
    optimizer = torch.optim.Adam([query, document], lr=0.05)

    def reciprocal_rank():
        scores = stacked_scores(objective, query, document)
        own = scores.gather(-1, target.expand(*scores.shape[:-1])[..., None])
        return (1 / (scores >= own).sum(dim=-1)).mean().item()

    before = reciprocal_rank()
    for step in range(150):
        optimizer.zero_grad()
        objective.loss(*stacked(objective, query, document), dataclasses.replace(batch, seed=step)).backward()
        optimizer.step()
    assert before < 0.4
    assert reciprocal_rank() > max(0.7, 2 * before)


def stacked_scores(objective, query, document):
    """Cosines of each layer."""
    layers = zip(*stacked(objective, query.detach(), document.detach()), strict=True)
    return torch.stack([cosine(own_query, own_document) for own_query, own_document in layers])
