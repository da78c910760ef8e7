"""Field pairs: a field of a record's metadata is the query, the record's document the positive.

Source: VacancySBERT (Bocharova et al. 2023, arXiv:2307.16638); question-answer and term-definition records
are the same relation (method card A4).
"""

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from tamis.data.corpus import Corpus
from tamis.synthesis.pairs import (
    NOTHING,
    Candidate,
    PairBuilder,
    PairMaker,
    Pairs,
    Positive,
    add_grouped,
    count_words,
    documents,
    keyed_order,
    leading_copy,
)


class FieldPairs(PairMaker):
    """Ask for a document with the text of one of its metadata fields.

    Attributes:
      query_field: name of the field; dots lead into nested objects ("faq.question").
      list_mode: what a list of values makes: a query of ``each`` value, one of all joined by ", ", or one
        of each of ``max_values`` keyed values (sample).
      max_values: values of a list taken in mode sample.
      max_docs_per_query: documents that may share a query; all of them are then positives.
      min_query_words: shortest value.
      max_query_words: longest value.
    """

    method: Literal["field_pairs"] = "field_pairs"
    query_field: Annotated[str, Field(min_length=1)] = "question"
    list_mode: Literal["each", "join", "sample"] = "each"
    max_values: Annotated[int, Field(ge=1)] = 5
    max_docs_per_query: Annotated[int, Field(ge=1)] = 3
    min_query_words: Annotated[int, Field(ge=1)] = 2
    max_query_words: Annotated[int, Field(ge=1)] = 64

    @property
    def label(self) -> str:
        """Method and field, so that two fields of one corpus stay apart."""
        return f"{self.method}.{self.query_field}"

    def mine(self, corpus: Corpus, *, seed: int) -> Pairs:
        """Make the pairs; one pass, the values in memory.

        Args:
          corpus: documents with JSON metadata.
          seed: of the values drawn in mode sample.

        Returns:
          Pairs with reasons ``no_field``, ``no_text_value``, ``too_few_words``, ``too_many_words``,
          ``ambiguous_query``.
        """
        builder = PairBuilder(self.label)
        unit = "parent_doc_id" if corpus.is_passages else "doc_id"
        candidates: list[Candidate] = []
        for doc in documents(corpus, list(dict.fromkeys(["doc_id", "title", "text", "metadata", unit]))):
            found = field_value(doc["metadata"], self.query_field)
            if found is None:
                builder.dropped["no_field"] += 1
                continue
            values = self._values(found, doc["doc_id"], seed)
            if not values:
                builder.dropped["no_text_value"] += 1
            for number, value in values:
                cut = leading_copy(doc["text"], value)
                cut = cut if cut[1] > 0 else NOTHING  # the view leaves the metadata out
                same_title = leading_copy(doc["title"], value)[1] == len(doc["title"]) > 0
                candidates.append(
                    Candidate(value, Positive(doc["doc_id"], *cut, cut_title=same_title), doc[unit], number)
                )
        usable = []
        for candidate, words in zip(candidates, count_words([c.text for c in candidates]), strict=True):
            if words < self.min_query_words:
                builder.dropped["too_few_words"] += 1
            elif words > self.max_query_words:
                builder.dropped["too_many_words"] += 1
            else:
                usable.append(candidate)
        add_grouped(builder, usable, max_units=self.max_docs_per_query)
        return builder.pairs()

    def _values(self, found: Any, doc_id: str, seed: int) -> list[tuple[int, str]]:  # noqa: ANN401 - any JSON value
        listed = found if isinstance(found, list) else [found]
        values = [(n, v.strip()) for n, v in enumerate(listed) if isinstance(v, str) and v.strip()]
        if self.list_mode == "join" and values:
            return [(0, ", ".join(v for _, v in values))]
        if self.list_mode == "sample" and len(values) > self.max_values:
            drawn = keyed_order(doc_id, len(listed), seed)
            return [v for n in drawn for v in values if v[0] == n][: self.max_values]
        return values


def field_value(metadata: str, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value at a dotted path of a JSON object, or None; a key that holds dots itself is found too."""
    try:
        value: Any = orjson.loads(metadata)
    except orjson.JSONDecodeError:
        return None
    if isinstance(value, dict) and path in value:
        return value[path]
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value
