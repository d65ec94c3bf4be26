"""Federations across machines, without processes: files, who may join, what a member accepts, a grid in memory."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from dataclasses import dataclass, field
from types import SimpleNamespace

import federations
import httpx
import processes
import pytest
import tomli_w
import torch

from h2tune.alignment import fixed_relation
from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.federation.ledger import Ledger
from h2tune.federation.method import build_strategy
from h2tune.federation.server import run_rounds
from h2tune.federation.update import WIRE, Download, Update, digest

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import Error, Message, RecordDict
from grids import EXPERIMENT, Node, Post, coordinator_of, identify, lay_out

from h2tune.federation.flower import kit, pages
from h2tune.federation.flower.card import Card
from h2tune.federation.flower.channel import GridChannel
from h2tune.federation.flower.check import check
from h2tune.federation.flower.files import Coordinator, load_coordinator, read_settings
from h2tune.federation.flower.member import join, take_part
from h2tune.federation.flower.messages import pack, unpack
from h2tune.federation.flower.roster import Roster, read_events


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    """A kit for two members, written once."""
    folder = tmp_path_factory.mktemp("kit")
    content = federations.federation(folder, train={"local_steps": 1}, data={"train": 8, "test": 4})
    return lay_out(content, folder)


@pytest.fixture
def coordinator(parties):
    return coordinator_of(parties, deadline=2.0, patience=0.05, gather=1.0)


@pytest.fixture
def cards(parties, coordinator):
    return {
        name: join(parties / "members" / name / "member.toml", coordinator.settings).card
        for name in ("one", "two")
    }


@pytest.fixture
def identity(monkeypatch):
    identify(monkeypatch)


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
        ({"server": {"alone": True}}, "server.alone: training every client alone"),
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
    from h2tune.federation.flower.roster import pem

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


@dataclass
class Grid(Post):
    """A grid whose members answer at once, as `answers` says; None is no answer."""

    answers: dict
    present: set = field(default_factory=set)
    trained: list = field(default_factory=list)

    def get_nodes(self):
        return [Node(number) for number in sorted(self.present or self.answers)]

    def pull_messages(self, identifiers):
        replies = []
        for identifier in identifiers:
            message = self.waiting.get(identifier)
            if message is None:
                continue
            content = self.answers[message.metadata.dst_node_id](message)
            if content is None:
                continue
            self.waiting[identifier] = None
            message.metadata.__dict__["_src_node_id"] = 1
            reply = Message(content, reply_to=message)
            replies.append(reply)
        return replies


def answers(card: Card, train):
    def answer(message):
        if message.metadata.message_type == "query.enrol":
            return pack({"card": card.model_dump_json()})
        return train(message)

    return answer


def sends(name: str, round_number: int = 0):
    return lambda message: pack({"events": "[]"}, Update(name, round_number, 8, {}))


def exchanged(coordinator, tmp_path, table):
    grid = Grid(table)
    channel = GridChannel(grid, coordinator, EXPERIMENT, Roster(coordinator, tmp_path / "m.json"), poll=0.01)
    channel.gather()
    downloads = {name: Download(0, {}, "") for name in ("one", "two")}
    return {reply.client: reply for reply in channel.exchange(0, downloads)}


def test_a_round_goes_on_with_those_who_answer(identity, coordinator, cards, tmp_path):
    silent = answers(cards["two"], lambda message: None)
    lost = answers(cards["two"], lambda message: Error(5, "gone"))
    reason = answers(cards["two"], lambda message: pack({"reason": "training failed"}))
    broken = answers(cards["two"], lambda message: RecordDict())
    for i, (other, told) in enumerate(
        [(silent, "no answer within"), (lost, "was lost"), (reason, "training failed"), (broken, "malformed")]
    ):
        (tmp_path / str(i)).mkdir()
        replies = exchanged(
            coordinator, tmp_path / str(i), {1: answers(cards["one"], sends("one")), 2: other}
        )
        assert replies["one"].update is not None
        assert replies["two"].update is None and told in replies["two"].reason


def test_a_message_that_was_lost_is_sent_again_and_told(identity, coordinator, cards, tmp_path):
    lost = [Error(8, "killed")]

    def two(message):
        return lost.pop() if lost else sends("two")(message)

    patient = coordinator.model_copy(update={"patience": 5.0, "deadline": 10.0})
    replies = exchanged(
        patient, tmp_path, {1: answers(cards["one"], sends("one")), 2: answers(cards["two"], two)}
    )
    assert replies["two"].update is not None and not replies["one"].events
    (event,) = replies["two"].events
    assert (event["code"], event["client"], event["round"]) == ("sent_again", "two", 0)
    assert event["message"] == "it was lost (Flower's code 8); it was asked again"


def asked_again(coordinator, cards, tmp_path, second, deadline=10.0):
    """Return the reply of a member that is silent at first, and how often it was asked.

    Args:
        coordinator: The coordinator's file.
        cards: By member.
        tmp_path: A folder.
        second: Returns its answer to a message of the same round again, given how often it was looked for.
        deadline: Of the round, in seconds.
    """
    asked, looks = [], iter(range(1000))

    def two(message):
        if message not in asked:
            asked.append(message)
        return second(message is asked[0], next(looks) if len(asked) > 1 else 0)

    hasty = coordinator.model_copy(update={"patience": 0.2, "deadline": deadline})
    table = {1: answers(cards["one"], sends("one")), 2: answers(cards["two"], two)}
    return exchanged(hasty, tmp_path, table)["two"], len(asked)


def test_one_that_is_silent_long_after_the_others_is_asked_again(identity, coordinator, cards, tmp_path):
    """Flower may lose a message without a word."""
    reply, count = asked_again(
        coordinator, cards, tmp_path, lambda first, _: None if first else sends("two")(None)
    )
    assert reply.update is not None and count == 2
    (event,) = reply.events
    assert event["code"] == "sent_again" and event["message"].startswith("nothing came for 0 s")


def test_the_first_message_is_waited_for_though_the_second_is_refused(identity, coordinator, cards, tmp_path):
    """Where nothing was lost, a member may still be at work on the first."""

    def second(first, looks):
        if first:
            return sends("two")(None) if looks > 3 else None
        return pack({"reason": "an earlier message is worked on"})

    reply, count = asked_again(coordinator, cards, tmp_path, second)
    assert reply.update is not None and count == 2


def test_what_is_refused_and_never_answered_ends_with_the_round(identity, coordinator, cards, tmp_path):
    def second(first, _):
        return None if first else pack({"reason": "the disk is full"})

    reply, count = asked_again(coordinator, cards, tmp_path, second, deadline=1.0)
    assert reply.update is None and count == 3
    assert reply.reason == "no answer within 1 s; asked again, it said: the disk is full"


@pytest.mark.parametrize("call", ["get_nodes", "push_messages", "pull_messages"])
@pytest.mark.parametrize("status", [500, 401])
def test_a_superlink_that_fails_for_a_moment_is_asked_again(
    identity, coordinator, cards, tmp_path, monkeypatch, call, status
):
    sound, calls = getattr(Grid, call), []

    def failing(self, *arguments):
        calls.append(call)
        if len(calls) in (2, 3, 5):
            response = httpx.Response(status, request=httpx.Request("POST", "http://superlink"))
            response.raise_for_status()
        return sound(self, *arguments)

    monkeypatch.setattr(Grid, call, failing)
    table = {i: answers(cards[name], sends(name)) for i, name in ((1, "one"), (2, "two"))}
    patient = coordinator.model_copy(update={"gather": 10.0, "patience": 5.0, "deadline": 10.0})
    if status == 401:
        with pytest.raises(httpx.HTTPStatusError):
            exchanged(patient, tmp_path, table)
    else:
        replies = exchanged(patient, tmp_path, table)
        assert all(reply.update is not None and not reply.events for reply in replies.values())
        assert len(calls) > 3


def test_a_node_that_does_not_say_who_it_is_is_asked_again(identity, coordinator, cards, tmp_path):
    asked = []

    def two(message):
        if message not in asked:
            asked.append(message)
        return None if message is asked[0] else answers(cards["two"], sends("two"))(message)

    hasty = coordinator.model_copy(update={"patience": 0.2, "gather": 5.0})
    replies = exchanged(hasty, tmp_path, {1: answers(cards["one"], sends("one")), 2: two})
    assert replies["two"].update is not None and len(asked) == 3  # who it is, twice; and the round


def test_a_late_update_is_left_out_and_told(identity, coordinator, cards, tmp_path):
    slow = [None]

    def two(message):
        return slow[0] and pack({"events": "[]"}, Update("two", int(message.metadata.group_id), 8, {}))

    grid = Grid({1: answers(cards["one"], sends("one")), 2: answers(cards["two"], two)})
    hasty = coordinator.model_copy(update={"deadline": 0.3})
    channel = GridChannel(grid, hasty, EXPERIMENT, Roster(hasty, tmp_path / "m.json"), poll=0.01)
    channel.gather()
    first = {r.client: r for r in channel.exchange(0, {name: Download(0, {}, "") for name in ("one", "two")})}
    assert first["two"].update is None and "no answer within" in first["two"].reason
    slow[0] = True
    (second,) = channel.exchange(1, {"two": Download(1, {}, "")})
    assert second.update.round == 1
    assert [(e["code"], e["round"]) for e in second.events] == [("late_update", 0)]


def test_an_update_that_comes_after_its_round_changes_no_aggregate_or_counts_less(
    identity, coordinator, cards, tmp_path
):
    plain = coordinator.adapter.model_copy(update={"mask": "leading", "alignment": "depth"})
    hasty = coordinator.model_copy(update={"deadline": 0.3, "patience": 1.0, "adapter": plain})
    enrolments = [cards[name].enrolment for name in ("one", "two")]
    server = hasty.server

    def run(how: str):
        folder, late = tmp_path / how, how != "lost"
        strategy = build_strategy(hasty.federation, enrolments, int(server.shared_rank), int(server.slots))
        in_second = []

        def trains(name: str):
            def answer(message):
                number = int(message.metadata.group_id)
                if name == "one":
                    in_second.extend([True] * number)
                elif not in_second:
                    return None  # in round 0; its answer is there when round 1 is on
                elif number == 0 and not late:
                    return Error(5, "gone")
                elif number == 1 and len(in_second) < 5:
                    in_second.append(True)  # so that the late one is taken in before
                    return None
                spec = strategy.upload_spec(name, number)
                fill = {"one": 0.5, "two": 0.25}[name] * (number + 1)
                tensors = {key: torch.full(shape, fill).to(WIRE[kind]) for key, (shape, kind) in spec.items()}
                return pack({"events": "[]"}, Update(name, number, cards[name].examples, tensors))

            return answer

        grid = Grid({1: answers(cards["one"], trains("one")), 2: answers(cards["two"], trains("two"))})
        of_file = hasty.model_copy(update={"late": "use" if how == "used" else "drop"})
        channel = GridChannel(grid, of_file, EXPERIMENT, Roster(of_file, folder / "m.json"), poll=0.01)
        channel.gather()
        channel.strategy, ledger = strategy, Ledger(folder / "run")
        shared = run_rounds(
            strategy, channel, ledger, rounds=2, min_clients=1, choose=lambda _: ["one", "two"]
        )
        ledger.close()
        return [json.loads(line) for line in ledger.events_file.read_text().splitlines()], shared["shared"]

    (with_late, _), (without, _), (used, shared) = map(run, ("dropped", "lost", "used"))
    took_part = [e["clients"] for e in with_late if e["event"] == "aggregated"]
    assert took_part == [["one"], ["one", "two"]]
    sums = [[e["sha256"] for e in events if e["event"] == "aggregated"] for events in (with_late, without)]
    assert sums[0] == sums[1]
    told = [(e["code"], e["client"], e["round"]) for e in with_late if e["event"] == "warning"]
    assert told == [("late_update", "two", 0)]
    assert [e["reason"] for e in with_late if e["event"] == "client_failed"] == ["no answer within 0 s"]
    # used: round 1 takes 1.0 of "one", 0.5 of "two", and its 0.25 of round 0 with 1 / √2 of its weight
    (w1, c1), (w2, c2) = (
        (e.examples, float(fixed_relation(int(server.slots), e.depth)[0].sum())) for e in enrolments
    )
    stale = w2 * c2 / 2**0.5
    step = (1.0 * w1 * c1 + 0.5 * w2 * c2 + 0.25 * stale) / (w1 * c1 + w2 * c2 + stale)
    assert float(shared[0, 0, 0, 0]) == pytest.approx(0.5 + step, rel=1e-5)
    (second,) = [e for e in used if e["event"] == "aggregated" and e["round"] == 1]
    assert (second["clients"], second["late"]) == (["one", "two"], [{"client": "two", "round": 0}])


def test_late_updates_are_not_used_where_a_member_must_count_once(coordinator):
    robust = {"aggregation": "median", "min_clients": 3}
    for server in (robust, {"secure_aggregation": True, "weighting": "uniform", "min_clients": 4}):
        content = coordinator.model_dump(exclude_none=True)
        content["late"], content["server"] = "use", content["server"] | server
        content["member"] += tuple({"name": f"more{i}"} for i in range(3))
        with pytest.raises(ValueError, match="count a member twice"):
            Coordinator.model_validate(content)


def test_a_member_that_returns_as_another_node_is_known_by_name(identity, coordinator, cards, tmp_path):
    grid = Grid({1: answers(cards["one"], sends("one")), 2: answers(cards["two"], sends("two"))})
    roster = Roster(coordinator, tmp_path / "m.json")
    channel = GridChannel(grid, coordinator, EXPERIMENT, roster, poll=0.01)
    channel.gather()
    grid.answers[7] = grid.answers.pop(2)
    replies = {
        r.client: r for r in channel.exchange(0, {name: Download(0, {}, "") for name in ("one", "two")})
    }
    assert replies["two"].update is not None and channel.nodes == {"one": 1, "two": 7}


def test_a_member_that_was_cut_off_is_not_asked_again_who_it_is(identity, coordinator, cards, tmp_path):
    asked = []

    def two(message):
        if message.metadata.message_type == "query.enrol":
            asked.append(message)
        return answers(cards["two"], sends("two"))(message)

    grid = Grid({1: answers(cards["one"], sends("one")), 2: two})
    channel = GridChannel(grid, coordinator, EXPERIMENT, Roster(coordinator, tmp_path / "m.json"), poll=0.01)
    channel.gather()
    grid.present = {1}
    (lost,) = channel.exchange(0, {"two": Download(0, {}, "")})
    assert lost.update is None and lost.reason == "it is not connected"
    grid.present = {1, 2}
    (back,) = channel.exchange(0, {"two": Download(0, {}, "")})
    assert back.update is not None and len(asked) == 1


def test_a_member_may_join_between_rounds(identity, coordinator, cards, tmp_path):
    grid = Grid({1: answers(cards["one"], sends("one"))})
    early = coordinator.model_copy(update={"gather": 0.1})
    channel = GridChannel(grid, early, EXPERIMENT, Roster(early, tmp_path / "m.json"), poll=0.01)
    channel.gather()
    channel.strategy = SimpleNamespace(upload_spec=lambda *_: {}, enrolments={"one": cards["one"].enrolment})
    grid.answers[2] = answers(cards["two"], sends("two"))
    assert [r.client for r in channel.exchange(0, {"one": Download(0, {}, "")})] == ["one"]
    assert channel.strategy.enrolments["two"] == cards["two"].enrolment


def test_one_name_at_two_nodes_belongs_to_the_first(identity, coordinator, cards, tmp_path):
    table = {1: answers(cards["one"], sends("one")), 2: answers(cards["two"], sends("two"))}
    table[3] = answers(cards["one"], sends("false"))
    replies = exchanged(coordinator, tmp_path, table)
    assert replies["one"].update.client == "one" and replies["two"].update is not None


def test_too_few_members_are_told_with_the_reasons(identity, coordinator, cards, tmp_path):
    strange = cards["one"].model_copy(update={"name": "three"})
    with pytest.raises(H2TuneError, match="nobody of that name"):
        exchanged(coordinator, tmp_path, {1: answers(strange, sends("three"))})


def test_nothing_outside_the_flower_folder_imports_flwr():
    sources = (processes.SOURCE / "h2tune").rglob("*.py")
    for source in (s for s in sources if "flower" not in s.parts):
        assert "import flwr" not in source.read_text() and "from flwr" not in source.read_text(), source
