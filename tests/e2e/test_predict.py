"""`h2tune predict`: what a client of a finished run says of new rows."""

from __future__ import annotations

import csv
import io
import json

import pytest
from helpers import federations

from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.runs.plan import planned
from h2tune.runs.predict import predict


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    clients = (("one", "llama", 4), ("two", "bert", 4), ("free", "llama", 4))
    content = federations.federation(folder, clients)
    del content["client"][2]["task"]["labels"]
    content["data"] = {"train": 24, "test": 20}
    file = federations.write(folder, content)
    federations.h2tune("run", str(file), "--out", str(folder / "run"))
    return folder, {client.name: client for client in planned(load(file)).clients}


@pytest.mark.parametrize("name", ["one", "two"])
def test_predictions_of_the_test_rows_have_the_accuracy_of_the_run(ready, tmp_path, name):
    folder, clients = ready
    test, task = clients[name].splits.test, clients[name].task
    rows = tmp_path / "rows.csv"
    rows.write_text("words;id\n" + "".join(f"{e.text};{i}\n" for i, e in enumerate(test)))
    out = tmp_path / "found" / "predictions.csv"
    federations.h2tune("predict", str(folder / "run"), str(rows), "--client", name, "--out", str(out))
    found = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["id"] for row in found] == [str(i) for i in range(len(test))]
    right = [row["prediction"] == task.labels[e.label] for row, e in zip(found, test, strict=True)]
    events = read_events(folder / "run" / "events.jsonl")
    recorded = [e["accuracy"] for e in events if e["event"] == "evaluated" and e["client"] == name][-1]
    assert sum(right) / len(right) == pytest.approx(recorded)
    for row in found:
        shares = {label: float(row[f"probability of {label}"]) for label in task.labels}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert max(shares, key=shares.__getitem__) == row["prediction"]


def test_free_answers_are_text_and_go_to_the_terminal(ready, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"words": "good film"}\n{"words": "bad film"}\n')
    done = federations.h2tune("predict", str(ready[0] / "run"), str(rows), "--client", "free")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["words"] for row in found] == ["good film", "bad film"]
    assert all(isinstance(row["prediction"], str) for row in found)


@pytest.mark.parametrize(
    ("rows", "client", "message"),
    [
        ("words\nfilm\n", "onne", "did you mean 'one'"),
        ("wrds\nfilm\n", "one", "no field 'words'"),
        ("words,prediction\nfilm,x\n", "one", "has a field 'prediction' already"),
        ("words\n", "one", "has no rows"),
        ("words,probability of yes\nfilm,1\n", "one", "has a field 'probability of yes' already"),
    ],
)
def test_what_cannot_be_predicted_says_why(ready, tmp_path, rows, client, message):
    (tmp_path / "rows.csv").write_text(rows)
    with pytest.raises(H2TuneError, match=message):
        predict(ready[0] / "run", client, tmp_path / "rows.csv")
