"""A machine's own Ray is told that the cloud will take it away."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import ROOT

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


NODE = """
import json, os, subprocess, sys
import ray
from ray._private.state import state

class Busy:
    def works(self):
        return True

with ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False) as context:
    busy = ray.remote(Busy).remote()  # a node without work would be gone at once
    environment = {**os.environ, "RAY_ADDRESS": context.address_info["gcs_address"]}
    subprocess.run([sys.executable, "-m", "xl.preemption", "google"], env=environment, check=True, timeout=100)
    deadlines = {}
    while not deadlines:
        deadlines = state.get_draining_nodes()
    print(json.dumps([context.address_info["node_id"], deadlines, ray.get(busy.works.remote())]))
"""
"""A machine with a Ray of its own, in a process of its own."""


@pytest.fixture
def metadata() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_ray_learns_when_the_cloud_will_take_its_node(metadata: str) -> None:
    environment = {**os.environ, "GCE_METADATA_HOST": metadata}
    began = time.time()
    ran = subprocess.run([sys.executable, "-c", NODE], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=140, check=False)
    assert ran.returncode == 0 and "the cloud takes the machine in 30 s" in ran.stderr, ran.stderr
    node, deadlines, is_at_work = json.loads(ran.stdout.splitlines()[-1])
    assert is_at_work and [*deadlines] == [node]
    assert 1000 * (began + 30) <= deadlines[node] <= 1000 * (time.time() + 30)
