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
