"""Transformer encoder: any sentence-transformers or transformers folder, run by sentence-transformers.

Source: Reimers, Gurevych 2019, Sentence-BERT, arXiv:1908.10084 (their library does the encoding).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tamis.data.artefact import Staging
from tamis.errors import DataError, MissingExtra, TamisError
from tamis.models.folder import ModelFolder
from tamis.models.vectors import unit_rows

_BATCH_TEXTS = 32
_BLOCK_BYTES = 1 << 20


class TransformerEncoder:
    """Wraps a SentenceTransformer; float32 throughout. A blank text has a zero row."""

    def __init__(self, folder: ModelFolder) -> None:
        """Load the model of a checked folder, offline and without its own code.

        Raises:
          MissingExtra: torch or sentence-transformers is not installed.
          DataError: the folder's files are damaged or do not fit each other.
        """
        with _offline():
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise MissingExtra(
                    f"{folder.path}: this encoder needs torch and sentence-transformers ({error}). "
                    "Install them: pip install 'tamis[train]'"
                ) from error
            try:
                with _silent():
                    self._model: Any = SentenceTransformer(
                        str(folder.path),
                        trust_remote_code=False,
                        local_files_only=True,
                        model_kwargs={"use_safetensors": True},
                    ).float()
            except TamisError:
                raise
            except Exception as error:
                raise DataError(
                    f"{folder.path}: the model cannot be loaded: {type(error).__name__}: {str(error)[:300]} "
                    "Its files are damaged or of a kind sentence-transformers does not know: get it again."
                ) from error
        self._model.eval()
        self._folder = folder
        self.query_prompt, self.document_prompt = folder.prompts
        self._fingerprint = folder.fingerprint  # now: the folder may be changed later, the loaded model is not

    @property
    def model(self) -> Any:  # noqa: ANN401 - a SentenceTransformer
        """The SentenceTransformer, for those who train a copy of it."""
        return self._model

    @property
    def dim(self) -> int:
        """Width H of the vectors."""
        return int(self._model.get_embedding_dimension() or 0)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the model's files: weights, tokenizer, prompts, pooling."""
        return self._fingerprint

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [B, H], unit or zero rows; texts are run in batches of similar length.

        Raises:
          DataError: NaN or infinity; names the text.
        """
        return self._encode(texts, "query", self.query_prompt)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [B, H], as `encode_queries`, with the documents' prompt."""
        return self._encode(texts, "document", self.document_prompt)

    def _encode(self, texts: Sequence[str], task: str, prompt: str) -> np.ndarray:
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        vectors_BH = self._model.encode(
            list(texts),
            prompt=prompt,
            batch_size=_BATCH_TEXTS,
            show_progress_bar=False,
            convert_to_numpy=True,
            task=task,
        )
        vectors_BH = np.array(vectors_BH, dtype=np.float32)
        # Of a blank text the model sees its markers alone; their vector means nothing.
        vectors_BH[[not text.strip() for text in texts]] = 0
        return unit_rows(vectors_BH, texts, floor=0.0)

    def num_truncated(self, texts: Sequence[str]) -> int:
        """Count the documents longer than the model's limit of tokens; tokenises each of them."""
        limit = self._model.max_seq_length
        if limit is None or not texts:
            return 0
        prompted = [self.document_prompt + text for text in texts]
        encoded = self._model.tokenizer(prompted, truncation=False, padding=False, verbose=False)
        return sum(1 for ids in encoded["input_ids"] if len(ids) > limit)

    def save(self, staging: Staging) -> None:
        """Copy the model's files as they are, so that the copy has the same fingerprint."""
        for name in self._folder.files:
            with staging.create(name) as target, (self._folder.path / name).open("rb") as source:
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)
        staging.write_bytes(
            "README.md",
            "# Encoder\n\nAn unchanged copy of a given model, a folder that sentence-transformers loads.\n\n"
            f"Fingerprint of its files: `{self.fingerprint}`.\n".encode(),
        )


@contextmanager
def _offline() -> Iterator[None]:
    """Close the hub to the libraries for the time of a load: no file, kernel or code is fetched."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    from huggingface_hub import constants

    was_offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the bar that transformers draws for loading weights off the terminal."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
