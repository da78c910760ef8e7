"""ALDR: the card's numbers, the maximum it is, and the limits of its temperature."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objective_cases import batch_of

from tamis.training.objectives.aldr import adapted_temperature, aldr_loss

SCORES = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
ROWS = st.lists(st.floats(-1, 1), min_size=2, max_size=8)


def test_temperature_by_hand():
    found = adapted_temperature(SCORES, torch.tensor([[3]]), 1.0, 2.0, rounds=1)
    assert found.item() == pytest.approx(0.87884, abs=5e-6)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, -0.2366), (0.5, -0.1700)])
def test_loss_by_hand(temperature, expected):
    loss = aldr_loss(SCORES, batch_of([0], 3), temperature, 1e6, 1.0)  # so stiff that the temperature stays
    assert loss.item() == pytest.approx(expected, abs=5e-5)


@given(ROWS, st.sampled_from([0.05, 0.5]), st.sampled_from([1.25, 2.0, 8.0]), st.floats(0.0, 2.0), st.randoms())
def test_no_distribution_and_temperature_gives_more(row, start, stiffness, margin, random):
    """The loss is a maximum: over p at its own temperature, and never below what p = uniform or the start give."""
    scores = torch.tensor([row], dtype=torch.float64)
    loss = aldr_loss(scores, batch_of([0], len(row)), start, stiffness, margin).item()
    lead = scores[0] - scores[0, 0] + margin
    lead[0] = 0
    log_num = torch.tensor(float(len(row)), dtype=torch.float64).log()

    def inside(share, temperature):
        divergence = (share * (share.clamp(min=1e-300).log() + log_num)).sum()
        penalty = stiffness * log_num / (2 * start) * (temperature - start) ** 2
        return (share @ lead - temperature * divergence - penalty).item()

    uniform = torch.full_like(lead, 1 / len(row))
    at_start = (lead / start).softmax(dim=0)
    assert loss >= inside(uniform, start) - 1e-9
    assert loss >= inside(at_start, start) - 1e-9
    for share in (at_start, (lead / (start * random.uniform(0.2, 1))).softmax(dim=0)):
        found = adapted_temperature(lead[None], torch.tensor([[len(row)]]), start, stiffness).item()
        assert loss >= inside(share, found) - 1e-9


@given(ROWS, st.sampled_from([1.25, 2.0, 8.0]))
def test_the_temperature_stays_between_its_bounds(row, stiffness):
    scores = torch.tensor([row], dtype=torch.float64)
    found = adapted_temperature(scores, torch.tensor([[len(row)]]), 0.05, stiffness).item()
    assert 0.05 * (1 - 1 / stiffness) - 1e-12 <= found <= 0.05
    flat = adapted_temperature(torch.zeros_like(scores), torch.tensor([[len(row)]]), 0.05, stiffness).item()
    assert flat == pytest.approx(0.05)


def test_hidden_answers_count_neither_in_the_sum_nor_in_the_number():
    scores = torch.tensor([[0.5, 0.75, 0.25]], dtype=torch.float64)
    with_it = aldr_loss(scores, batch_of([0], 3, relevant=[(0, 1)]), 0.5, 2.0, 0.125)
    torch.testing.assert_close(with_it, aldr_loss(scores[:, [0, 2]], batch_of([0], 2), 0.5, 2.0, 0.125))
