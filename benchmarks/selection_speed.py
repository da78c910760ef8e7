"""Speed of `tamis select` beside the published implementation of DSIR, on one file of real text.

Usage: python benchmarks/selection_speed.py [--megabytes 100] [--peers FOLDER] [--workers 2] [--dry]

FOLDER holds the package of the DSIR authors (`pip install --target FOLDER data-selection`); it is left out when absent.
"""

import argparse
import gzip
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import orjson
from scipy.stats import spearmanr

from collections_of_data import DATA
from evidence import write_section
from tamis.ops.hashing import splitmix64
from tamis.ops.linear import named_features
from tamis.ops.ngrams import count_ngrams, feature_buckets, score_ngrams
from tamis.pipeline import curate
from tamis.selection import DSIR, Budget
from tamis.selection.dsir import paper_weights

SETS = ("newsgroups", "scipy", "medquad", "arxiv", "wikipedia", "tos")
TARGET_SET, TARGET_STEP = "medquad", 150  # every 150th of its documents is the target, and not in the pool
KEPT_FRAC = 0.05
ROUNDS = 3
SAMPLE_STEP = 10
BUCKETS = (10_000, 100_000)  # the package's own number, and one at which chance matters little
PEER = """
import sys, time
from data_selection import HashedNgramDSIR
pool, target, cache, out, num, workers, buckets = sys.argv[1:]
started = time.perf_counter()
dsir = HashedNgramDSIR([pool], [target], cache_dir=cache, num_proc=int(workers), num_buckets=int(buckets))
dsir.fit_importance_estimator()
dsir.compute_importance_weights()
dsir.resample(out_dir=out, num_to_sample=int(num), cache_dir=out + ".cache")
print(time.perf_counter() - started)
"""


@dataclass(frozen=True)
class Run:
    """Seconds of one run: on the wall, and of all its processes and threads together."""

    name: str
    wall: float
    cpu: float


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho of weights at a number of buckets: ours to the package's, and what of it is formula or hash.

    ``same_hash`` is our tokens and formula under the package's hash, to the package; ``other_hash`` is ours to ours
    under another hash function: what chance allows.
    """

    buckets: int
    package: float
    same_hash: float
    other_hash: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--peers", type=Path, help="folder with the package data_selection")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tamis-speed-") as name:
        folder = Path(name)
        num_docs = write_inputs(folder, options.megabytes)
        num_bytes = (folder / "pool.jsonl").stat().st_size
        print(f"{num_docs:,} documents, {num_bytes / 1e6:.1f} MB, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        budget = Budget(docs=int(num_docs * KEPT_FRAC))
        ours = [*warm_runs(folder, budget, options.workers), cold_run(folder, budget, options.workers)]
        same = same_bytes(folder, budget)
        peer, agreement = None, []
        if options.peers is None or not (options.peers / "data_selection").is_dir():
            print("no package data_selection under --peers: its row is left out", file=sys.stderr)
        else:
            peer = peer_run(folder / "pool.jsonl", folder, options.peers, budget.docs, options.workers)
            agreement = [weights_agree(folder, options.peers, buckets) for buckets in BUCKETS]
        text = table(num_docs, num_bytes, ours, peer, agreement, same, options.workers)
    print(text)
    if not options.dry:
        write_section("selection-speed", text)


def documents() -> Iterator[tuple[str, str, str]]:
    """Yield (set, id, title and text) of all sets, again from the start with other ids when they are used up."""
    lap = 0
    while True:
        for name in SETS:
            with gzip.open(DATA / name / "corpus.jsonl.gz") as lines:
                for line in lines:
                    values = orjson.loads(line)
                    title, text = values.get("title", ""), values["text"]
                    yield name, f"{name}-{lap}-{values['_id']}", f"{title}\n{text}" if title else text
        lap += 1


def write_inputs(folder: Path, megabytes: float) -> int:
    """Write pool.jsonl and target.jsonl, one text field each; return the documents of the pool."""
    num_docs = num_seen = num_bytes = 0
    with (folder / "pool.jsonl").open("wb") as pool, (folder / "target.jsonl").open("wb") as target:
        for name, doc_id, text in documents():
            line = orjson.dumps({"_id": doc_id, "text": text}) + b"\n"
            if name == TARGET_SET:
                num_seen += 1
                if num_seen % TARGET_STEP == 0:
                    target.write(line)
                    continue
            pool.write(line)
            num_docs, num_bytes = num_docs + 1, num_bytes + len(line)
            if num_bytes >= megabytes * 1e6:
                return num_docs
    raise AssertionError


def select(folder: Path, out: str, selector: DSIR, workers: int) -> Path:
    """Run `tamis select` in this process into a new folder."""
    shutil.rmtree(folder / out, ignore_errors=True)
    curate.select([str(folder / "pool.jsonl")], folder / out, selector, [str(folder / "target.jsonl")], workers=workers)
    return folder / out


def warm_runs(folder: Path, budget: Budget, workers: int) -> list[Run]:
    """Time both modes in this process, after one run that compiles and loads."""
    select(folder, "warm", DSIR(budget=budget), workers)
    runs = []
    for mode in ("paper", "small_target"):
        selector = DSIR(mode=mode, budget=budget)
        name = f"tamis, mode {mode}, in process"
        runs.append(timed(name, time.process_time, lambda s=selector: select(folder, "warm", s, workers)))
    return runs


def cold_run(folder: Path, budget: Budget, workers: int) -> Run:
    """Time the command line, the start of the interpreter included.

    A first run, which is not counted, writes the bytecode that an installed package has from the beginning.
    """
    out = folder / "cold"
    command = [
        str(Path(sys.executable).with_name("tamis")),
        "select",
        str(folder / "pool.jsonl"),
        "--out",
        str(out),
        "--quiet",
    ]
    command += ["--method", "dsir-paper", "--target", str(folder / "target.jsonl")]
    command += ["--budget", f"{budget.docs}docs", "--workers", str(workers)]

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def work() -> None:
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)

    work()
    return timed("tamis, mode paper, command line", children_seconds, work)


def timed(name: str, cpu_seconds: Callable[[], float], work: Callable[[], object]) -> Run:
    """Return the medians of ROUNDS runs."""
    walls, cpus = [], []
    for _ in range(ROUNDS):
        cpu, wall = cpu_seconds(), time.perf_counter()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(cpu_seconds() - cpu)
    return Run(name, median(walls), median(cpus))


def children_seconds() -> float:
    """Return the CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peer_run(pool: Path, folder: Path, peers: Path, num_kept: int, workers: int, buckets: int = 10_000) -> Run:
    """Time fit, weights and resampling of the authors' package; its wall time leaves out the imports."""
    for old in ("peer-cache", "peer-out", "peer-out.cache"):
        shutil.rmtree(folder / old, ignore_errors=True)
    values = [pool, folder / "target.jsonl", folder / "peer-cache", folder / "peer-out", num_kept, workers, buckets]
    arguments = [str(value) for value in values]
    started = children_seconds()
    done = subprocess.run(
        [sys.executable, "-c", PEER, *arguments],
        env={**os.environ, "PYTHONPATH": str(peers)},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return Run("data-selection (its authors' package)", float(done.stdout), children_seconds() - started)


def weights_agree(folder: Path, peers: Path, buckets: int) -> Agreement:
    """Compare the paper's weights, without noise, of a sample of the pool's documents."""
    sample, target = folder / "sample.jsonl", folder / "target.jsonl"
    with (folder / "pool.jsonl").open("rb") as lines, sample.open("wb") as out:
        out.writelines(islice(lines, 0, None, SAMPLE_STEP))
    peer_run(sample, folder, peers, 10, 1, buckets)
    theirs = np.load(folder / "peer-cache" / "log_importance_weights" / "0.npy")
    texts, targets = ([orjson.loads(line)["text"] for line in path.open("rb")] for path in (sample, target))
    weights_V = paper_weights(count_ngrams(texts, buckets), count_ngrams(targets, buckets))
    ours = score_ngrams(texts, weights_V)[0]
    pool, wanted = (feature_buckets(t, 1 << 31) for t in (texts, targets))  # as good as n-grams
    other = weights_of(*((mixed(found, buckets), starts) for found, starts in (pool, wanted)), buckets)
    same = weights_of(*(package_features(t, buckets) for t in (texts, targets)), buckets)
    return Agreement(
        buckets, *(float(spearmanr(*pair).statistic) for pair in ((ours, theirs), (same, theirs), (ours, other)))
    )


def mixed(features: np.ndarray, buckets: int) -> np.ndarray:
    """Return other buckets of the same features."""
    return (splitmix64(features.astype(np.uint64)) % buckets).astype(np.int64)


def package_features(texts: list[str], buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Return our features of all texts under the package's hash (SHA-256 modulo the buckets), and where each begins."""

    @cache
    def bucket(name: str) -> int:
        return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % buckets

    found = [[bucket(name) for name, _ in named_features(text, buckets)] for text in texts]
    return np.concatenate([np.array(f, np.int64) for f in found]), np.r_[0, np.cumsum([len(f) for f in found])]


def weights_of(pool: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], buckets: int) -> np.ndarray:
    """Return the paper's weight of each text of the pool from buckets and starts, added in plain numpy."""
    counts = (np.bincount(features, minlength=buckets) for features, _ in (pool, target))
    before = np.r_[0.0, np.cumsum(paper_weights(*counts)[pool[0]])]
    return before[pool[1][1:]] - before[pool[1][:-1]]


def same_bytes(folder: Path, budget: Budget) -> bool:
    """Say whether 1, 2 and 8 workers, and one more run, write the same files; manifests hold the seconds."""
    digests = set()
    for mode in ("paper", "small_target"):
        for workers in (1, 2, 8, 1):
            out = select(folder, "same", DSIR(mode=mode, budget=budget), workers)
            found = hashlib.sha256()
            for path in sorted(p for p in out.rglob("*") if p.is_file() and p.name != "manifest.json"):
                found.update(f"{path.relative_to(out)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
            digests.add((mode, found.hexdigest()))
    return len(digests) == 2


def table(
    num_docs: int,
    num_bytes: int,
    ours: list[Run],
    peer: Run | None,
    agreement: list[Agreement],
    same: bool,
    workers: int,
) -> str:
    """Return the section of docs/evidence.md."""
    lines = [
        "## Speed of selection (`benchmarks/selection_speed.py`)",
        "",
        f"{num_docs:,} documents, {num_bytes / 1e6:.0f} MB of JSON lines of {', '.join(SETS)}; {KEPT_FRAC:.0%} of the "
        f"documents kept; {workers} workers each. From the file to the kept file; tamis also writes scores, reasons, "
        f"ledger and report, and waits for the disk. Medians of {ROUNDS} runs (the package: one, its imports left "
        "out; the command line: start and end of the process counted, bytecode and kernels compiled before).",
        "",
        "| run | wall s | CPU s | MB/s of wall | package's wall / its wall | package's CPU / its CPU |",
        "|---|---|---|---|---|---|",
    ]
    for run in [*([peer] if peer else []), *ours]:
        ratios = (peer.wall / run.wall, peer.cpu / run.cpu) if peer else (float("nan"), float("nan"))
        lines.append(
            f"| {run.name} | {run.wall:.2f} | {run.cpu:.2f} | {num_bytes / 1e6 / run.wall:,.1f} "
            f"| {ratios[0]:.1f} | {ratios[1]:.1f} |"
        )
    lines += ["", f"Same files for 1, 2 and 8 workers and again: {'yes' if same else 'NO'}."]
    if agreement:
        lines += [
            "",
            f"Spearman's rho of the weights of mode paper, every {SAMPLE_STEP}th document. Under the package's hash "
            "(SHA-256) what is missing to 1 is formula and tokens; the last column is what another hash alone changes:",
            "",
            "| buckets | to the package | under the package's hash, to the package | to ours under another hash |",
            "|---|---|---|---|",
            *(f"| {a.buckets:,} | {a.package:.4f} | {a.same_hash:.4f} | {a.other_hash:.4f} |" for a in agreement),
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
