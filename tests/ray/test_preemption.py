"""A machine's own Ray is told that the cloud will take it away."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from tests.support import ROOT, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]


class Metadata(http.server.BaseHTTPRequestHandler):
    """Google's, of a machine that will be taken away."""

    def do_GET(self) -> None:
        assert (self.path, self.headers["Metadata-Flavor"]) == ("/computeMetadata/v1/instance/preempted", "Google")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"TRUE")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@ray.remote
class Busy:
    """Something that a node is there for."""

    def works(self) -> bool:
        return True


@pytest.fixture
def metadata() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_ray_learns_when_the_cloud_will_take_its_node(metadata: str) -> None:
    with ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False) as context:
        busy = Busy.remote()  # a node without work would be gone at once
        environment = {**os.environ, "GCE_METADATA_HOST": metadata, "RAY_ADDRESS": context.address_info["gcs_address"]}
        watcher = [sys.executable, "-m", "xl.preemption", "google"]
        told = subprocess.run(watcher, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
        assert told.returncode == 0 and "Error" not in told.stderr, told.stderr
        deadlines: dict[str, int] = {}
        wait_for(lambda: deadlines.update(_draining()) or deadlines)
        assert ray.get(busy.works.remote()) and deadlines == {
            context.address_info["node_id"]: pytest.approx(1000 * (time.time() + 30), abs=25_000)
        }


def _draining() -> dict[str, int]:
    """Nodes that are leaving, and when, in milliseconds since the epoch."""
    from ray._private.state import state

    return dict(state.get_draining_nodes())
