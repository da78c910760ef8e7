"""The Ray engine: the same results as the local one on a cluster of two nodes, errors with their own type."""

import builtins
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tamis.engines.ray import map_ray
from tamis.errors import MissingExtra

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the package ray: pip install tamis[ray]")
CLUSTER = """
import os, sys
from ray.cluster_utils import Cluster
import ray
from ray_work import fail, node_and_square, square
from tamis.engines.local import map_ordered
from tamis.engines.ray import map_ray
from tamis.errors import DataError

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    options = dict(workers=2, address=cluster.address)
    assert list(map_ray(square, range(20), **options)) == list(map_ordered(square, range(20), workers=2))
    assert not ray.is_initialized()
    nodes = {node for node, _ in map_ray(node_and_square, range(12), **options)}
    assert len(nodes) == 2, nodes
    results = map_ray(fail, range(6), **options)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    try:
        next(results)
    except DataError as error:
        assert "task 3 holds a bad line" in str(error)
    else:
        raise SystemExit("no error")
    cluster.shutdown()
    assert list(map_ray(square, range(5), workers=1)) == [0, 1, 4, 9, 16]  # a cluster of its own
    print("all well")
"""
WORK = """
import time
from tamis.errors import DataError

def square(task):
    return task * task

def node_and_square(task):
    import ray
    time.sleep(0.3)
    return ray.get_runtime_context().get_node_id(), task * task

def fail(task):
    if task == 3:
        raise DataError(f"task {task} holds a bad line")
    return task
"""


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"tamis\[ray\].*--engine local"):
        list(map_ray(abs, [1], workers=1))


@needs_ray
@pytest.mark.slow
def test_two_nodes_give_what_one_machine_gives(tmp_path):
    """In a process of its own: Ray opens sockets and leaves warnings that are not ours."""
    (tmp_path / "ray_work.py").write_text(WORK)
    (tmp_path / "job.py").write_text(CLUSTER)
    paths = os.pathsep.join([SOURCE, str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    job = [sys.executable, str(tmp_path / "job.py")]
    done = subprocess.run(job, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all well\n")
