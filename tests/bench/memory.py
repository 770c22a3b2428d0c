"""How the driver's memory grows with the number of pages, with the scripted engine.

All pages are read, planned, filtered and accounted for; one in `ONE_IN` is long enough to be kept and goes through the engine.
"""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support import ROOT, command, german_pages, recipe

ONE_IN = 100
FILES = 10


def write_pages(folder: Path, num_pages: int) -> Path:
    """Pages in `FILES` files: most of them a few words, which the filters drop."""
    german_pages(folder, num_pages // ONE_IN)
    short = num_pages - num_pages // ONE_IN
    for number in range(FILES):
        with open(folder / f"short-{number}.jsonl", "w", encoding="utf-8") as file:
            for n in range(number, short, FILES):
                file.write(json.dumps({"url": f"https://b.example/{n}", "lang": "de", "text": f"Kurze Seite Nummer {n}."}) + "\n")
    return folder


def peak_resident_bytes(pid: int) -> int:
    """Greatest resident memory of a process so far, in bytes; 0 for one that has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def peak_bytes(num_pages: int, folder: Path) -> int:
    """Greatest resident memory of the driver during a run over so many pages, in bytes."""
    folder.mkdir(parents=True)
    path = recipe(folder / "recipe.yaml", write_pages(folder / "pages", num_pages))
    with open(folder / "log", "w") as log:
        driver = subprocess.Popen(command("run", path, "--out", folder / "run"), cwd=ROOT, stdout=log, stderr=log)
        peak = 0
        while driver.poll() is None:
            peak = max(peak, peak_resident_bytes(driver.pid))
            time.sleep(0.2)
    assert driver.returncode == 0, (folder / "log").read_text()[-4000:]
    return peak


def driver_memory(sizes: tuple[int, int], folder: Path) -> dict[str, Any]:
    """Growth of the driver's peak between two numbers of pages, in bytes a page."""
    peaks = []
    for size in sizes:
        peaks.append(peak_bytes(size, folder / str(size)))
        print(f"driver's peak at {size:,} pages: {peaks[-1] / 1e6:,.1f} MB", flush=True)
    growth = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    return {"pages": sizes, "peak_bytes": peaks, "bytes_per_page": growth}
