"""Measures: one number, one definition, the same everywhere.

Source: ir_measures 0.4 over trec_eval's definitions (method card E1).

trec_eval breaks ties in opposite directions for different measures and compares scores as 32-bit
floats. Here a run is ordered once (score descending, doc_id ascending) and handed over as distinct
whole numbers, so that no measure ever sees a tie.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import Qrels, Queries, Run
from tamis.errors import DataError, UsageError

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10")
EXAMPLES = "nDCG@10, R@100, RR@10, AP, P@10, Success@5, Judged@10, nDCG(gains={1:1,2:3,3:7})@10"
MAX_GRADE = 1000
"""trec_eval makes an array as long as the largest grade."""
_BLOCK_QUERIES = 2048
_PROVIDERS = ("pytrec_eval", "msmarco", "judged")  # those that compute in this process, exactly
TEXT = pa.large_string()
Grades = Mapping[str, Mapping[str, int]]
PER_QUERY_SCHEMA = pa.schema([("query_id", TEXT), ("measure", TEXT), ("value", pa.float64())])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run's measures, per query and in the mean.

    Attributes:
      query_ids: Arrow strings [Q], the judged queries with a grade above 0, in byte order.
      values: measure -> float64 [Q].
      aggregate: measure -> mean over all Q queries, those without an answer counting 0.
      num_unanswered: queries of the Q for which the run holds no document.
      num_unjudged: queries of the run that have no relevant judgement; they are not measured.
      num_without_relevant: judged queries without a grade above 0; they are not measured.
      num_excluded: rows of the run left out because they are the query's own document.
    """

    query_ids: pa.Array
    values: Mapping[str, np.ndarray]
    aggregate: Mapping[str, float]
    num_unanswered: int
    num_unjudged: int
    num_without_relevant: int
    num_excluded: int

    @property
    def num_queries(self) -> int:
        """Queries measured."""
        return len(self.query_ids)

    @property
    def per_query(self) -> pa.Table:
        """Columns query_id, measure, value; measure after measure."""
        columns = [
            pa.table([self.query_ids, pa.array([name] * len(self.query_ids), TEXT), values], schema=PER_QUERY_SCHEMA)
            for name, values in self.values.items()
        ]
        return pa.concat_tables(columns)

    def to_dict(self) -> dict[str, Any]:
        """Return the means and the counts as JSON values."""
        return {
            "measures": dict(self.aggregate),
            "num_queries": self.num_queries,
            "num_unanswered": self.num_unanswered,
            "num_unjudged": self.num_unjudged,
            "num_without_relevant": self.num_without_relevant,
            "num_excluded": self.num_excluded,
        }


def evaluate(
    run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES, *, queries: Queries | None = None
) -> Evaluation:
    """Measure a run. About 5 s for 35,000 queries of 100 documents.

    Measured are the judged queries with a grade above 0, whatever the run holds; one the run does not
    answer is 0. A query's own document is left out before ranking (equal ids, or the query's
    ``source_doc_id``) unless the judgements grade it above 0: then it is what the query asks for. Where
    they do so for any pair of equal ids, ids are numbers that coincide and none is left out for it.

    Args:
      run: any rankings, as deep as the measures need.
      qrels: the judgements.
      measures: names of ir_measures; gains are linear unless the name gives others.
      queries: where known, for their ``source_doc_id``.

    Raises:
      UsageError: no measures, or one that is not known or not exact.
      DataError: no query has a grade above 0, or a grade is above 1000.
    """
    parsed = parse_measures(measures)
    grades = qrels.grades
    query_ids = _judged(grades)
    own = _own_documents(query_ids, run, grades, queries)
    answered = run if run.query_ids.equals(query_ids) else run.answer(query_ids)
    left = answered.without(*zip(*own, strict=True)) if own else answered
    values = {name: np.zeros(len(query_ids)) for name in parsed}
    providers = _by_provider(parsed)
    judgements = _without(grades, own)
    for start in range(0, len(query_ids), _BLOCK_QUERIES):
        _measure_block(left, start, judgements, providers, values)
    known = pc.is_in(run.query_ids, value_set=query_ids)
    return Evaluation(
        query_ids=query_ids,
        values=values,
        aggregate={name: math.fsum(column.tolist()) / len(column) for name, column in values.items()},
        num_unanswered=int((np.diff(left.offsets) == 0).sum()),
        num_unjudged=len(run.query_ids) - (pc.sum(known).as_py() or 0),
        num_without_relevant=len(grades) - len(query_ids),
        num_excluded=len(answered) - len(left),
    )


def parse_measures(names: Sequence[str]) -> dict[str, Any]:
    """Return ir_measures objects by their printed names, in order, repeated ones once.

    Raises:
      UsageError: none given, unknown, or only computed by an outside program or with rounding.
    """
    import ir_measures

    if not names:
        raise UsageError(f"no measure given. Try one of {EXAMPLES}.")
    parsed = {}
    for name in names:
        try:
            measure = ir_measures.parse_measure(name)
            cutoff = measure.params.get("cutoff")
            known = any(provider.supports(measure) for provider in _providers())
        except (NameError, ValueError, TypeError, SyntaxError, AttributeError, AssertionError) as error:
            raise UsageError(f"measure {name!r}: not known ({error}). Try one of {EXAMPLES}.") from error
        if not known or (cutoff is not None and cutoff < 1):
            raise UsageError(f"measure {name!r}: cannot be computed exactly here. Try one of {EXAMPLES}.")
        parsed[str(measure)] = measure
    return parsed


def _providers() -> list[Any]:
    from ir_measures import providers

    return [providers.registry[name] for name in _PROVIDERS]


def _by_provider(parsed: Mapping[str, Any]) -> list[tuple[Any, dict[Any, str]]]:
    """Return (provider, its measures and their names); each measure with the first that has it."""
    chosen: dict[int, dict[Any, str]] = {}
    listed = _providers()
    for name, measure in parsed.items():
        first = next(i for i, provider in enumerate(listed) if provider.supports(measure))
        chosen.setdefault(first, {})[measure] = name
    return [(listed[i], names) for i, names in chosen.items()]


def _judged(grades: Grades) -> pa.Array:
    """Return the queries with a grade above 0, in byte order."""
    too_high = next(((q, d, g) for q, docs in grades.items() for d, g in docs.items() if g > MAX_GRADE), None)
    if too_high:
        raise DataError(
            f"qrels: query {too_high[0]!r} grades document {too_high[1]!r} {too_high[2]}; grades go up to {MAX_GRADE}. "
            "Give the grades 1, 2, 3 ... and gains in the measure's name."
        )
    found = [query_id for query_id, docs in grades.items() if any(grade > 0 for grade in docs.values())]
    if not found:
        raise DataError(f"qrels: none of {len(grades)} judged queries has a grade above 0. Nothing can be measured.")
    return pa.array(sorted(found, key=str.encode), TEXT)


def _own_documents(query_ids: pa.Array, run: Run, grades: Grades, queries: Queries | None) -> list[tuple[str, str]]:
    """Return the (query, document) pairs that are self-retrieval."""
    shared = query_ids.filter(pc.is_in(query_ids, value_set=run.doc_ids)).to_pylist()
    coincide = any(docs.get(query_id, 0) > 0 for query_id, docs in grades.items())
    pairs = [] if coincide else [(query_id, query_id) for query_id in shared]
    if queries is not None:
        sources = zip(queries.ids, queries.table["source_doc_id"].to_pylist(), strict=True)
        pairs += [(q, d) for q, d in sources if d and q != d and q in grades and grades[q].get(d, 0) <= 0]
    return pairs


def _without(grades: Grades, own: list[tuple[str, str]]) -> Grades:
    """Return the judgements without the excluded pairs."""
    excluded: dict[str, set[str]] = {}
    for query_id, doc_id in own:
        excluded.setdefault(query_id, set()).add(doc_id)
    return {
        q: {d: g for d, g in docs.items() if d not in excluded[q]} if q in excluded else docs
        for q, docs in grades.items()
    }


def _measure_block(
    run: Run, start: int, grades: Grades, providers: list[tuple[Any, dict[Any, str]]], values: Mapping[str, np.ndarray]
) -> None:
    """Measure queries start : start + _BLOCK_QUERIES into ``values``."""
    ids = run.query_ids.slice(start, _BLOCK_QUERIES).to_pylist()
    offsets = run.offsets[start : start + len(ids) + 1]
    docs = run.doc_ids.take(pa.array(run.docs[offsets[0] : offsets[-1]])).to_pylist()
    ranked = {}
    for i, query_id in enumerate(ids):
        first, last = int(offsets[i] - offsets[0]), int(offsets[i + 1] - offsets[0])
        if last > first:
            ranked[query_id] = dict(zip(docs[first:last], range(last - first, 0, -1), strict=True))
    judged = {query_id: grades[query_id] for query_id in ids}
    rows = {query_id: start + i for i, query_id in enumerate(ids)}
    for provider, names in providers:
        for metric in provider.evaluator(list(names), judged).iter_calc(ranked):
            values[names[metric.measure]][rows[metric.query_id]] = metric.value
