"""SearchIndex: what an engine searches with; several arms, one plan, one answer.

Source: tamis design (method cards B1, B4, C1, C2, C14). Every candidate of one arm is scored by all arms, so that
no score is guessed; each arm's scores become z-scores of its first documents, a short list padded with zeros.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data import Queries, Run
from tamis.data.artefact import Staging
from tamis.data.columns import TEXT
from tamis.errors import ArtefactError, DataError, UsageError
from tamis.search import store
from tamis.search.answers import Pairs, id_ranks, pack_pairs, to_run
from tamis.search.arms import PASSAGES, Arm, Asked, search_one
from tamis.search.bm25 import BM25Index
from tamis.search.dense import DenseIndex
from tamis.search.feedback import RM3, Firsts, Rocchio
from tamis.search.fuse import Pool, ReciprocalRank, scale_of
from tamis.search.nearest import query_of
from tamis.search.passages import Parents, unpack
from tamis.search.plan import Feedback, Plan
from tamis.search.snippet import Snippet, Window

if TYPE_CHECKING:
    from tamis.models.encoder import Encoder

Mode = Literal["hybrid", "lexical", "dense", "rrf", "bm25"]


class SearchIndex:
    """Arms over the same documents and the plan that weighs them.

    Attributes:
      doc_ids: Arrow strings [D].
      arms: name -> arm, in the order given.
      plan: how they are used; `with_plan` returns the same arms under another one.
      parents: the documents of the passages, when an arm is over passages.
    """

    def __init__(
        self, doc_ids: pa.Array, arms: Mapping[str, Arm], plan: Plan, passage_docs: np.ndarray | None = None
    ) -> None:
        """Put arms together.

        Args:
          doc_ids: ids of the documents [D].
          arms: indexes over exactly these documents, or over passages of them.
          plan: weights and feedback; names arms of ``arms``.
          passage_docs: int64 [P], the row in ``doc_ids`` of each passage's document.

        Raises:
          ArtefactError: an arm holds other ids than the rest.
          UsageError: the plan names an arm that is not there.
        """
        self.doc_ids, self.arms, self.plan = doc_ids, dict(arms), plan
        self.parents = None if passage_docs is None else Parents(passage_docs, len(doc_ids))
        self._check_ids()
        self._check_plan(plan)

    def _check_ids(self) -> None:
        passages: pa.Array | None = None
        for name, arm in self.arms.items():
            expected = self.doc_ids if arm.over == "documents" else passages
            if arm.over == "passages":
                passages = expected = arm.index.doc_ids if expected is None else expected
                if self.parents is None or len(self.parents.of) != len(arm.index):
                    raise ArtefactError(
                        f"arm {name!r}: {len(arm.index)} passages without their documents. Build again."
                    )
            if not arm.index.doc_ids.equals(expected):
                raise ArtefactError(f"arm {name!r}: its ids are not those of the other arms. Build the index again.")

    def _check_plan(self, plan: Plan) -> None:
        known = {*self.arms, *plan.feedback}
        unknown = sorted({*plan.weights, *(f.of for f in plan.feedback.values())} - known)
        if unknown or not plan.weights:
            raise UsageError(
                f"plan: no arm {', '.join(unknown) or 'has a weight'}; there are {', '.join(sorted(known))}."
            )
        for name, feedback in plan.feedback.items():
            arm = self.arms.get(feedback.of)
            wanted = isinstance(feedback.expand, RM3)
            if arm is None or name in self.arms or arm.over != "documents" or arm.is_lexical != wanted:
                raise UsageError(f"plan: feedback {name!r} needs a new name and a fitting arm over documents.")

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.doc_ids)

    def with_plan(self, plan: Plan) -> "SearchIndex":
        """Return the same arms under another plan."""
        return SearchIndex(self.doc_ids, self.arms, plan, None if self.parents is None else self.parents.of)

    @cached_property
    def ranks(self) -> np.ndarray:
        """int64 [D]: tie order."""
        return id_ranks(self.doc_ids)

    def search(self, queries: Queries, k: int, mode: Mode = "hybrid") -> Run:
        """Return the k best documents for each query.

        k results are the first of k + 1 as long as k is at most the plan's depth; beyond it the depth is doubled.

        Args:
          queries: what is asked; one without any known word or weight is unanswered.
          k: documents a query.
          mode: ``hybrid`` as planned; ``lexical`` the plan's lexical arms alone; the controls are ``bm25`` and
            ``dense``, the first arm of each kind without any correction, and ``rrf``, the untuned reciprocal-rank
            fusion of these two.

        Raises:
          UsageError: no arm of that kind.
        """
        if mode == "rrf":
            runs = [self.search_arm(self._first(lexical=kind), queries, max(k, 100)) for kind in (True, False)]
            return ReciprocalRank().fuse(runs, seed=0).truncate(k)
        if mode in {"bm25", "dense"}:
            return self.search_arm(self._first(lexical=mode == "bm25"), queries, k)
        weights = self._weights(mode)
        if len(weights) == 1 and next(iter(weights)) in self.arms:
            return self.search_arm(next(iter(weights)), queries, k, corrected=True)
        pool = self.pool(queries, list(weights), depth=self._depth(k))
        if mode == "hybrid" and self.plan.by_length:
            return pool.fuse(self.plan.weights_by_query(pool.names, self.lengths(queries))).truncate(k)
        return pool.fuse(list(weights.values())).truncate(k)

    @cached_property
    def words(self) -> BM25Index:
        """The lexical arm over documents whose analysis stands for the engine's: counts words, marks matches.

        Raises:
          UsageError: no lexical arm.
        """
        found = [a.index for a in self.arms.values() if isinstance(a.index, BM25Index) and a.over == "documents"]
        if not found:
            raise UsageError(f"the engine has no lexical arm (arms: {', '.join(self.arms)}).")
        named = self.arms.get("words")
        return named.index if named is not None and isinstance(named.index, BM25Index) else found[0]

    def lengths(self, queries: Queries) -> np.ndarray:
        """int64 [B]: telling words of each query."""
        analyser = self.words.settings.analyser
        return np.fromiter((analyser.num_telling(text) for text in queries.texts), np.int64, len(queries))

    def snippet(self, text: str, query: str) -> Window:
        """Return the stretch of a text that answers a query best (see `Snippet`)."""
        return Snippet().window(text, query, self.words.settings.analyser, self.words.idf(query))

    def over_passages(self) -> "SearchIndex":
        """Return an index that finds passages instead of documents, by the arms that know them.

        A word arm over passages takes back what its twin over documents had: the weights are those that were
        fitted, on passages.

        Raises:
          UsageError: no document is long enough to have passages.
        """
        arms = {n: Arm(a.index, "documents") for n, a in self.arms.items() if a.over == "passages"}
        if not arms:
            raise UsageError("the engine has no passages: every document is one. Search documents.")
        fitted = self.plan.weights
        twins = {name: fitted.get(name.removesuffix(PASSAGES), 0.0) for name in arms if name.endswith(PASSAGES)}
        weights = {name: w + twins.get(name, 0.0) for name, w in fitted.items() if name in arms}
        plan = self.plan.model_copy(update={"weights": weights, "feedback": {}})
        return SearchIndex(next(iter(arms.values())).index.doc_ids, arms, plan)

    def _first(self, *, lexical: bool) -> str:
        found = next((name for name, arm in self.arms.items() if arm.is_lexical == lexical), None)
        if found is None:
            kind = "lexical" if lexical else "dense"
            raise UsageError(f"the engine has no {kind} arm (arms: {', '.join(self.arms)}). Choose another mode.")
        return found

    def _weights(self, mode: Mode) -> dict[str, float]:
        """Weights above 0 of the arms that take part in a mode."""
        weights = {name: w for name, w in self.plan.weights.items() if w > 0}
        if mode != "hybrid":
            weights = {n: w for n, w in weights.items() if self._arm(n).is_lexical == (mode == "lexical")}
        if weights:
            return weights
        return {next(iter(self.arms)) if mode == "hybrid" else self._first(lexical=mode == "lexical"): 1.0}

    def _arm(self, name: str) -> Arm:
        feedback = self.plan.feedback.get(name)
        return self.arms[feedback.of if feedback is not None else name]

    def _depth(self, k: int) -> int:
        depth = self.plan.depth
        while depth < k:
            depth *= 2
        return depth

    def search_arm(self, name: str, queries: Queries, k: int, *, corrected: bool = False) -> Run:
        """Return one arm's own k best documents, with its own scores; ``corrected`` for hubness where planned."""
        arm = self.arms[name]
        if isinstance(arm.index, DenseIndex) and not corrected:
            arm = Arm(arm.index.corrected(None), arm.over)
        found = self._list(arm, self._ask(queries, [name])[name], k)
        return to_run(queries.table["query_id"].combine_chunks(), self.doc_ids, found)

    def _ask(self, queries: Queries, names: Sequence[str]) -> dict[str, Asked]:
        """Analyse or encode the queries for the given arms; arms of one encoder share its vectors."""
        asked: dict[str, Asked] = {}
        vectors: dict[str, np.ndarray] = {}
        for name in names:
            index = self.arms[name].index
            if isinstance(index, BM25Index):
                asked[name] = index.pack(queries)
            else:
                if index.made_by not in vectors:
                    vectors[index.made_by] = index.encode(queries)
                asked[name] = vectors[index.made_by]
        return asked

    def _list(self, arm: Arm, asked: Asked, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an arm's first documents: rows [B, K] (-1 pads) and scores [B, K]."""
        if arm.over == "documents" or self.parents is None:
            found = search_one(arm.index, asked, depth, None)
            return found[0], found[1]
        wanted, deep = min(depth, len(self)), 10 * depth
        while True:  # 100 passages can be 12 documents
            rows, scores, _ = search_one(arm.index, asked, deep, None)
            docs, values, counts = self.parents.to_documents(rows, scores, self.ranks, wanted)
            exhausted = rows.shape[1] < deep or not rows.size or rows[:, -1] < 0
            if np.all((counts >= wanted) | exhausted):
                return docs, values
            deep *= 4

    def _scores(self, arm: Arm, asked: Asked, pairs: Pairs) -> np.ndarray:
        """Return an arm's scores of packed (query, document) pairs, float64 [n]."""
        if arm.over == "documents" or self.parents is None:
            return search_one(arm.index, asked, 0, pairs)[2]
        expanded, ends = self.parents.expand(pairs)
        return self.parents.best(search_one(arm.index, asked, 0, expanded)[2], ends)

    def pool(self, queries: Queries, names: Sequence[str] | None = None, *, depth: int | None = None) -> Pool:
        """Return the candidates of all given arms, each scored by all of them.

        Args:
          queries: what is asked.
          names: arms of the index or of the plan's feedback; all without.
          depth: documents of each arm that become candidates; the plan's without. z-scores are fitted to the
            plan's depth in any case.
        """
        chosen = [*self.arms, *self.plan.feedback] if names is None else list(names)
        plain = [
            n
            for n in self.arms
            if n in chosen or any(self.plan.feedback[f].of == n for f in chosen if f in self.plan.feedback)
        ]
        again = [n for n in chosen if n in self.plan.feedback]
        base = self._base() if again else {}
        asked = self._ask(queries, list(dict.fromkeys([*plain, *base])))
        lists = {n: self._list(self.arms[n], a, depth or self.plan.depth) for n, a in asked.items()}
        if again:
            first = self._pool(queries, list(base), asked, lists)
            for name in again:
                feedback = self.plan.feedback[name]
                asked[name] = self._expand(feedback, asked[feedback.of], first, list(base.values()))
                lists[name] = self._list(self._arm(name), asked[name], depth or self.plan.depth)
        return self._pool(queries, chosen, asked, lists)

    def _base(self) -> dict[str, float]:
        """Weights of the plain arms: what feedback documents are taken from."""
        weights = {n: w for n, w in self.plan.weights.items() if w > 0 and n in self.arms}
        return weights or dict.fromkeys(self.arms, 1.0)

    def _pool(
        self,
        queries: Queries,
        names: Sequence[str],
        asked: Mapping[str, Asked],
        lists: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> Pool:
        listed = [np.nonzero(lists[name][0] >= 0) for name in names]
        rows = np.concatenate([np.zeros(0, np.int64), *(query for query, _ in listed)])
        docs = np.concatenate([np.zeros(0, np.int64), *(lists[n][0][at] for n, at in zip(names, listed, strict=True))])
        used = np.unique(docs)
        used = used[np.argsort(self.ranks[used])]  # in the order of ids, so that a place is a tie rank
        by_row = np.argsort(used)
        codes = by_row[np.searchsorted(used[by_row], docs)]
        starts, candidates = pack_pairs(rows, codes, len(queries))
        pairs = (starts, used[candidates])
        z = np.empty((len(names), len(candidates)))
        of = unpack(pairs)[0]
        for at, name in enumerate(names):
            head = lists[name][0][:, : self.plan.depth]
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum((head >= 0).sum(axis=1))])
            values = lists[name][1][:, : self.plan.depth][head >= 0]
            scale = scale_of(values, offsets, "padded", min(self.plan.depth, len(self)))
            z[at] = (self._scores(self._arm(name), asked[name], pairs) - scale.mean[of]) * scale.factor[of]
        query_ids = queries.table["query_id"].combine_chunks()
        return Pool(query_ids, self.doc_ids.take(pa.array(used)), starts, candidates, z, tuple(names))

    def _expand(self, feedback: Feedback, asked: Asked, pool: Pool, weights: Sequence[float]) -> Asked:
        """Return the queries of a feedback arm, expanded from the first documents of a pool above 0."""
        method, index = feedback.expand, self.arms[feedback.of].index
        run = pool.fuse(weights)
        keep = (run.ranks <= method.num_docs) & (run.scores > 0)
        rows = pc.index_in(run.doc_ids, value_set=self.doc_ids).to_numpy(zero_copy_only=False).astype(np.int64)
        starts = np.searchsorted(run.query_rows[keep], np.arange(len(run.query_ids) + 1)).astype(np.int64)
        firsts: Firsts = (starts, rows[run.docs[keep]], run.scores[keep])
        if isinstance(method, Rocchio) and isinstance(index, DenseIndex) and isinstance(asked, np.ndarray):
            return method.expand(index, asked, firsts)
        if isinstance(method, RM3) and isinstance(index, BM25Index) and isinstance(asked, tuple):
            return method.expand(index, asked, firsts)
        raise UsageError(f"feedback of {feedback.of!r}: {method.method} does not fit this arm.")

    def evidence(self, queries: Queries, run: Run) -> pa.LargeStringArray:
        """Return for each row of a run over documents the id of its best passage; null where there is none.

        The heaviest arm over passages judges; of equal passages the one with the smaller id.
        """
        found = [name for name, arm in self.arms.items() if arm.over == "passages"]
        if not found or self.parents is None:
            return pa.nulls(len(run), TEXT)
        name = max(found, key=lambda n: (self.plan.weights.get(n, 0.0), -found.index(n)))
        run = run.answer(queries.table["query_id"].combine_chunks())
        rows = (
            pc.index_in(run.doc_ids, value_set=self.doc_ids).to_numpy(zero_copy_only=False).astype(np.int64)[run.docs]
        )
        arm = self.arms[name]
        expanded, ends = self.parents.expand((run.offsets, rows))
        scores = search_one(arm.index, self._ask(queries, [name])[name], 0, expanded)[2]
        row = np.repeat(np.arange(len(rows)), np.diff(ends))
        order = np.lexsort((arm.index.ranks[expanded[1]], -scores, row))
        best = expanded[1][order[ends[:-1][np.diff(ends) > 0]]]
        passages = np.full(len(rows), -1, dtype=np.int64)
        passages[np.diff(ends) > 0] = best
        return arm.index.doc_ids.take(pa.array(passages, mask=passages < 0))

    def similar(self, doc_id: str, k: int) -> Run:
        """Return the k documents nearest to one of the index's own, by vector, or by its words without a dense arm.

        Raises:
          DataError: no such document.
        """
        row = int(pc.index_in(pa.array([doc_id], TEXT), value_set=self.doc_ids)[0].as_py() or 0)
        if not len(self) or self.doc_ids[row].as_py() != doc_id:
            raise DataError(f"no document {doc_id!r} among {len(self)}. Ids are case-sensitive.")
        dense = any(not arm.is_lexical for arm in self.arms.values())
        arm = self.arms[self._first(lexical=not dense)]
        rows = np.array([row])
        if arm.over == "passages" and self.parents is not None:
            rows = self.parents.order[self.parents.starts[row] : self.parents.starts[row + 1]]
        asked = query_of(arm.index, rows)
        found = self._list(arm, asked, k + 1)
        return to_run([doc_id], self.doc_ids, found).without([doc_id], [doc_id]).truncate(k)

    def save(self, staging: Staging) -> None:
        """Write everything into a staging folder: index.json, and a folder for each arm."""
        arms = []
        for number, (name, arm) in enumerate(self.arms.items()):
            arm.index.save(staging, f"arm-{number}/")
            arms.append({"name": name, "kind": "bm25" if arm.is_lexical else "dense", "over": arm.over})
        if self.parents is not None:
            store.write_array(staging, "passage_docs.npy", self.parents.of)
        store.write_strings(staging, "doc_ids.parquet", self.doc_ids)
        facts = {"arms": arms, "plan": self.plan.model_dump(mode="json"), "has_passages": self.parents is not None}
        staging.write_bytes("index.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
        staging.counts |= {"documents": len(self), "arms": len(arms)}

    @classmethod
    def load(cls, folder: Path, encoder: "Encoder | None" = None) -> Self:
        """Open a saved index; arrays stay on the disk (memory-mapped). Verify checksums first.

        Args:
          folder: what `save` wrote.
          encoder: the encoder of its dense arms.

        Raises:
          ArtefactError: damaged, or the encoder is another than the vectors were made with.
        """
        path = folder / "index.json"
        try:
            facts = orjson.loads(store.read_text(path))
            plan = Plan.from_json(orjson.dumps(facts["plan"]), str(path))
            listed = [(str(a["name"]), str(a["kind"]), a["over"]) for a in facts["arms"]]
            has_passages = bool(facts["has_passages"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"{path}: damaged ({error}). Build this stage again.") from error
        arms = {}
        for number, (name, kind, over) in enumerate(listed):
            place = folder / f"arm-{number}"
            arms[name] = Arm(BM25Index.load(place) if kind == "bm25" else DenseIndex.load(place, encoder), over)
        passage_docs = store.read_array(folder / "passage_docs.npy", ("int64",)) if has_passages else None
        return cls(store.read_strings(folder / "doc_ids.parquet"), arms, plan, passage_docs)
