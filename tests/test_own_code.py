"""Objects of the user's own by `module:object`: where modules are looked for, and what is refused."""

from __future__ import annotations

import sys

import pytest

from h2tune import own_code
from h2tune.errors import H2TuneError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_beside_the_file_is_found_from_anywhere(folder):
    (folder / "own_words.py").write_text("class Words:\n    two = 2\n")
    reference = own_code.absolute_reference("own_words:Words.two", folder)
    assert reference == f"{folder}/own_words.py:Words.two"
    assert own_code.absolute_reference("own_words.py:Words.two", folder) == reference
    assert own_code.load(reference, "key") == 2
    assert own_code.short(reference) == "own_words:Words.two"


def test_a_file_of_a_package_may_import_its_neighbours(folder):
    package = folder / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("one = 1\n")
    (package / "near.py").write_text("from . import one\n")
    assert own_code.load(own_code.absolute_reference("own_package.near:one", folder), "key") == 1
    assert own_code.load(own_code.absolute_reference("own_package:one", folder), "key") == 1


def test_an_installed_module_stays_a_name(folder):
    assert own_code.absolute_reference("json:loads", folder) == "json:loads"


def test_a_file_hides_no_installed_module(folder):
    (folder / "json.py").write_text("loads = None\n")
    with pytest.raises(H2TuneError, match=r"the name 'json' of .* is taken by .*Rename the file"):
        own_code.load(own_code.absolute_reference("json:loads", folder), "key")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("x = (", "x", "cannot be imported \\(SyntaxError"),
        (
            "import not_there_at_all",
            "x",
            "cannot be imported \\(ModuleNotFoundError: No module named 'not_there",
        ),
        ("1 / 0", "x", "cannot be imported \\(ZeroDivisionError"),
        ("rows = []", "row", "has no 'row' \\(did you mean 'rows'"),
    ],
)
def test_what_cannot_be_loaded_is_said(folder, content, name, message):
    file = folder / "own_broken.py"
    file.write_text(content)
    with pytest.raises(H2TuneError, match=message):
        own_code.load(f"{file}:{name}", "task.file")


def test_a_missing_module_or_file_is_said(folder):
    for reference in ("not_there_at_all:x", f"{folder}/not_there.py:x"):
        with pytest.raises(H2TuneError, match=r"task.scorer: .*(cannot be imported|no such file)"):
            own_code.load(reference, "task.scorer")


def test_an_object_has_a_reference_that_loads_it(folder):
    file = folder / "own_objects.py"
    file.write_text("class Kind: pass\ndef function(): pass\nvalue = Kind()\n")
    for name in ("Kind", "function", "value"):
        loaded = own_code.load(f"{file}:{name}", "key")
        reference = own_code.reference_of(loaded, "key")
        assert reference == f"{file}:{name}" and own_code.load(reference, "key") is loaded


def test_an_object_of_the_notebook_is_found_in_this_process(monkeypatch):
    def rule(): ...

    rule.__module__, rule.__qualname__ = "__main__", "rule"
    monkeypatch.setattr(sys.modules["__main__"], "rule", rule, raising=False)
    assert own_code.named({"server": {"aggregation": rule}}) == {"server": {"aggregation": "__main__:rule"}}
    assert own_code.load("__main__:rule", "key") is rule
    monkeypatch.undo()
    with pytest.raises(H2TuneError, match="Define it at the top level of a file"):
        own_code.load("__main__:rule", "key")


def test_an_object_without_a_name_is_refused_with_its_key():
    with pytest.raises(H2TuneError, match=r"server.aggregation: .* has no name that a run could load it by"):
        own_code.named({"server": {"aggregation": lambda *_: None}})
