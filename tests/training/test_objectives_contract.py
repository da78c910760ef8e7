"""What every objective promises, over the union that recipes use."""

import dataclasses
import importlib
import pkgutil
from typing import get_args

import pytest
import torch
from objective_cases import OBJECTIVES, name, random_case, solved, stacked
from pydantic import TypeAdapter, ValidationError

from tamis.errors import RecipeError
from tamis.training import objectives
from tamis.training.objectives import base
from tamis.training.objectives.list_distil import ListDistil
from tamis.training.objectives.matryoshka_2d import Matryoshka2D
from tamis.training.objectives.mixup import Mixup
from tamis.training.objectives.pg_rank import PGRank
from tamis.training.objectives.union import AnyObjective


def reordered(batch, order):
    """The batch after its documents were put into another order."""
    place = torch.argsort(order)
    return dataclasses.replace(
        batch,
        target_B=place[batch.target_B],
        relevant_BD=batch.relevant_BD[:, order],
        teacher_BD=None if batch.teacher_BD is None else batch.teacher_BD[:, order],
        negative_BN=torch.where(batch.negative_BN < 0, -1, place[batch.negative_BN.clamp(min=0)]),
    )


ALL = pytest.mark.parametrize("objective", OBJECTIVES, ids=name)


def members(union):
    """Names of the classes of a union of unions."""
    if isinstance(union, type):
        return {union.__name__}
    return set().union(*(members(part) for part in get_args(union) if get_args(part) or isinstance(part, type)))


def test_every_file_is_in_the_union_and_names_its_source():
    named = members(AnyObjective)
    found = set()
    for entry in pkgutil.iter_modules(objectives.__path__):
        module = importlib.import_module(f"tamis.training.objectives.{entry.name}")
        assert "Source:" in module.__doc__
        found |= {
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, base.Objective) and value is not base.Objective
        }
    assert found == named
    assert {type(objective).__name__ for objective in OBJECTIVES} == named


@ALL
def test_settings_survive_a_recipe(objective):
    adapter = TypeAdapter(AnyObjective)
    assert adapter.validate_json(objective.model_dump_json()) == objective


def test_an_unknown_name_or_key_is_refused():
    adapter = TypeAdapter(AnyObjective)
    for text in ('{"method": "info_nce", "temprature": 0.1}', '{"method": "infonce"}', '{"temperature": 0.1}'):
        with pytest.raises(ValidationError):
            adapter.validate_json(text)
    with pytest.raises(RecipeError, match="mass has no effect on kind 'kl'"):
        ListDistil(mass=0.5)


@ALL
def test_same_arguments_same_bits(objective):
    first, second = (solved(objective, *random_case()) for _ in range(2))
    for left, right in zip(first, second, strict=True):
        assert torch.equal(left, right)


@ALL
@pytest.mark.parametrize(("limit", "size"), [("ROWS", 3), ("SCORES", 2 * 17), ("SCORES", 1)])
def test_rows_in_blocks_give_what_the_whole_gives(objective, limit, size, monkeypatch):
    whole = solved(objective, *random_case())
    monkeypatch.setattr(base, limit, size)
    for left, right in zip(whole, solved(objective, *random_case()), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    assert whole[1].abs().max() > 1e-4  # there is something to compare


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if not isinstance(o, PGRank)], ids=name)
def test_the_order_of_documents_does_not_matter(objective):  # PGRank draws by column
    query, document, batch = random_case()
    if isinstance(objective, Mixup):
        batch = dataclasses.replace(batch, negative_BN=batch.negative_BN[:, :1])  # others are drawn by column
    order = torch.randperm(len(document), generator=torch.Generator().manual_seed(1))
    value, query_grad, document_grad = solved(objective, query, document, batch)
    other, other_query_grad, other_document_grad = solved(
        objective, query, document.detach()[order].requires_grad_(), reordered(batch, order)
    )
    torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(query_grad, other_query_grad, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(document_grad[order], other_document_grad, rtol=1e-9, atol=1e-11)


@ALL
def test_float32_and_half_precision_vectors(objective):
    query, document, batch = random_case()
    expected = objective.loss(*stacked(objective, query, document), batch).detach()
    batch = dataclasses.replace(batch, teacher_BD=batch.teacher_BD.float(), weight_B=batch.weight_B.float())
    single = objective.loss(*(v.float() for v in stacked(objective, query, document)), batch)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    half = objective.loss(*(v.bfloat16() for v in stacked(objective, query, document)), batch)
    rounded = objective.loss(*(v.bfloat16().float() for v in stacked(objective, query, document)), batch)
    assert torch.equal(half, rounded)  # nothing is computed in half precision


@ALL
def test_weights_of_queries_are_linear(objective):
    query, document, batch = random_case()
    layered = stacked(objective, query, document)

    def value(*weight):
        return objective.loss(*layered, dataclasses.replace(batch, weight_B=torch.tensor(weight, dtype=torch.float64)))

    low, high = value(*[1.0] * 7), value(*[2.0] * 7)
    if isinstance(objective, Matryoshka2D):  # the tie between layers is of texts, not of queries
        low, high = (v - value(*[0.0] * 7) for v in (low, high))
    torch.testing.assert_close(high, 2 * low)
    one_by_one = [value(*(float(row == other) for other in range(7))) for row in range(7)]
    if not isinstance(objective, Matryoshka2D):
        torch.testing.assert_close(sum(one_by_one), low)
