"""The command line: help in full, errors in one line, text printed as it is."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from helpers import federations
from rich.console import Console
from typer.testing import CliRunner

import h2tune
from h2tune.cli import main
from h2tune.cli.display import TerminalDisplay, counted, results_table, terminal

MISSING = """
import sys
sys.argv = ["h2tune", *sys.argv[1:]]
from h2tune.cli.main import main
try:
    main()
finally:
    assert not {"torch", "transformers", "peft"} & sys.modules.keys()
"""


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(main.app, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=federations.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_m_h2tune_is_the_command_line():
    done = run_python("-m", "h2tune", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, h2tune.__version__)


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ("run", ["Federation file (TOML)", "runs/NAME", "Resume an interrupted run"]),
        ("inspect", ["Federation file (TOML)", "--set KEY=VALUE"]),
        (
            "compare",
            ["Federation file (TOML)", "runs/NAME-compare", "local, else the first method", "default: 5"],
        ),
        ("report", ["Folder of a run or a comparison", "RUN/report.html"]),
        ("evaluate", ["Run folder", "all clients", "default: test"]),
        ("export", ["Run folder", "Folder to write; must not exist", "default: lora"]),
        ("assets fetch", ["Names of assets", "all"]),
        ("deploy init", ["Federation file (TOML)", "Folder to write", "default: 9443", "default: 9091"]),
        ("deploy check", ["File of one client (TOML)"]),
        ("deploy worker", ["File of one client (TOML)"]),
    ],
)
def test_help_describes_arguments_and_defaults(command, texts):
    text = shown(*command.split(), "--help")
    for expected in texts:
        assert expected in text, text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere.toml"), "h2tune: nowhere.toml: no such file"),
        (("inspect", "nowhere.toml"), "h2tune: nowhere.toml: no such file"),
        (("compare", "nowhere.toml", "--methods", "local"), "h2tune: nowhere.toml: no such file"),
        (("deploy", "check", "nowhere.toml"), "h2tune: nowhere.toml: no such file"),
        (("report", "nowhere"), "h2tune: nowhere"),
        (("evaluate", "nowhere"), "h2tune: nowhere: not a run folder"),
        (("export", "nowhere", "out", "--client", "one"), "h2tune: nowhere: not a run folder"),
    ],
)
def test_a_missing_file_is_one_line_before_torch_is_imported(arguments, message):
    done = run_python("-c", MISSING, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_brackets_in_a_path_are_printed_as_they_are(tmp_path):
    folder = tmp_path / "[old] [" / "y] :smile:"
    folder.mkdir(parents=True)
    file = federations.write(folder, federations.federation(folder))
    assert f"one: {folder}/models/llama" in shown("inspect", str(file))


def test_a_closing_tag_in_a_run_folder_is_no_markup(capsys):
    terminal().print("Adapters: runs/[old] runs/[/y] :smile:", soft_wrap=True)
    terminal().print(
        results_table([{"client": "[/y]", "majority": 0.5, "before": None, "alone": 0, "federated": 1}])
    )
    assert "runs/[old] runs/[/y] :smile:" in (text := capsys.readouterr().out)
    assert text.count("[/y]") == 2


def test_a_closing_tag_in_an_event_is_no_markup():
    stream = io.StringIO()
    console = Console(file=stream, markup=False, highlight=False, emoji=False, force_terminal=True)
    with TerminalDisplay(console, steps=2) as display:
        display.starting("trained", 0, "[/y]")
        display.progress("[/y]")(1, "specific", 0.5)
        display.notice({"event": "client_failed", "client": "one", "round": 0, "reason": "no [/y] file"})
    assert "one failed in round 1: no [/y] file" in stream.getvalue()


@pytest.mark.parametrize(("number", "text"), [(0, "0 rounds"), (1, "1 round"), (2, "2 rounds")])
def test_a_number_has_its_plural(number, text):
    assert counted(number, "round") == text


def test_a_run_of_one_round_is_announced_in_the_singular(capsys):
    client = {"name": "one", "family": "llama", "rank": 4, "task": "films"}
    event = {"event": "run_started", "name": "tiny", "rounds": 1, "clients": [client]}
    TerminalDisplay(terminal(), steps=1).notice(event)
    assert "tiny: 1 round, one (llama, rank 4, films)" in capsys.readouterr().out


def test_rows_that_are_not_used_are_said_before_training(capsys):
    client = {"name": "one", "family": "llama", "rank": 4, "task": "films", "examples": {"train": 128}}
    event = {"event": "run_started", "name": "tiny", "rounds": 2}
    clients = [client | {"unused": 19_672, "repeated": 12}, client | {"name": "two"}]
    TerminalDisplay(terminal(), steps=1).notice(event | {"clients": clients})
    text = capsys.readouterr().out
    assert "one: 128 examples to train on (data.train); 19,672 more are not used" in text
    assert "one: 12 examples repeat a prompt and do not count" in text and "  two:" not in text
