"""What users may rely on: public names, their signatures, and the commands with their options.

A change here is a change for users: make it on purpose, with a line in CHANGELOG.md.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
import typer
import yaml

import h2tune
from h2tune.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "": "--version",
    "run": "file --set --out --resume --from-round --strict --jobs",
    "inspect": "file --set",
    "compare": "file --methods --seeds --set --out --against --split --format --jobs",
    "report": "folder --out",
    "evaluate": "folder --client --split",
    "export": "folder out --client --format --merged",
    "merge": "folder out --client",
    "predict": "folder file --client --out",
    "assets list": "",
    "assets fetch": "names",
    "deploy init": "file out --host --port --control-port",
    "deploy check": "file",
    "deploy start": "file",
    "deploy add-member": "file parties name",
    "deploy renew": "file",
    "deploy settings": "file",
    "deploy peers": "file",
    "deploy verify": "folder --key",
    "deploy take-back": "file --from-round",
    "deploy worker": "file",
}
"""Command → its arguments and options, in order."""


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    if not name:
        yield name, command
    for word, below in command.commands.items():
        yield from commands(below, f"{name} {word}".strip())


def parameters(command: click.Command) -> str:
    names = [p.opts[0] if isinstance(p, click.Option) else str(p.name) for p in command.params]
    return " ".join(names)


def test_the_public_names_are_these():
    assert sorted(h2tune.__all__) == [
        "Federation", "H2TuneConfig", "H2TuneError", "Monitor", "__version__", "run",
    ]  # fmt: skip
    assert all(getattr(h2tune, name) is not None for name in h2tune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        h2tune.train  # noqa: B018


def test_the_version_is_one_that_a_package_index_takes():
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", h2tune.__version__)


def test_run_has_this_signature():
    assert str(inspect.signature(h2tune.run)) == (
        "(federation: 'FederationConfig | Stated | str | Path', *, overrides: 'Sequence[str]' = (), "
        "out: 'str | Path | None' = None, resume: 'bool' = False, "
        "from_round: 'int | None' = None, strict: 'bool' = False, jobs: 'int | None' = None, "
        "monitors: 'Sequence[Monitor]' = ()) -> 'Run'"
    )


def test_a_federation_has_these_methods():
    assert str(inspect.signature(h2tune.Federation)) == (
        "(content: 'Mapping[str, Any] | str | Path | None' = None, /, **keys: 'Any') -> 'None'"
    )
    assert str(inspect.signature(h2tune.Federation.run)) == (
        "(self, *, out: 'str | Path | None' = None, resume: 'bool' = False, "
        "from_round: 'int | None' = None, strict: 'bool' = False, "
        "monitors: 'Sequence[Monitor]' = (), progress: 'bool' = True) -> 'Run'"
    )
    assert str(inspect.signature(h2tune.Federation.inspect)) == "(self) -> 'Forecast'"
    assert str(inspect.signature(h2tune.Federation.compare)) == (
        "(self, methods: 'Sequence[Any]', **options: 'Any') -> 'Comparison'"
    )


def test_a_monitor_has_these_methods():
    own = {
        name: str(inspect.signature(m)) for name, m in vars(h2tune.Monitor).items() if inspect.isfunction(m)
    }
    assert own == {
        "check": "(self) -> 'None'",
        "on_begin": "(self, folder: 'Path', settings: 'Mapping[str, Any]') -> 'None'",
        "on_total": "(self, steps: 'int') -> 'None'",
        "on_reading": "(self, client: 'str', done: 'int', total: 'int') -> 'None'",
        "on_turn": "(self, stage: 'str', round_number: 'int', client: 'str') -> 'None'",
        "on_step": "(self, client: 'str', step: 'int', phase: 'str', loss: 'float') -> 'None'",
        "on_event": "(self, event: 'Event') -> 'None'",
        "on_end": "(self, finished: 'bool') -> 'None'",
    }


def test_a_finished_run_has_these_values():
    returned = inspect.get_annotations(h2tune.run)["return"]
    found = getattr(inspect.getmodule(h2tune.run), returned)
    assert [field.name for field in fields(found)] == ["folder", "table"]
    assert isinstance(found.events, property) and callable(found.frame)


def test_the_adapters_configuration_has_these_fields():
    own = {field.name: field.default for field in fields(h2tune.H2TuneConfig)}
    ours = {
        "r": 8,
        "shared_rank": None,
        "alpha": 16.0,
        "dropout": 0.0,
        "mask": "entry",
        "basis": "free",
        "basis_scale": 1.0,
        "target_modules": None,
        "exclude_modules": None,
        "roles": None,
        "modules_to_save": None,
        "init_seed": 0,
    }
    assert {name: own.get(name, "missing") for name in ours} == ours
    inherited = {field.name for field in fields(h2tune.H2TuneConfig.__mro__[1])}
    assert own.keys() - inherited == ours.keys()


def test_an_error_takes_a_message_a_place_and_a_remedy():
    assert str(inspect.signature(h2tune.H2TuneError)) == (
        "(message: 'str', *, where: 'str' = '', remedy: 'str' = '') -> 'None'"
    )
    error = h2tune.H2TuneError("is missing", where="file.toml", remedy="Add it")
    assert str(error) == "file.toml: is missing. Add it"


def test_the_commands_and_their_options_are_these():
    found = {name: parameters(command) for name, command in commands(typer.main.get_command(app))}
    assert found == COMMANDS


def test_the_hosted_checks_cover_every_python_that_the_package_names():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))
    assert tested == named and len(named) == 3
