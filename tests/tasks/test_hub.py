"""Rows of data sets: of the Hub through a fake of it, of a folder and of Parquet files through the library itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w
from helpers import federations
from typer.testing import CliRunner

import h2tune
from h2tune.cli import main
from h2tune.config import load, load_resolved
from h2tune.errors import H2TuneError
from h2tune.runs.pins import pinned
from h2tune.tasks import hub
from h2tune.tasks.hub import HubSplit, split_rows
from h2tune.tasks.load import load_task
from h2tune.tasks.row_files import read_rows
from h2tune.tasks.rows import FileTask

datasets = pytest.importorskip("datasets", reason="pip install 'h2tune[hub]'")
ASKED = {"prompt": "text : {words} answer :", "text": "{words}", "answer": "label", "labels": ["yes", "no"]}


def rows_of(count: int, seed: int = 0):
    path = Path(federations.write_rows(Path("rows.jsonl"), count=count, seed=seed))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a data set of Parquet files: 60 rows to train on, 12 to test on, numbered labels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    features = datasets.Features(
        {"words": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    for split, count in (("train", 60), ("test", 12)):
        rows = datasets.Dataset.from_list(rows_of(count, seed=count), features=features)
        rows.to_parquet(tmp_path / "reviews" / f"{split}-00000-of-00001.parquet")
    return tmp_path


@pytest.fixture
def fake_hub(folder, monkeypatch):
    """A Hub with one data set, `org/reviews`, whose main branch can move."""
    real, asked = datasets.load_dataset, []
    state = SimpleNamespace(commit="a" * 40, asked=asked)

    def load_dataset(name, config=None, **options):
        assert name == "org/reviews"
        asked.append({"config": config, **options})
        options.pop("revision")
        return real(str(folder / "reviews"), config, **options)

    def dataset_info(self, name, revision=None, **_):
        if name != "org/reviews":
            raise OSError(f"404 Client Error: {name} is not there\nand more lines")
        return SimpleNamespace(sha=state.commit)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    hub.newest.cache_clear()
    yield state
    hub.newest.cache_clear()


def federation_of(folder, **task):
    content = federations.federation(folder, train={"local_steps": 1}, data={"train": 8, "test": 4})
    content["client"][0]["task"] = {**ASKED, **task}
    return federations.write(folder, content)


def test_a_folder_has_the_rows_of_its_splits_with_labels_by_name(folder):
    task = FileTask(dataset="./reviews", test_split="test", **ASKED).placed(folder)
    _, splits = load_task(task, train="all", validation=0, test="all", seed=0)
    assert (len(splits.train), len(splits.test)) == (60, 12)
    assert {e.answer for e in splits.train} == {" yes", " no"}
    written = {row["words"]: f" {row['label']}" for row in rows_of(12, seed=12)}
    assert {e.text: e.answer for e in splits.test} == written


def test_rows_limits_what_is_read(fake_hub):
    places = [place for place, _ in split_rows(HubSplit("org/reviews", "train", None, "c", 5))]
    assert places == [f"org/reviews, split 'train', row {n}" for n in range(1, 6)]
    assert fake_hub.asked == [{"config": None, "split": "train", "revision": "c", "streaming": True}]


def test_only_the_first_rows_are_streamed_for_a_check_and_all_are_downloaded_for_training(fake_hub):
    task = FileTask(dataset="org/reviews", **ASKED)
    task.check()
    task.read()
    assert [asked["streaming"] for asked in fake_hub.asked] == [True, False]


def test_a_run_pins_the_commit_and_a_resumed_run_reads_it_again(folder, fake_hub):
    file = federation_of(folder, dataset="org/reviews", test_split="test")
    out = folder / "run"
    h2tune.run(file, out=out, overrides=["server.rounds=1"])
    (one,) = (c for c in load_resolved(out / "config.toml").client if c.name == "one")
    assert one.task.revision == "a" * 40
    fake_hub.commit = "b" * 40
    hub.newest.cache_clear()
    fake_hub.asked.clear()
    h2tune.run(file, out=out, overrides=["server.rounds=2"], resume=True)
    assert {asked["revision"] for asked in fake_hub.asked} == {"a" * 40}
    (one,) = (c for c in load_resolved(out / "config.toml").client if c.name == "one")
    assert one.task.revision == "a" * 40
    with pytest.raises(H2TuneError, match=r"started with another client"):
        h2tune.run(
            federation_of(folder, dataset="org/reviews", test_split="test", revision="c" * 40),
            out=out,
            resume=True,
        )


def test_runs_of_a_comparison_read_the_same_commit(folder, fake_hub):
    federation = load(federation_of(folder, dataset="org/reviews"))
    first = pinned(federation, [])
    (folder / "before").mkdir()
    (folder / "before" / "config.toml").write_text(tomli_w.dumps(h2tune_dump(first)))
    fake_hub.commit = "b" * 40
    hub.newest.cache_clear()
    again = pinned(federation, [folder / "new", folder / "before"])
    assert again == first and pinned(federation, [folder / "new"]) != first


def h2tune_dump(federation):
    from h2tune.config import dump

    return dump(federation)


def test_a_parquet_file_has_the_rows_of_a_file_of_lines(folder):
    rows = rows_of(40)
    datasets.Dataset.from_list(rows).to_parquet(folder / "rows.parquet")
    assert [row for _, row in read_rows(folder / "rows.parquet")] == rows
    assert [number for number, _ in read_rows(folder / "rows.parquet")] == list(range(1, 41))


WRONG = [
    ({"dataset": "org/reviews", "answer": "lable"}, "split 'train', row 1: no field 'lable' (did you mean 'label'?)"),
    ({"dataset": "org/reviews", "labels": ["yes", "on"]}, "row 1: label '"),
    ({"dataset": "org/reviews", "split": "trian"}, "org/reviews, split 'trian': cannot be loaded"),
    ({"dataset": "./nowhere"}, "nowhere: no such folder. Give a folder with rows, or an id of the Hub"),
    ({"dataset": "org/reviews", "file": "rows.jsonl"}, "'file' does not go with dataset; leave one of the two out"),
    ({"file": "rows.jsonl", "split": "test"}, "'split' goes with dataset; leave it out, or name a dataset"),
    ({}, "'file' is missing: the file with rows to train on; or 'dataset', a data set of the Hub"),
    ({"file": "broken.parquet"}, "broken.parquet: is no Parquet file that can be read"),
    ({"file": "gone.parquet"}, "gone.parquet: cannot be read (No such file or directory)"),
    ({"file": "numbers.parquet"}, "numbers.parquet:2: field 'words' is null"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "message"), WRONG)
def test_an_error_names_the_field_the_row_and_the_remedy_before_training(folder, fake_hub, task, message):
    (folder / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    datasets.Dataset.from_list([{"words": "a", "label": "yes"}, {"words": None, "label": "no"}]).to_parquet(
        folder / "numbers.parquet"
    )
    file = federation_of(folder, **task)
    found = CliRunner().invoke(main.app, ["run", str(file), "--out", str(folder / "run")])
    assert isinstance(found.exception, H2TuneError), found.exception
    assert message in str(found.exception) and "\n" not in str(found.exception)
    assert not (folder / "run").exists()


def test_a_data_set_that_is_not_there_is_one_line(folder, fake_hub):
    with pytest.raises(H2TuneError) as caught:
        pinned(load(federation_of(folder, dataset="org/reviewz")), [])
    assert str(caught.value).startswith(
        "client 'one', dataset org/reviewz: its revision cannot be looked up (404 Client Error: org/reviewz"
    )


def test_a_member_names_a_commit(folder):
    from h2tune.flower.deploy.contents import member_content

    federation = load(federation_of(folder, dataset="org/reviews"))
    with pytest.raises(H2TuneError, match=r"client.task.revision is missing"):
        member_content(federation, federation.sorted_clients()[0])
    named = load(federation_of(folder, dataset="org/reviews", revision="main"))
    assert member_content(named, named.sorted_clients()[0])["client"]["task"]["revision"] == "main"
