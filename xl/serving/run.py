"""`xl serve`: an endpoint on this machine, with a Ray of its own, until it is told to stop.

The gateway runs in this process and asks the replicas itself, without Ray Serve's proxy in between: one process less on each
request's way. On a cluster, `serve/endpoint.py` hosts the same gateway as a deployment.
"""

import logging
import math
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console

from xl.errors import UserError, require
from xl.ray_session import ray_session
from xl.serving.keys import ENVIRONMENT_VARIABLE, Keyring, add_key
from xl.serving.settings import Serving, is_loopback

FIRST_KEY = "first"
KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048


def run_endpoint(serving: Serving, console: Console, num_cpus: int | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are finished first.

    Raises:
        UserError: a model cannot be loaded, or the port is taken.
    """
    require("uvicorn", "cpu")
    from xl.serving.deploy import check_models, deployed, replica_counter
    from xl.serving.gateway import build_gateway

    check_models(serving)
    keyring = open_keyring(serving, console)
    # Ray only counts CPUs. What its models ask for must be there, or it would wait for it without a word.
    asked = math.ceil(sum(model.cpus * model.replicas[1] for model in serving.models.values()))
    num_cpus = num_cpus or max(asked, os.cpu_count() or 1)
    # Serve's threads outlive the Ray that is shut down at the end, and would start another one.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    with _listening(serving.host, serving.port) as listener, ray_session(num_cpus=num_cpus):
        console.print(f"starting {', '.join(serving.models)}", highlight=False)
        # Ray's own handler of SIGTERM ends the process before its children are cleared away.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with deployed(serving) as backends:
            host, port = listener.getsockname()[:2]
            console.print(f"endpoint: http://{host}:{port}/v1", highlight=False)
            if not is_loopback(serving.host):
                console.print("keys and answers travel unencrypted: put a TLS proxy in front of an address that others can reach")
            _listen(build_gateway(serving, keyring, backends, replica_counter(serving)), listener, serving.drain_seconds)


def _listen(gateway: Any, listener: socket.socket, drain_seconds: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        gateway,
        lifespan="off",
        access_log=False,
        server_header=False,
        log_level=logging.WARNING,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
    )
    with suppress(KeyboardInterrupt):  # raised again by uvicorn once it has drained
        uvicorn.Server(config).run(sockets=[listener])


def open_keyring(serving: Serving, console: Console) -> Keyring | None:
    """The keys of an endpoint, or None where it asks for none. Where there is no key yet, one is made and shown this once.

    The environment variable is taken out of this process's environment, so that no worker inherits it.
    """
    if not serving.require_key:
        console.print("no key is asked for: whoever can log in to this machine can use the endpoint")
        return None
    keyring = Keyring(serving.keys_path, os.environ)
    os.environ.pop(ENVIRONMENT_VARIABLE, None)
    if not len(keyring):
        secret = add_key(serving.keys_path, FIRST_KEY)
        print(f"key {FIRST_KEY!r}, shown this once: {secret}", flush=True)  # not by rich, which may break the line
        keyring = Keyring(serving.keys_path, {})
    return keyring


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The port, taken before anything slow starts; who connects before the models are there is refused. Raises UserError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
        yield listener
