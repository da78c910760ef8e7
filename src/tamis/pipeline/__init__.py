"""Pipeline: the only place that knows the order of the stages; finished ones are skipped."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tamis.pipeline.record import STAGES, Built, Progress, StageResult

if TYPE_CHECKING:
    from tamis.pipeline.outlook import Outlook
    from tamis.recipe import Recipe

__all__ = ["STAGES", "Built", "Progress", "StageResult", "build", "plan"]


def build(
    sources: Sequence[str] | str,
    out: Path | str,
    recipe: "Recipe | Path | str | None" = None,
    *,
    queries: Path | str | None = None,
    qrels: Path | str | None = None,
    workers: int = 1,
    force: Sequence[str] = (),
    allow_network: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Build an engine from documents: ingest, cut, synthesise, encode, tune, index, report.

    Calling it again continues where it stopped, and makes only what a change of input or settings asks for.

    Args:
      sources: folders, files or globs.
      out: the engine's folder.
      recipe: settings, or a TOML file of them; the defaults where it is None.
      queries: judged queries of your own (BEIR lines); they judge the engine and choose nothing.
      qrels: their judgements.
      workers: processes that read files; the result is the same for any number.
      force: names of stages to make again.
      allow_network: let an encoder id be downloaded.
      progress: called as progress(stage, done, total).

    Returns:
      What was made, and the verdict on its quality.

    Raises:
      DataError: the input was refused.
      RecipeError: settings that cannot be meant.
      LockedError: another process is writing the folder.
      ResourceError: the disk or the memory failed; the same call continues.
    """
    from tamis.pipeline.stages import Build
    from tamis.recipe import Recipe

    listed = [sources] if isinstance(sources, str) else [str(s) for s in sources]
    resolved = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else Recipe.load(recipe)
    judged = (Path(queries), Path(qrels)) if queries is not None and qrels is not None else None
    work = Build(listed, Path(out), resolved, judged, workers=workers, allow_network=allow_network, progress=progress)
    work.check(queries, qrels, force)
    return work.run(frozenset(force))


def plan(
    sources: Sequence[str] | str,
    out: Path | str,
    recipe: "Recipe | Path | str | None" = None,
    *,
    queries: Path | str | None = None,
    qrels: Path | str | None = None,
) -> "Outlook":
    """Say what `build` with the same arguments would do: stages, done or not, what they will take. Writes nothing."""
    from tamis.pipeline.outlook import look_ahead
    from tamis.recipe import Recipe

    listed = [sources] if isinstance(sources, str) else [str(s) for s in sources]
    resolved = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else Recipe.load(recipe)
    judged = (queries, qrels) if queries is not None and qrels is not None else None
    return look_ahead(listed, Path(out), resolved, judged)
