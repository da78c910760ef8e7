"""Token ids of many texts, made once: flat arrays that batches are cut from.

Source: tamis design (training engine).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from tamis.data.artefact import Staging

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FILE = "tokens.arrow"
_CHUNK_TEXTS = 4096


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts end to end.

    Attributes:
      ids: int32 [N].
      offsets: int64 [n + 1]: where each text starts.
    """

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(
        cls,
        tokenizer: "Tokenizer",
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        special: bool = True,
    ) -> Self:
        """Tokenise texts, each cut to ``max_tokens``. About 3 MB/s a core.

        Args:
          tokenizer: of the model; its padding and truncation are left alone, a copy is used.
          texts: n strings.
          prompt: put before every text.
          max_tokens: special tokens included; None for no limit.
          special: add the model's special tokens.
        """
        from tokenizers import Tokenizer as Fast

        own = Fast.from_str(tokenizer.to_str())
        own.no_padding()
        own.no_truncation()
        if max_tokens is not None:
            own.enable_truncation(max_tokens)
        rows: list[np.ndarray] = []
        for start in range(0, len(texts), _CHUNK_TEXTS):
            chunk = [prompt + text for text in texts[start : start + _CHUNK_TEXTS]]
            rows += [
                np.array(found.ids, dtype=np.int32)
                for found in own.encode_batch_fast(chunk, add_special_tokens=special)
            ]
        return cls.from_rows(rows)

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray]) -> Self:
        """Return the token ids of texts given one by one."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32), offsets)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens of each text."""
        lengths: np.ndarray = np.diff(self.offsets)
        return lengths

    def take(self, rows: np.ndarray) -> "Tokens":
        """Return the given texts in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Tokens(self.ids[places], offsets)

    def padded(self, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return int64 [n, L] ids and int64 [n, L] mask, L the longest text's tokens, 1 at least."""
        lengths = self.lengths
        width = max(1, int(lengths.max(initial=0)))
        mask_nL = np.arange(width)[None, :] < lengths[:, None]
        ids_nL = np.full((len(self), width), pad_id, dtype=np.int64)
        ids_nL[mask_nL] = self.ids
        return ids_nL, mask_nL.astype(np.int64)

    def save(self, staging: Staging) -> None:
        """Write tokens.arrow: one list of ids a text."""
        rows = pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.ids))
        table = pa.table({"ids": rows})
        with staging.create(_FILE) as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        staging.counts |= {"texts": len(self), "tokens": len(self.ids)}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what `save` wrote into memory; the folder was verified before."""
        with pa.memory_map(str(folder / _FILE)) as file:
            column = pa.ipc.open_file(file).read_all()["ids"].combine_chunks()
        return cls(column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64))


def concat(parts: Sequence[Tokens]) -> Tokens:
    """Return the texts of all parts, one part after another."""
    starts = np.cumsum([0, *(len(part.ids) for part in parts)])
    offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
    ids = np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)])
    return Tokens(ids, np.concatenate([*offsets, starts[-1:]]).astype(np.int64))
