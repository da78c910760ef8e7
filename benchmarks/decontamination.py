"""Decontamination on a labelled fixture: each rule beside its controls, then speed, then real questions and pools.

The fixture is built twice: from made-up prose (the self-test that ships) and around real texts (newsgroups and sst2
as items, books and wikipedia as fillers). Settings are the defaults; none was chosen on these figures.
"""

import argparse
import gzip
import re
import time
from pathlib import Path

import numpy as np
import orjson

from collections_of_data import load
from evidence import write_section
from tamis.data import Corpus, Queries
from tamis.ingestion.contamination import Protected, least_matches
from tamis.ingestion.contamination_fixture import Fixture, SelfTest, build, generate, judge
from tamis.ingestion.contamination_passes import Marker, Marks, Sample
from tamis.ingestion.decontaminate import Decontaminate
from tamis.ops.hashing import text_keys, uniform
from tamis.ops.overlap import Overlap

DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
POOLS = ("newsgroups", "books", "wikipedia", "arxiv", "scipy", "medquad", "tldr", "tos")
QUESTIONS = ("cranfield", "cisi", "scifact-train", "onet", "cosqa-dev", "metatool", "stackfaq", "xquad-en")
SEEDS = (0, 1, 2, 3, 4)
HARD = ("enacting_clause", "quotation", "exercise_template", "formula", "licence_notice")
_WORD = re.compile(r"\w+")


def lines_of(name: str) -> list[dict[str, str]]:
    with gzip.open(DATA / name / "corpus.jsonl.gz", "rb") as file:
        return [orjson.loads(line) for line in file]


def drawn(texts: list[str], seed: int, count: int) -> list[str]:
    """Return ``count`` of the texts, by content-keyed draws."""
    order = np.argsort(uniform(text_keys(texts), seed, "sample"), kind="stable")[:count]
    return [texts[i] for i in order]


def real_parts() -> tuple[list[str], list[str], list[str]]:
    """Return distinct long items (13 to 40 words), short items (8 to 12) and fillers (15 to 60)."""
    paragraphs = {
        name: {
            " ".join(part.split())
            for row in lines_of(name)
            for part in row["text"].split("\n\n" if name != "wikipedia" else "\n")
        }
        for name in ("newsgroups", "books", "wikipedia")
    }
    with gzip.open(DATA / "sst2" / "items.tsv.gz", "rt", encoding="utf-8") as file:
        reviews = {line.split("\t")[0] for line in file.readlines()[1:]}
    size = {t: len(_WORD.findall(t)) for texts in (*paragraphs.values(), reviews) for t in texts}
    # A paragraph of words with letters: address blocks, tables and quoted headers are no test items.
    prose = {t for t in paragraphs["newsgroups"] if t[:1].isalpha() and t.endswith((".", "?", "!")) and ">" not in t}
    long = sorted(t for t in prose | reviews if 13 <= size[t] <= 40)
    short = sorted(t for t in reviews if 8 <= size[t] <= 12)
    fillers = sorted(t for t in paragraphs["books"] | paragraphs["wikipedia"] if 15 <= size[t] <= 60)
    return long, short, fillers


def paragraph_rule(fixture: Fixture, *, common: bool) -> np.ndarray:
    """The usual rule: a paragraph is contaminated when half of its own n-grams are protected ones.

    Paragraphs under 13 words match whole items; with ``common`` the same n-grams are left out as in the method.
    """
    items = [tuple(_WORD.findall(t.lower())) for t in fixture.protected.items["text"].to_pylist()]
    grams = {item[i : i + 13] for item in items for i in range(len(item) - 12)}
    short = {item for item in items if 3 <= len(item) < 13}
    table = fixture.corpus.table(["text", "source"])
    documents = [[tuple(_WORD.findall(p.lower())) for p in text.split("\n\n")] for text in table["text"].to_pylist()]
    sources = table["source"].to_pylist()
    counts: dict[tuple[str, tuple[str, ...]], int] = {}
    sizes = {source: sources.count(source) for source in set(sources)}
    for source, paragraphs in zip(sources, documents, strict=True):
        held = {p[i : i + 13] for p in paragraphs for i in range(len(p) - 12)} & grams
        for gram in held | (set(paragraphs) & short):
            counts[source, gram] = counts.get((source, gram), 0) + 1
    is_common = {key for key, n in counts.items() if common and n >= max(5, 0.005 * sizes[key[0]])}
    flags = []
    for source, paragraphs in zip(sources, documents, strict=True):
        shares = [0.0]
        for p in paragraphs:
            own = {p[i : i + 13] for i in range(len(p) - 12)} or {p}
            left = {g for g in own if (source, g) not in is_common}
            shares.append(len(left & (grams | short)) / len(own))
        flags.append(max(shares) >= 0.5)
    return np.array(flags)


def rules(fixture: Fixture, seed: int) -> dict[str, SelfTest]:
    """Judge every rule on one fixture."""
    method, plain = Decontaminate(), Decontaminate(source_common_frac=1.0, global_common_docs=10**9)
    flags = {
        "share of the paragraph": paragraph_rule(fixture, common=False),
        "share of the paragraph, common n-grams left out": paragraph_rule(fixture, common=True),
        "share of the item": plain.find(fixture.corpus, seed=seed, protect=fixture.protected).is_contaminated,
        "**share of the item, common n-grams left out** (the method)": method.find(
            fixture.corpus, seed=seed, protect=fixture.protected
        ).is_contaminated,
    }
    return {name: judge(f, fixture, seed=seed) for name, f in flags.items()}


def share(results: list[SelfTest], families: tuple[str, ...]) -> str:
    rows = [r for result in results for r in result.families.to_pylist() if r["family"] in families]
    return f"{sum(r['num_flagged'] for r in rows)}/{sum(r['num_docs'] for r in rows)}"


def fixture_table(name: str, found: list[dict[str, SelfTest]]) -> list[str]:
    lines = [
        f"**{name}**, {len(found)} seeds, all documents of all seeds together:",
        "",
        "| rule | precision | recall | verbatim | wrapped | inline, long | inline, short | inline under a common head "
        "| hard negatives flagged | clean flagged | 1 word in 8 edited | first 70 % | first 30 % |",
        "|" + " --- |" * 13,
    ]
    for rule in found[0]:
        results = [f[rule] for f in found]
        cells = [f"{np.mean([r.precision for r in results]):.3f}", f"{np.mean([r.recall for r in results]):.3f}"]
        families = [("long_verbatim", "short_verbatim"), ("long_wrapped", "short_wrapped"), ("long_inline",)]
        families += [("short_inline",), ("headed_inline",), HARD, ("filler",), ("long_edited",), ("long_part",)]
        cells += [share(results, f) for f in [*families, ("long_fragment",)]]
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    ours = [list(f.values())[-1] for f in found]
    control = [np.mean([getattr(r, f"control_{n}") for r in ours]) for n in ("precision", "recall")]
    lines.append(f"| random flags, as many as the method's | {control[0]:.3f} | {control[1]:.3f} |" + " |" * 10)
    return [*lines, ""]


def pool(names: tuple[str, ...]) -> Corpus:
    rows = [
        {"doc_id": f"{name}/{i}", "title": r.get("title", ""), "text": r["text"], "source": name}
        for name in names
        for i, r in enumerate(lines_of(name))
        if r["text"]
    ]
    return Corpus.from_records(rows)


def speed_and_pools() -> list[str]:
    """Protect all scored questions against the real pools: what is flagged, by words in the item, and how fast."""
    corpus = pool(POOLS)
    records = [
        {"query_id": f"{name}/{i}", "text": text}
        for name in QUESTIONS
        for i, text in enumerate(load(name).queries.texts)
    ]
    protect = Protected.of(Queries.from_records(records))
    num_bytes = sum(len(t.as_py().encode()) for b in corpus.batches(["title", "text"]) for c in b.columns for t in c)
    method, seconds, marking = Decontaminate(), [], []
    for _ in range(3):
        start, cpu = time.perf_counter(), time.process_time()
        found = method.find(corpus, seed=0, protect=protect)
        seconds.append((time.process_time() - cpu, time.perf_counter() - start))
        overlap = Overlap(protect.items["text"].combine_chunks())
        sample = Sample(overlap, 0)
        sample.read(corpus, map)
        needed = least_matches(overlap.num_grams, method.min_coverage)
        marker = Marker(overlap, sample.common(0.005, 50), needed, sample.sources.numbers)
        marks = Marks(marker, protect, len(corpus))
        cpu = time.process_time()
        marks.read(corpus, map)
        marking.append(time.process_time() - cpu)
    megabytes = num_bytes / 1e6
    sizes = dict(zip(protect.items["item_id"].to_pylist(), overlap.num_tokens.tolist(), strict=True))
    lines = [
        f"**Speed.** {len(corpus):,} documents, {megabytes:.0f} MB, {len(protect.items):,} protected questions, one "
        f"thread, best of 3: marking {megabytes / min(marking):.0f} MB/s of CPU time; both passes with the sample "
        f"{megabytes / min(s[0] for s in seconds):.0f} MB/s (here nearly every document is in the sample of its "
        f"source: {', '.join(POOLS)}).",
        "",
        f"**Real questions against real pools** ({', '.join(QUESTIONS)}): not labelled; what the defaults would drop. "
        "Hits on items of few words are mostly phrases, not leaks: raise `min_short_tokens` where that matters.",
        "",
        "| words of the item | items | items with a hit | documents flagged by these | example |",
        "| --- | --- | --- | --- | --- |",
    ]
    hits = found.hits.to_pylist()
    for low, high in ((3, 3), (4, 4), (5, 7), (8, 12), (13, 999)):
        mine = [h for h in hits if low <= sizes[h["item_id"]] <= high]
        items = sum(low <= n <= high for n in sizes.values())
        shown = " ".join(mine[0]["excerpt"].split()).replace("|", "/")[:60] if mine else ""
        label = f"{low}" if low == high else f"{low} and more" if high == 999 else f"{low} to {high}"
        num_docs = len({h["doc_id"] for h in mine})
        lines.append(f"| {label} | {items} | {len({h['item_id'] for h in mine})} | {num_docs} | {shown} |")
    total = int(found.is_contaminated.sum())
    lines.append(
        f"\n{total:,} of {len(corpus):,} documents flagged ({total / len(corpus):.2%}); "
        f"{len(found.suppressed_common)} item-source pairs suppressed as common; {len(found.unprotectable)} "
        f"item-source pairs unprotectable; {found.num_collisions} hash collisions."
    )
    return lines


def main() -> None:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dry", action="store_true", help="print only")
    dry = parser.parse_args().dry
    made = [rules(generate(seed), seed) for seed in SEEDS]
    long, short, fillers = real_parts()
    real = []
    for seed in SEEDS:
        clean = drawn(fillers, seed, 3000)
        real.append(rules(build(drawn(long, seed, 200), drawn(short, seed, 69), clean, seed=seed), seed))
    text = "\n".join(
        [
            "## Decontamination (`benchmarks/decontamination.py`)",
            "",
            "Precision and recall over leaks (verbatim, own paragraph, wrapped at 8 words, inline, inline under a "
            "common head) and clean documents (hard negatives: enacting clause, quotation, exercise template, formula, "
            "licence notice, one item of each protected; fillers). The last three columns are limits, not counted: an "
            "edited copy has no common 13-gram left, a part of less than half should stay.",
            "",
            *fixture_table("Made-up prose (ships as the self-test)", made),
            *fixture_table("Around real texts: newsgroups and sst2 leaked into books and wikipedia", real),
            *speed_and_pools(),
        ]
    )
    print(text)
    if not dry:
        write_section("decontamination", text)


if __name__ == "__main__":
    main()
