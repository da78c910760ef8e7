"""Columns of our tables: their types, no nulls where none are meant, ids that every format can carry."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tamis.errors import ArtefactError, DataError

TEXT = pa.large_string()
MAX_ID_BYTES = 512 + 32  # of a document as it is read, and what the ids of its passages add


@contextmanager
def conversion(what: str) -> Iterator[None]:
    """Turn what Arrow says about values of the wrong type into a DataError that starts with ``what``."""
    try:
        yield
    except (pa.ArrowException, ValueError, TypeError, OverflowError, KeyError) as error:
        raise DataError(f"{what}: {error}") from error


@contextmanager
def parquet(path: Path) -> Iterator[None]:
    """Turn what Arrow says about a damaged or missing Parquet file of ours into an ArtefactError.

    Without this an error while reading would look like a full disk to whoever is writing meanwhile.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(f"{path}: damaged or unreadable ({error}). Build this stage again.") from error


def conform(table: pa.Table, schema: pa.Schema, what: str, *, nullable: Sequence[str] = ()) -> pa.Table:
    """Return the columns of ``schema`` with its types, in one chunk each.

    Raises:
      DataError: a column is missing, cannot be converted, or holds nulls and is not named in ``nullable``.
    """
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise DataError(f"{what}: no column {missing[0]!r} (has: {', '.join(table.column_names)}).")
    with conversion(what):
        table = table.select(schema.names).cast(schema).combine_chunks()
    for name in schema.names:
        if table[name].null_count and name not in nullable:
            raise DataError(f"{what}: {table[name].null_count} rows have no {name}. Give each row one.")
    return table


def check_ids(ids: pa.Array | pa.ChunkedArray, what: str) -> None:
    """Refuse ids that a tab-separated or TREC file could not carry. O(bytes), vectorised.

    Raises:
      DataError: an id is empty, longer than MAX_ID_BYTES of UTF-8, or holds a control character; names it.
    """
    sizes = pc.binary_length(ids)
    bad = pc.or_(pc.or_(pc.equal(sizes, 0), pc.greater(sizes, MAX_ID_BYTES)), pc.match_substring_regex(ids, r"\p{Cc}"))
    if pc.any(bad).as_py():
        first = ids.filter(bad)[0].as_py()
        raise DataError(
            f"{what}: the id {first[:80]!r} ({len(first.encode())} bytes) is refused; an id is "
            f"1 to {MAX_ID_BYTES} bytes of UTF-8 without control characters. Rename it."
        )


def check_distinct(ids: pa.Array | pa.ChunkedArray, what: str) -> None:
    """Refuse ids that occur twice. O(ids).

    Raises:
      DataError: names the first id, in byte order, that does.
    """
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids)
        repeated = min(c["values"].as_py() for c in counts if c["counts"].as_py() > 1)
        raise DataError(f"{what}: the id {repeated!r} occurs more than once. Give each its own id.")
