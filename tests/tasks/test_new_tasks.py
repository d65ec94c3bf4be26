"""Reading the newer demo texts, on a few rows in the format of their packages."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from h2tune.assets import DATASETS, MODELS, prepare
from h2tune.errors import H2TuneError
from h2tune.tasks import MODULES, amazon_reviews, boolq, medical_specialties, nyt_editorials, reuters, wordnet
from h2tune.tasks.load import describe_task
from h2tune.tasks.prompts import fields
from h2tune.tasks.splits import split

LATER = {
    "amazon_reviews": ("text",),
    "nyt_editorials": ("text",),
    "reuters_r8": ("text",),
    "reuters_r52": ("text",),
    "medical_specialties": ("question", "options"),
    "boolq": ("passage", "question"),
    "wordnet_nouns": ("gloss",),
    "wordnet_verbs": ("gloss",),
}


@pytest.mark.parametrize("name", LATER)
def test_tasks_describe_themselves_without_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2TUNE_CACHE", "/nonexistent")
    task = describe_task(name)
    assert task.name == name and name in MODULES and fields(task.template) == LATER[name]
    assert len(task.labels) == len(task.verbalisers) == len(set(task.verbalisers))
    assert all(word.startswith(" ") and word == word.rstrip() for word in task.verbalisers)
    asset = DATASETS["wordnet" if name.startswith("wordnet") else name]
    assert (task.source, task.license) == (asset.source, asset.license)
    assert asset.kind == "dataset" and asset.notice
    for package in asset.packages:
        assert package.name in asset.source and package.version in asset.source and len(package.sha256) == 64


def test_all_sentiment_tasks_have_the_same_labels() -> None:
    tasks = [describe_task(n) for n in ("movie_reviews", "tweets", "amazon_reviews", "nyt_editorials")]
    assert len({(task.labels, task.verbalisers) for task in tasks}) == 1


@pytest.mark.parametrize("module", [amazon_reviews, nyt_editorials])
def test_rated_sentences(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.tsv").write_text(
        "1_1\t-0.9\tno picture.\r\n1_2\t-0.15\ta title\r\n2_1\t1.5\tIt's a joy\r\n"
    )
    monkeypatch.setattr(module, "fetch", lambda name: tmp_path)
    (name,) = module.TASKS
    found = module.read(describe_task(name)).train
    assert [(e.text, e.answer) for e in found] == [("no picture.", " negative"), ("It's a joy", " positive")]


def story(topic: str, text: str) -> str:
    return f"{topic}\t{text}\n"


def test_reuters_keeps_its_split_and_no_copy_of_a_test_story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "Category\tText\nd\tstring\nclass\t\n\n"
    oil = "opec raises its output of oil by a million barrels a day in march"
    (tmp_path / "reuters-r8-test.tab").write_text(head + story("crude", oil))
    (tmp_path / "reuters-r8-train.tab").write_text(
        head
        + story("crude", f"{oil} reuter")
        + story("earn", "a  firm net shr cts vs cts")
        + story("acq", "x")
    )
    monkeypatch.setattr(reuters, "fetch", lambda name: tmp_path)
    task = describe_task("reuters_r8")
    pools = reuters.read(task)
    assert [(e.text, e.answer) for e in pools.test or ()] == [(oil, " oil")]
    assert [(e.text, e.answer) for e in pools.train] == [
        ("a firm net shr cts vs cts", " earnings"),
        ("x", " acquisitions"),
    ]
    assert (
        set(reuters.R8) < set(reuters.R52)
        and len(reuters.R52) == 52
        and set(reuters.WORDS) < set(reuters.R52)
    )
    splits = split(pools, train=1, validation=1, test=1, seed=0, part=(0, 1), where="t")
    assert splits.test[0].text == oil
    (tmp_path / "reuters-r8-test.tab").write_text(head + story("weather", "rain"))
    with pytest.raises(H2TuneError, match=r"test\.tab:5.*fetch reuters_r8"):
        reuters.read(task)


def test_questions_get_the_name_of_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "Scaling is seen  in?", "options": "A. Tinea\nB. Lichen", "answer": "A. Tinea"}
    wheel = tmp_path / "exams.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member in ("MedMCQA/Test/Skin", "MedMCQA/Test/Unknown", "MedMCQA/Dev/Skin", "Other/Test/Skin"):
            archive.writestr(
                f"data/{member}.jsonl", json.dumps({"question": f"{member}?", "options": member}) + "\n\n"
            )
        archive.writestr("data/MedMCQA/Dev/ENT.jsonl", json.dumps(row))
    prepare.labelled_rows([wheel], tmp_path, pattern="data/MedMCQA/*/*.jsonl")
    monkeypatch.setattr(medical_specialties, "fetch", lambda name: tmp_path)
    found = medical_specialties.read(describe_task("medical_specialties")).train
    assert [(e.text.split("\n")[0], e.answer) for e in found] == [
        ("Scaling is seen in?", " ear, nose and throat"),
        ("MedMCQA/Dev/Skin?", " dermatology"),
        ("MedMCQA/Test/Skin?", " dermatology"),
    ]
    assert found[0].prompt == "Question: Scaling is seen in?\nA. Tinea\nB. Lichen\nSpecialty:"
    with pytest.raises(H2TuneError, match="no rows match data/none"):
        prepare.labelled_rows([wheel], tmp_path, pattern="data/none")


def test_boolq_tests_on_the_development_set_and_on_no_passage_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wine = "Wine -- Wine is made of grapes, and wine of other fruit has the fruit in its name."
    rows = [
        {"passage": wine, "question": "is wine made of pears", "label": False, "idx": 0},
        {"passage": "Tea -- Tea is a drink.", "question": "is tea a drink", "label": True, "idx": 1},
        {"passage": wine, "question": "is wine made of grapes", "label": True, "idx": 0},
        {"passage": "Milk -- Milk is white.", "question": "is milk white", "idx": 0},
    ]
    (tmp_path / "combined.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "dev.jsonl").write_text(json.dumps({"question": "is wine made of grapes", "answer": "True"}))
    monkeypatch.setattr(boolq, "fetch", lambda name: tmp_path)
    pools = boolq.read(describe_task("boolq"))
    assert [(e.text, e.answer) for e in pools.test or ()] == [(f"is wine made of grapes?\n{wine}", " yes")]
    assert [(e.text, e.answer) for e in pools.train] == [("is tea a drink?\nTea -- Tea is a drink.", " yes")]
    assert pools.train[0].prompt.endswith("Question: is tea a drink?\nAnswer (yes or no):")


def test_a_gloss_has_the_category_that_its_number_falls_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "<SYNSET><ID>ENG31-{}</ID><SYNONYM><LITERAL>x<SENSE>0</SENSE></LITERAL></SYNONYM><DEF>{}</DEF></SYNSET>"
    sets = {
        "00001740-n": "what is",
        "02086723-n": "a member of the genus Canis &amp; its kin",
        "02669789-n": "a tool",
        "15137796-n": "a while",
        "00109468-v": "make different",
        "00109467-v": "breathe",
        "00001740-a": "having the means",
    }
    data = "<SYNSETS>\n" + "\n".join(line.format(*item) for item in sets.items()) + "\n</SYNSETS>\n"
    source = tmp_path / "source.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        member = tarfile.TarInfo("p-1/data/wn.xml")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data.encode()))
    prepare.glosses([source], tmp_path, member="data/wn.xml")
    monkeypatch.setattr(wordnet, "fetch", lambda name: tmp_path)
    nouns, verbs = (wordnet.read(describe_task(name)).train for name in ("wordnet_nouns", "wordnet_verbs"))
    assert [(e.text, e.answer) for e in nouns] == [
        ("a member of the genus Canis & its kin", " animal"),
        ("a tool", " artifact"),
        ("a while", " time"),
    ]
    assert [(e.text, e.answer) for e in verbs] == [("breathe", " body"), ("make different", " change")]
    assert nouns[1].prompt == "Definition: a tool\nCategory:"
    with pytest.raises(H2TuneError, match=r"has no file data/other\.xml"):
        prepare.glosses([source], tmp_path, member="data/other.xml")


@pytest.mark.parametrize("starts", [wordnet.NOUNS, wordnet.VERBS])
def test_categories_start_one_after_the_other(starts: dict[str, int]) -> None:
    numbers = list(starts.values())
    assert numbers == sorted(set(numbers))
    for name, number in starts.items():
        assert wordnet.category(number, starts) == name


def test_every_demo_model_and_text_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "assets.md").read_text(encoding="utf-8")
    assert not [name for name in (*MODELS, *DATASETS, *LATER) if f"`{name}`" not in text]
    packages = {package for asset in (*MODELS.values(), *DATASETS.values()) for package in asset.packages}
    assert not [p for p in packages if p.name.split("-part")[0] not in text or p.version not in text]
