"""Corpus report: hand-worked densities, languages and dates; nothing depends on order or batches; the overlap is exact."""

import math
from collections import Counter

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Queries
from tamis.errors import DataError
from tamis.evaluation.corpus_report import CorpusReport, repeated_lines, snippet
from tamis.evaluation.coverage import QueryCoverage
from tamis.evaluation.density import feature_densities, heaps_exponent, mattr, vocabulary_growth, words_of
from tamis.evaluation.document_dates import NO_DATE, document_days, iso_day, parse_day
from tamis.evaluation.keyed_sample import KeyCounts, KeyedSample, pieces
from tamis.evaluation.overlap import TargetOverlap, kl_divergence, ngram_hashes
from tamis.evaluation.sources import SourceCounter
from tamis.ops.bytes import token_hashes
from tamis.ops.hashing import array_keys, draws

PROSE = "The history of the town is told in a book that was written by one of the teachers of the school . "
GERMAN = "Die Geschichte der Stadt ist in einem Buch erzählt, das von einem der Lehrer der Schule geschrieben wurde. "


class Cut:
    """A corpus read in another order and in other batches."""

    def __init__(self, corpus, size, order=None):
        self.table = corpus.table().take(pa.array(np.arange(len(corpus)) if order is None else order))
        self.size = size

    def __len__(self):
        return len(self.table)

    def batches(self, columns):
        yield from self.table.select(columns).combine_chunks().to_batches(max_chunksize=self.size)


def pool(num=120):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(300)] + ["the", "of", "and", "to", "a", "in", "is", "it", "that", "was"] * 30
    rows = []
    for i in range(num):
        text = " ".join(rng.choice(words, int(rng.integers(3, 120))))
        if i % 10 == 0:
            text = "Copied text that stands here more than once.\nA second line of some length here."
        meta = {"date": f"20{i % 20:02d}-0{i % 9 + 1}-11"} if i % 3 else {"date": "yesterday"} if i % 2 else {}
        rows.append({"doc_id": f"d{i}", "title": f"t {i}" if i % 10 and i % 4 == 0 else "", "text": text,
                     "source": f"s{i % 7}", "metadata": orjson.dumps(meta).decode()})  # fmt: skip
    return Corpus.from_records(rows)


def test_densities_of_the_worked_example():
    words = words_of(["the cat sat the cat ran"], 100)
    rows = {row.name: row for row in feature_densities(words, None)}
    assert (rows["lower"].num_unique, rows["lower"].num_features) == (4, 6)
    assert rows["lower"].density == pytest.approx(4 / 6)
    assert rows["bigrams"].density == pytest.approx(4 / 5)
    assert set(rows) == {"raw", "lower", "bigrams", "characters-4"}
    known = {row.name: row for row in feature_densities(["The", "cats", "cat"], "english")}
    assert (known["raw"].num_unique, known["stemmed"].num_unique, known["no stop words"].num_features) == (3, 2, 2)
    assert words_of(["ab東京 x_1", "never read"], 5) == ["ab", "東", "京", "x_1", "never"]


def test_moving_average_of_the_worked_example():
    hashes, _ = token_hashes(["a b a c a b"])
    assert mattr(hashes, 4) == 0.75
    assert mattr(hashes, 100) == 0.5
    assert mattr(hashes[:0], 4) == 0.0


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 12))
def test_moving_average_equals_its_definition(values, window):
    tokens = np.array(values, np.uint64)
    width = min(window, len(values))
    shares = [len(set(values[i : i + width])) / width for i in range(len(values) - width + 1)]
    assert mattr(tokens, window) == pytest.approx(sum(shares) / len(shares))


def test_growth_of_the_vocabulary():
    tokens = np.array([1, 2, 1, 3, 4, 4, 4, 5], np.uint64)
    assert vocabulary_growth(tokens, [2, 4, 8, 16]) == ((2, 2), (4, 3), (8, 5))
    assert heaps_exponent([(100, 10), (10_000, 100)]) == pytest.approx(0.5)
    assert heaps_exponent([(100, 10)]) is None


def test_shuffled_words_have_the_same_density_and_more_different_pairs():
    rng = np.random.default_rng(1)
    words = (PROSE * 30).split()
    shuffled = [str(w) for w in rng.permutation(words)]
    plain, mixed = ({r.name: r.density for r in feature_densities(w, "english")} for w in (words, shuffled))
    assert plain["lower"] == mixed["lower"]
    assert mixed["bigrams"] > 2 * plain["bigrams"]


def test_languages_and_scripts_of_the_documents_are_counted():
    texts = [PROSE * 4, PROSE * 5, GERMAN * 4, "foo(bar) " * 30, PROSE, "…"]
    facts = CorpusReport().report(
        Corpus.from_records([{"doc_id": f"d{i}", "text": t} for i, t in enumerate(texts)]), seed=0
    )
    assert {row.name: row.count for row in facts.languages} == {"und": 3, "en": 2, "de": 1}
    assert [row.name for row in facts.languages] == ["und", "en", "de"]
    assert {row.name: row.count for row in facts.scripts} == {"Latn": 5, "Zyyy": 1}
    assert facts.sample.language == "english"
    assert {row.name for row in facts.sample.densities} >= {"stemmed", "no stop words"}
    assert facts.sources[0].unknown_frac == 0.5


def test_dates_are_read_from_the_declared_field_only():
    meta = pa.array(
        ['{"date":"1970-01-02"}', '{"date":"2020-05"}', '{"date":"2020"}', '{"date":"2020-02-31"}', '{"date":7}',
         '{"post":{"date":"2001-01-01"}}', '{"date":null}', "{}", '{"date":"2020-01-01T10:00:00Z"}', '{"date":""}'],
        pa.large_string(),
    )  # fmt: skip
    days, num_unreadable = document_days(meta, "date")
    assert [iso_day(d) if d != NO_DATE else None for d in days.tolist()] == [
        "1970-01-02", "2020-05-01", "2020-01-01", None, None, None, None, None, "2020-01-01", None,
    ]  # fmt: skip
    assert num_unreadable == 2
    assert days[0] == 1
    assert parse_day("2020-05-01x") is None
    with pytest.raises(DataError, match="no JSON object"):
        document_days(pa.array(['"date"'], pa.large_string()), "date")


@settings(max_examples=40)
@given(st.lists(st.text("ab ", min_size=1, max_size=6), max_size=60), st.integers(1, 40), st.integers(1, 7))
def test_a_keyed_sample_is_a_prefix_of_one_order(texts, budget, size):
    def sample(listed, step, room):
        found = KeyedSample(room, seed=3)
        for start in range(0, len(listed), step):
            part = pa.array(listed[start : start + step], pa.large_string())
            found.add(part, array_keys(part), np.array([len(t) for t in listed[start : start + step]]))
        return found.texts().to_pylist()

    order = sample(texts, len(texts) or 1, 10**9)
    expected, total = [], 0
    for text in order:
        expected.append(text)
        total += len(text)
        if total >= budget:
            break
    assert sorted(order) == sorted(set(texts))
    assert sample(texts[::-1], size, budget) == expected


def test_keys_are_counted_exactly_or_a_keyed_share_of_them(monkeypatch):
    monkeypatch.setattr("tamis.evaluation.keyed_sample._MIN_PENDING", 50)
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**63, 500, dtype=np.uint64)
    stream = rng.permutation(np.concatenate([np.repeat(keys, 3), keys[:100]]))
    exact, bounded, again = KeyCounts(10_000, seed=0), KeyCounts(130, seed=0), KeyCounts(130, seed=0)
    for start in range(0, len(stream), 37):
        exact.add(stream[start : start + 37])
        bounded.add(stream[start : start + 37])
    again.add(stream[::-1])
    assert exact.frac == 1.0
    found, counts = exact.counts()
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == Counter(stream.tolist())
    assert bounded.frac == again.frac == 0.25
    few, few_counts = bounded.counts()
    assert np.array_equal(few, again.counts()[0])
    assert set(few.tolist()) == {
        k for k in set(keys.tolist()) if int(draws(np.array([k], np.uint64), 0, "sample")[0]) >> 62 == 0
    }
    assert few_counts.sum() / bounded.frac == pytest.approx(len(stream), rel=0.25)


def test_batches_are_cut_by_bytes_and_lose_nothing():
    batch = pa.record_batch({"text": pa.array(["x" * n for n in (5, 0, 90, 3, 4)], pa.large_string())})
    parts = list(pieces(batch, num_bytes=10))
    assert [p.column("text").to_pylist() for p in parts] == [["x" * 5, ""], ["x" * 90], ["xxx", "xxxx"]]


@pytest.mark.parametrize("size", [1, 17, 1000])
def test_the_report_is_free_of_order_and_batches(size):
    corpus = pool()
    queries = Queries.from_texts({"a": "w1 w2", "b": "the of", "c": "zzz", "d": "copied text"})
    report = CorpusReport(growth_tokens=2000, sample_tokens=1000, window=50, num_sources=4)
    order = np.random.default_rng(2).permutation(len(corpus))
    facts = report.report(corpus, queries, seed=5)
    assert report.report(Cut(corpus, size, order), queries, seed=5) == facts
    assert facts != report.report(corpus, queries, seed=6)
    assert type(facts).from_json(orjson.dumps(facts.model_dump(mode="json")), "x") == facts


def test_the_figures_of_a_small_pool():
    corpus = pool()
    facts = CorpusReport(num_sources=4).report(corpus, seed=0)
    assert facts.statistics.num_docs == 120
    assert (facts.duplicates.num_copies, facts.duplicates.num_groups, facts.duplicates.num_distinct) == (11, 1, 109)
    assert (facts.duplicates.largest[0].num_docs, facts.duplicates.largest[0].doc_id) == (12, "d0")
    assert facts.duplicates.counted_frac == 1
    assert sum(row.count for row in facts.languages) == 120
    assert [row.name for row in facts.sources] == ["s0", "s1", "s2", "s3", "(others)"]
    assert sum(row.num_docs for row in facts.sources) == 120
    assert sum(row.num_bytes for row in facts.sources) == facts.num_bytes
    assert (facts.dates.num_dated, facts.dates.num_missing, facts.dates.num_unreadable) == (80, 40, 20)
    assert sum(row.count for row in facts.dates.years) == 80
    assert facts.dates.first <= facts.dates.p25 <= facts.dates.median <= facts.dates.p75 <= facts.dates.last
    assert facts.queries is None
    assert facts.sample.num_docs == 109
    assert all(0 < row.density <= 1 for row in facts.sample.densities)


def test_a_bounded_count_of_copies_says_so():
    facts = CorpusReport(max_keys=40).report(pool(), seed=0)
    assert facts.duplicates.counted_frac < 1
    assert facts.duplicates.num_distinct == pytest.approx(109, rel=0.4)


def test_one_text_and_identical_texts_give_figures():
    one = Corpus.from_records([{"doc_id": "a", "text": "…"}])
    assert CorpusReport().report(one, seed=0).sample.mattr == 0
    same = Corpus.from_records([{"doc_id": f"d{i}", "text": "same words"} for i in range(9)])
    found = CorpusReport().report(same, seed=0)
    assert (found.duplicates.num_copies, found.sample.num_docs, found.sample.num_tokens) == (8, 1, 2)


def test_source_measures_are_those_of_the_bytes(monkeypatch):
    counter = SourceCounter(seed=0)
    texts = pa.array(["ab1 ", "", "é9"], pa.large_string())
    counter.add(pa.array(["a", "a", None], pa.large_string()), texts, np.array([1, 0, 1]), np.array([True, False, False]))  # fmt: skip
    rows = {row.name: row for row in counter.facts(9)}
    assert (rows["a"].num_docs, rows["a"].num_words, rows["a"].num_bytes) == (2, 1, 4)
    assert (rows["a"].letters_frac, rows["a"].mean_letters, rows["a"].unknown_frac) == (0.5, 2.0, 0.5)
    assert rows[""].letters_frac == pytest.approx(2 / 3)
    monkeypatch.setattr("tamis.evaluation.sources.MAX_SOURCES", 20)
    reports = []
    for names in ([f"n{i}" for i in range(99)], [f"n{i}" for i in range(98, -1, -1)]):
        counter = SourceCounter(seed=0)
        for name in names:
            counter.add(pa.array([name]), pa.array(["x"]), *np.ones((2, 1), np.int64))
        found = counter.facts(5)
        assert sum(row.num_docs for row in found) == 99
        assert found[-1].name == "(others)"
        reports.append(found)
    assert reports[0] == reports[1]


def test_repeated_lines_are_counted_once_a_document():
    line, other = "a line of twenty chars!", "only in two documents here"
    texts = [f"{line}\n{line}\n{other}", f"x\n  {line}", f"{line}\nshort\n{other}", "nothing"]
    found = repeated_lines(texts)
    assert [(row.name, row.count) for row in found.top] == [(line, 3)]
    assert found.repeated_frac == pytest.approx(4 * len(line) / sum(map(len, texts)))
    assert snippet("a\n b" + "c" * 999).startswith("a bccc")
    assert len(snippet("c" * 999)) == 160


def test_coverage_counts_documents_with_all_content_words():
    docs = ["apple pear", "apple plum", "apple pear plum"] + ["fig"] * 120
    corpus = Corpus.from_records([{"doc_id": f"d{i}", "text": t} for i, t in enumerate(docs)])
    queries = Queries.from_texts(
        {"a": "the Apple, pear", "b": "pear plum", "c": "FIG fig", "d": "of the", "e": "nowhere"}
    )
    for size in (1, 1000):
        coverage = QueryCoverage(queries, "english").read(Cut(corpus, size))
        assert coverage.num_covering.tolist()[:3] == [2, 1, 120]
        assert coverage.classes() == {"a": "torso", "b": "tail", "c": "head", "d": "no content words", "e": "tail"}
    facts = coverage.facts()
    assert (facts.num_tail, facts.num_torso, facts.num_head, facts.num_no_words) == (2, 1, 1, 1)
    assert facts.seen_frac == pytest.approx(6 / 10)  # the, of, the, nowhere do not occur
    words = [3, 2, 2, 2, 120, 120]
    assert facts.mean_idf == pytest.approx(sum(math.log(123 / n) for n in words) / 6)
    assert (facts.mean_words, facts.longest) == (2.0, 3)


def test_divergence_of_the_worked_example():
    raw, target = np.array([4, 2, 1, 1]), np.array([1, 0, 3, 0])
    assert kl_divergence(target, raw) == pytest.approx(1.17053, abs=1e-5)
    assert kl_divergence(target, raw, prior=1) == pytest.approx(0.31024, abs=1e-5)
    assert kl_divergence(raw, raw) == 0
    assert kl_divergence(target * 0, raw) == 0


def naive_ngrams(texts, width):
    return Counter(
        tuple(words[i : i + width]) for t in texts for words in [t.split()] for i in range(len(words) - width + 1)
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=9), min_size=1, max_size=8),
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9), min_size=1, max_size=5),
    st.integers(1, 4),
)
def test_overlap_equals_its_definition(pool_words, target_words, size):
    ours, theirs = ([" ".join(words) for words in side] for side in (pool_words, target_words))
    corpus, target = (
        Corpus.from_records([{"doc_id": f"d{i}", "text": t} for i, t in enumerate(side)]) for side in (ours, theirs)
    )
    facts = TargetOverlap(widths=(1, 2, 3), num_buckets=64).report(Cut(corpus, size), target, seed=0)
    assert facts.num_copied == sum(t in set(ours) for t in theirs)
    for row in facts.seen:
        here, there = naive_ngrams(ours, row.width), naive_ngrams(theirs, row.width)
        seen = [gram for gram in there if gram in here]
        assert row.num_ngrams == len(there)
        assert row.seen_frac == pytest.approx(len(seen) / max(1, len(there)))
        assert row.seen_occurrences_frac == pytest.approx(sum(there[g] for g in seen) / max(1, there.total()))


def test_runs_of_words_do_not_cross_documents():
    hashes, starts = token_hashes(["a b", "", "c", "d e f"])
    assert len(ngram_hashes(hashes, starts, 2)) == 3
    assert len(ngram_hashes(hashes, starts, 3)) == 1
    assert len(ngram_hashes(hashes, starts, 9)) == 0
    assert np.array_equal(ngram_hashes(hashes, starts, 3), ngram_hashes(*token_hashes(["d e f"]), 3))


def test_an_empty_target_is_refused():
    corpus = pool(3)
    with pytest.raises(DataError, match="target has no documents"):
        TargetOverlap().report(corpus, corpus.select([]), seed=0)
