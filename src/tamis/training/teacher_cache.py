"""Teacher cache: what a reranker says about pairs of texts, computed once and kept.

Source: Hofstätter et al. 2020, arXiv:2010.02666 (teacher scores stored beside the training pairs); the cache: tamis.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.data import Corpus, Queries, Run, artefact, columns, durable, lock
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.ops.hashing import content_hashes
from tamis.ops.text import joined
from tamis.training.negatives.base import places

_KIND = "teacher_scores"
_FILE = "scores.parquet"
_HASH = pa.binary(16)
_SCHEMA = pa.schema(
    [
        ("reranker", pa.dictionary(pa.int32(), pa.string())),
        ("query_hash", _HASH),
        ("document_hash", _HASH),
        ("score", pa.float64()),
    ]
)
_KEYS = ("query_hash", "document_hash")
_MAX_PARTS = 16
"""From so many on, the parts of a finished call become one."""


class Reranker(Protocol):
    """Scores pairs of texts; a cross-encoder for one. Logits, not probabilities: those saturate."""

    @property
    def fingerprint(self) -> str:
        """Everything that determines a score: model, revision, truncation, precision."""

    def __call__(self, queries: Sequence[str], documents: Sequence[str], /) -> Any:  # noqa: ANN401 - any numbers
        """Return one finite number for each (query, document) at the same place, higher is better."""


@dataclass(frozen=True)
class TeacherCache:
    """Scores of pairs by the texts themselves: other ids, another order or another split find them again.

    On disk, for each reranker a folder of parts, each a verified artefact with one Parquet file: reranker, XXH3-128
    of the query's text and of the document's (title and text joined), score. A part is written whole or not at all:
    a killed call has lost the pairs since the last part, and the next one goes on there. A damaged part is removed
    and its pairs are computed again.

    Attributes:
      folder: the cache's own; made when the first part is written.
      part_pairs: pairs of a part, and of one call of the reranker.
    """

    folder: Path
    part_pairs: int = 4096

    def __post_init__(self) -> None:
        """Refuse a size that can hold no pair.

        Raises:
          UsageError: ``part_pairs`` is below 1.
        """
        if self.part_pairs < 1:
            raise UsageError(f"teacher cache: part_pairs is {self.part_pairs}. Give 1 or more; a few thousand is good.")

    def score(
        self,
        pairs: Run,
        corpus: Corpus,
        queries: Queries,
        reranker: Reranker,
        *,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> Run:
        """Return the pairs with the reranker's scores; only pairs of texts that it has not scored yet are computed.

        Computing is the cost; what is known is read, about 40 bytes a pair. Equal texts count once.

        Args:
          pairs: candidates, and answers where margins will be wanted; its scores are not read.
          corpus: has its documents.
          queries: has its queries.
          reranker: called with lists of texts, pairs in the order of the run.
          report: called before and after each part with pairs (distinct ones), known (of them, at the start),
            done, and damaged (what was wrong with parts that were removed).

        Raises:
          DataError: a text is not there, or the reranker gave another number of scores or one that is not finite.
          UsageError: the reranker has no fingerprint.
          LockedError: another process is filling the cache.
          ResourceError: the disk refused.
        """
        name = _fingerprint(reranker)
        wanted = _Pairs.of(pairs, corpus, queries)
        store = _Store(self.folder / artefact.fingerprint(name)[:16], name)
        with lock.exclusive(self.folder):
            artefact.sweep(self.folder)
            scores, damaged = wanted.known(store)
            missing = np.flatnonzero(np.isnan(scores))
            told = {"pairs": len(scores), "known": len(scores) - len(missing), "damaged": damaged}
            for start in range(0, len(missing), self.part_pairs):
                if report is not None:
                    report({**told, "done": start})
                rows = missing[start : start + self.part_pairs]
                scores[rows] = wanted.computed(rows, reranker)
                store.append(wanted.table(rows, scores[rows], name))
            if report is not None:
                report({**told, "done": len(missing)})
            store.compact()
        return pairs.with_scores(scores[wanted.of_row])

    def missing(self, pairs: Run, corpus: Corpus, queries: Queries, reranker: Reranker) -> int:
        """Return how many distinct pairs of texts `score` would compute, to know its cost before. Changes nothing.

        Raises:
          DataError: a text is not there.
          UsageError: the reranker has no fingerprint.
        """
        name = _fingerprint(reranker)
        store = _Store(self.folder / artefact.fingerprint(name)[:16], name, read_only=True)
        return int(np.isnan(_Pairs.of(pairs, corpus, queries).known(store)[0]).sum())


def _fingerprint(reranker: Reranker) -> str:
    name = getattr(reranker, "fingerprint", None)
    if not isinstance(name, str) or not name:
        raise UsageError(
            f"teacher cache: {type(reranker).__name__} has no fingerprint (got {name!r}). Give it a text that names "
            "model, revision and truncation: scores are found again by it."
        )
    return name


@dataclass(frozen=True)
class _Pairs:
    """Distinct pairs of texts of a run, in the order they first occur.

    Attributes:
      query_hashes: bytes [q] of 16, distinct; ``query_texts`` beside them.
      document_hashes: bytes [d] of 16, distinct; ``document_texts`` beside them.
      queries: int64 [n], place of each pair's query; ``documents`` likewise.
      of_row: int64 [N], the pair of each row of the run.
    """

    query_hashes: pa.Array
    query_texts: pa.Array
    document_hashes: pa.Array
    document_texts: pa.Array
    queries: np.ndarray
    documents: np.ndarray
    of_row: np.ndarray

    @classmethod
    def of(cls, pairs: Run, corpus: Corpus, queries: Queries) -> "_Pairs":
        asked, query_of = np.unique(pairs.query_rows, return_inverse=True)
        held, document_of = np.unique(pairs.docs, return_inverse=True)
        query_ids, doc_ids = pairs.query_ids.take(pa.array(asked)), pairs.doc_ids.take(pa.array(held))
        query_rows = places(query_ids, queries.table["query_id"].combine_chunks())
        rows = corpus.rows_of(doc_ids)
        for what, ids, found in (("query", query_ids, query_rows), ("document", doc_ids, rows)):
            if (found < 0).any():
                unknown = ids[int(np.flatnonzero(found < 0)[0])]
                raise DataError(
                    f"teacher cache: no {what} {unknown} among those given. Do run and texts belong together?"
                )
        texts = queries.table["text"].combine_chunks().take(pa.array(query_rows))
        query_texts, query_hashes, same_query = _distinct(texts)
        documents = joined(corpus.take(rows, ["title", "text"])) if len(rows) else texts.slice(0, 0)
        document_texts, document_hashes, same_document = _distinct(documents)
        width = max(1, len(document_texts))
        keys, first, of_row = np.unique(
            same_query[query_of] * width + same_document[document_of], return_index=True, return_inverse=True
        )
        order = np.argsort(first)
        place_of = np.empty(len(order), dtype=np.int64)
        place_of[order] = np.arange(len(order))
        owners, docs = np.divmod(keys[order], width)
        return cls(query_hashes, query_texts, document_hashes, document_texts, owners, docs, place_of[of_row])

    def known(self, store: "_Store") -> tuple[np.ndarray, list[str]]:
        """Return float64 [n], NaN where the store has no score, and what is damaged in it."""
        scores = np.full(len(self.queries), np.nan)
        width = max(1, len(self.document_hashes))
        keys = self.queries * width + self.documents
        order = np.argsort(keys)
        for part in store.parts():
            owners, docs = places(part[_KEYS[0]], self.query_hashes), places(part[_KEYS[1]], self.document_hashes)
            found = np.flatnonzero((owners >= 0) & (docs >= 0))
            if not len(found) or not len(order):
                continue
            stored = owners[found] * width + docs[found]
            at = order[np.minimum(np.searchsorted(keys, stored, sorter=order), len(order) - 1)]
            same = keys[at] == stored
            scores[at[same]] = np.asarray(part["score"])[found[same]]
        return scores, store.damaged

    def computed(self, rows: np.ndarray, reranker: Reranker) -> np.ndarray:
        """Return float64 scores of some pairs."""
        queries = self.query_texts.take(pa.array(self.queries[rows])).to_pylist()
        documents = self.document_texts.take(pa.array(self.documents[rows])).to_pylist()
        given = reranker(queries, documents)
        with columns.conversion("teacher cache: scores of the reranker"):
            scores = np.asarray(given, dtype=np.float64)
        if scores.shape != (len(rows),):
            raise DataError(
                f"teacher cache: {len(rows)} pairs were given, the reranker answered with shape {scores.shape}. "
                "It must give one number a pair."
            )
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            at = int(bad[0])
            raise DataError(
                f"teacher cache: the reranker gave {scores[at]} for query {queries[at]!r:.80} and document "
                f"{documents[at]!r:.80}. Its weights are damaged or overflow; try float32."
            )
        return scores

    def table(self, rows: np.ndarray, scores: np.ndarray, name: str) -> pa.Table:
        """Return some pairs with their scores as they are stored."""
        owners = self.query_hashes.take(pa.array(self.queries[rows]))
        return _stored(name, owners, self.document_hashes.take(pa.array(self.documents[rows])), pa.array(scores))


def _stored(name: str, query_hashes: pa.Array, document_hashes: pa.Array, scores: pa.Array) -> pa.Table:
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(scores), np.int32)), pa.array([name]))
    return pa.table([names, query_hashes, document_hashes, scores], schema=_SCHEMA)


def _distinct(texts: pa.Array) -> tuple[pa.Array, pa.Array, np.ndarray]:
    """Return distinct texts in the order they first occur, their hashes, and for each text its place."""
    encoded = texts.dictionary_encode()
    hashes = content_hashes(encoded.dictionary.to_pylist())
    raw = pa.py_buffer(hashes.tobytes())  # 16 bytes each, trailing zeros too
    array = pa.FixedSizeBinaryArray.from_buffers(_HASH, len(hashes), [None, raw])
    return encoded.dictionary, array, np.asarray(encoded.indices, dtype=np.int64)


class _Store:
    """The parts of one reranker."""

    def __init__(self, folder: Path, name: str, *, read_only: bool = False) -> None:
        self._folder, self._name, self._read_only = folder, name, read_only
        self.damaged: list[str] = []

    def _names(self) -> list[Path]:
        return sorted(self._folder.glob("part-[0-9]*"))

    def parts(self) -> Iterator[pa.Table]:
        """Yield every whole part; one that is damaged is removed and told."""
        for path in self._names():
            try:
                manifest = artefact.open_verified(path, _KIND)
                if manifest.settings.get("reranker") != self._name:
                    raise ArtefactError(f"{path}: scores of {manifest.settings.get('reranker')!r}, not {self._name!r}.")
                with columns.parquet(path / _FILE):
                    table = pq.read_table(path / _FILE).cast(_SCHEMA)
            except ArtefactError as error:
                self.damaged.append(str(error))
                if not self._read_only:
                    durable.remove(path)
                continue
            yield table

    def append(self, table: pa.Table) -> None:
        """Write one more part."""
        names = self._names()
        self._write(1 + int(names[-1].name.removeprefix("part-")) if names else 0, table)

    def _write(self, number: int, table: pa.Table) -> None:
        path = self._folder / f"part-{number:08d}"
        settings = {"reranker": self._name, "part": number}
        with artefact.stage(path, _KIND, settings=settings, inputs={}, seed=0) as staging:
            with staging.create(_FILE) as sink:
                pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
            staging.counts["pairs"] = len(table)

    def compact(self) -> None:
        """Make one part of many. Killed half-way, some pairs are there twice, with the same score, until the next."""
        names = self._names()
        if len(names) < _MAX_PARTS:
            return
        every = pa.concat_tables([_SCHEMA.empty_table(), *self.parts()])
        once = every.group_by(list(_KEYS), use_threads=False).aggregate([("score", "first")])
        once = once.sort_by([(name, "ascending") for name in _KEYS])
        self._write(0, _stored(self._name, *(once[name] for name in (*_KEYS, "score_first"))))
        for path in names:
            if path.name != "part-00000000":
                durable.remove(path)
