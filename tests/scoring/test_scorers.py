from __future__ import annotations

import pytest

from h2tune.scoring import scorers as score
from h2tune.scoring.scorers import SCORERS, number, option, program, word


def test_names_are_those_that_a_task_may_give() -> None:
    assert set(SCORERS) == {"number", "option", "program", "word", "exact", "f1", "rouge"}


@pytest.mark.parametrize(
    ("output", "answer", "right"),
    [
        ("She has 3 + 15 = 18.\nThe answer is 18", "5 + 13 = 18\nThe answer is 18", True),
        ("The answer is 18.", "18", True),
        ("The answer is: $1,200.50.", "1200.5", True),
        ("the answer is -$5", "-5", True),
        ("The answer is $-5", "-5", True),
        ("The answer is \u22127 degrees", "-7", True),
        ("The answer is .5", "0.5", True),
        ("The answer is 3/4", "0.75", True),
        ("The answer is 3/0", "0", False),
        ("The answer is 20%.", "20", True),
        ("The answer is 1,2", "12", False),
        ("The answer is 12", "The answer is 1", False),
        ("The answer is 18 apples, not 20", "18", True),
        ("The answer is not known", "18", False),
        ("The answer is\n18", "18", True),
        ("The answer is", "18", False),
        ("The answer is 3. Wait: the answer is 4.", "4", True),
        ("18", "18", True),
        ("maybe 18", "18", False),
        # the model continues with a new problem, and solves it
        ("The answer is 4.\n\nProblem: What is 9?\nSolution: The answer is 9.", "4", True),
        ("The answer is 4.\n\nProblem: What is 9?\nSolution: The answer is 9.", "9", False),
        ("The answer is " + "9" * 5000, "9" * 5000, False),
        ("", "", False),
    ],
)
def test_number(output: str, answer: str, right: bool) -> None:
    assert number(output, answer) is right


@pytest.mark.parametrize(
    ("output", "answer", "right"),
    [
        ("So 5.\nThe answer is B", "The answer is B", True),
        ("The answer is (B).", "B", True),
        ("The answer is B) 12 km", "B", True),
        ("The answer is: option (b)", "B", True),
        ("The answer is **C**", "(C)", True),
        ("The answer is (A)", "B", False),
        ("The answer is a number", "A", False),
        ("The answer is Berlin", "B", False),
        ("The answer is I'm not sure", "I", False),
        ("B", "B", True),
        ("B) 12", "B", False),
        ("Both A and B", "B", False),
        ("", "", False),
    ],
)
def test_option(output: str, answer: str, right: bool) -> None:
    assert option(output, answer) is right


@pytest.mark.parametrize(
    ("output", "answer", "right"),
    [
        ("no", "no", True),
        ("I know", "no", False),
        ("No.", " no", True),
        ("It is positive!", "positive", True),
        ("not positive", "positive", False),
        ("not entailment", "not  entailment", True),
        ("not_entailment", "entailment", False),
        ("knot positive", "positive", True),
        ("positive\nProblem: a bad film\nSolution: negative", "negative", False),
        ("a+b", "a+", False),
        ("a+ b", "a+", True),
        ("anything", "", False),
    ],
)
def test_word(output: str, answer: str, right: bool) -> None:
    assert word(output, answer) is right


@pytest.mark.parametrize(
    ("output", "answer", "right"),
    [
        ("n0 = 3.0\nanswer = n0 * 2\nprint(answer)", "6", True),
        (" n0 = 6\nanswer = n0", "\nanswer = 6", True),
        ("answer = 6.001", "answer = 2 * 3", True),
        ("answer = 6.1", "answer = 2 * 3", False),
        ("```python\nanswer = 6\n```\nThat is it.", "6", True),
        ("answer = 6\n\nProblem: another", "6", True),
        ("answer = '6'", "6.0", True),
        ("answer = 'Monday'", "answer = 'monday'", True),
        ("answer = 10**400", "answer = 10**400", True),
        ("answer = float('nan')", "nan", False),
        ("answer = float('inf')", "inf", False),
        ("answer = None", "raise ValueError", False),
        ("raise ValueError", "raise ValueError", False),
        ("The answer is 6", "6", False),
        ("import os\nos.system('true')\nanswer = 6", "6", False),
    ],
)
def test_program(output: str, answer: str, right: bool) -> None:
    assert program(output, answer) is right


def test_reference_program_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    reference = "answer = 4 / 2  # of no other test: it is cached"
    real = score.run_program
    monkeypatch.setattr(score, "run_program", lambda text: runs.append(text) or real(text))
    for output in ("answer = 1", "answer = 2"):
        program(output, reference)
    assert runs.count(reference) == 1


@pytest.mark.parametrize(
    ("scorer", "measure"),
    [
        ("label", "accuracy"),
        ("word", "accuracy"),
        ("rouge", "ROUGE-L"),
        ("f1", "token F1"),
        ("likelihood", "1 / perplexity"),
        ("my_data.py:near", "my_data:near"),
    ],
)
def test_what_a_scorer_measures_has_its_name(scorer: str, measure: str) -> None:
    assert score.measure_of(scorer) == measure
