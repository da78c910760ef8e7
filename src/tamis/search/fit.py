"""Fit: what counts how much, decided for each corpus on its held-out queries; a prior that evidence has to move.

Source: tamis, docs/log.md 2026-11-20; shrinkage towards a prior because pseudo-queries are not people's queries.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import orjson
from pydantic import Field

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.data.artefact import Staging
from tamis.data.settings import Settings
from tamis.errors import ArtefactError
from tamis.ops.hashing import text_keys, uniform
from tamis.ops.language import dominant_language
from tamis.search import store
from tamis.search.arms import Arm
from tamis.search.dense import DenseIndex
from tamis.search.feedback import RM3, Rocchio
from tamis.search.fuse import FusionTuner, Pool, ReciprocalRank
from tamis.search.hubness import QueryBank
from tamis.search.index import SearchIndex
from tamis.search.layout import DENSE, GRAMS, PLAIN, WORDS, Layout, prose_fields, sample, weights, with_passages
from tamis.search.plan import Feedback, Plan, spread

if TYPE_CHECKING:
    from tamis.models.encoder import Encoder

SOUND = ("title_body", "field_pairs", "docstring_pairs", "headings")
"""Makers whose queries choose what people's queries would choose; sentences and word sets do not (docs/log.md)."""
SENTENCES = "inverse_cloze"
"""Cut sentences speak, with doubt, for or against a given encoder where nothing sounder does."""
ENGINE, CONTROL_BM25, CONTROL_ENCODER, CONTROL_RRF = "tamis", "BM25", "encoder alone", "untuned fusion"
_SLUGS = {ENGINE: "tamis", CONTROL_BM25: "bm25", CONTROL_ENCODER: "encoder", CONTROL_RRF: "untuned"}
_DEPTH, _FEEDBACK_WEIGHT, _GATE = 100, 0.15, 1.64
_GRAM_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)
_FIELD_SHARES = (0.0, 0.5)
_GIVEN_PRICE, _SENTENCE_DOUBT = 4.0, 2.0
_EVEN = 0.05


@dataclass(frozen=True)
class Point:
    """One choice: share of grams, weight of the dense arm, share of metadata fields."""

    grams: float
    dense: float
    fields: float

    def distance(self, other: "Point") -> float:
        """Squared distance; a move of the dense weight costs four times one between words and grams."""
        return (
            (0.5 * (self.grams - other.grams)) ** 2
            + (self.dense - other.dense) ** 2
            + (0.3 * (self.fields - other.fields)) ** 2
        )


@dataclass(frozen=True)
class Fitted:
    """What was decided, on what evidence, and the rankings of the held-out queries.

    Attributes:
      layout, plan: of the engine.
      choices: rows for the report: name, value, reason, used.
      runs: system name -> run of the held-out queries; the engine's own is cross-fitted: each half of the
        queries is ranked with the weights that the other half chose.
      counts: for the manifest.
    """

    layout: Layout
    plan: Plan
    choices: tuple[dict[str, Any], ...]
    runs: dict[str, Run]
    counts: dict[str, int] = field(default_factory=dict)

    def save(self, staging: Staging) -> None:
        """Write fit.json and one TREC run a system."""
        facts = {
            "layout": self.layout.model_dump(mode="json"),
            "plan": self.plan.model_dump(mode="json"),
            "choices": list(self.choices),
            "runs": list(self.runs),
        }
        staging.write_bytes("fit.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
        for name, run in self.runs.items():
            with staging.create(f"{_SLUGS.get(name, name)}.trec") as file:
                run.write_trec(file, tag=_SLUGS.get(name, name))
        staging.counts |= self.counts

    @classmethod
    def load(cls, folder: Path) -> "Fitted":
        """Read what `save` wrote; verify checksums first.

        Raises:
          ArtefactError: damaged.
        """
        path = folder / "fit.json"
        try:
            facts = orjson.loads(store.read_text(path))
            layout = Layout.from_json(orjson.dumps(facts["layout"]), str(path))
            plan = Plan.from_json(orjson.dumps(facts["plan"]), str(path))
            runs = {name: Run.read_trec(folder / f"{_SLUGS.get(name, name)}.trec") for name in facts["runs"]}
            return cls(layout, plan, tuple(facts["choices"]), runs)
        except (ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"{path}: damaged ({error}). Build this stage again.") from error


class Fit(Settings):
    """Choose weights, fields, feedback and hubness correction on held-out queries.

    Attributes:
      max_queries: held-out queries used.
      min_queries: with fewer sound ones the prior stays.
      max_docs: documents the held-out queries are searched in, their own among them; a given encoder, which is
        slower, gets a tenth.
      dense: prior weight of the encoder made from the corpus.
      given_dense: prior weight of a given encoder.
      penalty: price of leaving the prior, at 200 queries or more; four times that for a given encoder, whose prior
        weight moves first: by as much as encoder and word arms differ in nDCG@10, less .05. Cut sentences, taken
        where nothing sounder is there, move it half as much at twice the price.
      feedback: try RM3 and Rocchio and keep each where the held-out queries gain beyond doubt.
      hubness: the same for the hubness correction; off, because held-out titles ask for it where people's queries
        lose by it (docs/log.md).
    """

    method: Literal["fit"] = "fit"
    max_queries: Annotated[int, Field(ge=2)] = 500
    min_queries: Annotated[int, Field(ge=2)] = 60
    max_docs: Annotated[int, Field(ge=100)] = 20_000
    dense: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    given_dense: Annotated[float, Field(ge=0, le=1)] = 0.55
    penalty: Annotated[float, Field(ge=0)] = 0.2
    feedback: bool = True
    hubness: bool = False

    def fit(
        self,
        view: Corpus,
        encoder: "Encoder",
        queries: Queries,
        qrels: Qrels,
        *,
        is_given: bool,
        seed: int,
    ) -> Fitted:
        """Fit on the view of a corpus in which what the queries say has been cut out.

        Args:
          view: documents or passages without their held-out parts.
          encoder: the engine's.
          queries: held out.
          qrels: their judgements, with views.
          is_given: whether the encoder was given rather than made from this corpus.
          seed: of samples and halves.
        """
        return _Fitting(self, view, encoder, queries, qrels, is_given=is_given, seed=seed).run()


class _Fitting:
    """One fit under way."""

    def __init__(
        self,
        settings: Fit,
        view: Corpus,
        encoder: "Encoder",
        queries: Queries,
        qrels: Qrels,
        *,
        is_given: bool,
        seed: int,
    ) -> None:
        self.settings, self.encoder, self.is_given, self.seed = settings, encoder, is_given, seed
        order = np.argsort(uniform(text_keys(queries.ids), seed, "select"), kind="stable")[: settings.max_queries]
        self.queries = queries.select(np.sort(order))
        self.qrels = qrels.of(self.queries)
        methods = [m.split(".")[0] for m in self.queries.table["method"].to_pylist()]
        self.is_sound = np.array([m in SOUND for m in methods], dtype=bool)
        sentences = np.array([m == SENTENCES for m in methods], dtype=bool)
        needs_sentences = is_given and self.is_sound.sum() < settings.min_queries <= sentences.sum()
        self.evidence, self.doubt = (sentences, _SENTENCE_DOUBT) if needs_sentences else (self.is_sound, 1.0)
        self.choices: list[dict[str, Any]] = []
        self.corpus = self._corpus(view, set(methods))
        made_from = {m.split(".", 1)[1] for m in queries.table["method"].to_pylist() if "." in m}
        code = {"docstring", "documentation"} if "docstring_pairs" in methods else set()
        texts = self.corpus.take(np.arange(min(len(self.corpus), 2000)), ["text"])["text"].to_pylist()
        language: Any = dominant_language(texts)
        self.layout = Layout(language=language, fields=prose_fields(self.corpus, made_from | code))
        # what a record says in prose is searched unless the queries speak against it
        fields = _FIELD_SHARES[-1] if self.layout.fields else 0.0
        self.prior = Point(0.5, settings.given_dense if is_given else settings.dense, fields)
        self._note("language", language or "neutral", "stemmer and stop words by the share of known stop words")

    def _corpus(self, view: Corpus, methods: set[str]) -> Corpus:
        keys = uniform(text_keys(view.doc_ids.to_pylist()), self.seed, "select")
        limit = self.settings.max_docs // 10 if self.is_given else self.settings.max_docs
        keep = self.qrels.table["doc_id"].to_pylist()
        # A title is what a title query says: while the corpus's own encoder is tuned on it, no document shows one.
        # A given encoder is judged better with the others' titles in place (docs/log.md).
        return sample(view, keep, limit, keys, titles=self.is_given or "title_body" not in methods)

    def _note(self, name: str, value: str, reason: str, *, used: bool = True) -> None:
        self.choices.append({"name": name, "value": value, "reason": reason, "used": used})

    def _plan(self, point: Point, **more: Any) -> Plan:  # noqa: ANN401 - settings of Plan
        arms = weights(point.grams, point.dense, point.fields)
        return Plan(weights=arms, by_length=() if self.is_given else (DENSE,), depth=_DEPTH, **more)

    def run(self) -> Fitted:
        """Index the view, choose, then rank the held-out queries with every system."""
        start = self._plan(self.prior)
        self.index = self.layout.assemble(start, self.corpus, None, self.encoder, seed=self.seed)
        names = [name for name in self.index.arms if name != PLAIN]
        pool = self.index.pool(self.queries, names) if len(self.queries) else None
        point, halves = self.prior, [self.prior, self.prior]
        if pool is not None and int(self.evidence.sum()) >= self.settings.min_queries:
            point, halves = self._choose(pool)
        else:
            self._note(
                "fusion weights",
                _show(self.prior),
                f"the prior: {int(self.is_sound.sum())} held-out queries of a sound kind, "
                f"{self.settings.min_queries} are needed to move it",
            )
        layout = self.layout.model_copy(update={"fields": self.layout.fields if point.fields else ()})
        self._note_fields(point)
        plan = self._plan(point)
        if pool is not None and int(self.is_sound.sum()) >= self.settings.min_queries:
            plan = self._feedback(plan)
            layout = self._hubness(layout, plan)
        runs = self._runs(pool, halves)
        plan = with_passages(plan) if self.corpus.is_passages else plan
        counts = {
            "queries": len(self.queries),
            "sound_queries": int(self.is_sound.sum()),
            "documents": len(self.corpus),
        }
        return Fitted(layout, plan, tuple(self.choices), runs, counts)

    def _grid(self) -> list[Point]:
        dense = np.arange(0.1, 0.96, 0.05) if self.is_given else np.arange(0, 0.51, 0.1)
        fields = _FIELD_SHARES if self.layout.fields else (0.0,)
        points = [Point(c, round(float(w), 2), f) for c in _GRAM_SHARES for w in dense for f in fields]
        return [self.prior, *(p for p in points if p != self.prior)]

    def _weights(self, pool: Pool, points: list[Point]) -> np.ndarray:
        """[G, A, B] weights of each point for each query of the pool."""
        table = [weights(p.grams, p.dense, p.fields) for p in points]
        base = np.array([[row.get(name, 0.0) for name in pool.names] for row in table])
        by_length = np.array([name == DENSE and not self.is_given for name in pool.names])
        return spread(base, by_length, self.index.lengths(self.queries))

    def _choose(self, pool: Pool) -> tuple[Point, list[Point]]:
        """Return the point chosen on all queries that count, and for each half of them that of the other half."""
        grid = self._grid()
        tuner = FusionTuner(pool, self.qrels)
        evidence = self.evidence[tuner.rows]
        alone = [replace(self.prior, dense=0.0), replace(self.prior, dense=1.0)]
        values = tuner.evaluate(self._weights(pool, [*grid, *alone])[:, :, tuner.rows].transpose(0, 2, 1))

        def best(chosen: np.ndarray) -> Point:
            if chosen.sum() < self.settings.min_queries / 2:
                return self.prior
            means = values[:, chosen].mean(axis=1)
            prior = self._moved(float(means[-1] - means[-2]))
            distance = np.array([p.distance(prior) for p in grid])
            price = self.settings.penalty * (_GIVEN_PRICE if self.is_given else 1.0) * self.doubt
            price *= max(1.0, 200 / chosen.sum())
            return grid[int(np.argmax(np.round(means[: len(grid)] - price * distance, 12)))]

        half = self._halves()[tuner.rows]
        point = best(evidence)
        mean, prior_mean = values[grid.index(point)][evidence].mean(), values[0][evidence].mean()
        kind = "held-out queries" if self.doubt == 1 else "cut sentences, for want of titles"
        self._note(
            "fusion weights",
            _show(point),
            f"nDCG@10 {mean:.3f} on {int(evidence.sum())} {kind}; the prior ({_show(self.prior)}) has {prior_mean:.3f}",
        )
        return point, [best(evidence & (half != side)) for side in (0, 1)]

    def _moved(self, gap: float) -> Point:
        """Return the prior, moved towards the better of a given encoder and the word arms by what they differ."""
        if not self.is_given:
            return self.prior
        clear = float(np.sign(gap)) * max(0.0, abs(gap) - _EVEN) / self.doubt
        return replace(self.prior, dense=min(max(self.prior.dense + clear, _EVEN), 1 - _EVEN))

    def _halves(self) -> np.ndarray:
        return (uniform(text_keys(self.queries.ids), self.seed, "split") < 0.5).astype(np.int64)

    def _note_fields(self, point: Point) -> None:
        if self.layout.fields:
            self._note(
                "metadata fields",
                ", ".join(self.layout.fields),
                "prose is searched unless the held-out queries speak against it"
                if point.fields
                else "the held-out queries are answered better without them",
                used=bool(point.fields),
            )

    def _gain(self, before: SearchIndex, after: SearchIndex, chosen: np.ndarray) -> np.ndarray:
        """float64: gain in nDCG@10 of one index over another for each of the chosen held-out queries."""
        queries = self.queries.select(chosen)
        values = []
        for index in (before, after):
            pool = index.pool(queries, [n for n, w in index.plan.weights.items() if w > 0])
            tuner = FusionTuner(pool, self.qrels)
            spreads = index.plan.weights_by_query(pool.names, index.lengths(queries))[:, tuner.rows]
            values.append(tuner.evaluate(spreads.T[None])[0])
        gain: np.ndarray = values[1] - values[0]
        return gain

    def _gate(self, name: str, gain: np.ndarray) -> bool:
        """Say whether a gain is beyond doubt (one-sided 5 %), and note it."""
        mean, error = float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
        helps = mean > _GATE * error and mean > 0
        reason = f"{mean:+.4f} nDCG@10, standard error {error:.4f}"
        self._note(name, "on" if helps else "off", reason, used=helps)
        return helps

    def _feedback(self, plan: Plan) -> Plan:
        """Try a second search with expanded queries, lexical and dense; each stays only if it helps beyond doubt."""
        if not self.settings.feedback:
            return plan
        tries: list[tuple[str, str, RM3 | Rocchio]] = [("rm3", WORDS, RM3())]
        if not self.corpus.is_passages:  # the vectors of an engine with passages are theirs, not the documents'
            tries.append(("rocchio", DENSE, Rocchio()))
        for name, arm, method in tries:
            arms = {n: w * (1 - _FEEDBACK_WEIGHT) for n, w in plan.weights.items()} | {name: _FEEDBACK_WEIGHT}
            more = {**plan.feedback, name: Feedback(of=arm, expand=method)}
            tried = plan.model_copy(update={"weights": arms, "feedback": more})
            gain = self._gain(self.index.with_plan(plan), self.index.with_plan(tried), self.is_sound)
            helps = self._gate(f"feedback ({method.method})", gain)
            plan = tried if helps else plan
        return plan

    def _hubness(self, layout: Layout, plan: Plan) -> Layout:
        """Try the correction: each half of the queries is the bank for the other half.

        Training queries must not be the bank here: they push down the training documents they were made from, which
        the held-out queries then gain from.
        """
        dense = self.index.arms[DENSE].index
        if not self.settings.hubness or plan.weights.get(DENSE, 0.0) <= 0 or not isinstance(dense, DenseIndex):
            return layout
        before, gains = self.index.with_plan(plan), []
        for side in (0, 1):
            chosen = self.is_sound & (self._halves() == side)
            bank = self.queries.select(self.is_sound & (self._halves() != side))
            if len(bank) and chosen.any():
                bias = QueryBank().fit(dense, bank, seed=self.seed)
                arms = {**self.index.arms, DENSE: Arm(dense.corrected(bias), "documents")}
                gains.append(self._gain(before, SearchIndex(before.doc_ids, arms, plan), chosen))
        if not gains or not self._gate("hubness correction", np.concatenate(gains)):
            return layout
        return layout.model_copy(update={"hubness": QueryBank()})

    def _runs(self, pool: Pool | None, halves: list[Point]) -> dict[str, Run]:
        if pool is None:
            return {}
        both = self._weights(pool, halves)
        chosen = np.where(self._halves()[None] == 0, both[0], both[1])
        bm25 = self.index.search_arm(PLAIN, self.queries, _DEPTH)
        dense = self.index.search_arm(DENSE, self.queries, _DEPTH)
        return {
            ENGINE: pool.fuse(chosen).truncate(_DEPTH),
            CONTROL_BM25: bm25,
            CONTROL_ENCODER: dense,
            CONTROL_RRF: ReciprocalRank().fuse([bm25, dense], seed=self.seed).truncate(_DEPTH),
        }


def _show(point: Point) -> str:
    found = weights(point.grams, point.dense, 0.0)
    return ", ".join(f"{name} {found[name]:.2f}" for name in (WORDS, GRAMS, DENSE))
