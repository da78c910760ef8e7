"""Words, hashes and signatures of many texts at memory speed: kernels over Arrow string buffers.

Source: tamis design (method cards K3 and K5): WordPunct tokens on lower-cased text, FNV-1a token hashes,
MinHash (Broder 1997) with multiply-add hashing.

A token is a maximal run of word characters or of other marks; each character of a script written without
blanks (kana, ideographs, Thai, Lao, Myanmar, Khmer) is a token of its own. The character classes come from
a table in the package, so results do not depend on the interpreter's Unicode version.
"""

import zlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from tamis.ops.hashing import splitmix64

UNICODE_VERSION = "14.0.0"
PHRASE_TOKENS = 4
"""`find_phrases` looks for phrases of at least this many words."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
Texts: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray


@cache
def character_tables() -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each character below U+10000, uint8 [65536], and its lower case, uint16 [65536]."""
    packed = resources.files("tamis.ops.tables").joinpath("unicode.zlib").read_bytes()
    data = zlib.decompress(packed)
    steps = np.frombuffer(data, "<u2", 65536, offset=65536)
    lowers = steps + np.arange(65536, dtype=np.uint16)  # wraps: differences are modulo 65536
    return np.frombuffer(data, np.uint8, 65536), lowers.astype(np.uint16)


def text_buffers(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes uint8 and offsets int64 [n + 1] of the texts, without a copy where the array allows it."""
    array = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(list(texts), pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # some versions keep an empty or single chunk wrapped
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    array = array.cast(pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    _, offsets, data = array.buffers()
    stops = np.zeros(1, np.int64) if offsets is None or not len(array) else np.frombuffer(offsets, np.int64)
    stops = stops[array.offset : array.offset + len(array) + 1] if len(array) else stops[:1]
    stops.flags.writeable = False  # one compiled variant: Arrow's buffers are read-only too
    values = np.frombuffer(data, np.uint8) if data is not None and data.size else np.frombuffer(b"", np.uint8)
    return values, stops


def token_hashes(texts: Texts, *, words_only: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the 64-bit hash of every token of every text. About 250 MB/s a core.

    Args:
      texts: n strings; null is empty.
      words_only: leave runs of marks out.

    Returns:
      hashes uint64 [T], text after text, and starts int64 [n + 1]: text i has hashes[starts[i]:starts[i + 1]].
    """
    from tamis.ops import byte_kernels

    data, offsets = text_buffers(texts)
    hashes, starts = byte_kernels.token_hashes(data, offsets, *character_tables(), words_only)
    return hashes, starts


def text_hashes(texts: Texts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one hash of each text's words, equal for texts that differ in case, marks and blanks alone.

    Returns:
      hashes uint64 [n] (0 for a text without words), num_tokens int32 [n], and num_spaceless int32 [n]:
      how many of the tokens are single characters of a script written without blanks.
    """
    from tamis.ops import byte_kernels

    hashes, counts, spaceless = byte_kernels.text_hashes(*text_buffers(texts), *character_tables())
    return hashes, counts, spaceless


def minhash_parameters(num_hashes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the odd factors a and the summands b, uint32 [num_hashes] each."""
    with np.errstate(over="ignore"):
        states = np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + np.arange(2 * num_hashes, dtype=np.uint64) * _GOLDEN
    high = (splitmix64(states) >> np.uint64(32)).astype(np.uint32)
    return high[0::2] | np.uint32(1), high[1::2].copy()


def minhash(
    texts: Texts, *, num_hashes: int = 256, width: int = 3, seed: int = 0, common: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return MinHash signatures over shingles of ``width`` words. 130 MB/s a core at 256 hashes.

    The share of equal positions of two signatures estimates the Jaccard similarity of their shingle sets
    with standard error sqrt(J (1 - J) / num_hashes).

    Args:
      texts: n strings.
      num_hashes: K, positions of a signature.
      width: words in a shingle; a shorter text is one shingle.
      seed: of the hash functions.
      common: sorted uint64 shingle hashes to leave out (boilerplate).

    Returns:
      signatures uint32 [n, K], all 2^32 - 1 for a text without shingles; num_shingles int32 [n].
    """
    from tamis.ops import byte_kernels

    a, b = minhash_parameters(num_hashes, seed)
    left_out = np.zeros(0, np.uint64) if common is None else np.ascontiguousarray(common, np.uint64)
    signatures, used = byte_kernels.minhash(*text_buffers(texts), *character_tables(), a, b, width, left_out)
    return signatures, used


class Phrases:
    """Phrases prepared for looking them up in many batches of texts."""

    def __init__(self, phrases: Texts) -> None:
        """Prepare Q phrases; those under PHRASE_TOKENS words are never found."""
        from tamis.ops import byte_kernels

        self._hashes, self._starts = token_hashes(phrases)
        long = np.flatnonzero(np.diff(self._starts) >= PHRASE_TOKENS)
        heads = [byte_kernels.shingle_hash(self._hashes, self._starts[p], PHRASE_TOKENS) for p in long]
        head_hashes = np.array(heads, dtype=np.uint64)
        order = np.argsort(head_hashes, kind="stable")
        self._heads, self._order = head_hashes[order], long[order]
        self._filter = np.zeros(65536, np.uint8)
        self._filter[(self._heads >> np.uint64(48)).astype(np.int64)] = 1

    def first_in(self, texts: Texts) -> np.ndarray:
        """Return int64 [Q]: the row of the first text that holds the phrase as consecutive words, or -1.

        Case, marks and blanks are ignored. One pass over the texts, about 200 MB/s.
        """
        from tamis.ops import byte_kernels

        found: np.ndarray = byte_kernels.find_phrases(
            *text_buffers(texts),
            *character_tables(),
            self._hashes,
            self._starts,
            self._order,
            self._heads,
            self._filter,
            PHRASE_TOKENS,
        )
        return found
