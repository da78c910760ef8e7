"""Judge a finished engine, or any TREC run, beside the controls that are always run."""

from collections.abc import Sequence
from pathlib import Path

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.errors import UsageError
from tamis.evaluation import Judge, Judgement, random_run
from tamis.search.index import Mode, SearchIndex

ENGINE = "tamis"
CONTROLS = ("BM25", "encoder alone", "untuned fusion", "random")
_MODES: dict[str, Mode] = {ENGINE: "hybrid", "BM25": "bm25", "encoder alone": "dense", "untuned fusion": "rrf"}


def system_runs(index: SearchIndex, queries: Queries, corpus: Corpus, *, k: int, seed: int) -> dict[str, Run]:
    """Search the same queries with the engine and every control: name -> run over documents."""
    runs = {name: index.search(queries, k, mode=mode) for name, mode in _MODES.items()}
    runs["random"] = random_run(queries.ids, corpus.doc_ids, k=k, seed=seed)
    return runs


def judge(
    target: Path | str,
    *,
    qrels: Path | str,
    queries: Path | str | None = None,
    measures: Sequence[str] = ("nDCG@10", "R@100"),
    k: int = 100,
    seed: int = 0,
) -> Judgement:
    """Measure an engine folder (with its controls) or a TREC run file.

    Args:
      target: engine folder, or TREC run.
      qrels: judgements, BEIR TSV or TREC.
      queries: BEIR queries; needed for an engine.
      measures: ir_measures names, the main one first.
      k: depth of the engine's rankings.
      seed: of the bootstrap and the randomisation test.

    Raises:
      UsageError: an engine without queries.
      DataError: a file that cannot be read, or no judged query.
    """
    judgements = Qrels.read(qrels)
    asked = Queries.read(queries) if queries is not None else None
    path = Path(target)
    if path.is_dir():
        if asked is None:
            raise UsageError(f"{path} is an engine: give --queries too, the texts that were judged.")
        from tamis.engine import Engine

        engine = Engine(path)
        runs = system_runs(engine.index, asked, engine.corpus, k=k, seed=seed)
        return Judge(measures=tuple(measures)).judge(runs, ENGINE, judgements, seed=seed, queries=asked)
    runs = {path.name: Run.read_trec(path)}
    return Judge(measures=tuple(measures)).judge(runs, path.name, judgements, seed=seed, queries=asked)


def compare_runs(
    first: Path | str, second: Path | str, *, qrels: Path | str, measures: Sequence[str] = ("nDCG@10",), seed: int = 0
) -> Judgement:
    """Compare TREC run ``second`` with the baseline ``first``, query by query.

    Raises:
      UsageError: both paths are the same file.
      DataError: a file that cannot be read, or no judged query.
    """
    paths = [Path(first), Path(second)]
    names = [p.name for p in paths] if paths[0].name != paths[1].name else [str(p) for p in paths]
    if names[0] == names[1]:
        raise UsageError(f"both runs are {names[0]}: give two files.")
    runs = {names[1]: Run.read_trec(second), names[0]: Run.read_trec(first)}
    return Judge(measures=tuple(measures)).judge(runs, names[1], Qrels.read(qrels), seed=seed)
