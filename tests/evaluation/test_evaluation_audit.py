"""Audit: nothing in it can act, the three forms say the same, it loads back equal, and findings follow from figures."""

import re
from html.parser import HTMLParser

import numpy as np
import orjson
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.data.artefact import hash_tree, stage
from tamis.errors import DataError
from tamis.evaluation.audit import Audit, AuditReport, NearDuplicates, drop_examples
from tamis.evaluation.render import visible

EVIL = [
    "<script>alert(1)</script>", "</title><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onmouseover=alert(1) x=\"",
    "'><svg onload=alert(1)>", "{{ 7 * 7 }}", "{% raw %}", "[x](javascript:alert(1))", "| a | b |", "\u202e<b>", "\x1b[2J", "&lt;i&gt;",
    "<!-- x -->", "</style><script>x</script>",
]  # fmt: skip
KNOWN_TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "main",
    "section",
    "footer",
    "h1",
    "h2",
    "p",
    "span",
    "small",
    "sup",
    "ul",
    "li",
    "div",
    "dl",
    "dt",
    "dd",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "svg",
    "rect",
    "line",
    "circle",
    "text",
    "code",
}

KNOWN_ATTRIBUTES = set(
    re.findall(
        r"\S+",
        "lang charset name content http-equiv class role tabindex aria-label aria-hidden scope width height x y rx x1 x2 y1 y2 cx cy r",
    )
)


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


class Cut:
    """A corpus read in another order and in other batches."""

    def __init__(self, corpus, size, order):
        self.table = corpus.table().take(pa.array(order))
        self.size = size

    def __len__(self):
        return len(self.table)

    def batches(self, columns):
        yield from self.table.select(columns).combine_chunks().to_batches(max_chunksize=self.size)


def tokenizer():
    pieces = ["[UNK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    found = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    return found


def inputs(evil="plain"):
    """A pool with something for every section, and ``evil`` wherever text from outside is shown."""
    line = f"{evil} a line that is long enough\n"
    rows = [
        {"doc_id": f"d{i}", "title": f"{evil} {i % 9}", "text": line + f"the words of document {i % 50} are in it",
         "source": f"{evil}-{i % 3}", "metadata": orjson.dumps({"date": f"200{i % 5}-01-01"}).decode()}
        for i in range(60)
    ]  # fmt: skip
    rows += [
        {"doc_id": f"{evil}{i}"[:512].replace("\x1b", ""), "text": f"{evil} copy", "source": "x"} for i in range(40)
    ]
    corpus = Corpus.from_records(rows)
    ids = corpus.doc_ids.to_pylist()
    decisions = pa.table(
        {n: pa.array(v, pa.large_string()) for n, v in {
            "doc_id": [*ids[60:], ids[0], evil], "stage": [f"{evil} stage"] * 42, "decision": ["dropped"] * 42,
            "reason": [*[f"{evil} reason"] * 41, "not_here"]}.items()}
    )  # fmt: skip
    queries = Queries.from_texts({"q0": f"{evil} words document", "q1": "nowhere"})
    options = {
        "title": evil, "target": corpus.select(range(5)), "queries": queries, "query_dates": ["2015-01-01"],
        "decisions": decisions, "scores": pa.table({"doc_id": ids, "score": np.arange(100) / 7}),
        "near": NearDuplicates(jaccard=0.8, num_docs=20, num_groups=4, num_removable=16),
        "quality": pa.table({"source": [evil, "b"], evil: [0.5, float("nan")], "note": ["x", "y"]}),
        "tokenizers": {evil: tokenizer()}, "runs": {evil: Run.from_dict({"q0": {"d0": 1.0}})},
        "qrels": Qrels.from_dict({"q0": {"d0": 1}, "q1": {"d1": 1}}),
    }  # fmt: skip
    return corpus, options


@pytest.fixture(scope="module")
def plain():
    corpus, options = inputs()
    return Audit().report(corpus, seed=0, **options)


@pytest.mark.parametrize("evil", EVIL)
def test_no_text_of_the_pool_can_act(evil):
    corpus, options = inputs(evil)
    report = Audit().report(corpus, seed=0, **options)
    page = report.to_html()
    tags = Tags(page).tags
    assert {tag for tag, _ in tags} <= KNOWN_TAGS
    assert {name for _, attrs in tags for name in attrs} <= KNOWN_ATTRIBUTES
    labels = [attrs["aria-label"] for _, attrs in tags if "aria-label" in attrs]
    assert [label for label in labels if label.startswith(f"{visible(evil)}: words whose own entry")]
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", page)[0]
    assert page.count("<style>") == 1
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert b"<" not in report.to_json()
    text = report.to_markdown()
    assert "<" not in text
    assert "\u202e" not in text
    if evil.startswith("[x]"):
        assert "](" not in text.replace("\\]", "")
    assert AuditReport.from_json(report.to_json()) == report


def test_every_row_of_the_markdown_has_the_columns_of_its_table(plain):
    for block in re.findall(r"(?:^\|.*\n)+", plain.to_markdown(), re.M):
        rows = [re.sub(r"\\.", "", line).count("|") for line in block.splitlines()]
        assert len(rows) >= 3, block
        assert len(set(rows)) == 1, block
    corpus, options = inputs("| a | b |")
    for block in re.findall(r"(?:^\|.*\n)+", Audit().report(corpus, seed=0, **options).to_markdown(), re.M):
        assert len({re.sub(r"\\.", "", line).count("|") for line in block.splitlines()}) == 1, block


def test_the_page_has_every_section_and_asks_for_nothing(plain):
    page = plain.to_html()
    for heading in (
        "Sources", "Lengths", "Languages and scripts", "Duplicates", "How much of it is new", "Dates", "Queries against the corpus",
        "Overlap with the target", "Tokenizer fit", "What was dropped, and why", "Whom the filters hit", "Measures by slice of the queries",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
        if heading != "Whom the filters hit":
            assert f"## {heading}" in plain.to_markdown() or heading == "Languages and scripts"
    assert "http" not in page.replace("http-equiv", "")
    assert ":root {" in page
    assert "prefers-color-scheme: dark" in page


def test_a_bare_audit_has_no_section_that_was_not_asked_for():
    corpus = inputs()[0].select(range(3))
    report = Audit().report(corpus, seed=0)
    assert (report.overlap, report.target, report.tokenizers, report.drops) == (None, None, None, ())
    page = report.to_html()
    for heading in (
        "Overlap",
        "Tokenizer fit",
        "What was dropped",
        "Whom the filters hit",
        "Measures by slice",
        "Queries",
    ):
        assert f"<h2>{heading}" not in page
    assert "Near-duplicates were not searched for" in page
    assert report.to_markdown().startswith("# Corpus audit")


@pytest.mark.parametrize("size", [1, 33])
def test_an_audit_is_free_of_order_and_batches(plain, size):
    corpus, options = inputs()
    rng = np.random.default_rng(size)
    decisions = options.pop("decisions")
    shuffled = decisions.take(pa.array(rng.permutation(len(decisions))))
    report = Audit().report(Cut(corpus, size, rng.permutation(len(corpus))), seed=0, decisions=shuffled, **options)
    assert report.to_json() == plain.to_json()


def test_written_and_read_again_it_is_equal(plain, tmp_path):
    for name in ("a", "b"):
        with stage(tmp_path / name, "audit", settings={}, inputs={}, seed=0) as staging:
            plain.write(staging)
    assert AuditReport.read(tmp_path / "a") == plain
    trees = [{k: v for k, v in hash_tree(tmp_path / name).items() if "audit" in k} for name in ("a", "b")]
    assert trees[0] == trees[1]
    assert {"audit.html", "audit.md", "audit.json"} == {k.split("/")[-1] for k in trees[0]}
    with pytest.raises(DataError, match="cannot read"):
        AuditReport.read(tmp_path)
    for text in (b"", b"[]", b"{}", b'{"format":9,"findings":[]}', b'{"format":1,"findings":[],"title":3}'):
        with pytest.raises(DataError):
            AuditReport.from_json(text)


def test_examples_are_drawn_for_each_reason(plain):
    found = {drop.reason: drop for drop in plain.drops}
    assert (found["plain reason"].num_docs, found["not_here"].num_docs) == (41, 1)
    assert len(found["plain reason"].examples) == 3
    assert found["not_here"].examples[0].text == ""
    corpus, options = inputs()
    ids = {
        drop.examples[0].doc_id
        for seed in range(8)
        for drop in drop_examples(corpus, options["decisions"], 1, seed=seed)
    }
    assert len(ids) > 3
    again = drop_examples(corpus, options["decisions"], 2, seed=0)
    assert again[0].examples == found["plain reason"].examples[:2]
    assert found["plain reason"].examples[0].text.startswith("plain")


def test_findings_follow_from_the_figures(plain):
    said = {(f.level, f.text.split(" ")[0]): f.text for f in plain.findings}
    texts = " ".join(f.text for f in plain.findings)
    assert "39 documents (39.0 %) are exact copies" in texts
    assert "16 documents (16.0 %) are near-duplicates" in texts
    assert "under 20.0 %" in texts
    assert "5 of 5 target documents stand in the pool" in texts
    assert "100.0 % of the target's words" in texts
    assert "Tokenizer plain: Extend the vocabulary" in texts
    assert "The filters dropped 100.0 % of the documents with source “x”" in texts
    assert next(f.level for f in plain.findings if "exact copies" in f.text) == "bad"
    levels = [f.level for f in plain.findings]
    assert levels == sorted(levels, key=["bad", "look", "good"].index)
    assert said
    alone = Corpus.from_records(
        [{"doc_id": "a", "text": "…", "metadata": '{"date": "soon"}'}, {"doc_id": "b", "text": "other"}]
    )
    texts = [f.text for f in Audit().report(alone, seed=0).findings]
    assert "No document is an exact copy of another." in texts
    assert "1 documents have a 'date' that is no ISO 8601 date." in texts


def test_bad_input_is_named():
    corpus, options = inputs()
    with pytest.raises(DataError, match="the pool has no documents"):
        Audit().report(corpus.select([]), seed=0)
    with pytest.raises(DataError, match="target has no documents"):
        Audit().report(corpus, seed=0, target=corpus.select([]))
    with pytest.raises(DataError, match="quality: no column 'source'"):
        Audit().report(corpus, seed=0, quality=pa.table({"x": [1]}))
    with pytest.raises(DataError, match="more than one row"):
        Audit().report(corpus, seed=0, quality=pa.table({"source": ["a", "a"], "x": [1, 2]}))
    with pytest.raises(DataError, match="no column 'reason'"):
        Audit().report(corpus, seed=0, decisions=options["decisions"].drop_columns("reason"))
