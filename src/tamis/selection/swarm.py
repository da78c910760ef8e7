"""Swarm: the table of small runs a mixture law is fitted to; its checks, its files, and the design of a new one.

Source: Liu et al. 2024, RegMix, arXiv:2407.01492 (design of the mixtures); file layout of allenai/olmix
(``ratios.csv`` and ``metrics.csv``, joined on ``run_id``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
import xxhash
from pyarrow import csv
from pydantic import Field

from tamis.data import durable
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ops.hashing import splitmix64, text_keys, uniform

RUN_COLUMNS = ("run_id", "run", "index", "name")
"""What may name a run in a file, best first; never a domain or a slice."""
SUM_TOLERANCE = 0.02
"""Published tables round their weights to three places, so that a row of 17 may miss 1 by .008."""
_OVERSAMPLING = 100
_NEAR_EQUAL = 1e-5


def checked_weights(weights: np.ndarray, domains: Sequence[str] | None, what: str) -> np.ndarray:
    """Return mixtures as float64 [N, D] whose rows sum to 1 exactly.

    Args:
      weights: [N, D] or one mixture [D]; rows sum to 1 within SUM_TOLERANCE.
      domains: D names, for errors; None: columns are counted from 0.
      what: names the table in errors.

    Raises:
      DataError: another shape, a weight that is not finite or below 0, a row of another sum; names row and domain.
    """
    table_ND = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    if table_ND.ndim != 2 or table_ND.size == 0:
        raise DataError(f"{what}: weights of shape {np.shape(weights)}. Give [runs, domains].")
    if domains is not None and len(domains) != table_ND.shape[1]:
        raise DataError(f"{what}: {table_ND.shape[1]} weights a row for {len(domains)} domains. Give one a domain.")
    bad = np.argwhere(~(np.isfinite(table_ND) & (table_ND >= 0)))
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{what}: {len(bad)} weights are negative or not finite, first in row {row}, "
            f"domain {named(domains, column)}: {table_ND[row, column]}. Weights are shares from 0 to 1."
        )
    sums = table_ND.sum(axis=1)
    off = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(off):
        raise DataError(
            f"{what}: {len(off)} of {len(sums)} rows do not sum to 1, first row {off[0]}: {sums[off[0]]:.4f}. "
            "Divide each row by its sum, and look whether a domain's column is missing."
        )
    unit: np.ndarray = table_ND / sums[:, None]
    return unit


def checked_losses(losses: np.ndarray, num_runs: int, slices: Sequence[str] | None, what: str) -> np.ndarray:
    """Return losses as float64 [N, M], M = 1 for a vector.

    Raises:
      DataError: another number of runs, or a loss that is not finite; counts them by slice.
    """
    table = np.asarray(losses, dtype=np.float64)
    table_NM = table[:, None] if table.ndim == 1 else table
    if table_NM.ndim != 2 or len(table_NM) != num_runs or not table_NM.shape[1]:
        raise DataError(f"{what}: losses of shape {table.shape} for {num_runs} runs. Give one row a run.")
    if slices is not None and len(slices) != table_NM.shape[1]:
        raise DataError(f"{what}: {table_NM.shape[1]} losses a run for {len(slices)} slices. Give one a slice.")
    bad_NM = ~np.isfinite(table_NM)
    if bad_NM.any():
        counts = bad_NM.sum(axis=0)
        by_slice = ", ".join(f"{named(slices, m)}: {counts[m]}" for m in np.flatnonzero(counts).tolist())
        rows = np.flatnonzero(bad_NM.any(axis=1))
        raise DataError(
            f"{what}: {int(bad_NM.sum())} losses are not finite ({by_slice}), in {len(rows)} of {num_runs} runs, "
            f"first row {rows[0]}. Leave these runs out (Swarm.complete) or this slice."
        )
    return table_NM


def named(names: Sequence[str] | None, at: int) -> str:
    """Return a column's name for an error: quoted, or its number."""
    return repr(names[at]) if names is not None else str(at)


def run_keys(weights_ND: np.ndarray) -> np.ndarray:
    """uint64 [N]: a hash of each mixture that does not depend on the order of rows or domains."""
    ordered = np.ascontiguousarray(np.sort(np.round(weights_ND, 12), axis=1))
    digest = xxhash.xxh3_64_intdigest
    return np.array([digest(row.tobytes()) for row in ordered], dtype=np.uint64)


@dataclass(frozen=True)
class Swarm:
    """Runs of one small model, each on another mixture.

    Attributes:
      runs: N names.
      domains: D names.
      slices: M names of dev slices.
      weights: float64 [N, D], rows sum to 1.
      losses: float64 [N, M], lower is better; NaN where a run has no such loss.
    """

    runs: tuple[str, ...]
    domains: tuple[str, ...]
    slices: tuple[str, ...]
    weights: np.ndarray
    losses: np.ndarray

    @classmethod
    def read(cls, ratios: Path | str, metrics: Path | str) -> Self:
        """Read two CSV files with a run column (RUN_COLUMNS) in common; all other columns are domains, or slices.

        Raises:
          DataError: unreadable, no run column in common, a run twice or in one file only, weights refused.
        """
        left, right = _read_csv(ratios), _read_csv(metrics)
        run = next((c for c in RUN_COLUMNS if c in left.column_names and c in right.column_names), None)
        if run is None:
            raise DataError(
                f"{ratios} and {metrics}: no run column in common. Name it one of {', '.join(RUN_COLUMNS)} in both."
            )
        names, others = _runs(left, run, ratios), _runs(right, run, metrics)
        lonely = sorted(set(names) ^ set(others))
        if lonely:
            raise DataError(
                f"{ratios} and {metrics}: {len(lonely)} runs are in one file only, first {lonely[0]!r}. "
                "Give both files the same runs."
            )
        position = {name: row for row, name in enumerate(others)}
        domains = tuple(c for c in left.column_names if c not in RUN_COLUMNS)
        slices = tuple(c for c in right.column_names if c not in RUN_COLUMNS)
        weights = checked_weights(_matrix(left, domains, ratios), domains, str(ratios))
        losses = _matrix(right, slices, metrics)[[position[name] for name in names]]
        return cls(tuple(names), domains, slices, weights, losses)

    def complete(self) -> tuple[Self, tuple[str, ...]]:
        """Return the swarm without the runs that lack a loss, and their names."""
        good = np.isfinite(self.losses).all(axis=1)
        kept = tuple(run for run, is_good in zip(self.runs, good, strict=True) if is_good)
        lost = tuple(run for run, is_good in zip(self.runs, good, strict=True) if not is_good)
        return type(self)(kept, self.domains, self.slices, self.weights[good], self.losses[good]), lost

    def write(self, folder: Path | str) -> None:
        """Write ``ratios.csv`` and ``metrics.csv`` with a ``run_id`` column into an existing folder."""
        for name, columns, values in (
            ("ratios.csv", self.domains, self.weights),
            ("metrics.csv", self.slices, self.losses),
        ):
            table = pa.table({"run_id": pa.array(self.runs, pa.large_string())})
            for at, column in enumerate(columns):
                table = table.append_column(column, pa.array(values[:, at]))
            sink = pa.BufferOutputStream()
            csv.write_csv(table, sink)
            durable.write_bytes(Path(folder) / name, sink.getvalue().to_pybytes())


def _read_csv(path: Path | str) -> pa.Table:
    try:
        return csv.read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: {error}. Give a CSV file with a header.") from error


def _runs(table: pa.Table, column: str, path: Path | str) -> list[str]:
    names = [str(value) for value in table[column].to_pylist()]
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise DataError(f"{path}: run {twice!r} occurs twice in {column!r}. Give each run one row.")
    return names


def _matrix(table: pa.Table, columns: Sequence[str], path: Path | str) -> np.ndarray:
    if not columns:
        raise DataError(f"{path}: no column besides the runs' names. Give one a domain or slice.")
    try:
        values = [table[c].cast(pa.float64()).to_numpy() for c in columns]  # null becomes NaN: counted when fitted
    except pa.ArrowException as error:
        raise DataError(f"{path}: a column is no number: {error}. Keep only run names and numbers.") from error
    return np.column_stack(values).astype(np.float64)


class SwarmDesign(Settings):
    """Mixtures for a new swarm: Dirichlet draws around a flattened prior, of many strengths.

    The draws are keyed by the domains' names: another order of domains gives the same mixtures, and a larger
    swarm keeps the runs of a smaller one whose candidates it shares.

    Attributes:
      temperature: exponent that flattens the prior before drawing; the paper uses 0.5.
      min_strength: of the Dirichlet distribution, times the flattened prior; the paper uses 0.1 (few domains a run).
      max_strength: the paper uses 5 (all domains); 15 strengths are spaced evenly in their logarithm.
      max_upsampling: a weight above this times its prior is refused; the paper uses 15.
      min_weight: a weight below is set to 0; the paper uses 2e-4.
      corners: begin with the prior, then (when num_runs is above twice the domains) each domain alone.
    """

    method: Literal["swarm_design"] = "swarm_design"
    temperature: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_strength: Annotated[float, Field(gt=0)] = 0.1
    max_strength: Annotated[float, Field(gt=0)] = 5.0
    max_upsampling: Annotated[float, Field(ge=1)] = 15.0
    min_weight: Annotated[float, Field(ge=0, lt=0.5)] = 2e-4
    corners: bool = True

    def design(
        self, prior: np.ndarray, num_runs: int, *, seed: int, domains: Sequence[str] | None = None
    ) -> np.ndarray:
        """Return mixtures float64 [num_runs, D], distinct. About 4 ms a run at 17 domains.

        Args:
          prior: float64 [D], each domain's share of the data; sums to 1, none 0.
          num_runs: wanted, >= 1.
          seed: of the draws.
          domains: names that key the draws; None: their positions do.

        Raises:
          DataError: prior refused, or too few draws respect the bounds (says how many did).
        """
        prior_D = checked_prior(prior, domains)
        num_domains = len(prior_D)
        fixed = [prior_D] if self.corners else []
        if self.corners and num_runs > 2 * num_domains:
            fixed += list(np.eye(num_domains))
        flat_D = prior_D**self.temperature / (prior_D**self.temperature).sum()
        names = list(domains) if domains is not None else [str(at) for at in range(num_domains)]
        num_draws = _OVERSAMPLING * num_runs
        strengths = np.geomspace(self.min_strength, max(self.max_strength, self.min_strength), 15)
        strength_N = strengths[np.arange(num_draws) % 15]
        drawn_ND = dirichlet(strength_N[:, None] * flat_D, names, seed, "design")
        drawn_ND = drawn_ND[(drawn_ND <= np.minimum(self.max_upsampling * prior_D, 1)).all(axis=1)]
        drawn_ND = np.where(drawn_ND < self.min_weight, 0, drawn_ND)
        drawn_ND = drawn_ND[drawn_ND.sum(axis=1) > 0]
        found: list[np.ndarray] = list(fixed[:num_runs])
        for row in drawn_ND / drawn_ND.sum(axis=1, keepdims=True):
            if len(found) == num_runs:
                break
            if not found or np.abs(np.array(found) - row).sum(axis=1).min() > _NEAR_EQUAL:
                found.append(row)
        if len(found) < num_runs:
            raise DataError(
                f"design: only {len(found)} of {num_draws} draws respect max_upsampling {self.max_upsampling:g} "
                f"where {num_runs} runs are wanted. Raise max_upsampling or max_strength."
            )
        return np.array(found)


def checked_prior(prior: np.ndarray, domains: Sequence[str] | None) -> np.ndarray:
    """Return a prior float64 [D] that sums to 1.

    Raises:
      DataError: not a mixture, or a domain has none of it.
    """
    prior_D: np.ndarray = checked_weights(prior, domains, "prior")[0]
    empty = np.flatnonzero(prior_D == 0)
    if len(empty):
        raise DataError(
            f"prior: {len(empty)} domains have share 0, first {named(domains, int(empty[0]))}: every mixture with it "
            "is infinitely far. Leave the domain out, or give it its share of the data."
        )
    return prior_D


def dirichlet(alpha: np.ndarray, names: Sequence[str], seed: int, use: str) -> np.ndarray:
    """Draw Dirichlet mixtures float64 [N, D] by inverse gamma distribution functions, keyed by domain name and row.

    Args:
      alpha: float64 [N, D] > 0.
      names: D domains.
      seed: of the draws.
      use: a word; another word gives independent draws.
    """
    from scipy.special import gammaincinv, gammaln

    rows = splitmix64(np.arange(len(alpha), dtype=np.uint64))
    columns = text_keys(f"{use}\0{name}" for name in names)
    uniform_ND = uniform(splitmix64(rows[:, None] ^ columns), seed, "mixture")
    log_ND = np.full(alpha.shape, -np.inf)
    with np.errstate(divide="ignore"):
        log_ND = np.log(gammaincinv(alpha, uniform_ND))
    # below the smallest float the distribution function is x^alpha / Gamma(alpha + 1)
    small = np.log(uniform_ND) + gammaln(alpha + 1)
    log_ND = np.where(log_ND < -600, small / alpha, log_ND)
    drawn = np.exp(log_ND - log_ND.max(axis=1, keepdims=True))
    mixture: np.ndarray = drawn / drawn.sum(axis=1, keepdims=True)
    return mixture
