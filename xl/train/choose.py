"""Which rows of a dataset a training learns from."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from xl.errors import UserError
from xl.records import Row, seeded_rank
from xl.train.settings import Train


def chosen_rows(rows: Iterable[Row], settings: Train) -> Iterator[Row]:
    """Of a dataset's rows, those in `settings.languages`; with `shuffled_responses`, each with another row's response.

    Raises:
        UserError: a language that is asked for does not occur.
    """
    if settings.languages is not None:
        rows = _in_languages(rows, settings.languages)
    return iter(rows) if not settings.shuffled_responses else _shuffled(rows, settings.seed)


def _in_languages(rows: Iterable[Row], languages: tuple[str, ...]) -> Iterator[Row]:
    seen: set[str] = set()
    for row in rows:
        seen.add(row["lang"])
        if row["lang"] in languages:
            yield row
    if absent := sorted(set(languages) - seen):
        raise UserError(f"train.languages: no row is in {', '.join(absent)}; there are {', '.join(sorted(seen))}")


def _shuffled(rows: Iterable[Row], seed: int) -> Iterator[Row]:
    """Each row with the response of the next one in its language, in a seeded order; the last one gets the first one's.

    All rows are held in memory: this is a control for a study, on datasets of its size.
    """
    by_language: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_language[row["language"]].append(row)
    for every in by_language.values():
        every.sort(key=lambda row: seeded_rank(seed, row["id"]))
        for row, other in zip(every, [*every[1:], every[0]], strict=True):
            yield {**row, "response": other["response"]}
