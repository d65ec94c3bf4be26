"""Every command in a process of its own: what it prints, and errors of the file system in one line."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time

import pytest
import torch
from helpers import federations
from safetensors.torch import save_file
from typer.core import TyperGroup
from typer.testing import CliRunner

from h2tune.cli import ending, main


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    file = federations.write(folder, federations.federation(folder))
    done = federations.h2tune("run", str(file), "--out", str(folder / "run"))
    return folder, file, done


def test_a_run_prints_nothing_but_what_h2tune_says(ready):
    _, _, done = ready
    assert done.stderr == "" and "Adapters, events and report" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "FILE"),
        ("run", "FILE", "--out", "RUN", "--resume"),
        ("evaluate", "RUN"),
        ("report", "RUN"),
        ("predict", "RUN", "DIR/one.jsonl", "--client", "two"),
        ("export", "RUN", "OUT/lora", "--client", "one"),
        ("export", "RUN", "OUT/merged", "--client", "two", "--format", "merged"),
        ("compare", "FILE", "--methods", "local", "--seeds", "1", "--out", "OUT/compared"),
        ("assets", "list"),
    ],
    ids=lambda arguments: " ".join(arguments[:1]),
)
def test_a_command_that_works_prints_nothing_on_stderr(ready, tmp_path, arguments):
    folder, file, _ = ready
    places = {"DIR": str(folder), "FILE": str(file), "RUN": str(folder / "run"), "OUT": str(tmp_path)}
    words = [
        "/".join(places.get(part, part) for part in word.split("/"))
        if word.isupper() or "/" in word
        else word
        for word in arguments
    ]
    assert federations.h2tune(*words).stderr == ""


def line(*arguments: str) -> str:
    """Return the one line that a command prints before it ends with status 2."""
    done = federations.h2tune(*arguments, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("h2tune: "), done
    return done.stderr


def test_errors_of_the_file_system_are_one_line(ready, tmp_path):
    folder, _, _ = ready
    assert f"{tmp_path}: Is a directory. Name a file" in line(
        "report", str(folder / "run"), "--out", str(tmp_path)
    )
    (tmp_path / "file").write_text("")
    assert "Choose another name" in line(
        "report", str(folder / "run"), "--out", str(tmp_path / "file" / "report.html")
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_is_one_line(ready, tmp_path):
    (tmp_path / "read-only").mkdir(mode=0o500)
    assert "write" in line(
        "report", str(ready[0] / "run"), "--out", str(tmp_path / "read-only" / "report.html")
    )


def test_a_full_disk_is_one_line_that_says_how_to_go_on(capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "run/events.jsonl")

    assert ending.ended(full) == 2
    said = capsys.readouterr().err
    assert said.startswith("h2tune: run/events.jsonl: No space left on device. Free some space")
    assert "--resume" in said and said.count("\n") == 1


def test_a_full_disk_is_one_line_whatever_library_meets_it(capsys, tmp_path):
    def copy_fails():
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])

    def weights_fail():
        save_file({"w": torch.zeros(4)}, tmp_path / "no" / "w.safetensors")

    assert ending.ended(copy_fails) == 2
    assert "No space left on device. Free some space" in capsys.readouterr().err
    assert ending.ended(weights_fail) == 2
    assert "No such file or directory. Check the path" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        ending.ended(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("command", "words"), [("run", "--resume"), ("compare", "same command"), ("report", "")]
)
def test_an_interrupted_command_says_how_to_go_on(monkeypatch, command, words):
    def interrupted(ctx):
        ctx.invoked_subcommand = command
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperGroup, "invoke", lambda self, ctx: interrupted(ctx))
    done = CliRunner().invoke(main.app, [command, "x"])
    assert done.exit_code == 130
    assert done.stderr.startswith("h2tune: interrupted") and words in done.stderr


def heard() -> None:
    """Let a child hear SIGINT, which shells ignore for what they start in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_in_training_says_how_to_go_on_and_the_run_does(tmp_path):
    content = federations.federation(tmp_path, train={"local_steps": 400})
    file, run = federations.write(tmp_path, content), tmp_path / "run"
    command = federations.command("run", str(file), "--out", str(run))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=federations.environment(), preexec_fn=heard)  # noqa: PLW1509  # fmt: skip
    while process.poll() is None and "run_started" not in _text(run / "events.jsonl"):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and said.count("\n") == 1
    assert said.startswith("h2tune: interrupted. The same command with --resume goes on")


def _text(file):
    return file.read_text() if file.exists() else ""


def test_there_must_be_a_run_to_resume(ready, tmp_path):
    assert "no run to resume" in line("run", str(ready[1]), "--out", str(tmp_path / "none"), "--resume")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [(None, "cannot be read"), ('{"words": "a b"}\n', "no field 'label'"), ("{\n", "malformed JSON")],
)
def test_inspect_looks_at_the_first_rows(tmp_path, rows, words):
    file = federations.write(tmp_path, federations.federation(tmp_path))
    place = tmp_path / "one.jsonl"
    place.unlink() if rows is None else place.write_text(rows)
    assert words in line("inspect", str(file))
