"""Kernels: MB of UTF-8 text per second of CPU time on one core, beside the same in plain Python.

Usage: OMP_NUM_THREADS=1 python benchmarks/kernels.py [--megabytes 60] [--dry]
"""

import argparse
import gzip
import re
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from collections_of_data import DATA
from evidence import write_section
from tamis.ops.bytes import minhash, token_hashes
from tamis.ops.hashing import array_keys
from tamis.ops.ngrams import count_ngrams, count_words, score_ngrams

SETS = ("newsgroups", "scipy", "medquad", "arxiv", "wikipedia")
TOKEN = re.compile(r"\w+|[^\w\s]+")
ROUNDS = 3


def texts_of(megabytes: float) -> list[str]:
    """Return about so many megabytes of real text, the sets one after another."""
    found: list[str] = []
    left = megabytes * 1e6
    for name in SETS:
        with gzip.open(DATA / name / "corpus.jsonl.gz") as lines:
            for line in lines:
                found.append(orjson.loads(line)["text"])
                left -= len(found[-1])
                if left < 0:
                    return found
    return found


def python_count(texts: list[str]) -> int:
    """Count hashed unigrams and bigrams the usual way: a regular expression, and a hash for each."""
    counts = np.zeros(1 << 18, np.int64)
    digest = xxhash.xxh3_64_intdigest
    for text in texts:
        tokens = TOKEN.findall(text.lower())
        grams = tokens + [f"{a} {b}" for a, b in pairwise(tokens)]
        np.add.at(counts, [digest(g.encode()) & 0x3FFFF for g in grams], 1)
    return int(counts.sum())


def python_tokens(texts: list[str]) -> int:
    """Find the tokens alone."""
    return sum(len(TOKEN.findall(text.lower())) for text in texts)


def speed(work: Callable[[], object], num_bytes: int, rounds: int = ROUNDS) -> float:
    """Return MB/s of CPU time, the best of some rounds."""
    best = np.inf
    for _ in range(rounds):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return num_bytes / 1e6 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    texts = texts_of(options.megabytes)
    array = pa.array(texts, pa.large_string())
    num_bytes = array.buffers()[2].size
    few = texts[:: max(1, len(texts) // 2000)]
    few_bytes = sum(len(t.encode()) for t in few)
    weights = np.zeros(1 << 18)
    # the same work: the two differ in the Unicode version of their tables alone
    np.testing.assert_allclose(count_ngrams(few, 1 << 18).sum(), python_count(few), rtol=1e-3)
    rows: list[tuple[str, Callable[[], object], int]] = [
        ("key of each text (XXH3-64)", lambda: array_keys(array), num_bytes),
        ("count words", lambda: count_words(array), num_bytes),
        ("hash of every token", lambda: token_hashes(array, words_only=False), num_bytes),
        ("count n-grams, 2^18 buckets", lambda: count_ngrams(array, 1 << 18), num_bytes),
        ("count n-grams, 10,000 buckets", lambda: count_ngrams(array, 10_000), num_bytes),
        ("score n-grams, 2^18 weights", lambda: score_ngrams(array, weights), num_bytes),
        ("MinHash, 256 hashes", lambda: minhash(array), num_bytes),
        ("MinHash, 112 hashes", lambda: minhash(array, num_hashes=112), num_bytes),
        ("Python: find tokens by regular expression", lambda: python_tokens(few), few_bytes),
        ("Python: count n-grams, 2^18 buckets", lambda: python_count(few), few_bytes),
    ]
    for _, work, _ in rows[:-2]:
        work()  # compile
    lines = [
        "## Kernels (`benchmarks/kernels.py`)",
        "",
        f"MB/s of CPU time on one core, best of {ROUNDS}, over {num_bytes / 1e6:.0f} MB of {', '.join(SETS)}; "
        "plain Python on a sample of it.",
        "",
        "| kernel | MB/s |",
        "|---|---|",
        *(f"| {name} | {speed(work, size):,.0f} |" for name, work, size in rows),
    ]
    text = "\n".join(lines)
    print(text)
    if not options.dry:
        write_section("kernels", text)


if __name__ == "__main__":
    main()
