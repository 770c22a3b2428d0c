"""Two asks a row in one pass, against two passes with a barrier between them, and against two LLM processors of Ray Data."""

import time
from pathlib import Path
from typing import Any

from tests.bench.warm import RATED, WRITER, Measured, TwoAsks, WarmRuns, summary, unique_rows, warm_up


def chain(asks: TwoAsks, runs: WarmRuns, num_rows: int, num_pairs: int, folder: Path) -> dict[str, Any]:
    """Rows per second of the pass with both `asks` over those of two passes on the same engine; the order alternates.

    With `RATED` some rows of a batch want log-probabilities while others still write: vLLM then computes them for all rows, which takes
    time on CPU with a vocabulary of 262,144.

    Each run has pages of its own: of those that it had seen before, the engine would find prompts in its cache.
    """
    warm_up(runs, folder, asks)
    ratios: list[float] = []
    for number in range(num_pairs):
        measured: dict[bool, Measured] = {}
        for fused in (True, False) if number % 2 else (False, True):
            at = folder / f"run-{number}-{fused}"
            path = asks.write(at, num_rows, (1 + 2 * number + fused) * num_rows)
            measured[fused] = runs.stages(path, at / "run", asks.stages, fused)
        ratios.append(measured[False].seconds / measured[True].seconds)
        print(f"{' and '.join(asks.stages)}, pair {number + 1}: {ratios[-1]:.3f} of two passes with a barrier", flush=True)
    return {"rows": num_rows, **summary(ratios)}


def processors(runs: WarmRuns, num_rows: int, folder: Path) -> dict[str, Any]:
    """Tokens per second of our chain over those of two processors, each of which needs an engine of its own.

    Ray Data starts its engines inside the execution. To leave their start out, 32 rows are timed as well and taken off.
    """
    warm_up(runs, folder)
    ours = runs.stages(RATED.write(folder, num_rows), folder / "ours", RATED.stages)
    rows = unique_rows(folder / "ours")
    runs.end_engines()
    few, all_ = _two_processors(rows[:32]), _two_processors(rows)
    theirs = Measured(all_.seconds - few.seconds, all_.output_tokens - few.output_tokens)
    return {"rows": len(rows), **summary([ours.tokens_per_second / theirs.tokens_per_second])}


def _two_processors(rows: list[dict[str, Any]]) -> Measured:
    import ray

    from xl.pairs.rate import Rating, rate_pair
    from xl.pairs.reverse import Reverse, keep_instruction, reverse_instruction

    reverse, check, rate = reverse_instruction(Reverse()), keep_instruction(Reverse()), rate_pair(Rating())
    started = time.perf_counter()
    data = ray.data.from_items([{"row": row, "tokens": 0} for row in rows], override_num_blocks=max(1, len(rows) // 16))
    data = _processor(reverse)(data).filter(lambda item: check(item["row"]) is None)
    answers = _processor(rate)(data).take_all()
    return Measured(time.perf_counter() - started, sum(answer["tokens"] for answer in answers))


def _processor(ask: Any) -> Any:
    """A processor that asks `ask` of the column `row`."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from xl.ask import Completion, Drop
    from xl.engines.models import resolve
    from xl.engines.vllm import engine_arguments, executor_arguments
    from xl.recipe import Model
    from xl.records import row_seed

    model = Model.model_validate(WRITER)
    path = resolve(model.model).path
    arguments = {**engine_arguments(model, path), **executor_arguments(model)}
    del arguments["model"], arguments["disable_log_stats"]
    config = vLLMEngineProcessorConfig(
        model_source=path,
        engine_kwargs=arguments,
        batch_size=16,
        concurrency=1,
        chat_template_stage=False,
        tokenize_stage={"num_cpus": 0.1},
        detokenize_stage={"num_cpus": 0.1},
        max_concurrent_batches=4,
        placement_group_config={"bundles": [{"CPU": 0.1}]},  # by default the steps of two processors need more CPUs than two
        runtime_env={"env_vars": {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}},
    )

    def preprocess(item: dict[str, Any]) -> dict[str, Any]:
        request = ask.prompt.render(item["row"], False, ask.sampling, row_seed(7, item["row"]["id"], ask.name))
        sampling = {"max_tokens": request.sampling.max_tokens, "temperature": 0.0, "stop": list(request.sampling.stop)}
        if request.sampling.choices:
            sampling["structured_outputs"] = {"choice": list(request.sampling.choices)}
        return {**item, "prompt": request.prompt, "sampling_params": sampling}

    def postprocess(item: dict[str, Any]) -> dict[str, Any]:
        columns = ask.parse(item["row"], Completion(item["generated_text"]))
        row = {**item["row"], **({} if isinstance(columns, Drop) else columns)}
        return {"row": {"instruction": "", **row}, "tokens": item["tokens"] + item["num_generated_tokens"]}

    return build_processor(config, preprocess=preprocess, postprocess=postprocess)
