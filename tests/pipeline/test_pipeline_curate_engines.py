"""Every step over a pool: the same bytes from any engine, any number of workers and any cut; a killed run goes on."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import orjson
import pytest

from tamis.data import artefact
from tamis.errors import MissingExtra
from tamis.ingestion.lines import FrequentLines
from tamis.ingestion.minhash import MinHash
from tamis.pipeline import auditing, cleaning, curate, curation
from tamis.selection import DSIR, Budget

ingest = import_module("tamis.ingestion.ingest")  # the room has a function of that name
SOURCE = str(Path(__file__).resolve().parents[2] / "src")
NUM_FILES = 6
NOTICE = "This notice is printed below every single page of the whole collection."
PASSES = {"select": 3, "dedup": 3, "against": 3, "clean": 3, "decontaminate": 3, "audit": 4}


def prose(rng, first, num=60):
    """Words without digits: those would not tell lines apart."""
    numbers = rng.integers(first, first + 400, num).tolist()
    return " ".join("w" + "".join(chr(97 + number // 26**at % 26) for at in range(3)) for number in numbers)


def write(path, rows):
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Six files, each a piece of its own: near copies across files, a shared line, stubs, and a leaked query."""
    monkeypatch.setattr(ingest, "TASK_BYTES", 1)
    rng = np.random.default_rng(0)
    texts = [prose(rng, 200 * (number % 3)) for number in range(150)]
    rows = [{"_id": f"d{n}", "title": f"t{n}" if n % 7 == 0 else "", "text": t} for n, t in enumerate(texts)]
    near = [{"_id": f"near{n}", "text": texts[n].replace(texts[n].split()[9], "changed")} for n in range(1, 40, 2)]
    exact = [{"_id": f"exact{n}", "text": texts[n]} for n in (2, 4, 50)]
    stubs = [{"_id": f"stub{n}", "text": f"too few {n}"} for n in range(8)]
    leaks = [{"_id": f"leak{n}", "text": f"{prose(rng, 0, 20)} {texts[60]} {prose(rng, 0, 20)}"} for n in range(3)]
    rows = [{**row, "text": f"{row['text']}\n{NOTICE}"} for row in [*rows, *near, *exact, *leaks]] + stubs
    (tmp_path / "pool").mkdir()
    for number in range(NUM_FILES):
        write(tmp_path / "pool" / f"{number}.jsonl", rows[number::NUM_FILES])
    write(tmp_path / "target.jsonl", [{"text": prose(rng, 0)} for _ in range(5)])
    write(tmp_path / "against.jsonl", [{"text": f"{texts[n]}\n{NOTICE}"} for n in range(30)])
    asked = [" ".join(texts[60].split()[5:30]), " ".join(texts[61].split()[5:30]), "ok"]
    write(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": text} for n, text in enumerate(asked)])
    return tmp_path


def work(step, data, name, **how):
    """Run one step into the folder of that name; return the hash of each file."""
    pool, out = [str(data / "pool")], data / name
    copies = MinHash(on_wipeout="keep")
    if step == "select":
        curate.select(pool, out, DSIR(budget=Budget(docs=40)), [str(data / "target.jsonl")], **how)
    elif step == "dedup":
        curate.dedup(pool, out, copies, **how)
    elif step == "against":
        curate.dedup(pool, out, copies, against=[str(data / "against.jsonl")], **how)
    elif step == "clean":
        cleaning.clean(pool, out, lines=FrequentLines(min_words=5), **how)
    elif step == "decontaminate":
        curate.decontaminate(pool, out, data / "queries.jsonl", **how)
    else:
        auditing.audit(pool, out, **how)
    return artefact.hash_tree(out)


def counts(data, name):
    return orjson.loads((data / name / "report" / "report.json").read_bytes())["counts"]


@pytest.mark.parametrize("step", PASSES)
def test_the_same_bytes_for_any_number_of_workers_and_the_same_documents_for_any_cut(data, step, monkeypatch):
    one = work(step, data, "one")
    assert one == work(step, data, "two", workers=2) == work(step, data, "eight", workers=8)
    monkeypatch.setattr(ingest, "TASK_BYTES", 1 << 25)
    whole = work(step, data, "whole")  # one piece: its content has another hash, and manifests say so
    shown = [name for name in one if not name.endswith((".json", ".lock")) and not name.startswith("ledger")]
    assert len(shown) >= 2 and all(one[name] == whole[name] for name in shown)


def test_the_steps_of_these_tests_find_something(data):
    for step in ("dedup", "against", "clean", "decontaminate"):
        work(step, data, step)
    assert counts(data, "dedup")["dropped_near_copy"] >= 20 and counts(data, "dedup")["dropped_exact_copy"] == 3
    assert counts(data, "against")["dropped_near_copy"] == 20 and counts(data, "against")["dropped_exact_copy"] == 27
    assert counts(data, "clean")["dropped_too_few_words"] == 8
    figures = orjson.loads((data / "clean" / "report" / "report.json").read_bytes())["figures"]
    assert figures["num_spans_cut"] == 176
    assert counts(data, "decontaminate")["dropped_contains_query"] == 5  # two texts, three leaks


class Stopped(Exception):
    pass


class Meter:
    """Engines that count what they work on, and stop the process's work after a number of tasks."""

    def __init__(self, monkeypatch):
        self.num_done, self.limit = 0, 10**9
        monkeypatch.setattr(curation.engines, "opened", self.opened)
        monkeypatch.setattr(curation, "CHECKPOINT_BYTES", 0)

    @contextmanager
    def opened(self, name, workers):
        yield self.run

    def run(self, function, tasks):
        for task in tasks:
            if self.num_done == self.limit:
                raise Stopped
            self.num_done += 1
            yield function(task)


ALSO = {"against", "audit"}
"""Steps of the same passes as others."""


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=pytest.mark.slow) if step in ALSO else step for step in PASSES]
)
def test_killed_again_and_again_a_step_goes_on_at_its_shard(data, step, monkeypatch):
    """After every fifth shard; nothing that was finished is computed again, and the bytes are the same."""
    plain = work(step, data, "plain")
    meter = Meter(monkeypatch)
    assert work(step, data, "fresh") == plain
    num_shards, meter.num_done = meter.num_done, 0
    assert num_shards > NUM_FILES * (PASSES[step] - 1)
    num_kills = 0
    for meter.limit in range(5, num_shards, 5):
        with pytest.raises(Stopped):
            work(step, data, "killed")
        num_kills += 1
        assert len(list((data / "killed" / ".scratch" / "shards").rglob("*.arrow"))) == meter.limit
    meter.limit = num_shards
    assert work(step, data, "killed") == plain
    assert num_kills >= 2 and meter.num_done == num_shards
    assert not (data / "killed" / ".scratch").exists()


@pytest.mark.parametrize("changed", ["queries.jsonl", "pool/3.jsonl"])
def test_shards_of_other_input_are_not_believed(data, changed, monkeypatch):
    meter = Meter(monkeypatch)
    meter.limit = 14
    with pytest.raises(Stopped):
        work("decontaminate", data, "killed")
    lines = (data / changed).read_bytes().splitlines(keepends=True)
    (data / changed).write_bytes(b"".join(lines[1:]))
    meter.num_done, meter.limit = 0, 10**9
    again = work("decontaminate", data, "killed")
    num_done, meter.num_done = meter.num_done, 0
    assert again == work("decontaminate", data, "fresh") and num_done == meter.num_done


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {source!r}]
import test_pipeline_curate_engines as tests

class Patch:
    setattr = staticmethod(setattr)

class Killer(tests.Meter):
    def run(self, function, tasks):
        for task in tasks:
            if self.num_done == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            self.num_done += 1
            yield function(task)

tests.ingest.TASK_BYTES = 1
Killer(Patch)
tests.work("dedup", Path(sys.argv[1]), "killed")
"""


def test_a_step_ended_by_sigkill_goes_on(data, monkeypatch):
    plain = work("dedup", data, "plain")
    job = KILLED.format(tests=str(Path(__file__).parent), source=SOURCE)
    done = subprocess.run([sys.executable, "-c", job, str(data)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert list((data / "killed" / ".scratch").glob("pool-*"))  # what it had read; that is read again
    meter = Meter(monkeypatch)
    assert work("dedup", data, "killed") == plain
    assert meter.num_done == 3 * NUM_FILES - 8


@pytest.mark.parametrize("step", PASSES)
def test_without_the_package_ray_nothing_is_read(data, step, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"tamis\[ray\].*--engine local"):
        work(step, data, "out", engine="ray")
    assert not (data / "out").exists()


CLUSTER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {source!r}]
from ray.cluster_utils import Cluster
import test_pipeline_curate_engines as tests
from tamis.engines.ray import connected

tests.ingest.TASK_BYTES = 1
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
cluster.add_node(num_cpus=1)
with connected(2, cluster.address):
    for step in tests.PASSES:
        tests.curation.CHECKPOINT_BYTES = 0 if step == "dedup" else 1 << 29
        tests.work(step, Path(sys.argv[1]), f"ray-{{step}}", engine="ray", workers=2)
cluster.shutdown()
print("all well")
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the package ray: pip install tamis[ray]")
def test_a_ray_cluster_of_two_nodes_writes_the_same_bytes(data):
    """In a process of its own: Ray opens sockets and leaves warnings that are not ours."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SOURCE}
    environment.pop("RAY_ADDRESS", None)
    job = CLUSTER.format(tests=str(Path(__file__).parent), source=SOURCE)
    ran = subprocess.Popen([sys.executable, "-c", job, str(data)], env=environment, stdout=-1, stderr=-1, text=True)
    local = {step: work(step, data, step) for step in PASSES}
    out, errors = ran.communicate(timeout=900)  # kernels may have to be compiled first, in every process
    assert ran.returncode == 0 and out.endswith("all well\n"), errors[-3000:]
    for step, tree in local.items():
        assert artefact.hash_tree(data / f"ray-{step}") == tree, step
