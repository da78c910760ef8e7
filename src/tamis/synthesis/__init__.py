"""Synthesis: queries and positives from the documents' own structure; a held-out part is the development set."""

from tamis.synthesis.auto import Available, available
from tamis.synthesis.docstring import DocstringPairs
from tamis.synthesis.fields import FieldPairs
from tamis.synthesis.inverse_cloze import InverseCloze
from tamis.synthesis.leakage import Leak, Report, gate, leakage
from tamis.synthesis.links import LinkPairs
from tamis.synthesis.make import Made, Synthesize
from tamis.synthesis.mixture import PairMixture
from tamis.synthesis.pairs import PairMaker, Pairs
from tamis.synthesis.prop import PROP
from tamis.synthesis.split import Split, clusters
from tamis.synthesis.structure import BodyFirst, Headings
from tamis.synthesis.title_body import TitleBody
from tamis.synthesis.views import ViewCorpus, apply_views, on_parents

__all__ = [
    "PROP",
    "Available",
    "BodyFirst",
    "DocstringPairs",
    "FieldPairs",
    "Headings",
    "InverseCloze",
    "Leak",
    "LinkPairs",
    "Made",
    "PairMaker",
    "PairMixture",
    "Pairs",
    "Report",
    "Split",
    "Synthesize",
    "TitleBody",
    "ViewCorpus",
    "apply_views",
    "available",
    "clusters",
    "gate",
    "leakage",
    "on_parents",
]
