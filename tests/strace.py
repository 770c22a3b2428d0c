"""Which other machines a command reaches out to, and which it lets in, from its system calls and those of its children."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support import ROOT

# A TCP connection is tried by `connect`; a UDP socket only sends with the others, and its descriptor shows where to.
_TCP = re.compile(r"connect\(\d+<TCP.*?inet_(?:addr\(|pton\(AF_INET6, )\"([^\"]+)\"")
_UDP = re.compile(r"send(?:to|msg|mmsg)\(\d+<UDP(?:v6)?:\[.*?->\[?([0-9a-fA-F.:]+)\]?:\d+\]>")
_LISTENING = re.compile(r"listen\(\d+<TCP(?:v6)?:\[\[?([0-9a-fA-F.:]+?)\]?:\d+\]>")


class Traced(NamedTuple):
    """What a command printed, the addresses other than this machine's own that it and its children reached out to, and those of its own
    that they listened on, but for the loopback."""

    stdout: str
    contacted: set[str]
    listened: set[str]


def trace(arguments: list[str], log: Path) -> Traced:
    """Run a command, to its end; its system calls go into `log`."""
    calls = ["-e", "trace=connect,sendto,sendmsg,sendmmsg,listen", "-e", "signal=none"]
    traced = ["strace", "-f", "--seccomp-bpf", "-yy", *calls, "-o", str(log), *arguments]
    done = subprocess.run(traced, check=False, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    text = log.read_text("utf-8", errors="replace")
    contacted, listened = (
        {address.removeprefix("::ffff:") for address in found}
        for found in ((*_TCP.findall(text), *_UDP.findall(text)), _LISTENING.findall(text))
    )
    others = {address for address in contacted if address not in own and not address.startswith("127.")}
    return Traced(done.stdout, others, {address for address in listened if not address.startswith("127.") and address != "::1"})
