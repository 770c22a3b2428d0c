"""`xl score winrate`: AlpacaEval's figures from AlpacaEval's files, and one line for every mistake."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import SHARED
from xl.cli import main

DATA = SHARED / "alpaca_eval"
ROW = {"instruction": "Say hi.", "output_1": "Hi.", "output_2": "Hello.", "generator_1": "ref", "generator_2": "mine", "preference": 1.0}


def rows(*preferences):
    return [{**ROW, "instruction": f"Say {n}.", "output_2": f"Hello {n}.", "preference": p} for n, p in enumerate(preferences)]


@pytest.fixture
def score(monkeypatch, capsys):
    """The command: exit code, what it printed, what it said on stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["xl", "score", "winrate", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.mark.parametrize("model", ["gemma-7b-it", "vicuna-7b-v1.5", "claude-2.1"])
def test_the_published_figures_come_out_of_the_published_annotations(score, model):
    if not DATA.exists():
        pytest.skip(f"AlpacaEval's annotations are not at {DATA}")
    published = json.loads((DATA / "expected.json").read_text())
    code, told, _ = score(DATA / f"annotations.{model}.parquet", "--json", "--published", DATA / "expected.json")
    found = json.loads(told)
    assert code == 0 and found["model"] == model and found["published"] == published[model]
    for key in ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total", "avg_length"):
        assert found[key] == pytest.approx(float(published[model][key]), abs=1e-6), key
    assert found["win_rate_low"] < found["win_rate"] < found["win_rate_high"]
    assert found["lc_win_rate_low"] < found["length_controlled_winrate"] < found["lc_win_rate_high"]
    # The model writes half as much as the reference: both rates say that its win rate suffers from it.
    assert min(found["length_controlled_winrate"], float(published[model]["length_controlled_winrate"])) > found["win_rate"]


def test_the_table_shows_the_published_figures_beside(score):
    if not DATA.exists():
        pytest.skip(f"AlpacaEval's annotations are not at {DATA}")
    file, published = DATA / "annotations.claude-2.1.parquet", json.loads((DATA / "expected.json").read_text())["claude-2.1"]
    _, table, _ = score(file, "--published", DATA / "expected.json")
    win_rate = next(line for line in table.splitlines() if line.startswith("│ win rate"))
    assert win_rate.count(f"{float(published['win_rate']):.2f}") == 2
    controlled = next(line for line in table.splitlines() if "length-controlled win rate" in line)
    assert f"{float(published['length_controlled_winrate']):.2f}" in controlled


def test_all_three_formats_give_the_same(score, tmp_path):
    annotations = rows(1.0, 2.0, 1.25, 1.5)
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in annotations))
    pq.write_table(pa.Table.from_pylist(annotations), tmp_path / "a.parquet")
    told = [score(tmp_path / name, "--json")[1] for name in ("a.json", "a.jsonl", "a.parquet")]
    assert told[0] == told[1] == told[2]
    assert json.loads(told[0])["win_rate"] == pytest.approx(100 * (0 + 1 + 0.25 + 0.5) / 4)


def test_invalid_preferences_are_counted_and_are_no_losses(score, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows(2.0, 1.5, 0, None, -1, 3, float("nan"), "yes", True)))
    found = json.loads(score(path, "--json")[1])
    assert (found["n_total"], found["n_invalid"]) == (3, 6)
    assert (found["n_wins"], found["n_wins_base"], found["n_draws"]) == (1, 0, 2)  # AlpacaEval's older files say 0 for a draw
    path.write_text(json.dumps(rows(None, -1)))
    code, told, _ = score(path)
    assert code == 0 and "no win rate: no pair has valid verdicts" in told
    assert json.loads(score(path, "--json")[1])["win_rate"] is None


def test_identical_answers_are_a_draw(score, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{**ROW, "output_2": ROW["output_1"]}]))
    found = json.loads(score(path, "--json")[1])
    assert (found["win_rate"], found["n_draws"], found["standard_error"]) == (50, 1, None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.json", None, "there is no such file"),
        ("a.csv", "x", ".json, .jsonl, .ndjson and .parquet"),
        ("a.json", "{}", "must hold a list"),
        ("a.json", "[]", "holds no annotations"),
        ("a.json", "[1]", "row 1 must be an object"),
        ("a.json", json.dumps([{k: v for k, v in ROW.items() if k != "output_2"}]), "column 'output_2' is missing"),
        ("a.json", json.dumps([ROW, {**ROW, "generator_2": "yours"}]), "'generator_2' holds 2 names"),
        ("a.json", json.dumps(ROW) + "\n" + json.dumps(ROW), "name the file .jsonl"),
        ("a.jsonl", json.dumps(ROW) + "\nnot json", "line 2: not JSON"),
        ("a.parquet", "not parquet", "cannot be read"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(score, tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    code, told, error = score(path)
    assert code == 2 and not told and len(error.splitlines()) == 1
    assert str(path) in error and said in error
