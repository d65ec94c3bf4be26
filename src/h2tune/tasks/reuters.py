"""Topic of newswire stories of Reuters of 1987, for stories with one topic (Lewis 1997; Cardoso-Cachopo 2007).

The split is the usual one by date ("ModApte"): the test stories are later than the others.
"""

from __future__ import annotations

from pathlib import Path

from h2tune.assets import DATASETS, fetch
from h2tune.errors import H2TuneError
from h2tune.tasks.duplicates import without_near_duplicates
from h2tune.tasks.prompts import labelled
from h2tune.tasks.task import Example, Pools, Task

R8 = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
OTHERS = """
alum bop carcass cocoa coffee copper cotton cpi cpu dlr fuel gas gnp gold heat housing income instal-debt ipi iron-steel
jet jobs lead lei livestock lumber meal-feed money-supply nat-gas nickel orange pet-chem platinum potato reserves retail
rubber strategic-metal sugar tea tin veg-oil wpi zinc
"""
R52 = tuple(sorted((*R8, *OTHERS.split())))
# Verbalisers of topics whose name at Reuters is not a word; in the other names hyphens become spaces.
WORDS = {
    "acq": "acquisitions",
    "alum": "aluminium",
    "bop": "payments",
    "cpi": "prices",
    "cpu": "capacity",
    "crude": "oil",
    "dlr": "dollar",
    "earn": "earnings",
    "gnp": "growth",
    "instal-debt": "instalment debt",
    "ipi": "production",
    "lei": "indicators",
    "money-fx": "currencies",
    "nat-gas": "natural gas",
    "pet-chem": "petrochemicals",
    "ship": "shipping",
    "wpi": "wholesale prices",
}
READ = 128  # tokens of a story that a model reads, and words in which two stories are compared
HEADER = 3  # lines: names, types and roles of the columns
# Half of the stories are earnings reports, a form whose numbers were removed: at a share of one half the reports of any
# two firms would be near duplicates.
SHARE = 0.8


def _task(name: str, labels: tuple[str, ...]) -> Task:
    return Task(
        name=name,
        kind="label",
        labels=labels,
        verbalisers=tuple(" " + WORDS.get(label, label.replace("-", " ")) for label in labels),
        template="Story: {text}\nTopic:",
        source=DATASETS[name].source,
        license=DATASETS[name].license,
        scorer="label",
        max_length=READ,
        excerpt=True,
    )


TASKS = {"reuters_r8": _task("reuters_r8", R8), "reuters_r52": _task("reuters_r52", R52)}


def read(task: Task) -> Pools:
    """Return the stories without near duplicates of test stories; they are fetched if they are not in the cache."""
    folder, short = fetch(task.name), task.name.replace("_", "-")
    test, train = (_rows(folder / f"{short}-{split}.tab", task) for split in ("test", "train"))
    rows = [*test, *train]
    kept = without_near_duplicates([" ".join(text.split()[:READ]) for _, text in rows], share=SHARE)
    examples = {index: _example(task, *rows[index]) for index in kept}
    return Pools(
        train=[example for index, example in examples.items() if index >= len(test)],
        test=[example for index, example in examples.items() if index < len(test)],
    )


def _rows(path: Path, task: Task) -> list[tuple[str, str]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").rstrip().split("\n"), start=1):
        topic, tab, text = line.partition("\t")
        if number <= HEADER or not line.strip():
            continue
        if not tab or topic not in task.labels:
            raise H2TuneError(
                "is not a line of a topic and a text",
                where=f"{path}:{number}",
                remedy=f"Delete {path.parent} and fetch {task.name} again",
            )
        rows.append((topic, " ".join(text.split())))
    return rows


def _example(task: Task, topic: str, text: str) -> Example:
    label = task.labels.index(topic)
    return labelled(task, {"text": text}, label, text)
