"""Repeated substrings: recall and extent of pasted passages by length, controls, what the pool itself repeats, speed.

The pool is the raw-text sets, title and text joined, texts of at least 200 characters, cut at 20,000. 200 documents a
length are taken out of it; of each one run of words is pasted, at a place between two words, into two other documents.
A passage counts as found when the later document of the two (in the global order) has a repeat there; its extent is
the intersection over union, in bytes, with the repeats that touch it. The control pastes the same words, in
an order of its own into each document. Usage: OMP_NUM_THREADS=1 python benchmarks/substrings.py [--docs N] [--dry].
"""

import argparse
import gzip
import re
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from collections_of_data import DATA
from evidence import write_section
from tamis.data import Corpus
from tamis.ingestion.spans import restored
from tamis.ingestion.substring import RepeatedSubstrings
from tamis.ingestion.substring_find import global_order, outline
from tamis.ops import winnow

SETS = ("newsgroups", "arxiv", "books", "scipy", "medquad", "tldr", "wikipedia", "tos")
LENGTHS = (50, 60, 75, 99, 120)
NUM_PASSAGES = 200
ROUNDS = 3
PLAIN_BYTES = 10_000_000
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Pasted:
    """A passage of ``length`` words that stands in two rows, at these bytes."""

    length: int
    rows: tuple[int, int]
    starts: tuple[int, int]
    stops: tuple[int, int]


def pool(limit: int | None) -> tuple[list[str], list[str]]:
    """Return sources and texts."""
    sources, texts = [], []
    for name in SETS:
        for line in gzip.open(DATA / name / "corpus.jsonl.gz", "rb"):
            record = orjson.loads(line)
            text = f"{record.get('title') or ''}\n{record['text']}".strip()[:20_000]
            if len(text) >= 200:
                sources.append(name)
                texts.append(text)
    if limit is not None:
        chosen = np.sort(np.random.default_rng(1).permutation(len(texts))[:limit]).tolist()
        sources, texts = [sources[i] for i in chosen], [texts[i] for i in chosen]
    return sources, texts


def corpus_of(sources: list[str], texts: list[str]) -> Corpus:
    ids = [f"{source}/{row}" for row, source in enumerate(sources)]
    return Corpus.from_table(pa.table({"doc_id": ids, "text": texts, "source": sources}))


def planted(sources: list[str], texts: list[str], *, shuffled: bool) -> tuple[Corpus, list[Pasted]]:
    """Paste passages of taken-out documents into two hosts each; the words of each copy shuffled, if asked."""
    rng = np.random.default_rng(0)
    long = np.array([row for row, text in enumerate(texts) if len(WORD.findall(text)) >= max(LENGTHS)])
    given = long[rng.permutation(len(long))[: NUM_PASSAGES * len(LENGTHS)]].tolist()
    others = np.setdiff1d(np.arange(len(texts)), given)
    hosts = others[rng.permutation(len(others))[: 2 * len(given)]].tolist()
    texts, placed = list(texts), []
    for number, row in enumerate(given):
        length = LENGTHS[number % len(LENGTHS)]
        words = WORD.findall(texts[row])
        first = int(rng.integers(len(words) - length + 1))
        passage = words[first : first + length]
        mixed = [[passage[i] for i in rng.permutation(length)] for _ in range(2)]
        rows, starts, stops = hosts[2 * number : 2 * number + 2], [], []
        for host, chosen in zip(rows, mixed if shuffled else (passage, passage), strict=True):
            blanks = [match.end() for match in re.finditer(r"\s+", texts[host])]
            at = blanks[rng.integers(len(blanks))] if blanks else 0
            pasted = " ".join(chosen)
            starts.append(len(texts[host][:at].encode()))
            stops.append(starts[-1] + len(pasted.encode()))
            texts[host] = f"{texts[host][:at]}{pasted} {texts[host][at:]}"
        placed.append(Pasted(length, tuple(rows), tuple(starts), tuple(stops)))
    kept = np.ones(len(texts), np.bool_)
    kept[given] = False
    places = np.cumsum(kept) - 1
    placed = [Pasted(p.length, tuple(places[list(p.rows)].tolist()), p.starts, p.stops) for p in placed]
    stay = np.flatnonzero(kept).tolist()
    return corpus_of([sources[i] for i in stay], [texts[i] for i in stay]), placed


def scores(corpus: Corpus, placed: list[Pasted], method: RepeatedSubstrings) -> dict[int, tuple[float, float]]:
    """Return recall and mean extent of the found passages, by length."""
    repeats = method.find(corpus, seed=0)
    by_doc = defaultdict(list)
    for batch in corpus.batches():
        for row in method.marks(batch, repeats).to_pylist():
            by_doc[row["doc_id"]].append((row["start"], row["stop"]))
    ids = corpus.doc_ids.to_pylist()
    order = global_order(outline(corpus, workers=1))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    found, extents = defaultdict(list), defaultdict(list)
    for p in placed:
        later = int(ranks[p.rows[1]] > ranks[p.rows[0]])
        start, stop = p.starts[later], p.stops[later]
        touching = [(a, b) for a, b in by_doc[ids[p.rows[later]]] if a < stop and b > start]
        found[p.length].append(bool(touching))
        if touching:
            low, high = min(a for a, _ in touching), max(b for _, b in touching)
            covered = len({x for a, b in touching for x in range(max(a, start), min(b, stop))})
            extents[p.length].append(covered / (max(high, stop) - min(low, start)))
    return {length: (float(np.mean(found[length])), float(np.mean(extents[length] or [0]))) for length in LENGTHS}


def plain_repeats(texts: list[str], width: int) -> int:
    """Count the windows of words that an earlier document has: every window in a dictionary of Python."""
    owner: dict[int, int] = {}
    repeated = 0
    for row, text in enumerate(texts):
        words = WORD.findall(text.lower())
        for start in range(len(words) - width + 1):
            repeated += owner.setdefault(hash(tuple(words[start : start + width])), row) != row
    return repeated


def cpu_seconds(work, rounds=ROUNDS):
    best, result = np.inf, None
    for _ in range(rounds):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


def by_source(corpus: Corpus, method: RepeatedSubstrings) -> list[str]:
    """Return rows of a table: what each set repeats, and what is left when it is cut."""
    result = method.sift(corpus, seed=0)
    whole = corpus.table(["doc_id", "text", "source"])
    back = restored(result.kept, result.spans).table(["doc_id", "text"]).to_pylist()
    texts = dict(zip(whole["doc_id"].to_pylist(), whole["text"].to_pylist(), strict=True))
    if any(texts[row["doc_id"]] != row["text"] for row in back):
        sys.exit("what was cut does not put the texts back")
    num_docs, size = Counter(whole["source"].to_pylist()), Counter()
    for source, length in zip(whole["source"].to_pylist(), pc.binary_length(whole["text"]).to_pylist(), strict=True):
        size[source] += length
    docs, spans, cut = Counter(), Counter(), Counter()
    seen = set()
    for row in result.spans.select(["doc_id", "start", "stop"]).to_pylist():
        source = row["doc_id"].split("/")[0]
        docs[source] += row["doc_id"] not in seen
        seen.add(row["doc_id"])
        spans[source] += 1
        cut[source] += row["stop"] - row["start"]
    dropped = Counter(doc_id.split("/")[0] for doc_id in result.dropped["doc_id"].to_pylist())
    dropped_bytes = Counter()
    for row in result.dropped.select(["source", "text"]).to_pylist():
        dropped_bytes[row["source"]] += len(row["text"].encode())
    return [
        f"| {name} | {num_docs[name]:,} | {docs[name]:,} | {spans[name]:,} | {100 * cut[name] / size[name]:.1f} % | "
        f"{dropped[name]:,} | {100 * dropped_bytes[name] / size[name]:.1f} % |"
        for name in SETS
        if num_docs[name]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=int, help="at most so many documents of the pool")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    sources, texts = pool(options.docs)
    method = RepeatedSubstrings()
    RepeatedSubstrings(action="remove").sift(corpus_of(sources[:200], texts[:200]), seed=0)  # compiles
    columns = []
    for shuffled in (False, True):
        corpus, placed = planted(sources, texts, shuffled=shuffled)
        columns.append(scores(corpus, placed, method))
    whole = corpus_of(sources, texts)
    array = pa.array(texts, pa.large_string())
    size = sum(len(text.encode()) for text in texts)
    seconds, repeats = cpu_seconds(lambda: method.find(whole, seed=0))
    sampling, _ = cpu_seconds(lambda: winnow.samples(array, method.num_tokens))
    few = texts[:: max(1, size // PLAIN_BYTES)]
    few_bytes = sum(len(text.encode()) for text in few)
    plain, num_windows = cpu_seconds(lambda: plain_repeats(few, method.num_tokens), 1)
    beside, _ = cpu_seconds(lambda: method.find(corpus_of(["few"] * len(few), few), seed=0))
    lines = [
        "## Repeated substrings (`benchmarks/substrings.py`)",
        "",
        f"{len(texts):,} documents, {size / 1e6:.0f} MB; {NUM_PASSAGES} passages a length, each pasted into two "
        f"documents; windows of {method.num_tokens} words, every run of {2 * method.num_tokens - 1} is to be found. "
        "Control: the words of each copy shuffled.",
        "",
        "| words in the passage | recall | extent (mean IoU of those found) | recall of the control |",
        "| --- | --- | --- | --- |",
        *(
            f"| {length} | {columns[0][length][0]:.3f} | {columns[0][length][1]:.3f} | {columns[1][length][0]:.3f} |"
            for length in LENGTHS
        ),
        "",
        f"The pool without pasted passages, one core: {size / 1e6 / seconds:.0f} MB/s of CPU time in all, "
        f"{size / 1e6 / sampling:.0f} MB/s for sampling alone; {repeats.num_samples:,} windows sampled, "
        f"{repeats.num_shared:,} of them in a document ahead, {repeats.num_unequal:,} with equal hashes and other "
        f"words. Every window in a dictionary of Python, on {few_bytes / 1e6:.0f} MB: "
        f"{few_bytes / 1e6 / plain:.1f} MB/s ({num_windows:,} repeated windows), here "
        f"{few_bytes / 1e6 / beside:.0f} MB/s on the same.",
        "",
        'What the pool repeats by itself, action "remove" (putting the spans back gave the texts as they were). Share '
        "of the bytes of the set:",
        "",
        "| set | documents | with a span cut | spans | cut | nothing else left | of the bytes |",
        "| --- " * 7 + "|",
        *by_source(whole, RepeatedSubstrings(action="remove")),
    ]
    print("\n".join(lines))
    if not options.dry:
        write_section("substrings", "\n".join(lines))


if __name__ == "__main__":
    main()
