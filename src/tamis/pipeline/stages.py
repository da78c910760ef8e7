"""The stages of a build, in order, each an artefact folder with a fingerprint of all it was made from."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from tamis.data import Corpus, CorpusWriter, Qrels, Queries, artefact, durable, ledger, lock
from tamis.data.artefact import Manifest
from tamis.data.corpus import PASSAGE_SCHEMA
from tamis.data.ledger import LedgerWriter
from tamis.engine import SERVED, current_index
from tamis.errors import DataError, UsageError
from tamis.evaluation import Cost, measure_stage
from tamis.ingestion.ingest import ingest
from tamis.models import Encoder, load_encoder
from tamis.ops.language import dominant_language
from tamis.pipeline import collection, folders, history, selecting
from tamis.pipeline.collection import Collection
from tamis.pipeline.curation import ledger_rows
from tamis.pipeline.record import STAGES, Built, Progress, StageResult, summary
from tamis.pipeline.reporting import Findings, Sources, make_report
from tamis.recipe import Recipe
from tamis.search.fit import Fitted
from tamis.search.index import SearchIndex
from tamis.synthesis import ViewCorpus, apply_views

SCRATCH = "scratch"


class Build:
    """One call of `build`: what it was asked for, and the stages."""

    def __init__(
        self,
        sources: list[str],
        out: Path,
        recipe: Recipe,
        judged: tuple[Path, Path] | None,
        *,
        workers: int,
        allow_network: bool,
        progress: Progress | None,
    ) -> None:
        """Remember what was asked for; nothing is read or written yet."""
        self.sources, self.out, self.recipe, self.judged = sources, out, recipe, judged
        self.workers, self.allow_network, self._progress = workers, allow_network, progress
        self._force: frozenset[str] = frozenset()
        self._given: Encoder | None = None
        self.results: list[StageResult] = []
        self.costs: list[Cost] = []

    def check(self, queries: object, qrels: object, force: Sequence[str]) -> None:
        """Refuse what cannot be meant, before anything is written.

        Raises:
          UsageError: one of queries and qrels without the other, an unknown stage to force, or ``out`` is no place
            for an engine.
          DataError: no file of queries or qrels.
        """
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out} is a file: an engine is a folder. Choose another --out.")
        if folders.is_foreign(self.out):
            raise UsageError(
                f"{self.out} holds other files and is no engine: nothing is mixed with them. "
                f"Choose a new folder, say --out {self.out / 'engine'}."
            )
        for path in self.judged or ():
            if not path.is_file():
                raise DataError(f"{path}: no such file of queries or judgements. Relative paths start at {Path.cwd()}.")
        if (queries is None) != (qrels is None):
            raise UsageError("queries and qrels belong together: give both, or neither.")
        unknown = sorted(set(force) - set(STAGES))
        if unknown:
            raise UsageError(f"--force {unknown[0]}: no such stage. The stages are {', '.join(STAGES)}.")
        if self.recipe.encoder != SCRATCH:  # now: hours of reading must not end in an encoder that cannot be loaded
            self._given = load_encoder(self.recipe.encoder, allow_network=self.allow_network)

    def run(self, force: frozenset[str]) -> Built:
        """Make every stage that is not done; one writer a folder."""
        self._force = force
        started = time.monotonic()
        with lock.exclusive(self.out):
            artefact.sweep(self.out)
            self._log("start", sources=self.sources, seed=self.recipe.seed)
            folders.drop_old_ledgers(self.out)
            durable.write_bytes(self.out / "recipe.toml", self.recipe.to_toml().encode())
            documents = self._ingest()
            units = self._passages(documents)
            kept = self._select(documents)
            made = self._synthesize(units, selecting.learned_from(units, documents, kept))
            view = apply_views(units, made.dev_qrels)
            encoder = self._encode(selecting.learned_from(view, documents, kept))
            tuned = self._tune(view, made, encoder)
            index = self._index(documents, units, encoder, made, tuned)
            findings = self._report(documents, units, made, tuned, index)
            seconds = time.monotonic() - started
            self._log("end", seconds=round(seconds, 3))
        peak = max(cost.peak_bytes for cost in self.costs)
        return Built(self.out, tuple(self.results), findings.verdict, seconds, peak)

    # Stages

    def _ingest(self) -> Corpus:
        inputs = {"files": folders.fingerprint_sources(self.sources, self.recipe.ingestion.exclude)}
        settings = self.recipe.ingestion.model_dump(mode="json")
        targets = [self.out / "corpus", self.out / "ledger" / "1-ingest", self.out / "dropped"]

        def make(stack: ExitStack) -> dict[str, int]:
            # the corpus is entered first and so renamed last: it stands only when the others do
            stagings = [
                stack.enter_context(artefact.stage(folder, kind, settings=settings, inputs=inputs, seed=0))
                for folder, kind in zip(targets, ("corpus", "ledger", "dropped"), strict=True)
            ]
            total = 0

            def advance(num_docs: int) -> None:
                nonlocal total
                total += num_docs
                self._advance("ingest", total, None)

            counts = ingest(
                self.sources,
                self.recipe.ingestion,
                corpus=stagings[0],
                dropped=stagings[2],
                ledger=stagings[1],
                workers=self.workers,
                progress=advance,
            )
            stagings[0].counts |= counts
            return counts

        self._stage("ingest", targets, ("corpus", "ledger", "dropped"), settings, inputs, make, seed=0)
        return Corpus.open(targets[0])

    def _passages(self, documents: Corpus) -> Corpus:
        targets = [self.out / "passages", self.out / "ledger" / "2-passages"]
        settings = self.recipe.passages.model_dump(mode="json")
        inputs = {"corpus": self._content("corpus")}

        def make(stack: ExitStack) -> dict[str, int]:
            staging, told = (
                stack.enter_context(artefact.stage(folder, kind, settings=settings, inputs=inputs, seed=0))
                for folder, kind in zip(targets, ("passages", "ledger"), strict=True)
            )
            found = None
            if self.recipe.passages.needs_passages(documents):
                with CorpusWriter(staging, PASSAGE_SCHEMA) as writer:
                    for batch in self.recipe.passages.cut(documents):
                        writer.append(batch)
                        self._advance("passages", writer.num_rows, None)
                found = Corpus.open(staging.folder)
            history.write_split(told, documents, found)
            staging.counts["passages"] = 0 if found is None else len(found)  # 0: the corpus itself is searched
            return staging.counts

        manifest = self._stage("passages", targets, ("passages", "ledger"), settings, inputs, make, seed=0)
        return Corpus.open(targets[0]) if manifest.counts["passages"] else documents

    def _select(self, documents: Corpus) -> np.ndarray:
        targets = [self.out / "selected", self.out / "ledger" / "3-select"]
        settings = self.recipe.select.model_dump(
            mode="json", exclude={"targets"}
        )  # their contents count, not their place
        inputs = {"corpus": self._content("corpus")}
        if self.recipe.select.targets:
            inputs["targets"] = folders.fingerprint_sources(self.recipe.select.targets, ())
        seed = self.recipe.seed

        def make(stack: ExitStack) -> dict[str, int]:
            staging, told = (
                stack.enter_context(artefact.stage(folder, kind, settings=settings, inputs=inputs, seed=seed))
                for folder, kind in zip(targets, ("selected", "ledger"), strict=True)
            )
            found = selecting.choose(
                documents, self.recipe.select, seed=seed, workers=self.workers, scratch=staging.folder
            )
            found.write(staging, documents.doc_ids)
            with LedgerWriter(told) as rows:
                for part in ledger_rows(documents.doc_ids, found.decided(), "select"):
                    rows.append(part)
            return staging.counts

        self._stage("select", targets, ("selected", "ledger"), settings, inputs, make)
        return selecting.read_kept(targets[0])

    def _synthesize(self, units: Corpus, learned: Corpus) -> Collection:
        targets = [self.out / "collection", self.out / "pairs", self.out / "ledger" / "4-synthesize"]
        settings = self.recipe.synthesis.model_dump(mode="json")
        inputs = {name: self._content(name) for name in ("corpus", "selected", "passages")}
        seed = self.recipe.seed

        def make(stack: ExitStack) -> dict[str, int]:
            kinds = ("collection", "pairs", "ledger")
            stagings = [
                stack.enter_context(artefact.stage(folder, kind, settings=settings, inputs=inputs, seed=seed))
                for folder, kind in zip(targets, kinds, strict=True)
            ]
            made = self.recipe.synthesis.run(units, learned, seed=seed)
            collection.write(stagings[0], units, made)
            collection.write_pairs(stagings[1], units, made)
            ledger.write(stagings[2], made.ledger)
            return stagings[0].counts

        self._stage("synthesize", targets, ("collection", "pairs", "ledger"), settings, inputs, make)
        return collection.read(targets[0])

    def _encode(self, learned: Corpus) -> Encoder:
        folder = self.out / "encoder"
        scratch = self.recipe.encoder == SCRATCH
        given = self._given
        settings = self.recipe.scratch.model_dump(mode="json") if scratch else {}
        inputs = {"view": self._content("collection"), "selected": self._content("selected")}
        if given is not None:
            inputs = {"encoder": given.fingerprint}

        def make(stack: ExitStack) -> dict[str, int]:
            staging = stack.enter_context(
                artefact.stage(folder, "encoder", settings=settings, inputs=inputs, seed=self.recipe.seed)
            )
            if given is not None:
                given.save(staging)
                return staging.counts
            language = dominant_language(
                text for batch in learned.batches(["text"]) for text in batch["text"].to_pylist()
            )
            trained = self.recipe.scratch.in_language(language).pretrain(None, learned, seed=self.recipe.seed)
            trained.encoder.save(staging)
            staging.counts |= {"tokens": len(trained.encoder.table_VH), "dim": trained.encoder.dim}
            return staging.counts

        self._stage("encode", [folder], ("encoder",), settings, inputs, make)
        return load_encoder(folder)

    def _tune(self, view: ViewCorpus, made: Collection, encoder: Encoder) -> Fitted:
        folder = self.out / "runs"
        settings = self.recipe.search.model_dump(mode="json")
        inputs = {"collection": self._content("collection"), "encoder": self._content("encoder")}
        inputs["is_given"] = str(self.recipe.encoder != SCRATCH)  # the priors differ, even where the weights do not

        def make(stack: ExitStack) -> dict[str, int]:
            staging = stack.enter_context(
                artefact.stage(folder, "runs", settings=settings, inputs=inputs, seed=self.recipe.seed)
            )
            self.recipe.search.fit(
                view,
                encoder,
                made.dev_queries,
                made.dev_qrels,
                is_given=self.recipe.encoder != SCRATCH,
                seed=self.recipe.seed,
            ).save(staging)
            return staging.counts

        self._stage("tune", [folder], ("runs",), settings, inputs, make)
        return Fitted.load(folder)

    def _index(
        self, documents: Corpus, units: Corpus, encoder: Encoder, made: Collection, tuned: Fitted
    ) -> SearchIndex:
        settings = {
            "layout": tuned.layout.model_dump(mode="json"),
            "plan": tuned.plan.model_dump(mode="json"),
            "holds": list(SERVED),
        }
        inputs = {name: self._content(name) for name in ("corpus", "passages", "collection", "encoder")}
        expected = artefact.stage_fingerprint("index", settings, inputs, self.recipe.seed)
        folder = folders.version_for(self.out, expected)
        targets = [folder, self.out / "ledger" / "5-index"]

        def make(stack: ExitStack) -> dict[str, int]:
            staging, told = (
                stack.enter_context(
                    artefact.stage(target, kind, settings=settings, inputs=inputs, seed=self.recipe.seed)
                )
                for target, kind in zip(targets, ("index", "ledger"), strict=True)
            )
            index = tuned.layout.assemble(
                tuned.plan,
                documents,
                None if units is documents else units,
                encoder,
                bank=made.queries,
                seed=self.recipe.seed,
                staging=staging,
            )
            history.write_indexed(told, index)
            for name in SERVED:  # a version serves by itself while later builds replace corpus and encoder
                staging.include(self.out / name, name)
            return staging.counts

        self._stage("index", targets, ("index", "ledger"), settings, inputs, make)
        folders.make_current(self.out, folder)
        return SearchIndex.load(folder, encoder)

    def _report(
        self, documents: Corpus, units: Corpus, made: Collection, tuned: Fitted, index: SearchIndex
    ) -> Findings:
        folder = self.out / "report"
        names = ("corpus", "passages", "selected", "collection", "encoder", "runs")
        inputs = {name: self._content(name) for name in names}
        inputs["index"] = artefact.read_manifest(current_index(self.out)).content
        if self.judged is not None:
            inputs |= {f"judged{n}": durable.sha256(path) for n, path in enumerate(self.judged)}
        settings: dict[str, Any] = {}

        def make(stack: ExitStack) -> dict[str, int]:
            staging = stack.enter_context(
                artefact.stage(folder, "report", settings=settings, inputs=inputs, seed=self.recipe.seed)
            )
            judged = None
            if self.judged is not None:
                judged = Queries.read(self.judged[0]), Qrels.read(self.judged[1])
            sources = Sources(self.out, documents, units, made, tuned, index, judged, tuple(self.costs))
            make_report(sources, staging, seed=self.recipe.seed)
            return staging.counts

        self._stage("report", [folder], ("report",), settings, inputs, make)
        return Findings.read(folder)

    # What the stages share

    def _stage(
        self,
        name: str,
        targets: list[Path],
        kinds: tuple[str, ...],
        settings: dict[str, Any],
        inputs: dict[str, str],
        make: Callable[[ExitStack], dict[str, int]],
        *,
        seed: int | None = None,
    ) -> Manifest:
        """Make a stage unless all its folders stand with the right fingerprint; return the first one's manifest."""
        used = self.recipe.seed if seed is None else seed
        prints = [artefact.stage_fingerprint(kind, settings, inputs, used) for kind in kinds]
        whole = all(artefact.is_done(f, p, deep=True) for f, p in zip(targets, prints, strict=True))
        status: Literal["made", "kept"] = "kept"
        with measure_stage(name, targets[0]) as meter:
            if not whole or name in self._force:
                status = "made"
                self._log("stage", stage=name)
                self._advance(name, 0, None)
                durable.make_folder(targets[0].parent)
                for target in targets:
                    durable.make_folder(target.parent)
                with ExitStack() as stack:
                    make(stack)
            manifest = artefact.read_manifest(targets[0])
        cost = meter.cost.model_copy(update={"skipped": status == "kept"})
        self.costs.append(cost)
        result = StageResult(name, status, cost.seconds, summary(name, manifest.counts), manifest.counts)
        self.results.append(result)
        self._log("done", stage=name, status=status, seconds=cost.seconds, counts=manifest.counts)
        return manifest

    def _content(self, name: str) -> str:
        return artefact.read_manifest(self.out / name).content

    def _advance(self, stage: str, done: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(stage, done, total)

    def _log(self, event: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        durable.append_line(self.out / "log.jsonl", orjson.dumps(line))
