"""Ingestion: files to documents, cleaned, grouped, and cut into passages."""

from tamis.ingestion.chunking import Passages
from tamis.ingestion.cleaning import Unicode
from tamis.ingestion.exact import Exact
from tamis.ingestion.ingest import Ingest, ingest
from tamis.ingestion.sources import Found, SourceFile, resolve

__all__ = ["Exact", "Found", "Ingest", "Passages", "SourceFile", "Unicode", "ingest", "resolve"]
