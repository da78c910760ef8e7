"""Encoders: what turns texts into vectors, and how one is loaded from a folder or, when allowed, from the hub.

Source: tamis design; folders are those of sentence-transformers and transformers, read without running their code.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from tamis.data.artefact import Staging
from tamis.errors import UsageError
from tamis.models.folder import ModelFolder
from tamis.models.static import StaticEncoder

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*.jinja"]


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into unit vectors; the inner product of two is their cosine similarity."""

    @property
    def dim(self) -> int:
        """Width H of the vectors."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that determines the vectors: weights, tokenizer, prompts, pooling, dimensions."""

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [B, H] with unit rows; a text without any weight has a zero row.

        Raises:
          DataError: the model gave NaN or infinity; names the text.
        """

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [B, H] as `encode_queries` does, with the prompt of documents."""

    def num_truncated(self, texts: Sequence[str]) -> int:
        """Count the documents of ``texts`` of which the encoder reads only the beginning."""

    def save(self, staging: Staging) -> None:
        """Write a folder that sentence-transformers loads and `load_encoder` reads back with the same fingerprint."""


def load_encoder(name_or_folder: Path | str, *, allow_network: bool = False) -> Encoder:
    """Load an encoder; none of the folder's own code is run and only safetensors weights are read.

    Args:
      name_or_folder: a sentence-transformers or transformers folder, or a hub id.
      allow_network: fetch a hub id; without it nothing is asked of the network.

    Returns:
      A StaticEncoder for a folder with a token table alone (no torch needed), else a TransformerEncoder.

    Raises:
      UsageError: no such folder, a hub id without ``allow_network``, or a folder that needs code, pickled
        weights or files outside of itself.
      DataError: damaged weights or tokenizer.
      MissingExtra: torch or sentence-transformers is needed and absent.
    """
    path = Path(name_or_folder)
    if not path.is_dir():
        path = _fetch(str(name_or_folder), allow_network=allow_network)
    folder = ModelFolder(path)
    if folder.is_static:
        return StaticEncoder.load(folder)
    from tamis.models.transformer import TransformerEncoder

    return TransformerEncoder(folder)


def _fetch(name: str, *, allow_network: bool) -> Path:
    if Path(name).exists():
        raise UsageError(f"encoder {name!r} is a file. Give the folder that holds the model.")
    if not _HUB_ID.fullmatch(name):
        raise UsageError(f"encoder {name!r}: no such folder, and not the form of a hub id (organisation/name).")
    if not allow_network:
        raise UsageError(
            f"encoder {name!r}: no such folder here. If it is a model of the Hugging Face hub, let it be downloaded "
            "with --allow-network (allow_network=True), or give a folder that holds it."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:
        raise UsageError(f"encoder {name!r} could not be fetched: {type(error).__name__}: {error}") from error
