"""Pairs whose level is known by how they were made: nothing but instruction and text together may give it away."""

from collections import defaultdict

import pytest

from tests.support import ROOT
from xl.pairs.levels import Level
from xl.pairs.rate import Rating, rating_rows
from xl.pairs.rating_set import HARD_KINDS, RatedPair, rating_set
from xl.pairs.seeds import Seed, Seeds, read_seeds

LANGUAGES = ("de", "es", "ga", "sw", "th", "tr")
FILES = tuple(str(ROOT / "jobs/samples/seeds" / f"{lang}.jsonl") for lang in LANGUAGES)
CHURCH = "Die Kirche wurde 1994 bis 2005 neu gebaut."
DRESDEN = Seed("0", "de", "Who rebuilt the old church in Dresden?", CHURCH + " Viele gaben Geld dafür." * 8)
KASSEL = Seed("1", "de", "What can be seen in Kassel?", "Im Museum hängen viele Bilder. " * 4)


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    return read_seeds(Seeds(from_=FILES), LANGUAGES, 7).train


@pytest.fixture(scope="module")
def rated(seeds: list[Seed]) -> list[RatedPair]:
    return rating_set(seeds, 1200, 7)


def test_every_hard_kind_occurs_in_most_languages(rated: list[RatedPair]) -> None:
    for kind in HARD_KINDS:
        assert len({pair.seed.lang for pair in rated if pair.kind == kind}) >= 4, kind


def text_form(pair: RatedPair) -> str:
    if pair.text == pair.seed.response:
        return "whole"
    return "beginning" if pair.seed.response.startswith(pair.text) and len(pair.text) > 0.2 * len(pair.seed.response) else "passage"


def test_no_form_of_text_and_no_form_of_instruction_belongs_to_one_level_alone(rated: list[RatedPair]) -> None:
    levels: dict[str, set[Level]] = defaultdict(set)
    for pair in rated:
        levels[text_form(pair)].add(pair.level)
        levels["question about a number" if pair.kind in ("detail", "passage") else "instruction"].add(pair.level)
    assert len(levels) == 5
    assert all(len(found) > 1 for found in levels.values()), levels


def test_a_swapped_name_comes_from_another_seed_and_is_not_in_the_text(rated: list[RatedPair], seeds: list[Seed]) -> None:
    swapped = [pair for pair in rated if pair.kind == "swapped"]
    told = " ".join(pair.instruction for pair in seeds)
    for pair in swapped:
        own, new = set(pair.seed.instruction.split()), set(pair.instruction.split())
        assert own - new and new - own, pair.instruction
        assert all(word.strip(",.?") in told for word in new - own)
        assert not any(word.strip(",.?") in pair.seed.response for word in new - own)


def test_names_change_places_only_where_the_words_beside_them_are_the_same() -> None:
    def swapped(*seeds: Seed) -> set[str]:
        return {pair.instruction for seed in range(20) for pair in rating_set(seeds, 1200, seed) if pair.kind == "swapped"}

    assert swapped(DRESDEN, KASSEL) == {"Who rebuilt the old church in Kassel?", "What can be seen in Dresden?"}
    assert swapped(DRESDEN, KASSEL._replace(instruction="What did the Kassel painters leave?")) == set()


def test_a_question_about_a_detail_is_bad_for_the_text_and_good_for_its_passage() -> None:
    pairs = {
        (pair.kind, pair.instruction, pair.text): pair.level for seed in range(20) for pair in rating_set([DRESDEN, KASSEL], 1200, seed)
    }
    asked = "What happened in 1994?"
    assert pairs["detail", asked, DRESDEN.response] == Level.BAD
    assert pairs["passage", asked, CHURCH] == Level.GOOD


def test_the_same_seeds_give_the_same_pairs_and_one_of_a_kind(rated: list[RatedPair], seeds: list[Seed]) -> None:
    assert rating_set(seeds, 1200, 7) == rated
    assert len({(pair.seed.id, pair.kind) for pair in rated}) == len(rated)


def test_no_level_is_decided_by_what_the_rater_does_not_see_of_a_text(seeds: list[Seed]) -> None:
    settings = Rating(rater="trained", max_page_chars=100)
    levels: dict[str, set[str]] = defaultdict(set)
    for row in rating_rows(rating_set(seeds, settings.max_page_chars, 7), settings):
        levels[row["request"]].add(row["response"])
    assert [asked for asked, found in levels.items() if len(found) > 1] == []


def test_an_instruction_that_several_seeds_have_is_good_for_all_of_them(seeds: list[Seed]) -> None:
    same = [
        pair._replace(instruction="Write a news article." if place % 2 else "write a news  article!") for place, pair in enumerate(seeds)
    ]
    levels: dict[tuple[str, str], set[Level]] = defaultdict(set)
    for pair in rating_set([*same[::3], *seeds[1::3]], 1200, 7):
        levels[pair.instruction.casefold().split(".")[0].rstrip("!"), pair.text].add(pair.level)
    assert all(len(found) == 1 for found in levels.values())
    assert rating_set([pair for pair in same if pair.lang == "de"], 1200, 7) == []
