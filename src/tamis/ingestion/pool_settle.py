"""What becomes of each document of a pool: empty and repeated ones are dropped, an id with two texts is refused.

Source: tamis design (reliability D6; card K7).
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import xxhash

from tamis.errors import DataError
from tamis.ingestion.pool_pieces import Piece, RawLines, complete
from tamis.ingestion.pool_reader import PoolPart

REASONS = ("", "empty_text", "repeated_document", "lost")
KEPT, EMPTY, REPEATED, LOST = range(4)


def lost_rows(parts: list[PoolPart], lost: dict[str, tuple[str, str]], staged: list[Piece]) -> np.ndarray:
    """Bool [n]: rows of files that are not believed."""
    if not lost:
        return np.zeros(sum(len(part.keys) for part in parts), dtype=bool)
    found = [np.zeros(0, dtype=bool)]
    for piece in staged:
        is_lost = np.array([unit.source.label in lost for unit in piece.units])
        found += [is_lost[batch["unit"].to_numpy()] for batch in piece.stored(["unit"])]
    return np.concatenate(found)


def settle(
    staged: list[Piece], parts: list[PoolPart], lost: np.ndarray
) -> tuple[np.ndarray, dict[int, tuple[str, int]]]:
    """Decide about every row: uint8 [n] position in REASONS, and row -> (where its first copy is, how many before it).

    Only rows whose id's hash comes twice are looked at again; equal texts are told by SHA-256. O(n log n).
    """
    reasons = np.concatenate([np.zeros(0, np.uint8), *(np.where(p.empty, EMPTY, KEPT).astype(np.uint8) for p in parts)])
    reasons[lost] = LOST
    suspects = _suspects(staged, parts, reasons)
    seen: dict[str, dict[bytes, int]] = {}  # id -> content -> first row
    places: dict[int, str] = {}
    others: dict[int, tuple[str, int]] = {}
    nums: Counter[str] = Counter()
    for row, doc_id, content, where in _rows(staged, suspects):
        contents = seen.setdefault(doc_id, {})
        if content in contents:
            reasons[row] = REPEATED
            nums[doc_id] += 1
            others[row] = (places[contents[content]], nums[doc_id])
        else:
            contents[content] = row
            places[row] = where
    conflicts = [(doc_id, list(contents.values())) for doc_id, contents in seen.items() if len(contents) > 1]
    if conflicts:
        lines = [f"  {doc_id!r:.120}: {places[rows[0]]} and {places[rows[1]]}" for doc_id, rows in conflicts[:5]]
        raise DataError(
            f"{len(conflicts)} id(s) come with more than one text. The first:\n" + "\n".join(lines) + "\n"
            "Make the ids distinct, or name another field of the id."
        )
    return reasons, others


def _suspects(staged: list[Piece], parts: list[PoolPart], reasons: np.ndarray) -> np.ndarray:
    """int64: ascending rows, kept so far, whose id's hash another such row has."""
    keys = np.concatenate([np.zeros(0, np.uint64), *(part.keys for part in parts)])
    made = np.concatenate([np.zeros(0, bool), *(part.made for part in parts)])
    rows = np.flatnonzero(reasons == KEPT)
    if made.all():  # label and line are distinct as they are
        return rows[:0]
    if made.any():
        for piece in staged:
            inside = slice(piece.first, piece.first + len(piece))
            if made[inside].any():
                ids = [i for batch in piece.read(["doc_id"]) for i in batch["doc_id"].to_pylist()]
                keys[inside] = [xxhash.xxh3_64_intdigest(doc_id.encode()) for doc_id in ids]
    kept = keys[rows]
    ordered = np.sort(kept)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return rows[np.isin(kept, repeated)] if len(repeated) else rows[:0]


def _rows(staged: list[Piece], rows: np.ndarray) -> Iterator[tuple[int, str, bytes, str]]:
    """Yield (row, id, SHA-256 of title and text, label:line) of ascending rows."""
    columns = ["doc_id", "title", "text", "unit", "line"]
    firsts = [piece.first for piece in staged]
    for at in sorted({bisect_right(firsts, row) - 1 for row in rows.tolist()}):
        piece, first = staged[at], staged[at].first
        with RawLines() as lines:
            for batch in piece.stored(columns):
                low, high = np.searchsorted(rows, [first, first + len(batch)])
                chosen = batch.take(pa.array(rows[low:high] - first))
                ids = complete(chosen, ["doc_id"], piece.units, lines)["doc_id"].to_pylist()
                values = (chosen[name].to_pylist() for name in columns[1:])
                for row, doc_id, title, text, unit, line in zip(rows[low:high].tolist(), ids, *values, strict=True):
                    content = hashlib.sha256(f"{len(title)}:{title}{text}".encode()).digest()
                    place = piece.units[unit]
                    yield row, doc_id, content, f"{place.source.label}:{place.line_base + line}"
                first += len(batch)
