"""Document expansion: give a lexical index the words people will use.

Source: Efron, Organisciak, Fenlon 2012, *Improving Retrieval of Short Texts Through Document Expansion* (neighbours).
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data import Corpus
from tamis.data.settings import Settings
from tamis.ops.text import words
from tamis.search.answers import id_ranks
from tamis.search.dense import DenseIndex

_BATCH_DOCS = 1024
_DUPLICATES = 8


class Neighbours(Settings):
    """Append the titles of each document's nearest documents to what is indexed; what is shown stays as it is.

    Attributes:
      neighbours: documents whose titles are appended; 0 changes nothing.
      max_similarity: leave out documents at least this near (copies say nothing new).
    """

    method: Literal["neighbours"] = "neighbours"
    neighbours: Annotated[int, Field(ge=0, le=100)] = 3
    max_similarity: Annotated[float, Field(gt=0, le=1.01)] = 0.98

    def expand(self, corpus: Corpus, nearest: DenseIndex, *, seed: int) -> list[str]:
        """Return a text [D] to give to `BM25.index` as ``extra``; each neighbour's word occurs once.

        D²·H operations: minutes at 10^5 documents, too slow for 10^6.

        Args:
          corpus: documents in the order of the index.
          nearest: dense index of the same documents.
          seed: unused; every expansion takes it.
        """
        if self.neighbours == 0 or not len(corpus):
            return [""] * len(corpus)
        names = [" ".join(dict.fromkeys(words(t))) for t in corpus.table(["title"])["title"].to_pylist()]
        ranks, extra = id_ranks(corpus.doc_ids), []
        for low in range(0, len(corpus), _BATCH_DOCS):
            own = np.arange(low, min(low + _BATCH_DOCS, len(corpus)))
            rows, scores, _ = nearest.search_rows(nearest.vectors[own], self.neighbours + _DUPLICATES)
            usable = (rows >= 0) & (rows != own[:, None]) & (scores < self.max_similarity)
            for found, keep in zip(rows, usable, strict=True):
                near = sorted(found[keep][: self.neighbours], key=ranks.__getitem__)
                extra.append("\n".join(names[row] for row in near))
        return extra
