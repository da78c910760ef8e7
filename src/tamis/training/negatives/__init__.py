"""Negatives: documents that look like an answer and are none. A miner is Run x Qrels -> Run.

Public names are resolved on first use, so that nothing heavy is imported before it is needed.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Miner": "base",
    "Mining": "base",
    "OwnerFilter": "owner_filter",
    "PositiveAware": "positive_aware",
    "STAR": "star",
    "SameDocument": "same_document",
    "Sampled": "sampled",
    "SharedPool": "shared_pool",
    "Suspicion": "suspicion",
    "TopK": "top_k",
    "candidates": "candidate_runs",
    "rescored": "candidate_runs",
    "suspected": "suspicion",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Import a public name from its file."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tamis.training.negatives' has no attribute {name!r}")
    return getattr(import_module(f"tamis.training.negatives.{_HOMES[name]}"), name)
