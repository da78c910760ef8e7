"""Selectors by the names that people type: on the command line and in recipes.

Source: tamis design.
"""

from importlib import import_module
from typing import Any

from tamis.errors import UsageError
from tamis.selection.budget import Budget
from tamis.selection.selector import Selector

NAMED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dsir": ("dsir", "DSIR", {}),
    "dsir-paper": ("dsir", "DSIR", {"mode": "paper"}),
    "uniform": ("uniform", "Uniform", {}),
    "nearest": ("nearest", "TfidfNearest", {}),
    "classifier": ("classifier", "HashedClassifier", {}),
    "compression": ("compression", "CompressionAlignment", {}),
    "zip-fit": ("compression", "CompressionAlignment", {"exact": True}),
    "perplexity": ("perplexity", "NgramPerplexity", {}),
    "clusters": ("coverage", "ClusterCoverage", {}),
    "k-center": ("coverage", "KCenter", {}),
    "rds": ("rds", "RDSPlus", {}),
}
"""name -> module, class, settings."""
ON_VECTORS = ("clusters", "k-center", "rds")
"""Those that need an encoder."""


def named(method: str, budget: Budget, **settings: Any) -> Selector:  # noqa: ANN401 - settings of any selector
    """Return a selector by its name.

    Args:
      method: one of NAMED.
      budget: how much is kept.
      settings: of the method, on top of those of the name.

    Raises:
      UsageError: no such name.
      RecipeError: settings that the method does not have.
    """
    if method not in NAMED:
        raise UsageError(f"method {method!r}: none of {', '.join(NAMED)}.")
    module, name, given = NAMED[method]
    kind = getattr(import_module(f"tamis.selection.{module}"), name)
    chosen: Selector = kind(**{**given, **settings, "budget": budget})
    return chosen
