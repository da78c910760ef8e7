"""Views: the corpus as it stands when its development queries are held out.

Source: tamis design: a query that was cut out of a document must not be found in it by those who tune or train.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import ROW_GROUP_DOCS, Corpus
from tamis.data.queries import Qrels
from tamis.errors import DataError
from tamis.ops.text import cut

TEXT = pa.large_string()


class ViewCorpus(Corpus):
    """A corpus in which some documents are replaced by what their queries left of them.

    Order, ids and the other columns are those of the corpus it was made from, which it reads in batches:
    only the replaced texts are held in memory.

    Attributes:
      emptied: ids of the documents of which neither text nor title is left; their text is "".
    """

    def __init__(self, corpus: Corpus, rows: np.ndarray, texts: pa.Array, titles: pa.Array, emptied: list[str]) -> None:
        """Replace text and title at the ascending ``rows``; use `apply_views`."""
        super().__init__(schema=corpus.schema)
        self._base = corpus
        self._rows, self._texts, self._titles = rows, texts, titles
        self.emptied = emptied

    def __len__(self) -> int:
        """Number of documents: those of the corpus it was made from."""
        return len(self._base)

    def batches(
        self, columns: Sequence[str] | None = None, *, batch_docs: int = ROW_GROUP_DOCS
    ) -> Iterator[pa.RecordBatch]:
        """Yield the documents in order, at most ``batch_docs`` a batch."""
        start = 0
        for batch in self._base.batches(columns, batch_docs=batch_docs):
            first, last = np.searchsorted(self._rows, [start, start + len(batch)])
            inside = self._rows[first:last] - start
            start += len(batch)
            yield self._replaced(batch, inside, np.arange(first, last)) if len(inside) else batch

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the given rows in the given order."""
        wanted = np.asarray(rows, dtype=np.int64)
        table = self._base.take(wanted, columns)
        at = np.minimum(np.searchsorted(self._rows, wanted), max(0, len(self._rows) - 1))
        hit = self._rows[at] == wanted if len(self._rows) else np.zeros(len(wanted), bool)
        if not hit.any():
            return table
        batch = table.combine_chunks().to_batches()[0]
        return pa.Table.from_batches([self._replaced(batch, np.flatnonzero(hit), at[hit])])

    @cached_property
    def doc_ids(self) -> pa.LargeStringArray:
        """All ids in document order."""
        return self._base.doc_ids

    def _replaced(self, batch: pa.RecordBatch, inside: np.ndarray, places: np.ndarray) -> pa.RecordBatch:
        mask = np.zeros(len(batch), bool)
        mask[inside] = True
        arrays = list(batch.columns)
        told = [("text", self._texts.take(pa.array(places))), ("title", self._titles.take(pa.array(places)))]
        # a query may have come from here; what else these columns say is not searched
        told += [(n, pa.array([empty] * len(inside), TEXT)) for n, empty in (("metadata", "{}"), ("section", ""))]
        for name, values in told:
            at = batch.schema.get_field_index(name)
            if at >= 0:
                arrays[at] = pc.replace_with_mask(arrays[at], pa.array(mask), values)
        return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def apply_views(corpus: Corpus, qrels: Qrels) -> ViewCorpus:
    """Return the corpus with every positive that has a cut replaced by its view.

    A replaced document has no metadata and no section either: a query may have been read there, and is then
    marked by an empty cut (0, 0). All cuts of a document are taken out of it, whichever query they belong to.
    A document of which only the title is left has it as its text.

    Args:
      corpus: documents or passages; read in batches later, not copied.
      qrels: judgements with views; those without a cut change nothing.

    Raises:
      DataError: a judgement names a document that the corpus lacks, or a span outside its text.
    """
    table = qrels.table
    viewed = table.filter(pc.or_(pc.greater_equal(table["cut_start"], 0), table["cut_title"]))
    doc_ids = sorted(set(viewed["doc_id"].to_pylist()))
    rows = corpus.rows_of(doc_ids)
    if (rows < 0).any():
        missing = doc_ids[int(np.flatnonzero(rows < 0)[0])]
        raise DataError(
            f"views: no document {missing!r} in the corpus of {len(corpus)}. Do qrels and corpus belong together?"
        )
    order = np.argsort(rows)
    spans: dict[str, list[tuple[int, int]]] = {}
    untitled = set()
    for row in viewed.select(["doc_id", "cut_start", "cut_stop", "cut_title"]).to_pylist():
        if row["cut_start"] >= 0:
            spans.setdefault(row["doc_id"], []).append((row["cut_start"], row["cut_stop"]))
        if row["cut_title"]:
            untitled.add(row["doc_id"])
    texts, titles, emptied = [], [], []
    for doc in corpus.take(rows[order], ["doc_id", "title", "text"]).to_pylist():
        text = cut_all(doc["text"], spans.get(doc["doc_id"], []))
        title = "" if doc["doc_id"] in untitled else doc["title"]
        if not text.strip():
            text = title
            if not title.strip():
                emptied.append(doc["doc_id"])
        texts.append(text)
        titles.append(title)
    return ViewCorpus(corpus, rows[order], pa.array(texts, TEXT), pa.array(titles, TEXT), emptied)


def cut_all(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return ``text`` without the given spans, which may overlap.

    Raises:
      DataError: a span outside the text.
    """
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if not 0 <= start <= stop <= len(text):
            raise DataError(f"views: cut {start}:{stop} lies outside a text of {len(text)} characters.")
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    for start, stop in reversed(merged):
        text = cut(text, start, stop) if start < stop else text
    return text


def on_parents(qrels: Qrels, passages: Corpus) -> tuple[Qrels, set[str]]:
    """Move judgements of passages to the documents they were cut from, cuts included.

    Args:
      qrels: judgements of passages.
      passages: passages with ``parent_doc_id`` and ``start``.

    Returns:
      Judgements of the parents, and the ids of queries left out because they cut one parent in two places,
      which a judgement cannot hold.

    Raises:
      DataError: a judgement names a passage that is not there.
    """
    judged = qrels.table.to_pylist()
    rows = passages.rows_of([row["doc_id"] for row in judged])
    if (rows < 0).any():
        raise DataError(
            f"views: no passage {judged[int(np.flatnonzero(rows < 0)[0])]['doc_id']!r} in the corpus given."
        )
    places = passages.take(rows, ["parent_doc_id", "start"]).to_pylist()
    merged: dict[tuple[str, str], dict[str, object]] = {}
    left_out = set()
    for row, place in zip(judged, places, strict=True):
        shift = place["start"] if row["cut_start"] >= 0 else 0
        moved = row | {"doc_id": place["parent_doc_id"]}
        moved |= {"cut_start": row["cut_start"] + shift, "cut_stop": row["cut_stop"] + shift}
        other = merged.setdefault((row["query_id"], place["parent_doc_id"]), moved)
        if other is moved:
            continue
        if row["cut_start"] >= 0 and other["cut_start"] not in (-1, moved["cut_start"]):
            left_out.add(row["query_id"])
        if row["cut_start"] >= 0:
            other |= {"cut_start": moved["cut_start"], "cut_stop": moved["cut_stop"]}
        other["cut_title"] = other["cut_title"] or row["cut_title"]
        other["relevance"] = max(other["relevance"], row["relevance"])
    kept = [row for row in merged.values() if row["query_id"] not in left_out]
    return Qrels.from_records(kept), left_out
