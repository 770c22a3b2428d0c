"""The endpoint as `xl serve` starts it, with scripted models on a real Ray Serve: one endpoint for all tests here."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.endpoint import MESSAGES, Endpoint
from tests.support import ROOT, assert_balanced, free_port, german_pages, ledger, recipe, succeeded, wait_for, xl

pytestmark = pytest.mark.ray

SCRIPTED = {"model": "scripted", "engine": "scripted", "delay_seconds": 0.05}
SLOW = {**SCRIPTED, "delay_seconds": 0.5}
SETTINGS = {
    "models": {
        "plain": SCRIPTED,
        "pair": {**SLOW, "replicas": 2},
        "growing": {**SLOW, "replicas": [1, 3], "target_ongoing_requests": 4},
        "sleeping": {**SCRIPTED, "scale_to_zero": True},
    },
    "limits": {"max_concurrent_sequences": 32},
    "upscale_delay_seconds": 1,
    "downscale_delay_seconds": 3,
}

NUM_PAGES = 64


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    running = Endpoint(tmp_path_factory.mktemp("endpoint"), SETTINGS)
    yield running
    running.close()


def test_models_answer_by_name_whole_and_streamed(endpoint: Endpoint) -> None:
    assert {model.id for model in endpoint.client().models.list()} == set(SETTINGS["models"])  # type: ignore[arg-type]
    whole = endpoint.ask("plain")
    parts = endpoint.client().chat.completions.create(model="plain", messages=MESSAGES, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert endpoint.ask("pair").system_fingerprint != whole.system_fingerprint, "each model has replicas of its own"


def test_it_listens_on_this_machine_alone_and_answers_nobody_without_a_key(endpoint: Endpoint) -> None:
    assert endpoint.url.startswith("http://127.0.0.1:")
    assert endpoint.get("/v1/models", key="xl-wrong").status_code == 401
    assert endpoint.get("/ready", key="xl-wrong").json() == {"ready": True}
    assert endpoint.output().count(endpoint.key) == 1


def test_a_killed_replica_loses_no_request_of_a_client_that_retries(endpoint: Endpoint) -> None:
    killed = int(endpoint.ask("pair").system_fingerprint.removeprefix("pid-"))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(endpoint.ask, "pair", 8) for _ in range(80)]
        wait_for(lambda: sum(answer.done() for answer in answers) >= 20)
        os.kill(killed, signal.SIGKILL)
        pids = [answer.result().system_fingerprint for answer in answers]
    assert len(pids) == 80 and len(set(pids)) >= 2
    wait_for(lambda: endpoint.num_replicas("pair") == 2)


def test_a_killed_replica_loses_no_row_of_a_run_that_asks_the_endpoint(endpoint: Endpoint, tmp_path: Path) -> None:
    writer = {"model": "pair", "engine": "openai", "url": endpoint.url, "api_key_env": "ENDPOINT_KEY", "concurrency": 8}
    pages = german_pages(tmp_path / "pages", NUM_PAGES)
    path = recipe(tmp_path / "recipe.yaml", pages, models={"writer": writer}, rating={"rater": "prompted"})
    run = tmp_path / "run"
    answered, lost = endpoint.num_requests("pair", 200), endpoint.num_requests("pair", 503)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(xl, "run", path, "--out", run, env={"ENDPOINT_KEY": endpoint.key})
        wait_for(lambda: done.done() or endpoint.num_requests("pair", 200) >= answered + NUM_PAGES / 4)
        # The load is not always on the replica that is killed.
        while not done.done() and endpoint.num_requests("pair", 503) == lost:
            wait_for(lambda: done.done() or endpoint.num_replicas("pair") == 2)
            os.kill(int(endpoint.ask("pair").system_fingerprint.removeprefix("pid-")), signal.SIGKILL)
        succeeded(done.result())
    assert endpoint.num_requests("pair", 503) > lost, "the replica had requests under way when it was killed"
    assert_balanced(run, ["pages", "unique", "pairs", "rated", "accepted", "dataset"])
    every = {stage: entry["de"] for stage, entry in ledger(run).items()}
    assert every["pages"]["in"] == NUM_PAGES and not any(entry["failed"] for entry in every.values())
    assert every["rated"]["kept"] == every["pairs"]["kept"] > NUM_PAGES / 2, "answers were read, not only received"


def test_replicas_grow_with_load_and_shrink_without(endpoint: Endpoint) -> None:
    assert endpoint.num_replicas("growing") == 1
    seen: set[str] = set()

    async def load(until: Callable[[], bool]) -> None:
        client = openai.AsyncOpenAI(base_url=endpoint.url, api_key=endpoint.key, max_retries=5, timeout=60)

        async def ask() -> None:
            while not until():
                seen.add((await client.chat.completions.create(model="growing", messages=MESSAGES)).system_fingerprint or "")

        await asyncio.gather(*(ask() for _ in range(24)))

    with ThreadPoolExecutor(1) as pool:
        grown = pool.submit(wait_for, lambda: endpoint.num_replicas("growing") == 3 and len(seen) >= 3, 90)
        asyncio.run(load(grown.done))
        grown.result()
    wait_for(lambda: endpoint.num_replicas("growing") == 1)


def test_an_idle_model_sleeps_where_allowed_and_wakes_when_asked(endpoint: Endpoint) -> None:
    wait_for(lambda: endpoint.num_replicas("sleeping") == 0)
    assert endpoint.ask("sleeping").choices[0].message.content
    assert endpoint.get("/ready").status_code == 200


def test_requests_under_way_are_finished_before_it_stops(endpoint: Endpoint) -> None:
    """The last test: it stops the endpoint."""
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(endpoint.ask, "growing") for _ in range(4)]
        wait_for(lambda: endpoint.metric('xl_ongoing_sequences{key="first"}') == 4, 5)
        endpoint.process.send_signal(signal.SIGTERM)
        assert all(answer.result().choices[0].message.content for answer in answers)
    assert endpoint.process.wait(60) == 0


_CLUSTER = """
import json, os, sys
import httpx, ray, yaml
from ray import serve
from ray._common.utils import import_attr
from ray.serve.schema import ServeDeploySchema

configurations = [ServeDeploySchema.model_validate(yaml.safe_load(open(f"serve/{name}.yaml"))) for name in ("endpoint", "cpu")]
application = configurations[0].applications[0]
arguments = {"models": {"m": {"model": "scripted", "engine": "scripted"}}}
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(import_attr(application.import_path)(arguments), name=application.name, route_prefix=application.route_prefix)
url = f"http://127.0.0.1:{sys.argv[1]}"
ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
good = {"authorization": "Bearer good"}
post = lambda body, headers: httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
streamed = post({**ask, "stream": True}, good).text
result = {"good": post(ask, good).status_code, "bad": post(ask, {}).status_code, "streamed": streamed.endswith("[DONE]\\n\\n")}
result["large"] = post({**ask, "user": "x" * 5_000_000}, good).status_code
print("RESULT", json.dumps({**result, "ready": httpx.get(f"{url}/ready").json()}))
"""


def test_the_same_endpoint_runs_as_a_serve_application_on_a_cluster(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "XL_API_KEYS": "good",
        "XDG_CONFIG_HOME": str(tmp_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_AUTO_CONNECT": "0",
    }
    arguments = [sys.executable, "-c", _CLUSTER, str(port)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=600, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).removeprefix("RESULT "))
    assert result == {"good": 200, "bad": 401, "streamed": True, "large": 413, "ready": {"ready": True}}
