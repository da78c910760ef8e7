"""Selection: a pool to the part of it that is worth learning from, under a budget.

Public names are resolved on first use, so that nothing heavy is imported before it is needed.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "AutoLaw": "mixture_laws",
    "Boosted": "mixture_laws",
    "Budget": "budget",
    "Choice": "choice",
    "ClusterCoverage": "coverage",
    "CompressionAlignment": "compression",
    "Conditioned": "conditioned",
    "DCPTLaw": "ratio_law",
    "DSIR": "dsir",
    "DirichletProposal": "proposal",
    "FittedLaw": "mixture_laws",
    "GaussianProcess": "mixture_laws",
    "HashedClassifier": "classifier",
    "KCenter": "coverage",
    "KLProposal": "proposal",
    "LogLinear": "mixture_laws",
    "Measures": "choice",
    "Mixed": "mixture",
    "Mixture": "mixture",
    "MixtureLaw": "mixture_laws",
    "NgramPerplexity": "perplexity",
    "PerplexityCorrelations": "perplexity_correlations",
    "PreSelect": "preselect",
    "Proposed": "proposal",
    "RDSPlus": "rds",
    "Ridge": "mixture_laws",
    "Selected": "choice",
    "Selector": "selector",
    "Swarm": "swarm",
    "SwarmDesign": "swarm",
    "TfidfNearest": "nearest",
    "Uniform": "uniform",
    "bits_per_byte": "perplexity_correlations",
    "choose_for_targets": "targets",
    "downstream": "ratio_law",
    "kl_reduction": "divergence",
    "leave_one_out": "mixture",
    "named": "names",
    "propose_ratio": "ratio_law",
    "repetition_caps": "proposal",
    "select_for_targets": "targets",
    "separation": "conditioned",
    "token_caps": "perplexity_correlations",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Import a public name from its file."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tamis.selection' has no attribute {name!r}")
    return getattr(import_module(f"tamis.selection.{_HOMES[name]}"), name)
