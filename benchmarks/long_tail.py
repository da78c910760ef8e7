"""Coverage: which kinds of text of a long-tailed pool a small selection holds, by clusters, k-center and RDS+.

Usage: python benchmarks/long_tail.py [--draws 8] [--dev] [--dry]
A pool is a public set, its categories drawn down so that the r-th largest is 1 / r^1.5 of the largest; which category
is large changes with the draw. The encoder is trained on the pool. --dev: the sets on which the defaults were chosen.
"""

import argparse
import gzip
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import orjson

from collections_of_data import DATA
from evidence import write_section
from tamis import StaticSVD
from tamis.data import Corpus
from tamis.ops.hashing import text_keys, uniform
from tamis.ops.ngrams import count_words
from tamis.selection import DSIR, Budget, Selector, Uniform
from tamis.selection.coverage import ClusterCoverage, KCenter
from tamis.selection.nearest import TfidfNearest
from tamis.selection.rds import RDSPlus
from tamis.selection.vectors import VectorPool, VectorSelector

SETS, DEV_SETS = ("newsgroups", "scipy", "books"), ("arxiv", "medquad")
LARGEST, SMALLEST, STEEPNESS = 1000, 5, 1.5
BUDGETS = (50, 150)
TAIL_FRAC = 0.5  # of the categories, the smaller ones
RARE = 2  # categories that the target of RDS+ is made of
EXAMPLES = 5  # of each
CONTROL = "Uniform"


@dataclass
class Pool:
    """A drawn pool: documents, categories by size (0 the largest), its vectors, and a target of two rare kinds."""

    corpus: Corpus
    ranks: np.ndarray
    words: np.ndarray
    vectors: VectorPool
    target: Corpus


def read(name: str) -> dict[str, list[dict[str, str]]]:
    """Return a set's documents of at least 200 characters by category."""
    groups: dict[str, list[dict[str, str]]] = {}
    with gzip.open(DATA / name / "corpus.jsonl.gz") as lines:
        for line in lines:
            row = orjson.loads(line)
            text = f"{row['title']}\n{row['text']}" if row.get("title") else row["text"]
            if len(text) >= 200:
                kind = (row.get("metadata") or {}).get("category", name)
                groups.setdefault(kind, []).append({"doc_id": f"{name}/{row['_id']}", "text": text[:5000]})
    return groups


def draw(name: str, groups: dict[str, list[dict[str, str]]], index: int) -> Pool:
    """Draw a long-tailed pool: the r-th category in a drawn order gives LARGEST / r^1.5, at least SMALLEST."""
    kinds = sorted(kind for kind, rows in groups.items() if len(rows) >= SMALLEST + EXAMPLES)
    order = np.argsort(uniform(text_keys([f"{name} {index} {kind}" for kind in kinds]), 0, "sample"))
    drawn, held = [], []
    for place, at in enumerate(order.tolist(), 1):
        rows = groups[kinds[at]]
        keys = text_keys([f"{index} {row['doc_id']}" for row in rows])
        rows = [rows[row] for row in np.argsort(uniform(keys, 0, "sample")).tolist()]
        size = min(len(rows) - EXAMPLES, max(SMALLEST, int(LARGEST / place**STEEPNESS)))
        drawn.append(rows[:size])
        held.append(rows[size : size + EXAMPLES])
    by_size = sorted(range(len(drawn)), key=lambda at: -len(drawn[at]))
    ranks = np.repeat(np.arange(len(drawn)), [len(drawn[at]) for at in by_size])
    corpus = Corpus.from_records([row for at in by_size for row in drawn[at]])
    encoder = StaticSVD().pretrain(None, corpus, seed=0).encoder
    vectors = KCenter(budget=Budget(docs=1)).embed(corpus, encoder)
    target = Corpus.from_records([row for at in by_size[-2 * RARE :: RARE] for row in held[at]])
    words = count_words(corpus.table(["text"])["text"].combine_chunks())
    return Pool(corpus, ranks, words, vectors, target)


def methods(budget: Budget, *, dev: bool) -> dict[str, Selector]:
    """Return the rows of the table by name."""
    if dev:
        variants = {
            f"clusters {num}, {share}, {within}": ClusterCoverage(
                budget=budget, num_clusters=num, share=share, within=within
            )
            for num in (32, 64, 128, 256)
            for share in ("equal", "sqrt")
            for within in ("random", "nearest")
        }
        trims = {f"k-center, outliers {frac}": KCenter(budget=budget, outlier_frac=frac) for frac in (0.0, 0.01, 0.05)}
        return {CONTROL: Uniform(budget=budget)} | variants | trims
    return {
        CONTROL: Uniform(budget=budget),
        "ClusterCoverage": ClusterCoverage(budget=budget),
        "ClusterCoverage, nearest first": ClusterCoverage(budget=budget, within="nearest"),
        "ClusterCoverage, sqrt shares": ClusterCoverage(budget=budget, share="sqrt"),
        "KCenter": KCenter(budget=budget),
        "KCenter, no trimming": KCenter(budget=budget, outlier_frac=0.0),
        "RDS+, 10 examples": RDSPlus(budget=budget),
        "DSIR, the same examples": DSIR(budget=budget),
        "TfidfNearest, the same examples": TfidfNearest(budget=budget),
    }


def judge(pool: Pool, method: Selector, seed: int) -> list[float]:
    """Return the measures of COLUMNS, the last being seconds."""
    started = time.process_time()
    given = pool.vectors if isinstance(method, VectorSelector) else None
    choice = method.choose(pool.corpus, pool.target, pool.vectors.encoder, seed=seed, pool=given)
    seconds = time.process_time() - started
    num_kinds = int(pool.ranks.max()) + 1
    hit = np.bincount(pool.ranks[choice.kept], minlength=num_kinds) > 0
    tail = pool.ranks >= num_kinds * (1 - TAIL_FRAC)
    rare = np.isin(pool.ranks, np.arange(num_kinds)[-2 * RARE :: RARE])
    figures = choice.figures
    if "coverage_mean" not in figures:  # the control measures itself through a method that has vectors
        empty = KCenter(budget=method.budget).prepare(pool.vectors, seed=seed)
        figures = VectorSelector.coverage(
            KCenter(budget=method.budget), empty, pool.target, {"": choice.kept}, seed=seed
        )
    recalls = [float(choice.kept[part].mean()) for part in (tail, rare)]
    words = float(pool.words[choice.kept].mean())
    return [float(hit.mean()), *recalls, figures["coverage_mean"], figures["coverage_max"], words, seconds]


COLUMNS = ("categories hit", "tail recall", "recall of the two rare kinds", "mean distance", "radius", "words", "CPU s")


def interval(values: np.ndarray, digits: int = 3) -> str:
    """Mean and 95 % percentile bootstrap over pools."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (10_000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--dev", action="store_true", help="the sets and variants that the defaults were chosen on")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    cells: dict[int, dict[str, list[list[float]]]] = {budget: {} for budget in BUDGETS}
    sizes: Counter[str] = Counter()
    names = DEV_SETS if options.dev else SETS
    for name in names:
        groups = read(name)
        for index in range(options.draws):
            pool = draw(name, groups, index)
            sizes[name] += len(pool.corpus)
            for budget in BUDGETS:
                for row, method in methods(Budget(docs=budget), dev=options.dev).items():
                    cells[budget].setdefault(row, []).append(judge(pool, method, index))
    shown = ", ".join(f"{name} ({sizes[name] // options.draws:,})" for name in names)
    lines = [
        "## Coverage of a long-tailed pool (`benchmarks/long_tail.py`)",
        "",
        f"Pools from {shown} (mean documents), {options.draws} draws each; the r-th largest category has {LARGEST} / "
        f"r^{STEEPNESS} documents, at least {SMALLEST}. Static encoder trained on the pool. Categories hit: share with "
        "a kept document; tail: the smaller half of the categories; words: of a kept document, in the mean. Distances "
        "as in the figures of every vector method. "
        f"The last three are given {EXAMPLES} documents of each of two rare categories, which the others do not "
        "see; the recall of these two says how far one gets without examples. Means over "
        "pools with a bootstrap over pools; gains are paired by pool.",
    ]
    for budget, rows in cells.items():
        lines += ["", f"Budget of {budget} documents:", ""]
        lines += [f"| method | {' | '.join(COLUMNS)} | categories hit over {CONTROL} |", "|---|" + "---|" * 8]
        base = np.array(rows[CONTROL])
        for row, values in rows.items():
            found = np.array(values)
            text = [interval(found[:, 0]), *(f"{found[:, at].mean():.3f}" for at in range(1, 5))]
            gain = "" if row == CONTROL else interval(found[:, 0] - base[:, 0])
            lines.append(
                f"| {row} | {' | '.join(text)} | {found[:, 5].mean():.0f} | {found[:, 6].mean():.2f} | {gain} |"
            )
    print("\n".join(lines))
    if not options.dry:
        write_section("coverage", "\n".join(lines))


if __name__ == "__main__":
    main()
