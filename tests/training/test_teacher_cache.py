"""The teacher cache: only what is missing is computed, by text; killed, refused or damaged, it goes on and is right."""

import functools
import tempfile
from pathlib import Path

import crash_kit
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Queries, Run, durable
from tamis.errors import DataError, LockedError, ResourceError, UsageError
from tamis.training import teacher_cache
from tamis.training.teacher_cache import TeacherCache

QUERIES = Queries.from_texts({"q1": "alpha", "q2": "beta", "q3": "alpha", "q\u00e9": "na\u00efve"})
CORPUS = Corpus.from_records(
    [{"doc_id": f"d{i}", "text": f"text {i % 6}", "title": "Title" if i == 5 else ""} for i in range(8)]
)  # d6 and d7 have the texts of d0 and d1
RUN = Run.from_dict({"q1": {f"d{i}": i for i in range(8)}, "q2": {"d0": 1, "d6": 2}, "q3": {"d0": 0, "d5": 1}})


def value(query, document):
    """A score that only the two texts determine."""
    return float(sum(query.encode()) % 97 - sum(document.encode()) % 89) / 8


class Teacher:
    """Counts what it is asked for."""

    def __init__(self, fingerprint="teacher-1"):
        self.fingerprint = fingerprint
        self.asked = []

    def __call__(self, queries, documents):
        self.asked += list(zip(queries, documents, strict=True))
        return [value(q, d) for q, d in zip(queries, documents, strict=True)]


def expected(run):
    texts = dict(zip(QUERIES.ids, QUERIES.texts, strict=True))
    table = {r["doc_id"]: "\n".join(filter(None, (r["title"], r["text"]))) for r in CORPUS.table().to_pylist()}
    return Run.from_dict({q: {d: value(texts[q], table[d]) for d in docs} for q, docs in run.to_dict().items()})


@pytest.fixture
def folder():
    """In memory where the machine has that: on a disk, these tests would do little else than fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made) / "cache"


def test_each_pair_of_texts_is_asked_for_once(folder):
    teacher = Teacher()
    cache = TeacherCache(folder)
    assert cache.missing(RUN, CORPUS, QUERIES, teacher) == 7
    assert not folder.exists()  # asking what it would cost writes nothing
    assert cache.score(RUN, CORPUS, QUERIES, teacher) == expected(RUN)
    # alpha with six texts (q1 and q3 say the same, d6 and d7 are copies) and beta with one
    assert len(teacher.asked) == len(set(teacher.asked)) == 7
    in_order = [("alpha", f"text {i}") for i in (1, 0)] + [("alpha", "Title\ntext 5")]
    in_order += [("alpha", f"text {i}") for i in (4, 3, 2)] + [("beta", "text 0")]
    assert teacher.asked == in_order  # as in the run: d7 and d6, which are d1 and d0, are its first
    assert cache.missing(RUN, CORPUS, QUERIES, teacher) == 0
    assert cache.score(RUN, CORPUS, QUERIES, teacher) == expected(RUN)
    assert len(teacher.asked) == 7


def test_other_ids_find_the_same_texts_again_and_only_new_ones_are_computed(folder):
    TeacherCache(folder).score(RUN, CORPUS, QUERIES, Teacher())
    queries = Queries.from_texts({"other": "beta", "new": "gamma"})
    corpus = Corpus.from_records([{"doc_id": "x", "text": "text 0"}, {"doc_id": "y", "text": "unseen"}])
    teacher = Teacher()
    run = Run.from_dict({"other": {"x": 0, "y": 0}, "new": {"x": 0}})
    made = TeacherCache(folder).score(run, corpus, queries, teacher)
    assert sorted(teacher.asked) == [("beta", "unseen"), ("gamma", "text 0")]
    assert made.to_dict()["other"]["x"] == value("beta", "text 0")


def test_another_reranker_has_its_own_scores(folder):
    TeacherCache(folder).score(RUN, CORPUS, QUERIES, Teacher())
    other = Teacher("teacher-2")
    TeacherCache(folder).score(RUN, CORPUS, QUERIES, other)
    assert len(other.asked) == 7
    names = {name for path in folder.rglob("*.parquet") for name in pq.read_table(path)["reranker"].to_pylist()}
    assert names == {"teacher-1", "teacher-2"}


def test_the_parquet_file_stands_for_itself(folder):
    TeacherCache(folder).score(RUN, CORPUS, QUERIES, Teacher())
    (path,) = folder.rglob("*.parquet")
    table = pq.read_table(path)
    assert table.schema.names == ["reranker", "query_hash", "document_hash", "score"]
    assert len(table) == 7
    assert {len(h) for name in ("query_hash", "document_hash") for h in table[name].to_pylist()} == {16}


@settings(max_examples=25)
@given(
    first=st.dictionaries(
        st.sampled_from(QUERIES.ids), st.dictionaries(st.sampled_from([f"d{i}" for i in range(8)]), st.just(0.0))
    ),
    second=st.dictionaries(
        st.sampled_from(QUERIES.ids), st.dictionaries(st.sampled_from([f"d{i}" for i in range(8)]), st.just(0.0))
    ),
    part_pairs=st.integers(1, 4),
)
def test_whatever_is_asked_the_scores_are_the_teachers(first, second, part_pairs):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as made:
        teacher, cache = Teacher(), TeacherCache(Path(made) / "cache", part_pairs=part_pairs)
        for ranked in (first, second, first):
            run = Run.from_dict(ranked)
            assert cache.score(run, CORPUS, QUERIES, teacher) == expected(run)
        assert len(teacher.asked) == len(set(teacher.asked))


def test_progress_is_told(folder):
    told = []
    cache = TeacherCache(folder, part_pairs=3)
    cache.score(RUN.truncate(1), CORPUS, QUERIES, Teacher())
    cache.score(RUN, CORPUS, QUERIES, Teacher(), report=told.append)
    known = told[0]["known"]
    assert known > 0
    assert [t["done"] for t in told] == [*range(0, 7 - known, 3), 7 - known]
    assert all(t["pairs"] == 7 and t["damaged"] == [] for t in told)


def test_many_parts_become_one_and_nothing_is_lost(folder, monkeypatch):
    monkeypatch.setattr(teacher_cache, "_MAX_PARTS", 4)
    teacher = Teacher()
    TeacherCache(folder, part_pairs=1).score(RUN, CORPUS, QUERIES, teacher)
    (path,) = folder.rglob("*.parquet")
    assert len(pq.read_table(path)) == 7
    assert TeacherCache(folder).score(RUN, CORPUS, QUERIES, teacher) == expected(RUN)
    assert len(teacher.asked) == 7


class Stopping(Teacher):
    """Ends the process's patience in the middle."""

    def __call__(self, queries, documents):
        if len(self.asked) >= 4:
            raise KeyboardInterrupt
        return super().__call__(queries, documents)


def test_a_call_that_was_stopped_goes_on_where_it_was(folder):
    first, second = Stopping(), Teacher()
    cache = TeacherCache(folder, part_pairs=2)
    with pytest.raises(KeyboardInterrupt):
        cache.score(RUN, CORPUS, QUERIES, first)
    assert cache.missing(RUN, CORPUS, QUERIES, second) == 3
    assert cache.score(RUN, CORPUS, QUERIES, second) == expected(RUN)
    assert len(second.asked) == 3
    assert not set(first.asked) & set(second.asked)


def fill(folder):
    """A job for the crash kit: several parts, then one of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_cache, "_MAX_PARTS", 3)
        made = TeacherCache(folder / "cache", part_pairs=3).score(RUN, CORPUS, QUERIES, Teacher())
    assert made == expected(RUN)


def whole(folder):
    """Whatever is there is read without an error, and gives no wrong score."""
    teacher = Teacher()
    missing = TeacherCache(folder / "cache").missing(RUN, CORPUS, QUERIES, teacher)
    assert TeacherCache(folder / "cache").score(RUN, CORPUS, QUERIES, teacher) == expected(RUN)
    assert len(teacher.asked) == missing


def test_refused_at_every_operation_it_goes_on(folder):
    (folder / "whole").mkdir(parents=True)
    names = crash_kit.operations(fill, folder / "whole")
    assert len(names) > 20
    for index in range(len(names)):
        place = folder / f"refused-{index}"
        place.mkdir()
        count = iter(range(len(names) + 1))

        def refuse(when, name, path, count=count, index=index):
            if when == "before" and next(count, None) == index:
                raise OSError(28, "No space left on device")

        durable.observer = refuse
        try:
            with pytest.raises(ResourceError):
                fill(place)
        finally:
            durable.observer = None
        whole(place)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_few_operations_it_goes_on(folder, when):
    (folder / "whole").mkdir(parents=True)
    num = len(crash_kit.operations(fill, folder / "whole"))
    for index in range(0, num, 3):
        place = folder / f"killed-{index}"
        place.mkdir()
        assert crash_kit.kill_at(fill, place, index, when) == crash_kit.KILLED
        whole(place)
        fill(place)
        assert crash_kit.leftovers(place) == []
        assert crash_kit.broken(place) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "parquet"])
def test_a_damaged_part_is_computed_again_and_told(folder, damage):
    cache, teacher, told = TeacherCache(folder, part_pairs=4), Teacher(), []
    cache.score(RUN, CORPUS, QUERIES, Teacher())
    path = sorted(folder.rglob("*.parquet"))[0]
    target = path if damage != "manifest" else path.with_name("manifest.json")
    data = target.read_bytes()
    half = len(data) // 2
    target.write_bytes({"flip": data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]}.get(damage, data[:half]))
    assert cache.score(RUN, CORPUS, QUERIES, teacher, report=told.append) == expected(RUN)
    assert len(teacher.asked) == 4
    assert len(told[0]["damaged"]) == 1
    assert cache.missing(RUN, CORPUS, QUERIES, teacher) == 0


def test_scores_filed_under_the_wrong_reranker_are_not_believed(folder):
    TeacherCache(folder).score(RUN, CORPUS, QUERIES, Teacher("a"))
    TeacherCache(folder).score(RUN.truncate(1), CORPUS, QUERIES, Teacher("b"))
    parts = sorted(folder.glob("*/part-*"), key=lambda p: pq.read_table(p / "scores.parquet")["reranker"][0].as_py())
    parts[0].rename(parts[1].with_name("part-00000007"))
    other = Teacher("b")
    TeacherCache(folder).score(RUN, CORPUS, QUERIES, other)
    assert len(other.asked) == 7 - len(pq.read_table(parts[1] / "scores.parquet"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda q, d: [1.0] * (len(q) - 1), "7 pairs were given, the reranker answered with shape"),
        (lambda q, d: [[1.0, 2.0]] * len(q), "answered with shape"),
        (lambda q, d: [1.0] * (len(q) - 1) + [float("nan")], "the reranker gave nan for query"),
        (lambda q, d: [float("inf")] * len(q), "gave inf for query 'alpha' and document"),
        (lambda q, d: ["high"] * len(q), "scores of the reranker"),
        (lambda q, d: None, "scores of the reranker|answered with shape"),
    ],
)
def test_a_reranker_that_gives_no_numbers_is_refused_and_leaves_nothing(folder, answer, message):
    class Broken(Teacher):
        def __call__(self, queries, documents):
            return answer(queries, documents)

    with pytest.raises(DataError, match=message):
        TeacherCache(folder).score(RUN, CORPUS, QUERIES, Broken())
    assert list(folder.rglob("*.parquet")) == []


def test_other_bad_input(folder):
    with pytest.raises(UsageError, match="has no fingerprint"):
        TeacherCache(folder).score(RUN, CORPUS, QUERIES, Teacher(""))
    with pytest.raises(UsageError, match="part_pairs is 0"):
        TeacherCache(folder, part_pairs=0)
    with pytest.raises(DataError, match="no query q9"):
        TeacherCache(folder).score(Run.from_dict({"q9": {"d0": 1}}), CORPUS, QUERIES, Teacher())
    with pytest.raises(DataError, match="no document d9"):
        TeacherCache(folder).score(Run.from_dict({"q1": {"d9": 1}}), CORPUS, QUERIES, Teacher())
    empty = Run.from_dict({"q1": {}, "nobody": {}})
    assert TeacherCache(folder).score(empty, CORPUS, QUERIES, Teacher()) == empty


def test_what_a_killed_call_was_writing_is_cleared_by_the_next(folder):
    TeacherCache(folder).score(RUN, CORPUS, QUERIES, Teacher())
    stray = next(folder.rglob("part-00000000")).with_name(".part-00000001.partial")
    stray.mkdir()
    TeacherCache(folder).score(RUN, CORPUS, QUERIES, Teacher())
    assert not stray.exists()


def test_two_writers_exclude_each_other(folder):
    class Nested(Teacher):
        def __call__(self, queries, documents):
            with pytest.raises(LockedError):
                TeacherCache(folder).score(RUN, CORPUS, QUERIES, Teacher())
            return super().__call__(queries, documents)

    assert TeacherCache(folder).score(RUN, CORPUS, QUERIES, Nested()) == expected(RUN)


def test_numbers_of_any_kind(folder):
    class Narrow(Teacher):
        def __call__(self, queries, documents):
            return np.asarray(super().__call__(queries, documents), dtype=np.float32)

    assert TeacherCache(folder).score(RUN, CORPUS, QUERIES, Narrow()) == expected(RUN)
    partial = functools.partial(Teacher(), ())  # a callable without a fingerprint
    with pytest.raises(UsageError, match="partial has no fingerprint"):
        TeacherCache(folder).score(RUN, CORPUS, QUERIES, partial)
