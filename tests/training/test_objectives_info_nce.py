"""InfoNCE: the card's numbers, who is a negative of whom, sentence-transformers' loss, and the masks."""

import math

import pytest
import torch
from objective_cases import NAN, batch_of, random_case, vectors_of

from tamis.errors import RecipeError
from tamis.training.objectives.base import Batch, cosine
from tamis.training.objectives.false_negatives import FalseNegatives
from tamis.training.objectives.info_nce import InfoNCE

PAIRS = [[0.8, 0.6], [0.2, 0.7]]
DIRECTIONS = {
    "query_to_doc": ("query_to_doc",),
    "symmetric": ("query_to_doc", "doc_to_query"),
    "all": ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
}


@pytest.mark.parametrize(
    ("objective", "cosines", "expected"),
    [
        (InfoNCE(temperature=0.1), PAIRS, 0.06682),
        (InfoNCE(temperature=0.05), PAIRS, 0.00910),
        (InfoNCE(temperature=0.1, directions="symmetric"), PAIRS, 0.11235),
        (InfoNCE(temperature=0.1), [[0.8, 0.6, 0.7, 0.1], [0.2, 0.7, 0.3, 0.5]], 0.27848),
    ],
)
def test_by_hand(objective, cosines, expected):
    value = objective.value(*vectors_of(cosines), batch_of([0, 1], len(cosines[0])))
    assert value.item() == pytest.approx(expected, abs=5e-6)


def test_equal_vectors_give_the_log_of_their_number():
    query, document = torch.ones(3, 4), torch.ones(5, 4)
    assert InfoNCE().value(query, document, batch_of([0, 1, 2], 5)).item() == pytest.approx(math.log(5))


def test_an_answer_that_was_not_drawn_is_no_negative():
    query, document = vectors_of([[0.5, 0.75, 0.25]])
    with_both = InfoNCE().value(query, document, batch_of([0], 3, relevant=[(0, 1)]))
    without_it = InfoNCE().value(query, document[[0, 2]], batch_of([0], 2))
    torch.testing.assert_close(with_both, without_it)
    assert InfoNCE().value(query, document, batch_of([0], 3)) > with_both + 1


def test_queries_that_share_an_answer_do_not_compete_for_it():
    query, document = vectors_of([[0.5, 0.25], [0.625, 0.25]])
    value = InfoNCE(temperature=0.5, directions="symmetric").value(query, document, batch_of([0, 0], 2))
    there = [math.log1p(math.exp((0.25 - own) / 0.5)) for own in (0.5, 0.625)]
    assert value.item() == pytest.approx(sum(there) / 2 / 2)  # the way back has nobody to be told apart from


def slow(query, document, batch, directions, temperature):
    """Losses of the queries, one pair at a time, from cosines alone."""
    forward, among = (cosine(query, other).tolist() for other in (document, query))
    answer = document[batch.target_B]
    back, answers = (cosine(answer, other).tolist() for other in (query, answer))
    target, relevant = batch.target_B.tolist(), batch.relevant_BD.tolist()
    losses = []
    for i, own in enumerate(target):
        apart = [j for j in range(len(query)) if not relevant[i][target[j]] and not relevant[j][target[i]]]
        documents = [forward[i][d] for d in range(len(document)) if d == own or not relevant[i][d]]
        queries = [back[i][j] for j in range(len(query)) if j == i or not relevant[j][own]]
        pools = {
            "query_to_doc": [documents],
            "symmetric": [documents, queries],
            "all": [documents + [row[j] for j in apart for row in (among[i], back[i], answers[i])]],
        }[directions]
        sums = [math.log(sum(math.exp((s - forward[i][own]) / temperature) for s in pool)) for pool in pools]
        losses.append(sum(sums) / len(sums))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_against_one_pair_at_a_time(directions):
    for seed in range(5):
        query, document, batch = random_case(num_queries=9, num_docs=12, seed=seed)
        assert (batch.relevant_BD.sum(dim=1) > 1).any()
        value = InfoNCE(temperature=0.25, directions=directions).value(query, document, batch)
        expected = (slow(query.detach(), document.detach(), batch, directions, 0.25) * batch.weight_B).mean()
        torch.testing.assert_close(value.detach(), expected)


# With mined negatives and "all", there answers are told apart from them too; here from answers alone.
@pytest.mark.parametrize(
    ("directions", "num_negatives"),
    [("query_to_doc", 0), ("query_to_doc", 2), ("symmetric", 0), ("symmetric", 2), ("all", 0)],
)
def test_against_sentence_transformers(directions, num_negatives):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    draw = torch.Generator().manual_seed(2)
    query, *documents = torch.randn(2 + num_negatives, 5, 8, generator=draw, dtype=torch.float64)
    mode = "joint" if directions == "all" else "per_direction"
    peer = MultipleNegativesRankingLoss(None, scale=4.0, directions=DIRECTIONS[directions], partition_mode=mode)
    expected = peer.compute_loss_from_embeddings([query, *documents], None)
    objective, batch = InfoNCE(temperature=0.25, directions=directions), batch_of(list(range(5)), 5 * len(documents))
    if directions == "all":  # there the pair is counted twice: e^loss of each query is 1 more
        rows = [replaced(batch, weight_B=5.0 * torch.eye(5)[row]) for row in range(5)]
        each = torch.stack([objective.value(query, torch.cat(documents), row) for row in rows])
        torch.testing.assert_close((each.exp() + 1).log().mean(), expected)
    else:
        torch.testing.assert_close(objective.value(query, torch.cat(documents), batch), expected)


def replaced(batch: Batch, **changes: object) -> Batch:
    """The batch with other fields."""
    from dataclasses import replace

    return replace(batch, **changes)


def test_mask_of_a_teacher_by_hand():
    # The teacher gives the answer 0.8; 5 % less is 0.76: 0.77 is hidden, 0.75 stays, and so does what it does not know.
    query, document = vectors_of([[0.25, 0.5, 0.125, 0.375]])
    batch = batch_of([0], 4, teacher=[[0.8, 0.77, 0.75, NAN]])
    hidden = FalseNegatives().hidden(cosine(query, document), batch)
    assert hidden.tolist() == [[False, True, False, False]]
    masked = InfoNCE(mask=FalseNegatives()).value(query, document, batch)
    torch.testing.assert_close(masked, InfoNCE().value(query, document[[0, 2, 3]], batch_of([0], 3)))


def test_mask_of_the_student_by_hand():
    query, document = vectors_of([[0.5, 0.5, 0.4375, 0.25]])
    batch = batch_of([0], 4)
    for margin, expected in [(0.0, []), (0.03125, [1]), (0.125, [1, 2]), (1.0, [1, 2, 3]), (-0.5, [])]:
        hidden = FalseNegatives(judge="student", margin=margin, unit="score").hidden(cosine(query, document), batch)
        assert hidden[0].nonzero()[:, 0].tolist() == expected, margin


def test_a_share_of_a_negative_score_lies_below_it():
    batch = batch_of([0], 4, teacher=[[-2.0, -1.5, -2.0625, -2.25]])
    hidden = FalseNegatives(margin=0.0625).hidden(torch.zeros(1, 4), batch)
    assert hidden.tolist() == [[False, True, True, False]]  # above -2.125


def test_a_whole_share_hides_all_that_scores_above_zero():
    batch = batch_of([0], 4, teacher=[[2.0, 0.5, 0.0, -1.0]])
    assert FalseNegatives(margin=1.0).hidden(torch.zeros(1, 4), batch).tolist() == [[False, True, False, False]]


def test_a_query_whose_answer_the_teacher_does_not_know_hides_nothing():
    batch = batch_of([0, 1], 3, teacher=[[NAN, 5.0, 5.0], [5.0, 1.0, 5.0]])
    assert FalseNegatives().hidden(torch.zeros(2, 3), batch).tolist() == [[False] * 3, [True, False, True]]


def test_settings_out_of_range_are_refused():
    with pytest.raises(RecipeError, match="greater than 0"):
        InfoNCE(temperature=0.0)
    with pytest.raises(RecipeError, match="symmetric"):
        InfoNCE(directions="both")
