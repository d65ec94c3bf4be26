"""The category of a dictionary's definition: glosses of WordNet 3.1 (Fellbaum 1998), nouns and verbs.

WordNet has one source file per category, and its database contains them one after the other. So the number of a set of
synonyms, which is its offset in the database, determines its category. The starts below were determined by matching
glosses with those of WordNet 3.0, whose database states the category of each: of 68,915 nouns with a unique gloss in
both 68,913 are in the same category, of 12,553 verbs 12,541; the others were moved between the versions.
"""

from __future__ import annotations

from bisect import bisect_right

from h2tune.assets import DATASETS, fetch
from h2tune.tasks.duplicates import without_near_duplicates
from h2tune.tasks.prompts import labelled
from h2tune.tasks.row_files import read_rows
from h2tune.tasks.task import Example, Pools, Task

# Category → number of its first set of synonyms.
NOUNS = {
    "": 0,  # the most general nouns, such as entity: not a category, left out
    "act": 34_778,
    "animal": 1_315_584,
    "artifact": 2_668_615,
    "attribute": 4_623_223,
    "body": 5_223_633,
    "cognition": 5_619_057,
    "communication": 6_261_911,
    "event": 7_298_069,
    "feeling": 7_495_066,
    "food": 7_571_428,
    "group": 7_955_013,
    "location": 8_506_507,
    "motive": 9_201_624,
    "object": 9_208_961,
    "person": 9_506_868,
    "phenomenon": 11_428_673,
    "plant": 11_550_054,
    "possession": 13_261_412,
    "process": 13_444_578,
    "quantity": 13_597_072,
    "relation": 13_802_661,
    "shape": 13_882_990,
    "state": 13_943_045,
    "substance": 14_604_577,
    "time": 15_137_796,
}
VERBS = {
    "body": 0,
    "change": 109_468,
    "cognition": 589_616,
    "communication": 742_582,
    "competition": 1_074_673,
    "consumption": 1_159_300,
    "contact": 1_208_316,
    "creation": 1_620_211,
    "emotion": 1_763_170,
    "motion": 1_835_473,
    "perception": 2_110_264,
    "possession": 2_204_104,
    "social": 2_372_031,
    "stative": 2_609_706,
    "weather": 2_762_516,
}
PARTS = {"wordnet_nouns": ("n", NOUNS), "wordnet_verbs": ("v", VERBS)}


def _task(name: str) -> Task:
    labels = tuple(label for label in PARTS[name][1] if label)
    return Task(
        name=name,
        kind="label",
        labels=labels,
        verbalisers=tuple(f" {label}" for label in labels),
        template="Definition: {gloss}\nCategory:",
        source=DATASETS["wordnet"].source,
        license=DATASETS["wordnet"].license,
        scorer="label",
        max_length=64,
    )


TASKS = {name: _task(name) for name in PARTS}


def read(task: Task) -> Pools:
    """Return the glosses; they are fetched if they are not in the cache."""
    part, categories = PARTS[task.name]
    rows = [row for _, row in read_rows(fetch("wordnet") / "rows.jsonl") if row["part"] == part]
    labelled = [(category(row["number"], categories), " ".join(row["gloss"].split())) for row in rows]
    in_categories = [(label, gloss) for label, gloss in labelled if label]
    kept = without_near_duplicates([gloss for _, gloss in in_categories])
    return Pools(train=[_example(task, *in_categories[index]) for index in kept])


def category(number: int, starts: dict[str, int]) -> str:
    """Return the category of a number; `starts` are in ascending order."""
    return list(starts)[bisect_right(list(starts.values()), number) - 1]


def _example(task: Task, name: str, gloss: str) -> Example:
    label = task.labels.index(name)
    return labelled(task, {"gloss": gloss}, label, gloss)
