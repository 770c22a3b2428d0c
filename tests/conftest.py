"""The order of tests, and one Ray for all runs that do not care whose it is: starting one for each takes most of a short run's time."""

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.cluster import cluster
from tests.object_store import object_store
from tests.support import Cli, here

# Two engines on two cores take 59 s for what takes them 147 s where each waits for its own threads by spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# Ray reads how it is to authenticate when a process first imports it, and then keeps to that.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first, so that workers side by side end together: unit tests and those of documents last, but for those that train."""
    items.sort(key=lambda item: not {"unit", "docs"}.isdisjoint(item.path.parts) and "train" not in item.path.parts)


@pytest.fixture(scope="session")
def join() -> Iterator[list[str]]:
    """Arguments that let a process of its own join the tests' Ray."""
    with cluster() as running:
        yield running.join


@pytest.fixture(scope="session")
def joined(join: list[str]) -> Iterator[Cli]:
    """The command line in this process, whose runs share one connection to the tests' Ray."""
    from xl.ray_session import ray_session

    with ray_session(join[1]):
        yield here


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of a bucket in an object store of this machine."""
    with object_store() as url:
        yield url
