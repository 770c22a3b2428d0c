"""The order of tests: those that take long first, so that workers side by side end together."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests come last, but for those that train."""
    items.sort(key=lambda item: "unit" in item.path.parts and "train" not in item.path.parts)
