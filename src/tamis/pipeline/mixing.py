"""Mixing: a table of small runs becomes mixture weights, with what is known about how sure they are.

Source: Ye et al. 2024, arXiv:2403.16952, and Liu et al. 2024, RegMix, arXiv:2407.01492 (laws over a swarm); Thrush,
Potts, Hashimoto 2024, arXiv:2409.05816 (perplexity correlations).

The folder's ``report/mixture.json`` is what `mixed.sample` reads; ``report/`` has the same as tables and as a page.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from tamis.data import artefact, durable
from tamis.errors import DataError, UsageError
from tamis.pipeline.curation import Curation, Source
from tamis.pipeline.runs import parted, read_swarm
from tamis.pipeline.tables import read_table
from tamis.selection.mixture_laws import MIN_RUNS, AutoLaw, FittedLaw, Law, LogLinear
from tamis.selection.perplexity_correlations import DomainWeights, PerplexityCorrelations
from tamis.selection.proposal import DirichletProposal, KLProposal, Proposed, repetition_caps
from tamis.selection.swarm import Swarm

MIXTURE = "mixture.json"
_KIND = "mixture"
_ABLATION_REPEATS = 3


@dataclass(frozen=True)
class Caps:
    """What bounds the weights: no source is seen more often than max_epochs in a training of num_tokens.

    Attributes:
      available: tokens of each domain; any unit, if ``num_tokens`` has the same.
      num_tokens: size of the training set.
      max_epochs: how often a text may be seen.
    """

    available: Mapping[str, float]
    num_tokens: float
    max_epochs: float = 4.0

    def array(self, domains: Sequence[str]) -> np.ndarray:
        """Return the largest weight of each domain, float64 [D]."""
        return repetition_caps(by_domain(self.available, domains, "available"), self.num_tokens, self.max_epochs)


@dataclass(frozen=True)
class MixtureFound:
    """A finished step.

    Attributes:
      folder: where the result is.
      status: made now, or kept because nothing it depends on has changed.
      facts: what mixture.json holds: method, weights by domain, domains, metrics, ablation, figures, notes.
    """

    folder: Path
    status: Literal["made", "kept"]
    facts: dict[str, Any]

    @property
    def file(self) -> Path:
        """The weights, for `mixed.sample`."""
        return self.folder / "report" / MIXTURE


def mix(
    runs: Sequence[Path | str],
    out: Path | str,
    method: Law | PerplexityCorrelations | None = None,
    *,
    metrics: Sequence[str] = (),
    domains: Sequence[str] = (),
    prior: Mapping[str, float] | None = None,
    caps: Caps | None = None,
    kl: float = 0.1,
    importance: Mapping[str, float] | None = None,
    ablation: bool = True,
    seed: int = 0,
) -> MixtureFound:
    """Fit a law to small runs and propose the mixture of lowest predicted loss; or weigh domains by correlations.

    Args:
      runs: one table with a row a run, its domains' weights and its losses; or two CSV files, weights and losses,
        with a run column in common. For correlations one table: a row a model, its bits per byte on each domain.
      out: folder of the result.
      method: a law over a swarm (log-linear), or `PerplexityCorrelations`.
      metrics: columns (or shell patterns of columns) with losses, lower is better; needed for one table.
      domains: columns of the domains; the others where none is named.
      prior: share of each domain in the data, for the distance that is paid for; None: the mean of the runs.
      caps: bounds on repetition; correlations need them.
      kl: price of a nat of distance to the prior, in units of the loss; only of the log-linear law.
      importance: of each metric; equal where None.
      ablation: fit to parts of the runs too, to see whether there are enough of them.
      seed: of folds, subsets and draws.

    Raises:
      DataError: a table, prior or caps that cannot be used; too few runs for the law.
      UsageError: the folder holds something else; correlations without caps or with several metrics.
    """
    chosen = method if method is not None else LogLinear()
    settings = {
        "method": chosen.model_dump(mode="json"),
        "metrics": list(metrics),
        "domains": list(domains),
        "prior": None if prior is None else dict(sorted(prior.items())),
        "caps": None if caps is None else [dict(sorted(caps.available.items())), caps.num_tokens, caps.max_epochs],
        "kl": kl,
        "importance": None if importance is None else dict(sorted(importance.items())),
        "ablation": ablation,
    }
    work = Curation("mix", Source(()), out, settings=settings, seed=seed)
    tables = [read_table(path) for path in runs]
    inputs = {f"runs {at}": durable.sha256(Path(path)) for at, path in enumerate(runs)}
    report = work.out / "report"
    expected = artefact.stage_fingerprint(_KIND, work.settings, inputs, seed)
    status: Literal["made", "kept"] = "kept"
    with work.opened(), _one_thread():
        if not artefact.is_done(report, expected, deep=True):
            if isinstance(chosen, PerplexityCorrelations):
                found = _correlated(tables, chosen, metrics, domains, caps, seed)
            else:
                swarm, lost = read_swarm(runs, tables, metrics, domains).complete()
                proposal = _Wish(prior, caps, kl, importance, ablation)
                found = _proposed(swarm, lost, chosen, proposal, seed)
            work.mark()
            _write(report, found, work.settings, inputs, seed)
            status = "made"
    return MixtureFound(work.out, status, orjson.loads((report / MIXTURE).read_bytes()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hold every BLAS to one thread: the last bits of a product depend on their number, and small ones only wait."""
    import scipy.linalg  # loads a BLAS of its own, which can be held only once it is there
    import scipy.optimize  # noqa: F401

    with threadpool_limits(1):
        yield


def by_domain(values: Mapping[str, float], domains: Sequence[str], what: str) -> np.ndarray:
    """Return one value a domain, float64 [D].

    Raises:
      UsageError: a domain without a value, or a value of no domain.
    """
    unknown = sorted(set(values) - set(domains))
    lacking = [name for name in domains if name not in values]
    if unknown or lacking:
        told = f"{unknown[0]!r} is no domain" if unknown else f"domain {lacking[0]!r} has none"
        raise UsageError(f"{what}: {told}. Give one for each of {', '.join(domains)}.")
    return np.array([values[name] for name in domains], dtype=np.float64)


@dataclass(frozen=True)
class _Wish:
    """What is asked of a proposal; see `mix`."""

    prior: Mapping[str, float] | None
    caps: Caps | None
    kl: float
    importance: Mapping[str, float] | None
    ablation: bool


@dataclass(frozen=True)
class _Found:
    """Weights and what is told of them: rows of tables by name, figures, notes."""

    method: str
    domains: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    ablation: list[dict[str, Any]]
    figures: dict[str, float]
    notes: list[str]


def _proposed(swarm: Swarm, lost: Sequence[str], law: Law, wish: _Wish, seed: int) -> _Found:
    if not swarm.runs:
        raise DataError(f"none of {len(lost)} runs has all losses. Leave out the metric that is missing.")
    names = swarm.domains
    fitted = law.fit(swarm.weights, swarm.losses, seed=seed, domains=names, slices=swarm.slices)
    shares = by_domain(wish.prior, names, "prior") if wish.prior is not None else swarm.weights.mean(axis=0)
    mass = None if wish.importance is None else by_domain(wish.importance, swarm.slices, "importance")
    way = KLProposal(kl=wish.kl) if isinstance(fitted.settings, LogLinear) else DirichletProposal()
    best = way.propose(fitted, shares, wish.caps.array(names) if wish.caps else None, mass, seed=seed)
    notes = [f"{len(lost)} of {len(lost) + len(swarm.runs)} runs lack a loss and were left out."] if lost else []
    if isinstance(law, AutoLaw):
        notes.append(f"auto took {type(fitted.settings).__name__} for {len(swarm.runs)} runs.")
    return _Found(
        method=str(fitted.settings.model_dump()["method"]),
        domains=_domain_rows(best, wish.caps is not None),
        metrics=_metric_rows(fitted, best),
        ablation=_ablation(fitted, seed) if wish.ablation else [],
        figures={"num_runs": len(swarm.runs), "kl_to_prior": best.kl, "distance_to_nearest_run": best.nearest_run},
        notes=notes + _doubts(fitted, best),
    )


def _domain_rows(best: Proposed, has_caps: bool) -> list[dict[str, Any]]:
    folds = best.fold_weights
    return [
        {
            "domain": name,
            "weight": float(best.weights[at]),
            "low": float(folds[:, at].min()),
            "high": float(folds[:, at].max()),
            "prior": float(best.prior[at]),
            **({"cap": float(best.caps[at])} if has_caps else {}),
        }
        for at, name in enumerate(best.domains)
    ]


def _metric_rows(fitted: FittedLaw, best: Proposed) -> list[dict[str, Any]]:
    return [
        {
            "metric": name,
            "proposed": float(best.losses["proposed"][at]),
            "low": float(best.low[at]),
            "high": float(best.high[at]),
            **{other: float(best.losses[other][at]) for other in ("prior", "uniform", "best_run")},
        }
        for at, name in enumerate(fitted.slices)
    ]


def _ablation(fitted: FittedLaw, seed: int) -> list[dict[str, Any]]:
    """Return the mean rank correlation of fits to 8, 16, 32, ... runs with the rest, and its range."""
    most = len(fitted.weights_ND) - MIN_RUNS
    sizes = [MIN_RUNS << step for step in range(32) if MIN_RUNS << step <= most]
    if not sizes:
        return []
    table = fitted.ablation(sizes, _ABLATION_REPEATS, seed=seed)
    rows = []
    for name in fitted.slices:
        for size in sizes:
            found = [row["spearman"] for row in table.to_pylist() if row["slice"] == name and row["n"] == size]
            known = [value for value in found if np.isfinite(value)]
            told = (float(np.mean(known)), min(known), max(known)) if known else (None, None, None)
            rows.append({"metric": name, "num_runs": size, **dict(zip(("spearman", "low", "high"), told, strict=True))})
    return rows


def _doubts(fitted: FittedLaw, best: Proposed) -> list[str]:
    """Return what should keep a reader from trusting the proposal too much."""
    from scipy.spatial.distance import cdist

    notes = []
    for at, name in enumerate(fitted.slices):
        rivals = [other for other in ("prior", "best_run") if best.losses[other][at] <= best.high[at]]
        if rivals:
            notes.append(
                f"{name}: the interval of the proposal holds {' and '.join(rivals).replace('_', ' ')} too: "
                "it may be no better."
            )
    between = cdist(fitted.weights_ND, fitted.weights_ND, "cityblock")
    np.fill_diagonal(between, np.inf)
    usual = float(np.median(between.min(axis=1)))
    if best.nearest_run > 2 * usual:
        notes.append(
            f"the proposal is {best.nearest_run:.2f} from the nearest run, runs are {usual:.2f} from each other: "
            "an extrapolation. Raise --kl, or run it small before you run it large."
        )
    return notes


def _correlated(
    tables: Sequence[pa.Table],
    method: PerplexityCorrelations,
    metrics: Sequence[str],
    domains: Sequence[str],
    caps: Caps | None,
    seed: int,
) -> _Found:
    if len(tables) != 1:
        raise UsageError("correlations take one table: a row a model, a column a domain, one column with the error.")
    if caps is None:
        raise UsageError(
            "correlations fill the best domains to their caps: give --available NAME=TOKENS for each, and --tokens."
        )
    names, own, bits_MD, errors, models = parted(tables[0], metrics, domains)
    if len(names) != 1:
        raise UsageError(f"correlations want one error of each model, got {', '.join(names)}. Give one --metric.")
    limits = caps.array(own)
    found: DomainWeights = method.fit(bits_MD, errors[:, 0], limits, seed=seed, domains=own)
    rows = [
        {
            "domain": name,
            "weight": float(found.weights[at]),
            "correlation": float(found.estimates[at]),
            "rank_low": int(found.rank_low[at]),
            "rank_high": int(found.rank_high[at]),
            "cap": float(limits[at]),
        }
        for at, name in enumerate(own)
    ]
    notes = []
    if found.skipped:
        first = models[found.skipped[0]]
        notes.append(f"{len(found.skipped)} of {len(models)} models lack a number and were left out, first {first!r}.")
    figures = {"num_models": float(len(models) - len(found.skipped))}
    return _Found("perplexity_correlations", rows, [], [], figures, notes)


def _write(report: Path, found: _Found, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int) -> None:
    facts = {
        "method": found.method,
        "weights": {row["domain"]: row["weight"] for row in found.domains},
        "domains": found.domains,
        "metrics": found.metrics,
        "ablation": found.ablation,
        "figures": found.figures,
        "notes": found.notes,
    }
    with artefact.stage(report, _KIND, settings=settings, inputs=inputs, seed=seed) as staging:
        staging.write_bytes(MIXTURE, orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
        staging.write_bytes("report.md", markdown(facts).encode())
        for name, rows in (("weights", found.domains), ("predictions", found.metrics), ("ablation", found.ablation)):
            if rows:
                with staging.create(f"{name}.parquet") as sink:
                    pq.write_table(pa.Table.from_pylist(rows), sink, compression="zstd", write_page_checksum=True)
        staging.counts["domains"] = len(found.domains)


SECTIONS = {
    "domains": "Weights. low and high are the least and the largest of five refits, each without a fifth of the runs "
    "(ranks: 5 % and 95 % of bootstraps of the models).",
    "metrics": "Predicted losses of the proposal (90 % interval, for runs of the swarm's size) and of what it has to "
    "beat.",
    "ablation": "Are there enough runs? Rank correlation of a law of so many runs with the rest: mean, least and "
    "largest of three draws.",
}


def markdown(facts: Mapping[str, Any]) -> str:
    """Return a mixture for people."""
    lines = [f"# tamis mix: {facts['method']}", ""]
    lines += [f"- {name}: {value:,.6g}" for name, value in facts["figures"].items()]
    lines += [f"- {note}" for note in facts["notes"]]
    for name, told in SECTIONS.items():
        rows = facts[name]
        if rows:
            columns = list(rows[0])
            lines += ["", told, "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
            lines += [f"| {' | '.join(shown(row[column]) for column in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def shown(value: float | str | None) -> str:
    """Return a cell: four digits after the point, a name as it is."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
