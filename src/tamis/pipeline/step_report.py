"""What a step tells: report.json, its page for people, its tables and the records that could not be read.

Source: tamis design.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.data.artefact import Staging

if TYPE_CHECKING:
    from tamis.ingestion.pool import Pool
    from tamis.pipeline.curation import Decided

_SHOWN_REASONS = 20


def write_report(staging: Staging, pool: "Pool", decided: "Decided", about: Mapping[str, Any]) -> None:
    """Write the report of a step.

    Args:
      staging: of the folder.
      pool: what was read.
      decided: what was decided about it.
      about: step, settings and seed.
    """
    counts = {name: num for name, num in pool.counts.items() if num and name != "dropped"}
    counts["documents"] = int(decided.kept.sum())
    gone = pc.value_counts(decided.reasons.filter(pa.array(~decided.kept))).to_pylist()
    counts |= {f"dropped_{row['values']}": row["counts"] for row in sorted(gone, key=lambda r: r["values"])}
    facts = {**about, "counts": counts, "figures": dict(decided.figures), "notes": list(decided.notes)}
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    staging.write_bytes("report.json", orjson.dumps(facts, option=options) + b"\n")
    staging.write_bytes("report.md", markdown(facts).encode())
    staging.write_bytes("rejects.jsonl", pool.rejects.read_bytes())
    for name, table in decided.tables.items():
        with staging.create(f"{name}.parquet") as sink:
            pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    staging.counts |= counts


def markdown(facts: Mapping[str, Any]) -> str:
    """Return the report of a step for people."""
    counts, figures = facts["counts"], facts["figures"]
    lines = [f"# tamis {facts['step']}", "", f"{counts['documents']:,} of {counts['documents_read']:,} documents.", ""]
    lines += [f"- {_plain(note)}" for note in facts["notes"]] + ([""] if facts["notes"] else [])
    lines += ["| count | documents |", "| --- | --- |"]
    lines += [f"| {_plain(name)} | {num:,} |" for name, num in list(counts.items())[:_SHOWN_REASONS]]
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    if numbers:
        lines += ["", "| figure | value |", "| --- | --- |"]
        lines += [f"| {_plain(name)} | {value:,.6g} |" for name, value in numbers.items()]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Return text that stays in its table cell."""
    flat = " ".join(str(text).split())
    return flat.replace("|", "\\|").replace("<", "&lt;")
