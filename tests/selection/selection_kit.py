"""What tests of selection share: a pool with a target, every method, an encoder of words, and other cuts of a pool."""

import pickle
from itertools import cycle

import numpy as np

from tamis.data.corpus import Corpus
from tamis.ops.hashing import text_keys
from tamis.selection import (
    DSIR,
    Budget,
    ClusterCoverage,
    CompressionAlignment,
    Conditioned,
    HashedClassifier,
    KCenter,
    NgramPerplexity,
    RDSPlus,
    TfidfNearest,
    Uniform,
)

WORDS = [
    "river",
    "stone",
    "cloud",
    "maple",
    "engine",
    "carbon",
    "signal",
    "garden",
    "window",
    "planet",
    "copper",
    "violin",
]
COOKING = ["simmer", "butter", "onion", "garlic", "oven", "dough", "whisk", "salt", "pepper", "broth"]
NOTHING = Corpus.from_records([])
METHODS = {
    "uniform": Uniform(budget=Budget(docs=12)),
    "uniform by source": Uniform(budget=Budget(words=500), stratify="source"),
    "uniform by length": Uniform(budget=Budget(frac=0.5), stratify="length"),
    "dsir": DSIR(budget=Budget(docs=12)),
    "dsir, a draw": DSIR(budget=Budget(bytes=3000), sampling="gumbel", num_buckets=1000),
    "dsir, the paper's": DSIR(budget=Budget(words=400), mode="paper", min_tokens=5),
    "tf-idf, nearest": TfidfNearest(budget=Budget(words=300)),
    "tf-idf, centroid": TfidfNearest(budget=Budget(docs=9), similarity="centroid", order=1, num_buckets=4096),
    "classifier": HashedClassifier(budget=Budget(docs=12), bits=12, num_negatives=40),
    "classifier without folds": HashedClassifier(budget=Budget(frac=0.2), bits=12, num_folds=0, epochs=1),
    "compression": CompressionAlignment(budget=Budget(bytes=2500), min_bytes=50),
    "compression, exact": CompressionAlignment(budget=Budget(docs=7), min_bytes=50, exact=True),
    "perplexity": NgramPerplexity(budget=Budget(docs=9), bits=12),
    "perplexity against the pool": NgramPerplexity(budget=Budget(words=333), bits=12, against="pool", band=(0, 1)),
    "clusters": ClusterCoverage(budget=Budget(docs=12), num_clusters=5),
    "clusters by words": ClusterCoverage(budget=Budget(words=600), num_clusters=4, share="sqrt", within="nearest"),
    "k-center": KCenter(budget=Budget(docs=12), outlier_frac=0.1),
    "k-center, drawn down": KCenter(budget=Budget(frac=0.3), max_docs=40),
    "rds": RDSPlus(budget=Budget(docs=14)),
    "rds by source": RDSPlus(budget=Budget(words=450), turns="source", max_targets=4),
    "conditioned": Conditioned(of=DSIR(budget=Budget(docs=15)), min_docs=4),
    "conditioned in part": Conditioned(
        of=HashedClassifier(budget=Budget(words=400), bits=12, num_negatives=40), columns=("source",), strength=0.5
    ),
}
"""Every selector, in each of its forms, by a name for the reader."""
_FIRST = {type(method): method for method in reversed(METHODS.values())}
ONE_EACH = {name: method for name, method in METHODS.items() if method == _FIRST[type(method)]}
"""One form of each."""


class WordVectors:
    """A text's vector is the mean direction of its words, each word's drawn by its hash; marks have none."""

    dim = 8
    fingerprint = "word vectors"

    def __init__(self):
        self.num_texts = 0
        self._directions = {}

    def encode_documents(self, texts):
        self.num_texts += len(texts)
        return np.array([self._direction(text) for text in texts], np.float32).reshape(-1, self.dim)

    encode_queries = encode_documents

    def _direction(self, text):
        words = sorted(word for word in text.split() if word.isalpha())
        for word in set(words) - self._directions.keys():
            self._directions[word] = np.random.default_rng(int(text_keys([word])[0])).normal(size=self.dim)
        total = np.sum([self._directions[word] for word in words] or [np.zeros(self.dim)], axis=0)
        return total / (np.linalg.norm(total) or 1.0)

    def num_truncated(self, texts):
        return 0

    def save(self, staging):
        raise NotImplementedError


class Recut:
    """The same documents in batches of other sizes, which take turns."""

    def __init__(self, corpus, *batch_docs):
        self._corpus, self._batch_docs, self.schema = corpus, batch_docs, corpus.schema

    def __len__(self):
        return len(self._corpus)

    def batches(self, columns=None):
        at, sizes = 0, cycle(self._batch_docs)
        while at < len(self):
            rows = slice(at, min(at + next(sizes), len(self)))
            at = rows.stop
            yield from self._corpus.take(range(rows.start, rows.stop), columns).combine_chunks().to_batches()

    def take(self, rows, columns=None):
        return self._corpus.take(rows, columns)


class Piece:
    """Some rows that a worker reads for itself."""

    def __init__(self, corpus, start, stop):
        self._corpus, self._start, self._stop = corpus, start, stop

    def __len__(self):
        return self._stop - self._start

    def read(self, columns):
        return self._corpus.select(range(self._start, self._stop)).batches(columns, batch_docs=4)


class InPieces(Recut):
    """A pool that comes in pieces and has no batches."""

    def __init__(self, corpus):
        super().__init__(corpus, 1)

    def pieces(self):
        return [Piece(self._corpus, at, min(at + 11, len(self))) for at in range(0, len(self), 11)]

    def batches(self, columns=None):
        raise AssertionError("the pieces are to be read")


def sent(function, tasks):
    """Map as if each task went to another machine: nothing comes or goes but what can be pickled."""
    for task in tasks:
        there, given = pickle.loads(pickle.dumps((function, task)))  # noqa: S301 - our own
        yield pickle.loads(pickle.dumps(there(given)))  # noqa: S301


def document(row, words, rng, length=40):
    return {"doc_id": f"d{row:03d}", "text": " ".join(rng.choice(words, length)), "source": f"s{row % 3}"}


def pool(num_docs=60, num_cooking=12):
    rng = np.random.default_rng(5)
    return Corpus.from_records(
        [document(row, COOKING if row < num_cooking else WORDS, rng, 30 + row % 7) for row in range(num_docs)]
    )


def cooking(num_docs=3):
    rng = np.random.default_rng(6)
    return Corpus.from_records([document(row + 900, COOKING, rng) for row in range(num_docs)])


def odd_pool():
    """The pool with what real ones have, too: copies, titles, other scripts, a document of the target, hardly a word."""
    rows = [row | {"title": "On the " + WORDS[n % 5] if n % 4 == 0 else ""} for n, row in enumerate(records(pool(45)))]
    copies = [row | {"doc_id": f"{row['doc_id']}-again{n}"} for row in (rows[3], rows[30]) for n in range(2)]
    odd = {
        "target": records(cooking())[0]["text"],
        "marks": "?! ...",
        "blank": "",
        "word": "salt",
        "scripts": "Ça mijote à feu doux, naïve \U0001f373 塩とこしょう Öl und Brühe " * 6,
    }
    others = [{"doc_id": name, "title": "", "text": text, "source": "odd"} for name, text in odd.items()]
    return Corpus.from_records([*rows, *copies, *others])


def records(corpus):
    return [{name: row[name] for name in ("doc_id", "text", "source")} for row in corpus.table().to_pylist()]


def outcome(choice):
    """What a choice says of each document, by its id."""
    rows = zip(choice.kept.tolist(), choice.scores.tolist(), choice.reasons.to_pylist(), strict=True)
    return dict(zip(choice.doc_ids.to_pylist(), rows, strict=True))


def kept_ids(choice):
    return [name for name, keep in zip(choice.doc_ids.to_pylist(), choice.kept.tolist(), strict=True) if keep]
