"""The exchange before the first round, on one machine: knowledge up, the peers' down, a lesson for each client."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from h2tune.events import Event
from h2tune.federation.checks import warning
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Tensors, manifest, payload_bytes, spec_of
from h2tune.federation.run_store import Commit, RunStore
from h2tune.federation.teaching.client import known_of, lesson_of, own_words, unable
from h2tune.federation.teaching.knowledge import KNOWLEDGE
from h2tune.federation.teaching.lesson import Lesson
from h2tune.federation.teaching.stacking import OwnScores
from h2tune.files import sha256
from h2tune.functional.quorum import Teaching

NO_COORDINATES = torch.empty(0)
MOST_PEERS = 64
"""Most peers whose weights, and whose cosines, a client's event lists: those with the largest."""
COPIED = 0.99
"""Cosine from which directions are the same; those of honest clients have 0.4 in the mean."""


def label_set(labels: Sequence[str]) -> str:
    """Return a checksum of the names of a task's labels, whatever their order: clients with the same one share."""
    return sha256(json.dumps(sorted(labels)).encode())


class TeachingExchange:
    """Each client's part of the exchange; what was computed before is not computed again.

    Args:
        teaching: The kind of knowledge.
        reader: Reads the public texts with clients' models.
        store: Keeps what is sent, what is received, and the lessons.
        z: Common coordinates of the public texts (n, R), where the knowledge needs them.
    """

    def __init__(
        self, teaching: Teaching, reader: ModelReader, store: RunStore, z: Tensor = NO_COORDINATES
    ) -> None:
        self.teaching, self.knowledge = teaching, KNOWLEDGE[teaching]
        self.reader, self.store, self.z = reader, store, z
        self._known: tuple[str, OwnScores] | None = None  # one client's: features take memory

    def upload(self, client: LocalClient) -> tuple[Tensors, dict[str, Any]]:
        """Return what a client sends, and facts: its label set, and why it takes no part (`unable`, mostly "")."""

        def compute() -> Commit:
            _, tokenizer = self.reader.get_model(client)
            facts = {"labels": label_set(client.task.labels), "unable": unable(client, tokenizer)}
            if facts["unable"]:
                return {"sent": {}}, facts
            return {"sent": self.knowledge.upload(self.z, self._known_of(client))}, facts

        tensors, facts = self.store.get_or_compute(f"clients/{client.name}/knowledge", compute)
        return tensors["sent"], facts

    def lesson(self, client: LocalClient, received: Mapping[str, Tensor]) -> Lesson:
        """Return a client's lesson, made of what it received; kept at `clients/NAME/lesson`."""

        def compute() -> Commit:
            sent, facts = self.upload(client)
            if facts["unable"]:
                lesson = Lesson((), {"taken": False, "reason": facts["unable"]})
            else:
                known = self._known_of(client)
                taught = self.knowledge.teach(self.z, known, sent, received)
                if self.teaching == "directions" and taught.facts["taken"] and (reason := own_words(client)):
                    taught = replace(taught, facts={**taught.facts, "taken": False, "reason": reason})
                lesson = lesson_of(client, taught, known.labels, self.reader.rows(client))
            untrained = {} if lesson.rows or client.splits.train else {"untrained": True}
            return {"lesson": lesson.tensors()}, {**lesson.facts, **untrained}

        tensors, facts = self.store.get_or_compute(f"clients/{client.name}/lesson", compute)
        return Lesson.of(tensors["lesson"], facts)

    def _known_of(self, client: LocalClient) -> OwnScores:
        if self._known is None or self._known[0] != client.name:
            base, tokenizer = self.reader.get_model(client)
            z = self.z if self.knowledge.needs_coordinates else None
            self._known = client.name, known_of(client, self.reader, base, tokenizer, z)
        return self._known[1]


Between = dict[str, dict[str, float]]
"""A client's peers by name: `weights`, and `cosines` where directions were sent."""


def combined(
    teaching: Teaching,
    uploads: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Any]]],
    hostile: int = 0,
) -> tuple[dict[str, Tensors], dict[str, Between]]:
    """Return what each client receives, and how it stands to each of its peers.

    Args:
        teaching: The kind of knowledge.
        uploads: Client → what it sent, and its facts: `labels`, and `unable`.
        hostile: Number f of hostile clients to tolerate.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name in sorted(uploads):
        tensors, facts = uploads[name]
        if not facts["unable"]:  # tensors of another shape belong to other labels, whatever the checksum says
            groups.setdefault((facts["labels"], repr(spec_of(tensors))), []).append(name)
    received: dict[str, Tensors] = {name: {} for name in uploads}
    between: dict[str, Between] = {name: {"weights": {}, "cosines": {}} for name in uploads}
    for names in groups.values():
        group = KNOWLEDGE[teaching].combine([uploads[name][0] for name in names], hostile)
        for i, name in enumerate(names):
            received[name] = group.received[i]
        matrices = {"weights": group.weights, "cosines": group.cosines}
        known = {key: matrix for key, matrix in matrices.items() if matrix is not None}
        for i, name in enumerate(names):
            logged = logged_peers(i, list(known.values()))
            for key, matrix in known.items():
                values = matrix[i, logged].tolist()
                between[name][key] = {names[j]: round(v, 4) for j, v in zip(logged, values, strict=True)}
    return received, between


def logged_peers(client: int, matrices: Sequence[Tensor]) -> list[int]:
    """Return the peers that a client's event lists: all, or those with the largest numbers in a row."""
    rows = [matrix[client].abs() for matrix in matrices]
    if len(rows[0]) <= MOST_PEERS + 1:
        return [j for j in range(len(rows[0])) if j != client]
    largest = {j for row in rows for j in row.topk(MOST_PEERS + 1).indices.tolist()}
    return sorted(largest - {client})


def lesson_event(
    client: str,
    teaching: Teaching,
    sent: Tensors,
    received: Tensors,
    between: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, Any],
) -> Event:
    """Return the event of a client's lesson: what it sent and received, its peers, and its decision."""
    return {
        "event": "lesson_prepared",
        "client": client,
        "teaching": teaching,
        "sent": manifest(sent),
        "received": manifest(received),
        "bytes_up": payload_bytes(spec_of(sent)),
        "bytes_down": payload_bytes(spec_of(received)),
        "weights": dict(between["weights"]),
        "cosines": dict(between["cosines"]),
        **facts,
    }


def copies(client: str, between: Between) -> list[Event]:
    """Return a warning where a client's directions are the same as a peer's, which those of honest clients are not."""
    same = [other for other, cosine in between["cosines"].items() if abs(cosine) >= COPIED]
    if not same:
        return []
    message = f"its label directions are those of {', '.join(map(repr, same))} or their opposite"
    return [warning(client, -1, "directions_copied", message)]


def teach(
    clients: Sequence[LocalClient],
    exchange: TeachingExchange,
    *,
    hostile: int = 0,
    notice: Callable[[Event], None] | None = None,
) -> list[str]:
    """Run the exchange between clients on this machine, and return the names of those that take no teacher.

    Args:
        clients: The clients.
        exchange: Their parts of it.
        hostile: Number f of hostile clients to tolerate.
        notice: Called with every event.
    """
    store, teaching = exchange.store, exchange.teaching
    uploads = {client.name: exchange.upload(client) for client in clients}

    def compute() -> Commit:
        received, between = combined(teaching, uploads, hostile)
        return {name: tensors for name, tensors in received.items() if tensors}, {"between": between}

    received, facts = store.get_or_compute("server/knowledge", compute)
    untaught: list[str] = []
    for client in sorted(clients, key=lambda client: client.name):
        mine = received.get(client.name, {})
        lesson = exchange.lesson(client, mine)
        sent, _ = uploads[client.name]
        between = facts["between"][client.name]
        event = lesson_event(client.name, teaching, sent, mine, between, lesson.facts)
        store.record(f"lesson/{client.name}", [event, *copies(client.name, between)], notice)
        if not lesson.rows:
            untaught.append(client.name)
    return untaught
