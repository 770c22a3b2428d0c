"""CrossAlpaca from files to dataset: its four arms, and requests that say what is wanted without saying it twice."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tests.fake_engine import FakeEngine, asked
from xl.ask import Drop, Request
from xl.dataset import DATASET_SCHEMA
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.methods import cross_alpaca
from xl.methods.cross_alpaca import Recipe
from xl.pairs.mixture import row_language
from xl.records import Row, Status
from xl.stage import Pending, Route, RowStage, WholeStage, walk

RIVERS = ("Danube", "Rhine", "Elbe", "Oder", "Weser", "Main", "Neckar", "Isar")


def data(tmp_path: Path) -> dict[str, Any]:
    english = [{"instruction": "Where is this river?", "input": f"the {r}", "output": f"The {r} is in Europe."} for r in RIVERS]
    german = [{"instruction": "Wo liegt dieser Fluss?", "input": f"{r}", "output": f"{r} liegt in Europa."} for r in RIVERS]
    files = {"en": tmp_path / "en.json", "de": tmp_path / "de.json"}
    files["en"].write_text(json.dumps([*english, {**english[0], "output": ""}]), "utf-8")
    files["de"].write_text(json.dumps(german), "utf-8")
    pairs = [(f"The {r} is long.", f"{r} ist lang.") for r in RIVERS] * 2
    (tmp_path / "t.tsv").write_text("".join(f"{english}\t{german}\n" for english, german in pairs), "utf-8")
    alpaca = {"files": {lang: str(path) for lang, path in files.items()}, "align_by": "row"}
    return {"alpaca": [alpaca], "parallel": [{"lang": "de", "from": str(tmp_path / "t.tsv"), "source": "news"}]}


def check(data: dict[str, Any], languages: tuple[str, ...] = ("de",)) -> Recipe:
    return Recipe.model_validate({"method": "cross_alpaca", "languages": languages, "seed": 7, **data})


def run(recipe: Recipe, engine: FakeEngine | None = None) -> tuple[list[Row], Counter[str]]:
    """The rows of the dataset, and how many rows were dropped for what; every row that comes in is one or the other."""
    found, schema = cross_alpaca.rows(recipe)
    rows = pa.Table.from_pylist(list(found), schema=schema).to_pylist()
    num_rows, dropped = len(rows), Counter[str]()
    for stage in cross_alpaca.stages(recipe, {"translator": ResolvedModel("m", "", "digest", None, True)}):
        kept = []
        if isinstance(stage, WholeStage):
            state = stage.survey(iter([pa.Table.from_pylist(rows).select(list(stage.needs))]))
            answers = [(row, stage.decide(state, row)) for row in rows]
        else:
            answers = [(row, walked(stage, row, recipe.seed, engine)) for row in rows]
        for row, answer in answers:
            if isinstance(answer, Drop):
                dropped[answer.reason] += 1
            else:
                assert set(answer or {}) <= set(stage.adds.names) | set(row)
                kept.append({**row, **(answer or {})})
        rows = kept
    assert num_rows == len(rows) + dropped.total()
    assert len({row["id"] for row in rows}) == len(rows)
    return rows, dropped


def walked(stage: RowStage, row: Row, seed: int, engine: FakeEngine | None) -> Any:
    end = asyncio.run(walk(Route((stage,), seed), Pending(row, 0, []), engine))
    assert end.status != Status.FAILED, end.reason
    return end.row if end.status == Status.KEPT else Drop(end.reason or "")


def test_the_four_arms_hold_what_their_names_say_and_share_their_rows(tmp_path: Path) -> None:
    arms = {arm: run(check({**data(tmp_path), "mixture": arm})) for arm in ("en", "x", "en_x", "en_x_translation")}
    components = {arm: Counter(row["component"].split("_")[0] for row in rows) for arm, (rows, _) in arms.items()}
    assert components == {
        "en": {"en": 8},
        "x": {"x": 8},
        "en_x": {"en": 8, "x": 8},
        "en_x_translation": {"en": 8, "x": 8, "translation": 8},
    }
    ids = {arm: {row["id"] for row in rows} for arm, (rows, _) in arms.items()}
    assert ids["en"] | ids["x"] == ids["en_x"] < ids["en_x_translation"]
    assert arms["en_x_translation"][1] == {"empty_response": 1, "duplicate": 8}


def test_a_request_says_all_that_is_wanted(tmp_path: Path) -> None:
    rows, _ = run(check({**data(tmp_path), "mixture": "en_x_translation"}))
    requests = {row["component"]: row for row in rows if "Isar" in row["response"]}
    assert requests["en"]["request"] == "Where is this river?\n\nthe Isar"
    assert requests["x"]["request"] == "Wo liegt dieser Fluss?\n\nIsar"
    for row in rows:
        if row["method"] == "translation":
            into = "German" if row["direction"] == "en-x" else "English"
            assert row["language"] == into and row["source"] == "news"
            assert row["request"] == f"{row['instruction']}\n\n{row['input']}"
            assert (
                "English" in row["instruction"]
                and "German" in row["instruction"]
                and "Answer in" not in row["request"].split("\n")[0][-20:]
            )


def test_a_request_in_another_language_than_its_response_asks_for_that(tmp_path: Path) -> None:
    settings = {**data(tmp_path), "alpaca_directions": {"en-x": 1}, "mixture": "cross_in_en_to_x"}
    rows, _ = run(check(settings))
    crossed = next(row for row in rows if row["direction"] == "en-x" and "Isar" in row["response"])
    assert crossed["request"] == "Where is this river? Answer in German.\n\nthe Isar"
    assert crossed["response"] == "Isar liegt in Europa."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parallel": []}, "component 'translation_to_x' wants parallel text; give `parallel`, or a mixture without it, such as en_x"),
        ({"mixture": "cross_in_en_to_x"}, "component 'en_to_x': give the direction en-x a weight in `alpaca_directions`"),
        ({"translation_directions": {"x-x": 1}}, "a translation goes en-x or x-en"),
        ({"translation_directions": {"en-x": 1}}, "give the direction x-en a weight in `translation_directions`"),
        ({"alpaca_directions": {"en-x": 1}, "alpaca": [{"files": {"en": "a"}}]}, "'alpaca' wants `align_by`"),
        ({"alpaca_directions": {"en-en": 1}}, "en-en joins no two languages"),
        ({"mixture": {"components": [{"name": "a", "method": "b", "direction": "en-en"}]}}, "no method 'b' here"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        check({**data(tmp_path), **change})


def test_a_language_without_data_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    recipe = check(data(tmp_path), ("de", "tr"))
    with pytest.raises(UserError, match="component 'x' wants Turkish, and nothing under `alpaca` is in it"):
        cross_alpaca.rows(recipe)


def made(folder: Path, **columns: Any) -> Path:
    """A folder with the dataset of a run: a pair about each river."""
    pair = dict.fromkeys(DATASET_SCHEMA.names) | {"lang": "de", "method": "x_instruction", **columns}
    rows = [
        {
            **pair,
            "id": f"{number}",
            "instruction": f"Where does the {river} rise?",
            "request": f"Where does the {river} rise? In German, please.",
            "response": f"{river}: Der Fluss entspringt in den Bergen.",
            "document": f"river {number}",
        }
        for number, river in enumerate(RIVERS)
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=DATASET_SCHEMA), folder / "train-00000.parquet")
    return folder


def components(**counts: int | None) -> list[dict[str, Any]]:
    """A component of what runs have made, and of English instructions."""
    directions = {"x_instruction": "en-x", "alpaca": "en-en"}
    return [{"name": method, "method": method, "direction": directions[method], "count": count} for method, count in counts.items()]


def test_one_mixture_draws_from_what_runs_of_other_methods_have_made(tmp_path: Path) -> None:
    datasets = [{"from": str(made(tmp_path / "made")), "source": "rivers"}]
    mixture = {"total": 10, "components": components(x_instruction=3, alpaca=None)}
    rows, dropped = run(check({**data(tmp_path), "datasets": datasets, "mixture": mixture}))
    assert Counter((row["component"], row["method"], row["direction"], row["source"]) for row in rows) == {
        ("x_instruction", "x_instruction", "en-x", "rivers"): 3,
        ("alpaca", "alpaca", "en-en", "alpaca"): 7,
    }
    web = [row for row in rows if row["method"] == "x_instruction"]
    assert all(row["request"] == f"{row['instruction']} In German, please." and row["document"].startswith("river") for row in web)
    assert dropped["over_quota"] == 5 + 1


def test_a_mixture_may_be_of_runs_alone(tmp_path: Path) -> None:
    datasets = [{"from": str(made(tmp_path / "made")), "source": "rivers"}]
    rows, _ = run(check({"datasets": datasets, "mixture": {"components": components(x_instruction=None)}}))
    assert len(rows) == len(RIVERS)


@pytest.mark.parametrize(
    ("columns", "mixture", "message"),
    [
        ({"lang": "tr"}, components(x_instruction=1), "component 'x_instruction' wants German, and nothing under `datasets` is in it"),
        ({"method": "xl_instruct"}, components(x_instruction=1), "wants German, and nothing under `datasets` is in it"),
        ({"method": "translation"}, components(x_instruction=1), "holds pairs of method 'translation'; give the files .* under `parallel`"),
    ],
)
def test_runs_that_have_not_made_what_is_wanted_are_refused(
    tmp_path: Path, columns: dict[str, Any], mixture: list[dict[str, Any]], message: str
) -> None:
    datasets = [{"from": str(made(tmp_path / "made", **columns)), "source": "rivers"}]
    with pytest.raises(UserError, match=message):
        cross_alpaca.rows(check({"datasets": datasets, "mixture": {"components": mixture}}))


def test_a_folder_without_a_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing' is no finished run, and no folder"):
        check(
            {"datasets": [{"from": str(tmp_path / "nothing"), "source": "s"}], "mixture": {"components": components(x_instruction=1)}}
        ).files()


TRANSLATIONS = {
    "de": {
        "Which river flows here": "Welcher Fluss fließt durch diese Stadt, und wohin fließt er?",
        "Through the old town flows": "Durch die alte Stadt fließt die Donau, und sie fließt weiter zum Schwarzen Meer.",
    },
    "tr": {
        "Which river flows here": "Bu şehrin içinden hangi nehir geçiyor ve nereye akıyor?",
        "Through the old town flows": "Eski şehrin içinden Tuna nehri geçiyor ve Karadeniz'e doğru akmaya devam ediyor.",
    },
}


def translator(request: Request) -> str:
    """A chat model that leaves what is about the Rhine as it is, and says nothing of the Elbe."""
    prompt = asked(request)
    lang = "tr" if "Turkish" in prompt else "de"
    if "Rhine" in prompt:
        return "Through the old town flows the Rhine, and it flows on to the sea in the north."
    return "" if "Elbe" in prompt else next(text for start, text in TRANSLATIONS[lang].items() if start in prompt)


def english_only(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    texts = [f"Through the old town flows the {river}, and it flows on to the sea." for river in RIVERS]
    items: list[Any] = [
        {"instruction": f"Which river flows here, and where to? Is it the {river}?", "input": "", "output": text}
        for river, text in zip(RIVERS, texts, strict=True)
    ]
    (tmp_path / "english.json").write_text(json.dumps([*items, {**items[0], "output": ""}, {**items[0], "output": 7.5}]), "utf-8")
    alpaca = {"source": "english", "files": {"en": str(tmp_path / "english.json")}, "translate": {}}
    translator = {"model": "scripted", "engine": "scripted"}
    return {"alpaca": [alpaca], "models": {"translator": translator}, "mixture": "en_x", **changes}


def test_english_data_is_translated_into_every_language_or_dropped_for_a_reason(tmp_path: Path) -> None:
    rows, dropped = run(check(english_only(tmp_path), ("de", "tr")), FakeEngine(translator))
    found, _ = cross_alpaca.rows(check(english_only(tmp_path), ("de", "tr")))
    assert Counter(row["lang"] for row in found) == {lang: len(RIVERS) + 2 for lang in ("en", "de", "tr")}
    assert Counter(row["lang"] for row in rows) == {"en": len(RIVERS), "de": 1, "tr": 1}
    # The translator says the same of all other rivers; the second of a text is a duplicate.
    assert dropped == {"untranslated": 2, "empty_translation": 2, "empty_response": 3, "bad_row": 3, "duplicate": 2 * (len(RIVERS) - 3)}
    german = next(row for row in rows if row["lang"] == "de")
    assert [german["request"], german["response"]] == [*TRANSLATIONS["de"].values()]


@pytest.mark.parametrize("direction", ["en-x", "x-en"])
def test_only_the_side_that_its_direction_wants_is_translated(tmp_path: Path, direction: str) -> None:
    recipe = check(
        english_only(
            tmp_path,
            alpaca_directions={direction: 1},
            mixture={"components": [{"name": "crossed", "method": "alpaca", "direction": direction}]},
        )
    )
    rows, _ = run(recipe, FakeEngine(translator))
    assert rows and {row["direction"] for row in rows} == {direction}
    question, answer = TRANSLATIONS["de"].values()
    for row in rows:
        assert (row["response"] == answer) == (direction == "en-x") and (question in row["request"]) == (direction == "x-en")
        assert row["request"].startswith("Which river") == (direction == "en-x") and ("Answer in" in row["request"])


def evaluated(tmp_path: Path, data: dict[str, Any], prompt: str) -> dict[str, Any]:
    """The recipe, with an evaluation on one prompt."""
    (tmp_path / "prompts.json").write_text(json.dumps([{"instruction": prompt}]), "utf-8")
    models = {**data.get("models", {}), "base": {"model": "m", "engine": "scripted"}}
    return {**data, "models": models, "evaluate": {"prompts": {"from": str(tmp_path / "prompts.json")}, "arms": ["base"]}}


def faithful(request: Request) -> str:
    """A translator into German who names the river."""
    prompt = asked(request).rpartition("English")[2]
    river = next(river for river in RIVERS if river in prompt)
    return f"Ist es der Fluss {river}, der hier fließt?" if "Which" in prompt else f"Durch die alte Stadt fließt die {river} ins Meer."


def test_what_is_translated_here_of_a_prompt_is_dropped_with_it(tmp_path: Path) -> None:
    recipe = evaluated(tmp_path, english_only(tmp_path), "Which river flows here, and where to? Is it the Danube?")
    rows, dropped = run(check(recipe), FakeEngine(faithful))
    documents = {f"english {number}" for number in range(2, len(RIVERS) + 1)}
    assert Counter((row["lang"], row["document"]) for row in rows) == {(lang, name): 1 for lang in ("en", "de") for name in documents}
    # Its item, and the copy of it that has no output.
    assert dropped == {"contaminated": 2, "contaminated_document": 2, "bad_row": 2}
    unchecked, _ = run(check({**recipe, "contamination": {"drop": False}}), FakeEngine(faithful))
    assert len(unchecked) == 2 * len(RIVERS)


def test_a_translation_is_dropped_also_where_its_english_item_would_have_been_for_something_else(tmp_path: Path) -> None:
    recipe = {**data(tmp_path), "mixture": "en_x"}
    english: list[dict[str, str]] = json.loads((tmp_path / "en.json").read_text("utf-8"))
    english[2]["output"] = ""
    (tmp_path / "en.json").write_text(json.dumps(english), "utf-8")
    recipe = evaluated(tmp_path, recipe, f"{english[2]['instruction']} {english[2]['input']}")
    rows, dropped = run(check(recipe))
    assert (dropped["contaminated"], dropped["contaminated_document"]) == (1, 1)
    assert Counter(row["document"] for row in rows) == {f"alpaca {n}": 2 for n in range(1, len(RIVERS) + 1) if n != 3}
    recipe["alpaca"][0].pop("align_by")
    _, alone = run(check(recipe))
    assert (alone["contaminated"], alone["contaminated_document"]) == (1, 0)


def test_parallel_text_of_a_contaminated_document_is_dropped_in_all_languages(tmp_path: Path) -> None:
    lines = {"de": ["Isar {} ist lang.", "Main {} ist kurz."], "tr": ["Isar {} uzundur.", "Main {} kısadır."]}
    texts = []
    for lang, (isar, main) in lines.items():
        pairs = [(f"The {river} {n} is known.", text.format(n), river) for n in (1, 2) for river, text in (("Isar", isar), ("Main", main))]
        (tmp_path / f"{lang}.tsv").write_text("".join("\t".join(pair) + "\n" for pair in pairs), "utf-8")
        texts.append({"lang": lang, "from": str(tmp_path / f"{lang}.tsv"), "columns": {"document": 3}})
    components = [{"name": name, "method": "translation", "direction": name} for name in ("en-x", "x-en")]
    recipe = {"alpaca": data(tmp_path)["alpaca"], "parallel": texts, "mixture": {"components": components}}
    rows, dropped = run(check(evaluated(tmp_path, recipe, "Isar 1 ist lang."), ("de", "tr")))
    assert Counter((row["document"], row_language(row)) for row in rows) == {("Main", "de"): 2, ("Main", "tr"): 2}
    assert (dropped["contaminated"], dropped["contaminated_document"]) == (1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "`models.translator` is missing"),
        ({"alpaca": [{"files": {"en": "a", "de": "b"}, "translate": {}}]}, "give `files: {en: …}` alone"),
        ({"alpaca": [{"files": {"en": "a"}, "translate": {}}] * 2}, "'alpaca' is the name of two"),
    ],
)
def test_a_translation_that_cannot_be_made_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        check(english_only(tmp_path, **change))
