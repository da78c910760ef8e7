"""Ingestion: files to documents, cleaned, grouped, and cut into passages; sieves for pools of raw text."""

from tamis.ingestion.c4 import C4Lines
from tamis.ingestion.chunking import Passages
from tamis.ingestion.cleaning import Unicode
from tamis.ingestion.contamination import Protected
from tamis.ingestion.decontaminate import Decontaminate
from tamis.ingestion.edit_program import EditProgram
from tamis.ingestion.exact import Exact
from tamis.ingestion.ingest import Ingest, ingest
from tamis.ingestion.lines import FrequentLines
from tamis.ingestion.minhash import MinHash
from tamis.ingestion.quality import C4Documents, FineWebLines, GopherQuality, GopherRepetition, Quality
from tamis.ingestion.semantic import SemanticDuplicates
from tamis.ingestion.sources import Found, SourceFile, resolve

__all__ = [
    "C4Documents",
    "C4Lines",
    "Decontaminate",
    "EditProgram",
    "Exact",
    "FineWebLines",
    "Found",
    "FrequentLines",
    "GopherQuality",
    "GopherRepetition",
    "Ingest",
    "MinHash",
    "Passages",
    "Protected",
    "Quality",
    "SemanticDuplicates",
    "SourceFile",
    "Unicode",
    "ingest",
    "resolve",
]
