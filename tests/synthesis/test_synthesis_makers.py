"""The pair makers: worked examples of their cards, spans, order of documents, provenance."""

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.data import Corpus, Qrels, Queries
from tamis.synthesis import (
    PROP,
    BodyFirst,
    DocstringPairs,
    FieldPairs,
    Headings,
    InverseCloze,
    LinkPairs,
    TitleBody,
    apply_views,
)
from tamis.synthesis.docstring import find_docstring
from tamis.synthesis.links import co_citation
from tamis.synthesis.pairs import leading_copy
from tamis.synthesis.prop import keep_share, likelihood
from tamis.synthesis.structure import heading_lines

WORDS = [
    "amber",
    "basalt",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "garnet",
    "harbor",
    "island",
    "juniper",
    "kelp",
    "lagoon",
    "meadow",
    "nectar",
    "onyx",
    "prairie",
]


def corpus_of(texts, **columns):
    rows = [{"doc_id": f"d{i}", "text": t} for i, t in enumerate(texts)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = orjson.dumps(value).decode() if name == "metadata" else value
    return Corpus.from_records(rows)


def passages_of(rows):
    defaults = {"start": 0, "stop": 0, "section": ""}
    return Corpus.from_records([defaults | row for row in rows])


def prose(seed, num_sentences=5):
    rng = np.random.default_rng(seed)
    sentences = [" ".join(rng.choice(WORDS, 7)).capitalize() + f" {seed} {i}." for i in range(num_sentences)]
    return " ".join(sentences)


MARKDOWN = "# Pumps\n\nText of pumps here.\n\n## Seals and rings\n\nText of seals.\n\n```\n\n# not a heading\n```\n"
CODE = 'def f{0}(x):\n    """Add the number {0} to it."""\n    return x + one_{0} + two + three\n'


def mixed_corpus():
    texts = [f"Title words {i}. {prose(i)}" + f"\n\n# Heading about {WORDS[i]} {i}\n\nmore text {i}" for i in range(8)]
    links = [[{"href": f"d{(i + 1) % 8}", "text": f"see the page {WORDS[i]}"}] for i in range(8)]
    metadata = [{"question": f"What is {WORDS[i]} number {i}?", "links": links[i]} for i in range(8)]
    return corpus_of(texts, title=[f"Title words {i}" for i in range(8)], metadata=metadata)


MAKERS = [
    TitleBody(),
    FieldPairs(),
    Headings(),
    InverseCloze(),
    LinkPairs(kind="anchor"),
    LinkPairs(kind="link"),
    PROP(min_corpus_count=1),
    PROP(min_corpus_count=1, worse_sets=True),
]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda m: m.label)
def test_provenance_and_order(maker):
    corpus = mixed_corpus()
    queries, qrels = maker.generate(corpus, None, seed=3)
    assert len(queries) >= 4
    texts = dict(zip(corpus.doc_ids.to_pylist(), corpus.table()["text"].to_pylist(), strict=True))
    for row in queries.table.to_pylist():
        assert row["method"] == maker.label
        assert row["query_id"].startswith(f"{maker.label}:{row['source_doc_id']}:")
        if row["start"] >= 0:
            assert texts[row["source_doc_id"]][row["start"] : row["stop"]] == row["text"]
    assert set(qrels.table["query_id"].to_pylist()) == set(queries.ids)
    order = np.random.default_rng(1).permutation(len(corpus))
    again, again_qrels = maker.generate(corpus.select(order), None, seed=3)
    key = lambda row: row["query_id"]  # noqa: E731
    assert sorted(again.table.to_pylist(), key=key) == sorted(queries.table.to_pylist(), key=key)
    pair = lambda row: (row["query_id"], row["doc_id"])  # noqa: E731
    assert sorted(again_qrels.table.to_pylist(), key=pair) == sorted(qrels.table.to_pylist(), key=pair)
    assert type(maker).from_json(maker.model_dump_json(), "x") == maker


@pytest.mark.parametrize("maker", [*MAKERS, DocstringPairs(), BodyFirst()], ids=lambda m: m.label)
def test_empty_and_poor_corpora(maker):
    empty = corpus_of(["x"]).select([])
    assert len(maker.generate(empty, None, seed=0)[0]) == 0
    poor = corpus_of(
        ["x", " ", "...", "y z"], metadata=[{}, {"links": "no"}, {"question": 3}, {"question": ["", None]}]
    )
    made = maker.mine(poor, seed=0)
    assert isinstance(made.queries, Queries) and isinstance(made.qrels, Qrels)
    assert sum(made.dropped.values()) > 0 or len(made.queries)


def test_inverse_cloze_worked():
    text = "Aa b c d ee. Ff g h i jj. Kk l m n oo."  # a single letter before a full stop is an initial
    corpus = corpus_of([text])
    queries, qrels = InverseCloze(per_doc=3, keep_frac=0, min_rest_words=5).generate(corpus, seed=0)
    assert len(queries) == 2  # the third would leave too little
    row = next((r for r in qrels.table.to_pylist() if r["cut_start"] == 13), None)
    views = {
        r["query_id"]: apply_views(corpus, Qrels.from_records([r])).table()["text"][0].as_py()
        for r in qrels.table.to_pylist()
    }
    for query_id, query in zip(queries.ids, queries.texts, strict=True):
        assert query not in views[query_id]
        assert "  " not in views[query_id]
    if row:
        assert views[row["query_id"]] == "Aa b c d ee. Kk l m n oo."
    kept = InverseCloze(keep_frac=1, min_rest_words=5).generate(corpus, seed=0)[1]
    assert set(kept.table["cut_start"].to_pylist()) == {-1}


def test_inverse_cloze_share_cut():
    corpus = corpus_of([prose(i) for i in range(1500)])
    qrels = InverseCloze(per_doc=1).generate(corpus, seed=1)[1]
    cut = np.array(qrels.table["cut_start"].to_pylist()) >= 0
    assert len(cut) == 1500
    assert abs(cut.mean() - 0.9) < 3 * (0.09 / len(cut)) ** 0.5


def test_inverse_cloze_leaves_boilerplate():
    texts = [f"{prose(i, 2)} All rights reserved by the company forever." for i in range(5)]
    queries, _ = InverseCloze(min_rest_words=5, per_doc=5).generate(corpus_of(texts), seed=0)
    assert len(queries) and not any("rights" in q for q in queries.texts)


@pytest.mark.parametrize(
    "text",
    [
        "東京は日本の首都である。大阪は西日本の中心都市である。京都には古い寺が多い。名古屋は自動車で有名である。",
        "Москва — столица России и её город. Волга течёт через многие области страны. Байкал глубже всех озёр мира вообще.",
        "ประเทศไทยอยู่ในเอเชียตะวันออกเฉียงใต้และมีกรุงเทพมหานครเป็นเมืองหลวง " * 8,
    ],
)
def test_inverse_cloze_in_other_languages(text):
    queries, _ = InverseCloze(max_query_words=20).generate(corpus_of([text]), seed=0)
    assert len(queries) >= 1
    assert all(q in text for q in queries.texts)


def test_title_body_cuts_the_copy():
    corpus = corpus_of(
        [
            "Wing flow at rest . the body of the text goes on",
            "the body alone goes on and on",
            "one two three four five",
        ],
        title=["wing flow, at rest", "Other title", "Single"],
    )
    made = TitleBody(min_body_words=3).mine(corpus, seed=0)
    assert made.queries.texts == ["wing flow, at rest", "Other title"]
    view = apply_views(corpus, made.qrels).table(["title", "text"]).to_pylist()
    assert view[0] == {"title": "", "text": "the body of the text goes on"}
    assert view[2]["title"] == "Single"
    assert made.dropped == {"too_few_words": 1}


def test_shared_titles_keep_all_documents():
    corpus = corpus_of([prose(i) for i in range(6)], title=["Same title"] * 2 + ["Four times"] * 4)
    made = TitleBody().mine(corpus, seed=0)
    assert made.qrels.relevant("title_body:d0:0") == {"d0", "d1"}
    assert made.dropped == {"ambiguous_query": 4}


def test_title_of_passages():
    rows = [
        {"doc_id": f"p#{i}", "title": "Whole title", "text": prose(i), "parent_doc_id": "p", "ordinal": i}
        for i in range(3)
    ]
    made = TitleBody().mine(passages_of(rows), seed=0)
    assert made.qrels.relevant("title_body:p#0:0") == {"p#0", "p#1", "p#2"}


def test_field_lists():
    corpus = corpus_of([prose(0)], metadata=[{"job": {"skills": ["sql", "spark"]}}])
    base = {"query_field": "job.skills", "min_query_words": 1}
    assert FieldPairs(**base).generate(corpus, seed=0)[0].texts == ["sql", "spark"]
    assert FieldPairs(list_mode="join", **base).generate(corpus, seed=0)[0].texts == ["sql, spark"]
    assert len(FieldPairs(list_mode="sample", max_values=1, **base).generate(corpus, seed=0)[0]) == 1


def test_docstring_worked():
    corpus = corpus_of(['def f(x): """Add one."""; return x+1'])
    made = DocstringPairs(min_query_words=2, min_code_words=3).mine(corpus, seed=0)
    assert made.queries.texts == ["Add one."]
    view = apply_views(corpus, made.qrels).table()["text"][0].as_py()
    assert "Add one" not in view and '"""' not in view and "return x+1" in view


@pytest.mark.parametrize(
    "text",
    [
        'def f():\n    """Über die Größe.\n\n    More.\n    """\n    return 1\n',
        '    def method(self):\n        """Über die Größe.\n\n        More.\n        """\n        return 1\n',
        'def f(a, (b, c)):\n    """Über die Größe.\n\n    More.\n    """\n    print a\n',
        'class C:\n    r"""Über die Größe.\n\n    More.\n    """\n    x = 1\n',
    ],
)
def test_docstring_in_text(text):
    start, stop, content = find_docstring(text)
    assert content.startswith("Über die Größe.") and "More." in content
    assert text[:start].rstrip().endswith(":") and text[stop - 3 : stop] == '"""'
    assert text[start:stop].lstrip("r").startswith('"""')


def test_docstring_offsets_are_characters():
    text = "def größe(): 'Öffne die Tür äöü.'; return 1"
    start, stop, content = find_docstring(text)
    assert text[start:stop] == "'Öffne die Tür äöü.'" and content == "Öffne die Tür äöü."


def test_docstring_elsewhere():
    assert find_docstring("no code at all: \n'''x'''") is None
    assert find_docstring("def f(): return 1") is None
    corpus = corpus_of(
        ["def g(x): return x + alpha + beta"], metadata=[{"docstring": "Sum up all\n  things.\n\nLong."}]
    )
    assert DocstringPairs().generate(corpus, seed=0)[0].texts == ["Sum up all things."]


def test_heading_lines():
    found = heading_lines(MARKDOWN)
    assert [path for path, *_ in found] == [("Pumps",), ("Pumps", "Seals and rings")]
    for path, start, stop, (a, b) in found:
        assert MARKDOWN[a:b] == path[-1] and MARKDOWN[start] == "#" and MARKDOWN[start:stop].count("\n") == 1
    assert heading_lines("x = 1\n# a comment\ny = 2") == []


def test_headings_worked():
    rows = [
        {
            "doc_id": "m#1",
            "title": "Manual",
            "text": "Text of seals.",
            "parent_doc_id": "m",
            "ordinal": 1,
            "section": "Pumps > Seals",
        }
    ]
    full = Headings(path="full", min_query_words=1).generate(passages_of(rows), seed=0)
    assert full[0].texts == ["Manual > Pumps > Seals"]
    assert full[1].table["cut_title"].to_pylist() == [True]
    corpus = corpus_of([MARKDOWN])
    queries, qrels = Headings().generate(corpus, seed=0)
    assert queries.texts == ["Seals and rings"]
    assert "Seals and rings" not in apply_views(corpus, qrels).table()["text"][0].as_py()


def test_generic_headings_go():
    corpus = corpus_of([f"# Read more here\n\n{prose(i)}\n\n# About {WORDS[i % 16]} {i}\n\nx" for i in range(10)])
    made = Headings().mine(corpus, seed=0)
    assert made.dropped["generic_heading"] == 10 and len(made.queries) == 10


def test_body_first_worked():
    rows = [
        {"doc_id": f"m#{i}", "text": t, "parent_doc_id": "m", "ordinal": i}
        for i, t in enumerate(["L one here. L two here.", "P1", "P2"])
    ]
    for order in ([0, 1, 2], [2, 0, 1]):
        queries, qrels = BodyFirst(per_doc=1, min_query_words=2).generate(passages_of([rows[i] for i in order]), seed=5)
        assert queries.texts[0] in {"L one here.", "L two here."}
        assert qrels.relevant(queries.ids[0]) < {"m#1", "m#2"}
    assert BodyFirst().mine(corpus_of(["a b c"]), seed=0).dropped == {"no_passages": 1}


def test_links_are_resolved():
    sources = ["docs/a.md", "docs/b.md", "c.html"]
    links = [
        [{"href": "b.md#part", "text": "the second page"}, {"href": "https://x.org/", "text": "outside the corpus"}],
        [{"href": "../c.html", "text": "the third page"}, {"href": "b.md", "text": "my own page"}],
        [{"href": "docs/a.md?x=1", "text": "short"}],
    ]
    corpus = corpus_of([prose(i) for i in range(3)], source=sources, metadata=[{"links": x} for x in links])
    made = LinkPairs().mine(corpus, seed=0)
    found = {t: made.qrels.relevant(q) for q, t in zip(made.queries.ids, made.queries.texts, strict=True)}
    assert found == {"the second page": {"d1"}, "the third page": {"d2"}}
    assert made.dropped == {"not_in_corpus": 1, "self_link": 1, "too_few_words": 1}


def test_co_citation_worked():
    edges = {(i, 20) for i in range(9)} | {(i, 21) for i in range(6, 10)}
    weights = co_citation(edges, 22, 2)
    assert weights == {(20, 21): 0.5, (21, 20): 0.5}
    assert co_citation(edges, 22, 4) == {}
    metadata = [{"links": [{"href": "d3"}, {"href": "d4"}]}] * 3 + [{}, {}]
    corpus = corpus_of([prose(i) for i in range(5)], metadata=metadata)
    queries, qrels = LinkPairs(kind="co_citation").generate(corpus, seed=0)
    assert {q.split(":")[1]: qrels.relevant(q) for q in queries.ids} == {"d3": {"d4"}, "d4": {"d3"}}


def test_prop_worked():
    p = likelihood(np.array([2, 1, 0]), np.array([3, 3, 3]), np.array([0.2, 0.3, 0.5]), 3.0)
    assert p.tolist() == pytest.approx([13 / 30, 19 / 60, 0.25])
    assert np.log(p[:2]).sum() == pytest.approx(-1.986154, abs=1e-6)
    assert np.log([p[2], p[1]]).sum() == pytest.approx(-2.536200, abs=1e-6)
    assert keep_share(np.array([0.01, 4e-4]), 1e-4).tolist() == pytest.approx([0.11, 0.75])
    assert likelihood(np.array([2, 1]), np.array([3, 3]), np.array([0.5, 0.5]), 0.0).tolist() == pytest.approx(
        [2 / 3, 1 / 3]
    )


def test_prop_better_sets_come_from_their_document():
    corpus = corpus_of([f"{prose(i)} topic{i} topic{i} topic{i} theme{i} theme{i}" for i in range(60)])
    queries, qrels = PROP(worse_sets=True, min_corpus_count=1).generate(corpus, seed=0)
    texts = dict(zip(corpus.doc_ids.to_pylist(), corpus.table()["text"].to_pylist(), strict=True))
    share = {0: [], 1: []}
    grades = {q: next(iter(d.values())) for q, d in qrels.grades.items()}
    for row in queries.table.to_pylist():
        words = row["text"].split()
        own = set(texts[row["source_doc_id"]].lower().replace(".", "").split())
        share[grades[row["query_id"]]].append(np.mean([w in own for w in words]))
        assert len(set(words)) == len(words)
    assert len(share[0]) == len(share[1]) > 100
    assert np.mean(share[1]) > 1.3 * np.mean(share[0])


@given(st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_leading_copy_holds_the_phrase(phrase, rest):
    start, stop = leading_copy(phrase + " | " + rest, phrase)
    letters = [c for c in phrase.lower() if c.isalnum()]
    if letters and len(phrase.lower()) == len(phrase):
        assert start == 0
        assert [c for c in (phrase + " | " + rest)[:stop].lower() if c.isalnum()] == letters
    assert leading_copy("wings of flow", "wing") == (-1, -1)
