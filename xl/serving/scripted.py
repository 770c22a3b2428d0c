"""A model without weights that speaks OpenAI's protocol, for tests of everything around the engine."""

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from xl.ask import Message, Sampling
from xl.ask import Request as Ask
from xl.engines.scripted import ScriptedEngine
from xl.serving.inprocess import Forwarder


def scripted_app(delay_seconds: float) -> Starlette:
    """The engine's own server, as vLLM has one, with vLLM's `choice`. `system_fingerprint` tells the process that answered."""
    engine = ScriptedEngine(delay_seconds)

    async def generate(request: Request) -> Response:
        asked = await request.json()
        messages = tuple(Message(m["role"], m["content"]) for m in asked.get("messages", ()))
        choices = tuple(asked.get("structured_outputs", {}).get("choice", ()))
        sampling = Sampling(max_tokens=asked.get("max_tokens", 16), temperature=asked.get("temperature", 0.0), choices=choices)
        completion = await engine.complete(Ask(sampling, asked.get("seed", 0), messages, str(asked.get("prompt", ""))))
        words = completion.text.split(" ")[: sampling.max_tokens]
        is_chat = bool(messages)
        kind = "chat.completion" if is_chat else "text_completion"
        reply = {"id": uuid.uuid4().hex, "created": int(time.time()), "model": asked["model"], "system_fingerprint": f"pid-{os.getpid()}"}
        if asked.get("stream"):
            return StreamingResponse(_events({**reply, "object": f"{kind}.chunk"}, words, is_chat), media_type="text/event-stream")
        usage = {"prompt_tokens": completion.prompt_tokens, "completion_tokens": len(words)}
        usage["total_tokens"] = sum(usage.values())
        return JSONResponse({**reply, "object": kind, "choices": [_choice(" ".join(words), is_chat, "message")], "usage": usage})

    return Starlette(routes=[Route(path, generate, methods=["POST"]) for path in ("/v1/chat/completions", "/v1/completions")])


def _choice(text: str, is_chat: bool, key: str, finish: str | None = "stop") -> dict[str, Any]:
    content = {key: {"role": "assistant", "content": text}} if is_chat else {"text": text}
    return {"index": 0, "finish_reason": finish, "logprobs": None, **content}


async def _events(reply: dict[str, Any], words: list[str], is_chat: bool) -> AsyncGenerator[str, None]:
    for number, word in enumerate(words):
        last = number == len(words) - 1
        choice = _choice(word if last else f"{word} ", is_chat, "delta", "stop" if last else None)
        yield f"data: {json.dumps({**reply, 'choices': [choice]})}\n\n"
        await asyncio.sleep(0)
    yield "data: [DONE]\n\n"


class ScriptedReplica(Forwarder):
    """A replica as Ray Serve runs it; see `xl.serving.llm.LLMReplica` for the one with an engine."""

    def __init__(self, delay_seconds: float) -> None:
        self._app = scripted_app(delay_seconds)
