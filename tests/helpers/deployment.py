"""Real SuperLink and SuperNode processes on loopback, for tests of federations across machines."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import tomli_w

from helpers import federations

BIN = Path(sys.executable).parent
PATCHED = Path(__file__).parent / "patched"
FORKED = PATCHED / "forked.py"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def arguments_of(pid: int) -> str:
    """Return the name and the command line of a process; a forked one has the command line of its parent."""
    with contextlib.suppress(OSError):
        name, line = (Path(f"/proc/{pid}/{file}").read_text() for file in ("comm", "cmdline"))
        return name.strip() + " " + line.replace("\0", " ")
    return ""


def descendants(pid: int) -> list[int]:
    """Return the processes below a process, of all generations, without those that have ended (zombies)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    below = [pid]
    for parent in below:
        below += children.get(parent, [])
    return below[1:]


def patching(*patches: Path) -> dict[str, str]:
    """Return the environment of a process in which files of `patched` patch modules."""
    path = os.pathsep.join([str(PATCHED), federations.environment()["PYTHONPATH"]])
    return {"PYTHONPATH": path, "PATCH": os.pathsep.join(map(str, patches))}


def locked(file: Path) -> bool:
    """Return whether a process holds a lock on a file, without taking one."""
    inode = f":{file.stat().st_ino} "
    return any(inode in line for line in Path("/proc/locks").read_text().splitlines())


class Deployment:
    """The processes of a federation; each has a log in `logs/`, and all are stopped at the end.

    Args:
        folder: Where the parties' folders are.
        port: Port of the SuperLink on the loopback interface.
        secure: Whether there is TLS and authentication of nodes.
        public: Port of the reverse proxy, if there is one.
    """

    host = "127.0.0.1"
    """Address at which members reach the coordinator."""
    bind = "127.0.0.1"
    """Address at which the SuperLink listens."""

    def __init__(self, folder: Path, port: int, *, secure: bool = False, public: int | None = None) -> None:
        self.folder, self.secure = folder, secure
        self.home = folder / "coordinator"
        self.port, self.public = port, public or port
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "logs").mkdir(exist_ok=True)

    def environment(self, home: Path) -> dict[str, str]:
        return {
            **federations.environment(),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(home / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def place(self, name: str) -> list[str]:
        """Return the prefix of a command that runs it on the machine of a party."""
        return []

    def listening(self, port: int) -> bool:
        """Return whether something answers at a port of the coordinator's loopback interface."""
        return listening(port)

    def start(
        self, name: str, arguments: Sequence[str], home: Path, *patches: Path | None
    ) -> subprocess.Popen[bytes]:
        """Start a process of a party, optionally with files of `patched`."""
        named = [patch for patch in patches if patch is not None]
        log = (self.folder / "logs" / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [*self.place(name), *arguments],
            cwd=home,
            env=self.environment(home) | (patching(*named) if named else {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a group of its own, so that its children end with it
        )
        log.close()
        self.processes[name] = process
        return process

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def run_log(self) -> str:
        """Return the output of the ServerApp, as `flwr log` shows it; it is not in the SuperLink's output."""
        file = self.home / "flwr" / "state.db"
        if not file.exists():
            return ""
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            return "".join(
                text for (text,) in database.execute("SELECT log FROM task_logs ORDER BY timestamp")
            )

    def ended(self) -> bool:
        """Return whether the run is finished, or its ServerApp failed."""
        log = self.home / "run" / "events.jsonl"
        done = log.exists() and '"run_finished"' in log.read_text()
        return done or "raised an exception" in self.run_log()

    def superlink(self, patch: Path | None = None) -> None:
        arguments = ["flower-superlink", "--host", self.bind, "--port", str(self.port)]
        arguments += ["--database", str(self.home / "flwr" / "state.db")]
        if self.secure:
            tls = self.home / "tls"
            arguments += ["--enable-supernode-auth", "--ssl-ca-certfile", str(tls / "ca.crt")]
            arguments += ["--ssl-certfile", str(tls / "server.crt"), "--ssl-keyfile", str(tls / "server.key")]
        else:
            arguments.append("--insecure")
        process = self.start("superlink", arguments, self.home, patch)
        self.until(lambda: self.listening(self.port) or process.poll() is not None, 90)
        assert process.poll() is None, self.log("superlink")

    def proxy(self) -> None:
        """Start nginx with the kit's configuration."""
        process = self.start(
            "nginx", ["nginx", "-p", str(self.home), "-c", "nginx.conf", "-g", "daemon off;"], self.home
        )
        self.until(lambda: self.listening(self.public) or process.poll() is not None, 30)
        assert process.poll() is None, self.log("nginx")

    def supernode(
        self,
        name: str,
        *,
        key: Path | None = None,
        trusted: bool = True,
        plain: bool = False,
        label: str = "",
        patch: Path | None = None,
        forked: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start a member's SuperNode.

        Args:
            name: The member.
            key: Another key than its own.
            trusted: Whether it has the CA's certificate.
            plain: Whether it connects without TLS.
            label: Another name of the process.
            patch: A file of `patched`.
            forked: Whether the processes of its messages are forked; see `patched/forked.py`.
        """
        home = self.folder / "members" / name
        arguments = ["flower-supernode", "--superlink", f"{self.host}:{self.public}"]
        arguments += ["--host", "127.0.0.1", "--port", str(free_port())]
        arguments += ["--node-config", f'h2tune="{home / "member.toml"}"']
        if self.secure and not plain:
            arguments += ["--root-certificates", str(home / "tls" / "ca.crt")] if trusted else []
            arguments += ["--auth-supernode-private-key", str(key or home / "node")]
        else:
            arguments.append("--insecure")
        return self.start(label or name, arguments, home, patch, FORKED if forked else None)

    def worker(self, name: str, patch: Path | None = None) -> None:
        """Start a worker beside a member's SuperNode, and wait until it is ready."""
        home, label = self.folder / "members" / name, f"{name}-worker"
        process = self.start(label, ["h2tune", "deploy", "worker", "member.toml"], home, patch)
        self.until(lambda: "ready:" in self.log(label) or process.poll() is not None, 300)
        assert process.poll() is None, self.log(label)

    def flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.place("flwr"), "flwr", *arguments],
            cwd=self.home,
            env=self.environment(self.home),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def register(self, name: str) -> None:
        done = self.flwr(
            "supernode", "register", str(self.home / "keys" / f"{name}.pub"), "h2tune", "--name", name
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self) -> None:
        file = self.home / "coordinator.toml"
        done = self.flwr("run", "app", "h2tune", "--run-config", f'coordinator="{file}"')
        assert done.returncode == 0, done.stdout + done.stderr

    def until(self, condition, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.tails()
            time.sleep(0.2)

    def tails(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.log"))
        texts = [(log.name, log.read_text(errors="replace")) for log in logs] + [("run", self.run_log())]
        return "\n".join(f"--- {name}\n{text[-2500:]}" for name, text in texts)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process and all processes below it."""
        process = self.processes.pop(name)
        for pid in [process.pid, *descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill_child(self, name: str, command: str) -> None:
        """Kill the processes that run a command, below one that was started here."""
        matching = [pid for pid in descendants(self.processes[name].pid) if command in arguments_of(pid)]
        assert matching, self.tails()
        for pid in matching:
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name, signal.SIGTERM if self.processes[name].poll() is None else signal.SIGKILL)


@contextlib.contextmanager
def deployment(
    folder: Path,
    port: int,
    *,
    secure: bool = False,
    public: int | None = None,
    kind: type[Deployment] = Deployment,
) -> Iterator[Deployment]:
    """Yield a deployment whose processes end with the block."""
    parties = kind(folder, port, secure=secure, public=public)
    try:
        yield parties
    finally:
        parties.stop()


def lay_out(
    folder: Path,
    content,
    port: int,
    *,
    secure: bool = False,
    public: int | None = None,
    host: str = "127.0.0.1",
    **coordinator,
) -> Path:
    """Write the kit with changes to the coordinator's file, and return its folder."""
    import tomllib

    from h2tune.config import load
    from h2tune.flower.deploy import kit

    federation = load(federations.write(folder, content))
    folder = folder / "parties"
    opened = public or free_port()
    kit.init(federation, folder, host=host, port=opened, control_port=port)
    if public is None:  # no proxy: members reach the SuperLink itself
        for file in folder.glob("members/*/member.toml"):
            file.write_text(file.read_text().replace(f"{host}:{opened}", f"{host}:{port}"))
    file = folder / "coordinator" / "coordinator.toml"
    changed = tomllib.loads(file.read_text()) | coordinator
    if not secure:
        connection = {"default": "h2tune", "h2tune": {"address": f"127.0.0.1:{port}", "insecure": True}}
        (folder / "coordinator" / "flwr" / "config.toml").write_text(tomli_w.dumps({"superlink": connection}))
        changed["member"] = [{k: v for k, v in m.items() if k != "key"} for m in changed["member"]]
    file.write_text(tomli_w.dumps(changed))
    return folder


def scores(events):
    """Return accuracy and loss by client, round and stage."""
    return {
        (e["client"], e["round"], e["stage"]): (e["accuracy"], e["loss"])
        for e in events
        if e["event"] == "evaluated"
    }


def assert_equal(run: Path, other: Path, rounds: int = 3) -> None:
    """Assert that the server's tensors of every round and all scores are equal."""
    import pytest
    import torch
    from safetensors.torch import load_file

    from h2tune.events import read_events

    for number in range(1, rounds + 1):
        one, two = (load_file(r / f"server/round-{number:04d}/state.safetensors") for r in (run, other))
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)
    left, right = (scores(read_events(r / "events.jsonl")) for r in (run, other))
    assert left and left.keys() == right.keys()
    for key in left:
        assert left[key] == pytest.approx(right[key], abs=1e-6)
