"""Compression alignment: documents that get shorter when the compressor has read the target first.

Source: Obbad et al. 2024, ZIP-FIT, arXiv:2410.18194 (``exact``); the dictionary form: tamis design (method card C2).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.corpus import Documents
from tamis.ops.bytes import text_buffers
from tamis.ops.hashing import array_keys
from tamis.ops.text import joined
from tamis.selection.choice import seen
from tamis.selection.selector import Selector

_GZIP = 31  # wbits of zlib for gzip's frame
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 6


@dataclass(frozen=True)
class CompressionModel:
    """The target as the compressor sees it.

    Attributes:
      dictionary: target texts one after another, cut; empty in the exact form.
      texts: the target's documents, in the exact form.
      sizes: int64, compressed bytes of each of ``texts``.
    """

    dictionary: bytes
    texts: tuple[bytes, ...]
    sizes: np.ndarray


class CompressionAlignment(Selector):
    """Keep the documents that the target helps to compress: a second opinion, without tokens or features.

    By default the target is a raw zstd dictionary and the score is the share of a document's compressed bytes that it
    saves: one pass at about 65 MB/s a core, whatever the size of the target. ``exact`` is the paper's: 1 - NCD by
    gzip, mean over target documents, one compression a pair, 0.04 MB/s at 600 of them. Documents of the pool that are
    in the target are left out (``in_target``): they would be saved whole. Compressed sizes depend on the library's
    version; orders hardly do.

    Attributes:
      exact: the paper's form.
      level: of the compressor; None for the mode's own: zstd 3, gzip 6. (At gzip's 0 nothing would be compressed.)
      dictionary_bytes: the target is cut there, after its documents in the order of their hashes; unused in ``exact``.
      min_bytes: shorter documents are refused (``too_few_bytes``): frame headers would decide.
    """

    excludes_target: ClassVar[bool] = True
    refusal: ClassVar[str] = "too_few_bytes"

    method: Literal["compression_alignment"] = "compression_alignment"
    exact: bool = False
    level: Annotated[int, Field(ge=1, le=9)] | None = None
    dictionary_bytes: Annotated[int, Field(ge=1024, le=1 << 27)] = 1 << 20
    min_bytes: Annotated[int, Field(ge=1)] = 200

    def fit(self, pool: None, target: Documents, *, seed: int) -> CompressionModel:
        """Return the target's texts in the order of their hashes; the pool is unused."""
        if self.exact:
            parts = tuple(text for text in _in_order(target) if text)
            return CompressionModel(b"", parts, np.array([self._gzip_size(text) for text in parts], np.int64))
        held, room = [], self.dictionary_bytes
        for text in _in_order(target):
            held.append(text[:room])
            room -= len(held[-1])
            if not room:
                break
        return CompressionModel(b"".join(held), (), np.zeros(0, np.int64))

    def score(self, batch: pa.RecordBatch, model: CompressionModel) -> np.ndarray:
        """Return float64 [n]: share of bytes saved, or the mean of 1 - NCD; -inf under ``min_bytes``."""
        texts = [text if len(text) >= self.min_bytes else None for text in _views(joined(batch))]
        if self.exact:
            return np.array([-np.inf if text is None else self._alignment(text, model) for text in texts], np.float64)
        import zstandard

        level = self.level or _ZSTD_LEVEL
        plain = zstandard.ZstdCompressor(level=level)
        helped = zstandard.ZstdCompressor(level=level, dict_data=_dictionary(model.dictionary, level))
        gains = [
            -np.inf if text is None else 1.0 - len(helped.compress(text)) / len(plain.compress(text)) for text in texts
        ]
        return np.array(gains, np.float64)

    def _alignment(self, text: memoryview, model: CompressionModel) -> float:
        """Return the mean over target documents of 1 - NCD, one after another."""
        start = zlib.compressobj(self.level or _GZIP_LEVEL, zlib.DEFLATED, _GZIP)
        head = start.compress(text)
        own = self._gzip_size(text)
        total = 0.0
        for other, size in zip(model.texts, model.sizes.tolist(), strict=True):
            both = start.copy()  # the document is compressed once, not once a pair
            pair = len(head) + len(both.compress(other)) + len(both.flush())
            total += 1.0 - ncd(own, size, pair)
        return total / len(model.texts)

    def _gzip_size(self, text: bytes | memoryview) -> int:
        return len(zlib.compress(text, self.level or _GZIP_LEVEL, _GZIP))


def ncd(size_x: int, size_y: int, size_both: int) -> float:
    """Return the normalised compression distance: (C(xy) - min(C(x), C(y))) / max(C(x), C(y))."""
    return (size_both - min(size_x, size_y)) / max(size_x, size_y)


@lru_cache(maxsize=4)
def _dictionary(data: bytes, level: int) -> Any:  # noqa: ANN401 - zstandard's class
    """Digest a dictionary once, not once a batch; compressors of several threads may share it."""
    import zstandard

    made = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    made.precompute_compress(level=level)
    return made


def _views(texts: pa.Array) -> Iterator[memoryview]:
    """Yield the bytes of each text without a copy."""
    data, offsets = text_buffers(texts)
    view = memoryview(data.data)
    for start, stop in pairwise(offsets.tolist()):
        yield view[start:stop]


def _in_order(target: Documents) -> list[bytes]:
    """Return the target's texts by ascending content hash: the order of its documents changes nothing."""
    found: list[tuple[int, bytes]] = []
    for batch in target.batches(seen(target)):
        texts = joined(batch)
        found += zip(array_keys(texts).tolist(), map(bytes, _views(texts)), strict=True)
    return [text for _, text in sorted(found)]
