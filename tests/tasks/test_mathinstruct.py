from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from h2tune.errors import H2TuneError
from h2tune.scoring.scorers import SCORERS
from h2tune.tasks.load import describe_task, load_task
from h2tune.tasks.mathinstruct import SOURCES, TASKS


def rows() -> list[dict[str, str]]:
    made = []
    for i in range(30):
        made.append(
            {
                "source": "data/CoT/gsm_rft.json",
                "instruction": f"Ann has {i} apples and buys 1,000 more. How many has she?",
                "output": f"{i} + 1000 = {i + 1000}\nThe answer is {i + 1000:,}",
            }
        )
        made.append(
            {
                "source": "data/CoT/aqua_rat.json",
                "instruction": f"What is {i} + 1?\nAnswer Choices: (A) {i} (B) {i + 1} (C) 0 (D) 9 (E) 7",
                "output": f"Let's think about the multi-choice question.\n{i} + 1 = {i + 1}\nThe answer is B.",
            }
        )
        made.append(
            {
                "source": "data/PoT/mathqa.json",
                "instruction": f"what is {i} times 2 ? Please write a program to solve it",
                "output": f"n0 = {i}.0\nn1 = 2.0\n\nanswer = n0 * n1\nprint(answer)\n",
            }
        )
    # Another solution of a problem that is there, and what cannot be scored.
    made.append({**made[0], "output": "Another way.\nThe answer is 1000"})
    made.append({"source": SOURCES["gsm_rft"], "instruction": "No end", "output": "The answer is unknown"})
    made.append({"source": SOURCES["aqua_rat"], "instruction": "No letter", "output": "The answer is 7"})
    made.append({"source": SOURCES["mathqa"], "instruction": "No answer", "output": "print(1)"})
    made.append(
        {
            "source": SOURCES["mathqa"],
            "instruction": "scipy",
            "output": "from scipy import special\nanswer = 1",
        }
    )
    made.append({"source": "data/PoT/numglue.json", "instruction": "Other", "output": "answer = 1"})
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "MathInstruct.json").write_text(json.dumps(rows()))
    monkeypatch.setenv("H2TUNE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", list(TASKS))
def test_rows_of_one_source_with_an_answer_are_loaded(name: str, folder: Path) -> None:
    task, splits = load_task(name, train=15, validation=5, test=6, seed=0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (15, 5, 6)
    scorer = SCORERS[task.scorer]
    for example in splits.test[:3]:
        assert example.prompt == f"Problem: {example.text}\nSolution:"
        assert example.label is None
        assert scorer(example.answer, example.answer)
    first, second = splits.test[:2]
    if name != "aqua_rat":  # there all answers are B
        assert not scorer(first.answer, second.answer)


def test_what_cannot_be_scored_and_second_solutions_are_left_out(folder: Path) -> None:
    for name in TASKS:
        with pytest.raises(H2TuneError, match="31 train examples requested, 24 available"):
            load_task(name, train=31, validation=0, test=6, seed=0)


@pytest.mark.parametrize("name", list(TASKS))
def test_one_shot_shows_an_answer_that_the_scorer_reads(name: str) -> None:
    task = describe_task(name)
    assert re.fullmatch(r"Problem: .*\nSolution:.*\n\n", task.one_shot, re.DOTALL)
    solution = task.one_shot.split("Solution:")[1]
    expected = {"gsm_rft": "22", "aqua_rat": "C", "mathqa": "24"}[name]
    assert SCORERS[task.scorer](solution, expected)


def test_parts_are_disjoint_and_share_the_test(folder: Path) -> None:
    parts = [load_task("aqua_rat", train=6, validation=2, test=5, seed=3, part=(k, 3))[1] for k in range(3)]
    assert len({part.test for part in parts}) == 1
    used = [example.prompt for part in parts for example in (*part.train, *part.validation)]
    assert len(set(used)) == 3 * 8
    assert not set(used) & {example.prompt for example in parts[0].test}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "MathInstruct.json: malformed JSON"),
        ("{}", "is not a list of rows"),
        (
            '[{"source": "data/CoT/gsm_rft.json", "instruction": "x"}]',
            "row 1 is not an object with the texts",
        ),
        ('["x"]', "row 1 is not an object"),
        ("[]", 'no row with "source": "data/CoT/gsm_rft.json" that ends in an answer'),
    ],
)
def test_wrong_file_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "MathInstruct.json").write_text(content)
    with pytest.raises(H2TuneError, match=message):
        load_task("gsm_rft", train=1, validation=0, test=1, seed=0)


def test_missing_file_is_not_looked_for_elsewhere(folder: Path) -> None:
    (folder / "MathInstruct.json").unlink()
    with pytest.raises(H2TuneError, match=r"contains none of MathInstruct\.json.*unset H2TUNE_DATA"):
        load_task("gsm_rft", train=1, validation=0, test=1, seed=0)


def test_hub_rows_are_those_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_file = load_task("gsm_rft", train=5, validation=1, test=5, seed=1)
    asked: list[Any] = []

    def load_dataset(*arguments: Any, **options: Any) -> list[dict[str, str]]:
        asked.append((arguments, options))
        return rows()

    monkeypatch.delenv("H2TUNE_DATA")
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert load_task("gsm_rft", train=5, validation=1, test=5, seed=1) == from_file
    assert asked == [(("TIGER-Lab/MathInstruct", None), {"split": "train"})]


def test_no_hub_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.delenv("H2TUNE_DATA", raising=False)
    local = r"set H2TUNE_DATA to a folder with MathInstruct\.json"
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(H2TuneError, match=rf"TIGER-Lab/MathInstruct.*\(Couldn't reach the Hub\)\. .*{local}"):
        load_task("gsm_rft", train=1, validation=0, test=1, seed=0)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(H2TuneError, match=rf"pip install 'h2tune\[hub\]', or {local}"):
        load_task("gsm_rft", train=1, validation=0, test=1, seed=0)
