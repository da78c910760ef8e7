"""Nouns and file formats: Corpus, Queries, Qrels, Run, Ledger, artefact folders."""

from tamis.data.corpus import DOCUMENT_SCHEMA, PASSAGE_SCHEMA, Corpus, CorpusWriter, Sifted
from tamis.data.ledger import Ledger
from tamis.data.queries import Qrels, Queries
from tamis.data.run import Run, align
from tamis.data.settings import Settings

__all__ = [
    "DOCUMENT_SCHEMA",
    "PASSAGE_SCHEMA",
    "Corpus",
    "CorpusWriter",
    "Ledger",
    "Qrels",
    "Queries",
    "Run",
    "Settings",
    "Sifted",
    "align",
]
