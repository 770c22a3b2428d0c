"""Speed side by side: our run against the bare engine, same model, prompts and settings; and the page filters alone.

    python -m tests.bench [--rows 512] [--pairs 3] [--out bench.json]

Prints ratios with their spread, never bare seconds: machines differ and are shared.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.support import SHARED, german_pages, recipe

WRITER = {"model": "packaged/gemma-3-270m", "max_model_len": 1024, "max_num_seqs": 32}


def bare_loop(requests: list[Any], model: Any, resolved: Any) -> dict[str, float]:
    """All requests at once on one AsyncLLM in this process: what the engine can do with nothing around it."""
    from xl.engines.vllm import VLLMEngine

    async def go() -> dict[str, float]:
        engine = VLLMEngine(model, resolved.path, resolved.chat)
        await engine.complete(requests[0])
        started = time.perf_counter()
        answers = await asyncio.gather(*(engine.complete(request) for request in requests))
        seconds = time.perf_counter() - started
        await engine.close()
        return {"seconds": seconds, "output_tokens": sum(answer.output_tokens for answer in answers)}

    return asyncio.run(go())


def our_pass(path: Path, out: Path) -> dict[str, float]:
    """The stage `pairs` of a run over the same pages, engine start not counted, reading, filtering and committing counted."""
    from xl.folder import open_run
    from xl.recipe import load_recipe
    from xl.runs import Options, run_recipe
    from xl.summary import shard_names

    run_recipe(load_recipe(path), out, Options(), Console(quiet=True))
    run = open_run(out)
    usage = run.store("pairs").usage(shard_names(run))
    return {"seconds": run.stage_info("pairs")["seconds"], "output_tokens": usage["reverse_instruction"][1]}


def generation(num_rows: int, num_pairs: int, folder: Path) -> dict[str, Any]:
    """Tokens per second of our pass over those of the bare loop, in turn, pair by pair."""
    from xl.engines.models import prepare, resolve
    from xl.pairs.reverse import Reverse, reverse_instruction
    from xl.recipe import Model
    from xl.records import row_seed

    model = Model(**WRITER)
    resolved = resolve(model.model)
    prepare(resolved)
    path = recipe(folder / "recipe.yaml", german_pages(folder / "pages", num_rows), models={"writer": WRITER}, rating={"num_tokens": 8})
    ask = reverse_instruction(Reverse())
    requests: list[Any] = []
    ratios: list[float] = []
    for number in range(num_pairs):
        ours = our_pass(path, folder / f"run-{number}")
        if not requests:
            rows = _rows_asked(folder / "run-0")
            requests = [ask.prompt.render(row, False, ask.sampling, row_seed(7, row["id"], ask.name)) for row in rows]
        bare = bare_loop(requests, model, resolved)
        ratios.append((ours["output_tokens"] / ours["seconds"]) / (bare["output_tokens"] / bare["seconds"]))
        print(f"generation, pair {number + 1}: {ratios[-1]:.3f} of the bare loop", flush=True)
    return {"rows": len(requests), "ratios": ratios, "median": statistics.median(ratios), "spread": [min(ratios), max(ratios)]}


def _rows_asked(run: Path) -> list[dict[str, Any]]:
    from xl.folder import open_run
    from xl.summary import shard_names

    folder = open_run(run)
    return [row for shard in shard_names(folder) for row, _ in folder.store("unique").kept(shard)]


def filters() -> dict[str, Any]:
    """Pages per second of all filters on one core, over the real pages of each language."""
    import pyarrow.parquet as pq

    from xl.ask import Drop
    from xl.pages.quality import Quality, page_filters

    steps = page_filters(Quality())
    rates: dict[str, float] = {}
    for path in sorted((SHARED / "web" / "culturax").glob("*/*.parquet")):
        pages = [{"id": "0", "lang": path.parent.name, "error": None, **page} for page in pq.read_table(path).to_pylist()]
        started = time.perf_counter()
        for page in pages:
            for step in steps:
                answer = step(page)
                if isinstance(answer, Drop):
                    break
                page.update(answer or {})
        rates[path.parent.name] = round(len(pages) / (time.perf_counter() - started), 1)
    return {"pages_per_second_per_core": rates}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    arguments = parser.parse_args()
    result: dict[str, Any] = {"filters": filters()}
    print("filters, pages/s on one core:", result["filters"]["pages_per_second_per_core"], flush=True)
    with tempfile.TemporaryDirectory(prefix="xl-bench-") as folder:
        result["generation"] = generation(arguments.rows, arguments.pairs, Path(folder))
    low, high = result["generation"]["spread"]
    print(f"generation: {result['generation']['median']:.3f} of the bare loop's tokens/s (median; {low:.3f} to {high:.3f})")
    arguments.out.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
