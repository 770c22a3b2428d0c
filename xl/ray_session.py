"""A Ray for a run: its own, that of a cluster, or the one that the program is connected to."""

import contextlib
import os
import socket
import traceback
from collections.abc import Iterator
from typing import Any

from xl.engines.scripted import TRACE
from xl.errors import Unavailable, UserError, require
from xl.placement import beside_engines

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "maximum expected startup concurrency",
}
"""No usage report of Ray, vLLM or the hub client leaves the machine, and logs stay short. The user's own settings win."""

OBJECTS = {"RAY_max_direct_call_object_size": "8192"}
"""Ray keeps what a task returns in the driver's own memory if it has fewer bytes; by default 100 kB, which is most parcels. Parcels that
wait for a worker are to wait in the object store, so that the driver does not grow with the input."""


IN_A_JOB = {"RAY_OVERRIDE_JOB_RUNTIME_ENV": "1"}
"""What a submitted job says of its environment, we say again (`worker_environment`), which Ray would take for a contradiction."""


@contextlib.contextmanager
def ray_session(address: str | None = None, num_cpus: int | None = None) -> Iterator[Any]:
    """A Ray of this run's own, or a connection to the cluster at `address`.

    A program that is connected to a Ray keeps that one, whatever `address` and `num_cpus` say. A private Ray has no dashboard, listens on
    the loopback alone and ends with the run, so that runs side by side do not meet.

    Raises:
        Unavailable: no cluster answers at `address`.
        UserError: it does not let us in; a private Ray does not start.
    """
    for key, value in {**QUIET, **OBJECTS, **IN_A_JOB}.items():
        os.environ.setdefault(key, value)
    ray = require("ray", "cpu")
    require("ray.data", "cpu")
    with contextlib.nullcontext() if ray.is_initialized() else _connection(address, num_cpus), _data_context():
        yield ray


def worker_environment() -> dict[str, dict[str, str]]:
    """What processes on other machines have of this one's environment, as a runtime environment of Ray."""
    return {"env_vars": {key: os.environ[key] for key in (*QUIET, *OBJECTS, TRACE) if key in os.environ}}


@contextlib.contextmanager
def _connection(address: str | None, num_cpus: int | None) -> Iterator[None]:
    import logging

    import ray

    local: dict[str, Any] = {"num_cpus": num_cpus or max(2, os.cpu_count() or 2), "include_dashboard": False}
    with bare_node(), contextlib.nullcontext() if address else _loopback(), _explained_start(address):
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            runtime_env=worker_environment(),
            **({} if address else local),
        )
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _data_context() -> Iterator[None]:
    """Ray Data's settings for our executions."""
    import logging

    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # Ray Data's own wrapping would lose a worker's UserError on its way to the driver
    # With blocks of one row a parcel goes to a worker as soon as it is read, and its acknowledgement comes back as soon as it is done.
    context.target_max_block_size = 1
    context.execution_no_progress_timeout_s = -1  # to wait for a spot node is no error, however long it takes
    context.execution_options.label_selector = beside_engines() or None
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it would print the traceback of what we tell in a line
    try:
        with DataContext.current(context):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _explained_start(address: str | None) -> Iterator[None]:
    """Say in a user's words why a cluster cannot be joined, or Ray not be started. Where nobody answers Ray would try for minutes."""
    if (address or "").startswith("http"):
        raise UserError(f"--address {address} is a dashboard; `xl submit --cluster` wants one, --address a Ray: `auto`, or HOST:6379")
    host, _, port = (address or "").rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise Unavailable(f"--address {address}: no Ray cluster answers there ({error.strerror or error})") from None
    try:
        yield
    except Exception as error:
        if address is None:
            raise UserError(f"Ray did not start on this machine; is it overloaded, or its disk full? Ray says: {error}") from error
        if not isinstance(error, ConnectionError):
            raise
        wants_token = "InvalidAuthToken" in "".join(traceback.format_exception(error))
        if wants_token:
            how = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless it is in ~/.ray/auth_token"
            raise UserError(f"--address {address}: the cluster wants a token: {how}") from None
        raise Unavailable(f"--address {address}: no Ray cluster answers there ({error})") from None


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Have a Ray that starts listen on 127.0.0.1 alone: without a token it would let anybody who reaches it run code.

    Ray does so where it makes no clusters of several machines, which on Linux is not asked for by any argument (2.60,
    `get_node_ip_address`); with the node's address alone its servers still listen on all interfaces.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def bare_node() -> Iterator[None]:
    """Keep a private Ray from starting processes that nothing here needs, each with libraries of its own to load.

    These are the autoscaler, since one machine cannot grow; what sends workers' logs to the driver, which nobody reads; and the API
    server. That one Ray starts without a dashboard too, for its usage report, and with the report switched off it still asks the
    metadata services of three clouds where it runs (2.60, `ray/_common/usage/usage_lib.py`).
    """
    from ray._private.node import Node

    starts = {name: getattr(Node, name) for name in ("start_api_server", "start_monitor", "start_log_monitor")}
    for name in starts:
        setattr(Node, name, lambda self, **_: None)
    try:
        yield
    finally:
        for name, start in starts.items():
            setattr(Node, name, start)
