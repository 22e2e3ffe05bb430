"""Fixtures that every suite may use."""

import os
import pty
from pathlib import Path

import pytest

from tests.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def build_dir():
    """Where the programs under test are; ARGOSY_BUILD chooses the variant."""
    return ROOT / "build" / os.environ.get("ARGOSY_BUILD", "release")


@pytest.fixture
def start_cluster(build_dir, tmp_path):
    """start_cluster(workers=1, args=()) -> a Cluster that is ready; ended after the test."""
    started = []

    def start(**options):
        cluster = Cluster(build_dir / "argosy", tmp_path, **options)
        started.append(cluster)
        cluster.wait_ready()
        return cluster

    yield start
    for cluster in started:
        cluster.stop()


@pytest.fixture(scope="module")
def cluster(build_dir, tmp_path_factory):
    """One cluster with two workers for all tests of a module that leave it as it was."""
    cluster = Cluster(build_dir / "argosy", tmp_path_factory.mktemp("cluster"), workers=2)
    try:
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def hash_model():
    """The file whose name, manifest and vocabulary the workers of tests/hash_pool.py have."""
    found = sorted((ROOT / "models/smollm2-135m").glob("*.gguf"))
    assert found, "models/fetch.py smollm2-135m brings the model"
    return found[0]


@pytest.fixture
def terminal():
    """The two ends of a pseudo-terminal, as descriptors: ours, the program's."""
    try:
        ends = pty.openpty()
    except OSError as e:
        pytest.skip(f"no pseudo-terminal here: {e}")
    yield ends
    for fd in ends:
        os.close(fd)
