"""SoftTargets: the card's numbers, its two ends, and whom the labels' part is shared by."""

import pytest
import torch
from objective_cases import NAN, batch_of, random_case, vectors_of

from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.list_distil import ListDistil
from tamis.training.objectives.soft_targets import SoftTargets, soft_target_loss


def test_by_hand():
    score = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    weight = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    soft = soft_target_loss(score, weight / weight.sum(dim=1, keepdim=True), none)
    assert soft.mean().item() == pytest.approx(0.64660, abs=5e-6)
    assert soft_target_loss(score, torch.eye(2), none).mean().item() == pytest.approx(0.31326, abs=5e-6)


def test_labels_alone_are_infonce():
    query, document, _ = random_case(num_queries=2)
    told = [[NAN] * 17, [1.0, *[NAN] * 16]]
    batch = batch_of([3, 5], 17, relevant=[(0, 4), (1, 6)], teacher=told)
    expected = InfoNCE().value(query, document, batch)
    torch.testing.assert_close(SoftTargets(teacher_share=0.0).value(query, document, batch), expected)


def test_a_query_without_scores_has_its_labels():
    query, document, _ = random_case(num_queries=2)
    batch = batch_of([3, 5], 17, teacher=[[NAN] * 17] * 2)
    expected = InfoNCE().value(query, document, batch)
    torch.testing.assert_close(SoftTargets(teacher_share=1.0).value(query, document, batch), expected)


def test_the_teacher_alone_is_its_divergence_and_its_entropy():
    query, document = vectors_of([[0.5, 0.25, -0.25]])
    batch = batch_of([0], 3, teacher=[[1.0, 2.0, 0.0]])
    share = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64).softmax(dim=0)
    divergence = ListDistil(teacher_temperature=1.0).value(query, document, batch)
    found = SoftTargets(teacher_share=1.0).value(query, document, batch)
    torch.testing.assert_close(found, divergence - (share * share.log()).sum(), rtol=1e-6, atol=1e-6)


def test_the_labels_part_is_shared_by_answers_that_count():
    # Columns: drawn, an answer with a score, an answer without one (left out), another document.
    query, document = vectors_of([[0.5, 0.25, 0.625, 0.0]])
    batch = batch_of([0], 4, relevant=[(0, 1), (0, 2)], teacher=[[NAN, 3.0, NAN, 3.0]])
    found = SoftTargets(teacher_share=0.5, temperature=0.25).value(query, document, batch)
    log = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64).log_softmax(dim=0)
    expected = -(torch.tensor([0.25, 0.25 + 0.25, 0.25], dtype=torch.float64) * log).sum()
    torch.testing.assert_close(found, expected)
