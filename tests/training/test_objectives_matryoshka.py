"""Matryoshka, Matryoshka2D, Starbucks and Weighted: the card's numbers, their parts, and sentence-transformers."""

import dataclasses

import pytest
import torch
from objective_cases import batch_of, random_case

from tamis.errors import RecipeError, UsageError
from tamis.training.objectives.base import cosine
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.margin_mse import MarginMSE
from tamis.training.objectives.matryoshka import Matryoshka
from tamis.training.objectives.matryoshka_2d import Matryoshka2D, coordinate_kl
from tamis.training.objectives.starbucks import Starbucks
from tamis.training.objectives.weighted import Part, Weighted

INNER = InfoNCE(temperature=0.25)


def layered(num_layers: int, seed: int = 0):
    """float64 vectors of several layers with a gradient, and a batch."""
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(num_layers, 5, 8, generator=draw, dtype=torch.float64).requires_grad_()
    document = torch.randn(num_layers, 9, 8, generator=draw, dtype=torch.float64).requires_grad_()
    return query, document, batch_of([0, 1, 2, 3, 4], 9, seed=seed)


def test_matryoshka_by_hand():
    query = torch.tensor([[0.6, 0.8, 0.0, 0.0]])
    document = torch.tensor([[0.6, 0.0, 0.8, 0.0], [0.0, 0.8, 0.6, 0.0]])
    batch, inner = batch_of([0], 2), InfoNCE(temperature=0.1)
    for dims, expected in [((4,), 2.8590), ((2,), 2.1269), ((4, 2), 4.9860)]:
        assert Matryoshka(dims=dims, inner=inner).value(query, document, batch).item() == pytest.approx(
            expected, abs=1e-4
        )


def test_the_full_width_alone_is_the_inner_objective_and_weights_are_factors():
    query, document, batch = random_case()
    full = INNER.value(query, document, batch)
    torch.testing.assert_close(Matryoshka(dims=(6,), inner=INNER).value(query, document, batch), full)
    half = INNER.value(query[:, :3], document[:, :3], batch)
    found = Matryoshka(dims=(6, 3), weights=(0.5, 2.0), inner=INNER).value(query, document, batch)
    torch.testing.assert_close(found, 0.5 * full + 2 * half)


def test_what_lies_beyond_the_widest_cut_does_not_matter():
    query, document, batch = random_case()
    objective = Matryoshka(dims=(2, 4), inner=INNER)
    other = query + torch.tensor([0, 0, 0, 0, 7, 7])
    torch.testing.assert_close(objective.value(query, document, batch), objective.value(other, document, batch))


def test_against_sentence_transformers():
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

    class Given(torch.nn.Module):
        def forward(self, features):
            return dict(features)

        def get_embedding_dimension(self):
            return 6

    query, document, _ = random_case(num_docs=7)
    model = Given()
    peer = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, scale=4.0), [6, 3, 2], [1.0, 0.5, 2.0])
    expected = peer([{"sentence_embedding": query}, {"sentence_embedding": document}], None)
    objective = Matryoshka(dims=(6, 3, 2), weights=(1.0, 0.5, 2.0), inner=INNER)
    torch.testing.assert_close(objective.value(query, document, batch_of(list(range(7)), 7)), expected)


def test_settings_that_cannot_be_meant():
    with pytest.raises(RecipeError, match="2 weights for 1 dims"):
        Matryoshka(dims=(4,), weights=(1.0, 1.0))
    with pytest.raises(RecipeError, match="twice"):
        Matryoshka(dims=(4, 4))
    with pytest.raises(RecipeError, match="twice"):
        Starbucks(rungs=((2, 4), (2, 4)))
    with pytest.raises(RecipeError, match="at least 1"):
        Weighted(parts=())
    query, document, batch = random_case()
    with pytest.raises(UsageError, match="vectors have 6"):
        Matryoshka(dims=(768, 4)).value(query, document, batch)


def test_matryoshka_2d_is_its_four_terms_and_the_tie():
    objective = Matryoshka2D(dims=(2, 4), inner=INNER, kl_weight=3.0)
    assert objective.layers(3) == (1, 2, 3)
    for seed in range(6):
        query, document, batch = layered(3, seed)
        layer, dim = objective.drawn(batch, 3)
        expected = torch.zeros((), dtype=torch.float64)
        for place in (2, layer):
            for width in (8, dim):
                expected = expected + INNER.value(query[place, :, :width], document[place, :, :width], batch)
        texts = torch.cat([query, document], dim=1)
        target = (texts[2] / 0.3).softmax(dim=-1)
        own = (texts[layer] / 0.3).log_softmax(dim=-1)
        apart = torch.nn.functional.kl_div(own, target, reduction="batchmean")  # the peer's form
        torch.testing.assert_close(objective.loss(query, document, batch), expected + 3 * 0.3 * apart)


def test_matryoshka_2d_draws_every_layer_but_the_last_and_every_width():
    objective = Matryoshka2D(dims=(2, 4, 6))
    batch = layered(4)[2]
    found = {objective.drawn(dataclasses.replace(batch, seed=seed), 4) for seed in range(200)}
    assert found == {(layer, dim) for layer in range(3) for dim in (2, 4, 6)}


def test_the_last_layer_is_taught_nothing_by_the_ones_below():
    query, document, _ = layered(2)
    coordinate_kl(query[0], query[1], 0.3).backward()
    assert query.grad[0].abs().max() > 0
    assert not query.grad[1].any()
    assert document.grad is None


def test_layers_that_the_model_lacks():
    with pytest.raises(UsageError, match="two are needed"):
        Matryoshka2D(dims=(2,)).layers(1)
    with pytest.raises(UsageError, match="vectors of one layer"):
        query, document, batch = layered(1)
        Matryoshka2D(dims=(2,)).loss(query, document, batch)
    assert Starbucks().layers(12) == (2, 4, 6, 8, 10, 12)
    with pytest.raises(UsageError, match="rung at layer 10, but the model has 6"):
        Starbucks().layers(6)
    with pytest.raises(UsageError, match="vectors of 2 layers came, not of 3"):
        query, document, batch = layered(2)
        Starbucks(rungs=((1, 2), (2, 4))).loss(query, document, batch)


def test_starbucks_is_the_sum_over_its_sizes():
    rungs = ((3, 4), (1, 2), (1, 4))
    objective = Starbucks(rungs=rungs, inner=INNER, kl_weight=0.5, kl_temperature=0.25)
    assert objective.layers(6) == (1, 3, 6)
    query, document, batch = layered(3)
    expected = INNER.value(query[2], document[2], batch)
    full = (cosine(query[2], document[2]).detach() / 0.25).softmax(dim=1)
    for layer, dim in rungs:
        place = {1: 0, 3: 1}[layer]
        own_query, own_document = query[place, :, :dim], document[place, :, :dim]
        expected = expected + INNER.value(own_query, own_document, batch)
        own = (cosine(own_query, own_document) / 0.25).log_softmax(dim=1)
        expected = expected + 0.5 * torch.nn.functional.kl_div(own, full, reduction="batchmean")
    found = objective.loss(query, document, batch)
    torch.testing.assert_close(found, expected)
    for left, right in zip(
        torch.autograd.grad(found, (query, document)), torch.autograd.grad(expected, (query, document)), strict=True
    ):
        torch.testing.assert_close(left, right)


def test_weighted_adds_up_and_shares_layers():
    query, document, batch = layered(3)
    batch = dataclasses.replace(batch, teacher_BD=torch.randn(5, 9, generator=torch.Generator().manual_seed(1)))
    ladder = Starbucks(rungs=((1, 2), (2, 4)), inner=INNER)
    objective = Weighted(parts=(Part(weight=0.5, objective=ladder), Part(weight=2.0, objective=MarginMSE())))
    assert objective.layers(5) == (1, 2, 5)
    expected = 0.5 * ladder.loss(query, document, batch) + 2 * MarginMSE().value(query[-1], document[-1], batch)
    torch.testing.assert_close(objective.loss(query, document, batch), expected)
    assert Weighted(parts=(Part(objective=INNER), Part(objective=MarginMSE()))).layers(5) == ()


def test_weighted_refuses_parts_that_want_different_layers():
    other = Matryoshka2D(dims=(2,))
    objective = Weighted(parts=(Part(objective=Starbucks(rungs=((1, 2),))), Part(objective=other)))
    with pytest.raises(UsageError, match=r"\[1, 2, 3\] and \[1, 3\]"):
        objective.layers(3)
