"""The medical specialty that an exam question belongs to (MedMCQA, Pal et al. 2022)."""

from __future__ import annotations

from h2tune.assets import DATASETS, fetch
from h2tune.tasks.duplicates import without_near_duplicates
from h2tune.tasks.prompts import joined, labelled
from h2tune.tasks.row_files import read_rows
from h2tune.tasks.task import Example, Pools, Task

# Name of a file → label; the file Unknown is not used.
SPECIALTIES = {
    "Anaesthesia": "anaesthesia",
    "Anatomy": "anatomy",
    "Biochemistry": "biochemistry",
    "Dental": "dentistry",
    "ENT": "ear, nose and throat",
    "Forensic_Medicine": "forensic medicine",
    "Gynaecology_Obstetrics": "gynaecology",
    "Medicine": "internal medicine",
    "Microbiology": "microbiology",
    "Ophthalmology": "ophthalmology",
    "Orthopaedics": "orthopaedics",
    "Pathology": "pathology",
    "Pediatrics": "paediatrics",
    "Pharmacology": "pharmacology",
    "Physiology": "physiology",
    "Psychiatry": "psychiatry",
    "Radiology": "radiology",
    "Skin": "dermatology",
    "Social_Preventive_Medicine": "public health",
    "Surgery": "surgery",
}

TASKS = {
    "medical_specialties": Task(
        name="medical_specialties",
        kind="label",
        labels=tuple(SPECIALTIES.values()),
        verbalisers=tuple(f" {label}" for label in SPECIALTIES.values()),
        template="Question: {question}\n{options}\nSpecialty:",
        source=DATASETS["medical_specialties"].source,
        license=DATASETS["medical_specialties"].license,
        scorer="label",
        max_length=96,
    )
}


def read(task: Task) -> Pools:
    """Return the questions; they are fetched if they are not in the cache."""
    known = [row for _, row in read_rows(fetch(task.name) / "rows.jsonl") if row["topic"] in SPECIALTIES]
    rows = [
        {
            "topic": row["topic"],
            "question": " ".join(row["question"].split()),
            "options": "\n".join(" ".join(line.split()) for line in row["options"].splitlines()),
        }
        for row in known
    ]
    kept = without_near_duplicates([f"{row['question']} {row['options']}" for row in rows])
    return Pools(train=[_example(task, rows[index]) for index in kept])


def _example(task: Task, row: dict[str, str]) -> Example:
    label = list(SPECIALTIES).index(row["topic"])
    return labelled(task, row, label, joined([row["question"], row["options"]]))
