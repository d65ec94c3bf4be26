"""Scorers: is a generated output right, given the reference answer?

`SCORERS` names them. Each takes (output, answer), both as text, and never raises because of what a model
wrote. The answer may be bare ("18", "B", "yes") or a whole reference solution that ends in "The answer is …",
as in MathInstruct: both sides are read in the same way.

A model that is not stopped goes on with a problem of its own: what follows the next "Problem:" is not read.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from fractions import Fraction

from h2tune.scoring.sandbox import run_program

PHRASE = re.compile(r"the answer is\b\s*:?", re.IGNORECASE)
NEXT_PROBLEM = re.compile(r"^[ \t]*Problem:", re.MULTILINE)
MINUS = r"[-\u2212]"
NUMBER = re.compile(
    rf"(?P<sign>{MINUS}?) ?[$€£]? ?(?P<inner>{MINUS}?)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?: ?/ ?(?P<divisor>\d+(?:\.\d+)?))?"
)
DIGITS = 100  # what is longer answers nothing, and is not worth the arithmetic
# Capital letters, or small ones in parentheses: "the answer is a number" names no option.
OPTION = re.compile(r"[\s*]*(?:option\s+)?(?:\((?P<inside>[A-Ja-j])\)|(?P<plain>[A-J])(?![\w']))")
OPTION_ALONE = re.compile(OPTION.pattern + r"[).\s*]*")
FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
PROGRAM_TOLERANCE = 1e-3  # relative; reference programs of MathQA round on the way


def number(output: str, answer: str) -> bool:
    """Compare the number after the last "The answer is", or the whole text if it is a number.

    Thousands commas, currency signs, a trailing dot and units are read over; a fraction a/b is divided.
    """
    found, wanted = _number(output), _number(answer)
    return found is not None and found == wanted


def option(output: str, answer: str) -> bool:
    """Compare the option letter after the last "The answer is" — "(B)", "B)", "B" — or the whole text."""
    found, wanted = _option(output), _option(answer)
    return found is not None and found == wanted


def program(output: str, answer: str) -> bool:
    """Run the output as a program and compare its variable `answer`, numbers within 0.1 %.

    The reference may be a program too; both run in the sandbox. A fence around the code is taken off.

    Raises:
        H2TuneError: This system cannot confine a program.
    """
    wanted: float | str | None
    try:
        wanted = float(answer)
    except ValueError:
        wanted = _reference_value(answer)
    found = _value(_code(output))
    if found is None or wanted is None:
        return False
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isfinite(wanted) and math.isclose(found, wanted, rel_tol=PROGRAM_TOLERANCE, abs_tol=1e-9)
    return str(found).strip().casefold() == str(wanted).strip().casefold()


def word(output: str, answer: str) -> bool:
    """Say whether the answer occurs in the output as a whole word or words, in either case, and not negated.

    Deviation: the release looks for a substring, and so finds "no" in "know", "positive" in "not positive".
    """
    wanted = r"\s+".join(map(re.escape, answer.split()))
    return bool(wanted) and bool(
        re.search(rf"(?<!\bnot\s)(?<!\w){wanted}(?!\w)", _own(output), re.IGNORECASE)
    )


SCORERS: dict[str, Callable[[str, str], bool]] = {
    "number": number,
    "option": option,
    "program": program,
    "word": word,
}


def _own(output: str) -> str:
    """Return the output up to a problem that the model made up itself."""
    following = NEXT_PROBLEM.search(output)
    return output[: following.start()] if following else output


def _final(text: str) -> str | None:
    """Return the rest of the line after the last "The answer is", or None if the text does not say it."""
    own = _own(text)
    ends = [match.end() for match in PHRASE.finditer(own)]
    if not ends:
        return None
    return (own[ends[-1] :].lstrip().splitlines() or [""])[0]


def _number(text: str) -> Fraction | None:
    final = _final(text)
    match = NUMBER.search(final) if final is not None else NUMBER.fullmatch(_own(text).strip().rstrip(".%"))
    if match is None or len(match[0]) > DIGITS:
        return None
    value = Fraction(match["digits"].replace(",", ""))
    if match["divisor"]:
        divisor = Fraction(match["divisor"])
        if not divisor:
            return None
        value /= divisor
    return -value if match["sign"] or match["inner"] else value


def _option(text: str) -> str | None:
    final = _final(text)
    match = OPTION.match(final) if final is not None else OPTION_ALONE.fullmatch(_own(text))
    return None if match is None else (match["inside"] or match["plain"]).upper()


def _code(output: str) -> str:
    own = _own(output)
    fence = FENCE.search(own)
    # Without the space that follows "Solution:", which would be an indentation.
    return (fence[1] if fence else own).strip()


def _value(text: str) -> float | str | None:
    answer = run_program(text).answer
    try:
        return None if answer is None else float(answer)
    except ValueError:
        return answer
    except OverflowError:  # an integer that no float can hold
        return str(answer)


@functools.lru_cache(maxsize=4096)
def _reference_value(answer: str) -> float | str | None:
    return _value(_code(answer))
