from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.errors import DataError
from tamis.selection.perplexity_correlations import PerplexityCorrelations
from tamis.selection.preselect import PreSelect

ABILITY = {"m1": 0.4, "m2": 0.5, "m3": 0.6, "m4": 0.7}
LOSSES = {"A": [1.2, 1.1, 1.0, 0.9], "B": [0.9, 1.1, 1.0, 1.2], "C": [1.2, 1.0, 1.0, 0.9]}


def table(losses=LOSSES, models=tuple(ABILITY)):
    rows = [
        {"doc_id": doc, "model": model, "bits_per_byte": loss}
        for doc, values in losses.items()
        for model, loss in zip(models, values, strict=True)
    ]
    return pa.Table.from_pylist(rows)


def strengths(found):
    return dict(zip(found.table["doc_id"].to_pylist(), found.table["strength"].to_pylist(), strict=True))


def test_hand_worked():
    found = PreSelect().label(table(), ABILITY, seed=0)
    assert strengths(found) == pytest.approx({"A": 1, "B": 1 / 6, "C": 5.5 / 6})
    assert found.table["label"].to_pylist() == ["positive", "negative", ""]
    assert found.figures["top_frac_by_chance"] == pytest.approx(1 / 24)
    assert len(found.pairs) == 6


matrices = st.integers(2, 6).flatmap(
    lambda m: st.lists(st.lists(st.integers(0, 5), min_size=m, max_size=m), min_size=2, max_size=8)
)


@given(matrices, st.randoms(use_true_random=False))
def test_strength_is_the_share_of_agreeing_pairs(values, random):
    models = [f"m{at}" for at in range(len(values[0]))]
    ability = {model: random.randrange(4) / 4 for model in models}
    losses = {f"d{at}": row for at, row in enumerate(values)}
    wanted = {}
    pairs = [(a, b) for a, b in combinations(models, 2) if ability[a] != ability[b]]
    for doc, row in losses.items():
        of = dict(zip(models, row, strict=True))
        points = [0.5 if of[a] == of[b] else float((of[a] > of[b]) == (ability[a] < ability[b])) for a, b in pairs]
        wanted[doc] = sum(points) / len(pairs) if pairs else None
    if not pairs or len(set(wanted.values())) == 1:
        with pytest.raises(DataError):
            PreSelect().label(table(losses, models), ability, seed=0)
        return
    found = PreSelect().label(table(losses, models), ability, seed=0)
    assert strengths(found) == pytest.approx(wanted)
    shaped = {model: value**3 + 5 for model, value in ability.items()}  # monotone in abilities, scaled a document
    scaled = {doc: [v * (at + 2) for v in row] for at, (doc, row) in enumerate(losses.items())}
    again = PreSelect().label(table(scaled, models), shaped, seed=0)
    assert again.table.equals(found.table)


def test_strength_is_half_of_one_plus_sign_sign():
    bits = np.array(list(LOSSES.values())).T
    error = 1 - np.array(list(ABILITY.values()))
    correlation = PerplexityCorrelations(estimator="sign_sign").estimate(bits, error)
    found = strengths(PreSelect().label(table(), ABILITY, seed=0))
    assert (1 + correlation) / 2 == pytest.approx(list(found.values()))


def test_labels_are_balanced_and_do_not_hang_on_order():
    rng = np.random.Generator(np.random.Philox(0))
    losses = {f"d{at}": rng.random(4).tolist() for at in range(600)}
    found = PreSelect(max_docs=10).label(table(losses), ABILITY, seed=1)
    labels = found.table["label"].to_pylist()
    assert labels.count("positive") == labels.count("negative") == 10
    points = found.table["strength"].to_numpy()
    is_positive, is_negative = np.array(labels) == "positive", np.array(labels) == "negative"
    assert points[is_positive].min() == 1.0
    assert points[is_negative].max() <= np.sort(points)[10]
    assert found.figures["top_frac"] == pytest.approx(1 / 24, abs=0.02)  # random losses: what chance gives
    turned = PreSelect(max_docs=10).label(table(dict(reversed(losses.items()))), ABILITY, seed=1)
    assert dict(zip(*(turned.table[c].to_pylist() for c in ("doc_id", "label")), strict=True)) == dict(
        zip(*(found.table[c].to_pylist() for c in ("doc_id", "label")), strict=True)
    )
    other = PreSelect(max_docs=10).label(table(losses), ABILITY, seed=2)
    assert other.table["label"].to_pylist() != labels
    few = PreSelect().label(table({"A": LOSSES["A"], "A2": LOSSES["A"], "B": LOSSES["B"]}), ABILITY, seed=0)
    assert few.table["label"].to_pylist() == ["positive", "positive", "negative"]  # no more than there are


def test_nothing_is_lost_silently():
    rows = table(LOSSES | {"D": [1.0, np.nan, 1.0, 1.0], "E": [2.0, 1.0, 1.0, 1.0]})
    rows = rows.slice(0, len(rows) - 1)
    found = PreSelect().label(rows, ABILITY, seed=0)
    assert found.skipped.to_pylist() == [
        {"doc_id": "D", "reason": "loss_not_finite"},
        {"doc_id": "E", "reason": "missing_model"},
    ]
    assert found.figures["num_docs"] + found.figures["num_skipped"] == 5


def test_abilities_within_noise_do_not_count():
    found = PreSelect(min_ability_gap=0.15).label(table(), ABILITY, seed=0)
    assert found.pairs == (("m1", "m3"), ("m1", "m4"), ("m2", "m4"))
    noisy = PreSelect().label(table(), ABILITY, dict.fromkeys(ABILITY, 0.08), seed=0)
    assert noisy.pairs == found.pairs  # sqrt(.08² + .08²) = .113, and neighbours are .1 apart
    with pytest.raises(DataError, match="no two of 4 models differ"):
        PreSelect(min_ability_gap=0.5).label(table(), ABILITY, seed=0)


def test_bad_tables():
    with pytest.raises(DataError, match="no ability for 1 models, first 'm4'"):
        PreSelect().label(table(), {"m1": 0.1, "m2": 0.2, "m3": 0.3}, seed=0)
    with pytest.raises(DataError, match="no column 'model'"):
        PreSelect().label(table().drop_columns(["model"]), ABILITY, seed=0)
    with pytest.raises(DataError, match="'A' has 2 rows of one model"):
        PreSelect().label(pa.concat_tables([table(), table().slice(0, 1)]), ABILITY, seed=0)
    with pytest.raises(DataError, match="no rows"):
        PreSelect().label(table().slice(0, 0), ABILITY, seed=0)
    with pytest.raises(DataError, match="all 2 documents have the same strength"):
        PreSelect().label(table({"A": LOSSES["A"], "B": LOSSES["A"]}), ABILITY, seed=0)
    with pytest.raises(DataError, match="none of 1 documents has a finite loss"):
        PreSelect().label(table({"A": [np.nan] * 4}), ABILITY, seed=0)
