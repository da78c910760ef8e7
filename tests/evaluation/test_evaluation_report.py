"""Judgement and report: what is said follows from the figures, nothing in it can act, and the bytes are the same."""

import re
from html.parser import HTMLParser

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.data import Corpus, Ledger, Qrels, Queries, Run, ledger
from tamis.data.artefact import hash_tree, stable_bytes, stage
from tamis.errors import DataError, UsageError
from tamis.evaluation import (
    Choice,
    CorpusStatistics,
    Cost,
    Drop,
    Judge,
    LeakageCheck,
    Report,
    drops,
    evaluate,
    measure_hubness,
    random_run,
)
from tamis.evaluation.judgement import interval, p_equals, p_value, signed
from tamis.evaluation.plots import Scale, bars
from tamis.evaluation.render import escape_markdown, megabytes, visible

XSS = [
    "<script>alert(1)</script>", "<ScRiPt>alert(1)</sCrIpT>", "<script src=//x.y>", "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>", "<img/src=x/onerror=alert(1)>", "<svg onload=alert(1)>", "<svg/onload=alert(1)>",
    "<body onload=alert(1)>", "<iframe src=javascript:alert(1)>", "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href=javascript:alert(1)>x</a>", "<a href='data:text/html,<script>alert(1)</script>'>x</a>", "<object data=x>",
    "<embed src=x>", "<math><mtext></mtext><mglyph><style><img src=x onerror=alert(1)>", "<base href=//x.y>",
    "<link rel=stylesheet href=//x.y>", "<meta http-equiv=refresh content='0;url=//x.y'>", "<form action=//x.y><input>",
    "<button formaction=javascript:alert(1)>x", "<details open ontoggle=alert(1)>", "<video><source onerror=alert(1)>",
    "<audio src=x onerror=alert(1)>", "<input autofocus onfocus=alert(1)>", "<marquee onstart=alert(1)>", "<style>*{x:y}</style>",
    "</style><script>alert(1)</script>", "</title><script>alert(1)</script>", "</textarea><script>alert(1)</script>",
    "<!--<script>alert(1)</script>-->", "--><script>alert(1)</script>", "]]><script>alert(1)</script>", "<![CDATA[<x>]]>",
    "\" onmouseover=alert(1) x=\"", "' onmouseover=alert(1) x='", "\"><script>alert(1)</script>", "'><script>alert(1)</script>",
    "` onmouseover=alert(1)", "\" style=\"background:url(//x.y)", "&lt;script&gt;alert(1)&lt;/script&gt;", "&#60;script&#62;",
    "%3Cscript%3Ealert(1)%3C/script%3E", "\\u003cscript\\u003e", "\x3cscript\x3ealert(1)", "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<\x0bscript>alert(1)", "\ufeff<script>alert(1)</script>", "javascript:alert(1)", "{{ 7 * 7 }}", "{% raw %}{{ report }}",
    "{{ ''.__class__.__mro__ }}", "${alert(1)}", "<!-- volatile -->x", "<!-- /volatile -->", "\x1b]8;;http://x.y\x07go\x1b]8;;\x07",
    "\x1b]52;c;aGk=\x07", "\x1b[2J\x9b31m", "\u202e<txt.exe\u2066", "=HYPERLINK(\"http://x.y\")", "[x](javascript:alert(1))",
    "![x](http://x.y/p.png)", "| a | b |\n| - | - |", "line\r\n\r\n# heading", "\u2028<b>\u2029", "<x" + "<y" * 50,
]  # fmt: skip


def collection(num_queries=40):
    rng = np.random.default_rng(0)
    docs = [f"d{i}" for i in range(30)]
    queries = Queries.from_texts({f"q{i}": f"what is {i}?" for i in range(num_queries)})
    grades = {q: {docs[int(rng.integers(30))]: 1} for q in queries.ids}
    good, weak = {}, {}
    for q in queries.ids:
        noise = rng.random((2, 30))
        relevant = np.array([d in grades[q] for d in docs])
        good[q] = dict(zip(docs, (noise[0] + relevant * 0.5).tolist(), strict=True))
        weak[q] = dict(zip(docs, (noise[1] + relevant * 0.1).tolist(), strict=True))
    weak.pop("q3")
    runs = {
        "tamis": Run.from_dict(good),
        "BM25": Run.from_dict(weak),
        "random": random_run(queries.ids, docs, k=30, seed=0),
    }
    return runs, Qrels.from_dict(grades), queries


def example(text="plain", num_queries=40, **judge):
    runs, qrels, queries = collection(num_queries)
    queries = Queries.from_texts(dict.fromkeys(queries.ids, text))
    names = {"tamis": f"our {text}", "BM25": text, "random": "random"}
    judgement = Judge(draws=200, measures=("nDCG@10", "R@10")).judge(
        {names[n]: run for n, run in runs.items()}, names["tamis"], qrels, seed=1, queries=queries, **judge
    )
    docs = [{"doc_id": f"d{i}", "text": f"{text} a", "title": text, "source": f"{text}{i % 2}"} for i in range(30)]
    for doc in docs:
        doc["metadata"] = orjson.dumps({text: 1}).decode()
    corpus = Corpus.from_records(docs)
    return Report(
        title=text,
        judgements=(judgement, judgement.model_copy(update={"judged_on": "pseudo-queries"})),
        choices=(Choice(name=text, value=text, reason=text), Choice(name="b", value="off", reason=text, used=False)),
        corpus=CorpusStatistics.of(corpus),
        drops=(Drop(stage=text, decision="dropped", reason=text, num_docs=3, examples=(text, text)),),
        leakage=(
            LeakageCheck(name=text, num_found=0, num_checked=9),
            LeakageCheck(name="b", num_found=1, num_checked=9),
        ),
        hubness=measure_hubness(runs["tamis"], corpus, qrels, seed=0),
        notes=(text,),
        environment={"python": text, text: "x"},
        stages=(Cost(name=text, seconds=1.5, peak_bytes=10**7), Cost(name="b", skipped=True)),
    )


class Tags(HTMLParser):
    """Collects tags with the names of their attributes, comments, and the text between."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.comments, self.values, self.text = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [(tag, name, value) for name, value in attrs if name != "aria-label"]

    def handle_endtag(self, tag):
        self.tags.append(("/" + tag, ()))

    def handle_comment(self, data):
        self.comments.append(data)

    def handle_decl(self, decl):
        self.tags.append((decl, ()))

    def handle_data(self, data):
        self.text.append(data)


def test_hostile_text_stays_text():
    assert len(XSS) >= 60
    plain = Tags(example(num_queries=10).to_html())
    assert len(plain.tags) > 300
    for text in XSS:
        page = example(text, num_queries=10).to_html()
        found = Tags(page)
        assert found.tags == plain.tags, text
        assert found.values == plain.values, text
        assert found.comments == plain.comments == [" volatile ", " /volatile "]
        assert visible(text) in "".join(found.text)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]", page)


def test_the_page_asks_for_nothing_and_runs_nothing():
    page = example().to_html()
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not re.search(r"<script|https?://|url\(|@import|\son[a-z]+=", page)
    tags = Tags(page).tags
    assert tags.count(("table", ())) == tags.count(("caption", ())) > 10
    assert len(page.encode()) < 200_000


def test_hostile_text_stays_text_in_markdown():
    plain = example(num_queries=10).to_markdown()
    for text in XSS:
        page = example(text, num_queries=10).to_markdown()
        assert page.count("\n") == plain.count("\n"), text
        assert re.findall("<[^ ].*?>", page) == ["<!-- volatile -->", "<!-- /volatile -->"]
        assert not re.search(r"(?<!\\)\]\(", page)
        for ours, theirs in zip(plain.splitlines(), page.splitlines(), strict=True):
            assert len(re.findall(r"(?<!\\)\|", ours)) == len(re.findall(r"(?<!\\)\|", theirs))
    assert escape_markdown("# a") == "\\# a"
    assert escape_markdown("a|b`c`") == "a\\|b\\`c\\`"


def test_the_same_report_has_the_same_bytes_and_loads_back_equal():
    report = example("<!-- volatile --> a < b")
    assert report.to_html() == example("<!-- volatile --> a < b").to_html()
    loaded = Report.from_json(report.to_json())
    assert loaded == report
    assert report.to_json().count(b"<") == 2
    assert (loaded.to_html(), loaded.to_markdown(), loaded.to_json()) == (
        report.to_html(),
        report.to_markdown(),
        report.to_json(),
    )
    assert Report.from_json(Report().to_json()) == Report()


def test_times_and_machine_are_all_that_may_differ():
    one = example()
    other = one.model_copy(update={"stages": (Cost(name="z", seconds=99.0),), "environment": {"cores": "64"}})
    for before, after in zip(
        (one.to_html().encode(), one.to_markdown().encode(), one.to_json()),
        (other.to_html().encode(), other.to_markdown().encode(), other.to_json()),
        strict=True,
    ):
        assert before != after
        assert stable_bytes(before) == stable_bytes(after)
    changed = one.model_copy(update={"notes": ("other",)})
    assert stable_bytes(one.to_json()) != stable_bytes(changed.to_json())
    marked = [Report(title="<!-- volatile -->", notes=(note,)) for note in ("a", "b")]
    for render in (Report.to_json, lambda r: r.to_html().encode(), lambda r: r.to_markdown().encode()):
        assert len({stable_bytes(render(r)) for r in marked}) == 2


def test_a_report_is_written_as_an_artefact_and_read_back(tmp_path):
    runs, qrels, _ = collection()
    per_query = evaluate(runs["tamis"], qrels).per_query
    trees = []
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        report = example().model_copy(update={"stages": (Cost(name="x", seconds=seconds),)})
        with stage(tmp_path / name / "report", "report", settings={}, inputs={}, seed=0) as staging:
            report.write(staging, per_query)
        trees.append(hash_tree(tmp_path / name))
        assert Report.read(tmp_path / name / "report") == report
    assert trees[0] == trees[1]
    assert {"report/report.html", "report/report.md", "report/report.json", "report/per_query.parquet"} < set(trees[0])
    assert pq.read_table(tmp_path / "a" / "report" / "per_query.parquet").equals(per_query)


def test_what_is_no_report_is_refused(tmp_path):
    for text in (b"", b"[]", b"{", b"{}", b'{"format":1,"title":3}', b'{"format":9}', b'{"format":1,"alien":3}'):
        with pytest.raises(DataError):
            Report.from_json(text)
    with pytest.raises(DataError, match="cannot read"):
        Report.read(tmp_path)


def test_a_notebook_gets_the_page_in_a_frame_without_rights(tmp_path):
    shown = example("<script>alert(1)</script>")._repr_html_()
    assert shown.startswith("<iframe sandbox ")
    assert [tag for tag, _ in Tags(shown).tags] == ["iframe", "/iframe"]
    with stage(tmp_path / "r", "report", settings={}, inputs={}, seed=0) as staging:
        Report().write(staging)
    assert not (tmp_path / "r" / "per_query.parquet").exists()


def test_an_empty_report_says_that_nothing_was_measured():
    assert "Nothing was measured" in Report().to_html()
    assert "Nothing was measured" in Report().to_markdown()


def test_a_judgement_follows_from_the_evaluations():
    runs, qrels, queries = collection()
    found = Judge(draws=500).judge(runs, "tamis", qrels, seed=0, queries=queries)
    ours, theirs = (evaluate(runs[name], qrels, ["nDCG@10"]).values["nDCG@10"] for name in ("tamis", "BM25"))
    c = found.comparison("BM25", "nDCG@10")
    assert c.delta == pytest.approx((ours - theirs).mean())
    assert (c.system, c.baseline, c.wins, c.losses) == ("tamis", "BM25", (ours > theirs).sum(), (ours < theirs).sum())
    assert c.low <= c.delta <= c.high
    assert c.significant
    assert found.control == "BM25"
    assert [d.delta for d in found.wins] == sorted((ours - theirs)[ours > theirs], reverse=True)[:10]
    assert [d.delta for d in found.losses] == sorted((ours - theirs)[ours < theirs])[:10]
    assert found.wins[0].text.startswith("what is ")
    assert list(found.curve) == pytest.approx(sorted(ours - theirs, reverse=True), abs=1e-6)
    assert {s.name: s.num_unanswered for s in found.systems} == {"tamis": 0, "BM25": 1, "random": 0}
    assert found.verdicts == [
        f"Better than BM25 by {signed(c.delta)} {interval(c.low, c.high)}, {p_equals(c.p_adjusted)}."
    ]
    assert len(found.rows()) == 3 * 3
    assert all(len(row) == len(found.headers()) for row in found.rows())
    assert found.to_dict()["verdicts"] == found.verdicts
    assert found.lines()[0].startswith("nDCG@10\t0.")


def test_the_verdict_claims_no_more_than_the_test_shows():
    runs, qrels, _ = collection()
    same = Judge(draws=200).judge({"a": runs["tamis"], "b": runs["tamis"]}, "a", qrels, seed=0)
    assert same.verdicts[0].startswith("No difference from b can be shown: 0.000 [0.000, 0.000], p = 1.")
    assert (same.wins, same.losses) == ((), ())
    assert "unclear" in Report(judgements=(same,)).to_html()
    worse = Judge(draws=200).judge({"a": runs["BM25"], "b": runs["tamis"]}, "a", qrels, seed=0)
    assert worse.verdicts[0].startswith("Worse than b by −0.")
    lost = Judge(draws=200).judge({"a": runs["random"], "random": runs["random"]}, "a", qrels, seed=0)
    assert "No difference from random" in lost.verdicts[0]


def test_few_queries_and_what_was_not_measured_are_said():
    grades = {"q": {"a": 1}, "z": {"a": 0}}
    run = Run.from_dict({"q": {"q": 2.0, "a": 1.0}, "stranger": {"a": 1.0}})
    found = Judge().judge({"e": run}, "e", Qrels.from_dict(grades), seed=0, judged_on="pseudo-queries")
    notes = " ".join(found.notes)
    for part in (
        "1 held-out pseudo-queries",
        "Fewer than 30",
        "1 judged queries have no",
        "1 queries of the",
        "1 times a",
    ):
        assert part in notes
    assert (found.control, found.comparisons, found.curve) == (None, (), ())
    assert "held-out" in Report(judgements=(found,)).to_html()
    with pytest.raises(UsageError, match="not among the runs"):
        Judge().judge({"e": run}, "x", Qrels.from_dict(grades), seed=0)


def test_figures_as_text():
    assert [signed(v) for v in (0.0314, -0.0314, 0.0001, -0.0001)] == ["+0.031", "−0.031", "0.000", "0.000"]
    assert interval(-0.0001, 0.5) == "[0.000, 0.500]"
    assert [p_value(p) for p in (0.0002, 0.004, 0.0451, 0.62, 1.0)] == ["< .001", ".004", ".045", ".62", "1"]
    assert [p_equals(p) for p in (0.0002, 0.004)] == ["p < .001", "p = .004"]
    assert [megabytes(b) for b in (0, 999, 1500, 2_345_678, 10**12)] == ["0 B", "999 B", "1.5 kB", "2.3 MB", "1.0 TB"]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_a_scale_holds_its_values_between_round_ticks(values):
    scale = Scale.around(values)
    assert scale.low <= min(values) + 1e-9
    assert scale.high >= max(values) - 1e-9
    assert 2 <= len(scale.ticks) <= 7
    assert (scale.ticks[0][0], scale.ticks[-1][0]) == ("0.00", "100.00")
    assert len({label for _, label in scale.ticks}) == len(scale.ticks)


def test_bars_stand_above_and_hang_below_the_line():
    up, down = bars([0.5, 0.0, -0.25], half=80)
    assert (up.kind, up.y, up.height) == ("win", "0.00", "80.00")
    assert (down.kind, down.y, down.height) == ("loss", "80.00", "40.00")
    assert bars([0.0, 0.0]) == []


def test_drops_are_counted_from_the_ledger(tmp_path):
    rows = [
        {"doc_id": f"d{i}", "stage": "2-clean", "method": "m", "decision": "dropped", "reason": "too_short"}
        for i in range(5)
    ]
    rows += [{"doc_id": "k", "stage": "2-clean", "method": "m", "decision": "kept"}]
    rows += [{"doc_id": "g", "stage": "2-clean", "method": "m", "decision": "grouped", "reason": "equal_text"}]
    with stage(tmp_path / "2-clean", "ledger", settings={}, inputs={}, seed=0) as staging:
        ledger.write(staging, ledger.rows(rows))
    found = drops(Ledger(tmp_path))
    assert [(d.decision, d.reason, d.num_docs, d.examples) for d in found] == [
        ("dropped", "too_short", 5, ("d0", "d1", "d2")),
        ("grouped", "equal_text", 1, ("g",)),
    ]
