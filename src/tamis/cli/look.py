"""`tamis why`, `tamis verify` and `tamis doctor`: what happened, is it whole, what is this machine."""

from typing import Annotated

import typer

from tamis.cli.ask import EngineFolder
from tamis.cli.show import Json, Quiet, emit, out, safe, table


def why(
    engine: EngineFolder,
    doc_id: Annotated[str, typer.Argument(help="Id of a document that was read.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell a document's history: read, kept or dropped and why, made into queries, trained on, indexed."""
    from tamis.data import Ledger

    decisions = Ledger(engine / "ledger").why(doc_id)

    def human() -> None:
        rows = [
            (d["stage"], d["decision"], d["reason"], "" if d["score"] is None else f"{d['score']:.4g}", d["other_id"], d["method"])
            for d in decisions
        ]
        table(("stage", "decision", "reason", "score", "other", "method"), rows, right=(3,))

    emit(decisions, json=json, quiet=quiet, ids=[f"{d['stage']}:{d['decision']}" for d in decisions], human=human)


def verify(
    engine: EngineFolder,
    deep: Annotated[bool, typer.Option("--deep", help="Hash the contents too, not only names and sizes.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check an engine against its manifests; exit 1 and name every damaged, missing or foreign file."""
    from tamis.engine import verify as check_folder

    found = check_folder(engine, deep=deep)
    lines = found or [f"{engine}: whole" + ("" if deep else " (names and sizes; --deep hashes the contents)")]
    emit({"ok": not found, "problems": found}, json=json, quiet=quiet, ids=found, human=lambda: [out(safe(x)) for x in lines] and None)
    if found:
        raise typer.Exit(1)


def doctor(json: Json = False, quiet: Quiet = False) -> None:
    """Report versions, cores, memory, disk and which extras are installed."""
    from tamis.engine import environment

    facts = environment()
    emit(facts, json=json, quiet=quiet, human=lambda: table(("what", "here"), [(k, str(v)) for k, v in facts.items()]))
