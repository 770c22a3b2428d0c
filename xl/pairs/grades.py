"""Grades from 1 to 5 that a model gives with a single digit."""

import re

from xl.ask import Completion, Sampling

GRADES = ("5", "4", "3", "2", "1")
GRADE_SAMPLING = Sampling(max_tokens=4, choices=GRADES, num_logprobs=10)
"""How a grade is asked for: greedily, one of the five digits where the engine can be held to them."""

_GRADE = re.compile(r"\W*([1-5])(?![.,/]?\d)")


def expected_grade(completion: Completion) -> float | None:
    """Mean grade under the first token's probabilities, renormalised over the five digits; the digit itself where there are none.

    None for an answer that is no grade: it must never count as a low one.
    """
    found = _GRADE.match(completion.text)
    if not found:
        return None
    shares = completion.shares(GRADES)
    return sum(int(grade) * share for grade, share in shares.items()) if shares else float(found[1])
