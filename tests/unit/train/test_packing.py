"""Packing loses no document, breaks none, and is the same for any number of workers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xl.train.packing import documents_of, num_steps, pack, plan, share

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(LENGTHS)
def test_every_document_lies_whole_in_one_block_that_is_not_too_long(lengths: list[int]) -> None:
    blocks = pack(range(len(lengths)), lengths, 50)
    assert sorted(number for block in blocks for number in block) == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in block) <= 50 for block in blocks)
    assert sum(sum(lengths[n] for n in block) <= 25 for block in blocks) <= 1, "two half-empty blocks fit into one"


@given(LENGTHS, st.integers(1, 3), st.integers(1, 5), st.booleans())
def test_workers_share_a_step_out_without_loss_and_in_equally_many_turns(
    lengths: list[int], micro_batch: int, workers: int, packing: bool
) -> None:
    micro_batches = plan(np.arange(len(lengths)), np.array(lengths), 50, micro_batch, packing)
    shares = [share(micro_batches, rank, workers) for rank in range(workers)]
    assert len({len(mine) for mine in shares}) == 1
    found = sorted(number for mine in shares for blocks in mine if blocks for block in blocks for number in block)
    assert found == list(range(len(lengths)))


def test_an_epoch_learns_every_document_once_in_an_order_of_its_own() -> None:
    orders = [np.concatenate([documents_of(step, 10, 4, seed=7) for step in range(start, start + 3)]).tolist() for start in (0, 3)]
    assert [sorted(order) for order in orders] == [list(range(10))] * 2
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("epochs", "max_steps", "expected"), [(1, None, 3), (2, None, 6), (0.5, None, 2), (1, 7, 7)])
def test_steps_are_epochs_unless_they_are_named(epochs: float, max_steps: int | None, expected: int) -> None:
    assert num_steps(10, 4, epochs, max_steps) == expected
