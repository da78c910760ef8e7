"""Every test runs offline, with fixed threads, and with the shared collections where they are at hand."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import pytest_socket
from hypothesis import HealthCheck, settings

settings.register_profile("tamis", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("tamis")
SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption("--rewrite-golden", action="store_true", help="write tests/golden from today's answers")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("data") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="needs the collections in ../shared/data"))


@pytest.fixture(autouse=True)
def no_network():
    """No test opens a connection; sockets within the machine (worker processes) are let through."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture
def shared() -> Path:
    """The folder of shared collections."""
    if not SHARED.is_dir():
        pytest.skip("needs the collections in ../shared/data")
    return SHARED.resolve()
