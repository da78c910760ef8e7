"""D-CPT law: loss against the share of domain text and the tokens trained on; how much general text to mix in.

Source: Que et al. 2024, D-CPT Law, arXiv:2406.01375; downstream test: Isik et al. 2024, Scaling Laws for Downstream
Task Performance, arXiv:2402.04177.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.data.settings import Settings
from tamis.errors import DataError, UsageError
from tamis.ops.hashing import uniform

Columns: TypeAlias = dict[str, np.ndarray]
_NAMES = ("E", "B", "eta", "beta", "C", "gamma", "eps", "A", "alpha")
"""Parameters of L = E + A/N^alpha + B·r^eta/D^beta + C/(r + eps)^gamma, all above 0; A and alpha only with sizes."""
_MIN_PILOTS, _MIN_RATIOS = 12, 4
_NUM_FINALISTS = 10
_FIRST_STEPS, _LAST_STEPS = 40, 300
_EXPONENTS = (0.02, 3.0)
_EPS = (1e-3, 0.5)


@dataclass(frozen=True)
class FittedRatioLaw:
    """A fitted law and how well it predicts a ratio it has not seen.

    Attributes:
      parameters: by name, see the paper; "A" and "alpha" are absent where pilots have one size.
      ratios: distinct shares of the pilots, ascending.
      max_tokens: most tokens of a pilot.
      errors: mean absolute error on the pilots of a left-out ratio: "law", and the controls "nearest_ratio" (pilots of
        the nearest ratio, interpolated in log tokens) and "quadratic" (in the ratio, plus log tokens).
      max_extrapolation: tokens beyond this times max_tokens are refused.
    """

    parameters: dict[str, float]
    ratios: np.ndarray
    max_tokens: float
    errors: dict[str, float]
    max_extrapolation: float

    def predict(
        self, num_tokens: np.ndarray | float, ratio: np.ndarray | float, num_params: np.ndarray | float | None = None
    ) -> np.ndarray:
        """Return losses, shaped as the arguments broadcast.

        Args:
          num_tokens: trained on, above 0.
          ratio: share of the domain whose loss is modelled, 0 to 1.
          num_params: of the model; needed if the pilots had sizes, else refused.

        Raises:
          UsageError: a ratio outside 0 to 1, too many tokens, num_params missing or superfluous.
        """
        tokens, share = np.asarray(num_tokens, np.float64), np.asarray(ratio, np.float64)
        if ((share < 0) | (share > 1)).any() or (tokens <= 0).any():
            raise UsageError("ratio law: give ratios from 0 to 1 and tokens above 0.")
        if tokens.max() > self.max_extrapolation * self.max_tokens:
            raise UsageError(
                f"ratio law: {tokens.max():g} tokens, and the longest pilot has {self.max_tokens:g}. "
                f"At most {self.max_extrapolation:g} times as many: run longer pilots."
            )
        if (num_params is None) == ("A" in self.parameters):
            raise UsageError("ratio law: give num_params if the pilots had them, and only then.")
        p = self.parameters
        loss: np.ndarray = p["E"] + p["B"] * share ** p["eta"] / tokens ** p["beta"]
        loss = loss + p["C"] / (share + p["eps"]) ** p["gamma"]
        return loss if num_params is None else loss + p["A"] / np.asarray(num_params, np.float64) ** p["alpha"]


class DCPTLaw(Settings):
    """Fit the law to pilots of one loss: 12 or more, at 4 or more ratios.

    Attributes:
      num_starts: keyed random starts; the ten best are compared by their error on left-out ratios.
      delta: loss at which a residual begins to count linearly (soft L1).
      max_extrapolation: how many times the longest pilot's tokens may be predicted.
    """

    method: Literal["dcpt_law"] = "dcpt_law"
    num_starts: Annotated[int, Field(ge=1)] = 100
    delta: Annotated[float, Field(gt=0)] = 0.02
    max_extrapolation: Annotated[float, Field(ge=1)] = 10.0

    def fit(self, pilots: pa.Table, *, seed: int) -> FittedRatioLaw:
        """Fit. About 2 s for 20 pilots and 100 starts.

        Args:
          pilots: num_tokens, ratio (0 to 1, of the domain whose loss it is), loss, and num_params if sizes differ.
          seed: of the starts.

        Raises:
          DataError: a column missing, values not finite or out of range, too few pilots or ratios.
        """
        columns = _pilots(pilots)
        best: tuple[float, np.ndarray] | None = None
        starts = _starts(columns, self.num_starts, seed)
        found = sorted((self._solve(columns, start, _FIRST_STEPS) for start in starts), key=lambda result: result[0])
        for _, rough in found[:_NUM_FINALISTS]:
            _, theta = self._solve(columns, rough, _LAST_STEPS)
            error = self._left_out(columns, theta)
            if best is None or error < best[0]:
                best = (error, theta)
        if best is None:
            raise DataError("ratio law: no start led to a fit. Look at the pilots' losses.")
        errors = {"law": best[0], "nearest_ratio": _nearest(columns), "quadratic": _quadratic(columns)}
        return FittedRatioLaw(
            _unscaled(best[1], columns),
            np.unique(columns["ratio"]),
            float(columns["num_tokens"].max()),
            errors,
            self.max_extrapolation,
        )

    def _solve(self, columns: Columns, start: np.ndarray, max_steps: int) -> tuple[float, np.ndarray]:
        from scipy.optimize import least_squares

        low, high = _bounds(columns)

        def residuals(theta: np.ndarray) -> np.ndarray:
            errors: np.ndarray = _losses(theta, columns)[0] - columns["loss"]
            return errors

        found = least_squares(
            residuals,
            np.clip(start, low + 1e-6, high - 1e-6),
            jac=lambda theta: _losses(theta, columns)[1],
            bounds=(low, high),
            loss="soft_l1",
            f_scale=self.delta,
            max_nfev=max_steps,
        )
        return float(found.cost), np.asarray(found.x)

    def _left_out(self, columns: Columns, theta: np.ndarray) -> float:
        def predict(learn: Columns, held: Columns) -> np.ndarray:
            _, fitted = self._solve(learn, theta, _FIRST_STEPS)
            return _losses(fitted, held)[0]

        return _left_out_error(columns, predict)


def _pilots(table: pa.Table) -> Columns:
    """Return the columns, tokens and sizes also relative to their geometric means (as log_tokens, log_params)."""
    columns = {}
    for name in ("num_tokens", "ratio", "loss", "num_params"):
        if name not in table.column_names:
            if name == "num_params":
                continue
            raise DataError(f"pilots: no column {name!r} (has: {', '.join(table.column_names)}).")
        columns[name] = table[name].cast(pa.float64()).to_numpy()
        bad = ~np.isfinite(columns[name])
        bad |= (columns[name] < 0) | (columns[name] > 1) if name == "ratio" else columns[name] <= 0
        if bad.any():
            raise DataError(
                f"pilots: {int(bad.sum())} values of {name} are missing or out of range, first in row "
                f"{int(np.argmax(bad))}: {columns[name][bad][0]}. Ratios lie in [0, 1], all else above 0."
            )
    num_pilots, num_ratios = len(columns["loss"]), len(np.unique(columns["ratio"]))
    if num_pilots < _MIN_PILOTS or num_ratios < _MIN_RATIOS:
        raise DataError(
            f"pilots: {num_pilots} at {num_ratios} ratios; the law has 7 to 9 parameters. "
            f"Give {_MIN_PILOTS} or more at {_MIN_RATIOS} or more ratios."
        )
    for name, log_name in (("num_tokens", "log_tokens"), ("num_params", "log_params")):
        if name in columns:
            logs = np.log(columns[name])
            columns[log_name], columns[f"{log_name}_mean"] = logs - logs.mean(), np.full(num_pilots, logs.mean())
    if "num_params" in columns and len(np.unique(columns["num_params"])) == 1:
        del columns["num_params"], columns["log_params"]
    return columns


def _losses(theta: np.ndarray, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return losses [n] and their derivatives [n, P] by the logarithms of the parameters."""
    floor, data, eta, beta, scarce, gamma, eps = np.exp(theta[:7])
    ratio, log_tokens = columns["ratio"], columns["log_tokens"]
    log_ratio = np.log(np.maximum(ratio, 1e-300))
    learnt = data * ratio**eta * np.exp(-beta * log_tokens)
    lacking = scarce / (ratio + eps) ** gamma
    parts = [
        np.full(len(ratio), floor),
        learnt,
        eta * log_ratio * learnt,
        -beta * log_tokens * learnt,
        lacking,
        -gamma * np.log(ratio + eps) * lacking,
        -gamma * eps / (ratio + eps) * lacking,
    ]
    loss = floor + learnt + lacking
    if "log_params" in columns:
        size, alpha = np.exp(theta[7:9])
        small = size * np.exp(-alpha * columns["log_params"])
        parts += [small, -alpha * columns["log_params"] * small]
        loss = loss + small
    return loss, np.column_stack(parts)


def _bounds(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    scale, exponent = (1e-6 * columns["loss"].max(), 10 * columns["loss"].max()), _EXPONENTS
    pairs = [scale, scale, exponent, exponent, scale, exponent, _EPS]
    if "log_params" in columns:
        pairs += [scale, exponent]
    low, high = np.log(np.array(pairs)).T
    return low, high


def _starts(columns: Columns, num_starts: int, seed: int) -> np.ndarray:
    """Return starts [num_starts, P]: log-uniform, scales between 1 % and 100 % of the lowest loss."""
    low, high = _bounds(columns)
    scales = [at for at, name in enumerate(_NAMES[: len(low)]) if name in {"E", "A", "B", "C"}]
    low[scales], high[scales] = np.log(0.01 * columns["loss"].min()), np.log(columns["loss"].min())
    keys = np.arange(num_starts * len(low), dtype=np.uint64)
    starts: np.ndarray = low + (high - low) * uniform(keys, seed, "mixture").reshape(num_starts, len(low))
    return starts


def _unscaled(theta: np.ndarray, columns: Columns) -> dict[str, float]:
    values = dict(zip(_NAMES[: len(theta)], np.exp(theta).tolist(), strict=True))
    values["B"] *= float(np.exp(values["beta"] * columns["log_tokens_mean"][0]))
    if "A" in values:
        values["A"] *= float(np.exp(values["alpha"] * columns["log_params_mean"][0]))
    return values


def _left_out_error(columns: Columns, predict: Callable[[Columns, Columns], np.ndarray]) -> float:
    """Return the mean absolute error on the pilots of each ratio, predicted from the others."""
    errors = np.empty(len(columns["loss"]))
    for ratio in np.unique(columns["ratio"]):
        held = columns["ratio"] == ratio
        learn, rest = ({k: v[mask] for k, v in columns.items()} for mask in (~held, held))
        errors[held] = np.abs(predict(learn, rest) - rest["loss"])
    return float(errors.mean())


def _nearest(columns: Columns) -> float:
    def predict(learn: Columns, held: Columns) -> np.ndarray:
        gaps = np.abs(learn["ratio"] - held["ratio"][0])
        near = gaps == gaps.min()
        order = np.argsort(learn["log_tokens"][near], kind="stable")
        found: np.ndarray = np.interp(held["log_tokens"], learn["log_tokens"][near][order], learn["loss"][near][order])
        return found

    return _left_out_error(columns, predict)


def _quadratic(columns: Columns) -> float:
    def features(part: Columns) -> np.ndarray:
        parts = [np.ones(len(part["ratio"])), part["ratio"], part["ratio"] ** 2, part["log_tokens"]]
        return np.column_stack([*parts, part["log_params"]] if "log_params" in part else parts)

    def predict(learn: Columns, held: Columns) -> np.ndarray:
        fitted: np.ndarray = features(held) @ np.linalg.lstsq(features(learn), learn["loss"], rcond=None)[0]
        return fitted

    return _left_out_error(columns, predict)


@dataclass(frozen=True)
class RatioPlan:
    """The share of domain text with the lowest domain loss among those the general loss allows.

    Attributes:
      ratio: share of domain text.
      domain_loss: predicted there.
      general_loss: predicted there.
      general_rise: above the general loss at the smallest share.
      curve: ratio, domain_loss, general_loss on a grid of 1,001.
    """

    ratio: float
    domain_loss: float
    general_loss: float
    general_rise: float
    curve: pa.Table


def propose_ratio(
    domain: FittedRatioLaw,
    general: FittedRatioLaw,
    max_general_rise: float,
    num_tokens: float,
    num_params: float | None = None,
) -> RatioPlan:
    """Plan the share of domain text; looks only between ratios that both laws were fitted on.

    Args:
      domain: law of the domain's loss, ratio = share of domain text.
      general: law of the general loss, ratio = share of **general** text.
      max_general_rise: allowed above the general loss at the smallest share of domain text, >= 0.
      num_tokens: of the planned training.
      num_params: where the laws have sizes.

    Raises:
      UsageError: a negative rise, or as `FittedRatioLaw.predict`.
      DataError: the laws share no ratios.
    """
    if max_general_rise < 0:
        raise UsageError(f"ratio law: max_general_rise {max_general_rise}. Give 0 or more.")
    low = max(domain.ratios[0], 1 - general.ratios[-1])
    high = min(domain.ratios[-1], 1 - general.ratios[0])
    if low > high:
        raise DataError(
            f"ratio law: domain pilots have shares {domain.ratios[0]:g} to {domain.ratios[-1]:g}, general ones "
            f"{1 - general.ratios[-1]:g} to {1 - general.ratios[0]:g} of domain text. Fit both to the same pilots."
        )
    grid = np.linspace(low, high, 1001)
    domain_loss = domain.predict(num_tokens, grid, num_params)
    general_loss = general.predict(num_tokens, np.clip(1 - grid, 0, 1), num_params)
    rise = general_loss - general_loss[0]
    allowed = np.flatnonzero(rise <= max_general_rise)
    at = allowed[np.argmin(domain_loss[allowed])]
    curve = pa.table({"ratio": grid, "domain_loss": domain_loss, "general_loss": general_loss})
    return RatioPlan(float(grid[at]), float(domain_loss[at]), float(general_loss[at]), float(rise[at]), curve)


@dataclass(frozen=True)
class Downstream:
    """Whether more text of a corpus helps a task.

    Attributes:
      is_aligned: the measure never falls by more than twice its noise while tokens grow, and grows in all.
      largest_fall: from an earlier, smaller training to a later one.
      gain: last minus first.
      parameters: A, alpha, beta of (log(A·D^alpha))^beta; None where it is not aligned.
      error: mean absolute error of that fit; NaN without one.
    """

    is_aligned: bool
    largest_fall: float
    gain: float
    parameters: tuple[float, float, float] | None
    error: float


def downstream(num_tokens: np.ndarray, measure: np.ndarray, noise: float) -> Downstream:
    """Judge a corpus by a measure (higher is better) at growing amounts of it: reject it where the curve falls.

    Args:
      num_tokens: [n] above 1, n >= 4.
      measure: [n] above 0.
      noise: standard error of one value.

    Raises:
      DataError: fewer than 4 values, or values out of range.
    """
    from scipy.optimize import least_squares

    tokens, value = np.asarray(num_tokens, np.float64), np.asarray(measure, np.float64)
    if len(tokens) < 4 or tokens.shape != value.shape or not (tokens > 1).all() or not (value > 0).all() or noise < 0:
        raise DataError("downstream: give 4 or more measures above 0 at tokens above 1, and a noise of 0 or more.")
    order = np.argsort(tokens, kind="stable")
    logs, value = np.log(tokens[order]), value[order]
    fall = float((np.maximum.accumulate(value) - value).max())
    gain = float(value[-1] - value[0])
    if fall > 2 * noise or gain <= 2 * noise:
        return Downstream(False, fall, gain, None, float("nan"))

    def curve(theta: np.ndarray) -> np.ndarray:
        # theta: logarithm of log(A·D^alpha) at the first and the last value, and of beta; it stays above 0 between
        ends = np.exp(theta[:2])
        inner = ends[0] + (ends[1] - ends[0]) * (logs - logs[0]) / (logs[-1] - logs[0])
        shaped: np.ndarray = inner ** np.exp(theta[2])
        return shaped

    found = least_squares(lambda theta: curve(theta) - value, np.r_[np.log(value[[0, -1]]), 0.0], bounds=(-8, 8))
    ends = np.exp(found.x[:2])
    alpha = float((ends[1] - ends[0]) / (logs[-1] - logs[0]))
    parameters = (float(np.exp(ends[0] - alpha * logs[0])), alpha, float(np.exp(found.x[2])))
    return Downstream(True, fall, gain, parameters, float(np.abs(curve(found.x) - value).mean()))
