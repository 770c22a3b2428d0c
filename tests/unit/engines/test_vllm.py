"""What can be said of the vLLM engine without starting it."""

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from xl.engines import vllm
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


@pytest.mark.parametrize(
    ("computes_bf16", "settings", "dtype"),
    [(True, {}, "bfloat16"), (False, {}, "float32"), (False, {"dtype": "bfloat16"}, "bfloat16"), (False, {"gpus": 1}, "auto")],
)
def test_a_cpu_without_bf16_computes_in_float32_unless_told(
    monkeypatch: pytest.MonkeyPatch, computes_bf16: bool, settings: dict[str, Any], dtype: str
) -> None:
    monkeypatch.setattr(vllm, "cpu_computes_bf16", lambda: computes_bf16)
    assert vllm.engine_arguments(Model(model="m", **settings), "m")["dtype"] == dtype
