"""The endpoint's files: whether Ray Serve and our endpoint know every key, and whether Kubernetes serves the same."""

from typing import Any

import pytest
import yaml

from tests.manifests import KUBERAY, load
from tests.support import ROOT
from xl.recipe import checked
from xl.serving.settings import Serving


def serve_configs() -> dict[str, dict[str, Any]]:
    files = {path.name: load(path) for path in sorted((ROOT / "serve").glob("*.yaml"))}
    return {**files, "rayservice.yaml": yaml.safe_load(load(KUBERAY / "rayservice.yaml")["spec"]["serveConfigV2"])}


@pytest.mark.parametrize("name", serve_configs())
def test_ray_serve_and_our_endpoint_know_every_key(name: str) -> None:
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    config = serve_configs()[name]
    ServeDeploySchema.parse_obj(config)
    # By itself it lets unknown keys pass, to be ready for later versions.
    assert set(config) <= set(ServeDeploySchema.__fields__)
    assert set(config["http_options"]) <= set(HTTPOptionsSchema.__fields__)
    for application in config["applications"]:
        assert set(application) <= set(ServeApplicationSchema.__fields__)
        checked(Serving, application["args"], f"{name}: args")
        module, _, function = application["import_path"].partition(":")
        assert f"\ndef {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8")


def test_the_endpoint_on_kubernetes_is_serves_but_for_models_and_address() -> None:
    ours, kube = (serve_configs()[name]["applications"][0] for name in ("endpoint.yaml", "rayservice.yaml"))
    assert set(kube["args"].pop("models")) == {"model", "judge"}
    del ours["args"]["models"]
    assert kube == ours
