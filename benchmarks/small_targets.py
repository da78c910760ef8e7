"""Small targets: who finds the rest of a domain in a mixed pool, given 5, 20 or 100 of its documents.

Usage: python benchmarks/small_targets.py [--domains 10] [--draws 10] [--slow-draws 10] [--dry]
The pool holds eight public sets, title and text joined, texts of at least 200 characters cut at 20,000; a domain is
a set's category. Target documents are left out of the ranking. Everything is chosen with seed 0.
"""

import argparse
import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import orjson
from scipy import sparse, stats

from collections_of_data import DATA
from evidence import write_section
from tamis.data import Corpus
from tamis.ops.hashing import text_keys, uniform
from tamis.ops.linear import tfidf_rows
from tamis.ops.ngrams import feature_buckets, score_ngrams
from tamis.ops.text import joined
from tamis.selection import DSIR, Budget, Selector, Uniform
from tamis.selection.classifier import HashedClassifier
from tamis.selection.compression import CompressionAlignment
from tamis.selection.nearest import TfidfNearest
from tamis.selection.perplexity import NgramPerplexity

SETS = ("newsgroups", "arxiv", "books", "scipy", "medquad", "tldr", "wikipedia", "tos")
SIZES = (5, 20, 100)
MIN_DOMAIN_DOCS = 250
ONE = Budget(docs=1)  # only scores are read
Table = dict[str, dict[int, np.ndarray]]  # method -> n -> [domains, 2]: R-precision and AUC, means over draws


@dataclass
class Pool:
    """The documents in memory, and what is counted of them once."""

    corpus: Corpus
    domains: np.ndarray

    @cached_property
    def num_tokens(self) -> np.ndarray:
        """Tokens of each document."""
        return np.concatenate([score_ngrams(joined(b), np.zeros(1), 1)[1] for b in self.corpus.batches()])

    def features(self, num_buckets: int) -> sparse.csr_array:
        """Counts of each document's features, [documents, buckets]: a linear score is a product with it."""
        rows, starts = [], [np.zeros(1, np.int64)]
        for batch in self.corpus.batches():
            buckets, stops = feature_buckets(joined(batch), num_buckets)
            owner = np.repeat(np.arange(len(batch)), np.diff(stops))
            keys, counts = np.unique(owner * num_buckets + buckets, return_counts=True)
            rows.append((keys % num_buckets, counts))
            starts.append(np.bincount(keys // num_buckets, minlength=len(batch)))
        columns = np.concatenate([c for c, _ in rows]).astype(np.int32)
        counts = np.concatenate([n for _, n in rows]).astype(np.float64)
        shape = (len(self.corpus), num_buckets)
        return sparse.csr_array((counts, columns, np.cumsum(np.concatenate(starts))), shape=shape)

    @classmethod
    def read(cls) -> "Pool":
        """Read the pool from the shared sets."""
        records, domains = [], []
        for name in SETS:
            with gzip.open(DATA / name / "corpus.jsonl.gz") as lines:
                for line in lines:
                    row = orjson.loads(line)
                    text = f"{row['title']}\n{row['text']}" if row.get("title") else row["text"]
                    if len(text) >= 200:
                        records.append({"doc_id": f"{name}/{row['_id']}", "text": text[:20_000], "source": name})
                        domains.append(f"{name}/{(row.get('metadata') or {}).get('category', name)}")
        return cls(Corpus.from_records(records), np.array(domains))


Scorer = Callable[[list[Corpus]], Iterator[np.ndarray]]


@dataclass
class Ranker:
    """A row of the table: scores of all documents for each of some targets."""

    name: str
    score: Scorer
    slow: bool = False


def linear(pool: Pool, features: sparse.csr_array, method: DSIR, *, mean: bool) -> Scorer:
    """Score by the weights that the method fits, over features counted once; checked against its own `score`."""
    survey = method.survey(pool.corpus, seed=0)
    checked: list[bool] = []

    def score(targets: list[Corpus]) -> Iterator[np.ndarray]:
        models = [method.fit(survey, target, seed=0) for target in targets]
        sums = features @ np.stack([model.weights_V for model in models], axis=1)
        scores = sums / pool.num_tokens[:, None] if mean else sums
        if not checked and mean == (method.mode == "small_target"):
            batch = next(iter(pool.corpus.batches()))
            np.testing.assert_allclose(method.score(batch, models[0]), scores[: len(batch), 0], rtol=1e-9, atol=1e-7)
            checked.append(True)
        yield from scores.T

    return score


def whole(pool: Pool, method: Selector) -> Scorer:
    """Score through the method itself: a pass over the texts for each target."""
    survey = method.survey(pool.corpus, seed=0)

    def score(targets: list[Corpus]) -> Iterator[np.ndarray]:
        for seed, target in enumerate(targets):
            model = method.fit(survey, target, seed=seed)
            yield np.concatenate([method.score(batch, model) for batch in pool.corpus.batches()])

    return score


def cosines(pool: Pool, method: TfidfNearest) -> Scorer:
    """Score by the vectors that the method fits, over the pool's vectors made once; checked as `linear` is."""
    survey = method.survey(pool.corpus, seed=0)
    first = method.fit(survey, pool.corpus.select([0]), seed=0)
    blocks = []
    for batch in pool.corpus.batches():
        rows = tfidf_rows(joined(batch), first.idf_V, method.order)
        blocks.append(sparse.csr_array(rows, shape=(len(batch), method.num_buckets)))
    vectors = sparse.vstack(blocks, format="csr")
    checked: list[bool] = []

    def score(targets: list[Corpus]) -> Iterator[np.ndarray]:
        for target in targets:
            model = method.fit(survey, target, seed=0)
            if model.centroid_V is not None:
                scores = vectors @ model.centroid_V
            else:
                rows = sparse.csr_array(model.rows, shape=(len(target), method.num_buckets))
                scores = (vectors @ rows.T.tocsr()).max(axis=1).toarray().ravel()
            if not checked:
                batch = next(iter(pool.corpus.batches()))
                np.testing.assert_allclose(method.score(batch, model), scores[: len(batch)], rtol=1e-9, atol=1e-12)
                checked.append(True)
            yield scores

    return score


def rankers(pool: Pool) -> Iterator[Ranker]:
    """All methods, one after another, so that what one holds is free for the next."""
    yield Ranker("Uniform", whole(pool, Uniform(budget=ONE)))
    features = pool.features(10_000)
    paper = DSIR(budget=ONE, mode="paper", sampling="top", min_tokens=1)
    small_10k = DSIR(budget=ONE, num_buckets=10_000, min_tokens=1)
    yield Ranker("DSIR paper (10,000 buckets, sum)", linear(pool, features, paper, mean=False))
    yield Ranker("DSIR paper, mean per token", linear(pool, features, paper, mean=True))
    yield Ranker("DSIR small_target, 10,000 buckets", linear(pool, features, small_10k, mean=True))
    features = pool.features(1 << 18)
    yield Ranker(DEFAULT, linear(pool, features, DSIR(budget=ONE, min_tokens=1), mean=True))
    del features
    yield Ranker("tf-idf centroid", cosines(pool, TfidfNearest(budget=ONE, similarity="centroid")))
    yield Ranker("tf-idf nearest", cosines(pool, TfidfNearest(budget=ONE)))
    yield Ranker("hashed logistic regression", whole(pool, HashedClassifier(budget=ONE)), slow=True)
    yield Ranker("compression alignment", whole(pool, CompressionAlignment(budget=ONE)), slow=True)
    yield Ranker("n-gram perplexity", whole(pool, NgramPerplexity(budget=ONE)), slow=True)


DEFAULT = "**DSIR small_target, 2^18 (default)**"


def judge(scores: np.ndarray, keys: np.ndarray, relevant: np.ndarray, in_target: np.ndarray) -> tuple[float, float]:
    """Return R-precision and AUC over the documents outside the target."""
    kept = ~in_target
    scores, hits = scores[kept], relevant[kept]
    num = int(hits.sum())
    top = np.lexsort((keys[kept], -scores))[:num]
    ranks = stats.rankdata(scores)
    auc = (ranks[hits].sum() - num * (num + 1) / 2) / (num * (len(hits) - num))
    return float(hits[top].mean()), float(auc)


def draw(pool: Pool, domain: str, num_docs: int, index: int) -> np.ndarray:
    """Return the rows of a random target of one domain."""
    rows = np.flatnonzero(pool.domains == domain)
    keys = text_keys([f"{domain} {index} {row}" for row in rows.tolist()])
    return rows[np.argsort(uniform(keys, 0, "sample"))[:num_docs]]


def measure(pool: Pool, domains: list[str], draws: int, slow_draws: int) -> Table:
    """Fill the table."""
    keys = text_keys(pool.corpus.doc_ids.to_pylist())
    table: Table = {}
    for ranker in rankers(pool):
        started = time.process_time()
        count = slow_draws if ranker.slow else draws
        cells = {n: np.zeros((len(domains), 2)) for n in SIZES}
        for row, domain in enumerate(domains):
            relevant = pool.domains == domain
            for n in SIZES:
                chosen = [draw(pool, domain, n, index) for index in range(count)]
                scored = ranker.score([pool.corpus.select(np.sort(rows)) for rows in chosen])
                found = []
                for rows, scores in zip(chosen, scored, strict=True):
                    in_target = np.zeros(len(keys), bool)
                    in_target[rows] = True
                    found.append(judge(scores, keys, relevant, in_target))
                cells[n][row] = np.mean(found, axis=0)
        table[ranker.name + (" \\*" if ranker.slow else "")] = cells
        seconds = time.process_time() - started
        means = " ".join(f"n={n}: {cells[n][:, 0].mean():.3f} / {cells[n][:, 1].mean():.3f}" for n in SIZES)
        print(f"{ranker.name}: {means} ({count} draws, {seconds:.0f} s)", flush=True)
    return table


def interval(values: np.ndarray) -> str:
    """Mean and 95 % percentile bootstrap over domains."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (10_000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def render(pool: Pool, table: Table, domains: list[str], draws: int, slow_draws: int) -> str:
    """Render the table, and what the default gains over each other method with an interval."""
    sizes = Counter(pool.domains)
    base = np.mean([sizes[d] / len(pool.domains) for d in domains])
    lines = [
        "## Selection to a small target (`benchmarks/small_targets.py`)",
        "",
        f"{len(pool.domains):,} documents of {len(sizes)} domains; {len(domains)} target domains drawn among those "
        f"with at least {MIN_DOMAIN_DOCS}; {draws} draws of n target documents each ({slow_draws} for methods "
        "marked \\*). R-precision, mean over domains with a bootstrap over domains, and AUC. "
        f"Share of a domain: {base:.3f}. Documents of fewer than min_tokens are ranked too.",
        "",
        "| method | " + " | ".join(f"n = {n}: R-precision | AUC" for n in SIZES) + " |",
        "|---|" + "---|" * (2 * len(SIZES)),
    ]
    for name, cells in table.items():
        shown = [f"{interval(cells[n][:, 0])} | {cells[n][:, 1].mean():.3f}" for n in SIZES]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    lines += ["", "Gain of the default in R-precision, paired by domain:", ""]
    lines += ["| over | " + " | ".join(f"n = {n}" for n in SIZES) + " |", "|---|" + "---|" * len(SIZES)]
    for name, cells in table.items():
        if name != DEFAULT:
            gains = [interval(table[DEFAULT][n][:, 0] - cells[n][:, 0]) for n in SIZES]
            lines.append(f"| {name} | " + " | ".join(gains) + " |")
    lines += ["", "Domains: " + ", ".join(domains) + "."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=10)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--slow-draws", type=int, default=10)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    pool = Pool.read()
    large = sorted(d for d, count in Counter(pool.domains.tolist()).items() if count >= MIN_DOMAIN_DOCS)
    order = np.argsort(uniform(text_keys(large), 0, "sample"))[: options.domains]
    domains = [large[i] for i in sorted(order.tolist())]
    table = measure(pool, domains, options.draws, options.slow_draws)
    text = render(pool, table, domains, options.draws, options.slow_draws)
    print(text)
    if not options.dry:
        write_section("small-targets", text)


if __name__ == "__main__":
    main()
