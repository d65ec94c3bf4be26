"""The command line: help in full, errors in one line, text printed as it is."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w
from helpers import federations
from rich.console import Console
from typer.testing import CliRunner

import h2tune
from h2tune import config
from h2tune.cli import forecast, main
from h2tune.cli.display import TerminalDisplay, results_table, terminal
from h2tune.monitors.lines import counted, line_of
from h2tune.runs.record import accuracy_table

MISSING = """
import sys
sys.argv = ["h2tune", *sys.argv[1:]]
from h2tune.cli.main import main
try:
    main()
finally:
    assert not {"torch", "transformers", "peft"} & sys.modules.keys()
"""

FIRST_LINE = """
import sys
from h2tune.cli import display, main
def first_line(clients):
    assert not {"torch", "transformers", "peft"} & sys.modules.keys()
    sys.exit(f"{clients} clients, without torch")
display.loading_line = first_line
sys.argv = ["h2tune", *sys.argv[1:]]
main.main()
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


BAD_FILES = {
    "toml": (lambda content: 'name = "x', "is not valid TOML"),
    "key": (lambda content: {**content, "foo": 1}, "unknown key 'foo'"),
    "rows": (lambda content: (Path(content["client"][0]["task"]["file"]).unlink(), content)[1], "cannot be read"),
    "no rows": (lambda content: (Path(content["client"][0]["task"]["file"]).write_text(""), content)[1], "has no rows"),
    "a row": (
        lambda content: (write_last_row(content, '{"words": "a", "label": "yess"}'), content)[1],
        "one.jsonl:161: label 'yess' in field 'label' is not one of the task's labels (did you mean 'yes'?)",
    ),
    "model": (lambda content: changed(content, model="/nowhere"), "client 'one', model /nowhere: no such folder"),
    "demo": (lambda content: changed(content, model="pypi:smolm2"), "client 'one': no demo asset is called 'smolm2'"),
    "task": (lambda content: changed(content, task="tweet"), "client 'one', task: no task is called 'tweet'"),
    "texts": (lambda content: {**content, "basis": {"texts": ["gone.txt"]}}, "gone.txt: cannot be read"),
    "split": (
        lambda content: {**content, "data": {**content["data"], "evaluate": "validation", "validation": 0}},
        "client 'one': there are no validation examples to evaluate on",
    ),
}  # fmt: skip
"""What is wrong → how a sound file is spoiled, and what is said."""


def changed(content, **changes):
    first, *others = content["client"]
    return {**content, "client": [{**first, **changes}, *others]}


def write_last_row(content, row):
    with Path(content["client"][0]["task"]["file"]).open("a") as stream:
        stream.write(row + "\n")


@pytest.mark.parametrize(
    "command", [("run",), ("inspect",), ("compare", "--methods", "local")], ids=lambda c: c[0]
)
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_before_torch_is_imported(tmp_path, kind, command):
    spoil, words = BAD_FILES[kind]
    content = spoil(federations.federation(tmp_path))
    file = tmp_path / "federation.toml"
    if isinstance(content, str):
        file.write_text(content)
    else:
        federations.write(tmp_path, content)
    done = run_python("-c", MISSING, command[0], str(file), *command[1:])
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and done.stderr.startswith("h2tune: ") and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Return a folder like that of a finished run, as far as questions about it are answered early."""
    folder = tmp_path_factory.mktemp("stored")
    file = federations.write(folder, federations.federation(folder))
    run = folder / "run"
    (run / "clients/one/adapter").mkdir(parents=True)
    (run / "config.toml").write_text(tomli_w.dumps(config.dump(config.load(file))))
    (run / "events.jsonl").write_text("")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "federation.toml", "--out", "run"), "run: holds a run already. Go on with --resume"),
        (("run", "federation.toml", "--out", "none", "--resume"), "none: there is no run to resume"),
        (("run", "federation.toml", "--out", "models", "--resume"), "models: there is no run to resume"),
        (("evaluate", "run", "--client", "on"), "run: no client 'on' (did you mean 'one'?)"),
        (("evaluate", "run", "--client", "two"), "run: client 'two' has no adapter yet"),
        (("evaluate", "run", "--split", "tset"), "--split: no split 'tset' (did you mean 'test'?)"),
        (("export", "run", "out", "--client", "on"), "run: no client 'on' (did you mean 'one'?)"),
        (("export", "run", "out", "--client", "one", "--format", "gguf"), "--format: no format 'gguf'"),
        (("export", "run", "models", "--client", "one"), "models: already exists"),
        (("predict", "run", "one.jsonl", "--client", "on"), "run: no client 'on' (did you mean 'one'?)"),
        (("predict", "run", "federation.toml", "--client", "one"), "federation.toml: unknown file ending '.toml'"),
        (("predict", "run", "one.jsonl", "--client", "one", "--out", "a.txt"), "a.txt: its ending is not"),
        (("predict", "run", "bad.csv", "--client", "one"), "bad.csv:2: no field 'words' (did you mean 'word'?)"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_before_torch_is_imported(stored, arguments, message):
    (stored / "bad.csv").write_text("word\ngood film\n")
    done = subprocess.run(
        [sys.executable, "-c", MISSING, *arguments],
        env=federations.environment(),
        cwd=stored,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"h2tune: {message}") and done.stderr.count("\n") == 1


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


def test_a_score_that_is_no_accuracy_has_its_name(capsys):
    event = {
        "event": "evaluated",
        "client": "one",
        "round": 0,
        "stage": "trained",
        "accuracy": 0.5,
        "loss": 1.0,
    }
    assert "· accuracy 0.500 ·" in line_of(event)
    assert "· ROUGE-L 0.500 ·" in line_of(event | {"measure": "ROUGE-L"})
    events = [event | {"measure": "ROUGE-L"}, event | {"client": "two"}]
    terminal().print(results_table(accuracy_table(events, {"one": 0, "two": 0.5})))
    text = capsys.readouterr().out
    assert "one (ROUGE-L)" in text and "two (" not in text


def test_a_closing_tag_in_an_event_is_no_markup():
    stream = io.StringIO()
    console = Console(file=stream, markup=False, highlight=False, emoji=False, force_terminal=True)
    with TerminalDisplay(console) as display:
        display.on_turn("trained", 0, "[/y]")
        display.on_step("[/y]", 1, "specific", 0.5)
        display.on_event({"event": "client_failed", "client": "one", "round": 0, "reason": "no [/y] file"})
    assert "one failed in round 1: no [/y] file" in stream.getvalue()


def test_where_there_is_no_bar_a_line_says_whose_model_reads_the_public_texts(capsys):
    with TerminalDisplay(terminal()) as display:
        for client in ("one", ""):
            for done in (0, 16, 32):
                display.on_reading(client, done, 32)
    lines = ["  one · reading 32 public texts", "  the public encoder · reading 32 public texts"]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_bar_shows_texts_while_they_are_read_and_steps_after():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=120)
    with TerminalDisplay(console) as display:
        display.on_total(2)
        display.on_reading("one", 0, 32)
        display.on_reading("one", 16, 32)
        display.bar.refresh()
        assert "16/32 texts" in stream.getvalue()
        display.on_reading("one", 32, 32)
        stream.truncate(0)
        display.bar.refresh()
    assert "texts" not in stream.getvalue() and "0/2 steps" in stream.getvalue()


@pytest.mark.parametrize("command", [["run"], ["compare", "--methods", "local,h2tune"]])
def test_the_first_line_comes_before_anything_heavy_is_imported(tmp_path, command):
    file = federations.write(tmp_path, federations.federation(tmp_path))
    ended = run_python("-c", FIRST_LINE, command[0], str(file), *command[1:], "--out", str(tmp_path / "out"))
    assert ended.stderr == "2 clients, without torch\n"


@pytest.mark.parametrize(("number", "text"), [(0, "0 rounds"), (1, "1 round"), (2, "2 rounds")])
def test_a_number_has_its_plural(number, text):
    assert counted(number, "round") == text


def test_a_run_of_one_round_is_announced_in_the_singular(capsys):
    client = {"name": "one", "family": "llama", "rank": 4, "task": "films"}
    event = {"event": "run_started", "name": "tiny", "rounds": 1, "clients": [client]}
    TerminalDisplay(terminal()).on_event(event)
    assert "tiny: 1 round, one (llama, rank 4, films)" in capsys.readouterr().out


def test_rows_that_are_not_used_are_said_before_training(capsys):
    client = {"name": "one", "family": "llama", "rank": 4, "task": "films", "examples": {"train": 128}}
    event = {"event": "run_started", "name": "tiny", "rounds": 2}
    clients = [client | {"unused": 19_672, "repeated": 12}, client | {"name": "two"}]
    TerminalDisplay(terminal()).on_event(event | {"clients": clients})
    text = capsys.readouterr().out
    assert "one: 128 examples to train on (data.train); 19,672 more are not used" in text
    assert "one: 12 examples repeat a prompt and do not count" in text and "  two:" not in text


def test_tables_of_80_columns_keep_a_long_name_whole():
    name = "st-elisabeth-university-hospital-of-north-rhine-westphalia-ward-07"
    row = {"majority": 0.5, "before": 0.5, "alone": None, "federated": 0.75}
    client = {"name": name, "family": "llama", "task": name, "rank": 16, "trainable_parameters": 10**7,
              "bytes_up": 10**6, "bytes_down": [10**6], "basis_bytes": [0, 0]}  # fmt: skip
    tables = [results_table([{"client": name, **row}]), forecast._table(SimpleNamespace(clients=[client]))]
    for table in tables:
        stream = io.StringIO()
        Console(file=stream, width=80).print(table)
        lines = stream.getvalue().splitlines()
        cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
        assert "".join(cells) == name and max(map(len, lines)) <= 80
