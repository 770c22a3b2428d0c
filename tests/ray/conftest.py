"""One Ray for all runs that do not care whose it is: starting one for each takes most of a short run's time."""

from collections.abc import Iterator

import pytest

from tests.cluster import cluster
from tests.support import Cli, here


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
