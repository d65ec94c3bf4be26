"""The paper's three tasks D1, from MathInstruct (arXiv 2309.05653).

Fill-in-the-blank (`gsm_rft`: a number), multiple choice (`aqua_rat`: a letter) and programs (`mathqa`: the value
of `answer` after running them). Rows without a final answer that can be scored are left out.

Deviation: the release trains on the first 5,000 rows and tests on the next 500. gsm_rft has several solutions of each
problem, so a test problem may be a training problem as well; here a problem occurs once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.scoring import confined
from h2tune.scoring.scorers import SCORERS
from h2tune.tasks.prompts import fill, filled
from h2tune.tasks.published import data_folder, first_file, hub_rows
from h2tune.tasks.task import Example, Pools, Task

DATASET = "TIGER-Lab/MathInstruct"
FILE = "MathInstruct.json"
SOURCES = {
    "gsm_rft": "data/CoT/gsm_rft.json",
    "aqua_rat": "data/CoT/aqua_rat.json",
    "mathqa": "data/PoT/mathqa.json",
}
TEMPLATE = "Problem: {instruction}\nSolution:"
ASSIGNMENT = re.compile(r"^answer\s*=(?!=)", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:import|from)\s+(\w+)", re.MULTILINE)

# One solved problem precedes the one that is scored, and shows the form of the answer.
ONE_SHOT = {
    "gsm_rft": fill(
        TEMPLATE,
        {
            "instruction": "A box holds 6 eggs. Rosa buys 4 boxes and breaks 2 eggs. How many whole eggs are left?"
        },
    )
    + " She buys 4 * 6 = 24 eggs.\n24 - 2 = 22 of them are whole.\nThe answer is 22\n\n",
    "aqua_rat": fill(
        TEMPLATE,
        {
            "instruction": "A train goes 150 km in 2 hours. How far does it go in 3 hours?\n"
            "Answer Choices: (A) 75 km (B) 200 km (C) 225 km (D) 300 km (E) 450 km"
        },
    )
    + " Its speed is 150 / 2 = 75 km an hour.\nIn 3 hours it goes 3 * 75 = 225 km.\nThe answer is C\n\n",
    "mathqa": fill(
        TEMPLATE,
        {"instruction": "A box holds 6 eggs. How many eggs are in 4 boxes? Write a Python program for it."},
    )
    + "\nn0 = 6.0\nn1 = 4.0\nanswer = n0 * n1\nprint(answer)\n\n",
}


def _task(name: str, scorer: str) -> Task:
    return Task(
        name=name,
        kind="generate",
        labels=(),
        verbalisers=(),
        template=TEMPLATE,
        source=f"rows {SOURCES[name]} of MathInstruct (Hugging Face: {DATASET})",
        license="MIT (MathInstruct); its sources have terms of their own",
        scorer=scorer,
        max_length=512,
        one_shot=ONE_SHOT[name],
    )


TASKS = {
    "gsm_rft": _task("gsm_rft", "number"),
    "aqua_rat": _task("aqua_rat", "option"),
    "mathqa": _task("mathqa", "program"),
}


def read(task: Task, folder: Path | None = None) -> Pools:
    """Return the rows, from `folder`, else from `$H2TUNE_DATA`, else from the Hub.

    Raises:
        H2TuneError: They are missing, malformed, or none of them can be scored.
    """
    folder = folder or data_folder()
    if folder is None:
        where, rows = DATASET, hub_rows(DATASET, split="train", files=FILE)
    else:
        path = first_file(folder, (FILE, f"MathInstruct/{FILE}"))
        where, rows = str(path), _read_json(path)
    examples = list(_examples(task, rows, where))
    if not examples:
        raise H2TuneError(
            f'has no row with "source": "{SOURCES[task.name]}" that ends in an answer',
            where=where,
            remedy=f"Use {FILE} as published by {DATASET}",
        )
    return Pools(train=examples)


def _examples(task: Task, rows: Iterable[Mapping[str, Any]], where: str) -> Iterator[Example]:
    source = SOURCES[task.name]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or not all(
            isinstance(row.get(key), str) for key in ("source", "instruction", "output")
        ):
            raise H2TuneError(
                f"row {number} is not an object with the texts source, instruction and output", where=where
            )
        if row["source"] == source and _scorable(task.scorer, row["output"]):
            # A program starts on a new line: a space before it would be an indentation.
            start = "\n" if task.scorer == "program" else " "
            text = row["instruction"].strip()
            prompt = filled(task.template, {"instruction": text})
            yield Example(prompt.text, start + row["output"].strip(), None, text, prompt.fields)


def _scorable(scorer: str, output: str) -> bool:
    """Return whether a reference solution ends in an answer; a program must import the standard library alone.

    Programs are not run here: thousands of them would take minutes each time the task is loaded.
    """
    if scorer == "program":
        return bool(ASSIGNMENT.search(output)) and set(IMPORT.findall(output)) <= set(confined.MODULES)
    return bool(SCORERS[scorer](output, output))


def _read_json(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_bytes())
    except OSError as error:
        raise H2TuneError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except ValueError as error:
        raise H2TuneError(f"malformed JSON ({error})", where=str(path), remedy="Download it again") from None
    if not isinstance(rows, list):
        raise H2TuneError("is not a list of rows", where=str(path), remedy=f"Use {FILE} of {DATASET}")
    return rows
