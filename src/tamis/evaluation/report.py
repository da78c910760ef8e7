"""Report: everything a build found out, as one page, as Markdown and as JSON.

Source: tamis design (method card E3). The three say the same; `report.json` loads back to an equal Report.

What may differ between two equal runs (times, the machine) stands between volatile marks in all three.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from tamis.data import Ledger
from tamis.data.artefact import Staging
from tamis.data.settings import Settings
from tamis.errors import DataError, RecipeError
from tamis.evaluation.cost import Cost
from tamis.evaluation.hubness import Hubness
from tamis.evaluation.judgement import Judgement
from tamis.evaluation.statistics import CorpusStatistics

FORMAT = 1
VOLATILE_FIELDS = ("environment", "stages")
_BEGIN, _END = "<!-- volatile -->", "<!-- /volatile -->"
MAX_EXAMPLE_CHARS = 160


class Choice(Settings):
    """One decision that was made for this corpus: what was tried, what was taken, and why.

    Attributes:
      name: what was decided ("fusion weight", "feedback").
      value: what was taken ("0.6 dense", "off").
      reason: why, with the figures it was decided on.
      used: False for a step that was left out because it did not help.
    """

    name: str
    value: str
    reason: str
    used: bool = True


class Drop(Settings):
    """Documents that did not go on, by stage and reason, with a few examples."""

    stage: str
    decision: str
    reason: str
    num_docs: int
    examples: tuple[str, ...] = ()


class LeakageCheck(Settings):
    """One check that nothing of the held-out part was learnt from."""

    name: str
    num_found: int
    num_checked: int
    limit: int = 0

    @property
    def passed(self) -> bool:
        """Whether no more was found than allowed."""
        return self.num_found <= self.limit


class Report(Settings):
    """What a build or an evaluation found out.

    Attributes:
      title: heading.
      judgements: the first is the headline (people's judgements where given, else pseudo-queries).
      choices: decisions made for this corpus.
      corpus: statistics of the documents that are searched.
      drops: what did not go on, and why.
      leakage: checks of the held-out part.
      hubness: of the engine's run on the headline's queries.
      notes: further sentences for the reader.
      environment: versions and machine; ``stages`` what each stage took: both volatile.
    """

    title: str = "Search quality report"
    judgements: tuple[Judgement, ...] = ()
    choices: tuple[Choice, ...] = ()
    corpus: CorpusStatistics | None = None
    drops: tuple[Drop, ...] = ()
    leakage: tuple[LeakageCheck, ...] = ()
    hubness: Hubness | None = None
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    stages: tuple[Cost, ...] = ()

    @property
    def headline(self) -> Judgement | None:
        """The judgement that the report begins with."""
        return self.judgements[0] if self.judgements else None

    def to_json(self) -> bytes:
        """Return the report as JSON; no text in it can be taken for a tag or a volatile mark."""
        values = self.model_dump(mode="json")
        stable = {"format": FORMAT} | {k: v for k, v in values.items() if k not in VOLATILE_FIELDS}
        volatile = {k: values[k] for k in VOLATILE_FIELDS}
        parts = [_safe_json(part)[1:-2].rstrip(b"\n") for part in (stable, volatile)]
        marks = [
            orjson.dumps({name: mark})[1:-1] for name, mark in (("volatile_begins", _BEGIN), ("volatile_ends", _END))
        ]
        return b"{" + parts[0] + b",\n  " + marks[0] + b"," + parts[1] + b",\n  " + marks[1] + b"\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "report.json") -> Self:
        """Load what `to_json` returned.

        Raises:
          DataError: no JSON of a report, or of a newer format.
        """
        try:
            values = orjson.loads(text)
            found = values.pop("format")
            if found != FORMAT:
                raise DataError(f"{where}: format {found!r}, this reads {FORMAT}. Use the tamis that made it.")
            values = {k: v for k, v in values.items() if k not in {"volatile_begins", "volatile_ends"}}
            return super().from_json(orjson.dumps(values), where)
        except (ValueError, KeyError, AttributeError, TypeError, RecipeError) as error:
            raise DataError(f"{where}: not a report ({error}).") from error

    def to_html(self) -> str:
        """Return one self-contained page: no script, no request, everything escaped."""
        from tamis.evaluation.render import html

        return html(self)

    def to_markdown(self) -> str:
        """Return the report as Markdown, everything escaped."""
        from tamis.evaluation.render import markdown

        return markdown(self)

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame of its own."""
        from markupsafe import escape

        return f'<iframe sandbox style="width:100%;height:42rem;border:0" srcdoc="{escape(self.to_html())}"></iframe>'

    def write(self, staging: Staging, per_query: pa.Table | None = None) -> None:
        """Write report.html, report.md, report.json (and per_query.parquet) into a staging folder."""
        for name, data in {
            "report.html": self.to_html().encode(),
            "report.md": self.to_markdown().encode(),
            "report.json": self.to_json(),
        }.items():
            staging.write_bytes(name, data)
            staging.volatile_files.add(name)
        if per_query is not None:
            with staging.create("per_query.parquet") as sink:
                pq.write_table(per_query, sink, compression="zstd", write_page_checksum=True)

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """Load the report of a folder.

        Raises:
          DataError: no report there, or it cannot be read.
        """
        path = Path(folder) / "report.json"
        try:
            return cls.from_json(path.read_bytes(), str(path))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}. Give a folder with a report.json.") from error


def drops(
    ledger: Ledger, *, decisions: Sequence[str] = ("dropped", "rejected", "grouped"), num_examples: int = 3
) -> tuple[Drop, ...]:
    """Collect from the ledger what did not go on: counts by stage and reason, and the first ids in byte order.

    O(decisions), one file at a time.
    """
    totals: dict[tuple[str, str, str], int] = {}
    examples: dict[tuple[str, str, str], list[str]] = {}
    columns = ["doc_id", "stage", "decision", "reason"]
    for stage in ledger.stages():
        for file in sorted(stage.glob("part-*.parquet")):
            table = pq.read_table(file, columns=columns, page_checksum_verification=True)
            chosen = table.filter(pc.is_in(table["decision"], pa.array(decisions, table.schema.field("decision").type)))
            for group in chosen.group_by(columns[1:]).aggregate([("doc_id", "list")]).to_pylist():
                key = (group["stage"], group["decision"], group["reason"])
                totals[key] = totals.get(key, 0) + len(group["doc_id_list"])
                found = examples.get(key, []) + group["doc_id_list"]
                examples[key] = sorted(found, key=str.encode)[:num_examples]
    return tuple(
        Drop(stage=key[0], decision=key[1], reason=key[2], num_docs=count, examples=tuple(examples[key]))
        for key, count in sorted(totals.items(), key=lambda item: (item[0][0], -item[1], item[0]))
    )


def _safe_json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
