"""Reading pages: ids that survive any re-cutting of the input, and errors that name the file."""

import contextlib
import gzip
import json
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from xl.errors import UserError
from xl.pages import manifest as manifest_module
from xl.pages.manifest import Manifest, make_manifest
from xl.pages.read import Pages, language_of_path, list_files


def page(number: int, lang: str = "de") -> dict[str, str]:
    return {"url": f"https://a.example/{number}", "text": f"Seite {number}", "lang": lang}


def write(path: Path, pages: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(entry) + "\n" for entry in pages).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(pages), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        half = len(data) // 2  # what a parallel compressor writes: several frames
        path.write_bytes(zstandard.compress(data[:half]) + zstandard.compress(data[half:]))
    else:
        path.write_bytes(data)
    return path


def plan(root: Path, source: Path | str, languages: tuple[str, ...] = ("de", "th"), limit: int | None = None) -> Manifest:
    pages = Pages.model_validate({"from": str(source), "lang": "lang"})
    return make_manifest(root, list_files(pages), pages, languages, limit)


def ids(manifest: Manifest) -> list[str]:
    return [row["id"] for entry in manifest.files for _, _, row in manifest.rows(entry)]


def test_ids_do_not_depend_on_files_folders_formats_or_order(tmp_path: Path) -> None:
    pages = [page(n) for n in range(50)] + [page(n) for n in range(10)] * 2
    write(tmp_path / "one" / "all.jsonl", pages)
    random.Random(1).shuffle(pages)
    for number, suffix in enumerate((".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")):
        write(tmp_path / "four" / f"part-{9 - number}{suffix}", pages[number::4])
    one, four = ids(plan(tmp_path / "m1", tmp_path / "one")), ids(plan(tmp_path / "m4", tmp_path / "four"))
    assert sorted(one) == sorted(four)
    assert len(set(one)) == 70, "pages that say the same under the same name still have ids of their own"


def test_equal_records_are_found_when_keys_are_compared_in_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in" / "a.jsonl", [page(n) for n in range(200)])
    write(tmp_path / "in" / "b.jsonl", [page(n) for n in range(100, 300)])
    at_once = ids(plan(tmp_path / "m1", tmp_path / "in"))
    monkeypatch.setattr(manifest_module, "_BUCKET_ROWS", 50)
    assert ids(plan(tmp_path / "m2", tmp_path / "in")) == at_once
    assert len(set(at_once)) == 400


def test_what_the_driver_sends_and_gets_does_not_grow_with_repeated_pages(tmp_path: Path) -> None:
    def most_bytes(name: str, num_repeated: int) -> int:
        sizes: list[int] = []

        def measured(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
            for args in arguments:
                result = function(*args)
                sizes.append(len(pickle.dumps((args, result))))
                yield result

        for first, file in ((0, "a.jsonl"), (1000 - num_repeated, "b.jsonl")):
            write(tmp_path / name / file, [page(n) for n in range(first, first + 1000)])
        pages = Pages.model_validate({"from": str(tmp_path / name), "lang": "lang"})
        make_manifest(tmp_path / f"m{name}", list_files(pages), pages, ("de",), None, measured)
        return max(sizes)

    assert most_bytes("1", num_repeated=1000) < most_bytes("2", num_repeated=0) + 100


def test_the_manifest_lies_in_the_runs_folder_wherever_the_workers_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for args in arguments:
            with contextlib.chdir(tmp_path / "elsewhere"):
                result = function(*args)
            yield result

    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "in" / "a.jsonl", [page(n) for n in range(9)])
    monkeypatch.chdir(tmp_path)
    pages = Pages.model_validate({"from": "in", "lang": "lang"})
    planned = make_manifest(Path("m"), list_files(pages), pages, ("de",), None, elsewhere)
    with contextlib.chdir("elsewhere"):
        assert len(ids(planned)) == 9 and not list(Path().iterdir())


def test_a_limit_takes_so_many_pages_of_each_language_and_a_larger_one_keeps_the_first_shards_names(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [page(n, "th" if n % 3 else "de") for n in range(90)])
    small, large = (plan(tmp_path / f"m{n}", tmp_path / "in", limit=n) for n in (5, 20))
    assert small.shards[0].languages == {"de": 5, "th": 5}
    assert small.shards[0].name == large.shards[0].name
    assert set(ids(small)) < set(ids(large))


def test_pages_in_other_languages_are_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [page(1, "de"), page(2, "fi"), page(3, "xx")])
    planned = plan(tmp_path / "m", tmp_path / "in")
    assert [shard.languages for shard in planned.shards] == [{"de": 1}]
    assert planned.num_read == {"de": 1, "fi": 1, "und": 1}


def test_a_broken_record_becomes_a_row_with_its_error(tmp_path: Path) -> None:
    path = tmp_path / "de" / "a.jsonl"
    path.parent.mkdir()
    lines = [b'{"text": "gut", "url": "u"}', b"{broken", b'{"text": "\xff\xfe", "url": "v"}', b'{"url": "w"}', b"[1]", b'{"text": 5}']
    path.write_bytes(b"\n".join(lines) + b"\n" + json.dumps({"text": "\ud800 halb"}).encode())
    pages = Pages.model_validate({"from": str(path)})
    planned = make_manifest(tmp_path / "m", list_files(pages), pages, ("de",), None)
    rows = [row for entry in planned.files for _, _, row in planned.rows(entry)]
    assert [row["text"] for row in rows] == ["gut", None, None, None, None, None, "? halb"]
    errors = [row["error"] for row in rows]
    assert errors[0] is errors[3] is errors[6] is None
    assert ["JSON" in errors[1], "UTF-8" in errors[2], "object" in errors[4], "int" in errors[5]] == [True] * 4
    assert len({row["id"] for row in rows}) == 7


def test_parquet_text_that_is_not_utf8_fails_its_row_alone(tmp_path: Path) -> None:
    raw = pa.array([b"gut", b"\xff\xfe", None]).view(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    (tmp_path / "de").mkdir()
    pq.write_table(pa.table({"text": text, "url": ["a", "b", "c"]}), tmp_path / "de" / "a.parquet")
    pages = Pages.model_validate({"from": str(tmp_path)})
    planned = make_manifest(tmp_path / "m", list_files(pages), pages, ("de",), None)
    rows = [row for entry in planned.files for _, _, row in planned.rows(entry)]
    assert [(row["text"], row["error"] is None) for row in rows] == [("gut", True), (None, False), (None, True)]


@pytest.mark.parametrize(
    ("path", "lang"),
    [
        ("/data/culturax/de/de_part_00000.parquet", "de"),
        ("/data/fineweb-2/swh_Latn/train/000_00000.parquet", "sw"),
        ("/data/lang=ga/x.jsonl", "ga"),
        ("/samples/th.jsonl.zst", "th"),
        ("/data/web/part.parquet", None),
        ("/home/it/in/part.jsonl", None),
    ],
)
def test_folders_and_files_named_for_a_language_say_it(path: str, lang: str | None) -> None:
    assert language_of_path(path) == lang


MANY_LINES = "".join(f'{{"text": "{n}", "url": "u{n}", "lang": "de"}}\n' for n in range(20_000)).encode()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder / "nowhere", "no file or folder"),
        (lambda folder: (folder / "empty").mkdir() or folder / "empty", "matches nothing"),
        (lambda folder: write(folder / "c" / "x.txt", []).parent, "none that ends in .parquet"),
        (
            lambda folder: (folder / "bad.parquet").write_bytes(b"PAR1 no") and folder / "bad.parquet",
            "bad.parquet: not a readable Parquet file",
        ),
        (
            lambda folder: write(folder / "w.parquet", [{"content": "x", "url": "u", "lang": "de"}]),
            "no column 'text' (it has: content, url, lang)",
        ),
        (lambda folder: write(folder / "w.jsonl", [{"content": "x"}]), "no key 'text' (it has: content)"),
        (
            lambda folder: (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 99)[:-20]) and folder / "cut.jsonl.gz",
            "cut.jsonl.gz",
        ),
        (
            lambda folder: (folder / "cut.jsonl.zst").write_bytes(zstandard.compress(MANY_LINES)[:-9_000]) and folder / "cut.jsonl.zst",
            "cut.jsonl.zst: cannot be read",
        ),
        (
            lambda folder: (folder / "bad.jsonl.gz").write_bytes(gzip.compress(MANY_LINES)[:10] + b"\xff" * 99) and folder / "bad.jsonl.gz",
            "bad.jsonl.gz: cannot be read",
        ),
        (lambda folder: "nfs4://host/x.jsonl", "pages.from: 'nfs4://host/x.jsonl': Protocol not known: nfs4"),
        (lambda folder: write(folder / "fi.jsonl", [page(1, "fi")]), "found: fi (1)"),
    ],
    ids=[
        "missing",
        "empty",
        "nothing to read",
        "corrupt",
        "column",
        "key",
        "cut off",
        "cut off .zst",
        "corrupt .gz",
        "protocol",
        "other language",
    ],
)
def test_input_that_cannot_be_read_is_one_clear_line(tmp_path: Path, prepare, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as caught:
        plan(tmp_path / "m", prepare(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_whose_library_is_missing_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)  # the library of a store that no test opens: fsspec keeps those it has loaded
    with pytest.raises(UserError, match=r"^pages\.from: 'abfs://bucket/\*\.parquet': .*pip install adlfs$"):
        list_files(Pages.model_validate({"from": "abfs://bucket/*.parquet"}))
