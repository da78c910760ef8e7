"""Budget: how much of a corpus may be kept, in documents, words or bytes.

Source: tamis design (method card C0); Ivison et al. 2025 (large-scale data selection): compare at equal budgets.
"""

import re
from fractions import Fraction
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from tamis.data.settings import Settings
from tamis.errors import UsageError
from tamis.ops.ngrams import count_words
from tamis.ops.text import joined

Count = Annotated[int, Field(ge=1)]
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(k|m|g|)\s*(%|docs?|words?|bytes|b)", re.IGNORECASE)
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class Budget(Settings):
    """How much is kept; exactly one of the four is given.

    Compare methods at equal words: documents differ in length a hundredfold, and a method that likes
    long ones would get more text for the same number.

    Attributes:
      docs: documents.
      words: word tokens of title and text (marks do not count).
      bytes: bytes of UTF-8 of title and text.
      frac: share of the corpus's words, above 0 and up to 1.
    """

    docs: Count | None = None
    words: Count | None = None
    bytes: Count | None = None
    frac: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in ("docs", "words", "bytes", "frac") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a budget is one of docs, words, bytes or frac; got {' and '.join(given) or 'none'}. Give one"
            )
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the budget of a text like 5%, 10000docs, 2Mwords or 100MB.

        Raises:
          UsageError: another form, or nothing would be kept.
        """
        found = _AMOUNT.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"budget {text!r}: write 5%, 10000docs, 2Mwords or 100MB.")
        number, unit = float(found[1]), found[3].lower().rstrip("s")
        if unit == "%":
            if not 0 < number <= 100 or found[2]:
                raise UsageError(f"budget {text!r}: a share is above 0 % and at most 100 %.")
            return cls(frac=number / 100)
        amount = round(number * _SCALES[found[2].lower()])
        if amount < 1:
            raise UsageError(f"budget {text!r}: that keeps nothing. Give at least one.")
        return cls(**{{"doc": "docs", "word": "words"}.get(unit, "bytes"): amount})

    @property
    def unit(self) -> str:
        """What documents are measured in: "docs", "words" or "bytes"."""
        return "docs" if self.docs is not None else "bytes" if self.bytes is not None else "words"

    def sizes(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return int64 [n]: each document's size in the budget's unit."""
        if self.unit == "docs":
            return np.ones(len(batch), np.int64)
        texts = joined(batch)
        if self.unit == "words":
            return count_words(texts)
        return np.asarray(pc.fill_null(pc.binary_length(texts), 0), dtype=np.int64)

    def limit(self, total: int) -> int:
        """Return the budget in its unit for a corpus of ``total`` such units. May be more than there is."""
        if self.frac is not None:
            return int(Fraction(str(self.frac)) * total)  # as it was written: .29 of 100 is 29
        return int(self.docs or self.words or self.bytes or 0)

    def keep(self, order: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Keep the first documents of ``order`` that fit together; stop before the first that does not.

        What a smaller budget keeps, a larger one keeps too.

        Args:
          order: int64 rows, best first; rows left out cannot be kept.
          sizes: int64 [n] of all documents, in the budget's unit.

        Returns:
          bool [n].

        Raises:
          UsageError: not even the first document fits.
        """
        limit = self.limit(int(sizes.sum()))
        kept = prefix(order, sizes, limit)
        if len(order) and not kept.any():
            raise UsageError(
                f"budget: {limit} {self.unit}, and the best document has {int(sizes[order[0]])}. "
                f"Give at least that many {self.unit}, or cut documents into passages first."
            )
        return kept


def prefix(order: np.ndarray, sizes: np.ndarray, limit: int) -> np.ndarray:
    """Return bool [n]: the rows of ``order`` before the first whose size goes over ``limit`` in sum."""
    kept = np.zeros(len(sizes), bool)
    kept[order[np.cumsum(sizes[order]) <= limit]] = True
    return kept


def quotas(total: int, weights: np.ndarray) -> np.ndarray:
    """Share out ``total`` units by weight: floors first, what is left to the largest remainders.

    Args:
      total: units to share.
      weights: int64 [G] or float64 [G], not negative, not all 0.

    Returns:
      int64 [G] that sums to ``total``; equal remainders go to the earlier.
    """
    parts = [Fraction(w) for w in np.asarray(weights).tolist()]
    whole = sum(parts)
    exact = [total * part / whole for part in parts]
    floors = np.array([int(x) for x in exact], dtype=np.int64)
    remainders = [x - int(x) for x in exact]
    by_remainder = sorted(range(len(parts)), key=lambda g: (-remainders[g], g))
    floors[by_remainder[: total - int(floors.sum())]] += 1
    return floors
