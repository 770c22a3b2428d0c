"""An OpenAI-compatible server without a model that fails as servers do: too busy, broken, silent, cut off, or talking nonsense.

Answers depend on the prompt alone and faults on the seed, the question and how often it was asked, never on the order of arrival:
a whole pipeline can be run against it twice with one outcome. Run alone: `python tests/fault_server.py --port 8001 --fault-ratio 0.3`.
"""

import argparse
import asyncio
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from aiohttp import web

from xl.ask import Message, Request, Sampling
from xl.engines.scripted import ScriptedEngine

FAULTS = ("rate_limit", "server_error", "silence", "cut_off", "nonsense")
NONSENSE = (
    '{"choices": [',
    '{"choices": []}',
    '{"ok": true}',
    "<html>Bad gateway</html>",
    '{"choices": [{"index": 0, "message": {"role": "assistant", "content": null}, "text": null, "finish_reason": "stop"}]}',
)


@dataclass
class FaultServer:
    """What the server does, and what it saw. Use it as `async with FaultServer(...) as server`."""

    model: str = "scripted"
    fault_ratio: float = 0.0
    faults: tuple[str, ...] = FAULTS
    seed: int = 0
    retry_after: str = "0.05"
    """Value of the header that comes with a 429."""
    silence_seconds: float = 10.0
    delay_seconds: float = 0.0
    api_key: str | None = None
    """The only key it takes; None takes any."""
    refuses: tuple[str, ...] = ()
    """Parameters that it answers with a 400, as vendors do."""
    owned_by: str = "vllm"
    echoes: bool = True
    bos: str = "<bos>"
    """Text of a first token that is not in the prompt; vLLM counts it in its offsets."""
    offsets: Literal["vllm", "exact", "none"] = "vllm"
    rewrites: bool = False
    """Whether its tokenizer changes the text (here: to capitals), so that tokens do not add up to it."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of all questions, as they came."""
    arrivals: list[float] = field(default_factory=list)
    """When they came, in seconds of a monotonic clock."""
    max_concurrency: int = 0
    _num_open: int = 0
    _seen: Counter[str] = field(default_factory=Counter)
    _runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1; port 0 takes a free one. `url` then says where."""
        app = web.Application()
        app.add_routes([web.get("/v1/models", self._models), web.post("/v1/{path:(chat/)?completions}", self._question)])
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> "FaultServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _refusal(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        return None if self.api_key is None or given == f"Bearer {self.api_key}" else _error(401, f"Incorrect API key provided: {given}")

    async def _models(self, request: web.Request) -> web.Response:
        card = {"id": self.model, "object": "model", "created": 0, "owned_by": self.owned_by}
        return self._refusal(request) or web.json_response({"object": "list", "data": [card]})

    async def _question(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.arrivals.append(time.monotonic())
        self._num_open += 1
        self.max_concurrency = max(self.max_concurrency, self._num_open)
        try:
            return await self._answer(request, body)
        finally:
            self._num_open -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if (refusal := self._refusal(request)) is not None:
            return refusal
        if body["model"] != self.model:
            return _error(404, f"The model `{body['model']}` does not exist.")
        for name in self.refuses:
            if name in body:
                return _error(400, f"Unrecognized request argument supplied: {name}", param=name)
        chat = request.match_info["path"].startswith("chat")
        answer = json.dumps(await self._reply(body, chat))
        question = json.dumps(body, sort_keys=True)
        self._seen[question] += 1
        draw = random.Random(f"{self.seed}\0{self._seen[question]}\0{question}")
        if draw.random() >= self.fault_ratio:
            return web.Response(text=answer, content_type="application/json")
        return await self._fail(request, draw, answer)

    async def _fail(self, request: web.Request, draw: random.Random, answer: str) -> web.StreamResponse:
        fault = draw.choice(self.faults)
        if fault == "rate_limit":
            return _error(429, "Too many requests", headers={"Retry-After": self.retry_after})
        if fault == "server_error":
            return _error(500, "Internal error")
        if fault == "nonsense":
            return web.Response(text=draw.choice(NONSENSE), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Length": str(len(answer)), "Content-Type": "application/json"})
        if fault == "silence":
            await asyncio.sleep(self.silence_seconds)
        else:
            await response.prepare(request)
            await response.write(answer.encode()[: len(answer) // 2])
        if request.transport is not None:
            request.transport.close()
        return response

    async def _reply(self, body: dict[str, Any], chat: bool) -> dict[str, Any]:
        choices = tuple(body.get("structured_outputs", {}).get("choice", ()))
        sampling = Sampling(choices=choices, temperature=body.get("temperature", 1.0))
        messages = tuple(Message(turn["role"], turn["content"]) for turn in body.get("messages", ()))
        prompt = body.get("prompt", "")
        completion = await ScriptedEngine().complete(Request(sampling, body.get("seed", 0), messages, prompt))
        tokens = _tokens(completion.text)
        if not chat and body.get("max_tokens") == 1:
            tokens = tokens[:1]
        text = "".join(tokens)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        num_prompt_tokens = completion.prompt_tokens
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            if body.get("logprobs"):
                tops = [{"token": token, "logprob": value} for token, value in _alternatives(tokens[0], choices, body["top_logprobs"])]
                choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
        else:
            before = _tokens(prompt.upper() if self.rewrites else prompt, self.bos)
            num_prompt_tokens = len(before)
            echoed = before if self.echoes and body.get("echo") else []
            choice["text"] = (prompt if echoed else "") + text
            if body.get("logprobs") is not None:
                choice["logprobs"] = self._logprobs(echoed, tokens, choices, body["logprobs"])
        usage = {"prompt_tokens": num_prompt_tokens, "completion_tokens": len(tokens), "total_tokens": num_prompt_tokens + len(tokens)}
        return {"id": "cmpl-0", "object": "chat.completion", "created": 0, "model": self.model, "choices": [choice], "usage": usage}

    def _logprobs(self, echoed: list[str], generated: list[str], choices: tuple[str, ...], num_top: int) -> dict[str, Any]:
        tokens = echoed + generated
        values = [None if echoed and i == 0 else logprob_of(token) for i, token in enumerate(tokens)]
        tops = [
            None if value is None else dict(_alternatives(token, choices, num_top)) for token, value in zip(tokens, values, strict=True)
        ]
        starts = list(accumulate(map(len, tokens), initial=0))[:-1]
        if self.offsets == "exact" and echoed:
            starts = [max(0, start - len(self.bos)) for start in starts]
        result = {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": starts}
        return {key: value for key, value in result.items() if key != "text_offset" or self.offsets != "none"}


def logprob_of(token: str) -> float:
    """The log-probability that this server gives a token, wherever it stands."""
    return -random.Random(token).uniform(0.1, 6)


def _tokens(text: str, bos: str = "") -> list[str]:
    """A word with the space before it, a line break, or a punctuation mark. As vLLM shows them, one CJK character takes three tokens."""
    pieces = re.findall(r"[\u4e00-\u9fff]|\n| ?[^\W\u4e00-\u9fff]+|\s|[^\w\s]", text)
    return ([bos] if bos else []) + [part for piece in pieces for part in (["", "", piece] if "\u4e00" <= piece <= "\u9fff" else [piece])]


def _alternatives(token: str, choices: tuple[str, ...], num_top: int) -> list[tuple[str, float]]:
    names = [token, *(choice for choice in choices if choice != token), "other"]
    return [(name, -0.2 - rank) for rank, name in enumerate(names[: max(num_top, 1)])]


def _error(status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "error", "param": param, "code": None}}, status=status, headers=headers)


async def _serve(server: FaultServer, port: int) -> None:
    await server.start(port)
    print(server.url, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await server.close()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--model", default="scripted")
    parser.add_argument("--fault-ratio", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay-seconds", type=float, default=0.0)
    parser.add_argument("--silence-seconds", type=float, default=10.0)
    options = vars(parser.parse_args())
    port = options.pop("port")
    try:
        asyncio.run(_serve(FaultServer(**options), port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
