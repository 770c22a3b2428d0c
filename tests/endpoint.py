"""A running endpoint, as the tests of serving use it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml

from tests.support import ROOT, command, wait_for

MESSAGES: Any = [{"role": "user", "content": "Why is the sky blue?"}]


class Endpoint:
    """`xl serve` in a process of its own."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        path = folder / "endpoint.yaml"
        path.write_text(yaml.safe_dump({"applications": [{"name": "xl", "import_path": "serve.endpoint:build", "args": settings}]}))
        self._log = open(folder / "log", "w+")  # noqa: SIM115
        started = command("serve", path, "--port", "0", "--keys", folder / "keys.json", "--num-cpus", "2", "--set", "drain_seconds=20")
        self.process = subprocess.Popen(started, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: "endpoint: " in self.output() or self.process.poll() is not None, 600)
            assert self.process.poll() is None, self.output()
        except BaseException:
            self.close()
            raise
        self.url = re.search(r"endpoint: (\S+)", self.output()).group(1)  # type: ignore[union-attr]
        self.key = re.search(r"shown this once: (\S+)", self.output()).group(1)  # type: ignore[union-attr]

    def output(self) -> str:
        return Path(self._log.name).read_text()

    def client(self, max_retries: int = 0) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=self.key, max_retries=max_retries, timeout=300)

    def ask(self, model: str, max_retries: int = 0) -> Any:
        return self.client(max_retries).chat.completions.create(model=model, messages=MESSAGES)

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        return httpx.get(self.url.removesuffix("/v1") + path, headers={"authorization": f"Bearer {key or self.key}"}, timeout=30)

    def metric(self, name: str) -> float:
        return self._metrics()[name]

    def num_requests(self, model: str, status: int) -> int:
        """Requests that ended so; a counter appears with the first of them."""
        return int(self._metrics().get(f'xl_requests_total{{model="{model}",status="{status}"}}', 0))

    def num_replicas(self, model: str) -> int:
        return int(self.metric(f'xl_replicas{{model="{model}"}}'))

    def _metrics(self) -> dict[str, float]:
        return {name: float(value) for name, value in re.findall(r"^(\w\S*) (\S+)$", self.get("/metrics").text, re.M)}

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(120)
