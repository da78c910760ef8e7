"""Runs: the tables of small trainings that a mixture is fitted to, as people have them.

Source: tamis design; two files as allenai/olmix and RegMix publish them.
"""

import fnmatch
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tamis.errors import DataError, UsageError
from tamis.selection.swarm import RUN_COLUMNS, Swarm, checked_weights


def read_swarm(
    paths: Sequence[Path | str], tables: Sequence[pa.Table], metrics: Sequence[str], domains: Sequence[str]
) -> Swarm:
    """Return the runs, with the metrics and domains that were asked for.

    Args:
      paths: one table, or CSV files of weights and of losses with a run column in common.
      tables: their content.
      metrics: columns, or shell patterns of columns, with losses; needed for one table.
      domains: columns with weights; the others where none is named.

    Raises:
      UsageError: no such column, no metric, or three files.
      DataError: a run twice, a cell that is no number, or weights that do not sum to 1.
    """
    if len(tables) == 2:
        swarm = Swarm.read(*paths)
        if domains:
            raise UsageError("--domain: with two files all columns of the first are domains. Leave it out.")
        names = _columns(swarm.slices, metrics or ["*"], "--metric")
        chosen = [swarm.slices.index(name) for name in names]
        return Swarm(swarm.runs, swarm.domains, tuple(names), swarm.weights, swarm.losses[:, chosen])
    if len(tables) != 1:
        raise UsageError(f"{len(tables)} files of runs. Give one table, or two: weights and losses.")
    names, own, weights_ND, losses_NM, runs = parted(tables[0], metrics, domains)
    try:
        unit_ND = checked_weights(weights_ND, own, str(paths[0]))
    except DataError as error:
        raise DataError(
            f"{error} Taken as domains: {', '.join(own[:8])}{' ...' if len(own) > 8 else ''} ({len(own)}). If one is "
            "none, name the domains with --domain."
        ) from None
    return Swarm(tuple(runs), tuple(own), tuple(names), unit_ND, losses_NM)


def parted(
    table: pa.Table, metrics: Sequence[str], domains: Sequence[str]
) -> tuple[list[str], list[str], np.ndarray, np.ndarray, list[str]]:
    """Return metrics, domains, values [N, D] and [N, M] (NaN where there is none) and names of one table's runs."""
    run = next((name for name in (*RUN_COLUMNS, "model") if name in table.column_names), None)
    rest = [name for name in table.column_names if name != run]
    if not metrics:
        raise UsageError(f"--metric is missing: which of {', '.join(rest)} holds the loss, lower is better?")
    names = _columns(rest, metrics, "--metric")
    others = [name for name in rest if name not in names]
    own = _columns(others, domains, "--domain") if domains else others
    if not own:
        raise DataError("the table has no column but metrics. Give each domain a column.")
    runs = [str(value) for value in table[run].to_pylist()] if run else [str(row) for row in range(len(table))]
    twice = next((name for at, name in enumerate(runs) if name in runs[:at]), None)
    if twice is not None:
        raise DataError(f"run {twice!r} occurs twice in column {run!r}. Give each run one row.")
    return names, own, _numbers(table, own), _numbers(table, names), runs


def _columns(names: Sequence[str], patterns: Sequence[str], option: str) -> list[str]:
    """Return the names that are, or match, one of the patterns; each pattern matches one at least."""
    found: list[str] = []
    for pattern in patterns:
        hits = [pattern] if pattern in names else [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            raise UsageError(f"{option} {pattern!r}: no such column. There are {', '.join(names)}.")
        found += [name for name in hits if name not in found]
    return found


def _numbers(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Return float64 [N, len(names)], null as NaN."""
    columns = []
    for name in names:
        try:
            columns.append(table[name].cast(pa.float64()).to_numpy())
        except pa.ArrowException as error:
            raise DataError(f"column {name!r} is no number ({error}). Name the domains with --domain.") from error
    return np.column_stack(columns)
