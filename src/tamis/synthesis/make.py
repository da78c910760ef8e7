"""Synthesise: training pairs and a development set from a corpus alone, on disjoint clusters of documents.

Source: tamis design: split before mining, makers by what the corpus offers, cut what a query says from its
document, drop what can still be read, then refuse to go on if anything is left.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data import ledger
from tamis.data.corpus import Corpus
from tamis.data.queries import QRELS_SCHEMA, QUERY_SCHEMA, Qrels, Queries
from tamis.data.settings import Settings
from tamis.ops.bytes import text_hashes
from tamis.ops.hashing import text_keys, uniform
from tamis.synthesis.auto import available, scaled
from tamis.synthesis.leakage import Report, gate, leakage
from tamis.synthesis.mixture import PairMixture, water_fill
from tamis.synthesis.pairs import PairMaker, Pairs
from tamis.synthesis.split import Split
from tamis.synthesis.views import ViewCorpus, apply_views

Drops = Counter[tuple[str, str]]
STAGE = "synthesize"
_MAX_MINED_BYTES = 256 << 20
_MAX_PER_DOC = 20
_MAX_COPIES = 20
_PER_GROUP, _MIN_TRAIN_PAIRS = 8, 1000
_OVERSAMPLE = 2
# Whose positives are sound enough to tune on, and what steps in when they are too few, in this order.
_TIERS = (
    ("title_body", "field_pairs", "docstring_pairs", "headings"),
    ("inverse_cloze",),
    ("link_pairs",),
    ("prop",),
)
_SOUND = {name for tier in _TIERS if tier != ("prop",) for name in tier}
_TRAIN_WEIGHTS = {"inverse_cloze": 1.0, "body_first": 1.0, "prop": 0.5}
_TRAIN_WEIGHT = 3.0  # title pairs alone beat a mixture that drowns them (method card A12)


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
      train_queries, train_qrels: pairs of documents on the training side.
      dev_queries, dev_qrels: held-out queries; every positive is a held-out document.
      view: the corpus without what the development queries say; train and tune on this one.
      dev_doc_ids: the held-out documents among those looked at.
      num_looked_at: documents mined.
      num_train, num_dev: queries by maker.
      dropped: (maker, reason) -> candidates.
      left_out: maker -> why it does not apply to this corpus.
      leaks: the scan of the final development set: no leak.
      ledger: decisions (tamis.data.ledger.LEDGER_SCHEMA).
    """

    train_queries: Queries
    train_qrels: Qrels
    dev_queries: Queries
    dev_qrels: Qrels
    view: ViewCorpus
    dev_doc_ids: tuple[str, ...]
    num_looked_at: int
    num_train: dict[str, int]
    num_dev: dict[str, int]
    dropped: Drops
    left_out: dict[str, str]
    leaks: Report
    ledger: pa.Table


class Synthesize(Settings):
    """Make training pairs and development queries from documents or passages.

    Attributes:
      per_doc: queries that a maker with a choice takes from one document; more in small corpora.
      max_dev_queries: development queries over all makers, shared out evenly.
      min_dev_queries: below this the next weaker maker steps in: sentences, then links, then word sets.
      max_train_pairs: training queries over all makers.
      dev_frac: share of the documents that is held out; up to half where that is needed for min_dev_docs.
      min_dev_docs: documents held out at least, as far as half the corpus allows.
      max_dev_docs: documents held out at most.
      max_docs_mined: documents looked at, chosen by a hash of their ids.
    """

    method: Literal["synthesize"] = "synthesize"
    per_doc: Annotated[int, Field(ge=1)] = 2
    max_dev_queries: Annotated[int, Field(ge=1)] = 500
    min_dev_queries: Annotated[int, Field(ge=1)] = 60
    max_train_pairs: Annotated[int, Field(ge=1)] = 100_000
    dev_frac: Annotated[float, Field(gt=0, lt=1)] = 0.1
    min_dev_docs: Annotated[int, Field(ge=1)] = 400
    max_dev_docs: Annotated[int, Field(ge=1)] = 1000
    max_docs_mined: Annotated[int, Field(ge=2)] = 50_000

    def run(self, corpus: Corpus, learned: Corpus | None = None, *, seed: int) -> Made:
        """Split, mine, filter and check. Memory: the documents mined (at most 256 MiB), one batch of the others.

        Args:
          corpus: documents or passages; then a document here is a passage.
          learned: those of them that queries are made of; all by default. What a held-out query says is looked for
            in the whole corpus.
          seed: of every draw; the result does not depend on the order of documents.

        Raises:
          DataError: a development query can still be read in the corpus after all that was dropped.
        """
        dropped: Drops = Counter()
        mined, copies = self._documents(corpus if learned is None else learned, seed, dropped)
        split = Split(dev_frac=self.dev_frac, min_dev_docs=self.min_dev_docs, max_dev_docs=self.max_dev_docs)
        is_dev = split.sides(mined, seed=seed)
        offered = available(mined)
        miner = _Miner(mined, is_dev, copies)
        miner.mine([m for m in offered.makers if m.method != "prop"], self, seed, dropped)
        if miner.is_poor(self):
            miner.mine([m for m in offered.makers if m.method == "prop"], self, seed, dropped)
        chosen = _Dev(corpus, {name: dev for name, (dev, _) in miner.parts.items()}, dropped)
        train = self._train({name: train for name, (_, train) in miner.parts.items()}, len(mined), seed, dropped)
        dev = chosen.select(self, train.queries, seed)
        train = _without(train, dev.queries, dropped)
        view = apply_views(corpus, dev.qrels)
        report = leakage(dev.queries, train.queries, view)
        gate(report)
        dev_ids = tuple(sorted(mined.doc_ids.filter(pa.array(is_dev)).to_pylist()))
        return Made(
            train.queries,
            train.qrels,
            dev.queries,
            dev.qrels,
            view,
            dev_ids,
            len(mined),
            _by_method(train.queries),
            _by_method(dev.queries),
            +dropped,
            offered.left_out,
            report,
            _ledger(train, dev, dev_ids, chosen.rejected),
        )

    def _documents(self, corpus: Corpus, seed: int, dropped: Drops) -> tuple[Corpus, dict[str, list[str]]]:
        """Choose what to mine: one of each set of equal texts; return it and the ids of the others by its id."""
        family = "parent_doc_id" if corpus.is_passages else "group_id"
        columns = list(dict.fromkeys(["doc_id", "group_id", family]))
        table = corpus.table(columns)
        ids, groups = table["doc_id"].to_pylist(), table["group_id"].to_pylist()
        sizes = np.concatenate(
            [np.zeros(0, np.int64)]
            + [pc.binary_length(batch.column(0)).to_numpy() for batch in corpus.batches(["text"])]
        )
        members: dict[str, list[int]] = {}
        for row in corpus.id_ranks.argsort().tolist():
            members.setdefault(groups[row], []).append(row)
        heads = np.array([rows[0] for rows in members.values() if len(rows) <= _MAX_COPIES], dtype=np.int64)
        dropped[("", "too_many_copies")] += sum(len(rows) for rows in members.values() if len(rows) > _MAX_COPIES)
        keys = text_keys(table[family].take(pa.array(heads)).to_pylist())
        order = heads[np.lexsort((corpus.id_ranks[heads], uniform(keys, seed, "select")))]
        fits = np.cumsum(sizes[order]) <= _MAX_MINED_BYTES
        fits[: 1 if len(fits) else 0] = True
        taken = np.sort(order[fits][: self.max_docs_mined])
        dropped[("", "not_sampled")] += len(heads) - len(taken)
        copies = {ids[r]: [ids[m] for m in members[groups[r]][1:]] for r in taken if len(members[groups[r]]) > 1}
        return corpus.select(taken), copies

    def _train(self, parts: dict[str, Pairs], num_docs: int, seed: int, dropped: Drops) -> Pairs:
        """Mix the training sides; word sets only where the others give less than they."""
        others = {name: p for name, p in parts.items() if len(p.queries) and name != "prop"}
        is_enough = "prop" not in parts or sum(len(p.queries) for p in others.values()) >= len(parts["prop"].queries)
        used = others if is_enough else parts
        total = sum(len(p.queries) for p in used.values())
        weights = {name: _TRAIN_WEIGHTS.get(name.split(".")[0], _TRAIN_WEIGHT) for name in used}
        # one document may be most of a small corpus
        per_group = max(_PER_GROUP, -(-_MIN_TRAIN_PAIRS // max(1, num_docs)))
        num_pairs = self.max_train_pairs if total > self.max_train_pairs else None
        mixture = PairMixture(weights=weights, num_pairs=num_pairs, max_repeats=1, per_group=per_group)
        mixed = mixture.combine({name: (p.queries, p.qrels) for name, p in used.items()}, seed=seed)
        for reason, count in mixed.dropped.items():
            dropped[("train", reason)] += count
        return mixed


class _Miner:
    """Mines the documents with one maker after another and parts the pairs by side."""

    def __init__(self, mined: Corpus, is_dev: np.ndarray, copies: dict[str, list[str]]) -> None:
        self._mined, self._copies = mined, copies
        self.dev_ids = set(mined.doc_ids.filter(pa.array(is_dev)).to_pylist())
        self.parts: dict[str, tuple[Pairs, Pairs]] = {}

    def mine(self, makers: Iterable[PairMaker], settings: Synthesize, seed: int, dropped: Drops) -> None:
        """Add the pairs of the held-out and of the training side of each maker."""
        # a small corpus must give enough queries from few held-out documents
        needed = -(-2 * settings.min_dev_queries // max(1, len(self.dev_ids)))
        per_doc = max(settings.per_doc, min(needed, _MAX_PER_DOC))
        for maker in makers:
            pairs = scaled(maker, self._mined, per_doc).mine(self._mined, seed=seed)
            for reason, count in pairs.dropped.items():
                dropped[(maker.label, reason)] += count
            dev, train, num_astride = _by_side(pairs, self.dev_ids)
            dropped[(maker.label, "astride_the_split")] += num_astride
            if maker.method == "inverse_cloze":
                dev = _cut_spans(dev)
            self.parts[maker.label] = (_with_copies(dev, self._copies), _with_copies(train, self._copies))

    def is_poor(self, settings: Synthesize) -> bool:
        """Say whether a side has too little, so that word sets are worth making."""
        num_dev = sum(len(dev.queries) for name, (dev, _) in self.parts.items() if name.split(".")[0] in _SOUND)
        return num_dev < 2 * settings.min_dev_queries or not any(len(train.queries) for _, train in self.parts.values())


class _Dev:
    """Chooses development queries tier by tier, and drops those that can still be read somewhere."""

    def __init__(self, corpus: Corpus, parts: dict[str, Pairs], dropped: Drops) -> None:
        self._corpus, self._dropped = corpus, dropped
        self._parts = {name: p for name, p in parts.items() if len(p.queries)}
        self.rejected: list[tuple[str, str]] = []  # (source document, query)

    def select(self, settings: Synthesize, train: Queries, seed: int) -> Pairs:
        """Fill from the first tier that has any up to max_dev_queries, from later ones up to min_dev_queries."""
        chosen = _concat([])
        for tier in _TIERS:
            goal = settings.max_dev_queries
            if len(chosen.queries):
                goal = min(settings.min_dev_queries, goal)
            left = goal - len(chosen.queries)
            offered = {n: p for n, p in self._parts.items() if n.split(".")[0] in tier}
            if left <= 0 or not offered:
                continue
            wide = _concat([chosen, *_share(offered, left * _OVERSAMPLE, seed)])
            clean = self._clean(wide, train)
            new = {n: _where(clean, clean.queries.table["method"], {n}) for n in offered}
            old = _where(clean, clean.queries.table["method"], set(self._parts) - set(offered))
            chosen = self._clean(_concat([old, *_share(new, goal - len(old.queries), seed)]), train)
        return _in_query_order(chosen)

    def _clean(self, pairs: Pairs, train: Queries) -> Pairs:
        """Drop queries until none is left that empties its document or that the scan finds."""
        while len(pairs.queries):
            view = apply_views(self._corpus, pairs.qrels)
            if view.emptied:
                empty = set(view.emptied)
                judged = zip(
                    pairs.qrels.table["query_id"].to_pylist(), pairs.qrels.table["doc_id"].to_pylist(), strict=True
                )
                # of the queries that together empty a document the last is given up
                last = {doc_id: query_id for query_id, doc_id in judged if doc_id in empty}
                pairs = self._drop(pairs, set(last.values()), "nothing_left")
                continue
            report = leakage(pairs.queries, Queries(train.table.filter(_not_equal(train, pairs.queries))), view)
            if not report.leaks:
                break
            pairs = self._drop(pairs, report.query_ids, "text_remains")
        return pairs

    def _drop(self, pairs: Pairs, query_ids: set[str], reason: str) -> Pairs:
        gone = pc.is_in(pairs.queries.table["query_id"], value_set=pa.array(sorted(query_ids), pa.large_string()))
        for row in pairs.queries.table.filter(gone).select(["method", "source_doc_id", "query_id"]).to_pylist():
            self._dropped[(row["method"], reason)] += 1
            self.rejected.append((row["source_doc_id"], row["query_id"]))
        queries = Queries(pairs.queries.table.filter(pc.invert(gone)))
        return Pairs(queries, pairs.qrels.of(queries))


def _not_equal(train: Queries, dev: Queries) -> pa.Array:
    """Mask of the training queries whose words equal no development query's: the others are given up for it."""
    return pa.array(~np.isin(text_hashes(train.texts)[0], text_hashes(dev.texts)[0]))


def _in_query_order(pairs: Pairs) -> Pairs:
    """Sort the judgements by their query's place, then by document id: no trace of the order of documents."""
    places = pc.index_in(pairs.qrels.table["query_id"], value_set=pairs.queries.table["query_id"].combine_chunks())
    table = pairs.qrels.table.append_column("place", places).sort_by([("place", "ascending"), ("doc_id", "ascending")])
    return Pairs(pairs.queries, Qrels(table.drop_columns(["place"])), pairs.dropped)


def _without(train: Pairs, dev: Queries, dropped: Drops) -> Pairs:
    keep = _not_equal(train.queries, dev)
    queries = Queries(train.queries.table.filter(keep))
    if len(queries) < len(train.queries):
        dropped[("train", "equals_dev_query")] += len(train.queries) - len(queries)
    return Pairs(queries, train.qrels.of(queries))


def _concat(parts: Iterable[Pairs]) -> Pairs:
    listed = list(parts)
    queries = pa.concat_tables([QUERY_SCHEMA.empty_table(), *(p.queries.table for p in listed)])
    qrels = pa.concat_tables([QRELS_SCHEMA.empty_table(), *(p.qrels.table for p in listed)])
    return Pairs(Queries(queries), Qrels(qrels))


def _where(pairs: Pairs, column: pa.ChunkedArray, values: set[str]) -> Pairs:
    queries = Queries(
        pairs.queries.table.filter(pc.is_in(column, value_set=pa.array(sorted(values), pa.large_string())))
    )
    return Pairs(queries, pairs.qrels.of(queries))


def _share(parts: dict[str, Pairs], total: int, seed: int) -> list[Pairs]:
    """Take at most ``total`` queries, evenly over the parts, each in keyed order."""
    names = sorted(parts)
    caps = np.array([len(parts[n].queries) for n in names], dtype=np.int64)
    taken = []
    for name, number in zip(names, water_fill(caps, np.ones(len(caps)), max(0, total)), strict=True):
        queries = parts[name].queries
        order = np.argsort(uniform(text_keys(queries.ids), seed, "split"), kind="stable")[:number]
        chosen = queries.select(order)
        taken.append(Pairs(chosen, parts[name].qrels.of(chosen)))
    return taken


def _by_side(pairs: Pairs, dev_ids: set[str]) -> tuple[Pairs, Pairs, int]:
    """Return pairs wholly on the held-out side, wholly on the training side, and how many are on both."""
    table = pairs.queries.table
    sides: dict[str, set[bool]] = {}
    for query_id, doc_id in zip(table["query_id"].to_pylist(), table["source_doc_id"].to_pylist(), strict=True):
        sides[query_id] = {doc_id in dev_ids}
    for query_id, doc_id in zip(
        pairs.qrels.table["query_id"].to_pylist(), pairs.qrels.table["doc_id"].to_pylist(), strict=True
    ):
        sides[query_id].add(doc_id in dev_ids)
    parts = []
    for side in (True, False):
        queries = pairs.queries.select(np.array([sides[q] == {side} for q in pairs.queries.ids], dtype=bool))
        parts.append(Pairs(queries, pairs.qrels.of(queries)))
    return parts[0], parts[1], sum(len(s) == 2 for s in sides.values())


def _cut_spans(pairs: Pairs) -> Pairs:
    """Cut every query that is a span of its source from it, also where training would have kept it."""
    spans = {
        (row["query_id"], row["source_doc_id"]): (row["start"], row["stop"])
        for row in pairs.queries.table.to_pylist()
        if row["start"] >= 0
    }
    rows = []
    for row in pairs.qrels.table.to_pylist():
        start, stop = spans.get((row["query_id"], row["doc_id"]), (row["cut_start"], row["cut_stop"]))
        rows.append(row | {"cut_start": start, "cut_stop": stop})
    return Pairs(pairs.queries, Qrels.from_records(rows), pairs.dropped)


def _with_copies(pairs: Pairs, copies: dict[str, list[str]]) -> Pairs:
    """Judge the documents with an equal text as their copy is judged, cut included."""
    if not copies or not len(pairs.queries):
        return pairs
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in pairs.qrels.table.to_pylist():
        for doc_id in (row["doc_id"], *copies.get(row["doc_id"], [])):
            rows.setdefault((row["query_id"], doc_id), row | {"doc_id": doc_id})
    return Pairs(pairs.queries, Qrels.from_records(rows.values()), pairs.dropped)


def _by_method(queries: Queries) -> dict[str, int]:
    return dict(sorted(Counter(queries.table["method"].to_pylist()).items()))


def _ledger(train: Pairs, dev: Pairs, dev_ids: Sequence[str], rejected: Sequence[tuple[str, str]]) -> pa.Table:
    """One row a held-out document, made query and rejected query, in document order of their ids."""
    records: list[dict[str, Any]] = [
        {"doc_id": d, "method": "split", "decision": "split", "reason": "held_out"} for d in dev_ids
    ]
    for pairs, decision in ((dev, "held_out"), (train, "generated")):
        for row in pairs.queries.table.select(["source_doc_id", "method", "query_id"]).to_pylist():
            made = {"doc_id": row["source_doc_id"], "method": row["method"], "other_id": row["query_id"]}
            records.append(made | {"decision": decision, "reason": ""})
    for doc_id, query_id in rejected:
        method = query_id.split(":", 1)[0]
        records.append(
            {"doc_id": doc_id, "method": method, "decision": "rejected", "reason": "text_remains", "other_id": query_id}
        )
    seen: Counter[str] = Counter()
    for record in records:
        record |= {"stage": STAGE, "seq": seen[record["doc_id"]]}
        seen[record["doc_id"]] += 1
    return ledger.rows(records)
