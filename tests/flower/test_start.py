"""One command for all processes of a party: order, logs, failures and ends. Flower's programs are stand-ins here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from helpers import deployment, federations

from h2tune.errors import H2TuneError
from h2tune.flower.deploy import credentials, flwr_commands, ports, start, supervisor
from h2tune.flower.deploy.registration import register
from h2tune.flower.deploy.supervisor import Group

SERVER = """
import socket, sys, time
print("listening", flush=True)
end = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""
FLWR = """
import json, sys
words = sys.argv[1:]
open("asked", "a").write(json.dumps(words) + "\\n")
if words[:2] == ["supernode", "register"]:
    print(json.dumps({"success": True, "node-id": 7}))
elif words[0] == "run":
    print("Note", json.dumps({"success": True, "run-id": "5"}))
elif words[0] == "log":
    print("\\x1b[92mINFO \\x1b[0m:      h2tune: round 1: alpha", flush=True)
    print("INFO :      Start `flwr-serverapp` process", flush=True)
else:
    print(json.dumps({"success": True, "runs": [{"status": "STATUS"}]}))
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def group(tmp_path):
    with Group(tmp_path, os.environ) as made:
        yield made


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.fixture
def coordinator(tmp_path, monkeypatch):
    """A coordinator's folder; its programs are stand-ins, and the status of its run can be set."""
    address = {"host": "127.0.0.1", "port": ports.free_port(), "control_port": ports.free_port()}
    content = {"folder": "run", "address": address, "member": [{"name": "alpha", "key": "ecdsa alpha"}]}
    import tomli_w

    (tmp_path / "coordinator.toml").write_text(tomli_w.dumps(content))
    credentials.certificates(tmp_path / "tls", "127.0.0.1")
    code = {"flwr": FLWR.replace("STATUS", "finished:completed")}
    monkeypatch.setattr(flwr_commands, "nginx", lambda home: python(SERVER, str(address["port"])))
    monkeypatch.setattr(flwr_commands, "superlink", lambda address: python(SERVER, str(address.control_port)))
    monkeypatch.setattr(start, "h2tune", lambda *words: [sys.executable, "-c", ""])
    monkeypatch.setattr(start, "flwr", lambda *words: python(code["flwr"], *words))
    monkeypatch.setattr(start, "program", lambda name: str(fake))
    fake = tmp_path / "fake-flwr"

    def status(text: str) -> None:
        code["flwr"] = FLWR.replace("STATUS", text)
        fake.write_text(f"#!{sys.executable}\n{code['flwr']}")
        fake.chmod(0o755)

    status("finished:completed")
    return tmp_path / "coordinator.toml", address, status


def test_a_coordinator_registers_runs_and_ends_with_its_run(coordinator):
    file, address, _ = coordinator
    lines: list[str] = []
    start.start(file, lines.append)
    assert lines[0] == "alpha: its key is registered"  # before a member can connect
    assert lines[1].startswith(f"listening for members at 127.0.0.1:{address['port']}")
    assert lines[2:-1] == [
        "run 5 started: waiting for members",
        "round 1: alpha",
    ]
    assert lines[-1] == f"finished: {file.parent / 'run'}"
    asked = [json.loads(line) for line in (file.parent / "asked").read_text().splitlines()]
    assert [words[0] for words in asked] == ["supernode", "run", "log", "list"]
    log = (file.parent / "logs" / "run.log").read_text()
    assert "Start `flwr-serverapp` process" in log and "\x1b" not in log
    for port in (address["port"], address["control_port"]):
        ports.check_free(port, "after the end")  # nothing listens there any more


def test_a_run_that_failed_is_an_error_that_names_its_log(coordinator):
    file, _, status = coordinator
    status("finished:failed")
    with pytest.raises(H2TuneError, match=r"run\.log: run 5 ended: failed"):
        start.start(file, lambda line: None)


@pytest.mark.parametrize("which", ["port", "control_port"])
def test_a_taken_port_is_an_error_that_names_it_before_anything_starts(coordinator, which):
    file, address, _ = coordinator
    with (
        socket.create_server(("127.0.0.1", address[which])),
        pytest.raises(H2TuneError, match=rf"address\.{which}, .* port {address[which]} is taken. .*ss -ltnp"),
    ):
        start.start(file, lambda line: None)
    assert not (file.parent / "logs").exists()


def test_a_process_that_ends_is_an_error_with_its_last_lines_and_the_others_end(coordinator, monkeypatch):
    file, address, _ = coordinator
    monkeypatch.setattr(
        flwr_commands, "superlink", lambda _: python("import sys; print('no key'); sys.exit(3)")
    )
    with pytest.raises(
        H2TuneError, match=r"superlink: ended with status 3: no key\. Its log is .*superlink\.log"
    ):
        start.start(file, lambda line: None)
    assert not deployment.listening(address["port"])


@pytest.mark.parametrize(("days", "said"), [(-1, "has expired on"), (10, "before")])
def test_a_certificate_that_ends_is_said(coordinator, monkeypatch, days, said):
    file, _, _ = coordinator
    monkeypatch.setattr(start, "ends", lambda path: datetime.now(UTC) + timedelta(days=days))
    lines: list[str] = []
    if days < 0:
        with pytest.raises(H2TuneError, match=said):
            start.start(file, lines.append)
    else:
        start.start(file, lines.append)
        assert "deploy renew" in lines[0] and said in lines[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name = 'x'", "neither a coordinator's file nor a member's"),
        ("[[client]]\nname = 'a'", "neither a coordinator's file nor a member's"),
        ("[[member]]\nname = 'a'", "'address' is missing"),
        (
            "[address]\nhost = 'a b'\nport = 1\ncontrol_port = 2\n[[member]]\nname = 'a'",
            "not a name or an address",
        ),
        ("[address]\nhost = 'a'\nport = 99999\ncontrol_port = 2\n[[member]]\nname = 'a'", "address: port"),
        ("[client]\nname = 'a'", "'superlink' is missing"),
    ],
)
def test_files_that_cannot_be_started_say_why(tmp_path, content, message):
    (tmp_path / "f.toml").write_text(content)
    with pytest.raises(H2TuneError, match=message):
        start.start(tmp_path / "f.toml", lambda line: None)


@pytest.mark.parametrize(("said", "times"), [("Failed to activate SuperNode.", 3), ("out of memory", 1)])
def test_a_supernode_that_is_refused_asks_again_and_one_that_fails_is_an_error(
    tmp_path, monkeypatch, said, times
):
    (tmp_path / "ca.crt").touch()
    (tmp_path / "node").touch()
    content = 'superlink = "127.0.0.1:1"\nroot_certificates = "ca.crt"\nkey = "node"\n[client]\nname = "a"\n'
    (tmp_path / "member.toml").write_text(content)
    node = f"open('starts', 'a').write('x')\nprint({said!r} if len(open('starts').read()) < 3 else 'broken')"
    monkeypatch.setattr(flwr_commands, "supernode", lambda *_: python(node))
    worker = "print('ready: here', flush=True); import time; time.sleep(600)"
    monkeypatch.setattr(start, "h2tune", lambda *words: python(worker))
    monkeypatch.setattr(start, "REFUSED", 0.0)
    with pytest.raises(H2TuneError, match=r"supernode: ended with status 0: (broken|out of memory)"):
        start.start(tmp_path / "member.toml", lambda line: None)
    assert (tmp_path / "starts").read_text() == times * "x"


def test_members_are_registered_once_and_unregistered_when_they_are_gone(tmp_path):
    asked: list[tuple[str, ...]] = []

    def ask(*words: str):
        asked.append(words[:2])
        if words[-1] == "known":
            raise H2TuneError("[code: 23] Public key already in use.")
        return {"node-id": len(asked)}

    (tmp_path / "flwr").mkdir()
    (tmp_path / "flwr" / "state.db").touch()
    tables = [{"name": name, "key": f"key of {name}"} for name in ("alpha", "beta", "known")]
    assert len(list(register(tmp_path, tables, ask))) == 3
    assert list(register(tmp_path, tables, ask)) == []
    changed = [{**tables[0], "key": "another"}, tables[2]]
    assert [line.partition(":")[0] for line in register(tmp_path, changed, ask)] == ["alpha", "beta", "alpha"]
    register_, unregister = ("supernode", "register"), ("supernode", "unregister")
    assert asked == [register_, register_, register_, unregister, unregister, register_]
    (tmp_path / "flwr" / "state.db").unlink()  # Flower has forgotten them
    assert len(list(register(tmp_path, changed, ask))) == 2


PARENT = """
import os, signal, sys, time
from pathlib import Path
from h2tune.flower.deploy.supervisor import Group
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with Group(Path(sys.argv[1]), os.environ) as group:
    code = "import time; print('up', flush=True); time.sleep(600)"
    child = group.start("service", [sys.executable, "-c", code])
    while not child.tail:
        time.sleep(0.05)
    print(child.process.pid, flush=True)
    time.sleep(600)
"""


def test_processes_end_when_their_parent_is_killed(tmp_path):
    parent = subprocess.Popen(
        python(PARENT, str(tmp_path)), env=federations.environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        child = int(parent.stdout.readline())
        assert alive(child)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    until(lambda: not alive(child))


def test_a_process_that_ignores_sigterm_is_killed_with_its_own_processes(group, monkeypatch):
    monkeypatch.setattr(supervisor, "GRACE", 0.3)
    code = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN)\n"
    code += "below = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN)\\n"
    code += "time.sleep(600)'])\nprint(below.pid, flush=True)\ntime.sleep(600)"
    child = group.start("stubborn", python(code))
    until(lambda: child.tail)
    below = int(child.tail[0])
    group.stop()
    until(lambda: not alive(child.process.pid) and not alive(below))


def test_logs_are_rotated_at_a_size_and_old_ones_removed(group, tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "LOG_BYTES", 2000)
    monkeypatch.setattr(supervisor, "LOG_COPIES", 2)
    child = group.start("talker", python("for i in range(400): print('line', i)"))
    until(lambda: child.ended)
    logs = sorted((tmp_path / "logs").iterdir())
    assert [log.name for log in logs] == ["talker.log", "talker.log.1", "talker.log.2"]
    assert all(log.stat().st_size <= 2000 for log in logs)
    assert logs[0].read_text().splitlines()[-1].endswith("line 399")


def test_a_log_that_cannot_be_written_does_not_stop_the_process(group, tmp_path, monkeypatch):
    monkeypatch.setattr(
        supervisor._Rotated, "shouldRollover", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    child = group.start("talker", python("for i in range(20000): print('line', i)"))
    until(lambda: child.ended)
    assert child.process.returncode == 0 and child.tail[-1] == "line 19999"


def test_sigterm_ends_a_command_that_runs_processes(tmp_path):
    """As systemd stops it: exit status 0, and nothing is left."""
    parent = subprocess.Popen(
        python(PARENT, str(tmp_path)), env=federations.environment(), stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 0
    parent.stdout.close()
    assert not alive(child)
