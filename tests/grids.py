"""Flower's grid in memory: members answer at once, with the apps' own code. Needs flwr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from flwr.app import Error, Message

from h2tune.federation.flower import client_app
from h2tune.federation.flower.messages import pack


@dataclass
class Node:
    node_id: int
    public_key: bytes = b""


@dataclass
class Grid:
    """A grid whose members answer at once, with the apps' own code; `lost` says which messages are."""

    parties: Any
    lost: Callable[[str, str, int], bool] = lambda name, kind, count: False
    waiting: dict[str, Message] = field(default_factory=dict)
    seen: list[tuple[str, str, Message]] = field(default_factory=list)
    names: tuple[str, ...] = ("one", "two", "three")

    def get_nodes(self):
        return [Node(number + 1) for number in range(len(self.names))]

    def push_messages(self, messages):
        names = []
        for message in messages:
            name = f"m{len(self.seen) + len(self.waiting) + len(names)}"
            message.metadata.__dict__["_message_id"] = name
            self.waiting[name] = message
            names.append(name)
        return names

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
        own = {
            "query.enrol": client_app._enrol,
            "query.view": client_app._view,
            "query.frames": client_app._frames,
            "train": client_app._train,
        }
        work = own.get(kind) or partial(client_app._protocol, kind.removeprefix("query."))
        try:
            return work(message, context)
        except Exception as error:
            return pack({"reason": client_app._reason(error)})
