"""A recipe is checked before anything starts; every mistake is one line that names the key."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from xl.errors import UserError
from xl.methods import check_recipe, load_recipe
from xl.recipe import Model, Recipe, parse_override
from xl.settings import semantic

GOOD: dict[str, Any] = {
    "method": "x_instruction",
    "languages": ["de", "swh_Latn", "tha"],
    "pages": {"from": "pages"},
    "models": {"writer": {"model": "packaged/gemma-3-270m"}},
}

BASE = {"writer": {"model": "packaged/gemma-3-270m"}, "base": {"model": "packaged/gemma-3-270m"}}
ENDPOINT = {"model": "m", "engine": "openai", "url": "http://127.0.0.1/v1"}
PROMPTS = {"prompts": {"from": "prompts.jsonl"}}


def test_language_codes_of_other_standards_are_understood() -> None:
    assert check_recipe(GOOD, "r").languages == ("de", "sw", "th")


def test_a_bare_no_is_norwegian(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(GOOD).replace("- swh_Latn", "- no"))
    assert "no" in load_recipe(tmp_path / "r.yaml").languages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": {"per_langauge": 5}}, "unknown key `pairs.per_langauge`; did you mean `per_language`?"),
        ({"trian": {}}, "unknown key `trian`; did you mean `train`?"),
        ({"train": {}}, "`models.base` is missing"),
        ({"train": {"lerning_rate": 1}}, "unknown key `train.lerning_rate`; did you mean `learning_rate`?"),
        ({"train": {"languages": ["xq"]}}, "unknown language 'xq'"),
        ({"train": {}, "models": {**BASE, "base": ENDPOINT}}, "engine: openai has no weights that could be tuned"),
        ({"evaluate": PROMPTS, "models": BASE}, "the arm `tuned` wants a `train:` part"),
        ({"evaluate": {**PROMPTS, "arms": ["base"], "judge": {}}, "models": BASE}, "`models.judge` is missing"),
        ({"evaluate": {**PROMPTS, "arms": ["tuned"], "judge": {}}, "train": {}, "models": BASE}, "reference: base is not among the arms"),
        ({"benchmarks": [{"task": "vicuna", "from": "q.jsonl", "reference": "r.json"}], "models": BASE}, "`models.judge` is missing"),
        (
            {"benchmarks": [{"task": "vicuna", "from": "q.jsonl"}] * 2, "models": BASE},
            "two benchmarks would be called vicuna; give one another",
        ),
        (
            {"benchmarks": [{"task": "vicuna", "from": "q.jsonl", "name": name} for name in ("v", "v_de")], "models": BASE},
            "two benchmarks would be called v_de",
        ),
        ({"benchmarks": [{"task": "vicuna", "from": "q.jsonl", "name": "../v"}], "models": BASE}, "`benchmarks.0.name`"),
        ({"models": {"writer": {**ENDPOINT, "url": "https://me:secret@127.0.0.1/v1"}}}, "`url` has a query or a user in it"),
        ({"train": {"lora": {"rank": 8}}, "models": BASE}, "lora changes nothing without `tune: lora`"),
        ({"benchmarks": [{"task": "xcopa", "from": ".", "max_tokens": 9}], "models": BASE}, "max_tokens changes nothing"),
        ({"languages": ["de", "xq"]}, "unknown language 'xq'"),
        ({"languages": ["German"]}, "did you mean de?"),
        ({"languages": []}, "`languages`"),
        ({"pages": {}}, "`pages.from` is missing"),
        ({"method": "y_instruction"}, "`method`"),
        ({"models": {"writer": {"model": "m", "engine": "openai"}}}, "engine: openai needs the endpoint's `url`"),
        ({"models": {"writer": {"model": "m", "url": "http://x"}}}, "`url` belongs to engine: openai"),
        ({"models": {"writer": {"model": "m", "requests_per_minute": 60}}}, "`requests_per_minute` belongs to engine: openai"),
        ({"models": {"writer": {"model": "m", "engine": "scripted", "max_attempts": 3}}}, "`max_attempts` belongs to engine: openai"),
        ({"models": {"writer": {"model": "m", "delay_seconds": 1}}}, "`delay_seconds` belongs to engine: scripted"),
        ({"models": {"writer": {"model": "m", "replicas": [4, 2]}}}, "replicas: [4, 2]"),
        ({"models": {"writer": {"model": "m", "tensor_parallel": 4, "gpus": 2}}}, "needs gpus: 4"),
        ({"pairs": {"per_language": -1}}, "`pairs.per_language`"),
        (
            {"arms": {"naive": {"method": "xl_instruct"}}},
            "arms.naive: `method`: an arm shares its run's stages; run the other method by itself",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_recipe({**GOOD, **change}, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_a_folder_and_broken_yaml_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read: Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "bad.yaml").write_text("languages: [de\npages: {")
    with pytest.raises(UserError, match=r"bad\.yaml: not valid YAML") as caught:
        load_recipe(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_overrides_reach_nested_keys_and_are_read_as_yaml(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(GOOD))
    overrides = dict(parse_override(text) for text in ("pairs.per_language=10", "pages.from=../a/*/*.parquet", "languages=[fi, no]"))
    recipe = load_recipe(tmp_path / "r.yaml", overrides)
    assert (recipe.pairs.per_language, recipe.pages.from_, recipe.languages) == (10, ("../a/*/*.parquet",), ("fi", "no"))
    with pytest.raises(UserError, match=r"key\.subkey=value"):
        parse_override("nonsense")


ENGLISH = {"method": "xl_instruct", "languages": ["de"]}
SEEDS = {"from": ["s.jsonl"]}
TO_PROMPTED = {"rating": {"rater": "prompted"}}


def loaded(folder: Path, data: dict[str, Any], *overrides: str) -> Recipe:
    (folder / "r.yaml").write_text(yaml.safe_dump({**GOOD, **data}))
    return load_recipe(folder / "r.yaml", dict(map(parse_override, overrides)))


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"seeds": {**SEEDS, "num_held_out": 9}}, "seeds"),
        ({"diversity": {}}, "diversity"),
        ({"rating": {"min_rating": 1}}, "rating.min_rating"),
        ({"rating": {"rater": "prompted", "min_margin": 0.4}}, "rating.min_margin"),
        ({"rating": {"rater": "prompted", "rounds": {"max_labels": 9}}}, "rating.rounds"),
        ({"rating": {"rater": "trained", "num_contrasts": 9}, "evaluator": {}, "seeds": SEEDS}, "rating.num_contrasts"),
        ({"rating": {"min_rating": 1}, "arms": {"strict": {"rating": {"min_margin": 0.4}}}}, "rating.min_rating"),
        ({**ENGLISH, "translate": False, "gates": {"max_length_ratio": 3}}, "gates"),
        ({**ENGLISH, "estimate": {"comet_model": "m.ckpt"}}, "estimate.comet_model"),
        ({**ENGLISH, "estimate": {"estimator": "comet", "max_scored_tokens": 9}}, "estimate.max_scored_tokens"),
    ],
)
def test_a_key_that_no_step_reads_is_refused_when_a_recipe_is_loaded(tmp_path: Path, data: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"r\.yaml: `{key}` changes nothing: .*; leave it out") as caught:
        loaded(tmp_path, data)
    assert "\n" not in str(caught.value)
    assert check_recipe({**GOOD, **data}, "run.json"), "a run that was made with it can still be read"


@pytest.mark.parametrize(
    "data",
    [
        {"seeds": SEEDS, "arms": {"trained": {"reverse_model": {}}}},
        {"rating": {"min_margin": 0.4}, "arms": {"prompted": TO_PROMPTED}},
        {"rating": {"min_rating": 1}, "arms": {"prompted": TO_PROMPTED}},
        {"rating": {"rater": "trained", "num_contrasts": 9}, "evaluator": {}, "seeds": {**SEEDS, "num_held_out": 9}},
        {**ENGLISH, "gates": {"max_length_ratio": 3}, "arms": {"english": {"translate": False}}},
        {**ENGLISH, "estimate": {"max_scored_tokens": 9}, "arms": {"likelihood": {"estimate": {"estimator": "likelihood"}}}},
    ],
)
def test_a_key_that_an_arm_or_a_measurement_reads_or_that_an_arm_switches_off_may_stay(tmp_path: Path, data: dict[str, Any]) -> None:
    assert loaded(tmp_path, data)


def test_an_override_may_switch_off_what_reads_a_key_of_the_file_and_may_not_set_one_that_nothing_reads(tmp_path: Path) -> None:
    data = {"rating": {"num_contrasts": 3}}
    assert loaded(tmp_path, data, "rating.rater=prompted")
    with pytest.raises(
        UserError, match=r"`rating\.min_rating` changes nothing: it belongs to rater: prompted and trained, not to rater: like"
    ):
        loaded(tmp_path, data, "rating.min_rating=1")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(loaded(tmp_path, data).model_dump(mode="json", by_alias=True)))  # as a run notes it
    assert load_recipe(path)


def test_keys_that_cannot_change_a_row_do_not_count() -> None:
    plain = semantic(Model(model="m"))
    assert plain == semantic(Model(model="m", gpus=8, tensor_parallel=8, replicas=(1, 9), max_num_seqs=7))
    assert plain != semantic(Model(model="m", max_model_len=99))
    assert semantic(Model.model_validate(ENDPOINT)) == semantic(Model.model_validate({**ENDPOINT, "max_attempts": 3}))


@pytest.mark.parametrize("path", sorted((ROOT / "jobs/recipes").glob("*.yaml")), ids=lambda path: path.name)
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_recipe_as_a_run_notes_it_is_the_same_recipe(path: Path, tune: str) -> None:
    """With all its defaults: none of them may count as a setting that changes nothing."""
    data = yaml.safe_load(path.read_text("utf-8"))
    if "method" not in data:
        pytest.skip("an evaluation that stands alone")
    train = {**data.get("train", {}), "tune": tune}
    data |= {"train": {key: value for key, value in train.items() if key != "lora" or tune == "lora"}}
    data["models"].setdefault("base", {"model": "packaged/gemma-3-270m"})
    data["benchmarks"] = [{"task": "xquad", "from": "xquad"}, {"task": "xcopa", "from": "xcopa"}, {"task": "vicuna", "from": "vicuna"}]
    given = check_recipe(data, "r")
    noted = json.loads(json.dumps(given.model_dump(mode="json", by_alias=True)))
    assert check_recipe(noted, "r") == given
