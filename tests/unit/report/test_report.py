"""The report and the card show the numbers as they are, stay whole with odd input, and treat web text as data."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import yaml

from tests.html import NASTY, Tags, drawn
from xl.report import figures
from xl.report.figures import percent
from xl.report.render import Card, ExamplePair, LanguageLedger, Report, StageSummary, duration, render_card, render_report
from xl.report.rounds import Agreement, Round, RoundScore


def stage(name: str, by_language: dict[str, LanguageLedger], seconds: float = 0.0, tokens: tuple[int, int] = (0, 0)) -> StageSummary:
    ledgers = list(by_language.values())
    return StageSummary(
        name=name,
        seconds=seconds,
        num_in=sum(ledger.num_in for ledger in ledgers),
        num_kept=sum(ledger.kept for ledger in ledgers),
        num_dropped=sum(sum(ledger.dropped.values()) for ledger in ledgers),
        num_failed=sum(sum(ledger.failed.values()) for ledger in ledgers),
        prompt_tokens=tokens[0],
        output_tokens=tokens[1],
        tokens_by_ask={"reverse_instruction": tokens} if tokens[0] else {},
        by_language=by_language,
    )


def example(lang: str, text: str, url: str = "https://pages.example/a") -> ExamplePair:
    return ExamplePair("0123abcd", NASTY, text, lang, url, text, 0.25, NASTY)


@pytest.fixture
def report() -> Report:
    pages = {
        "ar": LanguageLedger(12_345, 10_000, {"too_short": 2_345}, {}),
        "th": LanguageLedger(1_000, 900, {"wrong_language": 100}, {}),
    }
    pairs = {"ar": LanguageLedger(10_000, 6_000, {"not_english": 3_998}, {"HTTP 500": 2}), "th": LanguageLedger(900, 900, {}, {})}
    return Report(
        name="demo",
        method="x_instruction",
        created="2026-01-02 03:04",
        recipe_yaml="method: x_instruction\n",
        languages=[("ar", "Arabic"), ("th", "Thai")],
        stages=[stage("pages", pages, 2.0), stage("pairs", pairs, 10.0, (4_000, 600)), stage("rated", {}, 0.0, (5_000, 400))],
        pairs={"ar": [example("ar", NASTY)], "th": [example("th", "ข้อความ", "javascript://x/%0aalert(3)")]},
        topics=[(NASTY, 7), ("explain bread", 3)],
        lengths={"ar": {"instruction": [50, 60], "response": [500, 700]}},
        environment={"python": "3.11"},
        notices=[NASTY],
    )


def test_funnel_bars_are_as_high_as_their_counts_say() -> None:
    svg = figures.funnel([("read", 2_000), ("pages", 1_000), ("pairs", 1), ("dataset", 0)], "Thai")
    heights = [float(bar.get("height", "")) for bar in drawn(svg, "bar")]
    full = figures.PLOT_HEIGHT
    assert heights == [full, full / 2, 1.0, 0.0], "one row of two thousand must still be seen, and none must not"
    assert [text.text for text in drawn(svg, "value")] == ["2,000", "1,000", "1", "0"]


def test_topic_bars_are_as_wide_as_their_counts_say() -> None:
    svg = figures.bars([("explain bread", 40), ("describe tide", 10)], 40, "topics")
    assert [bar.get("width") for bar in drawn(svg, "bar")] == ["100.00%", "25.00%"]


def test_parts_of_the_split_bar_fill_it() -> None:
    svg = figures.split_bar([("pairs", 1, "kept"), ("dropped", 2, "dropped"), ("failed", 0, "failed"), ("more", 1, "dropped")])
    parts = [(bar.get("x"), bar.get("width")) for bar in ET.fromstring(svg).iter("rect")]
    assert parts == [("0.000%", "25.000%"), ("25.000%", "50.000%"), ("75.000%", "25.000%")]


def test_histograms_of_all_languages_share_one_scale() -> None:
    svg = figures.histograms([("German", [50] * 9 + [5_000]), ("Thai", [100] * 100), ("Irish", [])], "lengths")
    medians = [float(line.get("x1", "").rstrip("%")) for line in drawn(svg, "median")]
    ticks = [tick.text for tick in drawn(svg, "tick")]
    assert ticks == ["0", "1,500", "3,000+"]
    left, right = (float(line.get("x1", "").rstrip("%")) for line in (drawn(svg, "grid")[0], drawn(svg, "grid")[-1]))
    assert medians == pytest.approx([left + (right - left) * 50 / 3_000, left + (right - left) * 100 / 3_000], abs=0.01)
    assert [text.text for text in drawn(svg, "value")] == ["50", "100", "–"]


@pytest.mark.parametrize(
    "svg",
    [
        figures.funnel([], "Thai"),
        figures.funnel([("read", 0), ("pages", 0)], "Thai"),
        figures.bars([], 0, "topics"),
        figures.split_bar([("pairs", 0, "kept")]),
        figures.histograms([("Thai", [])], "lengths"),
    ],
)
def test_figures_of_nothing_say_so(svg: str) -> None:
    assert svg == figures.NOTHING


def test_figures_keep_thirty_rows_and_long_labels_apart() -> None:
    label = f"{NASTY} " * 9
    svg = figures.histograms([(f"{i} {label}", [i + 1]) for i in range(30)], label)
    labels = drawn(svg, "label")
    assert len({text.get("y") for text in labels}) == 30
    assert all(len(text.text or "") <= 13 for text in labels)
    assert labels[4].findtext("title") == f"4 {label}", "the whole label is there to be pointed at"
    names = drawn(figures.funnel([(f"{i}{label}", i) for i in range(30)], label), "name")
    assert all(len(name.text or "") <= 6 for name in names)


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (9_999, "9,999"), (10_000, "10.0k"), (999_949, "1.0M"), (123_456_789, "123M")])
def test_compact_counts_fit_above_a_bar(number: int, text: str) -> None:
    assert figures.compact(number) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(0, 9, "0.0%"), (1, 9_999, "<0.1%"), (9_998, 9_999, ">99.9%"), (9, 9, "100.0%"), (0, 0, "–")]
)
def test_a_share_never_rounds_to_none_or_all(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


@pytest.mark.parametrize(("seconds", "text"), [(59.96, "1 min 00 s"), (41.23, "41.2 s"), (3599.7, "1 h 00 min"), (8_040, "2 h 14 min")])
def test_durations_carry_over_to_the_next_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_web_text_in_the_report_makes_no_tag_and_no_link(report: Report) -> None:
    html = render_report(report)
    assert not Tags(html).mistakes
    tags = Tags(html).all
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if any(name.startswith("on") or name == "src" for name in attributes)]
    links = {attributes["href"] for tag, attributes in tags if tag == "a" and not (attributes["href"] or "").startswith("#")}
    assert links == {"https://pages.example/a"}
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_the_report_loads_nothing(report: Report) -> None:
    html = render_report(report)
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|@font-face", html)


def test_texts_carry_their_language_and_direction(report: Report) -> None:
    texts = [attributes for tag, attributes in Tags(render_report(report)).all if tag == "p" and attributes.get("class") == "text"]
    assert [(text["lang"], text["dir"]) for text in texts] == [("ar", "auto"), ("th", "auto")]


def test_text_that_utf8_cannot_hold_does_not_stop_the_report(report: Report) -> None:
    html = render_report(replace(report, pairs={"ar": [example("ar", "a\x00b\ud800c")]}))
    assert "a\ufffdb\ufffdc" in html.encode().decode()


def test_the_report_shows_counts_reasons_and_token_rates(report: Report) -> None:
    cells = re.findall(r"<t[dh][^>]*>([^<]*)<", render_report(report))
    assert {"12,345", "too short", "2,345", "HTTP 500 (failed)"} <= set(cells)
    assert "1,000" in cells, "a pass of 10 s with 4,600 and 5,400 tokens in two stages"


def test_a_ledger_that_does_not_balance_is_pointed_out(report: Report) -> None:
    sound = replace(report, stages=report.stages[:2])
    assert "does not balance" not in render_report(sound)
    assert "does not balance at: rated" in render_report(report), "6,900 rows were kept and none of them arrived there"
    short = replace(report.stages[1], num_in=10_901)
    assert "does not balance at: pairs" in render_report(replace(report, stages=[report.stages[0], short]))


def test_a_long_page_is_clipped_and_says_so(report: Report) -> None:
    html = render_report(replace(report, pairs={"th": [example("th", "ก" * 83_112)]}))
    assert "The first 10,000 of 83,112 characters" in html
    assert html.count("ก") < 11_000


def test_a_pair_without_a_page_shows_the_input_that_its_instruction_is_about(report: Report) -> None:
    translation = replace(example("ar", "مساء"), page_text="", page_url="", topic="", input="Evening.")
    html = render_report(replace(report, pairs={"ar": [translation]}))
    shown = re.findall(r'<p class="what">(\w+)</p>\s*<p class="text"[^>]*>(\S+)</p>', html)
    assert shown == [("Response", "مساء"), ("Input", "Evening.")]


def test_each_round_of_rating_tells_its_acceptance_levels_and_agreement_or_why_nobody_was_asked(report: Report) -> None:
    score = RoundScore(40, 10, (20, 12, 8), Agreement(60, 0.81, 0.7, 0.9))
    rounds = [Round(1, "a", 0, None, None, {"all": score, "th": score}), Round(2, "b", 0, None, "the share had settled", {})]
    told = " ".join(re.sub(r"<[^>]+>", " ", render_report(replace(report, rounds=rounds))).split())
    assert "Thai 40 25.0% 20 12 8 0.81 [0.70, 0.90] –" in told
    assert "Round 2: not asked, the share had settled" in told
    assert "Rounds of rating" not in render_report(report)


def test_a_run_without_rows_has_a_report_and_a_card(report: Report) -> None:
    nothing = replace(report, stages=[stage("pages", {})], pairs={}, topics=[], lengths={}, environment={}, notices=[])
    assert "The dataset holds no pairs." in render_report(nothing)
    assert render_report(replace(nothing, stages=[], languages=[]))
    assert "0 pairs" in render_card(card(0, []))


def card(num_pairs: int, stages: list[StageSummary]) -> Card:
    return Card(
        title="demo: pairs",
        languages=["no", "sw"],
        num_pairs=num_pairs,
        by_language={"no": num_pairs},
        method="x_instruction",
        filters=["at least 150 characters"],
        models=[("writer", "a|b", None)],
        sources=["web"],
        licences=[],
        ledger=stages,
        fields=[("id", "the page's id")],
        version="0.1.0",
    )


def test_the_cards_front_matter_is_what_the_hub_reads() -> None:
    _, front_matter, _ = render_card(card(1_000, [])).split("---\n", 2)
    front = yaml.safe_load(front_matter)
    assert front["language"] == ["no", "sw"], "Norwegian must not turn into false"
    assert (front["license"], front["task_categories"], front["size_categories"]) == ("other", ["text-generation"], ["1K<n<10K"])
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "*.parquet"}]


def test_the_cards_tables_hold_their_columns_whatever_the_names() -> None:
    text = render_card(card(3, [stage("pages", {"no": LanguageLedger(4, 3, {"too|short": 1}, {})}, 1.0)]))
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "| Norwegian | `no` | 4 | 3 | 75.0% |" in text


@pytest.mark.parametrize(
    ("method", "as_people_wrote_them", "english_instruction"),
    [("x_instruction", True, True), ("xl_instruct", False, True), ("cross_alpaca", False, False), ("./my_method.py", False, False)],
)
def test_the_card_says_of_a_methods_pairs_what_is_true_of_them(method: str, as_people_wrote_them: bool, english_instruction: bool) -> None:
    text = render_card(replace(card(3, []), method=method))
    assert ("web pages as people wrote them" in text) == as_people_wrote_them
    assert ("3 pairs of an English instruction and a response" in text) == english_instruction
