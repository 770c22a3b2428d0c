"""Consistency counts languages that agree, right or wrong; AC3 is high only for a model that is both."""

import itertools

import pytest

from xl.evaluate.benchmarks.consistency import Pick, ac3, consistency_share, measure_consistency, pick
from xl.evaluate.benchmarks.task import Answer, Item

LANGUAGES = ("de", "sw", "zh")


def picks(questions: dict[str, tuple[tuple[int | None, ...], int]]) -> list[Pick]:
    return [
        Pick(key, lang, option, gold)
        for key, (options, gold) in questions.items()
        for lang, option in zip(LANGUAGES, options, strict=False)
    ]


def test_consistency_and_ac3_of_four_questions_computed_by_hand() -> None:
    found = measure_consistency(
        picks(
            {
                "all agree": ((0, 0, 0), 0),  # accuracy 1, pairs 3 of 3, triples 1 of 1
                "two agree": ((0, 0, 1), 0),  # accuracy 2/3, pairs 1 of 3
                "none agrees": ((0, 1, 2), 1),  # accuracy 1/3
                "two agree and are wrong": ((3, 3, None), 2),  # accuracy 0, pairs 1 of 3
                "not in zh": ((1, 1), 1),  # in no figure
            }
        ),
        seed=1,
    )
    assert found and found.languages == LANGUAGES and (found.num_questions, found.num_left_out) == (4, 1)
    assert found.accuracy == pytest.approx(1 / 2)
    pairs, triples = found.agreements
    assert (pairs.num_languages, pairs.consistency, pairs.ac3) == (2, pytest.approx(5 / 12), pytest.approx(5 / 11))
    assert (triples.num_languages, triples.consistency, triples.ac3) == (3, pytest.approx(1 / 4), pytest.approx(1 / 3))
    for value, interval in (
        (found.accuracy, found.accuracy_interval),
        (pairs.consistency, pairs.consistency_interval),
        (triples.ac3, triples.ac3_interval),
    ):
        assert 0 < interval.low < value < interval.high < 1


def test_a_share_is_that_of_all_subsets_that_agree() -> None:
    options = (0, 2, 0, None, 0, None, 2)
    for size in range(2, 8):
        subsets = list(itertools.combinations(options, size))
        agreeing = sum(len(set(subset)) == 1 and subset[0] is not None for subset in subsets)
        assert consistency_share(options, size) == pytest.approx(agreeing / len(subsets))


def test_a_constant_answerer_agrees_with_itself_and_ac3_is_not_deceived() -> None:
    found = measure_consistency(picks({str(gold): ((0, 0, 0), gold) for gold in range(4)}), seed=1)
    assert found and found.accuracy == 0.25
    assert [(agreement.consistency, agreement.ac3) for agreement in found.agreements] == [(1.0, 0.4), (1.0, 0.4)]
    assert ac3(0.0, 0.0) == 0.0 and ac3(1.0, 1.0) == 1.0


@pytest.mark.parametrize(("options", "expected"), [((0, 0, 0), 1.0), ((1, 2, 3), 0.0)])
def test_an_interval_holds_its_own_estimate_where_all_questions_go_alike(options: tuple[int, ...], expected: float) -> None:
    found = measure_consistency(picks({str(number): (options, 0) for number in range(40)}), seed=1)
    assert found and found.accuracy == expected
    assert found.accuracy_interval.low <= expected <= found.accuracy_interval.high
    for each in found.agreements:
        assert each.consistency_interval.low <= each.consistency == expected <= each.consistency_interval.high
        assert each.ac3_interval.low <= each.ac3 == expected <= each.ac3_interval.high


def test_an_option_is_known_by_its_place() -> None:
    items = [
        Item("q", "de", "Frage", (" Mond",), choices=(" Sonne", " Mond")),
        Item("q", "sw", "Swali", (" mwezi",), choices=(" jua", " mwezi")),
    ]
    found = [pick(item, Answer(item.choices[1], (-3.0, -1.0))) for item in items]
    assert found == [Pick("q", "de", 1, 1), Pick("q", "sw", 1, 1)]


def test_one_language_has_nothing_to_agree_with() -> None:
    assert measure_consistency([Pick("q", "de", 0, 0)], seed=1) is None
    assert measure_consistency([Pick("q", "de", 0, 0), Pick("r", "sw", 0, 0)], seed=1) is None
