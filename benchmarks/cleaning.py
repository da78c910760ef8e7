"""Cleaning: quality presets on real text and planted junk, frequent lines, and the speed of the kernels.

Junk pages are generated (menus, keyword lists, repeated lines, filler text) from the words of the pools; boilerplate
blocks are planted at the ends of documents. Usage: python benchmarks/cleaning.py [--dry].
"""

import argparse
import gzip
import re
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import orjson
import pyarrow as pa

from collections_of_data import DATA
from evidence import write_section
from tamis.data import Corpus
from tamis.ingestion.c4 import C4Lines
from tamis.ingestion.lines import FrequentLines
from tamis.ingestion.quality import C4Documents, FineWebLines, GopherQuality, GopherRepetition, Quality, Rules
from tamis.ops import lines as line_ops
from tamis.ops import textstats
from tamis.ops.bytes import minhash
from tamis.ops.language import document_languages

POOLS = ("wikipedia", "books", "medquad", "newsgroups", "arxiv", "tos", "tldr", "scipy")
NUM_JUNK = 500
SEED = 3
PLANTED = (
    "Home\nProducts\nAbout us\nContact\nSign in",
    "Copyright 2024 Example Corporation, all rights reserved. Do not copy without permission.",
    "Share this page\nPrint\nE-mail",
    "This file is part of the Example toolkit; see the file LICENSE for the terms that apply to it.\n"
    "There is no warranty, not even for fitness for a particular purpose.",
)
LICENCE = """You may use this file in your own work, whether you sell it or not, if you leave this notice in it.
You may change the file, and pass the changed file on, if you say in it that and when you have changed it.
You may not use the names of the authors to praise what you have made from it, unless they have agreed.
The file is given as it is, and nobody promises that it does what you need or what its manual says.
Nobody who has worked on it will pay for what you lose by using it, even if they were warned of the loss.
Where the law of your country does not allow this, the other lines of the notice remain as they are.
If you do not agree with a line of this notice, you have no right to copy the file, and should delete it.
Whoever gives you the file gives you the same rights in it that the authors have given to them.
Questions about these terms are answered by the office of the Example project, not by its authors.
A list of all who have worked on the file is kept with the sources and is a part of this notice.
Marks and pictures of the project are not covered by this notice; ask the office before you use them.
The English wording of the notice counts, also where a translation of it is passed on with the file."""
LINE_POOLS = ("newsgroups", "medquad", "scipy", "tos", "wikipedia")
FILLER = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore"


def read(name: str) -> Corpus:
    records = []
    for line in gzip.open(DATA / name / "corpus.jsonl.gz", "rb"):
        record = orjson.loads(line)
        if record["text"]:
            records.append({"doc_id": f"{name}/{record['_id']}", "text": record["text"], "source": name})
    return Corpus.from_records(records)


def junk_pages(words: list[str]) -> list[str]:
    """Return NUM_JUNK pages of four kinds in turn."""
    rng = np.random.default_rng(SEED)

    def pick(num: int) -> list[str]:
        return [words[i] for i in rng.integers(len(words), size=num)]

    pages = []
    for number in range(NUM_JUNK):
        kind = number % 4
        if kind == 0:
            page = "\n".join(" ".join(pick(int(rng.integers(1, 4)))).title() for _ in range(int(rng.integers(20, 80))))
        elif kind == 1:
            page = ", ".join(pick(int(rng.integers(60, 300))))
        elif kind == 2:
            line = " ".join(pick(int(rng.integers(5, 12)))) + "."
            page = "\n".join([line] * int(rng.integers(8, 40)))
        else:
            filler = FILLER.split()
            page = ". ".join(
                " ".join(filler[i] for i in rng.integers(len(filler), size=12)).capitalize()
                for _ in range(int(rng.integers(6, 20)))
            )
            page = f"Lorem ipsum dolor sit amet. {page}."
        pages.append(page)
    return pages


def planted_junk(corpora: dict[str, Corpus]) -> str:
    """Return the table of rules against junk among wikipedia and newsgroups."""
    texts = [t for name in ("wikipedia", "newsgroups") for t in corpora[name].table(["text"])["text"].to_pylist()]
    words = sorted({w for t in texts[:2000] for w in re.findall(r"[a-z]{3,12}", t.lower())})
    num_good = len(texts)
    pages = junk_pages(words)
    array = pa.array([*texts, *pages], pa.large_string())
    values = textstats.statistics(array)
    is_junk = np.arange(len(array)) >= num_good
    rules: dict[str, Rules] = {
        "preset web": Quality(preset="web"),
        "preset web without its size rules": Quality(
            preset="web", words=GopherQuality(num_words=(0, 100_000)), documents=C4Documents(min_sentences=0)
        ),
        "preset documents (default)": Quality(),
        "preset code": Quality(preset="code"),
        "GopherQuality alone": GopherQuality(),
        "GopherRepetition alone": GopherRepetition(),
        "FineWebLines alone": FineWebLines(),
        "C4Documents alone": C4Documents(),
    }
    lines = [
        f"{NUM_JUNK} generated junk pages among {num_good:,} documents of wikipedia and newsgroups; 1:1 is the "
        "precision with as many real documents as junk pages. The control drops as many documents at random.",
        "",
        "| rules | dropped | recall on junk | menus | keyword lists | repeated lines | filler | real documents dropped "
        "| precision | precision 1:1 | precision of the control |",
        "| --- " * 11 + "|",
    ]
    rng = np.random.default_rng(SEED)
    for name, rule in rules.items():
        gone = rule.judge(array, values).failed.any(axis=1)
        hit, false = gone[is_junk], gone[~is_junk].mean()
        control = np.zeros(len(gone), dtype=bool)
        control[rng.permutation(len(gone))[: gone.sum()]] = True
        kinds = " | ".join(f"{hit[kind::4].mean():.3f}" for kind in range(4))
        precision = hit.sum() / max(gone.sum(), 1)
        even = hit.mean() / max(hit.mean() + false, 1e-9)
        random = (control & is_junk).sum() / max(control.sum(), 1)
        lines.append(
            f"| {name} | {gone.sum()} | {hit.mean():.3f} | {kinds} | {false:.2%} | {precision:.3f} | {even:.3f} "
            f"| {random:.3f} |"
        )
    return "\n".join(lines)


def drop_rates(corpora: dict[str, Corpus]) -> str:
    """Return the table of what each preset drops from each pool, and the commonest reasons."""
    lines = [
        "| pool | documents | documents (default) | commonest reasons | code | web | commonest reasons "
        "| C4Lines, documents | C4Lines, bytes of the rest |",
        "| --- " * 9 + "|",
    ]
    for name, corpus in corpora.items():
        cells = []
        for preset in ("documents", "code", "web"):
            result = Quality(preset=preset).sift(corpus, seed=SEED)
            cells.append(f"{len(result.dropped) / len(corpus):.2%}")
            if preset != "code":
                most = sorted(((r["num_docs"], r["reason"]) for r in result.rules.to_pylist()), reverse=True)[:2]
                cells.append(", ".join(f"{reason} {num}" for num, reason in most))
        edited = C4Lines().sift(corpus, seed=SEED)
        removed = sum((s["stop"] - s["start"]) for s in edited.spans.select(["start", "stop"]).to_pylist())
        left = edited.kept.table(["text"]).nbytes
        cells += [f"{len(edited.dropped) / len(corpus):.2%}", f"{removed / max(removed + left, 1):.1%}"]
        lines.append(f"| {name} | {len(corpus)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def slow_statistics(text: str) -> int:
    """Count words and n-grams the plain way; the control for speed."""
    words = re.findall(r"\w+", text.lower())
    total = len(Counter(text.split("\n")))
    for n in range(2, 11):
        total += len(Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1)))
    return total


def speed(corpora: dict[str, Corpus]) -> str:
    """Return MB/s per core, best of three in CPU time."""
    texts = corpora["wikipedia"].table(["text"])["text"].combine_chunks()
    size = texts.nbytes / 1e6
    sample = texts.slice(0, 1000).to_pylist()

    def rate(work: Callable[[], object], megabytes: float) -> str:
        best = 1e9
        for _ in range(3):
            start = time.process_time()
            work()
            best = min(best, time.process_time() - start)
        return f"{megabytes / best:.1f}"

    lines = ["| on wikipedia, one core | MB/s |", "| --- | --- |"]
    lines.append(f"| all 30 statistics of a document | {rate(lambda: textstats.statistics(texts), size)} |")
    plain = rate(lambda: [slow_statistics(t) for t in sample], sum(len(t.encode()) for t in sample) / 1e6)
    lines.append(f"| n-gram counts alone in plain Python (control) | {plain} |")
    lines.append(f"| language and script | {rate(lambda: document_languages(texts), size)} |")
    lines.append(f"| line hashes | {rate(lambda: line_ops.scan(texts), size)} |")
    whole = rate(lambda: Quality().sift(corpora["wikipedia"], seed=SEED), size)
    lines.append(f"| `Quality().sift`, result included | {whole} |")
    whole = rate(lambda: FrequentLines().sift(corpora["wikipedia"], seed=SEED), size)
    lines.append(f"| `FrequentLines().sift`, result included | {whole} |")
    return "\n".join(lines)


def collisions(texts: list[str]) -> int:
    """Count pairs of documents that share a band of 4 of 256 MinHash values, summed over the 64 bands."""
    signatures, _ = minhash(texts, num_hashes=256, width=3, seed=SEED)
    total = 0
    for band in range(64):
        keys = np.ascontiguousarray(signatures[:, 4 * band : 4 * band + 4]).view("V16").ravel()
        _, counts = np.unique(keys, return_counts=True)
        total += int((counts * (counts - 1) // 2).sum())
    return total


def without_random_lines(texts: list[str], num_bytes: int) -> list[str]:
    """Remove lines in random order until as many bytes are gone."""
    lines = line_ops.scan(texts)
    sizes = lines.stops - lines.starts
    order = np.random.default_rng(SEED).permutation(np.flatnonzero(~lines.blank))
    removed = np.zeros(len(sizes), dtype=bool)
    removed[order[: int(np.searchsorted(np.cumsum(sizes[order]), num_bytes))]] = True
    left: list[str] = line_ops.cut(texts, line_ops.spans_of(lines, removed)[0]).to_pylist()
    return left


def frequent_lines(corpora: dict[str, Corpus]) -> str:
    """Return the table of planted and natural boilerplate: what goes, and what near-duplicate search then sees."""
    lines = [
        "Four blocks (menus, a copyright line with changing years, a short notice) are planted at the ends of random "
        "documents, each in 5 %; with licence: a header of 12 lines in every second document besides. Pairs: documents "
        "that share a band of 4 of 256 MinHash values, summed over the 64 bands. The control removes random lines of "
        "the same number of bytes.",
        "",
        "| pool | planted lines removed | other bytes removed | documents dropped | pairs before | after | control |",
        "| --- " * 7 + "|",
    ]
    rng = np.random.default_rng(SEED)
    for name, is_licensed in [*((n, False) for n in LINE_POOLS), ("scipy", True), ("tldr", True)]:
        table = corpora[name].table()
        texts, planted = table["text"].to_pylist(), [""] * len(table)
        for row in range(0, len(texts) if is_licensed else 0, 2):
            planted[row] += "\n" + LICENCE
        for block in PLANTED:
            for row in np.flatnonzero(rng.random(len(texts)) < 0.05).tolist():
                planted[row] += "\n" + block.replace("2024", str(int(rng.integers(1990, 2025))))
        dirty = [text + block for text, block in zip(texts, planted, strict=True)]
        column = pa.array(dirty, pa.large_string())
        corpus = Corpus.from_table(table.set_column(table.column_names.index("text"), "text", column))
        result = FrequentLines().sift(corpus, seed=SEED)
        block_lines = [len(block.encode().split(b"\n")) - 1 for block in planted]
        starts = [len(text.encode()) for text in texts]
        rows = corpus.rows_of(result.spans["doc_id"].combine_chunks())
        other = hits = 0
        for row, span in zip(rows.tolist(), result.spans.select(["start", "text"]).to_pylist(), strict=True):
            removed = span["text"].encode()
            at = max(0, starts[row] - span["start"])  # bytes of the document's own text
            other += len(removed[:at])
            hits += sum(1 for line in removed[at:].split(b"\n") if line)
        dropped = corpus.rows_of(result.dropped["doc_id"].combine_chunks()).tolist()
        total = sum(block_lines) - sum(block_lines[row] for row in dropped)
        kept = result.kept.table(["text"])["text"].to_pylist()
        gone = sum(map(len, (t.encode() for t in result.spans["text"].to_pylist())))
        keep = np.setdiff1d(np.arange(len(dirty)), dropped)
        before = [dirty[row] for row in keep.tolist()]
        control = collisions(without_random_lines(before, gone))
        lines.append(
            f"| {name}{' with licence' if is_licensed else ''} | {hits / total:.3f} | {other / sum(starts):.2%} "
            f"| {len(dropped)} | {collisions(before):,} | {collisions(kept):,} | {control:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="print only")
    chosen = parser.parse_args()
    corpora = {name: read(name) for name in POOLS}
    text = "\n\n".join(
        [
            "## Cleaning (`benchmarks/cleaning.py`)",
            "### Planted junk",
            planted_junk(corpora),
            "### What presets drop from real text",
            drop_rates(corpora),
            "### Frequent lines",
            frequent_lines(corpora),
            "### Speed",
            speed(corpora),
        ]
    )
    print(text)
    if not chosen.dry:
        write_section("cleaning", text)


if __name__ == "__main__":
    main()
