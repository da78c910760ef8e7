"""What is protected and what was found; `contamination_passes` finds it, `decontaminate` holds the method.

Source: tamis, docs/log.md 2026-11-21.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import columns as rules
from tamis.data.corpus import Corpus
from tamis.data.queries import Queries
from tamis.errors import DataError
from tamis.ops.text import joined

TEXT = pa.large_string()
PROTECTED_SCHEMA = pa.schema([("item_id", TEXT), ("kind", TEXT), ("text", TEXT)])
KINDS = ("query", "positive")
HITS_SCHEMA = pa.schema(
    [
        ("doc_id", TEXT),
        ("item_id", TEXT),
        ("kind", TEXT),
        ("coverage", pa.float64()),  # share of the item's grams found, common ones not counted
        ("num_matched", pa.int32()),
        ("num_grams", pa.int32()),
        ("start_bytes", pa.int64()),  # of the longest run found, in the title, a newline and the text
        ("stop_bytes", pa.int64()),  # exclusive
        ("excerpt", TEXT),  # its first EXCERPT_BYTES
    ]
)
SUPPRESSED_SCHEMA = pa.schema(
    [
        ("item_id", TEXT),
        ("kind", TEXT),
        ("source", TEXT),
        ("num_docs", pa.int64()),  # documents that reach the coverage only when common grams count
        ("example_doc_id", TEXT),  # the first of them by id
        ("excerpt", TEXT),  # null past the first MAX_EXCERPTS rows
    ]
)
UNPROTECTABLE_SCHEMA = pa.schema(
    [
        ("item_id", TEXT),
        ("kind", TEXT),
        ("reason", TEXT),  # too_few_tokens, too_few_words_with_letters, mostly_common
        ("source", TEXT),  # where; null: everywhere
    ]
)
EXCERPT_BYTES = 240


@dataclass(frozen=True)
class Protected:
    """What no training text may hold (PROTECTED_SCHEMA); kind is "query" or "positive"."""

    items: pa.Table

    def __post_init__(self) -> None:
        """Check the table.

        Raises:
          DataError: a column is missing or has nulls, a kind is unknown, an item occurs twice, or there is none.
        """
        items = rules.conform(self.items, PROTECTED_SCHEMA, "protected items")
        object.__setattr__(self, "items", items)
        if not len(items):
            raise DataError("protected items: there are none. Give the test queries, or leave this stage out.")
        unknown = set(items["kind"].unique().to_pylist()) - set(KINDS)
        if unknown:
            raise DataError(f"protected items: kind {min(unknown)!r} is unknown. Use one of: {', '.join(KINDS)}.")
        for kind in KINDS:
            ids = items.filter(pc.equal(items["kind"], kind))["item_id"].combine_chunks()
            rules.check_distinct(ids, f"protected items of kind {kind!r}")

    @classmethod
    def of(cls, queries: Queries | None = None, positives: Corpus | None = None) -> Self:
        """Protect queries, and judged answers where the corpus to be cleaned is not the one that is searched."""
        parts = []
        if queries is not None:
            parts.append((queries.table["query_id"], "query", queries.table["text"]))
        if positives is not None:
            table = positives.table(["doc_id", "title", "text"])
            parts.append((table["doc_id"], "positive", pa.chunked_array([joined(table)])))
        tables = [
            pa.table([ids, pa.array([kind] * len(ids), TEXT), texts], schema=PROTECTED_SCHEMA)
            for ids, kind, texts in parts
        ]
        return cls(pa.concat_tables(tables) if tables else PROTECTED_SCHEMA.empty_table())


@dataclass(frozen=True)
class Findings:
    """What was found, one entry a document in corpus order, and the tables that explain it."""

    is_contaminated: np.ndarray  # bool [n]
    coverage: np.ndarray  # float64 [n]: of the item covered most; 0 where no item reaches the least coverage
    item: np.ndarray  # int64 [n]: row of that item among the protected; -1 none
    hits: pa.Table  # HITS_SCHEMA: at most MAX_HITS_PER_DOC a document, the words compared character by character
    suppressed_common: pa.Table  # SUPPRESSED_SCHEMA, most documents first
    unprotectable: pa.Table  # UNPROTECTABLE_SCHEMA
    num_collisions: int  # pairs whose hashes agreed and whose words did not; not counted as hits


def least_matches(num_grams: np.ndarray, min_coverage: float) -> np.ndarray:
    """Return int32 [Q]: the smallest number of grams m >= 1 with m / num_grams >= min_coverage."""
    sizes = np.maximum(num_grams, 1).astype(np.int64)
    least = np.maximum(np.floor(min_coverage * sizes).astype(np.int64) - 1, 1)
    for _ in range(3):  # the product is rounded: the quotient decides
        least += least / sizes < min_coverage
    needed: np.ndarray = least.astype(np.int32)
    return needed


def excerpt(text: str, begin: int, end: int) -> str:
    """Return at most EXCERPT_BYTES of a byte span, cut between characters."""
    return text.encode()[begin:end][:EXCERPT_BYTES].decode("utf-8", "ignore")


def columns_of(corpus: Any, wanted: Iterable[str]) -> list[str]:  # noqa: ANN401 - documents, a batch or a piece
    """Return the wanted columns that the documents have; a piece has all."""
    schema = getattr(corpus, "schema", None)
    return [name for name in wanted if schema is None or name in schema.names]
