"""One bench for all training tests: its undisturbed trainings are what the others are held against."""

import pytest

from tests.training import Bench, training

STAGES = (0, 1, 2, 3)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench with `one-N` and `two-N`: ten undisturbed steps of one and of two workers with ZeRO stage N; `bf16-1` and the `slow` one."""
    bench = Bench(tmp_path_factory.mktemp("train"))
    bench.fork(*(training(f"one-{zero}", zero=zero) for zero in STAGES), training("bf16-1", precision="bf16"))
    bench.run(*(training(f"two-{zero}", zero=zero) for zero in STAGES), training("slow", slow=True, max_steps=1), workers=2)
    return bench
