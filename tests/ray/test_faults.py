"""What clusters do to a run, a few times in random turn; `python -m tests.faults` does it at length."""

from pathlib import Path

import pytest

from tests.faults import fault_and_compare

pytestmark = [pytest.mark.ray, pytest.mark.chaos]


def test_lost_and_drained_nodes_and_a_poison_row_lose_and_double_no_row(tmp_path: Path) -> None:
    faults = fault_and_compare(("engine node", "pages node", "drain"), 3, seed=3, folder=tmp_path, num_poisoned=1)
    assert faults.total() == 4
