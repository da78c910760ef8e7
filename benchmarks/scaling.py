"""Cost growth: one build each of 10^4, 10^5 and 10^6 short documents; time exponent and peak memory.

Documents are sentences of the raw pools with a fifth of their words exchanged, so that no two are equal and
the vocabulary keeps growing. Usage: python benchmarks/scaling.py [--sizes 10000 100000 1000000].
"""

import argparse
import gzip
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import orjson

from collections_of_data import DATA
from evidence import write_section

POOLS = ("wikipedia", "arxiv", "medquad", "newsgroups")


def sentences(limit: int = 200_000) -> list[list[str]]:
    """Return up to ``limit`` sentences of 8 to 40 words, as word lists, taken evenly from the pools."""
    from tamis.ops.text import sentence_spans

    found = []
    for pool in POOLS:
        count = 0
        for line in gzip.open(DATA / pool / "corpus.jsonl.gz", "rb"):
            text = orjson.loads(line)["text"]
            for start, stop in sentence_spans(text):
                words = text[start:stop].split()
                if 8 <= len(words) <= 40:
                    found.append(words)
                    count += 1
            if count >= limit // len(POOLS):
                break
    return found


def write_corpus(path: Path, num_docs: int, base: list[list[str]]) -> None:
    """Write ``num_docs`` varied sentences as JSON lines."""
    rng = np.random.default_rng(7)
    pool = [word for words in base[:: max(1, len(base) // 20_000)] for word in words]
    with path.open("wb") as file:
        for number in range(num_docs):
            words = list(base[number % len(base)])
            for position in np.flatnonzero(rng.random(len(words)) < 0.2):
                words[position] = pool[int(rng.integers(len(pool)))]
            record = {"_id": f"d{number}", "title": " ".join(words[:4]), "text": " ".join(words)}
            file.write(orjson.dumps(record) + b"\n")


def measure(corpus: Path, out: Path) -> dict[str, float]:
    """Build in a child process; return wall and CPU seconds, peak memory, index bytes and seconds a stage."""
    code = "import sys; from tamis.cli import main; sys.argv=['tamis',*sys.argv[1:]]; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code, "build", str(corpus), "--out", str(out), "--json"]
    answer = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    built = json.loads(answer.stdout)
    index_bytes = sum(p.stat().st_size for p in (out / "index").rglob("*") if p.is_file())
    stages = {s["name"]: s["seconds"] for s in built["stages"]}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": sum(stages.values()),
        "cpu": cpu,
        "peak_mib": built["peak_mib"],
        "index_mib": index_bytes / 2**20,
        **stages,
    }


def main() -> None:
    """Measure every size and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    sizes = parser.parse_args().sizes
    base = sentences()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            corpus = Path(folder) / f"{size}.jsonl"
            write_corpus(corpus, size, base)
            rows.append(measure(corpus, Path(folder) / f"engine-{size}"))
            print(size, rows[-1], flush=True)
            corpus.unlink()
    write_section("scaling", render(sizes, rows))


def exponent(sizes: list[int], rows: list[dict[str, float]], names: tuple[str, ...]) -> list[str]:
    """Return, for each size but the first, how the summed seconds grew: 1 is linear."""
    total = [sum(row[name] for name in names) for row in rows]
    grown = [math.log(b / a) for a, b in itertools.pairwise(total)]
    return ["", *(f"{g / math.log(b / a):.2f}" for g, (a, b) in zip(grown, itertools.pairwise(sizes), strict=True))]


def render(sizes: list[int], rows: list[dict[str, float]]) -> str:
    """Render the table with the exponents between neighbouring sizes."""
    stages = [name for name in rows[0] if name not in {"seconds", "cpu", "peak_mib", "index_mib"}]
    whole = exponent(sizes, rows, ("cpu",))
    linear = exponent(sizes, rows, ("ingest", "encode", "index"))
    unsampled = exponent(sizes, rows, ("ingest", "index"))
    head = ["documents", "build s", "CPU s", "exponent of CPU", "of ingest + encode + index", "of ingest + index"]
    head += [*(f"{s} s" for s in stages), "peak MiB", "index MiB"]
    lines = ["## Cost growth (`benchmarks/scaling.py`)", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for i, (size, row) in enumerate(zip(sizes, rows, strict=True)):
        cells = [f"{size:,}", f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", whole[i], linear[i], unsampled[i]]
        cells += [f"{row[s]:.1f}" for s in stages] + [f"{row['peak_mib']:.0f}", f"{row['index_mib']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines.append(
        "Exponents from one size to the next; 1 is linear. The encoder is fitted on at most 200,000 documents, queries "
        "are made from at most 50,000, weights are fitted in at most 20,000; ingestion and index see every document."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
