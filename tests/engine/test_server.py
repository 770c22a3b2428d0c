"""The same recipe against a vLLM server of somebody else's: completions, likelihoods and a key over HTTP."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import STAGES
from tests.support import ROOT, assert_balanced, free_port, ledger, recipe, rows, succeeded, xl
from xl.engines.models import prepare, resolve
from xl.engines.vllm import cpu_dtype, executor_arguments
from xl.recipe import Model

pytestmark = pytest.mark.engine

KEY = "key-of-the-server"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM server with SmolLM2 135M on a free port of this machine."""
    found = resolve("packaged/smollm2-135m-instruct")
    prepare(found)
    port = free_port()
    executor = executor_arguments(Model(model=found.name))["distributed_executor_backend"]
    limits = ["--max-model-len", "2048", "--max-num-seqs", "16", "--max-num-batched-tokens", "2048", "--no-enable-chunked-prefill"]
    names = ["--model", found.path, "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port)]
    names += ["--distributed-executor-backend", executor]
    threads = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(os.cpu_count()), "VLLM_CPU_KVCACHE_SPACE": "1"}
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *names, *limits, "--dtype", cpu_dtype(), "--enforce-eager"],
            env={**os.environ, **threads, "VLLM_API_KEY": KEY, "VLLM_NO_USAGE_STATS": "1"},
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _wait_until_healthy(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-4000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"the server did not become healthy: {log.read_text()[-4000:]}")


def test_pages_become_rated_pairs_through_a_vllm_server(url: str, tmp_path: Path) -> None:
    writer = {"model": "smollm2", "engine": "openai", "url": url, "chat": False, "api_key_env": "SERVER_KEY", "concurrency": 16}
    pages = {"from": ["jobs/samples/pages/de.jsonl", "jobs/samples/pages/tr.jsonl"]}
    rating = {"num_contrasts": 2, "num_tokens": 24}
    path = recipe(tmp_path / "recipe.yaml", pages, languages=["de", "tr"], models={"writer": writer}, rating=rating)
    succeeded(xl("run", path, "--out", tmp_path / "run", "--limit", "20", env={"SERVER_KEY": KEY}))
    assert_balanced(tmp_path / "run", STAGES)
    every = ledger(tmp_path / "run")
    assert sum(entry["in"] for entry in every["pairs"].values()) == 40
    assert sum(entry["kept"] for entry in every["rated"].values()) >= 6
    assert not any(entry["failed"] for stage in every.values() for entry in stage.values())
    assert all(-20 < row["own_logprob"] < 0 for row in rows(tmp_path / "run", "rated"))
