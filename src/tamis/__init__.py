"""tamis: from raw documents to a search engine that knows them.

Public names are resolved on first use, so that ``import tamis`` stays light and loads no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "ArtefactError": "tamis.errors",
    "BM25": "tamis.search.bm25",
    "Budget": "tamis.selection",
    "Built": "tamis.pipeline",
    "CompressionAlignment": "tamis.selection",
    "Conditioned": "tamis.selection",
    "Convex": "tamis.search.fuse",
    "Corpus": "tamis.data",
    "Curated": "tamis.pipeline.curation",
    "DSIR": "tamis.selection",
    "DataError": "tamis.errors",
    "Decontaminate": "tamis.ingestion",
    "Dense": "tamis.search.dense",
    "Engine": "tamis.engine",
    "FrequentLines": "tamis.ingestion",
    "HashedClassifier": "tamis.selection",
    "Hit": "tamis.engine",
    "Judge": "tamis.evaluation",
    "KLProposal": "tamis.selection",
    "Ledger": "tamis.data",
    "LogLinear": "tamis.selection",
    "MinHash": "tamis.ingestion",
    "Mixture": "tamis.selection",
    "NgramPerplexity": "tamis.selection",
    "Qrels": "tamis.data",
    "Quality": "tamis.ingestion",
    "Queries": "tamis.data",
    "Recipe": "tamis.recipe",
    "RecipeError": "tamis.errors",
    "ReciprocalRank": "tamis.search.fuse",
    "ResourceError": "tamis.errors",
    "Run": "tamis.data",
    "StaticSVD": "tamis.training.pretrain.static_svd",
    "Swarm": "tamis.selection",
    "TamisError": "tamis.errors",
    "TfidfNearest": "tamis.selection",
    "Uniform": "tamis.selection",
    "audit": "tamis.pipeline.auditing",
    "build": "tamis.pipeline",
    "clean": "tamis.pipeline.cleaning",
    "compare": "tamis.judge",
    "decontaminate": "tamis.pipeline.curate",
    "dedup": "tamis.pipeline.curate",
    "evaluate": "tamis.evaluation.measures",
    "load_encoder": "tamis.models",
    "open": "tamis.engine",
    "select": "tamis.pipeline.curate",
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
