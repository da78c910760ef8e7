"""A small pipeline for tests: 200 documents of all sorts, a recipe that is quick, `build(folder)`.

It is importable, so that child processes can run it and be killed.
"""

import json
from pathlib import Path

import bm25s  # noqa: F401 - loaded here once for all child processes, as the next three
import numpy as np
import scipy.sparse  # noqa: F401
import tokenizers  # noqa: F401

import tamis.pipeline.stages  # noqa: F401
from tamis import pipeline
from tamis.data import artefact
from tamis.engine import Engine
from tamis.recipe import Recipe

TOPICS = {
    "sailing": "anchor bowline canvas dinghy ebb fender galley halyard keel mast rudder sail tide windlass yawl jib",
    "baking": "almond butter crust dough egg flour glaze honey icing knead leaven oven pastry rye starter yeast",
    "climbing": "arete belay carabiner descender edge flake granite harness ice jug krab ledge moraine nut pitch rope",
    "gardens": "aster bulb compost dahlia elm fern graft hedge iris juniper kale larch mulch nettle orchid prune",
    "clocks": "anchor balance chime dial escapement fusee gear hairspring jewel lever mainspring pallet quartz ratchet spring wheel",
}
VERBS = [
    "holds",
    "turns",
    "carries",
    "needs",
    "follows",
    "hides",
    "meets",
    "splits",
    "guards",
    "warms",
    "lifts",
    "keeps",
]
NUM_SHORT, NUM_LONG, NUM_COPIES, NUM_NOTES = 180, 6, 8, 6
RECIPE = {
    "seed": 5,
    "passages": {"max_words": 120, "target_words": 40},
    "synthesis": {"max_dev_queries": 40, "min_dev_queries": 20, "max_train_pairs": 200, "min_dev_docs": 40},
    "scratch": {"dim": 16, "num_pieces": 200, "refine_epochs": 1},
    "search": {"min_queries": 10, "max_queries": 40},
}
MODES = ("hybrid", "lexical", "dense", "rrf", "bm25")
QUERIES = (
    "anchor on a tide",
    "rye starter",
    "belay ledge granite",
    "hairspring",
    "almond almond crust",
    "nothing known zzz",
)


def _sentences(rng: np.random.Generator, topic: str, count: int) -> str:
    words = TOPICS[topic].split()
    told = []
    for _ in range(count):
        a, b, c, d = (words[int(i)] for i in rng.integers(len(words), size=4))
        verb, other = (VERBS[int(i)] for i in rng.integers(len(VERBS), size=2))
        told.append(f"The {a} of number {int(rng.integers(1000))} {verb} the {b} and {other} a {c} beside the {d}.")
    return " ".join(told)


def records(seed: int = 1) -> list[dict[str, object]]:
    """Records of one JSON lines file: short and long documents, copies, metadata; one in ten without a title."""
    rng = np.random.default_rng(seed)
    topics = sorted(TOPICS)
    rows: list[dict[str, object]] = []
    for number in range(NUM_SHORT + NUM_LONG):
        topic = topics[number % len(topics)]
        words = TOPICS[topic].split()
        title = " ".join(words[int(i)] for i in rng.integers(len(words), size=3)) + f" {number}"
        text = _sentences(rng, topic, int(rng.integers(2, 5)))
        if number >= NUM_SHORT:
            parts = [
                f"## {words[int(rng.integers(len(words)))]} part {n}\n\n{_sentences(rng, topic, 5)}" for n in range(4)
            ]
            text = "\n\n".join([f"# {title}", *parts])
        summary = f"{title} told shortly by the {topic} club of {int(rng.integers(100))} members"
        row: dict[str, object] = {"id": f"doc {number}", "text": text, "topic": topic, "summary": summary}
        rows.append(row | ({} if number % 10 == 9 else {"title": title}))
    copies = [{**rows[number * 7], "id": f"copy-{number}"} for number in range(NUM_COPIES)]
    return [*rows, *copies]


def write_sources(folder: Path, seed: int = 1) -> Path:
    """Write the 200 documents as one JSON lines file and a few Markdown notes; return the folder."""
    folder.mkdir(parents=True)
    lines = [json.dumps(row) for row in records(seed)]
    (folder / "docs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rng = np.random.default_rng(seed + 100)
    for number in range(NUM_NOTES):
        topic = sorted(TOPICS)[number % len(TOPICS)]
        body = f"# About {topic}\n\n{_sentences(rng, topic, 3)}\n\n## More of it\n\n{_sentences(rng, topic, 2)}\n"
        (folder / f"note-{number}.md").write_text(body, encoding="utf-8")
    return folder


def recipe(**changes: object) -> Recipe:
    """The quick recipe, some settings changed."""
    return Recipe().replace(**{**RECIPE, **changes})


def sources_beside(folder: Path) -> Path:
    """The documents beside an engine folder, written when they are not there."""
    place = folder.parent / "job-sources"
    return place if place.is_dir() else write_sources(place)


FIRST_FOLDERS = {
    "ingest": "corpus",
    "passages": "passages",
    "select": "selected",
    "synthesize": "collection",
    "encode": "encoder",
    "tune": "runs",
    "index": "index/v0001",
    "report": "report",
}
"""The folder of each stage that is renamed last: where it stands, the stage is finished."""


def build(folder: Path) -> None:
    """Build or continue the engine ``folder``; what was finished is kept, nothing else."""
    finished = {stage for stage, name in FIRST_FOLDERS.items() if (folder / name / artefact.MANIFEST).is_file()}
    built = pipeline.build(str(sources_beside(folder)), folder, recipe())
    assert {stage.name for stage in built.stages if stage.status == "kept"} == finished
    assert (folder / "index" / "CURRENT").read_text() == "v0001\n"


def rebuild(folder: Path, seed: int = 6) -> None:
    """Build the engine ``folder`` from other documents, by another seed."""
    place = folder.parent / "other-sources"
    pipeline.build(str(place if place.is_dir() else write_sources(place, seed=2)), folder, recipe(seed=seed))


def answers(engine: Engine) -> list[tuple[str, float, str, str]]:
    """Everything that a user of an open engine sees."""
    seen = [hit for text in QUERIES for mode in MODES for hit in engine.search(text, 5, mode)]
    seen += engine.similar("doc 3", 5)
    return [(hit.doc_id, hit.score, hit.title, hit.snippet) for hit in seen]


def build_again(folder: Path) -> None:
    """Build the engine ``folder`` from its first documents, whatever it holds now."""
    pipeline.build(str(sources_beside(folder)), folder, recipe())
