"""The labelled fixture: every leak there is a leak, and the method finds what the usual rule does not."""

import numpy as np
import pytest

from tamis.errors import UsageError
from tamis.ingestion.contamination_fixture import SOURCES, Prose, build, generate, judge, self_test
from tamis.ingestion.decontaminate import Decontaminate

HARD = {"enacting_clause", "quotation", "exercise_template", "formula", "licence_notice"}


@pytest.fixture(scope="module")
def fixture():
    return generate(3)


def shares(result):
    return {r["family"]: r["num_flagged"] / r["num_docs"] for r in result.families.to_pylist()}


def test_the_bars_are_reached(fixture):
    result = self_test(Decontaminate(), seed=3, fixture=fixture)
    assert result.passed
    assert result.precision >= 0.95
    assert result.recall >= 0.9
    assert abs(result.control_precision - 0.66) < 0.05  # the share of leaks among the counted documents
    found = shares(result)
    assert found["long_inline"] == found["short_inline"] == found["long_wrapped"] == 1.0
    assert found["long_fragment"] == found["filler"] == 0.0
    assert found["long_edited"] < 0.2  # said, not hidden: one word in eight is enough to escape


def test_without_the_common_grams_the_templates_are_flagged(fixture):
    method = Decontaminate(source_common_frac=1.0, global_common_docs=10**9)
    result = self_test(method, seed=3, fixture=fixture)
    assert not result.passed
    assert all(shares(result)[family] == 1.0 for family in HARD)


def test_the_truth_of_the_fixture(fixture):
    def plain(text):
        return " " + " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) + " "

    items = [plain(t) for t in fixture.protected.items["text"].to_pylist()]
    texts = [plain(t) for t in fixture.corpus.table(["text"])["text"].to_pylist()]
    labels = fixture.labels.to_pylist()
    assert fixture.corpus.doc_ids.to_pylist() == [row["doc_id"] for row in labels]
    for row, text in zip(labels, texts, strict=True):
        if row["is_counted"]:
            assert any(item in text for item in items) == row["is_contaminated"], row
    long = [i for i in items[:200] if len(i.split()) < 13]
    short = [i for i in items[200:269] if not 8 <= len(i.split()) <= 14]  # letters and figures are split further
    assert not long
    assert not short
    assert set(fixture.corpus.table(["source"])["source"].to_pylist()) == {*SOURCES, "drafts"}
    counted = [row["family"] for row in labels if row["family"] in HARD]
    assert len(counted) == 200


def test_same_seed_same_fixture(fixture):
    again = generate(3)
    assert again.corpus.table().equals(fixture.corpus.table())
    assert again.protected.items.equals(fixture.protected.items)
    assert not generate(4).protected.items.equals(fixture.protected.items)


def test_judging_is_arithmetic(fixture):
    truth = fixture.labels["is_contaminated"].to_numpy()
    perfect = judge(truth.copy(), fixture, seed=0)
    assert (perfect.precision, perfect.recall) == (1.0, 1.0)
    nothing = judge(np.zeros(len(truth), bool), fixture, seed=0)
    assert (nothing.precision, nothing.recall, nothing.passed) == (0.0, 0.0, False)
    everything = judge(np.ones(len(truth), bool), fixture, seed=0)
    assert (everything.recall, everything.control_recall) == (1.0, 1.0)
    assert everything.precision == everything.control_precision < 0.7


def test_prose_is_varied():
    prose = Prose(0)
    sentences = [prose.paragraph(5, 6) for _ in range(3000)]
    assert len(set(sentences)) == 3000
    assert not [s for s in sentences if " a ancient" in s or "{" in s]


def test_too_little_to_build_from():
    with pytest.raises(UsageError, match="8 fillers"):
        build(["x"], ["y"], ["z"], seed=0)
