"""Ingestion: files to documents, cleaned, grouped, and cut into passages; sieves for pools of raw text.

The sieves are resolved on first use: reading files needs none of them.
"""

from importlib import import_module
from typing import Any

from tamis.ingestion.chunking import Passages
from tamis.ingestion.cleaning import Unicode
from tamis.ingestion.exact import Exact
from tamis.ingestion.ingest import Ingest, ingest
from tamis.ingestion.sources import Found, SourceFile, resolve

_SIEVES = {
    "C4Documents": "quality",
    "C4Lines": "c4",
    "Decontaminate": "decontaminate",
    "EditProgram": "edit_program",
    "FineWebLines": "quality",
    "FrequentLines": "lines",
    "GopherQuality": "quality",
    "GopherRepetition": "quality",
    "MinHash": "minhash",
    "Protected": "contamination",
    "Quality": "quality",
    "RepeatedSubstrings": "substring",
    "SemanticDuplicates": "semantic",
}
__all__ = ["Exact", "Found", "Ingest", "Passages", "SourceFile", "Unicode", "ingest", "resolve"]
__all__ += sorted(_SIEVES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Import a sieve from its file."""
    if name not in _SIEVES:
        raise AttributeError(f"module 'tamis.ingestion' has no attribute {name!r}")
    return getattr(import_module(f"tamis.ingestion.{_SIEVES[name]}"), name)
