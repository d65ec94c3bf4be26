"""Scorers: compare a generated output with the reference answer.

`SCORERS` lists them by name; `scorer_of` returns the user's own, too. Each takes (output, answer), both as text,
returns true, false or a number from 0 to 1, and never raises because of a model's output.
The answer may be bare ("18", "B", "yes") or a whole reference solution that ends in "The answer is …", as in
MathInstruct: output and answer are parsed in the same way.

A model that is not stopped may continue with a new problem: the text after the next "Problem:" is ignored.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from h2tune import own_code
from h2tune.errors import H2TuneError
from h2tune.scoring.sandbox import run_program

PHRASE = re.compile(r"the answer is\b\s*:?", re.IGNORECASE)
NEXT_PROBLEM = re.compile(r"^[ \t]*Problem:", re.MULTILINE)
MINUS = r"[-\u2212]"
NUMBER = re.compile(
    rf"(?P<sign>{MINUS}?) ?[$€£]? ?(?P<inner>{MINUS}?)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?: ?/ ?(?P<divisor>\d+(?:\.\d+)?))?"
)
DIGITS = 100  # a longer number is no answer
# A capital letter, or a small one in parentheses: "the answer is a number" is not option A.
OPTION = re.compile(r"[\s*]*(?:option\s+)?(?:\((?P<inside>[A-Ja-j])\)|(?P<plain>[A-J])(?![\w']))")
OPTION_ALONE = re.compile(OPTION.pattern + r"[).\s*]*")
FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
PROGRAM_TOLERANCE = 1e-3  # relative; reference programs of MathQA round on the way


def number(output: str, answer: str) -> bool:
    """Compare the number after the last "The answer is", or the whole text if it is a number.

    Thousands separators, currency signs, a trailing dot and units are ignored; a fraction a/b is divided.
    """
    given, expected = _number(output), _number(answer)
    return given is not None and given == expected


def option(output: str, answer: str) -> bool:
    """Compare the option letter after the last "The answer is" — "(B)", "B)", "B" — or the whole text."""
    given, expected = _option(output), _option(answer)
    return given is not None and given == expected


def program(output: str, answer: str) -> bool:
    """Run the output as a program and compare its variable `answer`, numbers within 0.1 %.

    The reference may be a program too; both run in the sandbox. A Markdown fence around the code is removed.

    Raises:
        H2TuneError: This system cannot confine a program.
    """
    expected: float | str | None
    try:
        expected = float(answer)
    except ValueError:
        expected = _reference_value(answer)
    given = _value(_code(output))
    if given is None or expected is None:
        return False
    if isinstance(given, float) and isinstance(expected, float):
        close = math.isclose(given, expected, rel_tol=PROGRAM_TOLERANCE, abs_tol=1e-9)
        return math.isfinite(expected) and close
    return str(given).strip().casefold() == str(expected).strip().casefold()


def word(output: str, answer: str) -> bool:
    """Return whether the answer occurs in the output as whole words, ignoring case, and not negated.

    Deviation: the release searches for a substring, so that "know" matches "no" and "not positive" matches "positive".
    """
    words = r"\s+".join(map(re.escape, answer.split()))
    pattern = rf"(?<!\bnot\s)(?<!\w){words}(?!\w)"
    return bool(words) and bool(re.search(pattern, _own(output), re.IGNORECASE))


def exact(output: str, answer: str) -> bool:
    """Compare both without case, punctuation, articles and spacing, as SQuAD does (arXiv 1606.05250)."""
    return _normal(output) == _normal(answer)


def f1(output: str, answer: str) -> float:
    """Return the F1 of the words that both have in common, normalised as in `exact` (arXiv 1606.05250)."""
    given, expected = Counter(_normal(output)), Counter(_normal(answer))
    common = (given & expected).total()
    return 2 * common / (given.total() + expected.total()) if common else float(given == expected)


def rouge(output: str, answer: str) -> float:
    """Return the F measure of ROUGE-L, by the package rouge-score.

    Raises:
        H2TuneError: The package is not installed.
    """
    return float(_rouge().score(answer, output)["rougeL"].fmeasure)


LIKELIHOOD = "likelihood"
"""The scorer without generated answers: 1 / perplexity of the right ones."""
SCORERS: dict[str, Callable[[str, str], float]] = {
    "exact": exact,
    "f1": f1,
    "rouge": rouge,
    "number": number,
    "option": option,
    "program": program,
    "word": word,
}

ACCURACY = "accuracy"
MEASURES = {"f1": "token F1", "rouge": "ROUGE-L", LIKELIHOOD: "1 / perplexity"}
"""What scorers measure that do not say right or wrong."""


def measure_of(name: str) -> str:
    """Return what a scorer's mean is called: "accuracy", or what it measures; the name of the user's own."""
    return own_code.short(name) if own_code.is_reference(name) else MEASURES.get(name, ACCURACY)


def scorer_of(name: str) -> Callable[[str, str], float]:
    """Return a scorer by its name, or the user's own by `module:object`.

    Raises:
        H2TuneError: The user's own cannot be loaded, or is no function.
    """
    if not own_code.is_reference(name):
        return SCORERS[name]
    scorer = own_code.load(name, "task.scorer")
    if not callable(scorer):
        raise H2TuneError(
            f"'{own_code.short(name)}' is no function",
            where="task.scorer",
            remedy="Name a function of (output, answer) that returns 0 to 1",
        )
    return functools.partial(_bounded, scorer, own_code.short(name))


def _bounded(scorer: Callable[[str, str], float], name: str, output: str, answer: str) -> float:
    """Return what a scorer of the user's own returns.

    Raises:
        H2TuneError: It is not from 0 to 1.
    """
    try:
        value = float(scorer(output, answer))
    except (TypeError, ValueError) as error:
        raise H2TuneError(f"'{name}' returned no number ({error})", where="task.scorer") from error
    if not 0 <= value <= 1:
        raise H2TuneError(
            f"'{name}' returned {value:g}", where="task.scorer", remedy="Return a number from 0 to 1"
        )
    return value


@functools.cache
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    except ImportError:
        raise H2TuneError(
            "the package rouge-score is not installed",
            where='scorer = "rouge"',
            remedy="pip install 'h2tune[text]'",
        ) from None
    return RougeScorer(["rougeL"])


def _normal(text: str) -> list[str]:
    """Return the words of a text in small letters, without punctuation and articles."""
    words = re.sub(r"[^\w\s]|_", "", text.casefold()).split()
    return [word for word in words if word not in ("a", "an", "the")]


def _own(output: str) -> str:
    """Return the output up to a new problem that the model generated."""
    following = NEXT_PROBLEM.search(output)
    return output[: following.start()] if following else output


def _final(text: str) -> str | None:
    """Return the rest of the line after the last "The answer is", or None if there is none."""
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
    # without the space after "Solution:", which would be an indentation
    return (fence[1] if fence else own).strip()


def _value(text: str) -> float | str | None:
    answer = run_program(text).answer
    try:
        return None if answer is None else float(answer)
    except ValueError:
        return answer
    except OverflowError:  # an integer beyond the range of a float
        return str(answer)


@functools.lru_cache(maxsize=4096)
def _reference_value(answer: str) -> float | str | None:
    return _value(_code(answer))
