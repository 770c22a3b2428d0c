"""The pairs that were labelled blind (`tests/labels`), each with its page: `python -m tests.labelled_pairs > pairs.jsonl`.

The labels hold the pages' ids alone. The pages are those of `jobs/samples` and of the shared real data.
"""

import json
import sys
from collections.abc import Iterator

from tests.support import ROOT, SHARED
from xl.pages.read import Pages, list_files, read_file
from xl.records import record_key, row_id

LABELS = sorted((ROOT / "tests/labels").glob("x_instruction*.jsonl"))

SOURCES = (
    Pages.model_validate(
        {"from": [str(ROOT / "jobs/samples" / name) for name in ("pages", "dirty.jsonl")], "lang": "lang", "source": "samples"}
    ),
    Pages.model_validate({"from": str(SHARED / "web/culturax/*/*.parquet")}),
)


def labelled_pairs() -> Iterator[dict[str, str | int]]:
    """Every labelled pair, with the columns that `xl.pairs.labelled` reads."""
    texts = {}
    for pages in SOURCES:
        for file in list_files(pages):
            for record in read_file(file, pages):
                texts[row_id(pages.source, record_key(record.key, record.content or ""), 0)] = record.text
    for path in LABELS:
        for line in path.read_text("utf-8").splitlines():
            pair = json.loads(line)
            yield {**{name: pair[name] for name in ("id", "lang", "instruction", "label")}, "text": texts[pair["id"]]}


if __name__ == "__main__":
    for pair in labelled_pairs():
        sys.stdout.write(json.dumps(pair, ensure_ascii=False) + "\n")
