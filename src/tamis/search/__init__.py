"""Search: corpus and encoder to an index; index and queries to a run; runs to a run.

Public names are resolved on first use, so that nothing heavy is imported before it is needed.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Arm": "arms",
    "BM25": "bm25",
    "BM25Index": "bm25",
    "CSLS": "hubness",
    "Code": "lexical",
    "Convex": "fuse",
    "Dense": "dense",
    "DenseIndex": "dense",
    "Feedback": "plan",
    "FirstP": "aggregate",
    "Fit": "fit",
    "Fitted": "fit",
    "FusionTuner": "fuse",
    "Grams": "lexical",
    "Layout": "layout",
    "MaxP": "aggregate",
    "Neighbours": "expand",
    "Neutral": "lexical",
    "Plan": "plan",
    "Pool": "fuse",
    "QueryBank": "hubness",
    "RM3": "feedback",
    "ReciprocalRank": "fuse",
    "Rocchio": "feedback",
    "SearchIndex": "index",
    "Snippet": "snippet",
    "TopK": "aggregate",
    "Words": "lexical",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Import a public name from its file."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tamis.search' has no attribute {name!r}")
    return getattr(import_module(f"tamis.search.{_HOMES[name]}"), name)
