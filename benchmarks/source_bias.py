"""Quality scores and sources: does a score rank documents, or only sort the places they come from?

Usage: python benchmarks/source_bias.py [--docs 3000] [--dry]
Five public sets in equal parts; in each a quarter of the documents, drawn by content, has its words shuffled within
runs of eight: a label of quality that every source has. Two scores that know nothing of the label, both of reference
text against the mix (encyclopedia articles outside the mix): the hashed classifier and n-gram perplexity. Each is
judged before and after conditioning on source, language and length, at a budget of a fifth of the words.
"""

import argparse
import gzip

import numpy as np
import orjson
import pyarrow as pa

from collections_of_data import DATA
from evidence import write_section
from tamis.data import Corpus
from tamis.ops.hashing import text_keys, uniform
from tamis.selection import Budget, Selector
from tamis.selection.classifier import HashedClassifier
from tamis.selection.conditioned import Conditioned, separation
from tamis.selection.perplexity import NgramPerplexity

SETS = ("newsgroups", "arxiv", "books", "medquad", "wikipedia")
REFERENCE = "wikipedia"
NUM_REFERENCE = 500
BUDGET = Budget(frac=0.2)


def read(name: str) -> list[str]:
    """Return the texts of a set of at least 200 characters, cut at 20,000, in an order drawn by content."""
    texts = []
    with gzip.open(DATA / name / "corpus.jsonl.gz") as lines:
        for line in lines:
            row = orjson.loads(line)
            text = f"{row['title']}\n{row['text']}" if row.get("title") else row["text"]
            if len(text) >= 200:
                texts.append(text[:20_000])
    return [texts[i] for i in np.argsort(uniform(text_keys(texts), 0, "sample"))]


def shuffled(text: str, run: int = 8) -> str:
    """Return the text with its words shuffled within runs of ``run``."""
    words = text.split(" ")
    rng = np.random.default_rng(int(text_keys([text])[0]))
    return " ".join(word for at in range(0, len(words), run) for word in rng.permutation(words[at : at + run]))


def mix(num_docs: int) -> tuple[Corpus, np.ndarray, Corpus]:
    """Return the mix, whether each of its documents is intact, and the reference."""
    records, intact, reference = [], [], []
    for name in SETS:
        texts = read(name)
        if name == REFERENCE:
            reference = [{"doc_id": f"r{i}", "text": text} for i, text in enumerate(texts[-NUM_REFERENCE:])]
            texts = texts[:-NUM_REFERENCE]
        spoilt = uniform(text_keys(texts), 0, "fixture") < 0.25
        for row, text in enumerate(texts[:num_docs]):
            body = shuffled(text) if spoilt[row] else text
            records.append({"doc_id": f"{name}/{row}", "text": body, "source": name})
            intact.append(not spoilt[row])
    return Corpus.from_records(records), np.array(intact), Corpus.from_records(reference)


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the AUC of the labels from the scores; refused documents score lowest."""
    names = pa.array(np.where(labels, "a", "b"))
    report = separation(scores, scores, labels, names)
    return float(report["auc_after"][0].as_py())


def judge(corpus: Corpus, intact: np.ndarray, reference: Corpus, method: Selector) -> dict[str, object]:
    """Select, and return per source: AUC of the source, share kept, AUC of the label within it."""
    choice = method.choose(corpus, reference, seed=0)
    sources = corpus.table(["source"])["source"].combine_chunks()
    names = np.array(sources.to_pylist())
    report = separation(choice.scores, choice.scores, choice.kept, sources).to_pylist()
    rows = {
        row["source"]: (row["auc_after"], row["kept_frac"], area(choice.scores[names == n], intact[names == n]))
        for row in report
        for n in [row["source"]]
    }
    return {
        "sources": rows,
        "gap": max(abs(values[0] - 0.5) for values in rows.values()),
        "within": float(np.mean([values[2] for values in rows.values()])),
        "intact": float(intact[choice.kept].mean()),
    }


def variants(score: Selector) -> list[tuple[str, Selector]]:
    """Return the score conditioned, from the control, which is the score alone, to the whole strength."""
    found: list[tuple[str, Selector]] = []
    for strength in (0.0, 0.5, 1.0):
        label = {0.0: "none (control)", 1.0: "**strength 1 (default)**"}.get(strength, f"strength {strength}")
        found.append((label, Conditioned(of=score, strength=strength)))
    found.append(("strength 1, by source alone", Conditioned(of=score, columns=("source",))))
    return found


def render(corpus: Corpus, intact: np.ndarray, results: list[tuple[str, str, dict]]) -> str:
    """Render one row a variant."""
    lines = [
        "## Quality scores and sources (`benchmarks/source_bias.py`)",
        "",
        f"{len(corpus):,} documents, {', '.join(SETS)} in equal parts; the words of {1 - intact.mean():.1%} of them "
        f"are shuffled in runs of eight. Scores of {NUM_REFERENCE} {REFERENCE} articles outside the mix against it; a "
        "fifth of the words is kept. AUC of a source: telling it from the rest by the score, .5 is blind; the gap is "
        "the largest distance from .5. AUC of intact against shuffled: mean over sources, within each.",
        "",
        "| score | conditioning | max gap | intact within sources, AUC | intact among the kept | "
        + " | ".join(f"{name}: AUC, kept" for name in SETS)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(SETS),
    ]
    for score, variant, found in results:
        cells = [f"{found['sources'][name][0]:.3f}, {found['sources'][name][1]:.2f}" for name in SETS]
        figures = [f"{found['gap']:.3f}", f"{found['within']:.3f}", f"{found['intact']:.3f}"]
        lines.append("| " + " | ".join([score, variant, *figures, *cells]) + " |")
    lines += ["", f"Intact in the mix: {intact.mean():.3f}; a uniform selection keeps that."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=int, default=3000, help="of each set")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    corpus, intact, reference = mix(options.docs)
    scores = (
        ("hashed classifier", HashedClassifier(budget=BUDGET)),
        ("n-gram perplexity", NgramPerplexity(budget=BUDGET, keep="head", band=(0.0, 1.0))),
    )
    results = []
    for name, score in scores:
        for variant, method in variants(score):
            results.append((name, variant, judge(corpus, intact, reference, method)))
            print(name, variant, results[-1][2], flush=True)
    text = render(corpus, intact, results)
    print(text)
    if not options.dry:
        write_section("source-bias", text)


if __name__ == "__main__":
    main()
