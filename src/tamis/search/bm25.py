"""BM25: words that are rare in the corpus and frequent in a document, damped by its length.

Source: Robertson et al. 1994, *Okapi at TREC-3*; variants as in Kamphuis et al. 2020; scores computed at build
time as in Lù 2024, *BM25S*, arXiv:2407.03618.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.data.artefact import Staging
from tamis.data.columns import TEXT
from tamis.data.run import Ids
from tamis.data.settings import Settings
from tamis.errors import ArtefactError, DataError
from tamis.search import store
from tamis.search.answers import Pairs, id_ranks, judged_pairs, to_run
from tamis.search.lexical import Analyser, Vocabulary, Words, weigh

Packed = tuple[np.ndarray, np.ndarray, np.ndarray]
_BLOCK_POSTINGS = 1 << 22


class BM25(Settings):
    """Lexical search; the baseline nobody may skip.

    score(q, d) = sum over the query's terms, repeats counted, of idf(t)·tf / (tf + k1·(1 - b + b·L_d / L_avg)).

    Attributes:
      k1: how slowly repeats of a term saturate.
      b: how much length is held against a document, 0 to 1.
      variant: idf of ``lucene`` ln(1 + (N - df + .5)/(df + .5)), ``robertson`` the same without 1 + and not
        below 0, ``atire`` ln(N/df) with the term part times k1 + 1.
      title_weight: times the title's terms count; 0 leaves titles out.
      metadata: fields of the metadata whose strings are indexed too.
      analyser: how texts become terms.
    """

    method: Literal["bm25"] = "bm25"
    k1: Annotated[float, Field(ge=0)] = 1.5
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    variant: Literal["lucene", "robertson", "atire"] = "lucene"
    title_weight: Annotated[int, Field(ge=0, le=10)] = 1
    metadata: tuple[str, ...] = ()
    analyser: Analyser = Words()

    def index(
        self,
        corpus: Corpus,
        encoder: object = None,
        *,
        seed: int,
        extra: Sequence[str] | None = None,
    ) -> "BM25Index":
        """Index a corpus. About 10 MB/s; memory 20 bytes a (term, document) pair while it builds, 10 after.

        Args:
          corpus: documents or passages; read once, in batches.
          encoder: unused.
          seed: unused; every index takes it.
          extra: a text for each document that is indexed besides its own (an expansion).

        Raises:
          DataError: extra has another length than the corpus.
        """
        if extra is not None and len(extra) != len(corpus):
            raise DataError(f"extra: {len(extra)} texts for {len(corpus)} documents. Give one each, '' for none.")
        vocabulary = Vocabulary(self.analyser)
        sizes, terms, counts, lengths, at = [], [], [], [], 0
        for own in self._texts(corpus):
            more = () if extra is None else extra[at : at + len(own)]
            texts = [f"{text}\n{added}" for text, added in zip(own, more, strict=True)] if more else own
            at += len(own)
            starts, codes = vocabulary.encode(texts)
            size, term, count = _count(starts, codes)
            sizes.append(size)
            terms.append(term)
            counts.append(count)
            lengths.append(np.diff(starts))
        rows = tuple(np.concatenate(part) if part else np.zeros(0, np.int32) for part in (sizes, terms, counts))
        length = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        del sizes, terms, counts, lengths
        return self._invert(corpus.doc_ids, list(vocabulary.terms), rows, length)

    def _texts(self, corpus: Corpus) -> Iterator[list[str]]:
        columns = ["title", "text", "metadata"] if self.metadata else ["title", "text"]
        for batch in corpus.batches(columns):
            titles, texts = (batch.column(name).to_pylist() for name in ("title", "text"))
            parts = [[title] * self.title_weight + [text] for title, text in zip(titles, texts, strict=True)]
            if self.metadata:
                for part, fields in zip(parts, batch.column("metadata").to_pylist(), strict=True):
                    part.extend(metadata_texts(fields, self.metadata))
            yield ["\n".join(part) for part in parts]

    def _invert(
        self, doc_ids: pa.Array, terms: list[str], rows: tuple[np.ndarray, ...], length: np.ndarray
    ) -> "BM25Index":
        """Number terms in byte order, turn rows into postings and compute every impact."""
        from tamis.ops.postings import transpose

        sizes, codes, counts = rows
        order = sorted(range(len(terms)), key=lambda i: terms[i].encode())
        number = np.empty(len(terms), np.int32)
        number[order] = np.arange(len(terms), dtype=np.int32)
        row_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        starts, docs, tf = transpose(row_starts, number[codes], counts, len(terms))
        arrays = {"starts": starts, "docs": docs, "impacts": self._impacts(starts, docs, tf, length)}
        arrays["counts"] = tf.astype(np.uint16) if tf.max(initial=0) < 1 << 16 else tf.astype(np.uint32)
        arrays["lengths"] = length.astype(np.int64)
        return BM25Index(self, doc_ids, pa.array([terms[i] for i in order], TEXT), arrays)

    def _impacts(self, starts: np.ndarray, docs: np.ndarray, tf: np.ndarray, length: np.ndarray) -> np.ndarray:
        num_docs, df = len(length), np.diff(starts).astype(np.float64)
        mean = max(float(length.sum()) / max(1, num_docs), 1e-9)
        damping = self.k1 * (1 - self.b + self.b * length / mean)
        odds = (num_docs - df + 0.5) / (df + 0.5)
        idf = {
            "lucene": np.log1p(odds),
            "robertson": np.maximum(np.log(odds), 0.0),
            "atire": np.log(num_docs / np.maximum(df, 1)) * (self.k1 + 1),
        }[self.variant]
        impacts = np.empty(len(docs), np.float32)
        for low in range(0, len(docs), _BLOCK_POSTINGS):
            high = min(low + _BLOCK_POSTINGS, len(docs))
            term = np.searchsorted(starts, np.arange(low, high), side="right") - 1
            frequency = tf[low:high].astype(np.float64)
            impacts[low:high] = idf[term] * frequency / (frequency + damping[docs[low:high]])
        return impacts


def metadata_texts(fields: str, names: Sequence[str]) -> list[str]:
    """Return the strings, and the strings in lists, of the named fields of a JSON object."""
    values = orjson.loads(fields or "{}")
    texts = []
    for name in names:
        value = values.get(name)
        texts += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]
    return texts


def _count(starts: np.ndarray, codes: np.ndarray) -> Packed:
    """Return for each text how many distinct terms it has, then those terms and how often each occurs, int32."""
    num_texts, width = len(starts) - 1, int(codes.max(initial=0)) + 1
    texts = np.repeat(np.arange(num_texts), np.diff(starts))
    keys, counts = np.unique(texts * width + codes, return_counts=True)
    distinct, terms = np.divmod(keys, width)
    sizes = np.bincount(distinct, minlength=num_texts).astype(np.int32)
    return sizes, terms.astype(np.int32), counts.astype(np.int32)


class BM25Index:
    """An inverted file with precomputed impacts. Make one with `BM25.index` or `load`.

    Attributes:
      settings: the method it was made with.
      doc_ids: Arrow strings [D] in corpus order.
      ranks: int64 [D], tie order.
      terms: Arrow strings [V] in byte order.
      starts, docs, impacts, counts: postings of term t are starts[t]:starts[t + 1]; row, score share, frequency.
      lengths: int64 [D] in terms.
    """

    def __init__(self, settings: BM25, doc_ids: pa.Array, terms: pa.Array, arrays: Mapping[str, np.ndarray]) -> None:
        """Wrap the parts of an index."""
        self.settings, self.doc_ids, self.terms = settings, doc_ids, terms
        self.starts, self.docs, self.impacts = arrays["starts"], arrays["docs"], arrays["impacts"]
        self.counts, self.lengths = arrays["counts"], arrays["lengths"]

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.doc_ids)

    @cached_property
    def ranks(self) -> np.ndarray:
        """int64 [D]: tie order."""
        return id_ranks(self.doc_ids)

    @cached_property
    def term_rows(self) -> dict[str, int]:
        """Term -> number."""
        return {term: row for row, term in enumerate(self.terms.to_pylist())}

    @cached_property
    def forward(self) -> Packed:
        """Terms of each document: starts int64 [D + 1], terms and counts int32. Made on first use, O(postings)."""
        from tamis.ops.postings import transpose

        return transpose(self.starts, self.docs, np.asarray(self.counts, np.int32), len(self.doc_ids))

    @cached_property
    def term_is_usable(self) -> np.ndarray:
        """Bool [V]: terms of 2 to 20 characters, which feedback may add to a query."""
        sizes = pc.utf8_length(self.terms).to_numpy(zero_copy_only=False)
        usable: np.ndarray = (sizes >= 2) & (sizes <= 20)
        return usable

    @property
    def num_without_terms(self) -> int:
        """Documents that no query can find."""
        return int((np.asarray(self.lengths) == 0).sum())

    def idf(self, query: str) -> dict[str, float]:
        """Return the weight of each known term of a query: ln(1 + N/df)."""
        known = {t: self.term_rows[t] for t in self.settings.analyser.query_terms(query) if t in self.term_rows}
        return {t: float(np.log1p(len(self) / (self.starts[r + 1] - self.starts[r]))) for t, r in known.items()}

    def pack(self, queries: Queries) -> Packed:
        """Analyse queries: starts int64 [B + 1], terms and weights (times a term occurs)."""
        return weigh((self.settings.analyser.query_terms(text) for text in queries.texts), self.term_rows)

    def search(self, queries: Queries, k: int, include: Qrels | None = None) -> Run:
        """Return the k best documents with a score above 0; about 1 ms a query for 10^5 documents.

        Args:
          queries: what is asked; one without a known term is unanswered.
          k: documents a query.
          include: judged documents that are scored as well, whatever their rank (0 where nothing matches).
        """
        pairs = judged_pairs(queries, include, self.doc_ids)
        rows, scores, pair_scores = self.search_packed(self.pack(queries), k, pairs)
        return to_run(queries.table["query_id"].combine_chunks(), self.doc_ids, (rows, scores), pairs, pair_scores)

    def search_weighted(self, query_ids: Ids, queries: Sequence[Mapping[str, float]], k: int) -> Run:
        """Return the k best documents for queries given as term -> weight; terms are index terms (stems).

        Raises:
          DataError: a weight is not finite.
        """
        starts, terms, weights = [0], [], []
        for query in queries:
            known = sorted((self.term_rows[t], w) for t, w in query.items() if t in self.term_rows)
            terms += [row for row, _ in known]
            weights += [weight for _, weight in known]
            starts.append(len(terms))
        if not np.isfinite(weights).all():
            raise DataError("weighted query: a weight is NaN or infinite; weights must be finite.")
        packed = np.array(starts, np.int64), np.array(terms, np.int64), np.array(weights, np.float64)
        rows, scores, _ = self.search_packed(packed, k)
        return to_run(query_ids, self.doc_ids, (rows, scores))

    def search_packed(
        self, packed: Packed, k: int, pairs: Pairs | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Search packed queries: rows, scores [B, K] and the scores of ``pairs``; see `ops.postings.search`."""
        from tamis.ops.postings import search

        return search((self.starts, self.docs, self.impacts), self.ranks, packed, k, pairs)

    def save(self, staging: Staging, prefix: str = "") -> None:
        """Write the index into a staging folder; ``prefix`` is a folder within it, ending in a slash."""
        for name in _ARRAYS:
            store.write_array(staging, f"{prefix}{name}.npy", getattr(self, name))
        store.write_strings(staging, f"{prefix}terms.parquet", self.terms)
        store.write_strings(staging, f"{prefix}doc_ids.parquet", self.doc_ids)
        staging.write_bytes(f"{prefix}bm25.json", self.settings.model_dump_json(indent=2).encode() + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open a saved index; its arrays stay on the disk (memory-mapped). Verify checksums first.

        Raises:
          ArtefactError: a part is missing, damaged, or does not fit the others.
        """
        settings = BM25.from_json(store.read_text(folder / "bm25.json"), str(folder / "bm25.json"))
        arrays = {name: store.read_array(folder / f"{name}.npy", kinds) for name, kinds in _ARRAYS.items()}
        doc_ids, terms = (store.read_strings(folder / f"{n}.parquet") for n in ("doc_ids", "terms"))
        found = len(arrays["starts"]), len(arrays["lengths"]), len(arrays["impacts"]), len(arrays["counts"])
        num_postings = len(arrays["docs"])
        if found != (len(terms) + 1, len(doc_ids), num_postings, num_postings) or arrays["starts"][-1] != num_postings:
            raise ArtefactError(f"{folder}: the parts of the index differ in length. Build this stage again.")
        return cls(settings, doc_ids, terms, arrays)


_ARRAYS = {
    "starts": ("int64",),
    "docs": ("int32",),
    "impacts": ("float32",),
    "counts": ("uint16", "uint32"),
    "lengths": ("int64",),
}
