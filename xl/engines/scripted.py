"""An engine without a model, for unit tests, fault tests and measurements of everything around the model.

Its answers are a hash of what it is asked, so every run gives the same ones, whatever was killed on the way.
"""

import asyncio
import hashlib
import os
import signal

from xl.ask import Completion, EngineDied, Request, Score

TRACE = "XL_SCRIPTED_TRACE"
"""Environment variable that names the file where every request leaves a line."""

POISON = "this sentence ends the process of a scripted engine"
"""What a page must say to do what in a real engine a fault of the GPU does: a poison row."""

FAULT = "this sentence leaves a scripted engine without its core"
"""The same for an engine whose core is another process: this one lives on and cannot answer any more."""

_SUBJECTS = ("river", "city", "festival", "law", "animal", "method", "book", "team", "machine", "plant")
_VERBS = ("Explain", "Describe", "Outline", "Discuss")


class ScriptedEngine:
    """Answers after `delay_seconds` with an English instruction, a choice, or log-probabilities.

    Where the environment names a file in `TRACE`, every request leaves a line there, so that a test can count them.
    """

    def __init__(self, delay_seconds: float = 0.0, chat: bool = True) -> None:
        self.chat = chat
        self._delay_seconds = delay_seconds
        self._trace = os.environ.get(TRACE)
        self._has_core = True

    async def complete(self, request: Request) -> Completion:
        """An answer that depends on the prompt and the seed alone."""
        prompt = request.prompt or "\n".join(message.content for message in request.messages)
        number = _number(prompt, request.seed if request.sampling.temperature else 0)
        await self._take("complete", number)
        if POISON in prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        self._has_core = self._has_core and FAULT not in prompt
        self._check()
        if request.sampling.choices:
            text = request.sampling.choices[number % len(request.sampling.choices)]
        else:
            text = f"{_VERBS[number % 4]} how the {_SUBJECTS[number // 4 % 10]} came to be known as number {number % 9973}."
        return Completion(text, prompt_tokens=len(prompt) // 4, output_tokens=len(text) // 4)

    async def score(self, prompt: str, continuation: str, max_tokens: int) -> Score:
        """One log-probability between −3 and −1."""
        number = _number(prompt + continuation, 0)
        await self._take("score", number)
        return Score((-1 - number % 2000 / 1000,), prompt_tokens=len(prompt) // 4)

    async def close(self) -> None:
        """Nothing to release."""

    def _check(self) -> None:
        if not self._has_core:
            raise EngineDied("the core is gone")

    async def _take(self, kind: str, number: int) -> None:
        self._check()
        if self._trace:
            with open(self._trace, "a", encoding="ascii") as file:
                file.write(f"{kind} {number}\n")
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)


def _number(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=6).digest())
