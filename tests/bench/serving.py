"""Requests per second through our endpoint, its API key included, over those of vLLM's own server with the same engine arguments.

Both run side by side and are asked in turn, each time the same prompts; the idle one's share of a core is noted. Beside the ratio:
CPU milliseconds a request outside vLLM's engine processes (gateway, Ray and replica; vLLM's API server), and peak resident memory.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.bench.memory import peak_resident_bytes
from tests.bench.warm import summary
from tests.endpoint import Endpoint
from tests.support import ROOT, WORDS, free_port, wait_for
from xl.engines.models import prepare, resolve
from xl.engines.vllm import cpu_environment, engine_arguments
from xl.serving.settings import ServedModel

NAME = "smollm2"
SETTINGS = {"model": "packaged/smollm2-135m-instruct", "max_model_len": 1024, "max_num_seqs": 32}
CONCURRENCY = 32
NUM_REQUESTS = {128: 128, 1: 512}
"""Requests of a measurement, by the new tokens that each asks for."""


@dataclass(frozen=True)
class Server:
    """A running server: `pid` is its first process, from which all others come."""

    url: str
    key: str
    pid: int

    def processes(self) -> list[psutil.Process]:
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


@dataclass(frozen=True)
class Load:
    """What a number of requests took."""

    requests_per_second: float
    front_cpu_milliseconds: float
    """A request, outside the engine's processes."""
    idle_cores: float
    """What the server that was not asked burnt meanwhile."""


def serving(num_pairs: int, folder: Path) -> dict[str, Any]:
    """Ratios by new tokens a request; the order alternates."""
    with our_server(folder) as ours, bare_server(folder) as bare:
        for server in (ours, bare):
            asyncio.run(_ask_all(server, _prompts("warm-up", 2 * CONCURRENCY), 8))
        result: dict[str, Any] = {str(num): _compare(ours, bare, num, num_pairs) for num in NUM_REQUESTS}
        peaks = {"ours": _peak_bytes(ours), "bare": _peak_bytes(bare)}
    for name, (front, whole) in peaks.items():
        print(f"serving, peak memory of {name}: {front / 1e9:.2f} GB outside the engine, {whole / 1e9:.2f} GB in all", flush=True)
    return {**result, "peak_bytes": peaks}


def _compare(ours: Server, bare: Server, num_tokens: int, num_pairs: int) -> dict[str, Any]:
    ratios: list[float] = []
    loads: list[dict[str, Any]] = []
    for number in range(num_pairs):
        prompts = _prompts(f"{num_tokens}-{number}", NUM_REQUESTS[num_tokens])
        order = ((ours, bare), (bare, ours)) if number % 2 else ((bare, ours), (ours, bare))
        pair = {asked.pid: _measure(asked, idle, prompts, num_tokens) for asked, idle in order}
        mine, theirs = pair[ours.pid], pair[bare.pid]
        ratios.append(mine.requests_per_second / theirs.requests_per_second)
        loads.append({"ours": asdict(mine), "bare": asdict(theirs)})
        print(
            f"serving at {num_tokens} new tokens, pair {number + 1}: {ratios[-1]:.3f} of the bare server; "
            f"CPU outside the engine {mine.front_cpu_milliseconds:.1f} and {theirs.front_cpu_milliseconds:.1f} ms a request; "
            f"idle meanwhile {mine.idle_cores:.3f} and {theirs.idle_cores:.3f} cores",
            flush=True,
        )
    return {"loads": loads, **summary(ratios)}


def _measure(asked: Server, idle: Server, prompts: list[str], num_tokens: int) -> Load:
    before, idle_before = _front_seconds(asked), _all_seconds(idle)
    started = time.perf_counter()
    asyncio.run(_ask_all(asked, prompts, num_tokens))
    seconds = time.perf_counter() - started
    front, idled = _front_seconds(asked) - before, _all_seconds(idle) - idle_before
    return Load(len(prompts) / seconds, 1000 * front / len(prompts), idled / seconds)


async def _ask_all(server: Server, prompts: list[str], num_tokens: int) -> None:
    """Ask all prompts, `CONCURRENCY` at a time; each answer must have its number of tokens."""
    waiting = iter(prompts)
    headers = {"authorization": f"Bearer {server.key}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            for prompt in waiting:
                message = {"role": "user", "content": prompt}
                body = {"model": NAME, "messages": [message], "max_tokens": num_tokens, "ignore_eos": True, "temperature": 0}
                async with session.post(f"{server.url}/chat/completions", json=body) as response:
                    text = await response.text()
                    assert response.status == 200, text
                    assert json.loads(text)["usage"]["completion_tokens"] == num_tokens

        await asyncio.gather(*(client() for _ in range(CONCURRENCY)))


def _prompts(name: str, number: int) -> list[str]:
    """Prompts of about 150 tokens. They differ from the first word on, so that no cached prefix helps."""
    words = [" ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 25)) for n in range(number)]
    return [f"{name}, number {n}: which of these words is the odd one out, and why? {some}" for n, some in enumerate(words)]


@contextmanager
def our_server(folder: Path) -> Iterator[Server]:
    """`xl serve` with a key."""
    endpoint = Endpoint(folder, {"models": {NAME: SETTINGS}, "limits": {"max_concurrent_sequences": 2 * CONCURRENCY}})
    try:
        yield Server(endpoint.url, endpoint.key, endpoint.process.pid)
    finally:
        endpoint.close()


@contextmanager
def bare_server(folder: Path) -> Iterator[Server]:
    """vLLM's OpenAI server, which writes no line for each request, as ours does not."""
    model = ServedModel(**SETTINGS)
    found = resolve(model.model)
    prepare(found)
    port = free_port()
    about = ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    key = secrets.token_hex(16)
    with open(folder / "bare.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *about, *_flags(model, found.path)],
            env={**os.environ, **cpu_environment(model), "VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"},
            stdout=log,
            stderr=log,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: _is_healthy(port) or server.poll() is not None, 600)
        assert server.poll() is None, (folder / "bare.log").read_text()[-4000:]
        yield Server(f"http://127.0.0.1:{port}/v1", key, server.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _flags(model: ServedModel, path: str) -> list[str]:
    """Our engine arguments as vLLM's command line takes them."""
    flags: list[str] = []
    for name, value in engine_arguments(model, path).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags


def _is_healthy(port: int) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        return True
    return False


def _is_engine(process: psutil.Process) -> bool:
    """Whether a process is one of vLLM's, which name themselves."""
    return "VLLM::" in " ".join(process.cmdline()) or process.name().startswith("VLLM::")


def _front_seconds(server: Server) -> float:
    return _cpu_seconds([process for process in server.processes() if not _is_engine(process)])


def _all_seconds(server: Server) -> float:
    return _cpu_seconds(server.processes())


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    return float(sum(process.cpu_times().user + process.cpu_times().system for process in processes))


def _peak_bytes(server: Server) -> tuple[int, int]:
    """Sum of the processes' peaks, outside the engine and in all; what they share is counted in each."""
    processes = server.processes()
    front = [process for process in processes if not _is_engine(process)]
    return sum(peak_resident_bytes(process.pid) for process in front), sum(peak_resident_bytes(process.pid) for process in processes)
