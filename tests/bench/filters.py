"""Page filters alone: pages per second of all filters on one core, over the real pages of each language."""

import time

import pyarrow.parquet as pq

from tests.support import SHARED
from xl.ask import Drop
from xl.pages.quality import Quality, page_filters


def filters() -> dict[str, float]:
    """Pages per second by language; empty where the real pages are not beside the checkout."""
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
    return rates
