"""What benchmarks of open-ended requests share: how a set of prompts becomes items, and what can be said of an answer without a judge.

That is whether it is in the wanted language, and whether it goes round in circles. Whether it is any good, only a judge can say (`judged`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from xl.errors import UserError
from xl.evaluate.benchmarks.task import Answer, Item, Loaded, Source
from xl.evaluate.hub import hub_configs, hub_splits, is_on_hub
from xl.evaluate.identify import ANSWER_IDENTIFIERS, identifier
from xl.evaluate.language import Verdict, answer_language
from xl.evaluate.prompts import PromptSet, load_prompts
from xl.evaluate.tables import is_table
from xl.pages.language import language_code
from xl.pages.repetition import is_repetitive
from xl.train.prompts import STOPS

MEASURES = ("in_language", "not_repetitive")


def load_requests(
    prompts: PromptSet, source: Source, languages: Sequence[str], *, as_written: bool = False, group: str | None = None
) -> Loaded:
    """The prompts of a set as items.

    Args:
        prompts: the set.
        source: what is said of it in the recipe: its seed, and how it is answered.
        languages: that answers are wanted in.
        as_written: whether the instruction is the whole request, without one for a language.
        group: of the items, which are named by it and by their place: the same in all languages of a parallel set. By default there is
            none, and they are named as `load_prompts` names them.

    Raises:
        UserError: the set cannot be read or has no prompt in these languages.
    """
    loaded = load_prompts(prompts, languages, source.seed)
    items = [
        Item(
            key=row["prompt"] if group is None else f"{group} {place}".strip(),
            lang=row["lang"],
            prompt=row["instruction"] if as_written else row["request"],
            gold=(),
            text=row["instruction"],
            group=group or "",
            answer_lang=row["lang"],
            max_tokens=source.max_tokens,
            stop=STOPS,
            is_request=True,
            temperature=source.temperature,
            top_p=source.top_p,
        )
        for row, place in zip(loaded.rows, loaded.places, strict=True)
    ]
    return Loaded(items, (f"left out in {', '.join(languages)}: {loaded.left_out}",) if loaded.left_out else ())


def prompt_file(source: Source, **settings: str) -> PromptSet:
    """One set of prompts for all languages, in the columns of AlpacaEval unless `settings` say others. `split` and `revision` are for
    the hub."""
    return PromptSet.model_validate({"from": source.path, "split": source.split, "revision": source.revision, **settings})


def translated_items(parts: Mapping[str, PromptSet], source: Source, languages: Sequence[str]) -> Loaded:
    """The items of parts that are each in one language, asked as they are written, and named by their place.

    Raises:
        UserError: a language has no part, or a part cannot be read.
    """
    if missing := [lang for lang in languages if lang not in parts]:
        raise UserError(f"{source.path}: no part of it is in {missing[0]} (there are: {', '.join(sorted(parts)) or 'none'})")
    return together([load_requests(parts[lang], source, [lang], as_written=True, group="") for lang in languages])


def together(parts: Sequence[Loaded]) -> Loaded:
    """The items of all parts, and their notes."""
    return Loaded([item for part in parts for item in part.items], tuple(note for part in parts for note in part.notes))


def language_parts(source: Source) -> dict[str, PromptSet]:
    """By language, the parts of a set that bear a language's code or English name: tables of a folder, or splits on the hub.

    Raises:
        UserError: two parts are of one language, a split is asked for, or the hub does not give the dataset.
    """
    if source.split:
        raise UserError(f"{source.path}: `split` is not wanted: each language is a part of its own")
    parts: dict[str, PromptSet] = {}
    for name, place in _parts(source).items():
        lang = language_code(name)
        if lang in parts:
            raise UserError(f"{source.path}: two parts are of the language {lang}, one of them {name!r}")
        if lang:
            parts[lang] = PromptSet.model_validate(place)
    return parts


def _parts(source: Source) -> dict[str, dict[str, str | None]]:
    if is_on_hub(source.path):
        config = hub_configs(source.path, source.revision)[0]
        splits = hub_splits(source.path, source.revision, config)
        return {split: {"from": source.path, "split": split, "revision": source.revision} for split in splits}
    tables = sorted(str(path) for path in Path(source.path).glob("*") if is_table(path.name))
    return {Path(path).name.split(".")[0]: {"from": path, "revision": source.revision} for path in tables}


def score(item: Item, answer: Answer) -> Mapping[str, float] | None:
    """`in_language`: the answer is in the wanted language, and long enough for that to be seen; `not_repetitive`: it does not go round
    in circles. None for an empty answer."""
    if not answer.text.strip():
        return None
    decision = answer_language(answer.text, item.lang, [identifier(name) for name in ANSWER_IDENTIFIERS])
    values = decision.verdict is Verdict.RIGHT, not is_repetitive(answer.text)
    return dict(zip(MEASURES, map(float, values), strict=True))
