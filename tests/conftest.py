"""The order of tests: those that take long first, so that workers side by side end together."""

import os

import pytest

# Two engines on two cores take 59 s for what takes them 147 s where each waits for its own threads by spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests come last, but for those that train."""
    items.sort(key=lambda item: "unit" in item.path.parts and "train" not in item.path.parts)
