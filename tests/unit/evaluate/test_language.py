"""An answer in the wrong language is found out, and one in the right language is not lost."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner

from tests.support import ROOT
from xl.cli import app
from xl.errors import UserError
from xl.evaluate.identify import Identified, Identifier, fasttext, identifier, py3langid
from xl.evaluate.language import Decision, Verdict, answer_language, human_recall, language_report
from xl.evaluate.language_confusion import check_answer, confusion_score, default_identifiers, mean_score
from xl.pages.repetition import is_repetitive

GERMAN = "Der alte Leuchtturm steht seit mehr als hundert Jahren auf der Landzunge vor dem Dorf."
ENGLISH = "The old lighthouse has been standing on the headland for more than a hundred years."
THAI = "ประภาคารเก่าแก่แห่งนี้ตั้งอยู่บนแหลมหน้าหมู่บ้านชาวประมงมานานกว่าหนึ่งร้อยปีแล้ว"
CHINESE = "灯塔在渔村前面的海角上已经矗立了一百多年"
ARABIC = "تقف المنارة القديمة على الرأس أمام قرية الصيادين منذ أكثر من مئة عام"


def says(language: str | None, confidence: float = 1.0) -> Identifier:
    """An identifier that gives every text the same language."""

    def identify(text: str) -> Identified:
        return language, confidence

    return Identifier("stub", identify, lambda lang: lang != "xx")


def sample_pages() -> dict[str, list[str]]:
    files = sorted((ROOT / "jobs" / "samples" / "pages").glob("*.jsonl"))
    return {path.stem: [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()] for path in files}


@pytest.mark.parametrize("max_chars", [300, 160])
def test_human_text_as_long_as_a_small_models_answer_is_known_in_every_language(max_chars: int) -> None:
    recall = human_recall(sample_pages(), [py3langid()], max_chars)
    assert len(recall) == 8
    assert {lang: ratio for lang, ratio in recall.items() if ratio < 0.95} == {}


def test_human_text_in_another_language_is_never_taken_for_the_wanted_one() -> None:
    pages = sample_pages()
    identifiers = (fasttext(), py3langid())
    others = dict(zip(pages, [*list(pages)[1:], *list(pages)[:1]], strict=True))
    verdicts = {lang: [answer_language(t[:300], other, identifiers).verdict for t in pages[lang][:10]] for lang, other in others.items()}
    assert {verdict for each in verdicts.values() for verdict in each} == {Verdict.WRONG}


@pytest.mark.parametrize(
    ("text", "wanted", "found", "expected"),
    [
        (GERMAN, "de", ["de", "de"], Decision(Verdict.RIGHT, "de")),
        (GERMAN, "de", ["nl", "de"], Decision(Verdict.RIGHT, "de")),
        (GERMAN, "fi", ["de", "de"], Decision(Verdict.WRONG, "de")),
        (GERMAN, "fi", ["de", "nl"], Decision(Verdict.WRONG, "und")),
        (GERMAN, "fi", ["de", None], Decision(Verdict.SKIPPED, reason="undecided")),
        (GERMAN, "th", ["de", None], Decision(Verdict.WRONG, "de")),
        (GERMAN, "fi", [None, None], Decision(Verdict.SKIPPED, reason="undecided")),
        (GERMAN, "fi", ["de"], Decision(Verdict.WRONG, "de")),
        (CHINESE, "zh", ["wuu"], Decision(Verdict.RIGHT, "zh")),
    ],
)
def test_an_answer_is_lost_only_when_all_identifiers_or_one_and_the_script_deny_it(
    text: str, wanted: str, found: list[str | None], expected: Decision
) -> None:
    assert answer_language(text, wanted, [says(lang) for lang in found]) == expected


def test_an_identifier_that_does_not_know_the_language_denies_nothing() -> None:
    """Who has no name for Scots calls it English."""
    ignorant = replace(says("en"), knows=lambda lang: lang != "sco")
    scots = "The watter bules at a hunder degrees Celsius abuin the sea, an it freezes at nocht."
    assert answer_language(scots, "sco", [says("en"), ignorant]).reason == "undecided"
    assert answer_language(scots, "de", [says("en"), ignorant]) == Decision(Verdict.WRONG, "en")


def test_an_unsure_identifier_denies_nothing() -> None:
    assert answer_language(GERMAN, "fi", [says("de"), says("et", 0.2)]).reason == "undecided"


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "empty"), ("", "empty"), ("12 + 30 = 42", "empty"), ("```py\nprint(1)\n```", "empty"), ("Ja, gern.", "too_short")],
)
def test_an_answer_that_cannot_be_judged_is_skipped_with_its_reason(text: str | None, reason: str) -> None:
    assert answer_language(text, "de", [says("en")]) == Decision(Verdict.SKIPPED, reason=reason)


@pytest.mark.parametrize(
    "foreign",
    [
        "```python\n# read every line of the file and print what is in it\nfor line in file: print(line)\n```",
        "~~~\nan unfinished block of code that was cut off by the limit of tokens",
        "https://example.org/the-old-lighthouse/has-been/standing-on-the-headland or at lighthouse@headland.example.org",
        f"“{ENGLISH[:60]}”",
        f"> {ENGLISH[:60]}",
    ],
)
def test_code_addresses_and_quotations_say_nothing_about_the_language(foreign: str) -> None:
    seen: list[str] = []

    def identify(text: str) -> Identified:
        seen.append(text)
        return "de", 1.0

    answer_language(f"{GERMAN}\n{foreign}", "de", [Identifier("spy", identify, lambda lang: True)])
    assert GERMAN in seen[0] and not any(word in seen[0] for word in ("line", "block", "headland"))


def test_an_answer_that_is_all_quotation_is_judged_all_the_same() -> None:
    assert answer_language(f'"{ENGLISH}"', "de", [py3langid()]) == Decision(Verdict.WRONG, "en")


def test_a_language_that_no_identifier_knows_is_refused_instead_of_lost() -> None:
    with pytest.raises(UserError, match=r"'xx' cannot be judged.*stub"):
        answer_language(GERMAN, "xx", [says("de")])
    with pytest.raises(UserError, match="unknown identifier 'nothing'; there are fasttext and py3langid"):
        identifier("nothing")
    with pytest.raises(UserError, match="does not know the language 'tlh'"):
        py3langid(frozenset({"de", "tlh"})).identify(GERMAN)


def test_identification_can_be_restricted_to_a_few_languages() -> None:
    assert py3langid(frozenset({"fi", "th"})).identify(GERMAN)[0] == "fi"


def test_skips_count_as_misses_unless_told_otherwise() -> None:
    right, wrong, skipped = Decision(Verdict.RIGHT, "de"), Decision(Verdict.WRONG, "en"), Decision(Verdict.SKIPPED, reason="empty")
    decisions = [("de", right)] * 8 + [("de", wrong), ("de", skipped), ("fi", skipped)]
    report = language_report(decisions, human_recall={"de": 0.99})
    german = report.languages["de"]
    assert (german.num_answers, german.num_right, german.num_wrong, german.num_skipped, german.accuracy) == (10, 8, 1, 1, 0.8)
    assert german.interval == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson's interval of 8 in 10, from the literature
    assert (report.overall.num_answers, report.confusion["de"], report.human_recall) == (11, {"de": 8, "en": 1}, {"de": 0.99})
    without = language_report(decisions, skips_are_misses=False)
    assert (without.languages["de"].accuracy, without.languages["fi"].accuracy) == (pytest.approx(8 / 9), None)


def published(text: str, lang: str) -> tuple[int, int]:
    check = check_answer(text, lang, default_identifiers("published"), "published")
    return check.num_lines, check.num_wrong_lines


def test_the_published_line_rule_counts_lines_of_five_tokens() -> None:
    assert published(f"{GERMAN}\n{ENGLISH}", "de") == (2, 1)
    assert published(f"{GERMAN}\nonly four words here", "de") == (1, 0)
    assert published("Ja, gern.\n1. eins\n2. zwei", "de") == (0, 0)
    assert published(f"{GERMAN}\nQ: {ENGLISH}", "de") == (1, 0)
    assert published(CHINESE, "zh") == (1, 0)
    unsure = check_answer(GERMAN, "de", [says("de", 0.3)], "published")
    assert (unsure.num_lines, unsure.num_wrong_lines) == (1, 1)


def test_our_line_rule_judges_scripts_without_spaces_and_keeps_sure_lines_only() -> None:
    identifiers = default_identifiers("ours")
    mixed = check_answer(f"{THAI}\n{ENGLISH}", "th", identifiers, "ours")
    assert (mixed.num_lines, mixed.num_wrong_lines, published(THAI, "th")) == (2, 1, (0, 0))
    assert check_answer(f"{GERMAN}\n“{ENGLISH[:30]}”", "de", identifiers, "ours").passes_lines


@pytest.mark.parametrize("protocol", ["published", "ours"])
def test_english_words_are_found_among_others_but_names_are_not(protocol: Any) -> None:
    def words(text: str, lang: str) -> tuple[str, ...] | None:
        return check_answer(text, lang, default_identifiers(protocol), protocol).english_words

    assert words(f"{ARABIC} lighthouse.", "ar") == ("lighthouse",)
    assert words(f"{ARABIC} Google, sea", "ar") == ()
    assert words(f"{CHINESE}使用machine学习", "zh") == ("machine",)
    assert words(GERMAN, "de") is None


def test_rates_leave_skipped_answers_out_and_weigh_languages_alike() -> None:
    identifiers = default_identifiers("published")
    arabic = [ARABIC, ARABIC, f"{ARABIC} lighthouse", ENGLISH, "نعم", None]
    score = confusion_score([check_answer(text, "ar", identifiers, "published") for text in arabic])
    assert (score.num_answers, score.num_skipped) == (6, 2)
    assert (score.line_pass_rate, score.word_pass_rate) == (3 / 4, 2 / 3)
    assert score.language_confusion_pass_rate == pytest.approx(2 * 3 / 4 * 2 / 3 / (3 / 4 + 2 / 3))
    german = confusion_score([check_answer(GERMAN, "de", identifiers, "published")] * 10)
    nothing = confusion_score([check_answer("", "fi", identifiers, "published")])
    mean = mean_score([score, german, nothing])
    assert (nothing.line_pass_rate, nothing.interval) == (None, None)
    assert (mean.num_languages, mean.line_pass_rate, mean.word_pass_rate) == (3, (3 / 4 + 1) / 2, 2 / 3)


ROWS = [
    {"completion": f"{GERMAN}\n\n{GERMAN}", "language": "de", "model": "m"},
    {"completion": ENGLISH, "language": "German", "model": "m"},
    {"completion": "Ja, gern.", "language": "deu_Latn", "model": "m"},
    {"completion": ARABIC, "language": "Arabic", "model": "m"},
]


def write_csv(path: Path) -> None:
    path.write_text(
        "\n".join(["\ufeffcompletion,language,model", *('"{completion}",{language},{model}'.format(**row) for row in ROWS)]), "utf-8"
    )


def json_lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


WRITERS: dict[str, Callable[[Path], Any]] = {
    "answers.csv": write_csv,
    "answers.jsonl": lambda path: path.write_bytes(json_lines()),
    "answers.jsonl.gz": lambda path: path.write_bytes(gzip.compress(json_lines())),
    "answers.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(json_lines())),
    "answers.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
}


def score(path: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["score", "language", str(path), *options])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_any_format_is_scored_alike(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    result = json.loads(score(tmp_path / name, "--json"))
    german = result["languages"]["de"]
    assert (german["num_answers"], german["num_skipped"], german["line_pass_rate"], german["word_pass_rate"]) == (3, 1, 0.5, None)
    assert (result["mean"]["line_pass_rate"], result["mean"]["word_pass_rate"]) == (0.75, 1.0)
    assert (result["protocol"], result["identifiers"]) == ("published", ["fasttext"])


def test_rows_can_be_chosen_by_another_column(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(f"completion,language,task\n{GERMAN},de,monolingual\n{ENGLISH},de,crosslingual\n", "utf-8")
    result = json.loads(score(path, "--json", "--where", "task=crosslingual"))
    assert (result["languages"]["de"]["num_answers"], result["mean"]["line_pass_rate"]) == (1, 0)
    for condition, complaint in (
        ("task=other", "no answers in it with task=other"),
        ("model=m", "no column 'model'"),
        ("m", "column=value"),
    ):
        with pytest.raises(UserError, match=complaint):
            score(path, "--where", condition)


def test_half_of_a_surrogate_pair_fails_no_answer() -> None:
    assert answer_language(f"{GERMAN} \ud83d", "de", (fasttext(), py3langid())) == Decision(Verdict.RIGHT, "de")


def test_protocol_and_identifiers_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(json.dumps({"completion": text, "language": "th"}) for text in (THAI, None)))
    ours = json.loads(score(path, "--json", "--protocol", "ours", "--identifier", "py3langid"))
    assert (ours["languages"]["th"]["line_pass_rate"], ours["languages"]["th"]["num_skipped"], ours["identifiers"]) == (1, 1, ["py3langid"])
    table = score(path)
    assert "Thai" in table and "mean" in table and "--protocol ours" in table


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", None, "no file"),
        ("a.txt", "x", r"must end in one of \.csv"),
        ("a.csv", "", "no answers in it"),
        ("a.jsonl", "\n", "no answers in it"),
        ("a.csv", "completion,lang\nHallo,de\n", r"no column 'language' \(there are: completion, lang\)"),
        ("a.csv", "completion,language\nHallo,de\nHallo,Klingon\n", "row 2: unknown language 'Klingon'"),
        ("a.csv", "completion,language\nHallo\n", "row 1: unknown language None"),
        ("a.jsonl", '{"completion": "Hallo", "language": "de"}\n{"completion": ', "line 2 is not JSON"),
        ("a.jsonl", '{"completion": "Hallo"}', "no column 'language' in line 1"),
        ("a.jsonl", '{"completion": 5, "language": "de"}', "row 1: `completion` is int"),
        ("a.jsonl", "[1]", "line 1 is not a JSON object"),
        ("a.jsonl.gz", "no gzip", "cannot be read"),
        ("a.jsonl.zst", "no zstd", "cannot be read"),
        pytest.param("a.jsonl.gz", gzip.compress(json_lines())[:10] + b"\xff" * 9, "cannot be read", id="corrupt .gz"),
        pytest.param("a.jsonl.zst", zstandard.compress(json_lines())[:-9], "cannot be read", id="cut off .zst"),
        ("a.parquet", "no parquet", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_scored_is_told_in_one_line(tmp_path: Path, name: str, content: str | bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=complaint) as raised:
        score(tmp_path / name)
    assert name in str(raised.value) and "\n" not in str(raised.value)


def test_loops_are_told_from_prose_in_any_script() -> None:
    assert all(map(is_repetitive, ("la " * 30, "a" * 200, f"{GERMAN} " * 4, "ชาวบ้าน" * 20, f"{ENGLISH}\n" * 3)))
    assert not any(is_repetitive(text[:160]) for texts in sample_pages().values() for text in texts)
    assert not is_repetitive("")
