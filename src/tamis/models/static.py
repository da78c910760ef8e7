"""Static encoder: a text's vector is the mean of its tokens' rows in a table. numpy, scipy and tokenizers, no torch.

Source: the StaticEmbedding module of sentence-transformers (an EmbeddingBag); folders are interchangeable with it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import orjson

from tamis.data.artefact import Staging
from tamis.errors import DataError
from tamis.models.vectors import unit_rows

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tamis.models.folder import ModelFolder

_MODULE = "0_StaticEmbedding"
_TYPE = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
_CHUNK_TEXTS = 1024
_MIN_NORM = 1e-6
"""A mean below this fraction of the table's median row norm carries no direction."""


class StaticEncoder:
    """One row of a table a token; the vector of a text is the mean of its tokens' rows, scaled to norm 1."""

    def __init__(
        self, table_VH: np.ndarray, tokenizer: "Tokenizer", *, query_prompt: str = "", document_prompt: str = ""
    ) -> None:
        """Wrap a table and the tokenizer whose ids are its rows.

        Args:
          table_VH: float32 [V, H].
          tokenizer: gives ids below V; padding is switched off.
          query_prompt: put before every query.
          document_prompt: put before every document.

        Raises:
          DataError: the table has no columns, or fewer rows than the tokenizer has tokens.
        """
        self.table_VH = np.ascontiguousarray(table_VH, dtype=np.float32)
        num_tokens = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if self.table_VH.ndim != 2 or not self.table_VH.shape[1] or len(self.table_VH) < num_tokens:
            raise DataError(
                f"token table of shape {self.table_VH.shape} for a tokenizer of {num_tokens} tokens: every token needs "
                "a row. Table and tokenizer are of different models."
            )
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.query_prompt, self.document_prompt = query_prompt, document_prompt

    @classmethod
    def load(cls, folder: "ModelFolder") -> Self:
        """Read a StaticEmbedding folder.

        Raises:
          DataError: damaged weights or tokenizer, or a weight that is NaN or infinite; names file and row.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        place = folder.path / folder.modules[0][1]
        try:
            tensors = load_file(place / "model.safetensors")
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{place / 'model.safetensors'}: damaged ({error}). Make or get the encoder again."
            ) from error
        try:
            tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        except Exception as error:  # the Rust side raises plain Exception
            raise DataError(f"{place / 'tokenizer.json'}: damaged ({error}). Make or get the encoder again.") from error
        table_VH = _table(tensors, place)
        damaged = np.flatnonzero(~np.isfinite(table_VH).all(axis=1))
        if len(damaged):
            raise DataError(
                f"{place / 'model.safetensors'}: NaN or infinity in {len(damaged)} of {len(table_VH)} rows, the first "
                f"being row {damaged[0]} ({tokenizer.id_to_token(int(damaged[0]))!r}). Make or get the encoder again."
            )
        query, document = folder.prompts
        return cls(table_VH, tokenizer, query_prompt=query, document_prompt=document)

    @property
    def dim(self) -> int:
        """Width H of the vectors."""
        return int(self.table_VH.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of table, tokenizer and prompts."""
        digest = hashlib.sha256(b"tamis-static-1 mean unit\n")
        digest.update(repr(self.table_VH.shape).encode())
        digest.update(self.table_VH.data.cast("B"))
        # Sorted: the library writes added tokens and vocabularies in an order of its own.
        digest.update(orjson.dumps(orjson.loads(self.tokenizer.to_str()), option=orjson.OPT_SORT_KEYS))
        digest.update(orjson.dumps([self.query_prompt, self.document_prompt]))
        return digest.hexdigest()

    @cached_property
    def _floor(self) -> float:
        norms = np.linalg.norm(self.table_VH, axis=1)
        return float(np.median(norms[norms > 0]) * _MIN_NORM) if norms.any() else 0.0

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [B, H], unit or zero rows. O(tokens·H), the same whatever the batch.

        Raises:
          DataError: NaN or infinity; names the text.
        """
        return self._encode(texts, self.query_prompt)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [B, H], as `encode_queries`, with the documents' prompt."""
        return self._encode(texts, self.document_prompt)

    def _encode(self, texts: Sequence[str], prompt: str) -> np.ndarray:
        from scipy import sparse

        vectors_BH = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK_TEXTS):
            chunk = texts[start : start + _CHUNK_TEXTS]
            flat, offsets = self.token_ids([prompt + text for text in chunk] if prompt else chunk)
            ones = np.ones(len(flat), dtype=np.float32)
            bags = sparse.csr_array((ones, flat, offsets), shape=(len(chunk), len(self.table_VH)))
            counts = np.maximum(np.diff(offsets), 1).astype(np.float32)
            vectors_BH[start : start + len(chunk)] = (bags @ self.table_VH) / counts[:, None]
        return unit_rows(vectors_BH, texts, floor=self._floor)

    def token_ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 token ids of all texts end to end, and int32 offsets [B + 1] of each text's first."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [np.array(e.ids, dtype=np.int32) for e in encodings]
        offsets = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return (np.concatenate(rows) if rows else np.empty(0, np.int32)), offsets

    def num_truncated(self, texts: Sequence[str]) -> int:
        """Count the documents that the tokenizer cuts; none unless its file sets a limit."""
        if self.tokenizer.truncation is None:
            return 0
        prompted = [self.document_prompt + text for text in texts]
        return sum(1 for e in self.tokenizer.encode_batch_fast(prompted, add_special_tokens=False) if e.overflowing)

    def save(self, staging: Staging) -> None:
        """Write a plain sentence-transformers folder: no custom code, loads without tamis. O(V·H) bytes."""
        from safetensors.numpy import save

        staging.write_bytes(f"{_MODULE}/model.safetensors", save({"embedding.weight": self.table_VH}))
        tokenizer = orjson.dumps(orjson.loads(self.tokenizer.to_str()), option=orjson.OPT_INDENT_2)
        staging.write_bytes(f"{_MODULE}/tokenizer.json", tokenizer)
        staging.write_bytes("modules.json", _json([{"idx": 0, "name": "0", "path": _MODULE, "type": _TYPE}]))
        config = {
            "__version__": {},
            "default_prompt_name": None,
            "model_type": "SentenceTransformer",
            "prompts": {"document": self.document_prompt, "query": self.query_prompt},
            "similarity_fn_name": "cosine",
        }
        staging.write_bytes("config_sentence_transformers.json", _json(config))
        staging.write_bytes("README.md", self._card().encode())

    def _card(self) -> str:
        return (
            "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
            "tags: [sentence-transformers, feature-extraction, static-embedding]\n---\n\n"
            "# Static encoder\n\n"
            f"A table of {len(self.table_VH)} tokens by {self.dim} dimensions. The vector of a text is the mean of its "
            "tokens' rows;\ncompare vectors by cosine. A text without known words has a zero vector.\n\n"
            "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
            'encoder = SentenceTransformer("path/to/this/folder")\n'
            'queries = encoder.encode_query(["what is looked for"])\n'
            'documents = encoder.encode_document(["a title\\nand a text"])\n'
            "print(encoder.similarity(queries, documents))\n```\n\n"
            f"Fingerprint of table, tokenizer and prompts: `{self.fingerprint}`.\n"
        )


def _json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    return orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"


def _table(tensors: Mapping[str, np.ndarray], place: Path) -> np.ndarray:
    """Return the token table; model2vec's keys (embeddings, mapping, weights) are folded into one row a token."""
    if "embedding.weight" in tensors:
        return np.asarray(tensors["embedding.weight"], dtype=np.float32)
    if "embeddings" not in tensors:
        found = ", ".join(sorted(tensors)) or "none"
        raise DataError(
            f"{place / 'model.safetensors'}: no tensor 'embedding.weight' (has: {found}). Not a token table."
        )
    table_VH = np.asarray(tensors["embeddings"], dtype=np.float32)
    try:
        if "mapping" in tensors:
            table_VH = table_VH[tensors["mapping"]]
        if "weights" in tensors:
            table_VH = table_VH * np.asarray(tensors["weights"], dtype=np.float32)[:, None]
    except (IndexError, ValueError) as error:
        raise DataError(f"{place / 'model.safetensors'}: mapping or weights do not fit the table ({error}).") from error
    return table_VH
