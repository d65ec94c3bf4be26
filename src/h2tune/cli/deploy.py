"""`h2tune deploy`: folders for the parties of a federation across machines, and checks on a client's machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from h2tune.cli.paths import ClientFile, CoordinatorFile, FederationFile, check_file
from h2tune.errors import H2TuneError, counted

MISSING = "not installed. Install it with: pip install 'h2tune[flower]'"

deploy_app = typer.Typer(help="Federations across machines, with Flower.", no_args_is_help=True)


@deploy_app.command("init")
def deploy_init(
    file: FederationFile,
    out: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    host: Annotated[str, typer.Option(help="Name or address at which clients reach the coordinator.")],
    port: Annotated[int, typer.Option(help="Port on which clients connect.")] = 9443,
    control_port: Annotated[
        int, typer.Option(help="Port of Flower's control API on the loopback interface.")
    ] = 9091,
) -> None:
    """Write a folder for each party: its file, certificates, key, and the commands to run."""
    check_file(file)
    from h2tune.config import load
    from h2tune.flower.deploy.kit import init

    for folder in init(load(file), out, host=host, port=port, control_port=control_port):
        typer.echo(f"{folder}: see README.md there")


@deploy_app.command("add-member")
def deploy_add_member(
    file: FederationFile,
    parties: Annotated[Path, typer.Argument(help="Folder that deploy init wrote.", metavar="OUT")],
    name: Annotated[str, typer.Argument(help="Client of the file that becomes a member.", metavar="NAME")],
) -> None:
    """Write the folder of a new member and admit it; the folders of the others stay as they are."""
    check_file(file)
    check_file(parties / "coordinator" / "coordinator.toml")
    from h2tune.config import load
    from h2tune.flower.deploy.members import add_member

    typer.echo(f"{add_member(load(file), parties, name)}: see README.md there")
    typer.echo("It may join when the coordinator is started again: h2tune deploy start coordinator.toml")


@deploy_app.command("renew")
def deploy_renew(file: CoordinatorFile) -> None:
    """Replace the server's certificate, and its CA if that ends before the new certificate would."""
    check_file(file)
    from h2tune.flower.deploy.renewal import renew

    for line in renew(file):
        typer.echo(line)


@deploy_app.command("check")
def deploy_check(file: ClientFile) -> None:
    """Pre-flight checks on a client's machine: model, data, memory and connection."""
    check_file(file)
    from h2tune.flower.member.preflight import check

    failed = [] if installed() else ["flwr"]
    typer.echo("ok    flwr" if installed() else f"FAIL  flwr: {MISSING}")
    for result in check(file):
        typer.echo(f"{'ok  ' if result.passed else 'FAIL'}  {result.subject}: {result.detail}")
        failed += [] if result.passed else [result.subject]
    if failed:
        raise H2TuneError(f"not ready: {', '.join(failed)}", where=str(file))


@deploy_app.command("start")
def deploy_start(
    file: Annotated[
        Path, typer.Argument(help="coordinator.toml or member.toml.", metavar="COORDINATOR.toml|MEMBER.toml")
    ],
) -> None:
    """Run all processes of a party; the coordinator's end with the run, and all with Ctrl-C."""
    check_file(file)
    import signal
    import sys

    if not installed():
        raise H2TuneError(MISSING, where="flwr")
    from h2tune.flower.deploy.start import start

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that all processes end
    try:
        start(file, typer.echo)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues")
        raise typer.Exit(130) from None


@deploy_app.command("settings")
def deploy_settings(file: CoordinatorFile) -> None:
    """Print the checksum of a federation's settings, which members may put into their policy."""
    check_file(file)
    from h2tune.flower.load import load_coordinator
    from h2tune.flower.policy import checksum

    typer.echo(checksum(load_coordinator(file).settings))


@deploy_app.command("peers")
def deploy_peers(file: CoordinatorFile) -> None:
    """Print all members' public keys as the file peers.toml, which secure aggregation needs at each member."""
    check_file(file)
    import tomli_w

    from h2tune.flower.load import load_coordinator
    from h2tune.flower.peers import peers_content

    typer.echo(tomli_w.dumps(peers_content(load_coordinator(file))), nl=False)


@deploy_app.command("verify")
def deploy_verify(
    folder: Annotated[
        Path, typer.Argument(help="A member's folder of state, or the coordinator's run folder.")
    ],
    key: Annotated[
        Path | None,
        typer.Option(help="Public key that must have signed every entry, as ssh-keygen wrote it."),
    ] = None,
) -> None:
    """Check an audit log: that no line was altered, left out or inserted, and by whose key it is signed."""
    from h2tune.flower import audit

    log = folder / audit.FILE if folder.is_dir() else folder
    if key is not None:
        check_file(key)
    found = audit.verify(log, key.read_bytes() if key else b"")
    if found.faults and not found.entries:
        raise H2TuneError(
            "is no audit log: no line of it is an entry",
            where=str(log),
            remedy=f"Name a member's folder of state, the coordinator's run folder, or its {audit.FILE}",
        )
    faults = [
        *found.faults,
        *(audit.missing_events(folder / "events.jsonl", found) if folder.is_dir() else []),
    ]
    for fault in faults:
        typer.echo(f"FAIL  {fault}")
    signed = f", {found.signed} signed with {key}" if key else ""
    refused, withdrawn = (
        sum(e.get("kind") == kind for e in found.entries) for kind in ("refused", "withdrawn")
    )
    typer.echo(
        f"entries {len(found.entries)}{signed}, refusals {refused}, events withdrawn by restarts {withdrawn}"
    )
    if faults:
        raise H2TuneError(counted(len(faults), "fault"), where=str(log))


@deploy_app.command("take-back")
def deploy_take_back(
    file: CoordinatorFile,
    from_round: Annotated[int, typer.Option(min=0, metavar="N", help="First round to take back, from 0.")],
) -> None:
    """Take rounds of a run back. `flwr run` then goes on from before round N, and the members go back with it."""
    check_file(file)
    from h2tune.flower.coordinator.take_back import take_back_rounds
    from h2tune.flower.load import load_coordinator

    coordinator = load_coordinator(file)
    take_back_rounds(coordinator, from_round)
    typer.echo(f"{coordinator.folder}: flwr run goes on with round {from_round}")


@deploy_app.command("worker")
def deploy_worker(file: ClientFile) -> None:
    """Keep libraries and model in memory beside the SuperNode, so that rounds start at once. Stop with Ctrl-C."""
    check_file(file)
    import signal
    import sys

    if not installed():
        raise H2TuneError(MISSING, where="flwr")
    from h2tune.flower.member.worker import serve

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the socket is removed
    try:
        serve(file, typer.echo)
    except KeyboardInterrupt:
        typer.echo("stopped")


def installed() -> bool:
    """Return whether Flower is installed; nothing is imported."""
    return importlib.util.find_spec("flwr") is not None
