"""X-Instruction's rounds of rating: what each evaluator is called, what it is examined on, and what came of its round."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from xl.evaluate.intervals import Interval, auc_interval
from xl.evaluate.rows import finished_rows
from xl.folder import RunFolder
from xl.pairs.levels import Level
from xl.pairs.rate import Rating, rate_pair, rated_or_null
from xl.pairs.rating_set import HARD_KINDS, PAIR_SCHEMA, pair_rows, rating_set
from xl.pairs.seeds import Seed
from xl.records import Row, Status
from xl.report.rounds import ALL, Agreement, Round, RoundScore
from xl.stage import RowStage
from xl.store import StageStore
from xl.train.roles import Exam

SETTLED = "the share of accepted pairs had settled"
NOTHING_SURE = "no language had pairs that were surely good and pairs that were surely bad"
_EXAM_STAGE = "rated"


def evaluator_role(number: int) -> str:
    """The role of the evaluator of a round."""
    return "rater" if number == 1 else f"rater_{number}"


def rated_stage(number: int) -> str:
    """The stage of a round's ratings."""
    return "rated" if number == 1 else f"rated_{number}"


def evaluator_exam(held_out: Sequence[Seed], rating: Rating, seed: int) -> Exam | None:
    """The rating set of the held-out seeds, for evaluators to rate; None where none are held out."""
    ask = rate_pair(rating)
    step = rated_or_null(ask, "rating", "rating")
    settings = {"prompts": ask.prompt.wordings}
    stage = RowStage(_EXAM_STAGE, (step,), pa.schema([("rating", pa.float64())]), settings)
    rows = pair_rows(rating_set(held_out, rating.max_page_chars, seed))
    return Exam(tuple(rows), PAIR_SCHEMA, stage) if rows else None


def rounds_of(run: RunFolder, shards: list[str], rating: Rating, seed: int, digests: Sequence[str]) -> list[Round]:
    """What the rounds of a run came to; `digests` are those of their evaluators, one a round."""
    rounds: list[Round] = []
    for number, digest in enumerate(digests, 1):
        num_labels = _num_labels(run, shards, number)
        if number > 1 and not num_labels:
            rounds.append(Round(number, digest, 0, None, _why_not(rounds[-1], rating), {}))
            continue
        store = run.store(rated_stage(number))
        tables = [_rated(store, shard, number, rating.min_rating) for shard in shards]
        scores = _scores(pa.concat_tables(tables), _exam_rows(run, number), seed) if tables else {}
        rounds.append(Round(number, digest, num_labels, _change(tables) if number > 1 else None, None, scores))
    return rounds


def _why_not(before: Round, rating: Rating) -> str:
    """Why a round had nothing to learn, as `xl.pairs.rounds` decides it."""
    if before.not_asked:
        return before.not_asked
    settled = before.acceptance_change is not None and abs(before.acceptance_change) < rating.rounds.min_change
    return SETTLED if settled else NOTHING_SURE


def _num_labels(run: RunFolder, shards: list[str], number: int) -> int:
    if number == 1:
        return 0
    store = run.store(f"labelled_{number}")
    return sum(pc.count(store.read(shard, ["label"])["label"]).as_py() for shard in shards)


def _rated(store: StageStore, shard: str, number: int, min_rating: float) -> pa.Table:
    """Language, level and whether accepted of a shard's rated pairs, and from the second round on whether accepted before."""
    before = ["rating_before"] if number > 1 else []
    table = store.read(shard, ["lang", "rating", "rating_level", "status", *before])
    table = table.filter(pc.equal(table["status"], Status.KEPT.value))
    accepted = {name.replace("rating", "accepted"): pc.greater_equal(table[name], min_rating) for name in ("rating", *before)}
    return pa.table({"lang": table["lang"], "level": table["rating_level"], **accepted})


def _change(tables: Sequence[pa.Table]) -> float | None:
    table = pa.concat_tables(tables)
    if not table.num_rows:
        return None
    now, before = (pc.sum(table[name]).as_py() for name in ("accepted", "accepted_before"))
    return float((now - before) / table.num_rows)


def _scores(table: pa.Table, exam: list[Row], seed: int) -> dict[str, RoundScore]:
    counts: dict[str, Counter[tuple[int, bool]]] = {ALL: Counter()}
    for row in table.group_by(["lang", "level", "accepted"]).aggregate([([], "count_all")]).to_pylist():
        for key in (ALL, row["lang"]):
            counts.setdefault(key, Counter())[row["level"], row["accepted"]] += row["count_all"]
    return {key: _score(counts[key], [row for row in exam if key in (ALL, row["lang"])], seed) for key in sorted(counts)}


def _score(counts: Counter[tuple[int, bool]], exam: list[Row], seed: int) -> RoundScore:
    bad, flawed, good = (sum(counts[int(level), accepted] for accepted in (False, True)) for level in Level)
    num_accepted = sum(count for (_, accepted), count in counts.items() if accepted)
    hard = [row for row in exam if is_hard(row)]
    return RoundScore(counts.total(), num_accepted, (bad, flawed, good), _agreement(exam, seed), _agreement(hard, seed))


def _exam_rows(run: RunFolder, number: int) -> list[Row]:
    exam = RunFolder(run.role_folder(evaluator_role(number)) / "exam")
    return finished_rows(exam, _EXAM_STAGE) if exam.info else []


def _agreement(rows: list[Row], seed: int) -> Agreement | None:
    read = [row for row in rows if row["rating"] is not None]
    if len({row["level"] > Level.BAD for row in read}) < 2:
        return None
    auc, interval = rater_auc(read, "rating", seed)
    return Agreement(len(read), auc, interval.low, interval.high)


def is_hard(row: Row) -> bool:
    """Whether a pair of the rating set is a seed pair, or a bad one that is hard to tell from it; with questions about a detail belong
    the passages that answer them, for else their wording alone would tell.
    """
    return row["kind"] in ("seed", "passage", *HARD_KINDS)


def rater_auc(rows: list[Row], column: str, seed: int) -> tuple[float, Interval]:
    """Area under the ROC curve of a column of ratings, good and flawed pairs against bad ones, over seeds; unread ratings are left out."""
    rated = [row for row in rows if row[column] is not None]
    return auc_interval([row[column] for row in rated], [row["level"] > Level.BAD for row in rated], [row["seed"] for row in rated], seed)
