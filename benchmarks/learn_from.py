"""What a build learns from: near copies, junk and foreign text left out of learning, beside learning from everything.

Usage: python benchmarks/learn_from.py [--sets cranfield ...] [--seeds 3] [--dry]
Judged collections are spoiled in three ways, each with the remedy that `[select]` of a recipe has for it; every
document is in the index of both arms: only what queries are made of and the encoder is trained on differs. The row
"as it is" shows what the default costs where there is nothing to remedy. Nothing is chosen on these judgements.
"""

import argparse
import gzip
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

import tamis
from collections_of_data import DATA, load
from evidence import write_section
from tamis.data import Qrels, artefact
from tamis.evaluation.measures import evaluate
from tamis.evaluation.significance import bootstrap_means
from tamis.ops.hashing import text_keys, uniform

SETS = ("cranfield", "cisi", "xquad-en")
MEASURE = "nDCG@10"
DRAWS = 10_000
COPIED_FRAC, COPIES, EDITED_FRAC = 0.3, 4, 0.04
NUM_TARGET = 100
FOREIGN = ("newsgroups", "tldr")
MODES = {"engine": "hybrid", "encoder alone": "dense"}
Row = dict[str, str]
Spoiled = tuple[list[Row], dict[str, list[str]]]  # documents, copies of each document by id


def documents(name: str) -> list[Row]:
    """Return the documents of a set."""
    with gzip.open(DATA / name / "corpus.jsonl.gz") as lines:
        rows = [orjson.loads(line) for line in lines]
    return [{"_id": row["_id"], "title": row.get("title") or "", "text": row["text"]} for row in rows]


def as_it_is(rows: list[Row], rng: np.random.Generator) -> Spoiled:
    """Return the collection itself."""
    return rows, {}


def copied(rows: list[Row], rng: np.random.Generator) -> Spoiled:
    """Add copies of some documents with a few words edited: revisions, mirrors, boilerplate."""
    vocabulary = sorted({word for row in rows for word in row["text"].split()})
    found, copies = list(rows), {}
    for at in np.flatnonzero(rng.random(len(rows)) < COPIED_FRAC).tolist():
        for number in range(COPIES):
            words = rows[at]["text"].split()
            for place in np.flatnonzero(rng.random(len(words)) < EDITED_FRAC).tolist():
                words[place] = vocabulary[int(rng.integers(len(vocabulary)))]
            copy = f"{rows[at]['_id']}-copy{number}"
            found.append({"_id": copy, "title": rows[at]["title"], "text": " ".join(words)})
            copies.setdefault(rows[at]["_id"], []).append(copy)
    return found, copies


def littered(rows: list[Row], rng: np.random.Generator) -> Spoiled:
    """Add as many pages of lists and repeated lines, made of the collection's own words."""
    vocabulary = sorted({word for row in rows for word in row["text"].split()})

    def pick(num: int) -> list[str]:
        return [vocabulary[int(at)] for at in rng.integers(len(vocabulary), size=num)]

    junk = []
    for number in range(len(rows)):
        if number % 2:
            lines = [" ".join(pick(4))] * 12 + [" ".join(pick(4))] * 8
        else:
            lines = [" ".join([word] * 5) for word in pick(30)]
        junk.append({"_id": f"junk-{number}", "title": " ".join(pick(3)), "text": "\n".join(lines)})
    return rows + junk, {}


def foreign(rows: list[Row], rng: np.random.Generator) -> Spoiled:
    """Add three times as many documents of other domains."""
    others = [row | {"_id": f"{name}-{row['_id']}"} for name in FOREIGN for row in documents(name)]
    drawn = np.argsort(uniform(text_keys([row["_id"] for row in others]), int(rng.integers(1 << 30)), "sample"))
    return rows + [others[at] for at in drawn[: 3 * len(rows)].tolist()], {}


CASES: dict[str, tuple[Callable[[list[Row], np.random.Generator], Spoiled], dict[str, Any]]] = {
    "as it is": (as_it_is, {}),
    "near copies": (copied, {}),
    "junk pages": (littered, {"quality": "documents"}),
    "foreign text": (foreign, {"budget": "30%"}),
}
"""case -> how the collection is spoiled, what [select] is set to beside its defaults"""


def measure(name: str, case: str, seed: int, work: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Build both arms; yield arm, mode and nDCG@10 of each query."""
    spoil, settings = CASES[case]
    rows, copies = spoil(documents(name), np.random.default_rng([seed, 7]))
    files = work / "pool.jsonl"
    files.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    if case == "foreign text":
        own = documents(name)
        order = np.argsort(uniform(text_keys([f"{name}/{row['_id']}" for row in own]), seed, "sample"))
        target = work / "target.jsonl"
        target.write_bytes(b"".join(orjson.dumps(own[at]) + b"\n" for at in order[:NUM_TARGET].tolist()))
        settings = settings | {"targets": [str(target)]}
    judged = load(name)
    told = judged.qrels.table.to_pylist()
    qrels = Qrels.from_records([*told, *(r | {"doc_id": c} for r in told for c in copies.get(r["doc_id"], []))])
    for arm, select in (("everything", {"near_copies": False}), ("selected", settings)):
        out = work / arm
        tamis.build([str(files)], out, tamis.Recipe(seed=seed).replace(select=select))
        counts = artefact.read_manifest(out / "selected").counts
        engine = tamis.open(out)
        shown = []
        for label, mode in MODES.items():
            run = engine.run(judged.queries, k=100, mode=mode)
            values = evaluate(run, qrels, [MEASURE], queries=judged.queries).values[MEASURE]
            shown.append(f"{values.mean():.4f} {label}")
            yield arm, label, values
        print(
            f"{name}, {case}, seed {seed}, {arm}: {counts['documents']:,} of {len(rows):,}, {', '.join(shown)}",
            flush=True,
        )


def cell(everything: np.ndarray, selected: np.ndarray) -> str:
    """Show both means and the paired difference with its interval; arrays [seeds, queries]."""
    delta = (selected - everything).mean(axis=0)
    low, high = np.quantile(bootstrap_means(delta[None], draws=DRAWS, seed=0)[0], [0.025, 0.975])
    return f"{everything.mean():.4f} | {selected.mean():.4f} | {delta.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    values: dict[tuple[str, str, str, str], list[np.ndarray]] = {}
    for case in options.cases:
        for name in options.sets:
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory(prefix="tamis-learn-") as folder:
                    for arm, mode, found in measure(name, case, seed, Path(folder)):
                        values.setdefault((case, name, mode, arm), []).append(found)
    lines = [
        "## What a build learns from",
        "",
        f"Mean {MEASURE} of {options.seeds} seeds. Both arms index and search every document; they differ in what "
        "queries are made of and the encoder is trained on. *Near copies*: "
        f"{COPIED_FRAC:.0%} of the documents have {COPIES} copies with {EDITED_FRAC:.0%} of their words changed, as "
        "relevant as the original; *junk pages*: as many pages of lists and repeated lines, rules `documents`; "
        f"*foreign text*: three times as many documents of {' and '.join(FOREIGN)}, target {NUM_TARGET} documents of "
        "the collection, budget 30 % of the words. Intervals: bootstrap over queries of the paired difference.",
        "",
        "| case | set | searched with | everything | selected | difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case, name, mode, arm in values:
        if arm == "everything":
            both = (np.stack(values[case, name, mode, a]) for a in ("everything", "selected"))
            lines.append(f"| {case} | {name} | {mode} | {cell(*both)} |")
    print("\n".join(lines))
    if not options.dry:
        write_section("learn-from", "\n".join(lines))


if __name__ == "__main__":
    main()
