"""Split, views, leakage, mixture and the whole: development queries that nobody can read before they are asked."""

import gzip
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Qrels, Queries
from tamis.data.artefact import Staging
from tamis.errors import DataError, RecipeError
from tamis.ops.bytes import Phrases
from tamis.synthesis import (
    PairMixture,
    Split,
    Synthesize,
    TitleBody,
    apply_views,
    available,
    clusters,
    gate,
    leakage,
    on_parents,
)
from tamis.synthesis.mixture import water_fill
from tamis.synthesis.views import cut_all

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
WORDS = [
    a + b
    for a in ["ba", "de", "fi", "go", "lu", "me", "ni", "po", "ra", "su"]
    for b in ["lak", "mor", "net", "pil", "rus", "tan", "vek", "win", "zob", "qua"]
]


def prose(seed, num_sentences=6, length=9):
    rng = np.random.default_rng(seed)
    return " ".join(" ".join(rng.choice(WORDS, length)).capitalize() + "." for _ in range(num_sentences))


def titled(num_docs, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num_docs):
        title = " ".join(rng.choice(WORDS, 4)) + f" n{i}"
        rows.append({"doc_id": f"d{i}", "title": title, "text": f"{title}. {prose(10_000 + i)}"})
    return Corpus.from_records(rows)


def shared(name, limit=None):
    with gzip.open(DATA / name / "corpus.jsonl.gz") as file:
        records = [orjson.loads(line) for line in file][:limit]
    return Corpus.from_records(
        {
            "doc_id": r["_id"],
            "title": r.get("title") or "",
            "text": r["text"] or "-",
            "metadata": orjson.dumps(r.get("metadata", {})).decode(),
        }
        for r in records
    )


needs_data = pytest.mark.skipif(not DATA.exists(), reason="shared data absent")


# split


def test_clusters_join_copies_and_near_copies():
    base = [prose(i, 12) for i in range(6)]
    near = base[0].replace(base[0].split()[40], "changed")
    rows = [{"doc_id": f"d{i}", "text": t} for i, t in enumerate([*base, near])]
    rows += [{"doc_id": "copy", "text": base[3], "group_id": "d3"}]
    assert clusters(Corpus.from_records(rows)).tolist() == [0, 1, 2, 3, 4, 5, 0, 3]


def test_clusters_of_templates_do_not_swallow_the_corpus():
    template = prose(1, 20)
    rows = [{"doc_id": f"d{i}", "text": template.replace(template.split()[50], f"town{i}")} for i in range(40)]
    assert len(set(clusters(Corpus.from_records(rows)).tolist())) > 10


def test_a_template_does_not_part_near_copies():
    template, rng = prose(1, 20).split(), np.random.default_rng(0)
    rows = []
    for i in range(30):
        words = [f"slot{i}x{j}" if j % 20 == 7 else w for j, w in enumerate(template)]
        rows.append({"doc_id": f"t{i}", "text": " ".join(words)})
    rows += [{"doc_id": f"o{i}", "text": prose(50 + i, 12)} for i in range(20)]
    rows += [{"doc_id": "near", "text": rows[30]["text"].replace(str(rng.choice(rows[30]["text"].split())), "new", 1)}]
    labels = clusters(Corpus.from_records(rows))
    assert labels[-1] == labels[30] == 30
    assert len(set(labels[:30].tolist())) > 15


def test_passages_follow_their_document():
    row = {"ordinal": 0, "start": 0, "stop": 0, "section": ""}
    many = [
        row | {"doc_id": f"p{i}#{j}", "parent_doc_id": f"p{i}", "text": prose(i * 3 + j)}
        for i in range(25)
        for j in range(2)
    ]
    labels = clusters(Corpus.from_records(many))
    assert len(set(labels.tolist())) == 25 and all(labels[2 * i] == labels[2 * i + 1] for i in range(25))
    few = clusters(Corpus.from_records(many[:8]))
    assert len(set(few.tolist())) == 8


@pytest.mark.parametrize(("num_docs", "num_dev"), [(0, 0), (1, 1), (2, 1), (50, 25), (100, 30), (600, 60)])
def test_split_sizes(num_docs, num_dev):
    corpus = titled(max(1, num_docs)).select(np.arange(num_docs))
    assert Split().sides(corpus, seed=0).sum() == num_dev


def test_split_ignores_row_order_and_holds_clusters_together():
    corpus = titled(200)
    order = np.random.default_rng(0).permutation(200)
    sides = Split().sides(corpus, seed=4)
    assert np.array_equal(Split().sides(corpus.select(order), seed=4), sides[order])
    assert not np.array_equal(Split().sides(corpus, seed=5), sides)
    doubled = Corpus.from_records([{"doc_id": f"{k}{i}", "text": prose(i, 10)} for i in range(80) for k in "ab"])
    sides, labels = Split().sides(doubled, seed=0), clusters(doubled)
    assert 0 < sides.sum() < 160
    for label in set(labels.tolist()):
        assert len(set(sides[labels == label].tolist())) == 1


# views


@given(st.text("ab c", max_size=20), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4))
def test_cut_all_removes_exactly_the_spans(text, pairs):
    spans = [(min(a, b, len(text)), min(max(a, b), len(text))) for a, b in pairs]
    gone = {i for a, b in spans for i in range(a, b)}
    wanted = "".join(c for i, c in enumerate(text) if i not in gone)
    assert cut_all(text, spans).replace(" ", "") == wanted.replace(" ", "")


def test_views_read_in_every_way(tmp_path):
    corpus = titled(50)
    folder = tmp_path / "c"
    folder.mkdir()
    corpus.write(Staging(folder))
    on_disk = Corpus.open(folder)
    rows = [
        {"query_id": "q1", "doc_id": "d7", "cut_start": 0, "cut_stop": 5},
        {"query_id": "q2", "doc_id": "d3", "cut_title": True},
    ]
    rows += [{"query_id": "q2", "doc_id": "d9"}, {"query_id": "q3", "doc_id": "d7", "cut_start": 3, "cut_stop": 9}]
    view = apply_views(on_disk, Qrels.from_records(rows))
    before, after = corpus.table().to_pylist(), view.table().to_pylist()
    changed = [i for i in range(50) if before[i] != after[i]]
    assert changed == [3, 7]
    assert after[3] == before[3] | {"title": ""}
    assert after[7]["text"] == before[7]["text"][9:].lstrip()
    assert view.take([7, 0, 3]).to_pylist() == [after[7], after[0], after[3]]
    assert view.document("d7") == after[7] and len(view) == 50
    small = [r for b in view.batches(["text", "doc_id"], batch_docs=4) for r in b.to_pylist()]
    assert small == [{"text": r["text"], "doc_id": r["doc_id"]} for r in after]


def test_views_of_what_is_left():
    corpus = Corpus.from_records([{"doc_id": "a", "title": "T", "text": "whole"}, {"doc_id": "b", "text": "whole"}])
    cut = {"query_id": "q", "cut_start": 0, "cut_stop": 5}
    view = apply_views(corpus, Qrels.from_records([cut | {"doc_id": "a"}, cut | {"doc_id": "b"}]))
    assert view.table()["text"].to_pylist() == ["T", ""] and view.emptied == ["b"]
    with pytest.raises(DataError, match="no document 'zz'"):
        apply_views(corpus, Qrels.from_records([cut | {"doc_id": "zz"}]))
    with pytest.raises(DataError, match="outside"):
        apply_views(corpus, Qrels.from_records([cut | {"doc_id": "a", "cut_stop": 99}]))


def test_judgements_move_to_parents():
    row = {"parent_doc_id": "p", "section": "", "text": "some text here"}
    passages = Corpus.from_records(
        [row | {"doc_id": f"p#{i}", "ordinal": i, "start": 100 * i, "stop": 100 * i + 14} for i in range(3)]
    )
    view = {"cut_start": 2, "cut_stop": 4}
    rows = [{"query_id": "q", "doc_id": "p#1"} | view, {"query_id": "q", "doc_id": "p#2", "cut_title": True}]
    rows += [{"query_id": "two", "doc_id": "p#0"} | view, {"query_id": "two", "doc_id": "p#1"} | view]
    moved, left_out = on_parents(Qrels.from_records(rows), passages)
    assert moved.table.to_pylist() == [
        {"query_id": "q", "doc_id": "p", "relevance": 1, "cut_start": 102, "cut_stop": 104, "cut_title": True}
    ]
    assert left_out == {"two"}


# leakage


def test_leakage_is_found_wherever_it_stands():
    corpus = Corpus.from_records(
        [
            {"doc_id": "a", "title": "Short Title", "text": "here IS (the) leaked query, really"},
            {"doc_id": "b", "title": "a long title with leak inside", "text": "東京都庁は新宿区にある"},
        ]
    )
    dev = Queries.from_texts(
        {
            "text": "is the leaked query",
            "title": "long title with leak",
            "train": "words of a train query",
            "exact": "two words",
            "short title": "short-title",
            "short": "leaked query",
            "cjk short": "東京都庁",
            "cjk": "東京都庁は新宿区",
            "clean": "is the leaked answer",
            "empty": "...",
        }
    )
    train = Queries.from_texts({"t1": "Two, words!", "t2": "these words of a train query are", "t3": "..."})
    report = leakage(dev, train, corpus)
    assert {(leak.query_id, leak.kind, leak.found_in) for leak in report.leaks} == {
        ("text", "contained", "a"),
        ("title", "contained", "b"),
        ("train", "contained", "t2"),
        ("exact", "exact", "t1"),
        ("short title", "exact", "a"),
        ("cjk", "contained", "b"),
    }
    assert (report.num_exact, report.num_contained, report.num_queries) == (2, 4, 10)
    with pytest.raises(DataError, match="6 of 10 can be read"):
        gate(report)
    gate(leakage(dev.select(np.array([8])), train, corpus))


# mixture


def test_water_fill_worked():
    assert water_fill(np.array([80, 800]), np.array([0.5, 0.5]), 200).tolist() == [80, 120]
    assert water_fill(np.array([5, 5]), np.array([0.0, 1.0]), 8).tolist() == [0, 5]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), min_size=1, max_size=6), st.integers(0, 200))
def test_water_fill_adds_up(parts, total):
    caps, weights = np.array([c for c, _ in parts]), np.array([float(w) for _, w in parts])
    shares = water_fill(caps, weights, total)
    assert shares.sum() == min(total, caps[weights > 0].sum())
    assert (shares <= caps).all() and (shares >= 0).all()


def part(name, number, *, source=None):
    ids = [f"{name}:{i}" for i in range(number)]
    queries = Queries.from_records(
        {"query_id": q, "text": f"{name} text {q}", "source_doc_id": source or q} for q in ids
    )
    return queries, Qrels.from_records({"query_id": q, "doc_id": source or q} for q in ids)


def test_mixture_worked():
    parts = {"a": part("a", 40), "b": part("b", 400)}
    made = PairMixture(weights={"a": 0.5, "b": 0.5}, num_pairs=200).combine(parts, seed=0)
    names = [q.split(":")[0] for q in made.queries.ids]
    assert (names.count("a"), names.count("b")) == (80, 120)
    assert sum("~2" in q for q in made.queries.ids) == 40
    assert made.qrels.table["query_id"].to_pylist() == made.queries.ids
    assert PairMixture(num_pairs=200).combine(parts, seed=0).queries.ids == made.queries.ids
    assert PairMixture().combine(parts, seed=1).queries.ids != made.queries.ids


def test_mixture_drops_duplicates_and_caps_groups():
    parts = {"a": part("a", 3), "twin": part("a", 3), "b": part("b", 9, source="one")}
    renamed = parts["twin"][0].table.set_column(0, "query_id", pa.array(["x0", "x1", "x2"], pa.large_string()))
    judged = parts["twin"][1].table.set_column(0, "query_id", pa.array(["x0", "x1", "x2"], pa.large_string()))
    parts["twin"] = (Queries(renamed), Qrels(judged))
    made = PairMixture(per_group=4).combine(parts, seed=0)
    assert made.dropped == {"duplicate_pair": 3, "over_per_group": 5}
    assert len(made.queries) == 7
    with pytest.raises(DataError, match="weights for zz"):
        PairMixture(weights={"zz": 1.0}).combine(parts, seed=0)
    assert len(PairMixture().combine({}, seed=0).queries) == 0


# the whole


def check(corpus, made):
    """What must hold of every result."""
    dev_ids = set(made.dev_doc_ids)
    assert set(made.dev_qrels.table["doc_id"].to_pylist()) <= dev_ids | copies_of(corpus, dev_ids)
    assert not set(made.train_qrels.table["doc_id"].to_pylist()) & dev_ids
    assert set(made.dev_qrels.table["query_id"].to_pylist()) == set(made.dev_queries.ids)
    assert set(made.train_qrels.table["query_id"].to_pylist()) == set(made.train_queries.ids)
    found = Phrases(made.dev_queries.texts)
    for column in ("text", "title"):
        places = found.first_in(made.view.table()[column])
        long = np.array([len(t.split()) >= 4 for t in made.dev_queries.texts], dtype=bool)
        assert not ((places >= 0) & long).any()
    assert not set(made.dev_queries.texts) & set(made.train_queries.texts)
    assert made.leaks.leaks == () and made.view.emptied == []
    assert made.view.doc_ids.equals(corpus.doc_ids)
    assert sum(made.num_dev.values()) == len(made.dev_queries) and sum(made.num_train.values()) == len(
        made.train_queries
    )
    assert set(made.ledger["decision"].to_pylist()) <= {"split", "held_out", "generated", "rejected"}


def copies_of(corpus, doc_ids):
    table = corpus.table(["doc_id", "group_id"])
    pairs = list(zip(table["doc_id"].to_pylist(), table["group_id"].to_pylist(), strict=True))
    groups = {g for d, g in pairs if d in doc_ids}
    return {d for d, g in pairs if g in groups}


def test_titled_corpus():
    corpus = titled(300)
    made = Synthesize(min_dev_docs=30).run(corpus, seed=0)
    check(corpus, made)
    assert made.num_dev == {"title_body": 30, "inverse_cloze": 30}
    assert made.num_train["title_body"] == 270
    assert all(start >= 0 for start in made.dev_qrels.table["cut_start"].to_pylist())
    assert -1 in made.train_qrels.table["cut_start"].to_pylist()  # a tenth of the sentences stays, for training
    assert not any(reason == "text_remains" for _, reason in made.dropped)
    assert "docstring_pairs" in made.left_out


def test_same_bytes_whatever_the_order():
    corpus = titled(120)
    order = np.random.default_rng(2).permutation(120)
    one, other = Synthesize().run(corpus, seed=7), Synthesize().run(corpus.select(order), seed=7)
    for name in ("train_queries", "train_qrels", "dev_queries", "dev_qrels"):
        assert getattr(one, name).table.equals(getattr(other, name).table), name
    assert one.dropped == other.dropped
    assert one.dev_queries.ids != Synthesize().run(corpus, seed=8).dev_queries.ids


def test_a_leak_is_dropped_and_counted():
    table = titled(60).table().to_pylist()
    for row in table:
        row["text"] += f" In short: {row['title']}."
    made = Synthesize().run(Corpus.from_records(table), seed=0)
    check(Corpus.from_records(table), made)
    assert made.dropped[("title_body", "text_remains")] > 0 and "title_body" not in made.num_dev


def test_copies_are_positives_too():
    rows = titled(80).table().to_pylist()
    rows += [row | {"doc_id": "copy-" + row["doc_id"], "group_id": row["doc_id"]} for row in rows]
    corpus = Corpus.from_records(rows)
    made = Synthesize().run(corpus, seed=0)
    check(corpus, made)
    assert made.num_dev["title_body"] >= 25
    assert all(len(made.dev_qrels.relevant(q)) == 2 for q in made.dev_queries.ids if q.startswith("title_body"))


@pytest.mark.parametrize(
    "texts",
    [
        ["one document only. " + prose(3, 40)],
        [prose(i, 30) for i in range(2)],
        [" ".join(prose(i, 2, 5).split()[:8]) for i in range(40)],
        [
            "東京は日本の首都で人口が多い。大阪は西の中心で商業の町だ。京都には古い寺がある。"
            + "名古屋は車の町だ。" * (i + 1)
            for i in range(12)
        ],
        [
            "Москва столица и город большой. Волга течёт через многие земли. Байкал глубже всех озёр мира. "
            + f"Номер {i} здесь."
            for i in range(12)
        ],
        [f"wort{i} satz{i} ohne jedes Zeichen " * 12 for i in range(12)],
    ],
    ids=["one", "two", "short", "japanese", "russian", "unpunctuated"],
)
def test_any_corpus_with_text_gives_queries(texts):
    corpus = Corpus.from_records([{"doc_id": f"d{i}", "text": t} for i, t in enumerate(texts)])
    made = Synthesize().run(corpus, seed=0)
    check(corpus, made)
    assert len(made.dev_queries) >= min(10, len(texts) * 2)


@pytest.mark.parametrize("texts", [[], ["x"], ["...", "!!"], ["same words"] * 30])
def test_hopeless_corpora_end_quietly(texts):
    rows = [{"doc_id": f"d{i}", "text": t, "group_id": f"d{texts.index(t)}"} for i, t in enumerate(texts)]
    corpus = Corpus.from_records(rows) if rows else titled(1).select([])
    made = Synthesize().run(corpus, seed=0)
    check(corpus, made)


def test_long_documents_as_passages():
    rows = []
    for book in range(5):
        for i in range(40):
            text = prose(100 * book + i, 8)
            text = f"## About {' '.join(text.split()[3:6])}\n\n{text}" if i % 2 else text
            row = {
                "doc_id": f"b{book}#{i}",
                "parent_doc_id": f"b{book}",
                "title": f"The book number {book}",
                "text": text,
            }
            rows.append(row | {"ordinal": i, "start": 500 * i, "stop": 500 * i + len(text)})
            rows[-1]["section"] = text.split("\n")[0][3:] if i % 2 else ""
    corpus = Corpus.from_records(rows)
    made = Synthesize().run(corpus, seed=0)
    check(corpus, made)
    assert len(made.dev_queries) >= 30 and len(made.train_queries) > 100
    assert made.num_train["headings"] > 50  # not two a book
    assert all(start >= 0 for start in made.dev_qrels.table["cut_start"].to_pylist())


def test_sampling_bounds_the_work():
    corpus = titled(400)
    made = Synthesize(max_docs_mined=100, max_train_pairs=50).run(corpus, seed=0)
    check(corpus, made)
    assert made.num_looked_at == 100 and len(made.train_queries) == 50
    assert made.dropped[("", "not_sampled")] == 300


def test_available_names_reasons():
    offered = available(titled(50))
    assert [m.method for m in offered.makers] == ["title_body", "inverse_cloze", "prop"]
    assert set(offered.left_out) == {"docstring_pairs", "headings", "link_pairs.anchor", "body_first"}
    assert "no_links 50" in offered.left_out["link_pairs.anchor"]


def test_fields_that_read_like_queries():
    texts = [prose(i) for i in range(40)]
    metadata = [
        {
            "question": "What of " + " ".join(t.split()[3:6]) + "?",
            "author": f"Smith{i} and Lee{i} of Oslo{i}",
            "kind": "x",
            "n": 3,
        }
        for i, t in enumerate(texts)
    ]
    rows = [
        {"doc_id": f"d{i}", "text": t, "metadata": orjson.dumps(m).decode()}
        for i, (t, m) in enumerate(zip(texts, metadata, strict=True))
    ]
    offered = available(Corpus.from_records(rows))
    assert next(m.label for m in offered.makers) == "field_pairs.question"
    assert {"field_pairs.author", "field_pairs.kind"} <= set(offered.left_out)
    made = Synthesize().run(Corpus.from_records(rows), seed=0)
    held_out = made.view.take(made.view.rows_of(sorted(made.dev_qrels.grades[made.dev_queries.ids[0]])))
    assert held_out["metadata"].to_pylist() == ["{}"]


def test_settings_are_checked():
    with pytest.raises(RecipeError, match="dev_frac"):
        Synthesize(dev_frac=1.5)
    with pytest.raises(RecipeError, match="no_such"):
        TitleBody(no_such=1)


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "method"), [("cranfield", "title_body"), ("cosqa-dev", "docstring_pairs"), ("scipy", "docstring_pairs")]
)
def test_shared_sets(name, method):
    corpus = shared(name, 1000)
    made = Synthesize().run(corpus, seed=0)
    check(corpus, made)
    assert made.num_dev[method] > 30
    assert not any(n.startswith("field_pairs") for n in made.num_dev)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=20), st.text(min_size=1, max_size=120).filter(str.strip), st.integers(0, 9)),
        min_size=1,
        max_size=8,
    )
)
def test_odd_documents_never_crash(rows):
    corpus = Corpus.from_records(
        [{"doc_id": f"d{i}", "title": t, "text": x * (n + 1)} for i, (t, x, n) in enumerate(rows)]
    )
    made = Synthesize(min_dev_queries=8).run(corpus, seed=0)
    assert made.leaks.leaks == () and made.view.emptied == []
    assert not set(made.train_qrels.table["doc_id"].to_pylist()) & set(made.dev_doc_ids)
