"""Our stage `pairs` against a bare AsyncLLM loop with the same prompts and settings: tokens per second, in turn, pair by pair."""

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.bench.warm import RATED, WRITER, Measured, WarmRuns, summary, unique_rows, warm_up


class BareLoop:
    """One AsyncLLM in this process that gets all requests at once: what the engine can do with nothing around it."""

    def __init__(self) -> None:
        from xl.engines.models import prepare, resolve
        from xl.engines.vllm import VLLMEngine
        from xl.recipe import Model

        model = Model.model_validate(WRITER)
        found = resolve(model.model)
        prepare(found)
        # The engine's coroutines live in the loop that they began in.
        self._loop = asyncio.new_event_loop()
        self._engine = self._loop.run_until_complete(self._start(VLLMEngine, model, found))

    async def _start(self, engine: Any, model: Any, found: Any) -> Any:
        return engine(model, found.path, found.chat)

    def measure(self, requests: list[Any]) -> Measured:
        """All requests, and how long they took."""

        async def go() -> Measured:
            started = time.perf_counter()
            answers = await asyncio.gather(*(self._engine.complete(request) for request in requests))
            return Measured(time.perf_counter() - started, sum(answer.output_tokens for answer in answers))

        return self._loop.run_until_complete(go())

    def close(self) -> None:
        """End the engine."""
        self._loop.run_until_complete(self._engine.close())


def generation(runs: WarmRuns, num_rows: int, num_pairs: int, folder: Path) -> dict[str, Any]:
    """Tokens per second of our pass over those of the bare loop."""
    path = RATED.write(folder, num_rows)
    warm_up(runs, folder)
    bare = BareLoop()
    ratios: list[float] = []
    requests: list[Any] = []
    for number in range(num_pairs):
        measured = {}
        # The first of two may find the machine in another state: the order alternates.
        for name in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            if name == "ours":
                measured[name] = runs.stages(path, folder / f"run-{number}", ("pairs",), fused=False)
            else:
                measured[name] = bare.measure(requests := requests or _warmed(bare, folder / "run-0"))
        ratios.append(measured["ours"].tokens_per_second / measured["theirs"].tokens_per_second)
        print(f"generation, pair {number + 1}: {ratios[-1]:.3f} of the bare loop ({len(requests)} rows)", flush=True)
    bare.close()
    return {"rows": len(requests), **summary(ratios)}


def _warmed(bare: BareLoop, run: Path) -> list[Any]:
    """The requests, once the bare engine has answered a few of them."""
    requests = _requests(run)
    bare.measure(requests[:16])
    return requests


def _requests(run: Path) -> list[Any]:
    """What the stage `pairs` asked."""
    from xl.pairs.reverse import Reverse, reverse_instruction
    from xl.records import row_seed

    ask = reverse_instruction(Reverse())
    return [ask.prompt.render(row, False, ask.sampling, row_seed(7, row["id"], ask.name)) for row in unique_rows(run)]
