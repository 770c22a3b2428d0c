"""What can be said of the vLLM engine without starting it."""

import os

import pytest

from xl.engines.vllm import set_cpu_environment
from xl.recipe import Model


def test_an_engine_in_a_ray_worker_uses_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "4"})
    set_cpu_environment(Model(model="m"))
    assert os.environ["OMP_NUM_THREADS"] == str(os.cpu_count()), "Ray allows its workers one thread; half of the machine would idle"
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "4", "what the user has set wins"
