"""What can be named to be served, and what is told when it can't."""

from pathlib import Path

import pytest
import yaml

from tests.support import ROOT, recipe
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.methods import load_recipe
from xl.serving.deploy import adapter_path, cluster_application, deployment_options, llm_arguments
from xl.serving.settings import Serving
from xl.serving.targets import load_serving


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "README.md").touch()  # the last of a model's files
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "serve").glob("*.yaml")), ids=lambda path: path.name)
def test_every_endpoint_that_comes_with_the_code_is_valid(path: Path) -> None:
    serving = load_serving([str(path)])
    assert serving.host == "127.0.0.1" and serving.require_key


def endpoint_yaml(path: Path, *applications: object, **top: object) -> str:
    path.write_text(yaml.safe_dump({"applications": list(applications), **top}))
    return str(path)


def test_an_endpoint_listens_where_its_http_options_say_here_as_on_a_cluster(tmp_path: Path) -> None:
    args = {"models": {"m": {"model": "org/name"}}}
    path = endpoint_yaml(tmp_path / "e.yaml", {"args": args}, http_options={"host": "0.0.0.0", "port": 9000, "keep_alive_timeout_s": 5})
    assert (load_serving([path]).host, load_serving([path]).port, load_serving([path], {"port": 1}).port) == ("0.0.0.0", 9000, 1)
    with pytest.raises(UserError, match=r"args\.port: `http_options`"):
        load_serving([endpoint_yaml(tmp_path / "e.yaml", {"args": {**args, "port": 9000}})])
    with pytest.raises(UserError, match=r"args\.port: .* `http_options`"):
        cluster_application(Serving.model_validate({**args, "port": 9000}))


@pytest.mark.parametrize(
    ("application", "told"),
    [
        ("x", "the application: a mapping"),
        ({"args": ["x"]}, "args: a mapping"),
        ({"args": {"models": ["org/name"]}}, r"args\.models: a mapping"),
    ],
)
def test_an_endpoint_of_another_shape_is_told_in_one_line(tmp_path: Path, application: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_serving([endpoint_yaml(tmp_path / "e.yaml", application)])


def test_a_run_serves_its_tuned_model_as_its_base_is_run_beside_the_models_of_its_recipe(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tuned = model_folder(run / "training" / "model")
    (run / "run.json").write_text("{}")
    base = {"model": "org/base", "revision": "v1", "gpus": 1, "max_model_len": 1024}
    models = {"base": base, "writer": {"model": "scripted", "engine": "scripted"}}
    given = load_recipe(recipe(tmp_path / "given.yaml", tmp_path, models=models, train={}))
    (run / "recipe.yaml").write_text(yaml.safe_dump(given.model_dump(mode="json", by_alias=True)))  # as a run notes it
    serving = load_serving([str(run)])
    assert list(serving.models) == ["run", "org/base", "scripted"]
    assert serving.models["run"] == serving.models["org/base"].model_copy(update={"model": str(tuned), "revision": None})
    assert list(load_serving([f"tuned={run}"]).models) == ["tuned", "org/base", "scripted"]


def test_folders_names_and_recipes_mix(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine")
    path = recipe(tmp_path / "recipe.yaml", tmp_path)
    serving = load_serving(
        [str(folder), "judge=org/name", "packaged/gemma-3-270m", str(path)], {"port": 9, "models.judge.max_model_len": 512}
    )
    assert {name: model.model for name, model in serving.models.items()} == {
        "mine": str(folder), "judge": "org/name", "packaged/gemma-3-270m": "packaged/gemma-3-270m", "scripted": "scripted",
    }  # fmt: skip
    assert serving.port == 9 and serving.models["judge"].max_model_len == 512


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    one, two = model_folder(tmp_path / "a" / "m"), model_folder(tmp_path / "b" / "m")
    with pytest.raises(UserError, match="NAME="):
        load_serving([str(one), str(two)])
    with pytest.raises(UserError, match="two models or adapters are named 'x'"):
        load_serving(["x=org/name"], {"models.x.adapters": {"x": "org/adapter"}})


@pytest.mark.parametrize(
    ("key", "told"), [("prot", "port"), ("models.m.gpu", "gpus"), ("models.m.adapters", "adapters"), ("keys", "unknown key `keys`")]
)
def test_a_mistaken_key_is_named(key: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_serving(["m=org/name"], {key: 1})


def test_replicas_scale_with_load_and_to_nothing_only_where_allowed() -> None:
    def scaling(**model: object) -> dict[str, object]:
        serving = Serving.model_validate({"models": {"m": {"model": "org/name", **model}}})
        options: dict[str, object] = deployment_options(serving.models["m"], serving)["autoscaling_config"]
        return options

    assert (scaling()["min_replicas"], scaling()["max_replicas"], scaling()["target_ongoing_requests"]) == (1, 1, 64)
    assert scaling(replicas=[2, 5], scale_to_zero=True)["min_replicas"] == 0 and scaling(replicas=[2, 5])["min_replicas"] == 2


def test_the_ranks_of_a_replica_share_what_it_is_given() -> None:
    model = {"model": "org/name", "gpus": 4, "cpus": 8, "tensor_parallel": 4}
    serving = Serving.model_validate({"models": {"m": model}})
    arguments = llm_arguments("m", serving.models["m"], ResolvedModel("org/name", "/models/m", "digest", None, None), serving)
    assert arguments["placement_group_config"]["bundles"] == [{"CPU": 2.0, "GPU": 1.0}] * 4


def test_an_adapter_is_a_local_folder_or_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert adapter_path(str(tmp_path)) == str(tmp_path) and adapter_path("org/adapter") == "org/adapter"
    for missing in (str(tmp_path.parent), str(tmp_path / "no")):
        with pytest.raises(UserError, match="adapter"):
            adapter_path(missing)
