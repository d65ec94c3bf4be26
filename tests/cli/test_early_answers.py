"""Every command that looks at a file answers in one line before a heavy library is imported, where the file is bad."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
import tomli_w
import typer
from helpers import federations

from h2tune import config
from h2tune.cli import main
from h2tune.flower.deploy import contents

HEAVY = ("torch", "transformers", "peft", "flwr", "datasets", "sklearn", "scipy.stats")
CHILD = f"""
import pathlib, sys
sys.argv = ["h2tune", *sys.argv[1:]]
from h2tune.cli.main import main
try:
    main()
finally:
    pathlib.Path("imported.txt").write_text(" ".join({set(HEAVY)!r} & sys.modules.keys()))
"""
BAD = "is not valid TOML"
WRONG = [
    ("run", "bad.toml", BAD),
    ("inspect", "bad.toml", BAD),
    ("compare", "bad.toml --methods local", BAD),
    ("compare", "federation.toml --methods locl", "no method is called 'locl' (did you mean 'local'?)"),
    ("compare", "federation.toml --methods local --against h2tune", "'h2tune' is not one of the methods"),
    ("compare", "federation.toml --methods local --format tex", "no format 'tex'"),
    ("compare", "federation.toml --methods local --split tset", "data.evaluate"),
    ("report", "nowhere", "nowhere/events.jsonl: cannot be read"),
    ("report", "broken", "events.jsonl, line 1: this line is not an event"),
    ("evaluate", "broken", BAD),
    ("predict", "broken rows.csv --client one", BAD),
    ("predict", "run nowhere.csv --client one", "nowhere.csv: no such file"),
    ("export", "broken out --client one", BAD),
    ("merge", "broken out --client one", BAD),
    ("merge", "run out --client on", "no client 'on' (did you mean 'one'?)"),
    ("assets list", None, ""),
    ("assets fetch", "smolm", "no demo asset is called 'smolm'"),
    ("deploy init", "bad.toml out --host localhost", BAD),
    ("deploy init", "federation.toml run --host localhost", "run: exists already"),
    ("deploy init", "federation.toml out --host https://x", "'https://x' is not a name or an address"),
    ("deploy add-member", "federation.toml nowhere one", "nowhere/coordinator/coordinator.toml: no such file"),
    ("deploy add-member", "federation.toml parties one", "'one': is a member already"),
    ("deploy renew", "bad.toml", BAD),
    ("deploy renew", "parties/coordinator/coordinator.toml", "address"),
    ("deploy check", "bad.toml", BAD),
    ("deploy check", "member.toml", "member.toml: not ready: data, connection"),
    ("deploy start", "bad.toml", BAD),
    ("deploy start", "federation.toml", "neither a coordinator's file nor a member's"),
    ("deploy settings", "bad.toml", BAD),
    ("deploy settings", "member.toml", "member.toml: unknown key 'federation'"),
    ("deploy peers", "bad.toml", BAD),
    ("deploy peers", "parties/coordinator/coordinator.toml", "'one' has no key"),
    ("deploy verify", "nowhere", "nowhere: cannot be read"),
    ("deploy verify", "bad.toml", "bad.toml: is no audit log: no line of it is an entry"),
    ("deploy take-back", "bad.toml --from-round 0", BAD),
    ("deploy take-back", "parties/coordinator/coordinator.toml --from-round 0", "there is no run to take rounds"),
    ("deploy worker", "bad.toml", BAD),
    ("deploy worker", "parties/coordinator/coordinator.toml", "unknown key"),
]  # fmt: skip
"""A command, its arguments, and what is said; without arguments it looks at no file."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a federation, and files that are broken in one way each."""
    folder = tmp_path_factory.mktemp("early")
    file = federations.write(folder, federations.federation(folder))
    federation = config.load(file)
    (folder / "bad.toml").write_text("name = ")
    (folder / "rows.csv").write_text("words\ngood film\n")
    for name in ("run", "broken"):
        (folder / name / "clients" / "one" / "adapter").mkdir(parents=True)
    (folder / "run" / "config.toml").write_text(tomli_w.dumps(config.dump(federation)))
    (folder / "broken" / "config.toml").write_text("name = ")
    (folder / "broken" / "events.jsonl").write_text("hello\n")
    home = folder / "parties" / "coordinator"
    home.mkdir(parents=True)
    (home / "coordinator.toml").write_text(tomli_w.dumps(contents.coordinator_content(federation)))
    (one,) = (client for client in federation.client if client.name == "one")
    member = tomllib.loads(tomli_w.dumps(contents.member_content(federation, one)))
    member["client"]["task"]["file"] = "gone.jsonl"
    (folder / "member.toml").write_text(tomli_w.dumps(member))
    return folder


@pytest.mark.parametrize(("command", "arguments", "message"), [case for case in WRONG if case[1]])
def test_a_bad_file_is_one_line_before_a_heavy_library_is_imported(folder, command, arguments, message):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *command.split(), *arguments.split()],
        env=federations.environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("h2tune: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert (folder / "imported.txt").read_text() == ""


def test_every_command_is_in_the_table():
    def names(group, before=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from names(command, (*before, name))
            else:
                yield " ".join((*before, name))

    assert set(names(typer.main.get_command(main.app))) == {command for command, *_ in WRONG}
