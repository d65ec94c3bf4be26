"""Public texts of a built-in task: never a test example, and not the training examples of the same seed."""

from __future__ import annotations

import pytest

from h2tune.errors import H2TuneError
from h2tune.tasks import load
from h2tune.tasks.task import Example, Pools


@pytest.fixture
def examples(monkeypatch):
    rows = [Example(f"text {i}", "yes", i % 2, f"text {i}") for i in range(100)]
    module = type("Module", (), {"read": staticmethod(lambda _: Pools(train=tuple(rows)))})
    monkeypatch.setattr(load.importlib, "import_module", lambda _: module)
    monkeypatch.setattr(load, "describe_task", lambda *_, **__: type("Task", (), {"name": "tweets"}))
    return rows


def test_no_test_example_is_public_however_many_there_are(examples):
    for test in (1, 20, 60):
        _, splits = load.load_task("tweets", train=10, validation=0, test=test, seed=3)
        public = load.unlabelled("tweets", 100, seed=3, test=test)
        assert not {e.text for e in splits.test} & set(public)
        assert len(public) == 100 - max(test, 20)


def test_too_few_texts_are_returned_as_they_are(examples):
    assert len(load.unlabelled("tweets", 1000, seed=0, test=1)) == 80


def test_an_unknown_task_is_an_error():
    with pytest.raises(H2TuneError, match="no task is called"):
        load.unlabelled("twets", 3, seed=0, test=1)
