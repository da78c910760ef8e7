"""What objectives are made of: cosines, blocks of rows, parts of a batch."""

import dataclasses

import pytest
import torch
from objective_cases import NAN, batch_of, random_case

from tamis.errors import DataError
from tamis.training.objectives import base
from tamis.training.objectives.base import Batch, cosine, cosine_of_pairs, mean_over_rows, teacher_scores


def test_cosine_of_an_empty_text_is_zero_and_so_is_its_gradient_of_others():
    query = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    found = cosine(query, torch.tensor([[4.0, 3.0], [0.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.96, 0.0], [0.0, 0.0]]))
    found.sum().backward()
    assert query.grad.isfinite().all()


def test_cosines_of_pairs_are_those_of_all():
    query, document, _ = random_case()
    columns = torch.arange(14).reshape(7, 2)
    torch.testing.assert_close(
        cosine_of_pairs(query, document[columns]), cosine(query, document).gather(1, columns), rtol=1e-12, atol=1e-12
    )


def test_part_of_a_batch():
    _, _, batch = random_case()
    part = batch.rows(slice(2, 5)).rows(slice(1, 3))
    for field in dataclasses.fields(Batch):
        if field.name.endswith(("_B", "_BD", "_BN")):
            torch.testing.assert_close(getattr(part, field.name), getattr(batch, field.name)[3:5], equal_nan=True)
    assert (part.first_row, part.seed, part.progress) == (3, batch.seed, batch.progress)


def test_other_answers_are_answers_that_were_not_drawn():
    batch = batch_of([0, 2], 3, relevant=[(0, 1)])
    assert batch.other_answers.tolist() == [[False, True, False], [False, False, False]]


def test_scores_that_are_no_numbers_are_unknown():
    batch = batch_of([0], 4, teacher=[[1.5, NAN, float("inf"), float("-inf")]])
    scores, known = teacher_scores(batch, "x")
    assert (scores.tolist(), known.tolist()) == ([[1.5, 0, 0, 0]], [[True, False, False, False]])
    with pytest.raises(DataError, match="objective 'x'"):
        teacher_scores(batch_of([0], 4), "x")


@pytest.mark.parametrize(
    ("limits", "blocks"),
    [
        ({}, [7]),
        ({"ROWS": 3}, [3, 3, 1]),
        ({"SCORES": 4 * 17 + 1}, [4, 3]),
        ({"ROWS": 3, "SCORES": 2 * 17}, [2, 2, 2, 1]),
        ({"SCORES": 1}, [1] * 7),
    ],
)
def test_no_more_than_the_limits_is_held(limits, blocks, monkeypatch):
    for name, value in limits.items():
        monkeypatch.setattr(base, name, value)
    query, document, batch = random_case()
    seen = []

    def value(rows: torch.Tensor, part: Batch) -> torch.Tensor:
        seen.append((part.first_row, len(rows)))
        return cosine(rows, document).sum()

    mean_over_rows(value, query, batch)
    assert [size for _, size in seen] == blocks
    assert [start for start, _ in seen] == [sum(blocks[:at]) for at in range(len(blocks))]
