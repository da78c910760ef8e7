"""A title counts as the first line of its text, in counts, scores, keys, sizes and figures of a selection."""

import numpy as np
import pytest

from tamis.data import Corpus
from tamis.selection import DSIR, Budget, TfidfNearest, Uniform

WORDS = [
    "salt",
    "pepper",
    "oven",
    "dough",
    "knead",
    "yeast",
    "crust",
    "engine",
    "valve",
    "piston",
    "torque",
    "gearbox",
    "clutch",
    "rotor",
]


def documents(num, seed, words):
    rng = np.random.default_rng(seed)
    return [
        (f"d{n}", " ".join(rng.choice(words, 3)) * (n % 4 > 0), " ".join(rng.choice(words, 30))) for n in range(num)
    ]


@pytest.mark.parametrize(
    "selector",
    [
        DSIR(budget=Budget(frac=0.3)),
        DSIR(mode="paper", min_tokens=1, budget=Budget(frac=0.3)),
        TfidfNearest(budget=Budget(bytes=2000)),
        Uniform(budget=Budget(words=300)),
    ],
    ids=lambda s: s.method,
)
def test_titles_in_their_column_or_above_the_text_are_the_same(selector):
    rows = documents(60, 1, WORDS)
    apart = Corpus.from_records([{"doc_id": i, "title": title, "text": text} for i, title, text in rows])
    above = Corpus.from_records([{"doc_id": i, "text": f"{t}\n{text}" if t else text} for i, t, text in rows])
    bare = Corpus.from_records([{"doc_id": i, "text": text} for i, _, text in rows])
    target = Corpus.from_records([{"doc_id": i, "text": text} for i, _, text in documents(5, 2, WORDS[:7])])
    first, second, third = (selector.choose(corpus, target, seed=3) for corpus in (apart, above, bare))
    assert first.kept.tolist() == second.kept.tolist() and 0 < first.kept.sum() < 60
    assert first.scores.tolist() == second.scores.tolist() != third.scores.tolist()
    assert first.figures == second.figures
