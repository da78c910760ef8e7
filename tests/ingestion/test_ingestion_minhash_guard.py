"""The guard for each source: records of one template are not wiped out."""

import numpy as np
import pyarrow as pa
import pytest

from tamis.data.corpus import Corpus
from tamis.errors import DataError
from tamis.ingestion.minhash import MinHash

NONE = np.zeros(0, np.uint64)


def pool(num_records=60, num_others=60, num_copies=0):
    """Records of one template (139 words, 21 random slots), other texts, and records that occur again as they are."""
    rng = np.random.default_rng(2)
    frame = [f"t{i}" for i in range(139)]
    records = []
    for _ in range(num_records):
        words = list(frame)
        for slot in range(3, 139, 7):
            words[slot] = f"s{rng.integers(10_000)}"
        records.append(" ".join(words))
    others = [" ".join(f"w{k}" for k in rng.integers(20_000, size=120)) for _ in range(num_others)]
    copies = [others[i % num_others] for i in range(num_copies)]
    texts = records + others + copies
    sources = ["records"] * len(records) + ["prose"] * (len(others) + len(copies))
    table = {"doc_id": [f"d{i:05d}" for i in range(len(texts))], "text": texts, "source": sources}
    return Corpus.from_table(pa.table(table))


def test_a_template_makes_itself_common():
    found = MinHash().find(pool(), seed=0)
    assert len(found.common) > 50
    assert len(found.removed) == 0


def test_a_source_that_would_be_wiped_out_stops_the_run():
    with pytest.raises(DataError) as error:
        MinHash(bands=128).find(
            pool(), seed=0, common=NONE
        )  # without the filter of common shingles the records are alike
    message = str(error.value)
    assert "source 'records': 59 of 60 documents" in message
    assert "more than 0.5 of it" in message
    assert "the largest group has 60, led by d000" in message
    assert message.count("same words 0.8") + message.count("same words 0.9") == 3
    assert message.count("'t") + message.count(" t") > 6  # the excerpts
    assert 'on_wipeout="keep"' in message
    assert error.value.exit_code == 3


def test_keep_protects_the_source_and_says_so():
    corpus = pool(num_copies=5)
    found = MinHash(bands=128, on_wipeout="keep").find(corpus, seed=0, common=NONE)
    assert found.removed.tolist() == list(range(120, 125))  # copies of equal bytes go all the same
    by_name = {row["source"]: row for row in found.sources.to_pylist()}
    assert by_name["records"] == {"source": "records", "docs": 60, "removed": 0, "exact": 0, "protected": 59}
    assert by_name["prose"] == {"source": "prose", "docs": 65, "removed": 5, "exact": 5, "protected": 0}


def test_allowed_by_the_settings():
    found = MinHash(bands=128, max_source_removed_frac=1.0).find(pool(), seed=0, common=NONE)
    assert len(found.removed) == 59
    assert found.group_sizes == {60: 1}


def test_few_removals_and_equal_bytes_do_not_count():
    assert len(MinHash(bands=128).find(pool(num_records=20), seed=0, common=NONE).removed) == 19  # fewer than 20
    assert len(MinHash().find(pool(0, 10, num_copies=50), seed=0).removed) == 50


def test_protection_spreads_until_nothing_more_changes():
    """B goes by A, so C stays, which is near B alone; with B protected, C would go, and is protected as well."""
    rng = np.random.default_rng(5)
    texts, sources = [], []
    for _ in range(25):
        a = [f"w{k}" for k in rng.integers(50_000, size=100)]
        b, c = a[:98], a[:96]
        for i in range(0, 96, 6):
            b[i] = c[i] = f"b{i}"
            c[i + 1] = f"c{i}"
        texts += [" ".join(x) for x in (a, b, c)]
        sources += ["a", "b", "c"]
    table = {"doc_id": [f"d{i:03d}" for i in range(75)], "text": texts, "source": sources}
    corpus = Corpus.from_table(pa.table(table))
    free = MinHash(bands=256, max_source_removed_frac=1.0).find(corpus, seed=0, common=NONE)
    assert free.sources["removed"].to_pylist() == [0, 25, 0]
    found = MinHash(bands=256, on_wipeout="keep").find(corpus, seed=0, common=NONE)
    assert len(found.removed) == 0
    assert found.sources["protected"].to_pylist() == [0, 25, 25]


def test_copies_of_one_text_do_not_make_it_common():
    base = pool(0, 1).table()["text"][0].as_py()
    texts = [base] * 30 + [base.replace(base.split()[50], "other")]
    corpus = Corpus.from_table(pa.table({"doc_id": [f"d{i:02d}" for i in range(31)], "text": texts}))
    found = MinHash().find(corpus, seed=0)
    assert len(found.common) == 0
    assert len(found.removed) == 30
