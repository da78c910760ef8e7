"""Cost growth of `tamis select`: 10 MB, 100 MB and 1 GB of JSON lines, time and peak memory of the whole command.

Usage: python benchmarks/selection_scaling.py [--sizes 10 100 1000] [--workers 2] [--dry]
The pools repeat the shipped raw texts with a few words exchanged; the disk needs three times the largest.
"""

import argparse
import gzip
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from collections_of_data import DATA
from evidence import write_section

SETS = ("newsgroups", "arxiv", "books", "scipy", "medquad", "tldr", "wikipedia")
TARGET, NUM_TARGETS = "medquad", 100


def texts() -> Iterator[str]:
    """Yield title and text of all records, set after set."""
    for name in SETS:
        with gzip.open(DATA / name / "corpus.jsonl.gz", "rb") as file:
            for line in file:
                record = orjson.loads(line)
                yield f"{record.get('title', '')}\n{record['text'][:20_000]}".strip()


def write_pool(path: Path, num_bytes: int) -> int:
    """Write a pool of about this size; each round exchanges some words, so that no two records are equal."""
    written = number = 0
    with path.open("wb") as file:
        for turn in range(10_000):
            draws = np.random.default_rng(turn)
            for text in texts():
                words = text.split(" ")
                for at in draws.integers(0, len(words), 3):
                    words[at] = f"w{draws.integers(10**6)}"
                line = orjson.dumps({"_id": f"{turn}-{number}", "text": " ".join(words)}) + b"\n"
                file.write(line)
                written, number = written + len(line), number + 1
                if written >= num_bytes:
                    return number
    return number


def run(pool: Path, target: Path, out: Path, workers: int) -> tuple[float, float, float]:
    """Run the command in a process of its own; returns wall seconds, CPU seconds and peak MiB."""
    command = [str(Path(sys.executable).with_name("tamis")), "select", str(pool), "--target", str(target)]
    command += ["--budget", "5%", "--out", str(out), "--workers", str(workers), "--quiet"]
    started = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        raise SystemExit(f"tamis select ended with status {status}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000], help="MB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    rows = [
        "| MB | documents | wall s | CPU s | exponent of CPU | peak MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory(prefix="tamis-scaling-") as scratch:
        folder = Path(scratch)
        target = folder / "target.jsonl"
        with gzip.open(DATA / TARGET / "corpus.jsonl.gz", "rb") as file:
            target.write_bytes(b"".join(line for line, _ in zip(file, range(NUM_TARGETS), strict=False)))
        before: tuple[int, float] | None = None
        for size in options.sizes:
            pool = folder / "pool.jsonl"
            num_docs = write_pool(pool, size * 10**6)
            run(pool, target, folder / f"warm-{size}", options.workers) if before is None else None
            wall, cpu, peak = run(pool, target, folder / f"out-{size}", options.workers)
            grown = "" if before is None else f"{math.log(cpu / before[1]) / math.log(size / before[0]):.2f}"
            rows.append(f"| {size:,} | {num_docs:,} | {wall:.1f} | {cpu:.1f} | {grown} | {peak:.0f} |")
            print(rows[-1], flush=True)
            before = (size, cpu)
    text = "\n".join(
        [
            "## `tamis select` from 10 MB to 1 GB (`benchmarks/selection_scaling.py`)",
            "",
            f"The whole command in a process of its own (start, reading, scoring, writing), {options.workers} workers,",
            f"5 % of the words, {NUM_TARGETS} target documents, default method. From 512 MB on every shard is kept on",
            "the disk as well, to be resumed.",
            "",
            *rows,
        ]
    )
    print(text)
    if not options.dry:
        write_section("selection-scaling", text)


if __name__ == "__main__":
    main()
