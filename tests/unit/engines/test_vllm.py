"""What can be said of the vLLM engine without starting it."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from xl.engines.vllm import VLLMEngine, set_cpu_environment
from xl.errors import UserError
from xl.recipe import Model


def test_an_engine_in_a_ray_worker_uses_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "4"})
    set_cpu_environment(Model(model="m"))
    assert os.environ["OMP_NUM_THREADS"] == str(os.cpu_count()), "Ray allows its workers one thread; half of the machine would idle"
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "4", "what the user has set wins"


def test_a_model_without_gpus_is_refused_by_a_vllm_that_would_take_one(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = SimpleNamespace(is_cpu=lambda: False)
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    monkeypatch.setattr(os, "environ", {})
    with pytest.raises(UserError, match=r"^models: 'm' has `gpus: 0`.*: set `gpus: 1`, or install xl\[cpu\]$"):
        VLLMEngine(Model(model="m"), "m")
