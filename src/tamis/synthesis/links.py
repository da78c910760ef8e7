"""Link pairs: documents that their authors connected by a link are each other's queries and positives.

Source: Wiki Link Prediction of Chang et al. 2020, arXiv:2002.03932; co-citation: Small 1973, with Salton's cosine.
"""

import posixpath
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import numpy as np
from pydantic import Field

from tamis.data.corpus import Corpus
from tamis.ops.text import sentence_spans
from tamis.synthesis.fields import field_value
from tamis.synthesis.pairs import (
    Candidate,
    PairBuilder,
    PairMaker,
    Pairs,
    Positive,
    add_grouped,
    count_words,
    documents,
    keyed_order,
)

_MAX_REFERENCES = 500
_MIN_IN_DEGREE_CAP = 20


class LinkPairs(PairMaker):
    """Make pairs from the ``links`` of the metadata: a list of ``{"href": ..., "text": ...}``.

    A link is resolved to a document by its id, its source file or its URL, relative to the document it stands in.

    Attributes:
      kind: ``link`` asks with a sentence of the linking document, ``anchor`` with the link's own words,
        ``co_citation`` with a document's first sentence for one that is linked from the same places.
      min_co_citations: documents that must link to both.
      max_per_doc: pairs of one document.
      max_in_degree_frac: a document linked from a larger share of all is navigation.
      bidirectional: co-citation pairs in both directions.
      min_query_words: shortest query.
      max_query_words: longest query.
    """

    method: Literal["link_pairs"] = "link_pairs"
    kind: Literal["link", "anchor", "co_citation"] = "anchor"
    min_co_citations: Annotated[int, Field(ge=1)] = 2
    max_per_doc: Annotated[int, Field(ge=1)] = 20
    max_in_degree_frac: Annotated[float, Field(gt=0, le=1)] = 0.01
    bidirectional: bool = True
    min_query_words: Annotated[int, Field(ge=1)] = 2
    max_query_words: Annotated[int, Field(ge=1)] = 64

    @property
    def label(self) -> str:
        """Method and kind."""
        return f"{self.method}.{self.kind}"

    def mine(self, corpus: Corpus, *, seed: int) -> Pairs:
        """Make the pairs; two passes, ids, links and first sentences in memory.

        Args:
          corpus: documents with ``links`` in their metadata.
          seed: of the choice among equal pairs.

        Returns:
          Pairs with reasons ``no_links``, ``not_in_corpus``, ``self_link``, ``navigation``, ``too_few_words``,
          ``too_many_words``, ``over_max_per_doc``, ``ambiguous_query``.
        """
        builder = PairBuilder(self.label)
        graph = _Graph(corpus, builder, self.max_in_degree_frac)
        if self.kind == "anchor":
            self._anchors(builder, graph)
        else:
            pairs = graph.co_cited(self) if self.kind == "co_citation" else graph.linked(self, seed)
            self._sentences(builder, graph, pairs, seed)
        return builder.pairs()

    def _anchors(self, builder: PairBuilder, graph: "_Graph") -> None:
        candidates = []
        for number, (_, target, text) in enumerate(
            sorted(graph.edges, key=lambda e: (graph.ids[e[0]], graph.ids[e[1]], e[2]))
        ):
            title = graph.titles[target]
            same = bool(title) and text.casefold() == title.casefold()
            positive = Positive(graph.ids[target], cut_title=same)
            candidates.append(Candidate(text, positive, graph.ids[target], number))
        words = count_words([c.text for c in candidates])
        usable = []
        for candidate, num_words in zip(candidates, words, strict=True):
            if num_words < self.min_query_words:
                builder.dropped["too_few_words"] += 1
            elif num_words > self.max_query_words:
                builder.dropped["too_many_words"] += 1
            else:
                usable.append(candidate)
        # numbers must not depend on other documents: count the distinct texts of each target
        seen: dict[str, dict[str, int]] = {}
        renumbered = []
        for c in usable:
            number = seen.setdefault(c.unit, {}).setdefault(c.text.casefold(), len(seen[c.unit]))
            if number >= self.max_per_doc:
                builder.dropped["over_max_per_doc"] += 1
            else:
                renumbered.append(Candidate(c.text, c.positive, c.unit, number))
        add_grouped(builder, renumbered, max_units=3)

    def _sentences(self, builder: PairBuilder, graph: "_Graph", pairs: dict[int, list[int]], seed: int) -> None:
        for row, doc in enumerate(documents(graph.corpus, ["doc_id", "text"])):
            targets = pairs.get(row, [])
            if not targets:
                continue
            spans = sentence_spans(doc["text"][:20_000])
            words = count_words([doc["text"][a:b] for a, b in spans])
            usable = [s for s, n in zip(spans, words, strict=True) if self.min_query_words <= n <= self.max_query_words]
            if not usable:
                builder.dropped["too_few_words"] += 1
                continue
            order = keyed_order(doc["doc_id"], len(usable), seed, "crop")
            for number, target in enumerate(targets):
                pick = 0 if self.kind == "co_citation" else int(order[number % len(usable)])
                start, stop = usable[pick]
                builder.add(
                    doc["text"][start:stop], doc["doc_id"], number, [Positive(graph.ids[target])], span=(start, stop)
                )


class _Graph:
    """The links between documents of a corpus, cleaned."""

    def __init__(self, corpus: Corpus, builder: PairBuilder, max_in_degree_frac: float) -> None:
        self.corpus = corpus
        self.ids: list[str] = corpus.doc_ids.to_pylist()
        self.titles: list[str] = []
        names, found = self._read(builder)
        edges: set[tuple[int, int, str]] = set()
        for row, base, href, text in found:
            target = _resolve(href, base, names)
            if target is None:
                builder.dropped["not_in_corpus"] += 1
            elif target == row:
                builder.dropped["self_link"] += 1
            else:
                edges.add((row, target, text))
        in_degree = np.bincount([t for _, t in {(r, t) for r, t, _ in edges}], minlength=len(self.ids))
        cap = max(_MIN_IN_DEGREE_CAP, max_in_degree_frac * len(self.ids))
        self.edges = [e for e in sorted(edges) if in_degree[e[1]] <= cap]
        if len(self.edges) < len(edges):
            builder.dropped["navigation"] += len(edges) - len(self.edges)

    def _read(self, builder: PairBuilder) -> tuple[dict[str, int], list[tuple[int, tuple[str, ...], str, str]]]:
        """Return the names by which documents are known, and (row, bases, href, text) of every link."""
        names: dict[str, int] = {}
        sources: dict[str, list[int]] = {}
        found: list[tuple[int, tuple[str, ...], str, str]] = []
        for row, doc in enumerate(documents(self.corpus, ["doc_id", "title", "source", "metadata"])):
            self.titles.append(doc["title"].strip())
            names[doc["doc_id"]] = row
            sources.setdefault(doc["source"] or "", []).append(row)
            url = field_value(doc["metadata"], "url")
            if isinstance(url, str) and url:
                names.setdefault(url.split("#")[0], row)
            links = field_value(doc["metadata"], "links")
            links = links if isinstance(links, list) else []
            good = [link for link in links if isinstance(link, dict) and isinstance(link.get("href"), str)]
            if not good:
                builder.dropped["no_links"] += 1
            bases = (doc["source"] or "", doc["doc_id"], url if isinstance(url, str) else "")
            found += [(row, bases, link["href"], _text(link.get("text"))) for link in good]
        for source, rows in sources.items():
            if source and len(rows) == 1:  # one document a file: the file's name is the document's
                names.setdefault(source, rows[0])
        return names, found

    def linked(self, settings: LinkPairs, seed: int) -> dict[int, list[int]]:
        """Row -> linked rows, at most max_per_doc, in keyed order."""
        targets: dict[int, list[int]] = {}
        for row, target in sorted({(r, t) for r, t, _ in self.edges}, key=lambda e: (e[0], self.ids[e[1]])):
            targets.setdefault(row, []).append(target)
        return {
            row: [many[i] for i in keyed_order(self.ids[row], len(many), seed)[: settings.max_per_doc]]
            for row, many in targets.items()
        }

    def co_cited(self, settings: LinkPairs) -> dict[int, list[int]]:
        """Row -> rows linked from the same documents, best Salton cosine first, at most max_per_doc."""
        weights = co_citation({(r, t) for r, t, _ in self.edges}, len(self.ids), settings.min_co_citations)
        best: dict[int, list[tuple[float, str, int]]] = {}
        for (a, b), weight in weights.items():
            best.setdefault(a, []).append((-weight, self.ids[b], b))
        ordered = {row: [b for _, _, b in sorted(many)][: settings.max_per_doc] for row, many in best.items()}
        if settings.bidirectional:
            return ordered
        return {row: [b for b in many if self.ids[row] < self.ids[b]] for row, many in ordered.items()}


def co_citation(edges: set[tuple[int, int]], num_docs: int, min_co_citations: int) -> dict[tuple[int, int], float]:
    """Return Salton's cosine c_ab / sqrt(c_a c_b) of documents cited together at least min_co_citations times.

    Args:
      edges: (citing, cited) rows; documents that cite more than 500 are left out, they cite everything.
      num_docs: D.
      min_co_citations: smallest c_ab.

    Returns:
      (a, b) -> weight for a != b, in both orders.
    """
    from scipy import sparse

    if not edges:
        return {}
    citing, cited = np.array(sorted(edges), dtype=np.int64).T
    few = np.bincount(citing, minlength=num_docs)[citing] <= _MAX_REFERENCES
    shape = (num_docs, num_docs)
    matrix = sparse.csr_matrix((np.ones(int(few.sum())), (citing[few], cited[few])), shape=shape)
    together = (matrix.T @ matrix).tocoo()
    times = np.asarray(matrix.sum(axis=0)).ravel()
    keep = (together.row != together.col) & (together.data >= min_co_citations)
    a, b, c = together.row[keep], together.col[keep], together.data[keep]
    return {(int(x), int(y)): float(w) for x, y, w in zip(a, b, c / np.sqrt(times[a] * times[b]), strict=True)}


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return " ".join(value.split()) if isinstance(value, str) else ""


def _resolve(href: str, bases: tuple[str, ...], names: dict[str, int]) -> int | None:
    """Row of the document a link leads to; None when it leads out of the corpus."""
    if href in names:
        return names[href]
    try:
        parts = urlsplit(href)
    except ValueError:
        return None
    if parts.scheme or parts.netloc:
        return names.get(href.split("#", maxsplit=1)[0])
    path = unquote(parts.path)
    if not path:
        return None
    for base in bases:
        full = posixpath.normpath(posixpath.join(posixpath.dirname(base), path)).lstrip("/")
        for name in (full, path.lstrip("/"), posixpath.splitext(full)[0]):
            if name in names:
                return names[name]
    return None
