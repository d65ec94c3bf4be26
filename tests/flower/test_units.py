"""Federations across machines, without processes: files, who may join, what a member accepts, a grid in memory."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import threading
import tomllib

import pytest
import tomli_w
import torch
from helpers import federations, processes

from h2tune.cli import deploy
from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.federation.messages import Update, digest

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import RecordDict
from helpers.grids import EXPERIMENT

from h2tune.flower.coordinator.roster import Roster, read_events
from h2tune.flower.deploy import kit, pages
from h2tune.flower.files import (
    Coordinator,
    load_coordinator,
    load_member_file,
    read_settings,
    validated,
)
from h2tune.flower.member.preflight import check
from h2tune.flower.member.round import join, take_part
from h2tune.flower.messages import pack, unpack


def test_the_kit_keeps_secrets_private_and_tells_the_coordinator_nothing_of_paths(parties):
    private = [parties / "members" / n / "node" for n in ("one", "two")]
    private += [parties / "coordinator" / "tls" / k for k in ("ca.key", "server.key")]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in private)
    assert not list((parties / "members").rglob("ca.key")) and not list(
        (parties / "coordinator").rglob("node")
    )
    text = (parties / "coordinator" / "coordinator.toml").read_text()
    assert "jsonl" not in text and "models" not in text and "task" not in text
    nginx = (parties / "coordinator" / "nginx.conf").read_text()
    assert nginx.count("proxy_pass ") == 1 and "https://127.0.0.1:9091" in nginx
    assert "--host 127.0.0.1" in (parties / "coordinator" / "README.md").read_text()


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"server": {"strategy": "fedit"}}, "'fedit' runs on one machine"),
        ({"server": {"strategy": "local"}}, "'local' runs on one machine"),
        ({"experimental": {"alone": True}}, "experimental.alone: training every client alone"),
    ],
)
def test_what_is_for_one_machine_is_refused_before_anything_is_written(tmp_path, section, told):
    file = federations.write(tmp_path, federations.federation(tmp_path, **section))
    with pytest.raises(H2TuneError, match=told):
        kit.init(load(file), tmp_path / "parties", host="127.0.0.1")
    assert not (tmp_path / "parties").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["server"].update(shared_rank="auto"), "server.shared_rank must be a number"),
        (lambda c: c["server"].update(strategy="fedit"), "runs on one machine"),
        (lambda c: c.update(dedline=3.0), "did you mean"),
        (lambda c: c["member"].append(dict(c["member"][0])), "two members are called 'one'"),
        (lambda c: c["train"].update(arguments={"push_to_hub": True}), "each member's own"),
        (lambda c: c.update(roles=["attn.x"]), "no role 'attn.x'"),
    ],
)
def test_a_coordinators_file_is_strict(parties, tmp_path, change, told):
    content = tomllib.loads((parties / "coordinator" / "coordinator.toml").read_text())
    change(content)
    (tmp_path / "c.toml").write_text(tomli_w.dumps(content))
    with pytest.raises(H2TuneError, match=told):
        load_coordinator(tmp_path / "c.toml")


def test_a_part_of_the_data_is_in_its_members_file_alone(tmp_path):
    content = federations.federation(tmp_path, data={"train": 8, "test": 4})
    content["experimental"] = {"parts": {"two": [1, 2]}}
    kit.init(load(federations.write(tmp_path, content)), tmp_path / "parties", host="127.0.0.1")
    home = tmp_path / "parties"
    assert "parts" not in (home / "coordinator" / "coordinator.toml").read_text()
    settings = load_coordinator(home / "coordinator" / "coordinator.toml").settings
    parts = {}
    for name in ("one", "two"):
        file = home / "members" / name / "member.toml"
        parts[name] = load_member_file(file).joined(settings, file.parent).experimental.part_of(name)
    assert parts == {"one": (0, 1), "two": (1, 2)}
    changed = tomllib.loads((home / "coordinator" / "coordinator.toml").read_text())
    changed["experimental"]["parts"] = {"two": [1, 2]}
    with pytest.raises(H2TuneError, match="a member's file has its own part"):
        validated(Coordinator, changed, "file")


def test_a_run_folder_of_another_version_is_refused(coordinator, tmp_path):
    from h2tune.flower.coordinator.app import coordinate

    (tmp_path / "coordinator.toml").write_text('name = "tiny"\n[adapter]\nmask = "leading"\n')
    with pytest.raises(H2TuneError, match=r"another version of h2tune.*Name another folder") as error:
        coordinate(None, coordinator.model_copy(update={"folder": str(tmp_path)}))
    assert "experimental.mask" in str(error.value)


def test_who_may_join_is_checked_against_the_file(coordinator, cards, tmp_path):
    roster = Roster(coordinator, tmp_path / "members.json")
    for changes, told in (
        ({"name": "three"}, "nobody of that name"),
        ({"rank": 5}, "rank 5 is not the stated 4"),
        ({"examples": 9}, "more than the stated 8"),
        ({"roles": {"mlp.gate_up": [0]}}, "not shared here"),
        ({"roles": {"attn.q": [0, 99]}}, "do not go with depth"),
    ):
        with pytest.raises(H2TuneError, match=told):
            roster.admit(cards["one"].model_copy(update=changes).model_dump_json())
    with pytest.raises(H2TuneError, match="unknown key"):
        roster.admit(json.dumps(cards["one"].model_dump() | {"path": "/data"}))
    assert roster.admit(cards["one"].model_dump_json()) == cards["one"]
    assert Roster(coordinator, tmp_path / "members.json").cards == {"one": cards["one"]}
    with pytest.raises(H2TuneError, match="not what it enrolled with"):
        roster.admit(cards["one"].model_copy(update={"examples": 7}).model_dump_json())


def test_a_name_is_bound_to_its_key(parties, cards, tmp_path):
    secure = load_coordinator(parties / "coordinator" / "coordinator.toml")
    keys = {name: kit_pem(parties, name) for name in ("one", "two")}
    roster = Roster(secure, tmp_path / "members.json")
    for wrong in (b"", keys["two"]):
        with pytest.raises(H2TuneError, match="another key"):
            roster.admit(cards["one"].model_dump_json(), wrong)
    assert roster.admit(cards["one"].model_dump_json(), keys["one"]).name == "one"


@pytest.mark.parametrize(("host", "kind"), [("10.1.2.3", "ip"), ("fed.example.org", "hostname")])
def test_the_certificate_is_good_for_members_and_for_the_name_that_nginx_compares_with(tmp_path, host, kind):
    kit.certificates(tmp_path / "tls", host)
    name = re.search(r"proxy_ssl_name (\S+);", pages.nginx(9443, 9091)).group(1)
    for look in ((f"-verify_{kind}", host), ("-verify_hostname", name)):
        verify = ["openssl", "verify", "-CAfile", "ca.crt", *look, "server.crt"]
        assert (
            subprocess.run(verify, check=False, cwd=tmp_path / "tls", capture_output=True).returncode == 0
        ), look


def kit_pem(parties, name: str) -> bytes:
    from h2tune.flower.coordinator.roster import pem

    return pem((parties / "members" / name / "node.pub").read_text())


def test_a_card_names_no_path_and_no_task_if_that_is_wished(parties, coordinator, tmp_path):
    content = tomllib.loads((parties / "members" / "one" / "member.toml").read_text()) | {"describe": False}
    (tmp_path / "m.toml").write_text(tomli_w.dumps(content))
    card = join(tmp_path / "m.toml", coordinator.settings).card
    assert (card.task, card.labels, card.majority_accuracy) == ("", [], 0.0)
    assert "/" not in card.model_dump_json()


def test_events_of_others_and_of_other_kinds_are_left_out():
    good = {"event": "evaluated", "client": "one", "round": 2, "stage": "trained"}
    before = good | {"round": -1, "stage": "before"}
    bad = [
        good | {"client": "two"},
        good | {"round": 1},
        good | {"event": "aggregated"},
        good | {"stage": "alone"},
        3,
    ]
    assert read_events(json.dumps([good, before, *bad]), "one", 2) == [good, before]
    with pytest.raises(H2TuneError):
        read_events("{", "one", 2)


@pytest.mark.parametrize("levels", [9, 900, 100_000])
def test_deeply_nested_answers_are_refused_and_stop_nobody(levels):
    """The parser counts on its stack; a member must not be able to end the coordinator's run with brackets."""
    deep = "[" * levels + "]" * levels
    with pytest.raises(H2TuneError, match=r"nested|no list"):
        read_events(f'[{{"event": "warning", "client": "one", "round": 2, "x": {deep}}}]', "one", 2)
    content = pack({})
    content["head"]["json"] = f'{{"events": {deep}}}'
    if levels > 1000:
        with pytest.raises(H2TuneError, match="malformed"):
            unpack(content)


def test_settings_of_a_coordinator_that_are_none_are_refused_without_their_values(coordinator):
    content = json.loads(coordinator.settings.model_dump_json()) | {"seed": "secret"}
    with pytest.raises(H2TuneError, match="the coordinator's settings: seed") as error:
        read_settings(json.dumps(content))
    assert "secret" not in str(error.value)
    assert read_settings(coordinator.settings.model_dump_json()) == coordinator.settings


def test_messages_carry_tensors_to_the_bit_and_refuse_what_is_none():
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5, dtype=torch.int16)}
    head, update = unpack(pack({"x": "y"}, Update("one", 2, 7, tensors)))
    assert head == {"x": "y"} and (update.client, update.round, update.examples) == ("one", 2, 7)
    assert digest(update.tensors) == digest(tensors)
    assert unpack(pack({}, Update("one", 0, 0, {})))[1].tensors == {}
    with pytest.raises(H2TuneError, match="malformed"):
        unpack(RecordDict())


def test_a_member_answers_a_replay_alike_and_refuses_other_rounds_and_names(parties, coordinator):
    file, settings = parties / "members" / "one" / "member.toml", coordinator.settings
    strategy = join(file, settings).strategy
    down = strategy.download(strategy.start(), "one", 0)
    first = take_part(file, settings, EXPERIMENT, "one", 0, down.digest, {})
    again = take_part(file, settings, EXPERIMENT, "one", 0, down.digest, {})
    assert first.update is not None and digest(first.update.tensors) == digest(again.update.tensors)
    later = strategy.download(strategy.start(), "one", 1)
    take_part(file, settings, EXPERIMENT, "one", 1, later.digest, later.tensors)
    other = {name: tensor + 1 for name, tensor in later.tensors.items()}
    for arguments, told in (
        ((EXPERIMENT, "two", 1, "", {}), "the message is for 'two'"),
        ((EXPERIMENT, "one", 9, "", {}), "no round 9"),
        ((EXPERIMENT, "one", 1, "", other), "other tensors"),
        (("../x", "one", 1, "", {}), "experiment"),
    ):
        with pytest.raises(H2TuneError, match=told):
            take_part(file, settings, *arguments)
    log = (parties / "members" / "one" / "private" / EXPERIMENT / "events.jsonl").read_text()
    assert [json.loads(line)["round"] for line in log.splitlines() if "client_trained" in line] == [0, 1]
    assert (parties / "members" / "one" / "private" / EXPERIMENT / "clients" / "one" / "lora").is_dir()
    with pytest.raises(H2TuneError, match="federation is 'other'"):
        take_part(file, settings.model_copy(update={"name": "other"}), EXPERIMENT, "one", 0, "", {})


def test_a_check_names_what_is_wrong(parties, tmp_path):
    found = {f.what: f for f in check(parties / "members" / "one" / "member.toml")}
    assert all(found[what].good for what in ("file", "folder", "model", "data", "memory"))
    assert not found["connection"].good and "cannot be reached" in found["connection"].told
    content = tomllib.loads((parties / "members" / "one" / "member.toml").read_text())
    content["client"]["task"]["file"] = "nowhere.jsonl"
    (tmp_path / "m.toml").write_text(tomli_w.dumps(content))
    assert "nowhere.jsonl" in {f.what: f for f in check(tmp_path / "m.toml")}["data"].told


@pytest.mark.parametrize(
    ("answer", "good"), [(b"HTTP/1.1 405 No\r\n\r\n", True), (b"HTTP/1.1 502 Bad\r\n\r\n", False)]
)
def test_a_check_tells_a_proxy_with_nothing_behind_it(parties, answer, good):
    tls = parties / "coordinator" / "tls"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        plain, _ = listener.accept()
        with plain, context.wrap_socket(plain, server_side=True) as secure:
            secure.recv(1024)
            secure.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    file = parties / "members" / "one" / "member.toml"
    content = tomllib.loads(file.read_text()) | {"superlink": f"127.0.0.1:{listener.getsockname()[1]}"}
    (file.parent / "other.toml").write_text(tomli_w.dumps(content))
    with listener:
        found = {f.what: f for f in check(file.parent / "other.toml")}["connection"]
        server.join(10)
    assert found.good == good and ("502" in found.told) != good


def test_a_member_that_is_taken_out_of_the_coordinators_file_takes_part_no_more(coordinator, cards, tmp_path):
    roster = Roster(coordinator, tmp_path / "m.json")
    for card in cards.values():
        roster.admit(card.model_dump_json())
    rest = coordinator.model_copy(update={"member": tuple(m for m in coordinator.member if m.name != "two")})
    left = Roster(rest, tmp_path / "m.json")
    assert "two" in roster.cards and "two" not in left.cards and "one" in left.cards
    with pytest.raises(H2TuneError, match="nobody of that name"):
        left.admit(cards["two"].model_dump_json())


def test_late_updates_are_not_used_where_a_member_must_count_once(coordinator):
    robust = {"aggregation": "median", "min_clients": 3}
    for server in (robust, {"secure_aggregation": True, "weighting": "uniform", "min_clients": 4}):
        content = coordinator.model_dump(exclude_none=True)
        content["late"], content["server"] = "use", content["server"] | server
        content["member"] += tuple({"name": f"more{i}"} for i in range(3))
        with pytest.raises(ValueError, match="count a member twice"):
            Coordinator.model_validate(content)


def test_without_flower_one_line_says_what_to_install(parties, monkeypatch):
    monkeypatch.setattr(deploy, "installed", lambda: False)
    with pytest.raises(H2TuneError, match=r"flwr: not installed. .* pip install 'h2tune\[flower\]'"):
        deploy.deploy_worker(parties / "members" / "one" / "member.toml")


def test_nothing_outside_the_flower_folder_imports_flwr():
    sources = (processes.SOURCE / "h2tune").rglob("*.py")
    for source in (s for s in sources if "flower" not in s.parts):
        assert "import flwr" not in source.read_text() and "from flwr" not in source.read_text(), source
