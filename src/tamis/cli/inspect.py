"""`tamis decontaminate`, `audit` and `diff`: what is in a pool, what must not be, what two results disagree about."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tamis.cli.build import Sources
from tamis.cli.show import Json, Quiet, emit, out, safe, table
from tamis.cli.steps import EngineName, Out, Reading, Writing, pairs, spread
from tamis.errors import DataError, UsageError


@spread
def decontaminate(
    common: Writing,
    pool: Annotated[
        list[str] | None, typer.Argument(metavar="PATH...", help="The pool; none with --self-test.")
    ] = None,
    out_folder: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the result.")] = None,
    queries: Annotated[Path | None, typer.Option(help="Test queries (BEIR lines) that must not be learnt.")] = None,
    positives: Annotated[
        list[str] | None, typer.Option(help="Judged answers that must not be learnt (may be given again).")
    ] = None,
    mark: Annotated[bool, typer.Option("--mark", help="Note what is contaminated, and keep it.")] = False,
    self_test: Annotated[bool, typer.Option("--self-test", help="Measure precision and recall on a fixture.")] = False,
    engine: EngineName = "local",
) -> None:
    """Drop documents that hold test queries or their answers.

    By 13-grams that are not common; --self-test says how sure that is. Exit code 1 when the self-test fails.
    """
    from tamis.ingestion.decontaminate import Decontaminate
    from tamis.pipeline import curate

    method = Decontaminate(action="mark" if mark else "drop")
    if self_test:
        _self_test(method, common.seed, json=common.json, quiet=common.quiet)
        return
    if not pool or out_folder is None or queries is None:
        raise UsageError("decontaminate needs PATH..., --out and --queries; or --self-test alone.")
    source = common.source(pool)
    with common.progress() as advance:
        found = curate.decontaminate(
            source,
            out_folder,
            queries,
            method,
            positives=positives or None,
            seed=common.seed,
            format=common.format_name,
            engine=engine,
            workers=common.workers,
            progress=advance,
        )
    common.show(found)


def _self_test(method: Any, seed: int, *, json: bool, quiet: bool) -> None:  # noqa: ANN401 - Decontaminate, lazily
    from tamis.ingestion.contamination_fixture import self_test

    found = self_test(method, seed=seed)
    rows = found.families.to_pylist()
    facts = {
        "precision": found.precision,
        "recall": found.recall,
        "control_precision": found.control_precision,
        "control_recall": found.control_recall,
        "passed": found.passed,
        "families": rows,
    }

    def human() -> None:
        shown = [
            (r["family"], "leak" if r["is_contaminated"] else "clean", r["num_docs"], r["num_flagged"]) for r in rows
        ]
        table(("family", "truth", "documents", "flagged"), [tuple(map(str, row)) for row in shown], right=(2, 3))
        out(
            f"precision {found.precision:.3f}, recall {found.recall:.3f}; as many random flags: "
            f"{found.control_precision:.3f}, {found.control_recall:.3f}"
        )

    emit(facts, json=json, quiet=quiet, human=human)
    if not found.passed:
        raise typer.Exit(1)


@spread
def audit(
    pool: Sources,
    out_folder: Out,
    common: Reading,
    target: Annotated[list[str] | None, typer.Option("--target", "-t", help="Documents of the kind you want.")] = None,
    queries: Annotated[Path | None, typer.Option(help="Queries (BEIR lines), for the query side.")] = None,
    tokenizer: Annotated[
        list[str] | None, typer.Option(help="NAME=tokenizer.json, to see how it fits (may be given again).")
    ] = None,
    no_near: Annotated[bool, typer.Option("--no-near", help="Do not look for near copies.")] = False,
    engine: EngineName = "local",
) -> None:
    """Report what is in a pool.

    Sources, lengths, languages, copies, what rules would drop, overlap with a target; as a page, Markdown and JSON.
    """
    from tamis.pipeline import auditing
    from tamis.pipeline.curation import Source

    source = common.source(pool)
    with common.progress() as advance:
        found = auditing.audit(
            source,
            out_folder,
            target=Source(tuple(target), source.fields) if target else None,
            queries=queries,
            tokenizers={name: Path(path) for name, path in pairs(tokenizer or [], "--tokenizer").items()},
            near=not no_near,
            seed=common.seed,
            engine=engine,
            workers=common.workers,
            progress=advance,
        )
    page = out_folder / "report" / "audit.html"

    def human() -> None:
        for finding in found.findings:
            out(safe(f"{finding.level}: {finding.text}"))
        out(f"report: {safe(str(page))}")

    facts = {"page": str(page), "findings": [finding.model_dump() for finding in found.findings]}
    emit(facts, json=common.json, quiet=common.quiet, ids=[str(page)], human=human)


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="An engine or a result of select, dedup, ...")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    min_score_change: Annotated[float, typer.Option(min=0, help="Tell of scores that moved by more.")] = 0.0,
    limit: Annotated[int, typer.Option(min=1, help="Rows shown; --json gives all.")] = 20,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show which documents two results decided about differently.

    Entered, left, another reason, another score. Exit code 1 when there is any difference.
    """
    from tamis.data import Ledger

    for folder in (first, second):
        if not (folder / "ledger").is_dir():
            raise DataError(f"{folder}: no ledger there. Give folders that tamis made (build, select, dedup, ...).")
    found = Ledger(first / "ledger").diff(Ledger(second / "ledger"), min_score_change=min_score_change)
    rows = found.to_pylist() if json or quiet else found.slice(0, limit).to_pylist()

    def human() -> None:
        names = found.column_names
        table(names, [tuple("" if row[n] is None else str(row[n]) for n in names) for row in rows])
        counts = {r["values"]: r["counts"] for r in found["change"].value_counts().to_pylist()}
        out(", ".join(f"{num:,} {name}" for name, num in sorted(counts.items())) or "no difference")

    emit(rows, json=json, quiet=quiet, ids=(row["doc_id"] for row in rows), human=human)
    if len(found):
        raise typer.Exit(1)
