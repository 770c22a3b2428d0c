"""A Ray in a process of its own that outlives the drivers which join it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

from tests.support import ROOT

NUM_CPUS = 3
NUM_GPUS = 2
"""Ray counts them, and nothing computes there."""


@dataclass(frozen=True)
class Cluster:
    """A running Ray: the process whose children it is, and the arguments with which a run joins it."""

    pid: int
    address: str

    @property
    def join(self) -> list[str]:
        return ["--address", self.address]


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a Ray; it ends with the context, and with this process too."""
    command = [sys.executable, "-m", "tests.cluster"]
    owner = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert owner.stdin and owner.stdout
    try:
        address = next((line.split()[1] for line in owner.stdout if line.startswith("ADDRESS ")), None)
        assert address, "Ray did not start"
        with mock.patch.dict(os.environ, RAY_AUTH_MODE="token"):
            yield Cluster(owner.pid, address)
    finally:
        owner.stdin.close()
        owner.wait(60)


def main() -> None:
    """Start Ray, tell its address, and wait until our standard input is closed."""
    from xl.ray_session import QUIET, bare_node

    os.environ.update(QUIET)
    import ray

    with bare_node():
        context = ray.init(address="local", num_cpus=NUM_CPUS, num_gpus=NUM_GPUS, include_dashboard=False, log_to_driver=False)
    print("ADDRESS", context.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
