"""What raters are measured on: pairs of known level, and contrasts that do not give the level away."""

from tests.support import ROOT
from xl.methods.held_out import rated_rows
from xl.pairs.rate import Rating
from xl.pairs.seeds import Seeds, read_seeds


def test_no_pair_has_its_own_instruction_or_its_texts_true_one_among_its_contrasts() -> None:
    split = read_seeds(Seeds(from_=(str(ROOT / "jobs/samples/seeds/de.jsonl"),), num_held_out=10), ("de",), 7)
    true = {pair.id: pair.instruction for pair in split.held_out}
    rows = rated_rows(split, Rating(num_contrasts=20), seed=7)
    assert {row["kind"] for row in rows} >= {"seed", "cut", "nearest", "other"}
    for row in rows:
        assert len(set(row["contrasts"])) == 20
        assert not {row["instruction"], true[row["seed"]]} & set(row["contrasts"])


def test_raters_are_measured_with_near_contrasts_where_the_recipe_has_them() -> None:
    split = read_seeds(Seeds(from_=(str(ROOT / "jobs/samples/seeds/de.jsonl"),), num_held_out=10), ("de",), 7)
    instructions = {pair.id: pair.instruction for pair in (*split.train, *split.held_out)}
    at_random, near = (rated_rows(split, Rating(num_near_contrasts=num), seed=7) for num in (0, 4))
    assert [row["id"] for row in near] == [row["id"] for row in at_random]
    assert sum(row["contrasts"] != other["contrasts"] for row, other in zip(near, at_random, strict=True)) > len(near) / 2
    assert all(instructions[row["seed"]] not in row["contrasts"] for row in near)
