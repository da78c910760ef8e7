"""Records: one mapping from a file to a document or to a reason why not; ids, text, title, metadata.

Source: tamis design (reliability D8, D9). Ids are opaque strings, never a path, query or markup.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

ID_FIELDS = ("_id", "id", "doc_id", "docid")
TEXT_FIELDS = ("text", "body", "content", "contents")
TITLE_FIELD = "title"
MAX_ID_BYTES = 512
MAX_DOCUMENT_BYTES = 16 << 20
_INT64_BOUND = 1 << 63
_DETAIL_CHARS = 200


class Record(NamedTuple):
    """A document as it was read.

    Attributes:
      doc_id: its id; None where the file has none: made from label and line later.
      title: "" where there is none.
      text: not cleaned, may be empty.
      metadata: JSON object of the other fields, keys sorted.
      line: from 1, of its first line (of its row in Parquet).
      offset: byte at which it starts in the decompressed file; 0 in Parquet.
    """

    doc_id: str | None
    title: str
    text: str
    metadata: str
    line: int
    offset: int


class Reject(NamedTuple):
    """What could not be read: where (as in Record), why in one word, and what was found."""

    line: int
    offset: int
    reason: str
    detail: str


class Fields(NamedTuple):
    """Which field of a file's records is what.

    Attributes:
      doc_id: None when its records have no id: ids are made from label and line.
      text: the field that must hold the text.
      title: the field of the title, where a record has it.
      seen: the fields of the first records, for messages.
      suggestion: the field to try when the text field is nowhere; "" when there is none.
    """

    doc_id: str | None
    text: str
    title: str
    seen: tuple[str, ...]
    suggestion: str


def choose_fields(
    records: Iterable[Mapping[str, Any]], id_field: str | None, text_field: str | None, title_field: str | None
) -> Fields:
    """Choose the fields of a file from its first records; a field that was asked for is not second-guessed."""
    seen: dict[str, int] = {}  # field -> total length of its string values, in order of appearance
    first_keys: set[str] = set()
    for number, record in enumerate(records):
        if number == 0:
            first_keys = set(record)
        for key, value in record.items():
            seen[key] = seen.get(key, 0) + (len(value) if isinstance(value, str) else 0)
    doc_id = id_field or next((f for f in ID_FIELDS if f in first_keys), None)
    text = text_field or next((f for f in TEXT_FIELDS if f in seen), TEXT_FIELDS[0])
    return Fields(doc_id, text, title_field or TITLE_FIELD, tuple(seen), _suggest(seen, text, doc_id))


def _suggest(seen: dict[str, int], text: str, doc_id: str | None) -> str:
    strings = [f for f, length in seen.items() if length and f not in (doc_id, TITLE_FIELD)]
    for wanted in (text, *TEXT_FIELDS):
        close = difflib.get_close_matches(wanted, strings, n=1, cutoff=0.6)
        if close:
            return close[0]
    return max(strings, key=lambda f: seen[f], default="")


def to_document(values: Mapping[str, Any], fields: Fields, line: int, offset: int) -> Record | Reject:
    """Turn one record into a document, or say what is wrong with it. O(size)."""
    text = values.get(fields.text)
    if not isinstance(text, str):
        return Reject(line, offset, *_text_problem(values, fields, text))
    doc_id: str | None = None
    if fields.doc_id is not None:
        doc_id, problem = identifier(values.get(fields.doc_id))
        if doc_id is None:
            return Reject(line, offset, "bad_id", clip(f"field {fields.doc_id!r}: {problem}"))
    title = values.get(fields.title)
    used = {fields.text, fields.doc_id, fields.title if title is None or isinstance(title, str) else None}
    try:
        metadata = encode_metadata({k: v for k, v in values.items() if k not in used})
    except TypeError as error:  # orjson reads 1,024 levels and writes 254
        return Reject(line, offset, "too_deep", clip(f"other fields: {error}"))
    if len(text) + len(metadata) > MAX_DOCUMENT_BYTES // 4 and len(text.encode()) + len(metadata) > MAX_DOCUMENT_BYTES:
        return Reject(line, offset, "document_too_long", f"more than {MAX_DOCUMENT_BYTES} bytes; split it")
    return Record(doc_id, title if isinstance(title, str) else "", text, metadata, line, offset)


def _text_problem(values: Mapping[str, Any], fields: Fields, text: object) -> tuple[str, str]:
    if fields.text not in values:
        return "text_missing", clip(f"no field {fields.text!r} (has: {', '.join(list(values)[:20])})")
    return "text_not_a_string", clip(f"field {fields.text!r} is {kind_of(text)}")


def identifier(value: object) -> tuple[str | None, str]:
    """Return (id, "") or (None, what is wrong): 1 to 512 bytes of UTF-8 without controls, or an int64."""
    if isinstance(value, int) and not isinstance(value, bool) and -_INT64_BOUND <= value < _INT64_BOUND:
        return str(value), ""
    if not isinstance(value, str):
        return None, f"{kind_of(value)}: {value!r:.60}; ids are strings or 64-bit integers"
    try:
        num_bytes = len(value.encode())
    except UnicodeEncodeError:
        return None, f"{value!r:.60} holds a lone surrogate"
    if not 1 <= num_bytes <= MAX_ID_BYTES:
        return None, f"{num_bytes} bytes; ids have 1 to {MAX_ID_BYTES}"
    if not value.isprintable() and any(c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" for c in value):
        return None, f"{value!r:.60} holds control characters"
    return value, ""


def encode_metadata(others: dict[str, Any]) -> str:
    """Return the other fields as one JSON object with sorted keys; a nested ``metadata`` object is merged up.

    A key that both have keeps the outer value; the inner one becomes ``metadata.<key>``.
    """
    inner = others.get("metadata")
    if isinstance(inner, dict):
        outer = {k: v for k, v in others.items() if k != "metadata"}
        others = {**{(f"metadata.{k}" if k in outer else k): v for k, v in inner.items()}, **outer}
    if not others:
        return "{}"
    return orjson.dumps(others, default=_plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: object) -> object:
    """Return a JSON value for what Parquet can hold and JSON cannot (bytes, decimals, durations)."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def kind_of(value: object) -> str:
    """Name a value's JSON type for a message."""
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def clip(detail: str) -> str:
    """Shorten a detail to what a reject row holds, printable and encodable."""
    short = detail if len(detail) <= _DETAIL_CHARS else detail[: _DETAIL_CHARS - 1] + "…"
    return short.encode("utf-8", "backslashreplace").decode()
