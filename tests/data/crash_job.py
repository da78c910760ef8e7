"""A small job for the crash kit: three artefacts, one of them partly written by a library."""

import functools
import os
from pathlib import Path

from tamis.data import Corpus, artefact, ledger, lock

DOCS = [{"doc_id": f"d{i}", "text": f"text {i} " * (i % 7 + 1)} for i in range(60)]


def two_stages(folder: Path, docs: int = 60) -> None:
    """A small pipeline: a corpus, then an index that a library writes by itself, then its ledger."""
    with lock.exclusive(folder):
        artefact.sweep(folder)
        corpus = Corpus.from_records(DOCS[:docs])
        done = artefact.stage_fingerprint("corpus", {"docs": docs}, {}, 7)
        if not artefact.is_done(folder / "corpus", done):
            with artefact.stage(folder / "corpus", "corpus", settings={"docs": docs}, inputs={}, seed=7) as staging:
                corpus.write(staging)
                staging.counts["docs"] = len(corpus)
        inputs = {"corpus": artefact.read_manifest(folder / "corpus").content}
        done = artefact.stage_fingerprint("index", {}, inputs, 7)
        if not artefact.is_done(folder / "index", done):
            with artefact.stage(folder / "index", "index", settings={}, inputs=inputs, seed=7) as staging:
                (staging.folder / "deep" / "er").mkdir(parents=True)
                (staging.folder / "deep" / "er" / "postings.bin").write_bytes(bytes(range(256)) * docs)
                staging.write_bytes("report.md", b"equal <!-- volatile -->%d<!-- /volatile -->\n" % os.getpid())
                staging.volatile_files.add("report.md")
        done = artefact.stage_fingerprint("ledger", {}, inputs, 7)
        if not artefact.is_done(folder / "ledger" / "1-index", done):
            rows = [
                {"doc_id": d["doc_id"], "stage": "index", "method": "m", "decision": "indexed"} for d in DOCS[:docs]
            ]
            with artefact.stage(folder / "ledger" / "1-index", "ledger", settings={}, inputs=inputs, seed=7) as staging:
                ledger.write(staging, ledger.rows(rows))


one_of_each = functools.partial(two_stages, docs=20)


def replace_index(folder: Path) -> None:
    """Replace the index alone by one of another seed."""
    with lock.exclusive(folder):
        artefact.sweep(folder)
        if not artefact.is_done(folder / "index", artefact.stage_fingerprint("index", {}, {}, 8)):
            with artefact.stage(folder / "index", "index", settings={}, inputs={}, seed=8) as staging:
                (staging.folder / "deep").mkdir()
                (staging.folder / "deep" / "postings.bin").write_bytes(bytes(range(256)))
                staging.write_bytes("report.md", b"other")
