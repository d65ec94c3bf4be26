"""Federations across processes on Flower: a real SuperLink, real SuperNodes, tiny models."""

from __future__ import annotations

import shutil

import pytest
from helpers import deployment, federations

from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from h2tune.flower import audit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENTS = (("films", "llama", 4), ("news", "bert", 8), ("feed", "gpt2", 6))
TRAIN = {"train": {"local_steps": 2}, "data": {"train": 16, "test": 12}}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The same federation on one machine: content and run folder."""
    folder = tmp_path_factory.mktemp("embedded")
    content = federations.federation(folder, CLIENTS, server={"rounds": 3, "min_clients": 2}, **TRAIN)
    file = federations.write(folder, content)
    federations.h2tune("run", str(file), "--out", str(folder / "run"))
    return content, folder / "run"


def finished(run) -> bool:
    log = run / "events.jsonl"
    return log.exists() and '"run_finished"' in log.read_text()


@pytest.fixture(scope="module")
def secured(embedded, tmp_path_factory):
    """A finished federation with TLS and keys, behind the kit's proxy if nginx is installed; its processes run."""
    port = deployment.free_port()
    public = deployment.free_port() if shutil.which("nginx") else None
    parties = tmp_path_factory.mktemp("secured")
    folder = deployment.lay_out(parties, embedded[0], port, secure=True, public=public)
    with deployment.deployment(folder, port, secure=True, public=public) as parties:
        parties.superlink()
        if public is not None:
            parties.proxy()
        for name, *_ in CLIENTS:
            parties.register(name)
            parties.supernode(name, forked=False)  # as a member runs it
        parties.worker("news")  # one member has a worker
        impostor(parties, "films")
        parties.run()
        parties.until(parties.ended, 600)
        assert finished(parties.home / "run"), parties.tails()
        parties.until((parties.home / "run" / "report.html").exists, 120)  # written after the last event
        yield parties


def impostor(parties, name: str) -> None:
    """Start a node with its own registered key and the file of another member."""
    from h2tune.flower.deploy.credentials import node_key

    key = node_key(parties.folder / "impostor", "impostor")
    (parties.home / "keys" / "impostor.pub").write_text(key + "\n")
    parties.register("impostor")
    parties.supernode(name, key=parties.folder / "impostor", label="impostor")


def test_a_registered_node_that_claims_anothers_name_is_refused(secured):
    assert "'films': its node authenticated with another key than its name has" in secured.run_log()
    assert "Sending: train" not in secured.log("impostor")
    assert secured.log("films").count("Sending: train") == 3


def test_tls_and_keys_give_the_numbers_of_one_machine(embedded, secured):
    run = secured.home / "run"
    deployment.assert_equal(embedded[1], run)
    events = read_events(run / "events.jsonl")
    assert not [e for e in events if e["event"] in ("warning", "client_failed")]
    assert (run / "report.html").stat().st_size > 1000
    assert secured.log("news-worker").count("\ntrain: ") == 3 and "Traceback" not in secured.log(
        "news-worker"
    )
    for name, *_ in CLIENTS:
        (private,) = (p for p in (secured.folder / "members" / name / "private").iterdir() if p.is_dir())
        assert (private / "clients" / name / "lora" / "adapter_config.json").exists()
    # neither the coordinator's run folder nor its log has a path of a member
    seen = "".join(p.read_text(errors="replace") for p in run.rglob("*") if p.is_file())
    seen += secured.log("superlink") + secured.run_log()
    assert str(secured.folder / "members") not in seen
    assert ".jsonl" not in seen.replace("events.jsonl", "")


def refused(parties, name: str, line: str, seconds: float = 60) -> None:
    """Assert that a node stops before it is activated, with a line in its log."""
    parties.until(lambda: line in parties.log(name) or parties.processes[name].poll() is not None, seconds)
    parties.kill(name)
    assert line in parties.log(name), parties.log(name)
    assert "SuperNode ID" not in parties.log(name)


def test_every_party_has_a_whole_audit_log_signed_with_its_key(secured):
    run = secured.home / "run"
    parties = {run: secured.home / "audit.pub"}
    for home in sorted((secured.folder / "members").iterdir()):
        parties[home / "private"] = home / "node.pub"
    for folder, key in parties.items():
        done = federations.h2tune("deploy", "verify", str(folder), "--key", str(key), check=False)
        assert done.returncode == 0, (folder, done.stdout, done.stderr)
        found = audit.verify(folder / audit.FILE, key.read_bytes())
        assert found.signed == len(found.entries) > 2
    sent = audit.verify(secured.folder / "members" / "films" / "private" / audit.FILE).entries
    assert {"enrol", "train"} <= {entry["message"] for entry in sent}


def test_a_node_with_an_unregistered_key_is_refused(secured, tmp_path):
    from h2tune.flower.deploy.credentials import node_key

    node_key(tmp_path / "stranger", "films")
    secured.supernode("films", key=tmp_path / "stranger", label="stranger")
    refused(secured, "stranger", "Failed to activate SuperNode")
    assert "No SuperNode found with the given public key" in secured.log("superlink")


def test_a_node_without_the_ca_is_refused(secured):
    secured.supernode("films", trusted=False, label="without-ca")
    refused(secured, "without-ca", "CERTIFICATE_VERIFY_FAILED")


def test_a_node_without_tls_is_refused(secured):
    secured.supernode("films", plain=True, label="plain")
    proxied = (
        secured.public != secured.port
    )  # nginx answers with an error, the SuperLink closes the connection
    refused(secured, "plain", "HTTP" if proxied else "Connection attempt failed")


def test_a_stranger_at_the_open_port_can_neither_register_nor_control_a_run(secured):
    if secured.public == secured.port:
        pytest.skip("nginx is not installed")
    file = secured.home / "flwr" / "config.toml"
    before = file.read_text()
    try:
        file.write_text(before.replace(f":{secured.port}", f":{secured.public}"))
        for arguments in (
            ("supernode", "register", str(secured.home / "keys" / "films.pub"), "h2tune"),
            ("supernode", "list", "h2tune"),
            ("run", "app", "h2tune"),
            ("list", "h2tune"),
            ("stop", "1", "h2tune"),
        ):
            done = secured.flwr(*arguments)
            assert done.returncode != 0, (arguments, done.stdout)
            assert "404" in done.stdout + done.stderr, (arguments, done.stdout + done.stderr)
    finally:
        file.write_text(before)


def test_the_check_says_whether_the_connection_will_do(secured):
    file = secured.folder / "members" / "films" / "member.toml"
    done = federations.h2tune("deploy", "check", str(file), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 7 and "TLSv1." in done.stdout


def test_three_members_give_the_numbers_of_one_machine(embedded, tmp_path):
    content, run = embedded
    port = deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port)
    with deployment.deployment(folder, port) as parties:
        parties.superlink()
        for name, *_ in CLIENTS:
            parties.supernode(name)
        parties.run()
        parties.until(parties.ended, 600)
        assert finished(parties.home / "run"), parties.tails()
    deployment.assert_equal(run, parties.home / "run")


def test_messages_that_are_replayed_or_of_another_round_change_nothing(embedded, tmp_path):
    content, run = embedded
    port = deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port)
    with deployment.deployment(folder, port) as parties:
        parties.superlink(deployment.PATCHED / "replaying.py")
        for name, *_ in CLIENTS:
            parties.supernode(name)
        parties.run()
        parties.until(parties.ended, 800)
        assert finished(parties.home / "run"), parties.tails()
        sent = {name: parties.log(name).count("Sending: train") for name, *_ in CLIENTS}
    deployment.assert_equal(run, parties.home / "run")
    for name, *_ in CLIENTS:
        assert sent[name] > 5, sent  # three rounds, and what was replayed
        (private,) = (path for path in (folder / "members" / name / "private").iterdir() if path.is_dir())
        own = read_events(private / "events.jsonl")
        assert [e["round"] for e in own if e["event"] == "client_trained"] == [0, 1, 2]


def test_a_superlink_without_certificates_does_not_start_unless_insecure_is_said(tmp_path):
    (tmp_path / "coordinator").mkdir()
    parties = deployment.Deployment(tmp_path, deployment.free_port())
    bare = ["flower-superlink", "--host", "127.0.0.1", "--port", str(parties.port)]
    process = parties.start("superlink", bare, parties.home)
    assert process.wait(60) != 0
    assert "--insecure" in parties.log("superlink") and not parties.listening(parties.port)


def rounds_of(run, name: str, kind: str) -> list[int]:
    return [
        e["round"] for e in read_events(run / "events.jsonl") if e["event"] == kind and e["client"] == name
    ]


def test_a_killed_supernode_is_left_out_and_comes_back_with_its_state(embedded, tmp_path):
    content, _ = embedded
    port = deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port, patience=60.0)
    run = folder / "coordinator" / "run"
    with deployment.deployment(folder, port) as parties:
        parties.superlink()
        for name, *_ in CLIENTS:
            parties.supernode(name)
        parties.run()
        parties.until(lambda: "ROUND 1]" in parties.log("films") or parties.ended(), 400)
        parties.kill("films")
        parties.until(lambda: rounds_of(run, "films", "client_failed") or parties.ended(), 400)
        parties.supernode("films")
        parties.until(parties.ended, 400)
        assert finished(run), parties.tails()
    took_part = [e["clients"] for e in read_events(run / "events.jsonl") if e["event"] == "aggregated"]
    assert took_part == [["feed", "films", "news"], ["feed", "news"], ["feed", "films", "news"]]
    assert rounds_of(run, "films", "client_failed") == [1]
    (private,) = (path for path in (folder / "members" / "films" / "private").iterdir() if path.is_dir())
    own = read_events(private / "events.jsonl")
    assert [e["round"] for e in own if e["event"] == "evaluated" and e["stage"] == "before"] == [-1]
    assert {e["round"] for e in own if e["event"] == "client_trained"} >= {0, 2}
    assert (private / "clients" / "films" / "state" / "round-0000").is_dir()


@pytest.mark.parametrize("victim", ["serverapp", "superlink"])
def test_a_killed_server_is_started_again_and_gives_the_same_numbers(embedded, tmp_path, victim):
    content, run = embedded
    port = deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port)
    with deployment.deployment(folder, port) as parties:
        parties.superlink()
        for name, *_ in CLIENTS:
            parties.supernode(name)
        parties.run()
        parties.until(lambda: (folder / "coordinator/run/server/round-0001").exists() or parties.ended(), 400)
        if victim == "serverapp":
            parties.kill_child("superlink", "flwr-serverapp")
        else:
            parties.kill("superlink")
            parties.superlink()
        parties.run()
        parties.until(parties.ended, 400)
        assert finished(parties.home / "run"), parties.tails()
    deployment.assert_equal(run, parties.home / "run")
