"""Queries and Qrels: what is asked, and what answers it; BEIR and TREC files in and out."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import columns as rules
from tamis.data.columns import TEXT
from tamis.data.trec import decode
from tamis.errors import DataError

QUERY_SCHEMA = pa.schema(
    [
        ("query_id", TEXT),
        ("text", TEXT),
        ("method", TEXT),  # which maker wrote it; "" for a user's query
        ("source_doc_id", TEXT),  # document it was made from; "" for a user's query
        ("start", pa.int64()),  # characters of the source's text; -1 where it is not a span of it
        ("stop", pa.int64()),
    ]
)
QRELS_SCHEMA = pa.schema(
    [
        ("query_id", TEXT),
        ("doc_id", TEXT),
        ("relevance", pa.int32()),  # > 0 is relevant
        ("cut_start", pa.int64()),  # characters of the document's text that the positive leaves out; -1 none
        ("cut_stop", pa.int64()),
        ("cut_title", pa.bool_()),  # whether the positive leaves the title out
    ]
)
_QUERY_DEFAULTS: Mapping[str, Any] = {"method": "", "source_doc_id": "", "start": -1, "stop": -1}
_QRELS_DEFAULTS: Mapping[str, Any] = {"relevance": 1, "cut_start": -1, "cut_stop": -1, "cut_title": False}
MAX_LINE_BYTES = 16 << 20


def _table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, defaults: Mapping[str, Any]) -> pa.Table:
    listed = list(rows)
    with rules.conversion("records"):
        columns = {f.name: pa.array([_value(r, f.name, defaults) for r in listed], f.type) for f in schema}
    return pa.table(columns)


def _value(row: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any column's value
    value = row.get(name)
    return defaults.get(name) if value is None else value


class Queries:
    """Queries in a fixed order, with where each came from (QUERY_SCHEMA)."""

    def __init__(self, table: pa.Table) -> None:
        """Wrap a table of QUERY_SCHEMA.

        Raises:
          DataError: a query id is refused or occurs twice, a value is missing or of another type.
        """
        self.table = rules.conform(table, QUERY_SCHEMA, "queries")
        rules.check_ids(self.table["query_id"], "queries")
        rules.check_distinct(self.table["query_id"], "queries")

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> Self:
        """Make queries from mappings with query_id, text and optional provenance."""
        return cls(_table(records, QUERY_SCHEMA, _QUERY_DEFAULTS))

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Self:
        """Make queries from id -> text."""
        return cls.from_records({"query_id": q, "text": t} for q, t in texts.items())

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read BEIR queries: JSON lines with _id and text (.gz too), split at line feeds only.

        Raises:
          DataError: a line is no JSON object, or has no _id (or query_id) and text; names file and line.
        """
        rows = []
        for number, line in _lines(Path(path)):
            try:
                record = orjson.loads(line)
                query_id = record.get("_id", record.get("query_id", record.get("id")))
                if isinstance(query_id, int) and not isinstance(query_id, bool):
                    query_id = str(query_id)
                if not isinstance(query_id, str) or not isinstance(record.get("text"), str):
                    raise DataError(
                        f"{path}, line {number}: a query needs '_id' and 'text', both strings "
                        f"(has: {', '.join(record)})."
                    )
            except (ValueError, AttributeError) as error:
                raise DataError(f"{path}, line {number}: not a JSON object ({error}).") from error
            rows.append({"query_id": query_id, "text": record["text"]})
        return cls.from_records(rows)

    def write(self, file: Any) -> None:  # noqa: ANN401 - a binary file
        """Write BEIR lines (_id, text, metadata with the provenance) to an open binary file."""
        for batch in self.table.to_batches(max_chunksize=4096):
            lines = []
            for row in batch.to_pylist():
                line = {"_id": row.pop("query_id"), "text": row.pop("text"), "metadata": row}
                lines.append(orjson.dumps(line) + b"\n")
            file.write(b"".join(lines))

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.table)

    @cached_property
    def ids(self) -> list[str]:
        """Query ids in order."""
        ids: list[str] = self.table["query_id"].to_pylist()
        return ids

    @cached_property
    def texts(self) -> list[str]:
        """Query texts in order."""
        texts: list[str] = self.table["text"].to_pylist()
        return texts

    def select(self, keep: np.ndarray) -> "Queries":
        """Return the queries at the given rows, or where a boolean mask is true."""
        keep = np.asarray(keep)
        return Queries(self.table.filter(pa.array(keep)) if keep.dtype == bool else self.table.take(pa.array(keep)))


class Qrels:
    """Judgements (QRELS_SCHEMA). A positive may be a view of its document: the text minus a cut."""

    def __init__(self, table: pa.Table) -> None:
        """Wrap a table of QRELS_SCHEMA.

        Raises:
          DataError: a pair of query and document is judged twice, an id is refused, a value is missing.
        """
        self.table = rules.conform(table, QRELS_SCHEMA, "qrels")
        for name in ("query_id", "doc_id"):
            rules.check_ids(self.table[name], "qrels")
        pairs = self.table.group_by(["query_id", "doc_id"]).aggregate([([], "count_all")])
        if len(pairs) != len(self.table):
            row = pairs.filter(pc.greater(pairs["count_all"], 1)).slice(0, 1).to_pylist()[0]
            raise DataError(f"qrels: query {row['query_id']!r} judges document {row['doc_id']!r} more than once.")

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> Self:
        """Make judgements from mappings with query_id, doc_id and optional relevance and view."""
        return cls(_table(records, QRELS_SCHEMA, _QRELS_DEFAULTS))

    @classmethod
    def from_dict(cls, grades: Mapping[str, Mapping[str, int]]) -> Self:
        """Make judgements from query id -> document id -> grade."""
        return cls.from_records(
            {"query_id": q, "doc_id": d, "relevance": g} for q, docs in grades.items() for d, g in docs.items()
        )

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read BEIR TSV (query-id, corpus-id, score, with header) or TREC qrels (query, iteration, document, grade).

        A first line whose third field holds no digit is a header. Ids of TREC lines are percent-decoded
        as those of a TREC run.

        Raises:
          DataError: a line has other than 3 or 4 fields or no whole-number grade; names file and line.
        """
        rows = []
        for number, line in _lines(Path(path)):
            try:
                query_id, doc_id, grade = _judgement(line)
                if number == 1 and not any(c.isdigit() for c in grade):
                    continue
                rows.append({"query_id": query_id, "doc_id": doc_id, "relevance": int(grade)})
            except ValueError:
                raise DataError(
                    f"{path}, line {number}: expected query-id, corpus-id and a whole-number score "
                    f"separated by tabs, or a TREC qrels line; got {line[:80]!r}."
                ) from None
        return cls.from_records(rows)

    def write(self, file: Any) -> None:  # noqa: ANN401 - a binary file
        """Write a BEIR TSV with header to an open binary file."""
        columns = [self.table[n].cast(TEXT) for n in ("query_id", "doc_id", "relevance")]
        lines = pc.binary_join_element_wise(*columns, pa.scalar("\t", TEXT)).to_pylist()
        file.write("".join(["query-id\tcorpus-id\tscore\n", *(line + "\n" for line in lines)]).encode())

    def __len__(self) -> int:
        """Number of judgements."""
        return len(self.table)

    @cached_property
    def grades(self) -> dict[str, dict[str, int]]:
        """Query id -> document id -> grade, in file order."""
        grades: dict[str, dict[str, int]] = {}
        columns = (self.table[n].to_pylist() for n in ("query_id", "doc_id", "relevance"))
        for query_id, doc_id, grade in zip(*columns, strict=True):
            grades.setdefault(query_id, {})[doc_id] = grade
        return grades

    def relevant(self, query_id: str) -> set[str]:
        """Return the documents graded above 0 for a query; empty when it is not judged."""
        return {d for d, grade in self.grades.get(query_id, {}).items() if grade > 0}

    def of(self, queries: Queries) -> "Qrels":
        """Return the judgements of the given queries."""
        return Qrels(self.table.filter(pc.is_in(self.table["query_id"], queries.table["query_id"].combine_chunks())))


def _judgement(line: bytes) -> list[str]:
    fields = line.decode().rstrip("\r\n").split("\t")
    if len(fields) == 3:
        return fields
    parts = [part.decode() for part in line.split()]  # bytes: split at ASCII blanks only
    return [decode(parts[0]), decode(parts[2]), parts[3]] if len(parts) == 4 else parts


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of the lines that are not blank."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(f"{path}, line {number}: longer than {MAX_LINE_BYTES:,} bytes. Cut it.")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}. Give a .jsonl, .tsv or .gz file.") from error
