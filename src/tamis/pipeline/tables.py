"""Tables that people bring: runs, losses, edit programs; CSV, Parquet or JSON lines, told by the file's name.

Source: tamis design.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from pyarrow import json as json_lines

from tamis.errors import DataError


def read_table(path: Path | str) -> pa.Table:
    """Read a table as it stands; column types are those of Parquet, or inferred.

    Args:
      path: .csv, .tsv, .parquet, .jsonl or .ndjson; text files also with .gz or .zst.

    Raises:
      DataError: no such file, another suffix, a file that is none of these, or a column twice.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file. Give a table: .csv, .tsv, .jsonl or .parquet.")
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in (".gz", ".zst")]
    kind = suffixes[-1] if suffixes else ""
    try:
        if kind == ".parquet":
            table = pq.read_table(file)
        elif kind in (".csv", ".tsv"):
            with pa.input_stream(file) as stream:
                table = csv.read_csv(stream, parse_options=csv.ParseOptions(delimiter="," if kind == ".csv" else "\t"))
        elif kind in (".jsonl", ".ndjson"):
            with pa.input_stream(file) as stream:
                table = json_lines.read_json(stream)
        else:
            raise DataError(f"{file}: a table of unknown kind {kind!r}. Give .csv, .tsv, .jsonl or .parquet.")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as {kind[1:]} ({error}). Give a table with named columns.") from error
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: column {twice[0]!r} occurs twice. Name each column once.")
    return table
