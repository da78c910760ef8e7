"""Exact dense search: cosine of a query's vector with every document's.

Source: tamis design (method card B1): faiss flat finds candidates, `tamis.ops.topk` is its reference.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
import orjson
import pyarrow as pa
from pydantic import Field

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.data.artefact import Staging
from tamis.data.run import Ids
from tamis.data.settings import Settings
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.ops.topk import exact_scores, select, top_k
from tamis.search import store
from tamis.search.answers import Pairs, id_ranks, judged_pairs, query_rows, to_run

if TYPE_CHECKING:
    from tamis.models.encoder import Encoder

_UNIT_TOLERANCE = 1e-3
_MAX_NORM = 1.002
_MIN_FAISS_DOCS = 20_000
_SPARE = 32


class Dense(Settings):
    """Exact search over unit vectors.

    Attributes:
      dtype: of the stored vectors; float16 halves the bytes and moves a cosine by less than .001.
      with_title: encode the title before the text.
      batch_docs: texts given to the encoder at once.
      block_docs: vectors scored at once; no effect on the result.
    """

    method: Literal["dense"] = "dense"
    dtype: Literal["float32", "float16"] = "float32"
    with_title: bool = True
    batch_docs: Annotated[int, Field(ge=1)] = 4096
    block_docs: Annotated[int, Field(ge=1)] = 65_536

    def index(
        self, corpus: Corpus, encoder: "Encoder", *, seed: int, staging: Staging | None = None, prefix: str = ""
    ) -> "DenseIndex":
        """Encode and index a corpus. Memory D·H·4 bytes, or one batch when a staging folder is given.

        Args:
          corpus: documents or passages; read once, in batches.
          encoder: makes the vectors; its fingerprint is kept with them.
          seed: unused; every index takes it.
          staging: write the vectors there while they are made (as `save` would) and map them back.
          prefix: folder within the staging folder, ending in a slash.

        Raises:
          DataError: the encoder gave NaN or infinity; names the document.
        """
        missing: list[np.ndarray] = []
        doc_ids, shape = corpus.doc_ids, (len(corpus), encoder.dim)
        batches = self._encode(corpus, encoder, missing)
        stored = None
        if staging is None:
            vectors = np.zeros(shape, self.dtype)
            for start, batch in batches:
                vectors[start : start + len(batch)] = batch
        else:
            with staging.create(f"{prefix}vectors.npy") as file:
                store.write_header(file, shape, np.dtype(self.dtype))
                for _, batch in batches:
                    file.write(np.ascontiguousarray(batch))
            stored = staging.folder / prefix
            vectors = store.read_array(stored / "vectors.npy", (self.dtype,), 2)
        zero = np.concatenate([np.zeros(0, np.int64), *missing])
        return DenseIndex(self, doc_ids, vectors, zero, encoder=encoder, made_by=encoder.fingerprint, stored=stored)

    def _encode(
        self, corpus: Corpus, encoder: "Encoder", missing: list[np.ndarray]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, vectors) of each batch; rows of zero vectors are added to ``missing``."""
        start = 0
        for batch in corpus.batches(["doc_id", "title", "text"], batch_docs=self.batch_docs):
            texts = batch.column("text").to_pylist()
            if self.with_title:
                titles = batch.column("title").to_pylist()
                texts = [f"{title}\n{text}" if title else text for title, text in zip(titles, texts, strict=True)]
            vectors = np.asarray(encoder.encode_documents(texts), dtype=np.float32)
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if len(bad):
                raise DataError(
                    f"document {batch.column('doc_id')[int(bad[0])].as_py()!r}: the encoder gave NaN or infinity "
                    f"({len(bad)} of {len(texts)} in this batch). The encoder is damaged: train or fetch it again."
                )
            vectors, is_zero = _unit(vectors)
            missing.append(np.flatnonzero(is_zero) + start)
            yield start, vectors.astype(self.dtype)
            start += len(texts)


def _unit(vector_BH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of length 1 (rows that are so already stay as they are), and which are zero, bool [B]."""
    norms = np.sqrt(np.einsum("bh,bh->b", vector_BH, vector_BH, dtype=np.float64))
    is_zero = norms <= 1e-12
    scale = np.where(is_zero | (np.abs(norms - 1) <= _UNIT_TOLERANCE), 1.0, norms)
    units = (vector_BH / scale[:, None]).astype(np.float32)
    units[is_zero] = 0
    return units, is_zero


class DenseIndex:
    """Vectors of documents and who made them. Make one with `Dense.index` or `load`.

    Attributes:
      settings: the method it was made with.
      doc_ids: Arrow strings [D] in corpus order.
      vectors: float32 or float16 [D, H], unit rows; zero rows are never returned.
      zero_rows: int64, the rows that are zero (texts without any weight).
      made_by: fingerprint of the encoder.
      bias: float64 [D] added to every score of a document (hubness correction), or None.
    """

    def __init__(
        self,
        settings: Dense,
        doc_ids: pa.Array,
        vectors: np.ndarray,
        zero_rows: np.ndarray,
        *,
        encoder: "Encoder | None",
        made_by: str,
        bias: np.ndarray | None = None,
        stored: Path | None = None,
    ) -> None:
        """Wrap the parts of an index."""
        self.settings, self.doc_ids, self.vectors, self.zero_rows = settings, doc_ids, vectors, zero_rows
        self.encoder, self.made_by, self.bias, self._stored = encoder, made_by, bias, stored

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.doc_ids)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.vectors.shape[1])

    @cached_property
    def ranks(self) -> np.ndarray:
        """int64 [D]: tie order."""
        return id_ranks(self.doc_ids)

    @cached_property
    def _allowed(self) -> np.ndarray | None:
        if not len(self.zero_rows):
            return None
        allowed = np.ones(len(self.doc_ids), bool)
        allowed[self.zero_rows] = False
        return allowed

    def corrected(self, bias: np.ndarray | None) -> "DenseIndex":
        """Return the same index with a value [D] added to every score of a document."""
        return DenseIndex(
            self.settings,
            self.doc_ids,
            self.vectors,
            self.zero_rows,
            encoder=self.encoder,
            made_by=self.made_by,
            bias=bias,
            stored=self._stored,
        )

    def encode(self, queries: Queries) -> np.ndarray:
        """Encode queries with the index's own encoder: float32 [B, H].

        Raises:
          UsageError: the index was opened without an encoder.
        """
        if self.encoder is None:
            raise UsageError("this dense index was opened without its encoder. Open it with one, or search vectors.")
        return np.asarray(self.encoder.encode_queries(queries.texts), dtype=np.float32)

    def search(self, queries: Queries, k: int, include: Qrels | None = None) -> Run:
        """Return the k nearest documents; 2·B·D·H operations. A query without any weight is unanswered.

        Args:
          queries: what is asked.
          k: documents a query.
          include: judged documents that are scored as well, whatever their rank.
        """
        pairs = judged_pairs(queries, include, self.doc_ids)
        rows, scores, pair_scores = self.search_rows(self.encode(queries), k, pairs)
        return to_run(queries.table["query_id"].combine_chunks(), self.doc_ids, (rows, scores), pairs, pair_scores)

    def search_vectors(self, query_ids: Ids, query_BH: np.ndarray, k: int) -> Run:
        """Return the k nearest documents of query vectors [B, H] of any length."""
        rows, scores, _ = self.search_rows(query_BH, k)
        return to_run(query_ids, self.doc_ids, (rows, scores))

    def search_rows(
        self, query_BH: np.ndarray, k: int, pairs: Pairs | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Search vectors: rows int64 [B, K] (-1 pads), scores float64 [B, K], and the scores of ``pairs``.

        Raises:
          ArtefactError: the queries have another width than the index.
          DataError: a query vector is not finite.
        """
        query = np.asarray(query_BH, dtype=np.float32).reshape(len(query_BH), -1)
        if len(query) and query.shape[1] != self.dim:
            raise ArtefactError(
                f"query vectors have {query.shape[1]} dimensions, the index {self.dim} (encoder {self.made_by[:12]}). "
                "Use the encoder the index was made with, or build the index again."
            )
        if not np.isfinite(query).all():
            raise DataError("a query's vector holds NaN or infinity. The encoder is damaged: train or fetch it again.")
        query, is_zero = _unit(query.reshape(-1, self.dim))
        rows, scores = self._flat(query, k) if self._suits_faiss(k) else self._blocked(query, k)
        rows[is_zero], scores[is_zero] = -1, 0.0
        if pairs is None:
            return rows, scores, np.zeros(0)
        return rows, scores, self.pair_scores(query, pairs)

    def _blocked(self, query_BH: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The reference: exact in blocks, with bias and rows that are never returned."""
        return top_k(
            query_BH,
            self.vectors,
            k,
            ranks=self.ranks,
            allowed=self._allowed,
            bias=self.bias,
            max_norm=_MAX_NORM,
            block_docs=self.settings.block_docs,
        )

    def _suits_faiss(self, k: int) -> bool:
        plain = self.bias is None and self.vectors.dtype == np.float32 and len(self.zero_rows) <= _SPARE
        return plain and len(self) >= _MIN_FAISS_DOCS and k > 0

    def _flat(self, query_BH: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The same answer by faiss: its float32 candidates, rescored exactly; doubtful queries go to the reference.

        A query is in doubt when documents beyond the candidates could still belong to its first k.
        """
        import faiss

        depth = min(k + len(self.zero_rows) + _SPARE, len(self))
        given = np.ascontiguousarray(query_BH)
        values, rows = faiss.knn(given, np.asarray(self.vectors), depth, metric=faiss.METRIC_INNER_PRODUCT)
        rows[np.isin(rows, self.zero_rows)] = -1
        wanted = min(k, len(self))
        found = np.full((len(given), wanted), -1, dtype=np.int64)
        scores = np.zeros((len(given), wanted))
        listed = np.nonzero(rows >= 0)
        exact = exact_scores(given, self.vectors, listed[0], rows[listed])
        select(listed[0], rows[listed], exact, ties=self.ranks[rows[listed]], rows=found, scores=scores)
        margin = (self.dim + 8) * 2.0**-21 * _MAX_NORM
        doubtful = np.flatnonzero((values[:, -1] >= scores[:, -1] - margin) & (depth < len(self)))
        if len(doubtful):
            found[doubtful], scores[doubtful] = self._blocked(given[doubtful], k)
        return found, scores

    def pair_scores(self, query_BH: np.ndarray, pairs: Pairs) -> np.ndarray:
        """float64 [P]: scores of packed (query, document) pairs for unit query vectors."""
        starts, docs = pairs
        values = exact_scores(query_BH, self.vectors, query_rows(starts), docs)
        return values if self.bias is None else values + self.bias[docs]

    def save(self, staging: Staging, prefix: str = "") -> None:
        """Write the index into a staging folder; ``prefix`` is a folder within it, ending in a slash."""
        if self._stored != staging.folder / prefix:  # else `Dense.index` has written them there
            store.write_array(staging, f"{prefix}vectors.npy", self.vectors)
        store.write_array(staging, f"{prefix}zero_rows.npy", self.zero_rows)
        if self.bias is not None:
            store.write_array(staging, f"{prefix}bias.npy", self.bias)
        store.write_strings(staging, f"{prefix}doc_ids.parquet", self.doc_ids)
        facts = {"settings": self.settings.model_dump(mode="json"), "encoder": self.made_by, "dim": self.dim}
        facts["has_bias"] = self.bias is not None
        staging.write_bytes(f"{prefix}dense.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")

    @classmethod
    def load(cls, folder: Path, encoder: "Encoder | None" = None) -> Self:
        """Open a saved index; its vectors stay on the disk (memory-mapped). Verify checksums first.

        Raises:
          ArtefactError: a part is missing, damaged or does not fit the others, or the encoder is another than
            the one the vectors were made with (both are named).
        """
        path = folder / "dense.json"
        try:
            facts = orjson.loads(store.read_text(path))
            settings = Dense.from_json(orjson.dumps(facts["settings"]), str(path))
            made_by, dim, has_bias = str(facts["encoder"]), int(facts["dim"]), bool(facts["has_bias"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"{path}: damaged ({error}). Build this stage again.") from error
        if encoder is not None and (encoder.fingerprint, encoder.dim) != (made_by, dim):
            raise ArtefactError(
                f"{folder}: made with the encoder {made_by[:12]} ({dim} dimensions), opened with "
                f"{encoder.fingerprint[:12]} ({encoder.dim} dimensions). Use the same encoder, or build it again."
            )
        vectors = store.read_array(folder / "vectors.npy", (settings.dtype,), 2)
        zero_rows = store.read_array(folder / "zero_rows.npy", ("int64",))
        bias = store.read_array(folder / "bias.npy", ("float64",)) if has_bias else None
        doc_ids = store.read_strings(folder / "doc_ids.parquet")
        if vectors.shape != (len(doc_ids), dim) or (bias is not None and len(bias) != len(doc_ids)):
            raise ArtefactError(
                f"{folder}: {vectors.shape} vectors for {len(doc_ids)} ids of {dim} dimensions. Build this stage again."
            )
        return cls(settings, doc_ids, vectors, zero_rows, encoder=encoder, made_by=made_by, bias=bias)
