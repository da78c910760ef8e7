"""Repeated substrings: long passages pasted into otherwise different documents, marked or left in one of them alone.

Source: Lee et al. 2021, Deduplicating Training Data Makes Language Models Better, arXiv:2107.06499 (ExactSubstr);
windows sampled by winnowing (Schleimer, Wilkerson, Aiken 2003) in place of a suffix array: tamis, method card I7.

A word here is one of `tamis.ops.bytes`: case, marks and blanks do not tell passages apart. The index keeps the
original text.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.corpus import Corpus, Documents
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ingestion import substring_find
from tamis.ingestion.spans import TEXT, Cleaned, Edited, collected, cut_batch
from tamis.ops import lines as line_ops
from tamis.ops import winnow
from tamis.ops.bytes import text_hashes
from tamis.ops.hashing import array_keys

REPEAT_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),
        ("start", pa.int64()),  # bytes of the text as it was
        ("stop", pa.int64()),  # exclusive
        ("num_words", pa.int64()),
        ("other_id", TEXT),  # the document that keeps these words
    ]
)


@dataclass(frozen=True)
class Repeats:
    """The passages of a corpus that stand in another document too; P pieces of M documents.

    Attributes:
      doc_ids: of the documents that have a piece, in the order of the corpus.
      keys: uint64 [M], XXH3-64 of their texts.
      first: int64 [M + 1]: document i has the pieces first[i] up to first[i + 1].
      starts: int64 [P], first word, ascending within a document; two pieces may overlap.
      stops: int64 [P], exclusive, ascending too.
      other_ids: the document that keeps the words of each piece, ahead of this one in the global order.
      other_starts: int64 [P], first word there.
      num_samples: windows that were sampled.
      num_shared: those that a document ahead has too.
      num_unequal: those of them whose words differ though their hashes are equal.
    """

    doc_ids: pa.Array
    keys: np.ndarray
    first: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    other_ids: pa.Array
    other_starts: np.ndarray
    num_samples: int
    num_shared: int
    num_unequal: int

    @cached_property
    def _by_id(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted keys of the doc_ids, and the document of each."""
        keys = array_keys(self.doc_ids)
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def look_up(self, doc_ids: pa.Array) -> np.ndarray:
        """int64 [n]: position of each document among those with a piece, -1 where it has none. O(n log M)."""
        keys, order = self._by_id
        wanted = array_keys(doc_ids)
        if not len(keys):
            return np.full(len(wanted), -1)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, order[at], -1)


@dataclass(frozen=True)
class RepeatedResult(Edited):
    """What `RepeatedSubstrings.sift` gives.

    Attributes:
      repeats: REPEAT_SCHEMA, every piece, whether it was cut or only marked.
    """

    repeats: pa.Table


class RepeatedSubstrings(Settings):
    """Find passages that two documents share word by word; leave them all, or only the one of the first document.

    The documents have a global order: the longest first, then by content and doc_id. A passage belongs to the first
    document that has it. Quotations and licences repeat for good reasons, and cutting breaks code: so the default only
    marks. Repeats within one document are left alone.

    Attributes:
      num_tokens: words of the shortest passage (the paper: 50 tokens of its vocabulary). Of passages of at least
        2 * num_tokens - 1 words every one is found, all but num_tokens - 1 words at either end; where only two
        documents have it, once each, the whole. Shorter ones are found by chance.
      action: "mark" changes no text; "remove" cuts a passage where a document ahead keeps it in one piece. A document
        without a word left is dropped (``only_repeated_text``).
    """

    method: Literal["substrings"] = "substrings"
    num_tokens: Annotated[int, Field(ge=2, le=1000)] = 50
    action: Literal["mark", "remove"] = "mark"

    def find(self, documents: Documents, *, seed: int, workers: int = 1) -> Repeats:
        """Find the repeats. The result does not depend on batches, on the order of the rows, or on workers.

        Reads the texts twice, and those that share a passage once more for each document that has it first: about
        130 MB/s a core. Memory: 100 bytes a document, 16 a sampled window (one in 25 words; past 2^26 of them the
        texts are read in parts, once more for each), 100 a shared one; texts are held for one batch a worker.

        Args:
          documents: any documents.
          seed: unused; every sieve takes it.
          workers: threads.
        """
        noted = substring_find.outline(documents, workers=workers)
        order = substring_find.global_order(noted)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        parts = substring_find.num_parts(noted, self.num_tokens)
        windows = substring_find.shared_windows(documents, ranks, self.num_tokens, parts=parts, workers=workers)
        found = substring_find.shared_runs(documents, noted, windows, self.num_tokens, workers=workers)
        runs = found.runs
        runs[:, 0], runs[:, 3] = ranks[runs[:, 0]], ranks[runs[:, 3]]
        pieces = winnow.settle(runs, len(order), width=self.num_tokens, are_cut=self.action == "remove")
        pieces[:, 0], pieces[:, 3] = order[pieces[:, 0]], order[pieces[:, 3]]
        pieces = pieces[np.argsort(pieces[:, 0], kind="stable")]
        rows, first = np.unique(pieces[:, 0], return_index=True)
        return Repeats(
            doc_ids=noted.ids.take(pa.array(rows)),
            keys=noted.keys[rows],
            first=np.r_[first, len(pieces)],
            starts=pieces[:, 1].copy(),
            stops=pieces[:, 2].copy(),
            other_ids=noted.ids.take(pa.array(pieces[:, 3])),
            other_starts=pieces[:, 4].copy(),
            num_samples=windows.num_samples,
            num_shared=len(windows.members),
            num_unequal=found.num_unequal,
        )

    def clean(self, batch: pa.RecordBatch, repeats: Repeats) -> Cleaned:
        """Cut the repeats of a batch; with action "mark" nothing is cut. Nothing outside the batch is looked at.

        Raises:
          DataError: a text is not the one that repeats were found in.
        """
        spans = line_ops.Spans(*np.zeros((3, 0), np.int64))
        if self.action == "remove":
            rows, pieces = _pieces_of(batch, repeats)
            # in words first: two pieces in a row take along the blank between them
            words = line_ops.merged(line_ops.Spans(rows, repeats.starts[pieces], repeats.stops[pieces]))
            spans = line_ops.Spans(words.rows, *_bytes_of(batch, words))
        changed = np.zeros(len(batch), np.bool_)
        changed[spans.rows] = True
        _, num_words, _ = text_hashes(line_ops.cut(batch["text"], spans))
        drops = np.where(changed & (num_words == 0), "only_repeated_text", "").tolist()
        return cut_batch(batch, spans, ["repeated_text"] * len(spans.rows), drops)

    def marks(self, batch: pa.RecordBatch, repeats: Repeats) -> pa.Table:
        """Return where the repeats of a batch are: REPEAT_SCHEMA, by document and place.

        Raises:
          DataError: a text is not the one that repeats were found in.
        """
        rows, pieces = _pieces_of(batch, repeats)
        starts, stops = repeats.starts[pieces], repeats.stops[pieces]
        begins, ends = _bytes_of(batch, line_ops.Spans(rows, starts, stops))
        ids = batch["doc_id"].cast(TEXT).take(pa.array(rows))
        columns = [ids, begins, ends, stops - starts, repeats.other_ids.take(pa.array(pieces))]
        return pa.table(columns, schema=REPEAT_SCHEMA)

    def sift(self, corpus: Corpus, *, seed: int) -> RepeatedResult:
        """Find the repeats of a corpus and mark or cut them. Costs `find` and one more pass.

        Args:
          corpus: any documents.
          seed: unused; every sieve takes it.

        Returns:
          Documents with what is left of their text, every span that was cut, and every repeat.
        """
        repeats = self.find(corpus, seed=seed)
        parts, marks = [], [REPEAT_SCHEMA.empty_table()]
        for batch in corpus.batches():
            parts.append(self.clean(batch, repeats))
            marks.append(self.marks(batch, repeats))
        edited = collected(corpus.schema, parts)
        return RepeatedResult(edited.kept, edited.dropped, edited.spans, pa.concat_tables(marks))


def _pieces_of(batch: pa.RecordBatch, repeats: Repeats) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the number of each piece in a batch, int64 [S] each, by row and place."""
    places = repeats.look_up(batch["doc_id"])
    rows = np.flatnonzero(places >= 0)
    places = places[rows]
    changed = np.flatnonzero(array_keys(batch["text"].take(pa.array(rows))) != repeats.keys[places])
    if len(changed):
        raise DataError(
            f"document {batch['doc_id'][rows[changed[0]]].as_py()!r}: its text is not the one that repeats were found "
            "in. Clean the documents that `find` has read, before anything else changes them."
        )
    counts = np.diff(repeats.first)[places]
    offsets = np.cumsum(counts) - counts
    numbers = np.arange(counts.sum()) + np.repeat(repeats.first[places] - offsets, counts)
    return np.repeat(rows, counts), numbers


def _bytes_of(batch: pa.RecordBatch, words: line_ops.Spans) -> tuple[np.ndarray, np.ndarray]:
    """Return first byte and end of runs of words; reads only the texts that have one."""
    rows, places = np.unique(words.rows, return_inverse=True)
    return winnow.located(batch["text"].take(pa.array(rows)), places, words.starts, words.stops)
