"""Examples in README and docs work: TOML is validated, Python runs on tiny models, commands are parsed or run."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import tomli_w
import typer
from helpers import federations, tiny
from typer.testing import CliRunner

import h2tune
from h2tune import assets, config
from h2tune.cli.main import app
from h2tune.flower.policy import Policy

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
)
WALKS = ["README.md", "docs/tutorial.md"]
"""Pages whose blocks are carried out from the first to the last."""
OTHER_PROGRAMS = {"source", "apt", "git", "hf", "ln", "llama-server", "ollama", "vllm"}
LLAMA_CPP = {
    "llama.cpp/convert_hf_to_gguf.py",
    "llama.cpp/convert_lora_to_gguf.py",
}  # tests/helpers/llamacpp.py
JOURNEYS = "docs/journeys.md"  # tests/journeys run what is typed there, in a shell
OTHER_PACKAGES = ["sentencepiece"]
COMMAND = typer.main.get_command(app)


def blocks(page: str, *languages: str) -> list[str]:
    text = (ROOT / page).read_text()
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def typed(page: str) -> Iterator[list[str]]:
    """Yield the words of every line that a reader types."""
    for block in blocks(page, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                yield shlex.split(line[2:], comments=True)


def parse(arguments: list[str]) -> None:
    """Parse a command as `h2tune` does, without running it."""
    command: click.Command = COMMAND
    while isinstance(command, click.Group) and not arguments[0].startswith("-"):
        name, found, arguments = command.resolve_command(click.Context(command), arguments)
        assert found is not None, name
        command = found
    if arguments != ["--version"]:
        command.make_context("h2tune", arguments)


def completed(raw: dict[str, Any]) -> dict[str, Any]:
    """Return an excerpt of a federation file with the name and the clients that it leaves out."""
    wanted = max(3, raw.get("server", {}).get("min_clients", 0))
    clients = list(raw.get("client", []))
    names = [client["name"] for client in clients]
    for number in range(wanted - len(clients)):
        clients.append({"name": f"client-{number}", "model": "./model", "task": "tweets"})
    assert len(set(names)) == len(names)
    return {"name": "excerpt", **raw, "client": clients}


def on_tiny_models(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a federation file with tiny models, data and public texts, and few steps."""
    tiny_file = federations.on_anchored_basis(
        folder, **{key: value for key, value in raw["server"].items() if key != "rounds"}
    )
    for client, small in zip(raw["client"], tiny_file["client"], strict=True):
        client |= {"model": small["model"], "task": small["task"], "rank": small["rank"], "local_steps": 1}
    raw["server"] |= {"rounds": 1}
    raw["data"] = {"train": 8, "test": 8}
    return {**raw, "basis": raw.get("basis", {}) | {"texts": tiny_file["basis"]["texts"], "count": 40}}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")])
def test_federation_files_and_excerpts_are_valid(page):
    for block in blocks(page, "toml"):
        content = tomllib.loads(block)
        if "policy" in content:  # of a member's file
            Policy.model_validate(content.pop("policy"))
        config.parse(completed(content), page)


@pytest.mark.parametrize("page", [page for page in PAGES if page != JOURNEYS and list(typed(page))])
def test_what_a_reader_types_is_a_command(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for program, *arguments in typed(page):
        if program == "h2tune":
            parse(arguments)
        elif program == "make":
            assert set(arguments) <= targets, arguments
        elif program == "pip":
            asked = re.findall(r"h2tune\[(\w+)\]", " ".join(arguments))
            assert set(asked) <= extras.keys(), arguments
            assert asked or arguments == ["install", *OTHER_PACKAGES], arguments
        elif program == "python":
            known = arguments[0] in LLAMA_CPP or f"```python\n# {arguments[0]}\n" in (ROOT / page).read_text()
            assert known or (ROOT / arguments[0]).exists(), arguments
        else:
            assert program in OTHER_PROGRAMS, program


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_and_their_options_exist(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for span in re.findall(r"`h2tune ([^`]+)`", text):
        command: click.Command = COMMAND
        for word in span.split():
            if isinstance(command, click.Group) and re.fullmatch(r"[a-z]+", word):
                assert word in command.commands, span
                command = command.commands[word]
            elif word.startswith("--") and word != "--help":
                assert word in [name for option in command.params for name in option.opts], span


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def execute(page: str, folder: Path, **names: Any) -> dict[str, Any]:
    """Run the Python of a page in one namespace; a block that begins with a file's name is written there."""
    for block in blocks(page, "python"):
        if named := re.match(r"# (\w+\.py)\n", block):
            (folder / named[1]).write_text(block)
        else:
            exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", WALKS)
def test_a_reader_who_does_what_a_page_says_gets_there(page, here, monkeypatch):
    raw = on_tiny_models(tomllib.loads(blocks(page, "toml")[0]), here)
    (here / "federation.toml").write_text(tomli_w.dumps(raw))
    (here / "new.csv").write_text("words\ngood film\n")  # rows that the page predicts
    for program, *arguments in typed(page):
        if program == "h2tune":
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, (arguments, done.output, done.exception)
    exported = {client["name"]: Path(client["model"]) for client in raw["client"]}
    monkeypatch.setattr(assets, "fetch", lambda name: exported["films"])
    shutil.rmtree(here / "runs")
    names = execute(page, here, model=tiny.causal("llama", width=64))
    assert names["run"].table and (names["run"].folder / "report.html").exists()


def test_code_of_ones_own_runs_as_the_page_says(here):
    clients = [(name, "llama", 4) for name in ("one", "two", "three")]
    content = federations.federation(here, clients, server={"rounds": 2}, train={"local_steps": 1})
    federations.write(here, content)
    run = execute("docs/own-method.md", here)["run"]
    aggregated = [event for event in run.events if event["event"] == "aggregated"]
    assert len(aggregated) == 2 and all(event["change"] > 0 for event in aggregated)
    assert aggregated[0]["groups"] == [["one", "three", "two"]]
    rule, data, monitor = (tomllib.loads(block) for block in blocks("docs/own-method.md", "toml"))
    content["server"] |= rule["server"]
    content |= monitor
    content["train"] |= {"local_steps": 3}  # T has no gradient before B has moved
    content["client"][0] |= {"task": data["client"][0]["task"] | {"max_new_tokens": 1}}
    federations.write(here, content)
    ran = h2tune.run("federation.toml", out="runs/own")
    assert all(event["change"] > 0 for event in ran.events if event["event"] == "aggregated")


def test_a_federation_in_python_runs_as_the_page_says(here):
    federations.federation(here)
    names = execute("docs/reference/python.md", here)
    assert list(names["scores"].columns) == ["films", "shop"] and list(names["scores"].index) == [-1, 0]


@pytest.mark.real
def test_the_tutorial_runs_as_it_is_written(here):
    (here / "federation.toml").write_text(blocks("docs/tutorial.md", "toml")[0])
    for program, *arguments in typed("docs/tutorial.md"):
        if program == "h2tune":
            federations.h2tune(*arguments)
    execute("docs/tutorial.md", here)
