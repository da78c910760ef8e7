"""`tamis why`, `tamis verify` and `tamis doctor`: what happened, is it whole, what is this machine."""

from pathlib import Path
from typing import Annotated

import typer

from tamis.cli.ask import EngineFolder
from tamis.cli.show import Json, Quiet, emit, out, safe, table
from tamis.errors import ArtefactError


def why(
    engine: EngineFolder,
    doc_id: Annotated[str, typer.Argument(metavar="DOC_ID", help="Id of a document that was read.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell a document's history.

    Whether it was read, kept or dropped and why, made into queries, trained on, indexed.
    """
    _require(engine)
    from tamis.data import Ledger

    decisions = Ledger(engine / "ledger").why(doc_id)

    def human() -> None:
        rows = [
            (
                d["stage"],
                d["decision"],
                d["reason"],
                "" if d["score"] is None else f"{d['score']:.4g}",
                d["other_id"],
                d["method"],
            )
            for d in decisions
        ]
        table(("stage", "decision", "reason", "score", "other", "method"), rows, right=(3,))
        out(f"{safe(doc_id)}: {len(decisions)} decisions")

    emit(decisions, json=json, quiet=quiet, ids=[f"{d['stage']}:{d['decision']}" for d in decisions], human=human)


def verify(
    engine: EngineFolder,
    deep: Annotated[bool, typer.Option("--deep", help="Hash the contents too, not only names and sizes.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check an engine's files against its manifests.

    Exit code 1 when a file is damaged, missing or foreign; each one is named.
    """
    _require(engine)
    from tamis.engine import verify as check_engine
    from tamis.pipeline.curation import STEP
    from tamis.pipeline.curation import verify as check_step

    found = (check_step if (engine / STEP).is_file() else check_engine)(engine, deep=deep)

    def human() -> None:
        for problem in found:
            out(safe(problem))
        if found:
            out(f"{safe(str(engine))}: {len(found)} problem(s). The command that built it repairs it.")
        else:
            out(f"{safe(str(engine))}: whole" + ("" if deep else " (names and sizes; --deep hashes the contents)"))

    emit({"ok": not found, "problems": found}, json=json, quiet=quiet, ids=found, human=human)
    if found:
        raise typer.Exit(1)


def _require(engine: Path) -> None:
    if not engine.is_dir():
        raise ArtefactError(f"{engine}: no such engine folder. Make one: tamis build PATH --out {engine}")
    if not any((engine / name).is_file() for name in ("recipe.toml", "step.json")):
        raise ArtefactError(
            f"{engine}: no engine (it holds no recipe.toml) and no result of a step (no step.json). "
            "Make one: tamis build PATH --out FOLDER"
        )


def doctor(json: Json = False, quiet: Quiet = False) -> None:
    """Report versions, cores, memory, disk, locks, extras.

    Exit code 1 when something would stop a build here; each such thing is named with its remedy.
    """
    from tamis.cli.machine import examine

    found = examine(Path.cwd())

    def human() -> None:
        table(("what", "here"), [(name, str(value)) for name, value in found.facts.items()])
        for kind, lines in (("note", found.notes), ("problem", found.problems)):
            for line in lines:
                out(safe(f"{kind}: {line}"))
        out(f"{len(found.problems)} problem(s)" if found.problems else "ready to build")

    emit(found.to_dict(), json=json, quiet=quiet, ids=found.problems, human=human)
    if found.problems:
        raise typer.Exit(1)
