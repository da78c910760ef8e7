"""Parquet reader: column mapping as for JSON lines. Run it in a limited child: damaged files can crash the library.

Source: reliability rule 6, D14 (arrow#51238).
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.ingestion.records import Fields, Record, Reject, clip, to_document

BATCH_ROWS = 1024
Chooser = Callable[[list[dict[str, object]]], Fields]


def read_parquet(path: str, choose: Chooser) -> Iterator[Record | Reject]:
    """Read a Parquet file in batches; line = row from 1. Rows before a damaged page are kept."""
    row = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            fields: Fields | None = None
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                records = _to_records(batch)
                if fields is None:
                    fields = choose(records[:100] or [dict.fromkeys(batch.schema.names)])
                for record in records:
                    row += 1
                    yield _to_row(record, fields, row)
            if fields is None:
                choose([dict.fromkeys(parquet.schema_arrow.names)])
    except MemoryError as error:
        yield Reject(row + 1, 0, "too_much_memory", clip(f"from row {row + 1} on: {error}"))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        yield Reject(row + 1, 0, "invalid_parquet", clip(f"from row {row + 1} on: {error}"))


def _to_records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = {name: batch.column(i).to_pylist() for i, name in enumerate(batch.schema.names)}
    return [{name: values[i] for name, values in columns.items()} for i in range(len(batch))]


def _to_row(record: dict[str, Any], fields: Fields, row: int) -> Record | Reject:
    for name in (fields.doc_id, fields.text, fields.title):
        if name is not None and isinstance(record.get(name), bytes):  # strings without their annotation
            try:
                record[name] = record[name].decode("utf-8")
            except UnicodeDecodeError:
                return Reject(row, 0, "invalid_utf8", f"column {name!r}")
    return to_document(record, fields, row, 0)
