"""Content hashes and counter-based random numbers: sampling that does not depend on row order or workers.

Source: tamis design (method card K2); splitmix64 after Steele, Lea, Flood 2014.
"""

from collections.abc import Iterable

import numpy as np
import xxhash

STREAMS = {"split": 1, "select": 2, "mine": 3, "crop": 4, "mixture": 5, "table": 6, "batch": 7, "minhash": 8}
"""One small fixed integer a use, so that two uses of one seed are independent."""


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """uint64 [n]: XXH3-64 (seed 0) of each text's UTF-8 bytes."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(t.encode()) for t in texts), dtype=np.uint64)


def content_hashes(texts: Iterable[str]) -> np.ndarray:
    """Bytes [n] of 16: XXH3-128 (seed 0) of each text's UTF-8 bytes; equality is still confirmed on the texts."""
    digest = xxhash.xxh3_128_digest
    return np.array([digest(t.encode()) for t in texts], dtype="S16")


def splitmix64(x: np.ndarray | int) -> np.ndarray:
    """Mix 64-bit integers (uint64, modulo 2^64), element by element."""
    with np.errstate(over="ignore"):
        z = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed


def draws(keys: np.ndarray, seed: int, stream: str) -> np.ndarray:
    """uint64 [n] random bits for each key; the same for equal (key, seed, stream), whatever the order."""
    base = splitmix64(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) ^ splitmix64(STREAMS[stream]))
    return splitmix64(base ^ np.asarray(keys, dtype=np.uint64))


def uniform(keys: np.ndarray, seed: int, stream: str) -> np.ndarray:
    """float64 [n] in (0, 1), never 0 or 1, one for each uint64 key."""
    unit: np.ndarray = ((draws(keys, seed, stream) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return unit
