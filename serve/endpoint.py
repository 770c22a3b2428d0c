"""What `serve deploy serve/endpoint.yaml` starts on a cluster: the gateway behind Ray Serve's proxy, and a deployment per model."""

from typing import Any

from ray.serve.deployment import Application

from xl.recipe import checked
from xl.serving.deploy import cluster_application
from xl.serving.settings import Serving


def build(args: dict[str, Any]) -> Application:
    """The endpoint as one Ray Serve application; `args` are the settings of `xl.serving.settings.Serving`, but for `host` and `port`."""
    return cluster_application(checked(Serving, args, "args"))
