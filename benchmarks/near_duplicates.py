"""Near copies: recall on planted edits, removals that nothing verifies, and CPU time beside datasketch and rensa.

The pool is the raw-text sets, title and text joined, documents of at least 100 words, cut at 20,000 characters, and
3,000 copies of drawn documents with 0, 1, 2, 5, 10 and 20 % of their words edited (a third replaced by a word of the
pool, a third followed by one, a third deleted). Peers get the same texts and do the usual: words by a regular
expression, shingles joined in Python, their signatures, their LSH, each near copy removed in favour of an earlier one.
A copy counts as found by a peer when its bucket query returns the original. All in one process, CPU time of one thread.

Usage: python benchmarks/near_duplicates.py [--peers FOLDER] [--docs N]; peers are installed with
pip install --target FOLDER datasketch rensa, and left out with a message where they cannot be imported.
"""

import argparse
import gc
import importlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from collections_of_data import DATA
from evidence import write_section

SETS = ("newsgroups", "arxiv", "books", "scipy", "medquad", "tldr", "wikipedia", "tos")
EDITS = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20)
NUM_COPIES = 3000
DATATROVE = 0.69
"""MB/s a core of datatrove 0.10.1 (14 x 8, 5 words), measured earlier on another corpus and machine, not here."""
WORD = re.compile(r"\w+")


def pool(limit: int | None) -> tuple[list[str], list[str], list[str]]:
    """Return ids, sources and texts."""
    import gzip

    ids, sources, texts = [], [], []
    for name in SETS:
        for line in gzip.open(DATA / name / "corpus.jsonl.gz", "rb"):
            record = orjson.loads(line)
            text = f"{record.get('title') or ''}\n{record['text']}".strip()[:20_000]
            if len(text.split()) >= 100:
                ids.append(f"{name}/{record['_id']}")
                sources.append(name)
                texts.append(text)
    if limit is not None:
        chosen = np.sort(np.random.default_rng(1).permutation(len(ids))[:limit])
        ids, sources, texts = ([x[i] for i in chosen] for x in (ids, sources, texts))
    return ids, sources, texts


def planted(texts: list[str], num_copies: int) -> tuple[list[int], list[float], list[str]]:
    """Return for each copy the row of its original, the share of edited words and the text."""
    rng = np.random.default_rng(0)
    words = [word for text in texts[::200] for word in text.split()]
    rows = rng.choice(len(texts), num_copies, replace=False).tolist()
    fracs, copies = [], []
    for number, row in enumerate(rows):
        frac = EDITS[number % len(EDITS)]
        out = []
        for word in re.split(r"(\s+)", texts[row]):
            if not word.strip() or rng.random() >= frac:
                out.append(word)
                continue
            kind = rng.integers(3)
            new = words[rng.integers(len(words))]
            out += [new] if kind == 0 else [word, " ", new] if kind == 1 else []
        fracs.append(frac)
        copies.append("".join(out))
    return rows, fracs, copies


def edit_distance(one: list[str], other: list[str]) -> int:
    """Return the word edit distance by the plain dynamic programme."""
    row = np.arange(len(other) + 1)
    codes: dict[str, int] = {}
    b = np.array([codes.setdefault(word, len(codes)) for word in other])
    for i, word in enumerate(one, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (b != codes.get(word, -1)))
        steps = np.arange(1, len(other) + 1)
        row = np.r_[i, np.minimum(np.minimum.accumulate(best - steps), i) + steps]
    return int(row[-1])


def num_unverified(texts: list[str], pairs: list[tuple[int, int]], min_same: float) -> int:
    """Count the pairs that an independent check in plain Python does not accept."""
    failed = 0
    for one, other in pairs:
        a, b = (WORD.findall(texts[row].replace("_", " ").lower()) for row in (one, other))
        failed += edit_distance(a, b) > (1 - min_same) * max(len(a), len(b)) + 2  # 2: words are cut by another table
    return failed


def shingles(text: str, width: int) -> list[str]:
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + width]) for i in range(max(1, len(words) - width + 1))]


def with_rensa(texts: list[str], width: int, num_perm: int, bands: int) -> list[list[int]]:
    rensa = importlib.import_module("rensa")
    index = rensa.RMinHashLSH(threshold=0.5, num_perm=num_perm, num_bands=bands)
    signatures = []
    for row, text in enumerate(texts):
        signature = rensa.RMinHash(num_perm=num_perm, seed=42)
        signature.update(shingles(text, width))
        index.insert(row, signature)
        signatures.append(signature)
    return [index.query(signature) for signature in signatures]


def with_datasketch(texts: list[str], width: int, num_perm: int, bands: int) -> list[list[int]]:
    datasketch = importlib.import_module("datasketch")
    index = datasketch.MinHashLSH(num_perm=num_perm, params=(bands, num_perm // bands))
    signatures = []
    for row, text in enumerate(texts):
        signature = datasketch.MinHash(num_perm=num_perm)
        signature.update_batch([s.encode() for s in shingles(text, width)])
        index.insert(row, signature, check_duplication=False)
        signatures.append(signature)
    return [index.query(signature) for signature in signatures]


def with_rensa_verified(texts: list[str], width: int, num_perm: int, bands: int) -> list[list[int]]:
    """Add what makes the removals comparable: each pair checked by the exact Jaccard similarity, 0.5 or more."""
    answers = with_rensa(texts, width, num_perm, bands)
    needed = [row for row, found in enumerate(answers) if len(found) > 1]
    sets = {row: set(shingles(texts[row], width)) for row in needed}
    checked = []
    for row, found in enumerate(answers):
        passed = []
        for other in found:
            if other < row:  # each pair once
                both = len(sets[row] & sets[other])
                if both >= 0.5 * (len(sets[row]) + len(sets[other]) - both):
                    passed.append(other)
        checked.append(passed)
    return checked


PEERS: list[tuple[str, Callable[..., list[list[int]]], int, int, int]] = [
    ("rensa 0.5, 5 words, 14 x 8", with_rensa, 5, 112, 14),
    ("rensa 0.5, 3 words, 64 x 4", with_rensa, 3, 256, 64),
    ("rensa 0.5, 3 words, 64 x 4, exact Jaccard >= .5", with_rensa_verified, 3, 256, 64),
    ("datasketch 2.0, 5 words, 14 x 8", with_datasketch, 5, 112, 14),
    ("datasketch 2.0, 3 words, 64 x 4", with_datasketch, 3, 256, 64),
]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def recalls(found: set[tuple[int, int]], originals: list[int], fracs: list[float], num_docs: int) -> list[float]:
    """Return the share of copies found together with their originals, a figure for each share of edits."""
    hits: dict[float, list[bool]] = {frac: [] for frac in EDITS}
    for number, (original, frac) in enumerate(zip(originals, fracs, strict=True)):
        hits[frac].append((original, num_docs + number) in found)
    return [float(np.mean(hits[frac])) for frac in EDITS]


def template_source(num_records: int) -> list[str]:
    """Return records of one template: 139 words, 21 of them random."""
    rng = np.random.default_rng(3)
    frame = [f"field{i}" for i in range(139)]
    records = []
    for _ in range(num_records):
        words = list(frame)
        for slot in np.linspace(3, 137, 21).astype(int):
            words[slot] = f"value{rng.integers(100_000)}"
        records.append(" ".join(words))
    return records


def wipe_out(ids: list[str], texts: list[str]) -> list[str]:
    """Return rows of a table: what is left of 10,000 records of one template among 20,000 documents."""
    from tamis.data import Corpus
    from tamis.errors import DataError
    from tamis.ingestion.minhash import MinHash

    records = template_source(10_000)
    corpus = Corpus.from_table(
        pa.table(
            {
                "doc_id": ids[:20_000] + [f"record-{i}" for i in range(len(records))],
                "text": texts[:20_000] + records,
                "source": ["pool"] * len(ids[:20_000]) + ["records"] * len(records),
            }
        )
    )
    none = np.zeros(0, np.uint64)

    def left(method: MinHash, common: np.ndarray | None) -> str:
        try:
            found = method.find(corpus, seed=0, common=common)
        except DataError as error:
            return f"stops: {str(error).splitlines()[0].split('; the largest')[0]}"
        return f"{next(r['docs'] - r['removed'] for r in found.sources.to_pylist() if r['source'] == 'records'):,}"

    return [
        f"| tamis | {left(MinHash(), None)} |",
        f"| no filter of common shingles (control) | {left(MinHash(), none)} |",
        f"| no filter, no guard (control) | {left(MinHash(max_source_removed_frac=1.0), none)} |",
    ]


def run_peer(name: str, texts: list[str], rest: tuple) -> tuple[float, set[tuple[int, int]]] | None:
    function, width, num_perm, bands = rest
    try:
        function(texts[:20], width, num_perm, bands)
    except ImportError as error:
        print(f"{name}: left out ({error}); pip install --target FOLDER datasketch rensa", file=sys.stderr)
        return None
    seconds, answers = timed(lambda: function(texts, width, num_perm, bands))
    pairs = {(min(int(o), row), max(int(o), row)) for row, found in enumerate(answers) for o in found if int(o) != row}
    print(f"{name}: {seconds:.1f} s, {len(pairs):,} pairs", file=sys.stderr)
    return seconds, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="folder with datasketch and rensa")
    parser.add_argument("--docs", type=int, help="at most so many documents of the pool")
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers.resolve()))

    from tamis.data import Corpus
    from tamis.ingestion.minhash import MinHash

    ids, sources, texts = pool(arguments.docs)
    originals, fracs, copies = planted(texts, min(NUM_COPIES, len(texts) // 4))
    num_docs = len(texts)
    everything = texts + copies
    table = pa.table(
        {
            "doc_id": ids + [f"copy-{i}" for i in range(len(copies))],
            "text": everything,
            "source": sources + [sources[row] for row in originals],
        }
    )
    corpus = Corpus.from_table(table)
    size = sum(len(text.encode()) for text in everything) / 1e6
    method = MinHash()
    method.find(corpus.select(np.arange(50)), seed=0)  # compiles

    rows = []
    seconds, found = timed(lambda: method.find(corpus, seed=0))
    pairs = {tuple(sorted(edge)) for edge in found.edges.tolist()}
    pairs |= {tuple(sorted(p)) for p in zip(found.removed.tolist(), found.representatives.tolist(), strict=True)}
    # copies of equal bytes share their leader's edges
    leads = dict(zip(found.removed.tolist(), found.representatives.tolist(), strict=True))
    for number, original in enumerate(originals):
        copy = num_docs + number
        if everything[copy] == everything[original] and leads.get(copy, copy) == leads.get(original, original):
            pairs.add((original, copy))
    rng = np.random.default_rng(0)
    removals = list(zip(found.removed.tolist(), found.representatives.tolist(), strict=True))
    short = [pair for pair in removals if max(len(everything[row]) for row in pair) < 6000]
    sample = [short[i] for i in rng.permutation(len(short))[:400]]
    unverified = num_unverified(everything, sample, method.min_same_words_frac)
    columns = " | ".join(f"{value:.3f}" for value in recalls(pairs, originals, fracs, num_docs))
    rows.append(
        f"| tamis, verified | {columns} | {found.num_candidates:,} | {len(found.removed):,} | "
        f"{unverified} of {len(sample)} | {seconds:.2f} | {size / seconds:.0f} | |"
    )
    for name, *rest in PEERS:
        result = run_peer(name, everything, tuple(rest))
        if result is None:
            continue
        peer_seconds, peer_pairs = result
        listed = [p for p in peer_pairs if max(len(everything[row]) for row in p) < 6000]
        drawn = [listed[i] for i in rng.permutation(len(listed))[:400]]
        wrong = num_unverified(everything, drawn, method.min_same_words_frac)
        columns = " | ".join(f"{value:.3f}" for value in recalls(peer_pairs, originals, fracs, num_docs))
        num_removed = len({max(pair) for pair in peer_pairs})
        rows.append(
            f"| {name} | {columns} | {len(peer_pairs):,} | {num_removed:,} | {wrong} of {len(drawn)} | "
            f"{peer_seconds:.2f} | {size / peer_seconds:.1f} | {peer_seconds / seconds:.1f} |"
        )
    head = (
        "| method | 0 % | 1 % | 2 % | 5 % | 10 % | 20 % | pairs | removed | unverified | CPU s | MB/s | beside tamis |"
    )
    lines = [
        "## Near copies (`benchmarks/near_duplicates.py`)",
        "",
        f"{len(everything):,} documents, {size:.0f} MB, {len(copies):,} of them planted copies; recall by share of "
        "edited words. Pairs: proposed by the buckets. Unverified: removals (for peers: pairs) of a sample that a "
        "plain edit distance does not accept at 80 % same words.",
        "",
        head,
        "| " + " | ".join(["---"] * (head.count("|") - 1)) + " |",
        *rows,
        "",
        f"Rejected candidates of tamis: {found.rejections}; largest bucket {found.largest_bucket}. Beside datatrove at "
        f"{DATATROVE} MB/s a core (measured earlier on another corpus and machine, not here): "
        f"{size / seconds / DATATROVE:.0f} times.",
        "",
        "10,000 records of one template among 20,000 documents:",
        "",
        "| | records left |",
        "| --- | --- |",
        *wipe_out(ids, texts),
    ]
    print("\n".join(lines))
    if not arguments.dry:
        write_section("near-duplicates", "\n".join(lines))


if __name__ == "__main__":
    main()
