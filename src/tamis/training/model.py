"""A sentence-transformers model as a function from token ids to vectors with a graph.

Source: Reimers, Gurevych 2019, Sentence-BERT, arXiv:1908.10084 (the container); the engine around it: tamis.
"""

import copy
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tamis.data import artefact, durable
from tamis.errors import DataError, MissingExtra, UsageError
from tamis.models import Encoder, load_encoder
from tamis.training.dropout import counted_dropout
from tamis.training.machine import Machine, probe
from tamis.training.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor, nn

Side = Literal["query", "document"]
_NO_LIMIT = 1 << 20
"""Tokenizers without a limit say a very large number."""


class Model:
    """An encoder under training; the encoder it was made from is not changed.

    Attributes:
      module: the SentenceTransformer, whose weights are trained.
      machine: how it computes.
      max_tokens: the most tokens of a text that it reads; None for no limit.
    """

    def __init__(self, encoder: Encoder, *, machine: Machine | None = None) -> None:
        """Copy an encoder's model.

        Raises:
          UsageError: its pooling leaves prompts out, which training does not.
          MissingExtra: torch or sentence-transformers is not installed.
        """
        self.module = _module(encoder)
        self.machine = machine or probe()
        self.module.to(self.machine.device)
        self._prompts = {side: str(getattr(encoder, f"{side}_prompt", "")) for side in ("query", "document")}
        if any(self._prompts.values()) and not all(getattr(m, "include_prompt", True) for m in self.module):
            raise UsageError("the encoder's pooling leaves its prompts out. Train it without prompts.")
        self._static = type(self.module[0]).__name__ == "StaticEmbedding"
        if self._static:
            self._body, self._tokenizer, self._pad_id = None, self.module.tokenizer, 0
            self._num_rows = int(self.module[0].embedding.num_embeddings)
            self.max_tokens: int | None = None
        else:
            self._body, self._tokenizer = self.module[0].model, self.module.tokenizer.backend_tokenizer
            self._pad_id = int(self.module.tokenizer.pad_token_id or 0)
            self._num_rows = int(self._body.get_input_embeddings().num_embeddings)
            limit = self.module.max_seq_length
            self.max_tokens = int(limit) if limit is not None and limit < _NO_LIMIT else None

    @property
    def num_layers(self) -> int:
        """Transformer layers; 0 for a token table."""
        return 0 if self._body is None else int(self._body.config.num_hidden_layers)

    def tokens(self, texts: Sequence[str], side: Side, *, max_tokens: int | None = None) -> Tokens:
        """Tokenise texts with the prompt of their side, cut to the model's limit or a lower one.

        Raises:
          DataError: the tokenizer gives ids for which the model has no row.
        """
        limit = min((limit for limit in (self.max_tokens, max_tokens) if limit is not None), default=None)
        prompt, special = self._prompts[side], not self._static
        made = Tokens.of(self._tokenizer, texts, prompt=prompt, max_tokens=limit, special=special)
        highest = int(made.ids.max(initial=-1))
        if highest >= self._num_rows:
            raise DataError(
                f"the tokenizer gives token {highest} and the model has rows for {self._num_rows}: they are of "
                "different models. Give the folder of one model."
            )
        return made

    def vectors(self, tokens: Tokens, layers: Sequence[int] = ()) -> "Tensor":
        """Return float32 [S, n, H], as the pooling leaves them or, where the model ends so, of norm 1.

        Args:
          tokens: n texts, padded to the longest.
          layers: after which transformer layers (from 1) texts are pooled, S of them; by default the last alone.

        Raises:
          UsageError: the model has no such layer.
        """
        import torch

        mixed = self.machine.precision == "bfloat16" and not self._static
        faster = self.machine.device == "cpu" and self.module.training and not self._static
        with ExitStack() as contexts:
            if mixed:
                contexts.enter_context(torch.autocast(self.machine.device, dtype=torch.bfloat16))
            if faster:
                contexts.enter_context(counted_dropout())
            features = self._features(tokens)
            found = self._by_layer(features, layers) if layers else [self.module(features)["sentence_embedding"]]
            return torch.stack([vectors.float() for vectors in found])

    def _features(self, tokens: Tokens) -> "dict[str, Tensor]":
        import torch

        device = self.machine.device
        if self._static:
            ids = torch.from_numpy(tokens.ids.astype(np.int64)).to(device)
            return {"input_ids": ids, "offsets": torch.from_numpy(tokens.offsets[:-1].copy()).to(device)}
        ids_nL, mask_nL = tokens.padded(self._pad_id)
        return {
            "input_ids": torch.from_numpy(ids_nL).to(device),
            "attention_mask": torch.from_numpy(mask_nL).to(device),
        }

    def _by_layer(self, features: "dict[str, Tensor]", layers: Sequence[int]) -> "list[Tensor]":
        """Pool the outputs of several layers with the modules that follow the transformer."""
        if self._body is None:
            raise UsageError("a token table has no layers to train at. Use dims alone (Matryoshka).")
        states = self._body(**features, output_hidden_states=True).hidden_states
        found = []
        for layer in layers:
            if not 1 <= layer < len(states):
                raise UsageError(f"layer {layer}: the model has layers 1 to {len(states) - 1}.")
            made: dict[str, Any] = {**features, "token_embeddings": states[layer]}
            for module in list(self.module)[1:]:
                made = module(made)
            found.append(made["sentence_embedding"])
        return found

    def encoder(self) -> Encoder:
        """Return the model as it stands now as an encoder, by way of a folder that lives as long as the encoder."""
        folder = Path(tempfile.mkdtemp(prefix="tamis-encoder-"))
        try:
            save_model(self.module, folder / "model")
            made = load_encoder(folder / "model")
        except BaseException:
            durable.remove(folder)
            raise
        weakref.finalize(made, durable.remove, folder)
        return made


def save_model(module: "nn.Module", folder: Path) -> None:
    """Write a plain sentence-transformers folder: safetensors, no custom code."""
    own: Any = copy.deepcopy(module).to("cpu").float().eval()
    own.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)


def _module(encoder: Encoder) -> Any:  # noqa: ANN401 - a SentenceTransformer
    """Return a copy of an encoder's SentenceTransformer, for training."""
    held = getattr(encoder, "model", None)
    if held is not None:
        return copy.deepcopy(held).float()
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtra(
            f"training needs torch and sentence-transformers ({error}). Install them: pip install 'tamis[train]'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="tamis-encoder-") as folder:
        target = Path(folder) / "model"
        with artefact.stage(target, "encoder", settings={}, inputs={}, seed=0) as staging:
            encoder.save(staging)
        return SentenceTransformer(str(target), device="cpu", trust_remote_code=False, local_files_only=True).float()
