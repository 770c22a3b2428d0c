"""Nothing leaves the machine but what the recipe asks for, seen from the system calls of a whole run."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.strace import trace
from tests.support import command, german_pages, recipe

pytestmark = pytest.mark.ray

if shutil.which("strace") is None:
    pytest.skip("strace is not installed", allow_module_level=True)


def test_a_call_to_another_machine_would_be_seen(tmp_path: Path) -> None:
    script = (
        "import socket; tcp = socket.socket(); tcp.setblocking(False); tcp.connect_ex(('192.0.2.77', 80));"
        "udp = socket.socket(type=socket.SOCK_DGRAM); udp.connect(('192.0.2.78', 53)); udp.send(b'x')"
    )
    assert trace([sys.executable, "-c", script], tmp_path / "log").contacted == {"192.0.2.77", "192.0.2.78"}
    script = "import socket; sockets = [socket.create_server((host, 0)) for host in ('127.0.0.1', '0.0.0.0')]"
    assert trace([sys.executable, "-c", script], tmp_path / "log").listened == {"0.0.0.0"}


def test_a_run_contacts_no_other_machine_and_lets_none_in(tmp_path: Path) -> None:
    path = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "pages", 8))
    traced = trace(command("run", path, "--out", tmp_path / "run"), tmp_path / "log")
    assert traced.contacted == traced.listened == set()
