"""How well do laws fitted to N small runs rank the mixtures of further and larger runs? RegMix's public tables.

Held-out runs are only ranked. Nothing is chosen on them: settings are the papers' or were set on runs of the swarm.
LightGBM rows need the extra ``mixture``.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from evidence import write_section
from tamis.errors import DataError, MissingExtra
from tamis.selection.mixture_laws import Boosted, GaussianProcess, Law, LogLinear, Ridge, shuffled, spearman
from tamis.selection.proposal import DirichletProposal, KLProposal
from tamis.selection.swarm import Swarm

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "regmix"
SLICE = "metric/the_pile_pile_cc_val_loss"
HELD_OUT = {"1M": "1m", "60M": "60m", "1B": "1B"}
SIZES = (16, 32, 64, 128, 256, 512)
LAWS: dict[str, Law] = {
    "log-linear": LogLinear(allow_underdetermined=True),
    "Gaussian process": GaussianProcess(),
    "ridge on √w, w (control)": Ridge(),
    "LightGBM, paper": Boosted(),
    "LightGBM, leaves of 5": Boosted(min_leaf_runs=5, patience=20, max_depth=4),
}
SUBSETS = 1000
"""Salt of the draws of subsets."""


def load() -> tuple[Swarm, dict[str, Swarm]]:
    train = Swarm.read(DATA / "train_mixture_1m.csv", DATA / "train_pile_loss_1m.csv")
    held = {
        n: Swarm.read(DATA / f"test_mixture_{f}.csv", DATA / f"test_pile_loss_{f}.csv") for n, f in HELD_OUT.items()
    }
    return train, held


def measure(law: Law, weights: np.ndarray, losses: np.ndarray, held: dict[str, Swarm], at: int, seed: int) -> dict:
    """Fit one law to one slice of a subset: rank correlations, coverage of the 90 % interval on 1M runs, seconds."""
    started = time.perf_counter()
    fitted = law.fit(weights, losses, seed=seed)
    seconds = time.perf_counter() - started
    found = {n: spearman(fitted.predict(s.weights), s.losses[:, at]) for n, s in held.items()}
    low, high = fitted.interval(held["1M"].weights, 0.9)
    truth = held["1M"].losses[:, at]
    found |= {"coverage": float(np.mean((low <= truth) & (truth <= high))), "width": float(np.mean(high - low))}
    return found | {"seconds": seconds}


def regressors(train: Swarm, held: dict[str, Swarm], seeds: int) -> list[str]:
    at = train.slices.index(SLICE)
    lines = [
        "| law | N | ρ 1M | ρ 60M | ρ 1B (lowest seed) | 90 % interval covers | its width | fit s |",
        "|" + " --- |" * 8,
    ]
    for name, law in LAWS.items():
        for n in SIZES:
            rows = []
            try:
                for seed in range(seeds if n < len(train.runs) else 1):
                    order = shuffled(train.weights, seed, SUBSETS)[:n]
                    rows.append(measure(law, train.weights[order], train.losses[order, at], held, at, seed))
            except MissingExtra:
                lines.append(f"| {name} | {n} | not installed | | | | | |")
                continue
            except DataError as refusal:
                lines.append(f"| {name} | {n} | refused: {str(refusal).split(' and every')[0]} | | | | | |")
                continue
            mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            worst = min(row["1B"] for row in rows)
            lines.append(
                f"| {name} | {n} | {mean['1M']:.3f} | {mean['60M']:.3f} | {mean['1B']:.3f} ({worst:.3f}) | "
                f"{mean['coverage']:.1%} | {mean['width']:.2f} | {mean['seconds']:.1f} |"
            )
            print(lines[-1], flush=True)
    rhos = []
    for seed in range(10):
        order = shuffled(train.weights, seed, SUBSETS)[:64]
        mixed = train.losses[np.random.Generator(np.random.Philox(seed)).permutation(order), at]
        model = LogLinear().regress(train.weights[order], mixed, seed=seed)
        rhos.append([spearman(model.predict(s.weights), s.losses[:, at]) for s in held.values()])
    mean = np.mean(rhos, axis=0)
    spread = np.std(rhos, axis=0)
    cells = " | ".join(f"{m:+.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True))
    return [*lines, f"| log-linear, losses shuffled among runs (control, 10 shuffles) | 64 | {cells} | | | |"]


def slices(train: Swarm, held: dict[str, Swarm], seeds: int) -> list[str]:
    lines = [
        "| law, N = 64, all 13 slices | mean ρ 1M | mean ρ 1B | lowest ρ 1B (slice) | mean coverage |",
        "|" + " --- |" * 5,
    ]
    for name in ("log-linear", "Gaussian process", "ridge on √w, w (control)"):
        rho, small, cover = {}, [], []
        for at, slice_name in enumerate(train.slices):
            rows = []
            for seed in range(seeds):
                order = shuffled(train.weights, seed, SUBSETS)[:64]
                rows.append(measure(LAWS[name], train.weights[order], train.losses[order, at], held, at, seed))
            rho[slice_name] = np.mean([r["1B"] for r in rows])
            small.append(np.mean([r["1M"] for r in rows]))
            cover.append(np.mean([r["coverage"] for r in rows]))
        worst = min(rho, key=rho.get)
        label = worst.removeprefix("metric/the_pile_").removesuffix("_val_loss")
        lines.append(
            f"| {name} | {np.mean(small):.3f} | {np.mean(list(rho.values())):.3f} | {rho[worst]:.3f} ({label}) | "
            f"{np.mean(cover):.1%} |"
        )
        print(lines[-1], flush=True)
    return lines


def choices(train: Swarm, held: dict[str, Swarm], seeds: int) -> list[str]:
    """Which of the 64 runs of 1B would have been trained, and how good was it?"""
    at, large = train.slices.index(SLICE), held["1B"]
    truth = large.losses[:, at]
    prior = train.weights.mean(axis=0)
    picks: dict[str, list[int]] = {}

    def near(mixture: np.ndarray) -> int:
        return int(np.argmin(np.abs(large.weights - mixture).sum(axis=1)))

    for seed in range(seeds):
        order = shuffled(train.weights, seed, SUBSETS)[:64]
        weights, losses = train.weights[order], train.losses[order, at]
        for name in ("log-linear", "Gaussian process", "ridge on √w, w (control)", "LightGBM, leaves of 5"):
            try:
                model = LAWS[name].regress(weights, losses, seed=seed)
            except MissingExtra:
                continue
            picks.setdefault(f"lowest prediction, {name}", []).append(int(np.argmin(model.predict(large.weights))))
        picks.setdefault("nearest to the best of the 64 small runs (control)", []).append(
            near(weights[np.argmin(losses)])
        )
    picks["nearest to the mean of the swarm (control)"] = [near(prior)]
    picks["nearest to uniform (control)"] = [near(np.full(len(prior), 1 / len(prior)))]
    lines = ["| which of the 64 runs of 1B is taken, N = 64 | its loss | rank of 64 |", "| --- | --- | --- |"]
    ranks = np.argsort(np.argsort(truth)) + 1
    for name, rows in picks.items():
        lines.append(f"| {name} | {truth[rows].mean():.4f} | {', '.join(str(ranks[r]) for r in rows)} |")
    lines.append(f"| any (mean), best | {truth.mean():.4f}, {truth.min():.4f} | |")
    return lines


def proposals(train: Swarm, held: dict[str, Swarm], seeds: int) -> list[str]:
    """Proposals from 64 runs, judged by a Gaussian process fitted to the 256 held-out runs."""
    at = train.slices.index(SLICE)
    referee = GaussianProcess().regress(held["1M"].weights, held["1M"].losses[:, at], seed=0)
    prior = train.weights.mean(axis=0)
    caps = np.minimum(1, 4 * prior)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for seed in range(seeds):
        order = shuffled(train.weights, seed, SUBSETS)[:64]
        law = LogLinear().fit(train.weights[order], train.losses[order, at], seed=seed, domains=train.domains)
        for name, method, limit in (
            ("KL .1", KLProposal(), None),
            ("KL .1, at most 4 times the prior", KLProposal(), caps),
            ("KL .01", KLProposal(kl=0.01), None),
            ("mean of the best 128 of 100,000 draws (paper)", DirichletProposal(), None),
        ):
            found = method.propose(law, prior, limit, seed=seed)
            row = (float(found.losses["proposed"][0]), float(referee.predict(found.weights[None])[0]), found.kl)
            rows.setdefault(name, []).append((*row, found.nearest_run))
        best = law.weights_ND[np.argmin(law.losses_NM[:, 0])]
        for name, mixture in (
            ("best single run (control)", best),
            ("mean of the swarm (control)", prior),
            ("uniform (control)", np.full(len(prior), 1 / len(prior))),
        ):
            gap = float(np.abs(law.weights_ND - mixture).sum(axis=1).min())
            kl = float((mixture[mixture > 0] * np.log(mixture[mixture > 0] / prior[mixture > 0])).sum())
            seen = (float(law.predict(mixture)[0]), float(referee.predict(mixture[None])[0]), kl, gap)
            rows.setdefault(name, []).append(seen)
    lines = [
        "| proposal, N = 64 | loss by its law | loss by the referee | KL to the swarm's mean | L1 to the nearest run |",
        "|" + " --- |" * 5,
    ]
    for name, values in rows.items():
        mean = np.mean(values, axis=0)
        lines.append(f"| {name} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.2f} | {mean[3]:.2f} |")
    return lines


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print only")
    chosen = parser.parse_args()
    train, held = load()
    parts = [
        "## Mixture laws on RegMix's tables (`benchmarks/mixtures.py`)",
        f"Swarm: N of 512 runs of 1M parameters over 17 domains, drawn with {chosen.seeds} seeds (means; the 512 are "
        "one set); target: Pile-CC loss. Held out: 256 runs of 1M, 256 of 60M, 64 of 1B. ρ is Spearman's; over 64 runs "
        "it is sure to ± .02 to .04. Intervals are of the 1M runs: a larger model's losses lie elsewhere, their order "
        "stays.",
        "\n".join(regressors(train, held, chosen.seeds)),
        "\n".join(slices(train, held, chosen.seeds)),
        "\n".join(choices(train, held, chosen.seeds)),
        "\n".join(proposals(train, held, chosen.seeds)),
        "The referee is a Gaussian process fitted to the 256 held-out 1M runs; far from every run (last column) it "
        "extrapolates like any other law. Caps stand for sizes of the sources, which the tables do not have.",
    ]
    text = "\n\n".join(parts)
    print(text)
    if not chosen.dry:
        write_section("mixtures", text)


if __name__ == "__main__":
    main()
