"""Audit: everything there is to know of a pool before learning from it, as one page, as Markdown and as JSON.

Source: tamis design (method cards E1, E2, E3 and K8). The three say the same; audit.json loads back to an equal report.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
import orjson
import pyarrow as pa
from pydantic import Field

from tamis.data import Qrels, Queries, Run
from tamis.data.artefact import Staging
from tamis.data.corpus import Documents
from tamis.data.settings import Settings
from tamis.errors import DataError, RecipeError
from tamis.evaluation.corpus_report import CorpusFacts, CorpusReport, snippet
from tamis.evaluation.coverage import QueryCoverage
from tamis.evaluation.findings import Finding, findings
from tamis.evaluation.overlap import OverlapFacts, TargetOverlap
from tamis.evaluation.slices import SliceFacts, Slices, dropping
from tamis.evaluation.tokenizer_fit import TokenizerFacts, TokenizerFit
from tamis.ops.hashing import array_keys, draws
from tamis.ops.text import joined

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 1


class NearDuplicates(Settings):
    """What a near-duplicate search found, handed in: this room runs none.

    Attributes:
      jaccard: similarity from which two documents count as near-duplicates.
      num_docs: documents that have one; ``num_groups`` groups; ``num_removable`` beyond the one kept of each.
    """

    jaccard: float
    num_docs: int
    num_groups: int
    num_removable: int


class DroppedDocument(Settings):
    """A dropped document as an example; "" as text where it is not in the pool."""

    doc_id: str
    text: str


class DropExamples(Settings):
    """Documents dropped by one stage for one reason, and a few of them drawn by their ids."""

    stage: str
    reason: str
    num_docs: int
    examples: tuple[DroppedDocument, ...]


class SourceTable(Settings):
    """Figures by source that were handed in: column names, and for each source its values (None unknown)."""

    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]


class AuditReport(Settings):
    """What an audit found; parts that were not asked for are None or empty.

    Attributes:
      title: heading.
      facts: the pool itself.
      overlap: with the target; ``target`` the target itself.
      slices: what filters dropped, by slice, and the age check.
      near: near-duplicates, as handed in; ``quality`` figures by source, as handed in.
      tokenizers: how tokenizers fit.
      drops: examples by reason.
    """

    title: str
    facts: CorpusFacts
    target: CorpusFacts | None = None
    overlap: OverlapFacts | None = None
    slices: SliceFacts | None = None
    near: NearDuplicates | None = None
    quality: SourceTable | None = None
    tokenizers: TokenizerFacts | None = None
    drops: tuple[DropExamples, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is worth a look, most pressing first; each follows from the figures."""
        return findings(self)

    def to_json(self) -> bytes:
        """Return the report as JSON; no text in it can be taken for a tag."""
        values = {"format": FORMAT, "findings": [f.model_dump() for f in self.findings]} | self.model_dump(mode="json")
        found = orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        return found.replace(b"<", b"\\u003c").replace(b">", b"\\u003e")

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "audit.json") -> Self:
        """Load what `to_json` returned.

        Raises:
          DataError: no JSON of an audit, or of a newer format.
        """
        try:
            values = orjson.loads(text)
            found = values.pop("format")
            values.pop("findings")
            if found != FORMAT:
                raise DataError(f"{where}: format {found!r}, this reads {FORMAT}. Use the tamis that made it.")
            return super().from_json(orjson.dumps(values), where)
        except (ValueError, KeyError, AttributeError, TypeError, RecipeError) as error:
            raise DataError(f"{where}: not an audit ({error}).") from error

    def to_html(self) -> str:
        """Return one self-contained page: no script, no request, everything escaped."""
        from tamis.evaluation.audit_render import html

        return html(self)

    def to_markdown(self) -> str:
        """Return the report as Markdown, everything escaped."""
        from tamis.evaluation.audit_render import markdown

        return markdown(self)

    def write(self, staging: Staging) -> None:
        """Write audit.html, audit.md and audit.json into a staging folder; nothing in them is volatile."""
        staging.write_bytes("audit.html", self.to_html().encode())
        staging.write_bytes("audit.md", self.to_markdown().encode())
        staging.write_bytes("audit.json", self.to_json())

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """Load the audit of a folder.

        Raises:
          DataError: no audit there, or it cannot be read.
        """
        path = Path(folder) / "audit.json"
        try:
            return cls.from_json(path.read_bytes(), str(path))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}. Give a folder with an audit.json.") from error


class Audit(Settings):
    """Put the reports together; each part's settings are its own.

    Attributes:
      corpus: counts, samples and densities.
      slices: drop rates and measures by slice.
      overlap: with the target.
      tokenizer: how tokenizers fit.
      num_examples: dropped documents shown for each reason.
    """

    method: Literal["audit"] = "audit"
    corpus: CorpusReport = CorpusReport()
    slices: Slices = Slices()
    overlap: TargetOverlap = TargetOverlap()
    tokenizer: TokenizerFit = TokenizerFit()
    num_examples: Annotated[int, Field(ge=0, le=100)] = 3

    def report(
        self,
        corpus: Documents,
        *,
        seed: int,
        title: str = "Corpus audit",
        target: Documents | None = None,
        queries: Queries | None = None,
        query_dates: Sequence[str] = (),
        decisions: pa.Table | None = None,
        scores: pa.Table | None = None,
        near: NearDuplicates | None = None,
        quality: pa.Table | None = None,
        tokenizers: "Mapping[str, Tokenizer | Path | str] | None" = None,
        runs: Mapping[str, Run] | None = None,
        qrels: Qrels | None = None,
    ) -> AuditReport:
        """Read the pool two to six times, by what is asked; memory does not grow with its texts.

        Args:
          corpus: the pool, before any filter.
          seed: of every sample.
          title: heading of the page.
          target: documents of the kind that is wanted, for the overlap.
          queries: for the query side.
          query_dates: ISO 8601 dates of queries, for the age warning.
          decisions: what was dropped and why: a sieve's dropped table or a ledger's rows.
          scores: columns doc_id and score, one row a document.
          near: figures of a near-duplicate search.
          quality: column source and any columns of numbers, one row a source.
          tokenizers: name -> tokenizer or path of a tokenizer.json.
          runs: name -> run, with qrels, for measures by slice.
          qrels: judgements of the runs.

        Raises:
          DataError: the pool or the target is empty, or an argument's table lacks a column.
        """
        if not len(corpus):
            raise DataError("audit: the pool has no documents. Give one with at least one document.")
        facts = self.corpus.report(corpus, queries, seed=seed)
        coverage = None
        if runs and queries is not None and len(queries):
            coverage = QueryCoverage(queries, facts.sample.language).read(corpus).classes()
        return AuditReport(
            title=title,
            facts=facts,
            target=self.corpus.report(target, seed=seed) if target is not None and len(target) else None,
            overlap=self.overlap.report(corpus, target, seed=seed) if target is not None else None,
            slices=self.slices.report(
                corpus, decisions, runs, qrels, seed=seed, scores=scores, query_dates=query_dates, coverage=coverage
            ),
            near=near,
            quality=_source_table(quality) if quality is not None else None,
            tokenizers=self.tokenizer.report(corpus, tokenizers, seed=seed) if tokenizers else None,
            drops=drop_examples(corpus, decisions, self.num_examples, seed=seed) if decisions is not None else (),
        )


def drop_examples(corpus: Documents, decisions: pa.Table, num_examples: int, *, seed: int) -> tuple[DropExamples, ...]:
    """Draw examples for every stage and reason, by the documents' ids: the same for any order of rows.

    Raises:
      DataError: the decisions have no column doc_id or reason.
    """
    grouped = dropping(decisions).group_by(["stage", "reason"]).aggregate([("doc_id", "distinct")])
    chosen: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for row in grouped.to_pylist():
        ids = pa.array(row["doc_id_distinct"], pa.large_string())
        order = np.argsort(draws(array_keys(ids), seed, "sample"), kind="stable")[:num_examples]
        chosen[row["stage"], row["reason"]] = (len(ids), ids.take(pa.array(order)).to_pylist())
    texts = _texts_of(corpus, sorted({doc_id for _, ids in chosen.values() for doc_id in ids}))
    ranked = sorted(chosen.items(), key=lambda item: (item[0][0], -item[1][0], item[0][1]))
    return tuple(
        DropExamples(
            stage=stage,
            reason=reason,
            num_docs=count,
            examples=tuple(DroppedDocument(doc_id=doc_id, text=texts.get(doc_id, "")) for doc_id in ids),
        )
        for (stage, reason), (count, ids) in ranked
    )


def _texts_of(corpus: Documents, doc_ids: Sequence[str]) -> dict[str, str]:
    import pyarrow.compute as pc

    wanted = pa.array(doc_ids, pa.large_string())
    found: dict[str, str] = {}
    for batch in corpus.batches(["doc_id", "title", "text"]) if len(wanted) else ():
        rows = batch.filter(pc.is_in(batch.column("doc_id"), value_set=wanted))
        if len(rows):
            texts = map(snippet, joined(rows).to_pylist())
            found.update(zip(rows.column("doc_id").to_pylist(), texts, strict=True))
    return found


def _source_table(table: pa.Table) -> SourceTable:
    if "source" not in table.column_names:
        raise DataError(f"quality: no column 'source' (has: {', '.join(table.column_names)}). Give one row a source.")
    names = [n for n in table.column_names if n != "source" and _is_number(table.schema.field(n).type)]
    columns = [table[name].cast(pa.float64()).to_pylist() for name in names]
    rows = dict(zip(table["source"].to_pylist(), zip(*columns, strict=True), strict=True)) if names else {}
    if names and len(rows) != len(table):
        raise DataError("quality: a source has more than one row. Give one row a source.")
    finite = {
        str(source): tuple(v if v is not None and np.isfinite(v) else None for v in row) for source, row in rows.items()
    }
    return SourceTable(columns=tuple(names), rows=dict(sorted(finite.items())))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
