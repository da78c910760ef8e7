"""A step in parts is the step as a whole: gradients, dropout, limits; and dropout by counter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_models import static, transformer

from tamis.training.dropout import counted_dropout, thinned
from tamis.training.machine import Machine
from tamis.training.model import Model
from tamis.training.step import Limits, backward, micro_batches

CPU = Machine("cpu", "float32")
PLENTY = Limits(micro_tokens=10_000, held_bytes=1 << 40)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 100))
def test_micro_batches_hold_every_row_once_longest_first(lengths, limit):
    lengths = np.array(lengths)
    found = micro_batches(lengths, limit)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert np.all(np.diff(lengths[np.concatenate(found)]) <= 0)
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= limit for rows in found)


def test_micro_batches_by_hand():
    found = micro_batches(np.array([2, 5, 3, 5, 0]), 10)
    assert [rows.tolist() for rows in found] == [[1, 3], [2, 0, 4]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made = Model(transformer(tmp_path_factory.mktemp("bert"), dropout=0.2), machine=CPU)
    made.module.train()
    return made


@pytest.fixture(scope="module")
def texts(model):
    rng = np.random.default_rng(1)
    return model.tokens([" ".join(rng.choice(list("abcdefgh"), n)) for n in (9, 1, 30, 4, 4, 17, 2, 25)], "document")


def contrast(vectors_SnH):
    """A loss in which every vector meets every other."""
    left, right = vectors_SnH[0, ::2], vectors_SnH[0, 1::2]
    return torch.nn.functional.cross_entropy(left @ right.T * 20, torch.arange(len(left)))


def gradients(model, texts, limits, *, seed=3, encode=None):
    model.module.zero_grad(set_to_none=True)
    loss = backward(encode or (lambda rows: model.vectors(texts.take(rows))), texts.lengths, contrast, limits=limits, seed=seed)  # fmt: skip
    return loss, {n: p.grad.clone() for n, p in model.module.named_parameters() if p.grad is not None}


def same(one, other, rtol=1e-5):
    assert one[0] == pytest.approx(other[0], rel=rtol)
    assert one[1].keys() == other[1].keys() and len(one[1]) > 20
    largest = max(float(slope.abs().max()) for slope in one[1].values())
    for name, slope in one[1].items():  # biases of keys have gradients that are 0 but for rounding
        torch.testing.assert_close(slope, other[1][name], rtol=rtol, atol=1e-7 * largest)


@pytest.mark.parametrize("micro", [1, 20, 64, 10_000])
@pytest.mark.parametrize("held_bytes", [0, 200_000, 1 << 40])
def test_gradient_in_parts_is_the_plain_one(model, texts, micro, held_bytes):
    """With dropout on: the plain one encodes the same micro-batches under one graph."""
    batches = micro_batches(texts.lengths, micro)
    limits, parts = Limits(micro, held_bytes), []
    calls = []

    def encode(rows):
        calls.append(len(rows))
        return model.vectors(texts.take(rows))

    found = gradients(model, texts, limits, encode=encode)
    again = len(calls) - len(batches)
    if held_bytes in (0, 1 << 40):
        assert again == (0 if held_bytes else len(batches) - 1)
    model.module.zero_grad(set_to_none=True)

    def remember(rows):
        parts.append((rows, torch.get_rng_state()))
        return torch.zeros(1, len(rows), 32, requires_grad=True)

    backward(remember, texts.lengths, contrast, limits=limits, seed=3)  # the generator's states alone
    made = torch.zeros(1, len(texts), 32)
    for rows, state in parts[: len(batches)]:
        torch.set_rng_state(state)
        made = made.index_copy(1, torch.from_numpy(rows), model.vectors(texts.take(rows)))
    loss = contrast(made)
    loss.backward()
    slopes = {n: p.grad for n, p in model.module.named_parameters() if p.grad is not None}
    same(found, (float(loss.detach()), slopes))


def test_limits_change_no_bit_and_seeds_do(model, texts):
    """Held or encoded again, the sums have the same terms in the same order."""
    held, again = (gradients(model, texts, Limits(64, n)) for n in (1 << 40, 0))
    assert held[0] == again[0] and all(torch.equal(held[1][n], again[1][n]) for n in held[1])
    assert gradients(model, texts, Limits(64, 0), seed=4)[0] != held[0]


def test_sorted_is_unsorted(tmp_path):
    """Without dropout, cutting by length leaves the gradient of the texts as they were given, padded together."""
    model = Model(transformer(tmp_path / "bert", dropout=0), machine=CPU)
    model.module.train()
    texts = model.tokens(["a b c d e f", "a", "c d", "e f g h i j k l m n", "b", "g g g"], "query")
    found = gradients(model, texts, Limits(12, 0))
    model.module.zero_grad(set_to_none=True)
    loss = contrast(model.vectors(texts))
    loss.backward()
    same(found, (float(loss.detach()), {n: p.grad for n, p in model.module.named_parameters() if p.grad is not None}))


def test_token_table_in_parts(tmp_path):
    model = Model(static(), machine=CPU)
    texts = model.tokens(["a b", "", "c", "a a a d", "x y", "z"], "query")
    found, whole = (gradients(model, texts, limits)[1]["0.embedding.weight"] for limits in (Limits(2, 0), PLENTY))
    torch.testing.assert_close(found, whole)
    assert whole.abs().sum() > 0 and not whole[0].any()


def test_a_loss_that_sees_no_vector_leaves_no_gradient(model, texts):
    model.module.zero_grad(set_to_none=True)
    blind = torch.zeros((), requires_grad=True)
    value = backward(lambda r: model.vectors(texts.take(r)), texts.lengths, lambda v: blind * 1, limits=PLENTY, seed=0)
    assert value == 0 and all(p.grad is None for p in model.module.parameters())


def test_dropout_by_counter_has_torchs_distribution():
    values = np.ones((401, 1003), np.float32)
    for frac in (0.1, 0.5, 0.9):
        found = thinned(values, frac=frac, seed=7)
        dropped = (found == 0).mean()
        assert abs(dropped - frac) < 5 * (frac * (1 - frac) / values.size) ** 0.5 + 1e-5
        assert np.allclose(found[found > 0], 1 / (1 - frac), rtol=1e-4)
        flat = found.reshape(-1) == 0  # neighbours, lanes and draws know nothing of each other
        for lag in (1, 2, 3, 4, 5, 8, 1003):
            both = (flat[:-lag] & flat[lag:]).mean()
            assert abs(both - frac**2) < 6 * frac / values.size**0.5
    assert np.array_equal(thinned(values, frac=0.1, seed=7), thinned(values, frac=0.1, seed=7))
    assert not np.array_equal(thinned(values, frac=0.1, seed=7), thinned(values, frac=0.1, seed=8))
    for num_threads in (2, 3):
        parts = thinned(values, frac=0.1, seed=7, num_threads=num_threads)
        assert np.array_equal(parts, thinned(values, frac=0.1, seed=7))
    assert np.array_equal(thinned(values[:3], frac=0.1, seed=7), thinned(values, frac=0.1, seed=7)[:3])


def test_dropout_by_counter_in_torch():
    values = torch.ones(50, 40, requires_grad=True)
    torch.manual_seed(0)
    with counted_dropout():
        one, two = torch.nn.functional.dropout(values, 0.5), torch.nn.Dropout(0.5)(values)
        asleep = torch.nn.Dropout(0.5).eval()(values)
    assert torch.equal(asleep, values) and not torch.equal(one, two)
    one.sum().backward()
    assert torch.equal(values.grad, one.detach())  # 0 where it was dropped, 2 where not
    torch.manual_seed(0)
    with counted_dropout():
        assert torch.equal(torch.nn.functional.dropout(values, 0.5), one)


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_attention_by_counter_is_torchs_where_nothing_is_dropped(kind):
    """As the dropout grows small, both are one: values and gradients."""
    rng = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 3, 5, 4, generator=rng, requires_grad=True) for _ in range(3))
    allowed = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    allowed[1, :, :, 3:] = False
    mask = {"none": None, "bool": allowed, "float": torch.zeros(2, 1, 5, 5).masked_fill(~allowed, -1e9)}[kind]
    attend = torch.nn.functional.scaled_dot_product_attention
    plain = attend(query, key, value, attn_mask=mask)
    with counted_dropout():
        ours = attend(query, key, value, attn_mask=mask, dropout_p=1e-9)
    torch.testing.assert_close(ours, plain)
    weights = torch.arange(plain.numel()).reshape(plain.shape).float()
    slopes = [torch.autograd.grad((found * weights).sum(), (query, key, value)) for found in (plain, ours)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


def test_attention_is_dropped_at_its_rate():
    query = torch.zeros(1, 1, 300, 2)
    value = torch.eye(300)[None, None]
    with counted_dropout():
        shares = torch.nn.functional.scaled_dot_product_attention(query, query, value, dropout_p=0.25)
    assert abs(float((shares == 0).float().mean()) - 0.25) < 0.01
    assert abs(float(shares.sum()) - 300) < 3
