"""Flower's grid in memory: members answer at once, with the apps' own code. Needs flwr."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from h2tune.config import load
from h2tune.federation.channel import Downloads
from h2tune.federation.messages import Download, Update
from h2tune.flower.card import Card
from h2tune.flower.coordinator.channel import GridChannel
from h2tune.flower.coordinator.messenger import Messenger
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.deploy import kit
from h2tune.flower.files import CoordinatorFile
from h2tune.flower.load import load_coordinator
from h2tune.flower.member import app
from h2tune.flower.messages import pack
from helpers import federations

EXPERIMENT = "0" * 32


def channel_over(grid: Any, coordinator: CoordinatorFile, members_file: Path) -> GridChannel:
    """Return a channel over a grid, whose roster is stored in a file."""
    roster = Roster(coordinator, members_file)
    return GridChannel(Messenger(grid, coordinator, EXPERIMENT, roster, poll=0.01))


class FixedDownloads(Downloads):
    """Fixed downloads, which updates of any size may answer."""

    def __init__(self, downloads: Mapping[str, Download]) -> None:
        self.downloads = downloads
        self.round = next(iter(downloads.values())).round
        self.clients = dict.fromkeys(downloads)

    def __getitem__(self, client: str) -> Download:
        return self.downloads[client]

    def upload_bytes(self, client: str, round_number: int) -> int:
        return 2**30


def identify(monkeypatch) -> None:
    """Set what Flower sets in the process of an app before it makes messages."""
    for key in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, key, 1)


def lay_out(content: Mapping[str, Any], folder: Path) -> Path:
    """Write the kit of a federation and return its folder."""
    kit.init(load(federations.write(folder, content)), folder / "parties", host="127.0.0.1")
    return folder / "parties"


def coordinator_of(parties: Path, *, deadline: float, patience: float, gather: float) -> CoordinatorFile:
    """Return the coordinator of a kit, for nodes without keys."""
    file = load_coordinator(parties / "coordinator" / "coordinator.toml")
    members = tuple(member.model_copy(update={"key": None}) for member in file.member)
    seconds = {"deadline": deadline, "patience": patience, "gather": gather}
    return file.model_copy(update={"member": members, **seconds})


@dataclass
class Node:
    node_id: int
    public_key: bytes = b""


@dataclass(kw_only=True)
class Post:
    """Messages under way, numbered as they are pushed."""

    waiting: dict[str, Message | None] = field(default_factory=dict)
    pushed: int = 0

    def push_messages(self, messages):
        names = []
        for message in messages:
            name, self.pushed = f"m{self.pushed}", self.pushed + 1
            message.metadata.__dict__["_message_id"] = name
            self.waiting[name] = message
            names.append(name)
        return names


@dataclass
class ScriptedGrid(Post):
    """A grid whose nodes answer at once, by the functions in `answers`; None is no answer yet.

    Args:
        answers: Function of a message by node.
        present: The connected nodes; by default those in `answers`.
    """

    answers: dict[int, Callable[[Message], Any]]
    present: set[int] = field(default_factory=set)

    def get_nodes(self):
        return [Node(number) for number in sorted(self.present or self.answers)]

    def pull_messages(self, identifiers):
        replies = []
        for identifier in identifiers:
            message = self.waiting.get(identifier)
            content = None if message is None else self.answers[message.metadata.dst_node_id](message)
            if content is not None:
                self.waiting[identifier] = None
                message.metadata.__dict__["_src_node_id"] = 1
                if isinstance(content, RecordDict) and "nonce" not in content.get("head", {"nonce": ""}):
                    content["head"]["nonce"] = message.content["head"]["nonce"]
                replies.append(Message(content, reply_to=message))
        return replies


def node(card: Card, train: Callable[[Message], Any]) -> Callable[[Message], Any]:
    """Return a node's answers: its card to the enrolment query, and those of a function to other messages."""

    def answer(message):
        if message.metadata.message_type == "query.enrol":
            return pack({"card": card.model_dump_json()})
        return train(message)

    return answer


def update_of(name: str, round_number: int = 0) -> Callable[[Message], Any]:
    """Return a function that answers every message with an empty update."""
    return lambda message: pack({"events": "[]"}, Update(name, round_number, 8, {}))


def gathered(grid: Any, coordinator: CoordinatorFile, members_file: Path) -> GridChannel:
    """Return a channel over a grid after its members enrolled."""
    channel = channel_over(grid, coordinator, members_file)
    channel.messenger.gather()
    return channel


def exchange(channel: GridChannel, *names: str, round_number: int = 0) -> dict[str, Any]:
    """Send empty downloads and return the replies by client."""
    downloads = FixedDownloads({name: Download(round_number, {}, "") for name in names})
    return {reply.client: reply for reply in channel.exchange(round_number, downloads)}


@dataclass
class Grid(Post):
    """A grid whose members answer at once, with the apps' own code.

    Args:
        parties: The folder of the kit.
        lost: Returns whether a message is lost, from name, kind and the number of earlier ones of that kind.
        seen: Name, kind and reply of all messages so far.
        names: The members, in the order of their nodes.
    """

    parties: Path
    lost: Callable[[str, str, int], bool] = lambda name, kind, count: False
    seen: list[tuple[str, str, Message]] = field(default_factory=list)
    names: tuple[str, ...] = ("one", "two", "three")

    def get_nodes(self):
        return [Node(number + 1) for number in range(len(self.names))]

    def pull_messages(self, identifiers):
        return [
            reply for i in identifiers if i in self.waiting for reply in self._answers(self.waiting.pop(i))
        ]

    def _answers(self, message):
        name, kind = self.names[message.metadata.dst_node_id - 1], message.metadata.message_type
        count = sum(n == name and k == kind for n, k, _ in self.seen)
        message.metadata.__dict__["_src_node_id"] = 1
        if self.lost(name, kind, count):
            reply = Message(Error(5, "gone"), reply_to=message)
        else:
            reply = Message(self.run(name, kind, message), reply_to=message)
        self.seen.append((name, kind, reply))
        return [reply]

    def run(self, name, kind, message):
        context = SimpleNamespace(
            node_config={"h2tune": str(self.parties / "members" / name / "member.toml")}
        )
        return app.respond(kind.removeprefix("query."), message, context).content
