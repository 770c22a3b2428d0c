"""When engines have to go, so that the next step finds room."""

from typing import Any

import pytest
from rich.console import Console

from xl import pipeline
from xl.pipeline import Engines

HALVES = {"a": {"CPU": 7.0, "GPU": 4.0}, "b": {"CPU": 7.0, "GPU": 4.0}}
"""Two machines with eight GPUs, of which an engine has four on each."""

LABELS = {"a": {}, "b": {"ray.io/market-type": "spot"}}


class Method:
    """A method of an actor; knows whether it was called."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.called = False

    def remote(self) -> Any:
        self.called = True
        return self._answer


class Host:
    """Has engines of one model."""

    def __init__(self) -> None:
        self.keys = Method({"writer"})
        self.close = Method(None)


@pytest.mark.parametrize(
    ("free", "needs", "count", "must_go", "labels"),
    [
        (HALVES, {"CPU": 1, "GPU": 8}, 1, True, {}),
        (HALVES, {"CPU": 1, "GPU": 4}, 2, False, {}),
        (HALVES, {"CPU": 1, "GPU": 2.5}, 3, True, {}),
        (HALVES, {"CPU": 0.1, "GPU": 0.1}, 80, False, {}),
        (HALVES, {"CPU": 0, "GPU": 0}, 100, False, {}),
        ({"a": {"memory": 1.0}}, {"CPU": 1}, 1, True, {}),
        ({"a": {}, "b": {"CPU": 1.0}}, {"CPU": 1}, 1, False, {}),
        (HALVES, {"GPU": 4}, 1, False, {"ray.io/market-type": "spot"}),
        (HALVES, {"GPU": 4}, 2, True, {"ray.io/market-type": "spot"}),
        (HALVES, {"CPU": 1}, 1, True, {"xl/pool": "pages"}),
    ],
)
def test_engines_end_if_the_next_step_finds_no_machine_with_room(
    monkeypatch: pytest.MonkeyPatch,
    free: dict[str, dict[str, float]],
    needs: dict[str, float],
    count: int,
    must_go: bool,
    labels: dict[str, str],
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr("xl.engines.host.available_resources_per_node", lambda: free)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": name, "Alive": True, "Labels": LABELS[name]} for name in free])
    monkeypatch.setattr(pipeline, "SETTLING_SECONDS", 0.0)
    engines = Engines(Console(quiet=True))
    host: Any = Host()
    engines.host = host
    engines.make_room(needs, labels, count)
    assert host.close.called == must_go
