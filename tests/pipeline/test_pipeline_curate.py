"""The data half by itself: what each step keeps, its ledger, its folder, resuming, refusing, and equal bytes."""

import gzip

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tamis.data import Corpus, Ledger, artefact
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.ingestion.decontaminate import Decontaminate
from tamis.ingestion.lines import FrequentLines
from tamis.ingestion.substring import RepeatedSubstrings
from tamis.ops.sketches import Histogram
from tamis.pipeline import auditing, cleaning, curate, editing
from tamis.pipeline.checkpoints import decode, encode
from tamis.pipeline.curation import verify
from tamis.selection import DSIR, Budget, Uniform
from tamis.selection.choice import Measures

SEA = [
    "anchor",
    "bowline",
    "canvas",
    "dinghy",
    "ebb",
    "fender",
    "galley",
    "halyard",
    "jib",
    "keel",
    "luff",
    "mast",
    "oar",
    "pier",
    "reef",
    "sail",
    "tide",
    "winch",
]
LAND = [
    "acre",
    "barn",
    "clover",
    "drill",
    "elm",
    "fence",
    "grain",
    "hedge",
    "ivy",
    "jug",
    "kale",
    "loam",
    "mill",
    "nut",
    "oat",
    "plough",
    "rye",
    "soil",
    "thatch",
]
FRAME = ["the", "of", "and", "in", "with", "near", "after", "before", "under", "over", "against"]


def words(rng, stock, num=60):
    picked = rng.choice(stock, num), rng.choice(FRAME, num)
    return " ".join(" ".join(pair) for pair in zip(*picked, strict=True)) + "."


@pytest.fixture
def pool(tmp_path):
    """200 records, a quarter of them about the sea; odd ids and a field of the user's own."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(200):
        about = SEA if number % 4 == 0 else LAND
        rows.append({"_id": f"doc/{number} é", "title": "", "text": words(rng, about), "mine": {"n": number}})
    path = tmp_path / "pool.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


@pytest.fixture
def target(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "target.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"text": words(rng, SEA)}) + b"\n" for _ in range(5)))
    return path


def lines_of(folder):
    file = folder / "documents" / "documents.jsonl.zst"
    return zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read().splitlines()


def ids_of(folder):
    return [orjson.loads(line)["_id"] for line in lines_of(folder)]


def chosen(tmp_path, pool, target, name="out", **more):
    return curate.select([str(pool)], tmp_path / name, DSIR(budget=Budget(docs=40)), [str(target)], **more)


def test_select_keeps_what_is_like_the_target_as_it_stood(tmp_path, pool, target):
    found = chosen(tmp_path, pool, target)
    ids = ids_of(tmp_path / "out")
    assert len(ids) == 40 and all(int(i.split("/")[1].split()[0]) % 4 == 0 for i in ids)
    assert set(lines_of(tmp_path / "out")) <= set(pool.read_bytes().splitlines())
    assert found.counts["documents"] == 40 and found.counts["dropped_over_budget"] == 160
    assert found.figures["kl_reduction"] > found.figures["kl_reduction_uniform"]
    assert "40 of 200" in found.line()


def test_every_document_has_its_history(tmp_path, pool, target):
    chosen(tmp_path, pool, target)
    ledger = Ledger(tmp_path / "out" / "ledger")
    kept = set(ids_of(tmp_path / "out"))
    for number in range(200):
        read, told = ledger.why(f"doc/{number} é")
        assert (read["stage"], read["decision"]) == ("read", "kept")
        expected = "selected" if read["doc_id"] in kept else "dropped"
        assert (told["stage"], told["decision"]) == ("select", expected)
        assert told["score"] is not None
        assert told["other_id"] == ("target" if expected == "selected" else "")
    assert sum(ledger.counts().values()) == 400


def test_the_same_bytes_from_any_number_of_workers_and_again(tmp_path, pool, target):
    trees = []
    for name, workers in (("one", 1), ("two", 2), ("eight", 8), ("again", 2)):
        chosen(tmp_path, pool, target, name, workers=workers)
        trees.append(artefact.hash_tree(tmp_path / name))
    assert trees[0] == trees[1] == trees[2] == trees[3]
    assert any(name.endswith(".zst") for name in trees[0])


def test_an_unchanged_step_is_kept_and_a_changed_input_is_not(tmp_path, pool, target):
    assert chosen(tmp_path, pool, target).status == "made"
    assert chosen(tmp_path, pool, target).status == "kept"
    target.write_bytes(target.read_bytes() + orjson.dumps({"text": "one more of the sea and the sail"}) + b"\n")
    assert chosen(tmp_path, pool, target).status == "made"
    assert chosen(tmp_path, pool, target, seed=1).status == "made"


def test_a_damaged_result_is_seen_and_made_again(tmp_path, pool, target):
    chosen(tmp_path, pool, target)
    folder = tmp_path / "out"
    before = artefact.hash_tree(folder)
    assert verify(folder, deep=True) == []
    file = folder / "documents" / "documents.jsonl.zst"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    assert [problem for problem in verify(folder, deep=True) if "documents.jsonl.zst" in problem]
    assert chosen(tmp_path, pool, target).status == "made"
    assert artefact.hash_tree(folder) == before


def test_two_targets_share_the_budget_and_are_named(tmp_path, pool, target):
    land = tmp_path / "land.jsonl"
    rng = np.random.default_rng(2)
    land.write_bytes(b"".join(orjson.dumps({"text": words(rng, LAND)}) + b"\n" for _ in range(5)))
    both = {"sea": [str(target)], "land": [str(land)]}
    selector = DSIR(budget=Budget(docs=40))
    curate.select([str(pool)], tmp_path / "out", selector, both, shares={"sea": 3, "land": 1})
    kept = [int(i.split("/")[1].split()[0]) for i in ids_of(tmp_path / "out")]
    assert sum(n % 4 == 0 for n in kept) == 30 and len(kept) == 40
    why = Ledger(tmp_path / "out" / "ledger").why(f"doc/{next(n for n in kept if n % 4)} é")
    assert why[-1]["other_id"] == "land"


def test_a_method_that_needs_a_target_says_so(tmp_path, pool):
    with pytest.raises(UsageError, match="--target"):
        curate.select([str(pool)], tmp_path / "out", DSIR(budget=Budget(docs=4)))
    assert curate.select([str(pool)], tmp_path / "u", Uniform(budget=Budget(docs=4))).counts["documents"] == 4


@pytest.mark.parametrize(
    ("text", "match"),
    [(b"", "nothing|no document"), (b'{"_id": "a", "body2": "x"}\n', "text"), (b"{broken\n", "rejected")],
)
def test_input_that_cannot_be_used_is_refused(tmp_path, target, text, match):
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(text)
    with pytest.raises(DataError, match=match):
        curate.select([str(bad)], tmp_path / "out", DSIR(budget=Budget(docs=4)), [str(target)])


def test_an_empty_target_is_refused_and_a_large_one_or_a_large_budget_is_noted(tmp_path, pool, target):
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(orjson.dumps({"text": "..."}) + b"\n")
    with pytest.raises(DataError, match="no words"):
        chosen(tmp_path, pool, empty)
    few = tmp_path / "few.jsonl"
    few.write_bytes(b"".join(target.read_bytes().splitlines(keepends=True)[:2]))
    found = chosen(tmp_path, few, target, "few")
    assert found.counts["documents"] == 2
    assert any("larger than the pool" in note for note in found.notes) and len(found.notes) == 2


def test_equal_documents_and_one_huge_one_do_no_harm(tmp_path, target):
    """A line above 16 MiB is rejected with its reason; equal texts are chosen by their ids."""
    rows = [{"_id": f"d{n}", "text": "the anchor holds the ship by the pier in the tide " * 5} for n in range(9)]
    lines = [orjson.dumps(row) for row in rows]
    pool = tmp_path / "same.jsonl"
    pool.write_bytes(b"\n".join([*lines, orjson.dumps({"_id": "huge", "text": "word " * 4_000_000})]) + b"\n")
    source = curate.Source((str(pool),), max_reject_frac=0.2)
    found = curate.select(source, tmp_path / "out", DSIR(budget=Budget(docs=3)), [str(target)])
    assert len(ids_of(tmp_path / "out")) == 3 and found.counts["rejected"] == 1
    reject = orjson.loads((tmp_path / "out" / "report" / "rejects.jsonl").read_bytes())
    assert (reject["line"], reject["reason"]) == (10, "line_too_long")
    again = curate.select(source, tmp_path / "again", DSIR(budget=Budget(docs=3)), [str(target)], workers=2)
    assert again.counts == found.counts and ids_of(tmp_path / "again") == ids_of(tmp_path / "out")
    assert curate.dedup(source, tmp_path / "dedup").counts["documents"] == 1


def test_nothing_is_mixed_with_other_files_or_other_steps(tmp_path, pool, target):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="other files"):
        chosen(tmp_path, pool, target, "mine")
    chosen(tmp_path, pool, target)
    with pytest.raises(UsageError, match="'select'"):
        curate.dedup([str(pool)], tmp_path / "out")


def test_formats_are_those_of_others(tmp_path, pool, target):
    for name in ("jsonl", "parquet", "hf"):
        chosen(tmp_path, pool, target, name, format=name, attributes=name == "jsonl")
    lines = (tmp_path / "jsonl" / "documents" / "documents.jsonl").read_bytes().splitlines()
    corpus = Corpus.open(tmp_path / "parquet" / "documents")
    assert [orjson.loads(line)["_id"] for line in lines] == corpus.doc_ids.to_pylist()
    assert orjson.loads(corpus.table()["metadata"][0].as_py())["mine"] == orjson.loads(lines[0])["mine"]
    shards = sorted((tmp_path / "hf" / "documents" / "data").glob("train-*.parquet"))
    assert sum(pq.read_metadata(shard).num_rows for shard in shards) == 40
    scores = tmp_path / "jsonl" / "documents" / "attributes" / "tamis_select" / "pool.jsonl.gz"
    assert len(gzip.decompress(scores.read_bytes()).splitlines()) == 200


def test_dedup_drops_copies_beside_a_document_that_stays(tmp_path, pool):
    rows = [orjson.loads(line) for line in pool.read_bytes().splitlines()]
    exact = {**rows[3], "_id": "exact"}
    edited = rows[7]["text"].split()
    edited[10] = "changed"
    near = {**rows[7], "_id": "near", "text": " ".join(edited)}
    pool.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in [*rows, exact, near]))
    found = curate.dedup([str(pool)], tmp_path / "out")
    assert found.counts["dropped_exact_copy"] == 1 and found.counts["dropped_near_copy"] == 1
    clusters = pq.read_table(tmp_path / "out" / "report" / "clusters.parquet").to_pylist()
    assert {row["doc_id"] for row in clusters} >= {"exact", "near"} or len(clusters) == 4
    gone = next(row for row in clusters if not row["is_kept"] and row["same_words_frac"] < 1)
    told = Ledger(tmp_path / "out" / "ledger").why(gone["doc_id"])[-1]
    assert (told["reason"], told["other_id"]) == ("near_copy", gone["group_id"]) and told["score"] > 0.9
    other = curate.dedup([str(pool)], tmp_path / "against", against=[str(pool)])
    assert other.counts["documents"] == 0


def test_clean_cuts_shared_lines_and_keeps_every_span(tmp_path, pool):
    notice = "This notice is printed below every single page of the whole collection."
    rows = [orjson.loads(line) for line in pool.read_bytes().splitlines()]
    texts = {row["_id"]: row["text"] for row in rows}
    rows = [{**row, "text": f"{row['text']}\n{notice}"} for row in rows] + [{"_id": "short", "text": "Too few."}]
    pool.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    found = cleaning.clean([str(pool)], tmp_path / "out", lines=FrequentLines())
    assert found.counts["dropped_too_few_words"] == 1
    left = {r["_id"]: r["text"] for r in map(orjson.loads, lines_of(tmp_path / "out"))}
    assert {name: text.rstrip("\n") for name, text in left.items()} == texts
    spans = pq.read_table(tmp_path / "out" / "report" / "spans.parquet")
    assert len(spans) == 200 and notice in spans["text"][0].as_py()
    plain = cleaning.clean([str(pool)], tmp_path / "plain")
    assert plain.counts["documents"] == 200 and set(lines_of(tmp_path / "plain")) < set(pool.read_bytes().splitlines())


def test_decontaminate_drops_what_holds_a_query(tmp_path, pool):
    rows = [orjson.loads(line) for line in pool.read_bytes().splitlines()]
    leak = " ".join(rows[5]["text"].split()[10:40])
    queries = tmp_path / "queries.jsonl"
    queries.write_bytes(
        orjson.dumps({"_id": "q1", "text": leak}) + b"\n" + orjson.dumps({"_id": "q2", "text": "ok"}) + b"\n"
    )
    found = curate.decontaminate([str(pool)], tmp_path / "out", queries)
    assert found.counts["documents"] == 199 and found.counts["dropped_contains_query"] == 1
    told = Ledger(tmp_path / "out" / "ledger").why("doc/5 é")[-1]
    assert (told["reason"], told["other_id"]) == ("contains_query", "q1")
    assert pq.read_table(tmp_path / "out" / "report" / "unprotectable.parquet")["item_id"].to_pylist() == ["q2"]
    marked = curate.decontaminate([str(pool)], tmp_path / "mark", queries, Decontaminate(action="mark"))
    assert marked.counts["documents"] == 200 and "kept" in marked.notes[0]


def test_audit_writes_a_page_and_says_what_rules_would_drop(tmp_path, pool, target):
    report = auditing.audit([str(pool)], tmp_path / "out", target=[str(target)])
    assert report.facts is not None and report.overlap is not None and report.near is not None
    page = (tmp_path / "out" / "report" / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in page and "near" in page.lower()
    assert verify(tmp_path / "out", deep=True) == []


def test_what_a_checkpoint_holds_comes_back_equal():
    values = (
        Measures(
            pa.array(["a", "é"], pa.large_string()),
            np.array([1.5, -np.inf]),
            np.arange(2, dtype=np.uint64),
            np.ones(2, np.int64),
        ),
        Histogram.empty(5).add(np.array([1, 1, 4])),
        [np.zeros((3, 0), np.int64), 7, 0.1, "x", None, (True, pa.table({"a": [1]}))],
    )
    for value in values:
        back = decode(encode(value))
        assert encode(back).equals(encode(value)) and type(back) is type(value)
    assert decode(encode(values[0])).scores.tolist() == [1.5, -np.inf]
    with pytest.raises(TypeError, match="set"):
        encode({1})
    with pytest.raises(ArtefactError, match="not ours"):
        decode(pa.table({"data": pa.array([b'{"class": "os:stat_result", "fields": {}}'], pa.large_binary())}))


def passages(tmp_path):
    """A pool in which one passage of 120 words stands in two documents that are otherwise different."""
    rng = np.random.default_rng(5)
    words = [f"w{n}" for n in range(4000)]
    passage = " ".join(rng.choice(words, 120))
    rows = []
    for number in range(30):
        own = " ".join(rng.choice(words, 90))
        rows.append({"id": f"p{number}", "text": f"{own} {passage} end." if number in (4, 20) else own})
    path = tmp_path / "passages.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path, passage


@pytest.mark.parametrize("workers", [1, 2])
def test_clean_marks_or_removes_repeated_passages(tmp_path, workers):
    path, passage = passages(tmp_path)
    marked = cleaning.clean([str(path)], tmp_path / "m", repeats=RepeatedSubstrings(), format="jsonl", workers=workers)
    repeats = pq.read_table(tmp_path / "m" / "report" / "repeats.parquet").to_pylist()
    assert {row["doc_id"] for row in repeats} < {"p4", "p20"} and len(repeats) == 1
    assert marked.figures["num_spans_cut"] == 0
    cut = cleaning.clean([str(path)], tmp_path / "c", repeats=RepeatedSubstrings(action="remove"), format="jsonl")
    text = (tmp_path / "c" / "documents" / "documents.jsonl").read_text()
    assert text.count(passage) == 1 and cut.figures["num_spans_cut"] == 1
    restored = editing.restore(tmp_path / "c", tmp_path / "r", format="jsonl")
    assert restored.counts["documents"] == 30
    assert (tmp_path / "r" / "documents" / "documents.jsonl").read_text().count(passage) == 2


def test_lines_and_repeats_at_once_are_refused(tmp_path, pool):
    with pytest.raises(UsageError, match="one after the other"):
        cleaning.clean([str(pool)], tmp_path / "out", lines=FrequentLines(), repeats=RepeatedSubstrings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["jsonl.zst", "parquet", "hf"])
def test_the_result_of_a_step_is_the_pool_of_the_next(tmp_path, pool, format):
    first = cleaning.clean([str(pool)], tmp_path / "one", format=format)
    second = cleaning.clean([str(tmp_path / "one" / "documents")], tmp_path / "two")
    assert second.counts["documents_read"] == first.counts["documents"]
    assert "rejected" not in second.counts
