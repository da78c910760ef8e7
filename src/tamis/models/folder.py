"""What a model folder may hold: checked before any library reads it, so that a foreign folder runs no code.

Source: tamis, reference list of hostile folders (module types, paths, auto_map, pickles, kernels, adapters).
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from tamis.data import durable
from tamis.errors import UsageError

_MODULES = frozenset(
    ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout", "WeightedLayerPooling", "StaticEmbedding")
)
_WEIGHTED = frozenset(("Transformer", "Dense", "LayerNorm", "WeightedLayerPooling", "StaticEmbedding"))
_KEPT = frozenset((".json", ".txt", ".model", ".safetensors", ".jinja"))
_UNSAFE_WEIGHTS = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".h5", ".ckpt", ".msgpack", ".npy", ".npz"))
_KERNELS = frozenset(("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "grouped_mm", ""))
_NOT_MODEL = frozenset(("manifest.json", "data_config.json"))
_ACTIVATION = re.compile(r"\w+|torch\.nn\.modules\.(activation\.\w+|linear\.Identity)")
_MAX_JSON_BYTES = 256 << 20


class ModelFolder:
    """A folder that was looked at and holds a model that can be loaded without running code of its own.

    Attributes:
      path: the folder.
      modules: (class name, path relative to the folder) of each module of modules.json; empty for a plain
        transformers folder.
    """

    def __init__(self, path: Path) -> None:
        """Check the folder.

        Raises:
          UsageError: it needs code or pickled weights, points outside of itself, or holds no model.
        """
        self.path = path
        self.modules = self._modules()
        for name in self.files:
            if name.endswith(".json") and Path(name).name not in {"tokenizer.json", "vocab.json"}:
                for key, value in _items(self.read(name)):
                    self._check_key(name, key, value)
        self._check_weights()

    def _refuse(self, reason: str, remedy: str = "Only models without code of their own are loaded.") -> UsageError:
        return UsageError(f"{self.path}: refused as an encoder: {reason}. {remedy}")

    @cached_property
    def files(self) -> list[str]:
        """Names of the files that make the model, sorted; links that leave the folder are refused."""
        root, names = self.path.resolve(), []
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            hidden = any(part.startswith(".") for part in name.parts)
            if not path.is_file() or hidden or path.suffix not in _KEPT or path.name in _NOT_MODEL:
                continue
            target = path.resolve()
            # The hub's cache links snapshots/<revision>/<file> to blobs/<hash> beside it.
            if not target.is_relative_to(root) and not target.is_relative_to(root.parent.parent / "blobs"):
                raise self._refuse(f"{name} is a link to {target}, outside the folder")
            names.append(name.as_posix())
        return names

    def read(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return a JSON file of the folder; ``{}`` when it is absent."""
        path = self.path / name
        if not path.is_file():
            return {}
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise self._refuse(f"{name} has {path.stat().st_size} bytes")
        try:
            return orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise self._refuse(f"{name} cannot be read ({error})", "Get the model again.") from error

    def _modules(self) -> list[tuple[str, str]]:
        if not (self.path / "modules.json").is_file():
            if not (self.path / "config.json").is_file():
                raise self._refuse("it holds neither modules.json nor config.json", "Give the folder of a model.")
            return []
        entries = self.read("modules.json")
        if not isinstance(entries, list) or not entries:
            raise self._refuse("modules.json is no list of modules", "Get the model again.")
        found = []
        for entry in entries:
            if not isinstance(entry, dict):
                raise self._refuse("modules.json is no list of modules", "Get the model again.")
            kind, place = str(entry.get("type")), str(entry.get("path", ""))
            name = kind.rsplit(".", 1)[-1]
            if not kind.startswith("sentence_transformers.") or name not in _MODULES:
                raise self._refuse(f"modules.json names {kind!r}, which is not one of {', '.join(sorted(_MODULES))}")
            parts = PurePosixPath(place)
            inside = (self.path / place).resolve().is_relative_to(self.path.resolve())
            if parts.is_absolute() or ".." in parts.parts or "\\" in place or not inside:
                raise self._refuse(f"modules.json points to {place!r}, outside the folder")
            found.append((name, place))
        return found

    def _check_key(self, file: str, key: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
        if key == "auto_map" and value:
            raise self._refuse(f"{file} has an auto_map: the model brings its own code")
        if key == "trust_remote_code" and value:
            raise self._refuse(f"{file} asks to be trusted (trust_remote_code)")
        chooses = re.search(r"_implementation|kernel", key) is not None
        if chooses and isinstance(value, str) and value not in _KERNELS:
            raise self._refuse(f"{file} names a computing kernel to be fetched ({key} = {value!r:.80})")
        if key == "activation_function" and isinstance(value, str) and not _ACTIVATION.fullmatch(value):
            raise self._refuse(f"{file} imports an activation from {value!r:.80}")
        if key == "weight_map" and isinstance(value, dict):
            for shard in set(map(str, value.values())):
                if not shard.endswith(".safetensors") or Path(shard).name != shard:
                    raise self._refuse(f"{file} names the weight file {shard!r:.80}")

    def _check_weights(self) -> None:
        if (self.path / "adapter_config.json").exists():
            raise self._refuse("it is an adapter of another model", "Merge the adapter into its base model first.")
        for kind, place in self.modules or [("Transformer", "")]:
            if kind not in _WEIGHTED:
                continue
            folder = self.path / place
            present = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
            if not any(name.endswith(".safetensors") for name in present):
                unsafe = [name for name in present if Path(name).suffix in _UNSAFE_WEIGHTS]
                reason = f"{place or 'it'} has no model.safetensors"
                if unsafe:
                    reason += f" but {', '.join(unsafe)}, a format that can run code when it is read"
                raise self._refuse(reason, "Convert the weights to safetensors on a machine that trusts them.")

    @property
    def is_static(self) -> bool:
        """Whether the model is a token table, with or without a normalisation after it."""
        kinds = [kind for kind, _ in self.modules]
        return kinds in (["StaticEmbedding"], ["StaticEmbedding", "Normalize"])

    @cached_property
    def prompts(self) -> tuple[str, str]:
        """Prompts of queries and of documents; "" where there is none.

        As in sentence-transformers 6, but "passage" or "corpus" stands in for a missing "document".
        """
        config = self.read("config_sentence_transformers.json")
        prompts = config.get("prompts") if isinstance(config, dict) else None
        if not isinstance(prompts, dict):
            return "", ""
        document = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), "")
        return str(prompts.get("query") or ""), str(document or "")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names and contents of the model's files; reads all of them."""
        digest = hashlib.sha256(b"tamis-model-1\n")
        for name in self.files:
            digest.update(f"{name}\0{durable.sha256(self.path / name)}\n".encode())
        return digest.hexdigest()


def _items(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON value
    """Yield every (key, value) at any depth."""
    stack = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            yield from current.items()
            stack += current.values()
        elif isinstance(current, list):
            stack += current
