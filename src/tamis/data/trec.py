"""Ids in TREC files, whose fields end at blanks: blanks, controls and percent signs are percent-encoded.

Decoding undoes exactly what encoding does: a foreign id such as ``AP%2D88`` stays as it is.
"""

import re
from urllib.parse import quote, unquote

import pyarrow as pa

from tamis.data.columns import TEXT
from tamis.errors import DataError

_UNSAFE = re.compile(r"[\s%\x00-\x20\x7f]")


def encode(value: str) -> str:
    """Return an id as one TREC field."""
    return _UNSAFE.sub(lambda match: quote(match.group(), safe=""), value)


def decode(field: str) -> str:
    """Return the id that `encode` wrote as ``field``; any other field is an id as it stands."""
    if "%" not in field:
        return field
    value = unquote(field)
    return value if encode(value) == field else field


def encode_ids(ids: pa.Array) -> pa.Array:
    """Encode an array of ids.

    Raises:
      DataError: an id is empty; a TREC file has no way to write it.
    """
    values = ids.to_pylist()
    if "" in values:
        raise DataError("run: an id is empty and cannot stand in a TREC file. Give each query and document an id.")
    if not any(_UNSAFE.search(value) for value in values):
        return ids
    return pa.array([encode(value) for value in values], TEXT)


def decode_ids(ids: pa.Array) -> pa.Array:
    """Decode an array of fields."""
    values = ids.to_pylist()
    if not any("%" in value for value in values):
        return ids.cast(TEXT)
    return pa.array([decode(value) for value in values], TEXT)
