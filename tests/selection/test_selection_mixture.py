import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tamis.data.corpus import Corpus
from tamis.errors import DataError, RecipeError
from tamis.selection.budget import Budget
from tamis.selection.mixture import Mixture, allot, leave_one_out


def corpus(sizes, seed=0):
    """Documents of 1 to 9 words; ``sizes`` documents a source."""
    rng = np.random.Generator(np.random.Philox(seed))
    records = []
    for source, num in sizes.items():
        for at in range(num):
            words = [f"{source}{at}", *(["w"] * int(rng.integers(0, 9)))]
            records.append({"doc_id": f"{source}-{at:04d}", "text": " ".join(words), "source": source})
    return Corpus.from_records(records)


def words(text):
    return len(text.split())


def test_hand_worked_water_filling():
    got = allot(np.array([0.3, 0.3, 0.4]), 200, np.array([40.0, 400, 3560]))
    assert got == pytest.approx([40, 68.571, 91.429], abs=1e-3)


@given(
    hnp.arrays(float, 4, elements=st.floats(0.01, 1)),
    hnp.arrays(float, 4, elements=st.floats(0, 100)),
    st.floats(0.1, 500),
    st.permutations(range(4)),
)
def test_water_filling_laws(weights, caps, budget, order):
    got = allot(weights, budget, caps)
    assert got.sum() == pytest.approx(min(budget, caps.sum()))
    assert (got <= caps * (1 + 1e-12)).all()
    assert (allot(weights, budget * 1.5, caps) >= got - 1e-9).all()
    turned = np.array(order)
    assert allot(weights[turned], budget, caps[turned]) == pytest.approx(got[turned])
    level = got / weights
    free = got < caps * (1 - 1e-9)
    if free.any():  # the uncapped share the level, and no capped source is above it
        assert level[free] == pytest.approx(np.full(free.sum(), level[free][0]), rel=1e-6)
        assert (level[~free] <= level[free][0] * (1 + 1e-6)).all()


def test_shares_repeats_and_reasons():
    pool = corpus({"a": 40, "b": 400, "c": 400})
    method = Mixture(budget=Budget(words=1500), weights={"a": 0.5, "b": 0.5, "c": 0.0}, max_epochs=3)
    found = method.select(pool, None, None, seed=0)
    rows = {r["source"]: r for r in found.sources.to_pylist()}
    available = {s: sum(words(r["text"]) for r in pool.table().to_pylist() if r["source"] == s) for s in "abc"}
    assert rows["a"]["available"] == available["a"]
    assert rows["a"]["wanted"] == pytest.approx(min(750, 3 * available["a"]))
    assert rows["a"]["is_capped"] == (3 * available["a"] <= 750)
    assert rows["a"]["got"] + rows["b"]["got"] <= 1500
    for name in "ab":
        assert rows[name]["got"] == pytest.approx(rows[name]["wanted"], abs=9)
    seen = found.copies[:, 0] @ np.array([words(t) for t in found.kept.table()["text"].to_pylist()])
    assert seen == rows["a"]["got"] + rows["b"]["got"]
    assert found.copies.max() <= 3
    reasons = dict(zip(*(found.dropped[c].to_pylist() for c in ("doc_id", "reason")), strict=True))
    assert {r for d, r in reasons.items() if d.startswith("c")} == {"source_weight_0"}
    assert {r for d, r in reasons.items() if d.startswith("b")} == {"over_source_quota"}
    assert len(found.kept) + len(found.dropped) == len(pool)
    assert len(found.rows()) == found.copies.sum()


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 7))
def test_batches_and_row_order_change_nothing(seed, batch_docs):
    pool = corpus({"a": 12, "b": 30})
    method = Mixture(budget=Budget(words=100))
    wanted = method.select(pool, None, None, seed=seed)
    copies = dict(zip(wanted.kept.doc_ids.to_pylist(), wanted.copies[:, 0].tolist(), strict=True))

    class Cut:
        schema = pool.schema
        take = staticmethod(pool.take)

        def __len__(self):
            return len(pool)

        def batches(self, columns):
            return pool.batches(columns, batch_docs=batch_docs)

    again = method.select(Cut(), None, None, seed=seed)
    assert again.kept.table().equals(wanted.kept.table())
    assert again.copies.tobytes() == wanted.copies.tobytes()
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(pool))
    turned = method.select(pool.select(order), None, None, seed=seed)
    assert dict(zip(turned.kept.doc_ids.to_pylist(), turned.copies[:, 0].tolist(), strict=True)) == copies


def test_smaller_budgets_are_nested():
    pool = corpus({"a": 60, "b": 200})
    kept = [
        set(Mixture(budget=Budget(words=n)).select(pool, None, None, seed=1).kept.doc_ids.to_pylist())
        for n in (50, 200, 800)
    ]
    assert kept[0] < kept[1] < kept[2]


def test_the_last_phase_goes_on_where_the_first_stopped():
    pool = corpus({"a": 100, "b": 100})
    method = Mixture(
        budget=Budget(docs=100), weights={"a": 0.5, "b": 0.5}, final_weights={"a": 1.0, "b": 0.0}, final_frac=0.2
    )
    found = method.select(pool, None, None, seed=0)
    assert found.copies.sum(axis=0).tolist() == [80, 20]
    assert found.copies.sum(axis=1).max() == 1  # 40 + 20 of the 100 documents of a: none seen twice
    assert {i[0] for i in found.kept.doc_ids.take(pa.array(found.rows(1))).to_pylist()} == {"a"}
    more = method.model_copy(update={"budget": Budget(docs=300)}).select(pool, None, None, seed=0)
    of_a = np.array([i.startswith("a") for i in more.kept.doc_ids.to_pylist()])
    assert sorted(set(more.copies[of_a].sum(axis=1).tolist())) == [1, 2]  # 120 + 60 of 100
    assert len(method.select(pool, None, None, seed=0).dropped) + len(found.kept) == 200


@pytest.mark.parametrize(
    ("weights", "shares"),
    [("proportional", [0.9, 0.1]), ("uniform", [0.5, 0.5]), ("temperature", [0.75, 0.25])],
)
def test_weights_by_name(weights, shares):
    pool = corpus({"a": 900, "b": 100})
    found = Mixture(budget=Budget(docs=100), weights=weights).select(pool, None, None, seed=0)
    assert found.sources["weight"].to_pylist() == pytest.approx(shares)
    assert found.sources["share"].to_pylist() == pytest.approx(shares)


def test_bad_weights_and_budgets():
    pool = corpus({"a": 10, "b": 10})

    def mix(**changes):
        return Mixture(**{"budget": Budget(docs=10), **changes}).select(pool, None, None, seed=0)

    with pytest.raises(DataError, match=r"no weight for source 'b' \(0 unknown, 1 without"):
        mix(weights={"a": 1.0})
    with pytest.raises(DataError, match="the corpus has no source 'z'"):
        mix(weights={"a": 1.0, "b": 1.0, "z": 0.0})
    with pytest.raises(DataError, match="not all 0"):
        mix(weights={"a": 0.0, "b": 0.0})
    with pytest.raises(
        DataError, match="phase 0 wants 100 docs; 4 epochs of the sources with weight hold 80: 20 too few"
    ):
        mix(budget=Budget(docs=100))
    with pytest.raises(DataError, match="hold 40: 20 too few"):
        mix(budget=Budget(docs=60), weights={"a": 1.0, "b": 0.0})
    with pytest.raises(DataError, match="no document fits"):
        mix(budget=Budget(words=1), weights="uniform")
    with pytest.raises(DataError, match="no documents"):
        Mixture(budget=Budget(docs=1)).select(pool.select([]), None, None, seed=0)
    with pytest.raises(RecipeError, match="final_frac"):
        Mixture(budget=Budget(docs=1), final_frac=1.0)
    bare = Corpus.from_records(
        [{"doc_id": "x", "text": "...", "source": "s"}, {"doc_id": "y", "text": "a b", "source": "t"}]
    )
    with pytest.raises(DataError, match="source 's' has weight 1 and no words"):
        Mixture(budget=Budget(words=2), weights={"s": 1.0, "t": 1.0}).select(bare, None, None, seed=0)
    found = Mixture(budget=Budget(words=2)).select(bare, None, None, seed=0)
    assert found.dropped["reason"].to_pylist() == ["no_words"]


def test_a_source_that_gets_nothing_is_said():
    records = [{"doc_id": "big", "text": "w " * 50, "source": "a"}]
    records += [{"doc_id": f"b{at}", "text": f"x{at} y z", "source": "b"} for at in range(30)]
    found = Mixture(budget=Budget(words=40), weights="uniform").select(Corpus.from_records(records), None, None, seed=0)
    assert "1 sources have weight and got nothing, first 'a'" in found.notes[0]


def test_leave_one_out():
    runs = leave_one_out({"a": 0.5, "b": 0.3, "c": 0.2, "d": 0.0})
    assert list(runs) == ["a", "b", "c"]
    assert runs["a"] == pytest.approx({"a": 0, "b": 0.6, "c": 0.4, "d": 0})
    with pytest.raises(DataError, match="1 sources have weight"):
        leave_one_out({"a": 1.0, "b": 0.0})


def test_weights_go_to_their_source_whatever_comes_first():
    pool = corpus({"b": 30, "a": 20})
    found = Mixture(budget=Budget(docs=10), weights={"a": 0.0, "b": 1.0}).select(pool, None, None, seed=0)
    assert {i[0] for i in found.kept.doc_ids.to_pylist()} == {"b"}


def test_epochs_are_counted_over_both_phases():
    pool = corpus({"a": 10, "b": 100})
    method = Mixture(
        budget=Budget(docs=100),
        weights={"a": 0.2, "b": 0.8},
        final_weights={"a": 1.0, "b": 0.0},
        final_frac=0.2,
        max_epochs=2,
    )
    with pytest.raises(
        DataError, match="phase 1 wants 20 docs; 2 epochs of the sources with weight hold 4: 16 too few"
    ):
        method.select(pool, None, None, seed=0)
