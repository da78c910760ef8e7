"""tamis: from raw documents to a search engine that knows them.

Public names are resolved on first use, so that ``import tamis`` stays light and loads no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "ArtefactError": "tamis.errors",
    "BM25": "tamis.search.bm25",
    "Built": "tamis.pipeline",
    "Convex": "tamis.search.fuse",
    "Corpus": "tamis.data",
    "DataError": "tamis.errors",
    "Dense": "tamis.search.dense",
    "Engine": "tamis.engine",
    "Hit": "tamis.engine",
    "Judge": "tamis.evaluation",
    "Ledger": "tamis.data",
    "Qrels": "tamis.data",
    "Queries": "tamis.data",
    "RecipeError": "tamis.errors",
    "ReciprocalRank": "tamis.search.fuse",
    "Recipe": "tamis.recipe",
    "ResourceError": "tamis.errors",
    "Run": "tamis.data",
    "StaticSVD": "tamis.training.pretrain.static_svd",
    "TamisError": "tamis.errors",
    "build": "tamis.pipeline",
    "compare": "tamis.judge",
    "evaluate": "tamis.evaluation.measures",
    "load_encoder": "tamis.models",
    "open": "tamis.engine",
}
_ALIASES = {"open": "Engine", "compare": "compare_runs"}
__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Import a public name from its home module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tamis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), _ALIASES.get(name, name))


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
