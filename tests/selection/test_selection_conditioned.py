"""Conditioned scores: worked places, what conditioning takes away and what it leaves, and its report."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data.corpus import Corpus
from tamis.errors import DataError, RecipeError, UsageError
from tamis.selection import DSIR, Budget, Uniform, choose_for_targets
from tamis.selection.classifier import HashedClassifier
from tamis.selection.compression import CompressionAlignment
from tamis.selection.conditioned import Conditioned, length_bins, quantiles_within, separation, shrunk
from tamis.selection.perplexity import NgramPerplexity

ANY = DSIR(budget=Budget(docs=1))


def table(scores, **columns):
    ids = pa.array([f"d{i}" for i in range(len(scores))], pa.large_string())
    return pa.table({"doc_id": ids, "score": np.asarray(scores, float), **columns})


def area(report, source, name):
    return dict(zip(report["source"].to_pylist(), report[name].to_pylist(), strict=True))[source]


def test_worked_shrinkage():
    assert shrunk(np.array([0.9, 0.9]), np.array([0.6, 0.6]), np.array([50, 5000]), 100) == pytest.approx(
        [0.7, 0.89412], abs=5e-6
    )


def test_worked_places():
    assert quantiles_within(np.array([3.0, 1.0, 1.0, 2.0]), np.zeros(4, int)) == pytest.approx(
        [0.875, 0.25, 0.25, 0.625]
    )
    two = quantiles_within(np.array([9.0, 1.0, 8.0, 2.0, 2.0]), np.array([1, 0, 1, 0, 0]))
    assert two == pytest.approx([0.75, 1 / 6, 0.25, 2 / 3, 2 / 3])
    method = Conditioned(of=ANY, columns=("source",), min_docs=2, shrink_docs=2)
    found = method.condition(table([4, 3, 2, 1, 9], source=["a", "a", "b", "b", "c"]))
    # whole: .7 .5 .3 .1 .9; a and b: (2 * own + 2 * whole) / 4; c is too small and takes the whole's
    assert found["score"].to_pylist() == pytest.approx([0.725, 0.375, 0.525, 0.175, 0.9])
    assert found["doc_id"].to_pylist() == ["d0", "d1", "d2", "d3", "d4"]
    assert length_bins(np.array([0, 1, 2, 3, 4, 1023, 1024])).tolist() == [-1, 0, 1, 1, 2, 9, 10]


def test_two_sources_a_standard_deviation_apart():
    rng = np.random.default_rng(0)
    scores = np.r_[rng.normal(1, 1, 20_000), rng.normal(0, 1, 20_000)]
    sources = pa.array(["a"] * 20_000 + ["b"] * 20_000)
    for strength, shrink_docs, wanted in ((1.0, 0, 0.5), (0.0, 0, 0.7556), (1.0, 100, 0.5)):
        method = Conditioned(of=ANY, columns=("source",), strength=strength, shrink_docs=shrink_docs)
        after = method.condition(table(scores, source=sources))["score"].to_numpy()
        report = separation(scores, after, scores > 0, sources)
        assert area(report, "a", "auc_before") == pytest.approx(0.7556, abs=0.006)
        assert area(report, "a", "auc_after") == pytest.approx(wanted, abs=0.006)
        assert area(report, "a", "auc_after") == pytest.approx(1 - area(report, "b", "auc_after"))
    assert area(report, "a", "kept_frac") == pytest.approx(0.8413, abs=0.01)


@given(
    st.lists(
        st.tuples(st.integers(-5, 5), st.sampled_from("ab"), st.sampled_from(["en", "de", None])),
        min_size=1,
        max_size=40,
    ),
    st.floats(0.1, 1),
)
def test_order_within_a_stratum_stays_and_the_scale_of_scores_is_nothing(rows, strength):
    scores, sources, languages = zip(*rows, strict=True)
    method = Conditioned(of=ANY, columns=("source", "language"), strength=strength, min_docs=2, shrink_docs=3)
    columns = {"source": pa.array(sources), "language": pa.array(languages, pa.large_string())}
    places = method.condition(table(scores, **columns))["score"].to_numpy()
    bent = method.condition(table(np.exp(np.array(scores, float)) - 7, **columns))["score"].to_numpy()
    assert bent.tolist() == places.tolist()
    assert ((places > 0) & (places < 1)).all()
    for i in range(len(rows)):
        for j in range(len(rows)):
            if rows[i][1:] == rows[j][1:] and scores[i] > scores[j]:
                assert places[i] > places[j]
    order = np.random.default_rng(0).permutation(len(rows))
    turned = method.condition(table(scores, **columns).take(pa.array(order)))["score"].to_numpy()
    assert turned.tolist() == places[order].tolist()


def test_refused_documents_stay_refused_and_count_nowhere():
    method = Conditioned(of=ANY, columns=("source",), min_docs=1, shrink_docs=0)
    with_refused = method.condition(table([1, -np.inf, 2], source=["a", "a", "a"]))["score"].to_pylist()
    assert with_refused == [0.25, -np.inf, 0.75]
    assert method.condition(table([-np.inf], source=["a"]))["score"].to_pylist() == [-np.inf]


def test_tables_that_cannot_be_conditioned():
    method = Conditioned(of=ANY, columns=("source",))
    with pytest.raises(DataError, match=r"no column 'source' \(has: doc_id, score\)"):
        method.condition(table([1]))
    with pytest.raises(DataError, match="score 1 is NaN"):
        method.condition(table([1, np.nan], source=["a", "a"]))


def test_areas_against_their_definition():
    rng = np.random.default_rng(1)
    scores, codes = rng.integers(0, 5, 60).astype(float), rng.integers(0, 3, 60)
    sources = pa.array([f"s{c}" for c in codes])
    report = separation(scores, -scores, rng.random(60) < 0.5, sources)
    for code in range(3):
        mine, others = scores[codes == code], scores[codes != code]
        wins = (np.sign(mine[:, None] - others[None, :]) + 1).mean() / 2
        assert area(report, f"s{code}", "auc_before") == pytest.approx(wins)
        assert area(report, f"s{code}", "auc_after") == pytest.approx(1 - wins)
    alone = separation(scores, scores, scores > 0, pa.array(["x"] * 60))
    assert alone["auc_before"].to_pylist() == [0.5]


WORDS = [f"w{i}" for i in range(20)]


def sourced(num=120):
    """Two sources of other words; in both the first half has more of the good word."""
    rng = np.random.default_rng(2)
    rows = []
    for i in range(num):
        source = "plain" if i % 2 else "rich"
        words = [*WORDS[:10], "good"] if source == "rich" else WORDS[10:]
        good = ["good"] * (4 if i < num // 2 else 0)
        text = [*rng.choice(words, 36), *good]
        rows.append({"doc_id": f"d{i:03d}", "text": " ".join(rng.permutation(text)), "source": source})
    return Corpus.from_records(rows)


def target():
    rng = np.random.default_rng(3)
    return Corpus.from_records(
        [{"doc_id": f"t{i}", "text": " ".join([*rng.choice(WORDS[:10], 20), *["good"] * 8])} for i in range(8)]
    )


@pytest.mark.parametrize("of", [HashedClassifier, DSIR])
def test_selection_keeps_the_best_of_each_source(of):
    corpus, inner = sourced(), of(budget=Budget(docs=40))
    plain = inner.choose(corpus, target(), seed=0)
    method = Conditioned(of=inner, columns=("source",), min_docs=10, shrink_docs=0)
    chosen = method.choose(corpus, target(), seed=0)
    is_rich = np.arange(120) % 2 == 0
    assert plain.kept[is_rich].sum() >= 38
    assert chosen.kept[is_rich].sum() == pytest.approx(20, abs=2)
    assert chosen.kept[:60].mean() > 3 * chosen.kept[60:].mean()  # and still the better ones
    figures = chosen.figures
    assert figures["auc_before:rich"] > 0.9
    assert figures["auc_after:rich"] == pytest.approx(0.5, abs=0.01)
    assert figures["max_auc_gap_after"] < 0.01 < 0.4 < figures["max_auc_gap_before"]
    assert figures["kept_frac:rich"] == chosen.kept[is_rich].mean()
    control = Conditioned(of=inner, columns=("source",), strength=0.0).choose(corpus, target(), seed=0)
    assert control.kept.tolist() == plain.kept.tolist()
    assert control.figures["max_auc_gap_after"] == control.figures["max_auc_gap_before"]


def test_languages_and_lengths_are_told_from_the_text():
    corpus = sourced(60)
    one = Conditioned(of=ANY.model_copy(update={"budget": Budget(docs=9)}), budget=Budget(docs=9), min_docs=3)
    chosen = one.choose(corpus, target(), seed=0)
    scores = HashedClassifier(budget=Budget(docs=9)).choose(corpus, target(), seed=0).scores
    assert chosen.kept.sum() == 9
    assert len(scores) == len(chosen.scores)
    by_hand = one.condition(
        table(
            DSIR(budget=Budget(docs=9)).choose(corpus, target(), seed=0).scores,
            source=corpus.table(["source"])["source"],
            language=["und"] * 60,
            length_bin=length_bins(np.array([len(t.split()) for t in corpus.table(["text"])["text"].to_pylist()])),
        )
    )
    assert chosen.scores.tolist() == by_hand["score"].to_pylist()


def test_what_the_method_inside_says_holds_outside():
    inner = CompressionAlignment(budget=Budget(docs=5), min_bytes=50)
    method = Conditioned(of=inner)
    assert (method.excludes_target, method.needs_target, method.refusal) == (True, True, "too_few_bytes")
    corpus = sourced(60)
    wanted = corpus.select([0, 1])
    reasons = method.choose(corpus, wanted, seed=0).reasons.to_pylist()
    assert reasons[:2] == ["in_target", "in_target"]
    shared = choose_for_targets(method, corpus, {"one": corpus.select([0]), "two": corpus.select([3])}, seed=0)
    assert sum(c.kept.sum() for c in shared.values()) == 5


def test_the_budget_is_given_once():
    from_inside = Conditioned(of=NgramPerplexity(budget=Budget(docs=3), keep="head", band=(0.1, 0.6)))
    assert from_inside.budget == Budget(docs=3)
    assert Conditioned.from_json(from_inside.model_dump_json(), "x") == from_inside
    outside = Conditioned.from_json('{"budget": {"words": 9}, "of": {"method": "dsir"}, "columns": ["source"]}', "x")
    assert outside.of == DSIR(budget=Budget(words=9))
    assert outside.columns == ("source",)
    with pytest.raises(RecipeError, match="Give it once"):
        Conditioned(of=ANY, budget=Budget(docs=2))
    with pytest.raises(RecipeError, match="of"):
        Conditioned(of=Uniform(budget=Budget(docs=2)))


def test_a_column_that_pools_do_not_have_is_refused():
    method = Conditioned(of=ANY, columns=("source", "topic"))
    with pytest.raises(UsageError, match="'topic' is not known"):
        method.choose(sourced(10), target(), seed=0)
