"""Every objective at the edges: all answers, no scores, empty and equal texts, no teacher."""

import dataclasses

import pytest
import torch
from objective_cases import KINDS, NAN, OBJECTIVES, batch_of, name, random_case, solved

from tamis.errors import DataError
from tamis.training.objectives.false_negatives import FalseNegatives
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.list_distil import ListDistil
from tamis.training.objectives.margin_mse import MarginMSE
from tamis.training.objectives.multi_positive import MultiPositive
from tamis.training.objectives.pairwise_logistic import PairwiseLogistic
from tamis.training.objectives.soft_targets import SoftTargets

ALL = pytest.mark.parametrize("objective", OBJECTIVES, ids=name)


def hard_cases():
    """Batches at the edges: name, vectors, batch."""
    base_vectors = torch.eye(3, 6, dtype=torch.float64), torch.eye(5, 6, dtype=torch.float64)
    target, mined = [0, 1, 2], [[3], [4], [-1]]
    every = [(row, column) for row in range(3) for column in range(5)]
    unknown = [[NAN] * 5] * 3
    scored = [[5.0, 1.0, 0.0, 2.0, 2.0], [NAN] * 5, [NAN, 1.0, NAN, float("inf"), float("-inf")]]
    yield (
        "all documents are answers",
        *base_vectors,
        batch_of(target, 5, relevant=every, negatives=mined, teacher=scored),
    )
    yield "no teacher score", *base_vectors, batch_of(target, 5, negatives=mined, teacher=unknown)
    yield "patchy teacher", *base_vectors, batch_of(target, 5, negatives=mined, teacher=scored)
    yield "one answer for all", *base_vectors, batch_of([0, 0, 0], 5, negatives=mined, teacher=scored)
    zero = torch.zeros(3, 6, dtype=torch.float64), torch.zeros(5, 6, dtype=torch.float64)
    yield "empty texts", *zero, batch_of(target, 5, negatives=mined, teacher=scored)
    equal = torch.ones(3, 6, dtype=torch.float64), torch.ones(5, 6, dtype=torch.float64)
    yield "equal vectors", *equal, batch_of(target, 5, negatives=mined, teacher=scored)
    huge = base_vectors[0] * 1e4, base_vectors[1] * 1e-4
    yield "long and short vectors", *huge, batch_of(target, 5, negatives=mined, teacher=scored)
    lone = torch.eye(1, 6, dtype=torch.float64), torch.eye(1, 6, dtype=torch.float64)
    yield "one query, one document", *lone, batch_of([0], 1, negatives=[[0]], teacher=[[1.0]])


@ALL
@pytest.mark.parametrize("case", list(hard_cases()), ids=lambda case: case[0])
def test_no_infinity_leaks(objective, case):
    _, query, document, batch = case
    found = solved(objective, query.float().requires_grad_(), document.float().requires_grad_(), batch)
    assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize(
    "objective",
    [
        MarginMSE(),
        SoftTargets(),
        InfoNCE(mask=FalseNegatives()),
        MultiPositive(mask=FalseNegatives()),
        PairwiseLogistic(mask=FalseNegatives()),
        *(ListDistil(kind=k) for k in KINDS),
    ],
    ids=name,
)
def test_a_missing_teacher_is_an_error_that_says_so(objective):
    query, document, batch = random_case()
    with pytest.raises(DataError, match="teacher="):
        objective.loss(query[None], document[None], dataclasses.replace(batch, teacher_BD=None))


@pytest.mark.parametrize("objective", [MarginMSE(), *(ListDistil(kind=k) for k in KINDS)], ids=name)
def test_a_teacher_without_a_score_teaches_nothing(objective):
    query, document, batch = random_case()
    silent = dataclasses.replace(batch, teacher_BD=torch.full_like(batch.teacher_BD, NAN))
    for part in solved(objective, query, document, silent):
        assert not part.any()
