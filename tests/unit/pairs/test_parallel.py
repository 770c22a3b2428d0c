"""Parallel text: the same pairs from any format, none lost without a word, and no file that can do harm."""

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pydantic import ValidationError

from xl.errors import UserError
from xl.pairs.demonstrations import read_demonstrations, templates, word_translation
from xl.pairs.parallel import ParallelText, SentencePair, read_pairs
from xl.records import Row

# The second sentence holds a line separator (U+2028) and a quotation mark, both plain text in these formats.
PAIRS = [("Good morning.", "Guten Morgen."), ('The "old\u2028town" sleeps.', 'Die "Alt\u2028stadt" schläft.'), ("A & B < C", "A & B < C?")]
TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en" datatype="plaintext" segtype="sentence"/><body>
<tu><prop type="doc">d1</prop><tuv xml:lang="en-GB"><seg>Good morning.</seg></tuv><tuv xml:lang="de"><seg>Guten Morgen.</seg></tuv></tu>
<tu><tuv lang="DE"><seg>Die <hi>Altstadt</hi> <bpt i="1">&lt;b></bpt>schläft<ept i="1">&lt;/b></ept>.</seg></tuv>
<tuv xml:lang="en"><seg>The old
  town sleeps.</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Only English.</seg></tuv><tuv xml:lang="fr"><seg>Bonjour.</seg></tuv></tu>
</body></tmx>"""


def moses(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> tuple[str, str]:
    paths = str(folder / "t.en"), str(folder / "t.de")
    for path, side in zip(paths, zip(*pairs, strict=True), strict=True):
        Path(path).write_text("".join(line + "\n" for line in side), "utf-8", newline="\n")
    return paths


def read(from_: Any, lang: str = "de", **settings: Any) -> list[SentencePair]:
    return list(read_pairs(ParallelText.model_validate({"from": from_, "lang": lang, **settings})))


def demonstrations(text: ParallelText, weights: dict[str, float], seed: int = 7) -> list[Row]:
    return list(read_demonstrations(text, weights, seed, Counter()))


def test_moses_pairs_and_tsv_give_the_same_pairs_compressed_or_not(tmp_path: Path) -> None:
    expected = [SentencePair(*pair) for pair in PAIRS]
    assert read(moses(tmp_path)) == expected
    data = "\ufeff" + "".join(f"{english}\t{german}\r\n" for english, german in PAIRS)
    files = {"t.tsv": data.encode(), "t.tsv.gz": gzip.compress(data.encode())}
    half = len(data) // 2  # what a parallel compressor writes: several frames
    files["t.tsv.zst"] = zstandard.compress(data[:half].encode()) + zstandard.compress(data[half:].encode())
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert read(str(tmp_path / name)) == expected, name


def test_tsv_columns_go_by_number_or_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("doc\tde\tscore\ten\nd1\tGuten Tag.\t0.9\tHello.\n", "utf-8")
    named = {"english": "en", "other": "de", "document": "doc"}
    assert read(str(tmp_path / "t.tsv"), columns=named) == [SentencePair("Hello.", "Guten Tag.", "d1")]
    assert read(str(tmp_path / "t.tsv"), columns={"english": 4, "other": 2})[1] == SentencePair("Hello.", "Guten Tag.")
    with pytest.raises(UserError, match=r"t\.tsv: no column 'fi' \(there are: doc, de, score, en\)"):
        read(str(tmp_path / "t.tsv"), columns={"english": "en", "other": "fi"})


def test_files_of_a_moses_pair_that_are_not_equally_long_are_refused_with_both_counts(tmp_path: Path) -> None:
    english, german = moses(tmp_path)
    Path(german).write_text("Guten Morgen.\n", "utf-8")
    with pytest.raises(UserError, match=r"t\.en has 3 lines, .*t\.de has 1 lines"):
        read((english, german))


def test_a_third_file_names_the_documents(tmp_path: Path) -> None:
    (tmp_path / "docs").write_text("d1\n\nd2\n")
    assert [pair.document for pair in read(moses(tmp_path), documents=str(tmp_path / "docs"))] == ["d1", None, "d2"]


def test_a_line_that_cannot_be_read_is_a_row_that_names_it(tmp_path: Path) -> None:
    english, german = moses(tmp_path)
    Path(german).write_bytes(b"Guten Morgen.\nDie Altstadt schl\xe4ft.\nA\n")
    pairs = read((english, german))
    assert [pair.error for pair in pairs] == [None, f"{german}: line 2 is not UTF-8: invalid continuation byte", None]
    (tmp_path / "t.tsv").write_bytes(b"only one column\n\tGuten Tag.\nb\xff\tc\n")
    pairs = read(str(tmp_path / "t.tsv"))
    assert pairs[0].error == f"{tmp_path}/t.tsv: line 1 has 1 columns, and 2 are wanted"
    assert pairs[1] == SentencePair("", "Guten Tag.")
    assert pairs[2].error == f"{tmp_path}/t.tsv: line 3 is not UTF-8: invalid start byte"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tmx_gives_text_without_markup_and_its_documents(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.tmx").write_bytes(TMX.replace("UTF-8", encoding).encode(encoding))
    assert read(str(tmp_path / "t.tmx"), document_property="doc") == [
        SentencePair("Good morning.", "Guten Morgen.", "d1"),
        SentencePair("The old town sleeps.", "Die Altstadt schläft."),
        SentencePair("Only English.", ""),
    ]


def test_tmx_without_the_language_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "t.tmx").write_text(TMX, "utf-8")
    with pytest.raises(UserError, match=r"t\.tmx: no segment is in 'fi'; languages in the file: en, de, fr"):
        read(str(tmp_path / "t.tmx"), "fi")


@pytest.mark.parametrize(
    "entity",
    [
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">',
        '<!ENTITY b SYSTEM "file:///etc/passwd">',
        '<!ENTITY % b SYSTEM "http://127.0.0.1:9/x.dtd"> %b;',
    ],
)
def test_tmx_that_declares_entities_is_refused(tmp_path: Path, entity: str) -> None:
    body = '<tmx><body><tu><tuv xml:lang="en"><seg>&b;</seg></tuv><tuv xml:lang="de"><seg>b</seg></tuv></tu></body></tmx>'
    (tmp_path / "t.tmx").write_text(f"<!DOCTYPE tmx [{entity}]>{body}", "utf-8")
    with pytest.raises(UserError, match=r"t\.tmx: declares the XML entity '[ab]'"):
        read(str(tmp_path / "t.tmx"))


def test_damaged_files_are_one_line_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "t.tmx").write_text(TMX[:-20], "utf-8")
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress(b"a\tb\n" * 999)[:-9])
    (tmp_path / "t.tsv.zst").write_bytes(b"no zstandard")
    (tmp_path / "cut.tsv.zst").write_bytes(zstandard.compress("".join(f"{n}\t{n}\n" for n in range(20_000)).encode())[:-9_000])
    for name, message in (
        ("t.tmx", "not well-formed XML"),
        ("t.tsv.gz", "cannot be read"),
        ("t.tsv.zst", "cannot be read"),
        ("cut.tsv.zst", "cannot be read"),
        ("u.tsv", "no file"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_of_two_files_the_damaged_one_is_named(tmp_path: Path) -> None:
    english, german = moses(tmp_path)
    Path(f"{english}.gz").write_bytes(gzip.compress(b"Good morning.\n" * 999)[:-9])
    with pytest.raises(UserError, match=r"t\.en\.gz: cannot be read"):
        read((f"{english}.gz", german))


def test_a_limit_takes_the_first_pairs(tmp_path: Path) -> None:
    assert len(read(moses(tmp_path), limit=2)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lang": "en", "from": ["a", "b"]}, "name the other one"),
        ({"lang": "de", "from": "news.txt"}, "ends neither in .tsv nor in .tmx"),
        ({"lang": "de", "from": "a.tmx", "documents": "docs"}, "`documents` belongs to moses"),
        ({"lang": "de", "from": ["a", "b"], "columns": {"english": 2, "other": 1}}, "`columns` belongs to tsv"),
        ({"lang": "de", "from": "a.tsv", "columns": {"english": "en", "other": 2}}, "name the columns or number them"),
        ({"lang": "de", "from": "a.tsv", "columns": {"english": 0, "other": 1}}, "numbered from 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ParallelText.model_validate(settings)


def test_directions_keep_their_ratio_and_a_new_pair_changes_no_other_draw(tmp_path: Path) -> None:
    pairs = [(f"House number {n}.", f"Haus Nummer {n}.") for n in range(2000)]
    text = ParallelText.model_validate({"from": moses(tmp_path, pairs), "lang": "de"})
    samples = demonstrations(text, {"en-x": 3, "x-en": 1})
    assert 0.71 < sum(s["direction"] == "en-x" for s in samples) / 2000 < 0.79
    moses(tmp_path, [("New.", "Neu."), *pairs])
    assert demonstrations(text, {"en-x": 3, "x-en": 1})[1:] == samples


def test_a_demonstration_asks_for_the_direction_that_its_sides_have(tmp_path: Path) -> None:
    text = ParallelText.model_validate({"from": moses(tmp_path), "lang": "de"})
    for weights, sides, codes in (({"en-x": 1}, PAIRS[0], ("en", "de")), ({"x-en": 1}, PAIRS[0][::-1], ("de", "en"))):
        sample = demonstrations(text, weights)[0]
        assert ((sample["input"], sample["response"]), (sample["request_lang"], sample["lang"])) == (sides, codes)
        instruction = (word_translation(7, sample) or {})["instruction"]
        source, target = ("English", "German") if codes == ("en", "de") else ("German", "English")
        assert instruction in {template.format(source=source, target=target) for template in templates()}


def test_every_template_names_both_languages_and_all_are_drawn() -> None:
    pool = templates()
    assert len(pool) == len(set(pool)) >= 30
    assert all(t.count("{source}") == t.count("{target}") == 1 and t[-1] in ".?" for t in pool)
    row = {"method": "translation", "request_lang": "en", "lang": "de"}
    assert len({(word_translation(7, {**row, "id": str(n)}) or {})["instruction"] for n in range(600)}) == len(pool)
    assert word_translation(7, {**row, "method": "alpaca"}) is None
