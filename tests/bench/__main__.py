"""Speed side by side with the bare engine and the peers: same model, same input, same settings, in turn, in one go.

python -m tests.bench [NAME …] [--rows 512] [--pairs 3] [--out bench.json]

Prints ratios with their spread, never bare seconds: machines differ and are shared.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.chain import chain, processors
from tests.bench.filters import filters
from tests.bench.generation import generation
from tests.bench.memory import driver_memory
from tests.bench.scaling import scaling
from tests.bench.serving import NUM_REQUESTS, serving
from tests.bench.simulation import simulation
from tests.bench.training import Setting, training
from tests.bench.warm import RATED, WRITTEN, WarmRuns, save, told, warm_runs

NAMES = ("filters", "generation", "chain", "rated", "processors", "memory", "scaling", "simulation", "training", "serving")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure, of {', '.join(NAMES)}; by default everything")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of an engine, ours and theirs; with fewer than CPUs it shares none, as on a GPU")
    parser.add_argument("--pages", type=int, nargs=2, default=(100_000, 1_000_000), help="the two sizes between which memory may grow")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="of the training")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the training; cuda is one GPU")
    parser.add_argument("--model", default="packaged/gemma-3-270m", help="of the training: hub id, local folder, or packaged/NAME")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    wanted = arguments.names or NAMES
    with tempfile.TemporaryDirectory(prefix="xl-bench-") as temporary:
        measure(wanted, arguments, Path(temporary))


def measure(wanted: tuple[str, ...], arguments: argparse.Namespace, folder: Path) -> None:
    """Measure what is wanted; each result is printed and saved as soon as it is there."""
    rows, pairs, out = arguments.rows, arguments.pairs, arguments.out
    if "filters" in wanted:
        rates = filters()
        print("filters, pages/s on one core: " + ", ".join(f"{lang} {rate:,.0f}" for lang, rate in rates.items()), flush=True)
        save(out, "filters", {"pages_per_second_per_core": rates})
    if "memory" in wanted:
        result = driver_memory(tuple(arguments.pages), folder / "memory")
        print(f"driver's memory: {result['bytes_per_page']:.1f} bytes a page", flush=True)
        save(out, "memory", result)
    if "scaling" in wanted:
        save(out, "scaling", scaling(folder / "scaling"))
    if "simulation" in wanted:
        save(out, "simulation", simulation(folder / "simulation"))
    if "training" in wanted:
        (folder / "training").mkdir()
        setting = Setting(arguments.model, arguments.device, arguments.precision)
        result = training(pairs, folder / "training", setting)
        print(told(f"training in {setting.precision} on {setting.device}, supervised tokens/s over TRL's", result), flush=True)
        save(out, f"training_{setting.precision}_{setting.device}", result)
    if "serving" in wanted:
        (folder / "serving").mkdir()
        result = serving(pairs, folder / "serving")
        for num_tokens in NUM_REQUESTS:
            print(told(f"serving, requests/s over the bare server's at {num_tokens} new tokens", result[str(num_tokens)]), flush=True)
        save(out, "serving", result)
    comparisons: dict[str, tuple[str, Callable[[WarmRuns, Path], dict[str, Any]]]] = {
        "generation": ("generation, tokens/s over the bare loop's", lambda runs, at: generation(runs, rows, pairs, at)),
        "chain": ("chain that writes, rows/s over two passes with a barrier", lambda runs, at: chain(WRITTEN, runs, rows, pairs, at)),
        "rated": ("chain that rates, rows/s over two passes with a barrier", lambda runs, at: chain(RATED, runs, rows, pairs, at)),
        "processors": ("chain, tokens/s over two Ray Data LLM processors", lambda runs, at: processors(runs, rows, at)),
    }
    chosen = [name for name in comparisons if name in wanted]
    if not chosen:
        return
    with warm_runs(arguments.threads) as runs:
        for name in chosen:
            title, compare = comparisons[name]
            (folder / name).mkdir()
            result = compare(runs, folder / name)
            print(told(title, result), flush=True)
            save(out, name if arguments.threads is None else f"{name}_{arguments.threads}_threads", result)


if __name__ == "__main__":
    main()
