"""Does selection help retrieval? Encoders trained on what a method selects, judged on the domain it selected for.

Usage: python benchmarks/selection_retrieval.py [--domains cranfield ...] [--seeds 3] [--whole-seeds 1] [--dry]
The pool is eight public sets as they are. A target is 100 documents drawn from a judged collection, never its
queries; each method keeps 5 % of the pool's words, an encoder is trained on that alone, and the whole judged
collection is searched with it. Nothing is fitted to judgements. ``--dry`` prints and writes nothing.
"""

import argparse
import gzip
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import orjson

from collections_of_data import DATA, SPLITS, Judged, load
from evidence import write_section
from tamis.data import Corpus, Run
from tamis.evaluation.measures import evaluate
from tamis.evaluation.significance import bootstrap_means, holm, sign_flip_p
from tamis.ops.hashing import text_keys, uniform
from tamis.ops.ngrams import count_ngrams
from tamis.ops.text import joined
from tamis.search.arms import Arm
from tamis.search.dense import Dense
from tamis.search.fit import Fit
from tamis.search.index import SearchIndex
from tamis.search.layout import DENSE, PLAIN, Layout, weights
from tamis.search.plan import Plan
from tamis.selection import DSIR, Budget, Selector, Uniform
from tamis.selection.compression import CompressionAlignment
from tamis.selection.divergence import NUM_BUCKETS, kl_reduction
from tamis.training.pretrain.static_svd import StaticSVD

if TYPE_CHECKING:
    from tamis.models import Encoder

SETS = ("newsgroups", "arxiv", "books", "scipy", "medquad", "tldr", "wikipedia", "tos")
DOMAINS = ("cosqa-dev", "scifact-train", "cranfield")
NUM_TARGET = 100
BUDGET = Budget(frac=0.05)
MEASURE = "nDCG@10"
DRAWS = 10_000
ALONE, FUSED = "encoder alone", "fused"
UNIFORM, DEFAULT = "uniform", "**DSIR small_target (default)**"
EVERYTHING, TARGET, CORPUS = "everything", "the target alone", "the judged corpus"
METHODS: dict[str, Selector] = {
    "DSIR paper": DSIR(budget=BUDGET, mode="paper"),
    DEFAULT: DSIR(budget=BUDGET),
    "compression alignment": CompressionAlignment(budget=BUDGET),
}
ROWS = (UNIFORM, *METHODS, EVERYTHING, TARGET, f"{UNIFORM} + target", f"{DEFAULT} + target", CORPUS)
BM25, WORDS = "BM25", "word arms, no encoder"
Values = dict[tuple[str, str, str], np.ndarray]  # (row, domain, arm) -> nDCG@10, float64 [seeds, queries]


def read(name: str) -> Iterator[dict[str, str]]:
    """Yield the documents of a set."""
    with gzip.open(DATA / name / "corpus.jsonl.gz") as lines:
        for line in lines:
            row = orjson.loads(line)
            title = row.get("title") or ""
            yield {"doc_id": f"{name}/{row['_id']}", "title": title, "text": row["text"], "source": name}


@dataclass(frozen=True)
class Domain:
    """A judged collection and its lexical arms, made once."""

    name: str
    corpus: Corpus
    judged: Judged
    lexical: dict[str, Arm]

    @classmethod
    def open(cls, name: str) -> "Domain":
        """Read a collection with its own ids and index its words."""
        rows = [row | {"doc_id": row["doc_id"].removeprefix(f"{name}/")} for row in read(name)]
        corpus = Corpus.from_records(rows)
        arms = {arm: Arm(method.index(corpus, seed=0)) for arm, method in Layout().lexical().items()}
        return cls(name, corpus, load(name), arms)

    def target(self, seed: int) -> Corpus:
        """Return documents drawn by id and seed, in corpus order."""
        keys = text_keys([f"{self.name}/{doc_id}" for doc_id in self.corpus.doc_ids.to_pylist()])
        return self.corpus.select(np.sort(np.argsort(uniform(keys, seed, "sample"))[:NUM_TARGET]))

    def measure(self, run: Run) -> np.ndarray:
        """Return nDCG@10 of each query, float64 [Q]."""
        return evaluate(run, self.judged.qrels, [MEASURE], queries=self.judged.queries).values[MEASURE]

    def controls(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the values of search without an encoder."""
        index = SearchIndex(self.corpus.doc_ids, self.lexical, Plan(weights={PLAIN: 1.0}))
        yield BM25, self.measure(index.search(self.judged.queries, 100))
        words = {arm: w for arm, w in weights(0.5, 0.0, 0.0).items() if w}
        yield WORDS, self.measure(index.with_plan(Plan(weights=words)).search(self.judged.queries, 100))

    def search(self, encoder: "Encoder") -> Iterator[tuple[str, np.ndarray]]:
        """Yield the values of an encoder alone, and beside the words at its prior weight."""
        plan = Plan(weights=weights(0.5, Fit().dense, 0.0), by_length=(DENSE,))
        arms = self.lexical | {DENSE: Arm(Dense().index(self.corpus, encoder, seed=0))}
        index = SearchIndex(self.corpus.doc_ids, arms, plan)
        yield ALONE, self.measure(index.search(self.judged.queries, 100, mode="dense"))
        yield FUSED, self.measure(index.search(self.judged.queries, 100))


@dataclass
class Study:
    """The pool, and what was found so far."""

    pool: Corpus
    domains: list[Domain]
    seeds: int
    whole_seeds: int

    def __post_init__(self) -> None:
        self.words = sum(int(BUDGET.sizes(batch).sum()) for batch in self.pool.batches())
        self.surveys = {name: method.survey(self.pool, seed=0) for name, method in METHODS.items()}  # of no seed
        self.counts_V = counts(self.pool)
        self.values: dict[tuple[str, str, str], list[np.ndarray]] = {}
        self.amounts: dict[tuple[str, str], list[tuple[int, float]]] = {}  # (row, domain) -> documents, KL reduction
        self.sources: dict[tuple[str, str], Counter[str]] = {}

    def run(self) -> None:
        """Train and judge everything, seed after seed."""
        for domain in self.domains:
            for row, values in domain.controls():
                for arm in (ALONE, FUSED):
                    self.values[row, domain.name, arm] = [values] * self.seeds
        for seed in range(self.seeds):
            if seed < self.whole_seeds:
                self._judge(EVERYTHING, self.pool, self.domains, seed)
            else:
                self._repeat(EVERYTHING)
            drawn = Uniform(budget=BUDGET).select(self.pool, self.domains[0].target(seed), seed=seed).kept
            self._judge(UNIFORM, drawn, self.domains, seed)
            for domain in self.domains:
                self._judge_domain(domain, drawn, seed)

    def _judge_domain(self, domain: Domain, drawn: Corpus, seed: int) -> None:
        target = domain.target(seed)
        kept = {UNIFORM: drawn}
        for name, method in METHODS.items():
            choice = method.choose(self.pool, target, seed=seed, pool=self.surveys[name])
            kept[name] = choice.selected(self.pool).kept
            self._judge(name, kept[name], [domain], seed)
        for name, corpus in kept.items():
            self._note(name, domain, corpus, target)
        self._judge(TARGET, target, [domain], seed)
        for name in (UNIFORM, DEFAULT):
            self._judge(f"{name} + target", together(kept[name], target), [domain], seed)
        self._judge(CORPUS, domain.corpus, [domain], seed)

    def _judge(self, row: str, corpus: Corpus, domains: list[Domain], seed: int) -> None:
        started = time.process_time()
        encoder = StaticSVD().pretrain(None, corpus, seed=seed).encoder
        seconds = time.process_time() - started
        for domain in domains:
            for arm, values in domain.search(encoder):
                self.values.setdefault((row, domain.name, arm), []).append(values)
            alone, fused = (self.values[row, domain.name, arm][-1].mean() for arm in (ALONE, FUSED))
            print(
                f"seed {seed} {domain.name}: {row}, {len(corpus):,} documents, {seconds:.0f} s: "
                f"{alone:.4f} alone, {fused:.4f} fused",
                flush=True,
            )

    def _repeat(self, row: str) -> None:
        for (name, _, _), values in self.values.items():
            if name == row:
                values.append(values[0])

    def _note(self, row: str, domain: Domain, kept: Corpus, target: Corpus) -> None:
        reduction = kl_reduction(self.counts_V, counts(target), counts(kept))
        self.amounts.setdefault((row, domain.name), []).append((len(kept), reduction))
        words = self.sources.setdefault((row, domain.name), Counter())
        for batch in kept.batches():
            sizes = BUDGET.sizes(batch)
            for source, size in zip(batch.column("source").to_pylist(), sizes.tolist(), strict=True):
                words[source] += size

    def found(self) -> Values:
        """Return the values as arrays."""
        return {key: np.stack(parts) for key, parts in self.values.items()}


def counts(corpus: Corpus) -> np.ndarray:
    """Return the n-gram counts that a KL reduction is made of, int64 [2^18]."""
    total = np.zeros(NUM_BUCKETS, np.int64)
    for batch in corpus.batches():
        total += count_ngrams(joined(batch), NUM_BUCKETS)
    return total


def together(one: Corpus, other: Corpus) -> Corpus:
    """Return the documents of both."""
    columns = ["doc_id", "title", "text"]
    return Corpus.from_records([*one.table(columns).to_pylist(), *other.table(columns).to_pylist()])


def interval(parts: list[np.ndarray]) -> tuple[float, float, float]:
    """Return the mean over sets of query values, and its 95 % bootstrap, each set resampled by itself."""
    drawn = [bootstrap_means(values[None], draws=DRAWS, seed=at)[0] for at, values in enumerate(parts)]
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return float(np.mean([values.mean() for values in parts])), float(low), float(high)


def level(parts: list[np.ndarray]) -> str:
    """Show values [seeds, queries] of one set or several: mean, interval over queries, spread over seeds."""
    mean, low, high = interval([values.mean(axis=0) for values in parts])
    by_seed = np.mean([values.mean(axis=1) for values in parts], axis=0)
    spread = f" ±{by_seed.std(ddof=1):.4f}" if len(by_seed) > 1 and np.ptp(by_seed) else ""
    return f"{mean:.4f} [{low:.3f}, {high:.3f}]{spread}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def levels(found: Values, names: list[str], arm: str) -> list[str]:
    """Return the table of means of one arm."""
    shown = (BM25, *((WORDS,) if arm == FUSED else ()), *ROWS)
    rows = [
        [row, *(level([found[row, name, arm]]) for name in names), level([found[row, name, arm] for name in names])]
        for row in shown
    ]
    return ["", f"nDCG@10, {arm}:", "", *table(["trained on", *names, "mean"], rows)]


def differences(found: Values, names: list[str], arm: str, pairs: list[tuple[str, str]]) -> list[str]:
    """Return the table of paired differences of one arm, each with its smallest and largest over seeds."""
    cells: dict[tuple[str, str], list[str]] = {pair: [] for pair in pairs}
    for name in names:
        deltas = [found[row, name, arm] - found[base, name, arm] for row, base in pairs]
        means = np.stack([delta.mean(axis=0) for delta in deltas])
        adjusted = holm(sign_flip_p(means, draws=DRAWS, seed=0))
        for pair, delta, p in zip(pairs, deltas, adjusted, strict=True):
            cells[pair].append(difference([delta]) + (" \\*" if p < 0.05 else ""))
    for row, base in pairs:
        cells[row, base].append(difference([found[row, name, arm] - found[base, name, arm] for name in names]))
    rows = [[f"{row}, over {base}", *cells[row, base]] for row, base in pairs]
    return ["", f"Differences, {arm}:", "", *table(["difference", *names, "mean"], rows)]


def difference(parts: list[np.ndarray]) -> str:
    """Show differences [seeds, queries] of one set or several: mean, interval over queries, range over seeds."""
    mean, low, high = interval([delta.mean(axis=0) for delta in parts])
    by_seed = np.mean([delta.mean(axis=1) for delta in parts], axis=0)
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] ({by_seed.min():+.3f}..{by_seed.max():+.3f})"


def kept(study: Study, names: list[str]) -> list[str]:
    """Return the table of what was selected."""
    rows = []
    for row in (UNIFORM, *METHODS):
        cells = []
        for name in names:
            amounts, sources = study.amounts[row, name], study.sources[row, name]
            first = ", ".join(f"{s} {n / sources.total():.0%}" for s, n in sources.most_common(3))
            docs, reduction = np.mean(amounts, axis=0)
            cells.append(f"{docs:,.0f} documents, {reduction:+.3f}; {first}")
        rows.append([row, *cells])
    head = "What was kept, means over seeds: documents, KL reduction in nats, the largest sources by words:"
    return ["", head, "", *table(["method", *names], rows)]


def render(study: Study) -> str:
    """Render the section."""
    found, names = study.found(), [domain.name for domain in study.domains]
    sizes = ", ".join(f"{d.name} {len(d.corpus):,} documents, {len(d.judged.queries)} queries" for d in study.domains)
    few = study.whole_seeds < study.seeds
    whole = f'"{EVERYTHING}" is trained with {study.whole_seeds} of the seeds. ' if few else ""
    lines = [
        "## Does selection help retrieval? (`benchmarks/selection_retrieval.py`)",
        "",
        f"A pool of {len(study.pool):,} documents ({study.words / 1e6:.1f} million words: {', '.join(SETS)}); "
        f"a target of {NUM_TARGET} documents of a judged collection; 5 % of the pool's words kept; StaticSVD trained "
        "on these alone; the whole judged collection searched. Fused is tamis's prior: words and character grams with "
        f"the encoder at {Fit().dense}, by length of the query. {study.seeds} seeds change target, selection and "
        "encoder; brackets are 95 % bootstraps over queries of the means over seeds, ± is the standard deviation over "
        "seeds, round brackets the smallest and largest difference of a seed, \\* is p < .05 by sign flips, adjusted "
        f"by Holm within a set and table. {whole}{sizes}.",
    ]
    for arm in (ALONE, FUSED):
        lines += levels(found, names, arm)
    pairs = [(row, UNIFORM) for row in (*METHODS, EVERYTHING, TARGET)]
    pairs += [(DEFAULT, EVERYTHING), (DEFAULT, TARGET), (f"{DEFAULT} + target", f"{UNIFORM} + target")]
    pairs += [(f"{DEFAULT} + target", CORPUS)]
    lines += differences(found, names, ALONE, pairs)
    lines += differences(found, names, FUSED, [*pairs, (DEFAULT, WORDS), (CORPUS, WORDS)])
    return "\n".join([*lines, *kept(study, names)])


def main() -> None:
    """Run the study and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=list(SPLITS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--whole-seeds", type=int, default=1, help="that train on everything, 80 s each")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    pool = Corpus.from_records([row for name in SETS for row in read(name)])
    study = Study(pool, [Domain.open(name) for name in options.domains], options.seeds, options.whole_seeds)
    study.run()
    text = render(study)
    print(text)
    print(f"{time.process_time():.0f} s of one core")
    if not options.dry:
        write_section("selection-retrieval", text)


if __name__ == "__main__":
    main()
