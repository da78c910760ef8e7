"""Dates of documents: read from a declared field of the metadata, ISO 8601, never guessed from text or files.

Source: tamis design (method card K8).
"""

import re
from datetime import date

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tamis.errors import DataError

NO_DATE = np.iinfo(np.int32).min
_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ].*)?)?)?", re.ASCII | re.DOTALL)
_EPOCH = date(1970, 1, 1).toordinal()


def document_days(metadata: pa.Array, field: str) -> tuple[np.ndarray, int]:
    """Read each document's date from a field of its metadata.

    Args:
      metadata: n JSON objects.
      field: the declared field; ISO 8601, of which a year or a month alone stands for its first day.

    Returns:
      days since 1970-01-01, int32 [n], NO_DATE where there is none; and how many values could not be read.
    """
    days = np.full(len(metadata), NO_DATE, np.int32)
    rows = np.flatnonzero(pc.match_substring(metadata, orjson.dumps(field).decode()).to_numpy(zero_copy_only=False))
    num_unreadable = 0
    for row, text in zip(rows.tolist(), metadata.take(pa.array(rows)).to_pylist(), strict=True):
        try:
            value = orjson.loads(text).get(field)
        except (ValueError, AttributeError) as error:
            raise DataError(f"metadata is no JSON object: {text[:80]!r}. Give each document one.") from error
        if value is None or value == "":
            continue
        day = parse_day(value) if isinstance(value, str) else None
        if day is None:
            num_unreadable += 1
        else:
            days[row] = day
    return days, num_unreadable


def parse_day(value: str) -> int | None:
    """Days since 1970-01-01 of an ISO 8601 date, or None for anything else."""
    match = _DATE.fullmatch(value.strip())
    if match is None:
        return None
    year, month, day = (int(part) if part else 1 for part in match.groups())
    try:
        return date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None


def iso_day(days: int) -> str:
    """ISO 8601 date of a number of days since 1970-01-01."""
    return date.fromordinal(days + _EPOCH).isoformat()
