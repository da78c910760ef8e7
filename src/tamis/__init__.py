"""tamis: from raw documents to a search engine that knows them.

Public names are resolved on first use, so that ``import tamis`` stays light and loads no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "Corpus": "tamis.data",
    "Queries": "tamis.data",
    "Qrels": "tamis.data",
    "Run": "tamis.data",
    "Ledger": "tamis.data",
    "TamisError": "tamis.errors",
    "DataError": "tamis.errors",
    "RecipeError": "tamis.errors",
    "ArtefactError": "tamis.errors",
    "ResourceError": "tamis.errors",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Import a public name from its home module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tamis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
