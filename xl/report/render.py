"""A run's report as one HTML file, and its dataset's card as Markdown.

Both are rendered from plain dataclasses, which whoever knows the run folder fills. Text from the web or from a model is escaped,
and the report forbids itself scripts and downloads, so that even a slip in the escaping could run and fetch nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import yaml
from markupsafe import Markup

from xl.ask import clip
from xl.compare import Figure
from xl.pages.language import LANGUAGE_NAMES
from xl.report import figures, views
from xl.report.evaluation import Evaluation, Training
from xl.report.figures import percent
from xl.report.methods import METHODS, OWN_METHOD
from xl.report.rounds import ALL, Round, with_rounds

NUM_TOPICS = 30
RESPONSE_CHARS = 420
"""Length of the beginning of a response that is shown at once."""
PAGE_CHARS = 10_000
"""Most characters of a page in the report, which would otherwise grow without limit."""

STAGE_NOTES = {
    "pages": "unreadable, foreign, repetitive and too short pages are removed",
    "duplicates": "copies of a page are removed",
    "pairs": "a model writes the instruction that each page answers",
    "contrasts": "other pages’ instructions are drawn for comparison",
    "rated": "each instruction is measured against its page",
    "labelled": "surely rated pairs are chosen for the next evaluator to learn from",
    "input": "instruction data and parallel text as they were read",
    "samples": "empty, foreign and unequal ones are removed",
    "worded": "each translation gets one of thirty wordings",
    "question": "a model writes the question that each passage answers",
    "refined": "a model rewrites the passage into an answer",
    "scored": "each answer is graded by four criteria",
    "clause": "each pair is given its language",
    "answered": "a teacher answers in the language itself",
    "translated": "each answer is translated several times",
    "checked": "translations with faults are removed",
    "estimated": "the quality of each translation is estimated",
    "chosen": "the best translation of each answer is taken",
    "accepted": "pairs below the thresholds are removed",
    "overlap": "each row is looked up in the benchmarks",
    "uncontaminated": "what a benchmark holds is removed, with all that is of the same document",
    "capped": "repeated instructions and crowded topics are removed",
    "clustered": "instructions are grouped by what they are about",
    "diversified": "pairs are drawn equally from the groups",
    "dataset": "pairs are drawn by the recipe’s sizes; repeated instructions, crowded topics and what is beyond the sizes are removed",
}
REASONS = {
    "answer_leaked": "instruction gives the answer away",
    "contaminated": "found in a benchmark",
    "contaminated_document": "translation or other part of a text that was found in a benchmark",
    "copied_example": "copied from the prompt’s example",
    "degenerate": "malformed instruction",
    "duplicate": "copy of another page",
    "duplicate_instruction": "same instruction as another pair",
    "empty": "no instruction written",
    "no_contrasts": "no other page to compare with",
    "not_english": "instruction is not English",
    "not_drawn": "beyond its group’s share",
    "over_quota": "beyond the number wanted",
    "low_rating": "rated too low",
    "rating_unreadable": "the rater gave no rating",
    "refers_to_text": "instruction speaks of “the text”",
    "symbols": "mostly symbols or digits",
    "topic_cap": "topic already full",
    "translate_or_summarise": "asks to translate or summarise",
    "unlikely_instruction": "instruction does not fit the page",
}
_SIZES = (
    ("n<1K", 1e3),
    ("1K<n<10K", 1e4),
    ("10K<n<100K", 1e5),
    ("100K<n<1M", 1e6),
    ("1M<n<10M", 1e7),
    ("10M<n<100M", 1e8),
    ("100M<n<1B", 1e9),
)


@dataclass(frozen=True)
class LanguageLedger:
    """What became of one language's rows in a stage: num_in = kept + dropped + failed."""

    num_in: int
    kept: int
    dropped: Mapping[str, int]
    failed: Mapping[str, int]


@dataclass(frozen=True)
class StageSummary:
    """A stage in numbers. `tokens_by_ask` maps asks to prompt and output tokens.

    Stages that rows walk through in one pass share a time: it stands at the first, and the others have 0 seconds.
    """

    name: str
    seconds: float
    num_in: int
    num_kept: int
    num_dropped: int
    num_failed: int
    prompt_tokens: int
    output_tokens: int
    tokens_by_ask: Mapping[str, tuple[int, int]]
    by_language: Mapping[str, LanguageLedger]


@dataclass(frozen=True)
class ExamplePair:
    """A pair to look at, beside the page that it came from or the input that its instruction has."""

    id: str
    instruction: str
    response: str
    lang: str
    page_url: str
    page_text: str
    margin: float | None
    topic: str
    input: str = ""


@dataclass(frozen=True)
class Report:
    """All that the report shows. `languages` are codes and English names; `recall` is the language identifier's on human text."""

    name: str
    method: str
    created: str
    recipe_yaml: str
    languages: Sequence[tuple[str, str]]
    stages: Sequence[StageSummary]
    pairs: Mapping[str, Sequence[ExamplePair]]
    topics: Sequence[tuple[str, int]]
    lengths: Mapping[str, Mapping[str, Sequence[int]]]
    environment: Mapping[str, str]
    notices: Sequence[str]
    recall: Mapping[str, float] | None = None
    training: Training | None = None
    evaluation: Evaluation | None = None
    comparison: Sequence[Figure] = ()
    """Benchmarks and all other measures, the tuned model beside the base."""
    rounds: Sequence[Round] = ()
    """Rounds of a trained rater."""


@dataclass(frozen=True)
class Card:
    """All that the dataset card shows. `models` are role, model and licence; `fields` are the columns and what they hold."""

    title: str
    languages: Sequence[str]
    num_pairs: int
    by_language: Mapping[str, int]
    method: str
    filters: Sequence[str]
    models: Sequence[tuple[str, str, str | None]]
    sources: Sequence[str]
    licences: Sequence[str]
    ledger: Sequence[StageSummary]
    fields: Sequence[tuple[str, str]]
    version: str
    remarks: Sequence[tuple[str, str]] = ()
    """What stages had to say, such as how many rows each part of a mixture has."""


class Funnel(NamedTuple):
    """One language's way through the stages: pages read, then rows kept by each stage."""

    code: str
    name: str
    counts: tuple[int, ...]
    figure: Markup


class ReasonRow(NamedTuple):
    """How often a reason took a row out, per language: count, and share of the language's pages."""

    label: str
    cells: tuple[tuple[int, float], ...]
    total: int
    failed: bool


def render_report(report: Report) -> str:
    """The report as one self-contained HTML file: no script, and nothing that is loaded from elsewhere."""
    languages = _languages(report)
    funnels = [_funnel(report.stages, code, name) for code, name in languages]
    topics = report.topics[:NUM_TOPICS]
    num_left = (len(topics) + 1) // 2
    most = max((count for _, count in topics), default=0)
    html = HTML.get_template("report.html.jinja").render(
        report=report,
        languages=languages,
        about=METHODS.get(report.method, OWN_METHOD).how,
        stage_notes=with_rounds(STAGE_NOTES, (stage.name for stage in report.stages)),
        num_pages=sum(funnel.counts[0] for funnel in funnels),
        num_pairs=sum(funnel.counts[-1] for funnel in funnels),
        num_dropped=sum(stage.num_dropped for stage in report.stages),
        num_failed=sum(stage.num_failed for stage in report.stages),
        unbalanced=_unbalanced(report.stages),
        prompt_tokens=sum(stage.prompt_tokens for stage in report.stages),
        output_tokens=sum(stage.output_tokens for stage in report.stages),
        seconds=sum(stage.seconds for stage in report.stages),
        fates=_fates(report.stages),
        funnels=funnels,
        extremes=_extremes(funnels),
        reasons=list(_reasons(report.stages, funnels)),
        topic_columns=[
            figures.bars(part, most, "Commonest topics: " + ", ".join(f"{topic} {count:,}" for topic, count in part))
            for part in (topics[:num_left], topics[num_left:])
            if part
        ],
        instruction_lengths=_lengths(report, languages, "instruction"),
        response_lengths=_lengths(report, languages, "response"),
        rates=_token_rates(report.stages),
        names={**dict(languages), ALL: "all"},
        num_shown_topics=NUM_TOPICS,
        model=views.model_view(report.training) if report.training else None,
        change=views.change_view(report.evaluation) if report.evaluation else None,
    )
    return visible(html)


def render_card(card: Card) -> str:
    """The dataset card: Markdown with the front matter that the Hugging Face Hub reads."""
    front = {
        "pretty_name": card.title,
        "language": list(card.languages),
        "license": "other",
        "task_categories": ["text-generation"],
        "size_categories": [next((name for name, limit in _SIZES if card.num_pairs < limit), "n>1B")],
        "tags": ["instruction-tuning", "cross-lingual", "multilingual"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "*.parquet"}]}],
    }
    read = {code: ledger.num_in for code, ledger in card.ledger[0].by_language.items()} if card.ledger else {}
    return _MARKDOWN.get_template("card.md.jinja").render(
        card=card,
        front_matter=yaml.safe_dump(front, allow_unicode=True, sort_keys=False).rstrip(),
        about=METHODS.get(card.method, OWN_METHOD),
        names=LANGUAGE_NAMES,
        read=read,
        stage_notes=with_rounds(STAGE_NOTES, (stage.name for stage in card.ledger)),
        reasons={stage.name: _commonest_reasons(stage) for stage in card.ledger},
    )


def _languages(report: Report) -> list[tuple[str, str]]:
    """The recipe's languages, then any other that the ledgers name."""
    known = dict(report.languages)
    found = {code for stage in report.stages for code in stage.by_language}
    return [*report.languages, *((code, LANGUAGE_NAMES.get(code, code)) for code in sorted(found - known.keys()))]


def _funnel(stages: Sequence[StageSummary], code: str, name: str) -> Funnel:
    none = LanguageLedger(0, 0, {}, {})
    ledgers = [stage.by_language.get(code, none) for stage in stages]
    counts = (ledgers[0].num_in if ledgers else 0, *(ledger.kept for ledger in ledgers))
    return Funnel(code, name, counts, figures.funnel(list(zip(("read", *(stage.name for stage in stages)), counts, strict=True)), name))


def _extremes(funnels: Sequence[Funnel]) -> tuple[Funnel, Funnel] | None:
    """The languages that keep the largest and the smallest share of their pages, where there is something to compare."""
    ranked = sorted((f for f in funnels if f.counts[0]), key=lambda f: f.counts[-1] / f.counts[0])
    return (ranked[-1], ranked[0]) if len(ranked) > 1 else None


def _fates(stages: Sequence[StageSummary]) -> Markup:
    parts = [("pairs", stages[-1].num_kept if stages else 0, "kept")]
    parts += [(f"dropped at {stage.name}", stage.num_dropped, f"dropped shade{i % 4}") for i, stage in enumerate(reversed(stages))]
    return figures.split_bar([*parts, ("failed", sum(stage.num_failed for stage in stages), "failed")])


def _unbalanced(stages: Sequence[StageSummary]) -> list[str]:
    """Stages whose ledger does not add up, in all or in a language, or that got fewer rows than the stage before them kept."""
    wrong = []
    for before, stage in zip((None, *stages), stages, strict=False):
        total = stage.num_kept + stage.num_dropped + stage.num_failed
        ledgers = stage.by_language.values()
        sound = all(each.num_in == each.kept + sum(each.dropped.values()) + sum(each.failed.values()) for each in ledgers)
        lost = before is not None and stage.num_in < before.num_kept
        if stage.num_in != total or stage.num_in != sum(each.num_in for each in ledgers) or not sound or lost:
            wrong.append(stage.name)
    return wrong


def _reasons(stages: Sequence[StageSummary], funnels: Sequence[Funnel]) -> Iterator[tuple[str, list[ReasonRow]]]:
    """Per stage that took something out: its reasons, commonest first."""
    for stage in stages:
        rows: list[ReasonRow] = []
        for failed in (False, True):
            by_language = {code: ledger.failed if failed else ledger.dropped for code, ledger in stage.by_language.items()}
            for reason in {reason for counts in by_language.values() for reason in counts}:
                counts = [by_language.get(funnel.code, {}).get(reason, 0) for funnel in funnels]
                cells = tuple((n, n / funnel.counts[0] if funnel.counts[0] else 0.0) for n, funnel in zip(counts, funnels, strict=True))
                rows.append(ReasonRow(reason_label(reason), cells, sum(counts), failed))
        if rows:
            yield stage.name, sorted(rows, key=lambda row: (row.failed, -row.total, row.label))


def _lengths(report: Report, languages: Sequence[tuple[str, str]], part: str) -> Markup:
    rows = [(name, report.lengths.get(code, {}).get(part, ())) for code, name in languages]
    return figures.histograms(rows, f"{part.capitalize()} lengths in characters, by language")


def _token_rates(stages: Sequence[StageSummary]) -> dict[str, float]:
    """Tokens per second (prompt and output) of each pass, under the name of its first stage."""
    tokens: dict[str, int] = {}
    seconds: dict[str, float] = {}
    first = ""
    for stage in stages:
        if stage.seconds > 0:
            first = stage.name
            seconds[first] = stage.seconds
        tokens[first] = tokens.get(first, 0) + stage.prompt_tokens + stage.output_tokens
    return {name: tokens[name] / seconds[name] for name in seconds if tokens[name]}


def _commonest_reasons(stage: StageSummary) -> str:
    totals: dict[str, int] = {}
    for ledger in stage.by_language.values():
        for reason, count in (*ledger.dropped.items(), *ledger.failed.items()):
            totals[reason] = totals.get(reason, 0) + count
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{reason_label(reason)} ({count:,})" for reason, count in ranked)


def reason_label(reason: str) -> str:
    """A reason in words: `too_short` is "too short"."""
    return REASONS.get(reason, reason.replace("_", " ") if re.fullmatch(r"\w+", reason) else reason)


def duration(seconds: float) -> str:
    """A time in at most two units: 41.2 s, 12 min 05 s, 2 h 14 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def visible(text: str) -> str:
    """Text without what neither shows nor can be written as UTF-8: control characters and lone surrogates become U+FFFD."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text.replace("\r\n", "\n"))


def web_link(url: str) -> str | None:
    """The address, if it is safe to follow: anything but HTTP, such as `javascript:`, is shown and not linked."""
    return url if re.match(r"https?://[^\s]+$", url, re.IGNORECASE) else None


def _table_cell(text: object) -> str:
    """Text that cannot leave its cell in a Markdown table, nor open an HTML tag."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(num="{:,}".format, duration=duration, clip=clip, web_link=web_link, cell=_table_cell)
    environment.filters.update(interval=views.interval_text, language_verdict=views.language_verdict)
    environment.globals.update(percent=percent, response_chars=RESPONSE_CHARS, page_chars=PAGE_CHARS)
    return environment


HTML, _MARKDOWN = _environment(autoescape=True), _environment(autoescape=False)
