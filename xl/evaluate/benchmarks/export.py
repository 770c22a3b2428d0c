"""Results in the files of lm-evaluation-harness, for the tools that read those.

As its version 0.4 writes them: FOLDER/MODEL/results_DATE.json, and FOLDER/MODEL/samples_TASK_DATE.jsonl with one line a question. A
benchmark in a language is a task there (`xquad_de`), and the mean over languages its group (`xquad`), by the name that the recipe gives it.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xl.evaluate.benchmarks.catalogue import BENCHMARKS
from xl.evaluate.benchmarks.results import Result, Score, Scored, scored_answers
from xl.evaluate.benchmarks.run import asked_tasks
from xl.folder import RunFolder

_FILTER = "none"
"""Answers are not filtered before they are scored."""


def export_lm_eval(run: RunFolder, found: Sequence[Result], folder: Path) -> list[Path]:
    """Write a finished folder's results, one subfolder a model; returns the files with the results."""
    date = time.strftime("%Y-%m-%dT%H-%M-%S")
    tasks = {task.label: task for task in asked_tasks(run)}
    written = []
    for role, model in run.info["models"].items():
        own = [result for result in found if result.role == role]
        target = folder / file_name(model["name"])
        target.mkdir(parents=True, exist_ok=True)
        path = target / f"results_{date}.json"
        path.write_text(json.dumps({**aggregated(own), "model_name": model["name"], "date": time.time()}, indent=2) + "\n", "utf-8")
        written.append(path)
        for result in own:
            answers = scored_answers(run, tasks[result.name], role)
            for lang in result.languages:
                lines = [json.dumps(sample, ensure_ascii=False) for sample in samples(answers, lang, result.task)]
                (target / f"samples_{result.name}_{lang}_{date}.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return written


def file_name(name: str) -> str:
    """A model's name without what a file's cannot have."""
    return re.sub(r"[^\w.-]+", "__", name)


def aggregated(found: Sequence[Result]) -> dict[str, Any]:
    """The harness's results of one model: `results`, `groups`, `configs`, `versions`, `n-shot`, `higher_is_better`, `n-samples`."""
    tasks = {f"{result.name}_{lang}": (result, score) for result in found for lang, score in result.languages.items()}
    groups = {result.name: {"alias": result.name, **_figures(result.mean)} for result in found}
    return {
        "results": {name: {"alias": name, **_figures(score)} for name, (_, score) in tasks.items()} | groups,
        "groups": groups,
        "group_subtasks": {result.name: [f"{result.name}_{lang}" for lang in result.languages] for result in found},
        "configs": {name: _config(name, result) for name, (result, _) in tasks.items()},
        "versions": dict.fromkeys(tasks, 1),
        "n-shot": {name: result.num_shots for name, (result, _) in tasks.items()},
        "higher_is_better": {name: dict.fromkeys(BENCHMARKS[result.task].measures, True) for name, (result, _) in tasks.items()},
        "n-samples": {
            name: {"original": score.num_items + score.num_failed, "effective": score.num_items} for name, (_, score) in tasks.items()
        },
    }


def _figures(score: Score) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, estimate in score.measures.items():
        figures |= {f"{name},{_FILTER}": estimate.value, f"{name}_stderr,{_FILTER}": estimate.standard_error}
    return figures


def _config(name: str, result: Result) -> dict[str, Any]:
    metrics = [{"metric": measure, "aggregation": "mean", "higher_is_better": True} for measure in BENCHMARKS[result.task].measures]
    return {"task": name, "tag": result.name, "num_fewshot": result.num_shots, "metric_list": metrics, "metadata": {"paper": result.paper}}


def samples(answers: Sequence[Scored], lang: str, task: str) -> Iterator[dict[str, Any]]:
    """The harness's lines of a language: the prompts as sent, the answers or the choices' log-probabilities, and the measures."""
    for number, one in enumerate(answer for answer in answers if answer.item.lang == lang):
        item, target = one.item, "\n".join(one.item.gold)
        arguments: list[list[Any]] = [[item.prompt, choice] for choice in item.choices]
        responses: list[Any] = [[str(logprob)] for logprob in one.answer.logprobs]
        if not one.answer.logprobs:
            drawn = {"temperature": item.temperature, "top_p": item.top_p, "do_sample": item.temperature > 0}
            arguments = [[item.prompt, {"until": item.stop, "max_gen_toks": item.max_tokens, **drawn}]]
            responses = [one.answer.text]
        yield {
            "doc_id": number,
            "doc": {"id": item.key, "group": item.group, "choices": item.choices, "answers": item.gold},
            "target": target,
            "arguments": {f"gen_args_{i}": {f"arg_{j}": value for j, value in enumerate(pair)} for i, pair in enumerate(arguments)},
            "resps": [[response] for response in responses],
            "filtered_resps": responses,
            "filter": _FILTER,
            "metrics": list(BENCHMARKS[task].measures),
            "doc_hash": _hash(f"{task} {lang} {item.key}"),
            "prompt_hash": _hash(item.prompt),
            "target_hash": _hash(target),
            **one.measures,
        }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
