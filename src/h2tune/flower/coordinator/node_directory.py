"""Who is there: which member is at which of Flower's nodes. Nodes that are new are asked who they are."""

from __future__ import annotations

import logging

from flwr.app import Message

from h2tune.errors import H2TuneError
from h2tune.flower.card import Card
from h2tune.flower.coordinator.pending import ATTEMPTS, PendingRequest
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.coordinator.tolerant_grid import Answer, TolerantGrid
from h2tune.flower.messages import ENROL, pack, text

log = logging.getLogger("flwr.h2tune")


class NodeDirectory:
    """Members by the node they are at, whatever node they come back as.

    Args:
        grid: Flower's grid.
        roster: Who may join, and who has.
        settings: What all parties have in common, which goes with the question.
        seconds: How long an answer may take.
        patience: Seconds after which a node that is silent is asked again.
    """

    def __init__(
        self, grid: TolerantGrid, roster: Roster, settings: str, seconds: float, patience: float
    ) -> None:
        self.grid, self.roster, self.settings = grid, roster, settings
        self.seconds, self.patience = seconds, patience
        self.nodes: dict[str, int] = {}  # member → the node it is at
        self.queries: dict[str, int] = {}  # message → node that was asked who it is
        self.warnings: list[str] = []  # why someone was refused
        self._known: dict[int, str] = {}  # node → member, of all that enrolled, whether they are there or not
        self._asked: dict[
            int, PendingRequest[Message] | None
        ] = {}  # nodes that are there; None: who it is is settled
        self._unwelcome: set[int] = set()

    def look(self) -> None:
        """Ask nodes that are new who they are, and forget those that are gone."""
        present = {node.node_id for node in self.grid.get_nodes()}
        self.nodes = {client: node for client, node in self.nodes.items() if node in present}
        if not self._asked.keys() <= present:  # who was refused for another's sake may have its turn
            forgotten = (self._asked.keys() - present) | self._unwelcome
            self._asked = {n: asked for n, asked in self._asked.items() if n not in forgotten}
            self._unwelcome.clear()
        for node in sorted(present):
            client = self._known.get(node)
            if node not in self._asked and client is not None and client not in self.nodes:
                self.nodes[client] = node  # was cut off for a while; asking would start a process there first
                self._asked[node] = None
            asked = self._asked.setdefault(node, PendingRequest(self._question))
            if asked is not None and asked.due(self.patience):
                identifier = self.grid.push(asked.message(node))
                if identifier:
                    self.queries[identifier] = node
                    asked.was_sent(identifier)

    def _question(self, node: int) -> Message:
        content = pack({"settings": self.settings})
        return Message(content, dst_node_id=node, message_type=ENROL, ttl=self.seconds)

    def enrol(self, identifier: str, answer: Answer) -> Card | None:
        """Return the card of who answers, now known to be there; None if it is refused, or was lost.

        Args:
            identifier: Of the message that asked who it is.
            answer: What came.
        """
        if not answer.certain:
            return None
        node = self.queries.pop(identifier)
        if answer.lost:
            asked = self._asked.get(node)
            if asked is not None:
                self._lost(node, asked, identifier, answer.reason)
            return None
        self._asked[node] = None
        try:
            card = self._card(node, answer)
        except H2TuneError as error:
            self._refuse(node, str(error))
            return None
        other = self.nodes.get(card.name)
        if other is not None and other != node:  # the first to come has the name, until its node is gone
            self._refuse(node, f"node {node} says it is '{card.name}', which is at node {other}")
            return None
        self.nodes[card.name], self._known[node] = node, card.name
        return card

    def _card(self, node: int, answer: Answer) -> Card:
        head, _ = answer.read(0, f"node {node}")
        key = next((n.public_key for n in self.grid.get_nodes() if n.node_id == node), b"")
        return self.roster.admit(text(head, "card"), key)

    def _lost(self, node: int, asked: PendingRequest[Message], identifier: str, reason: str) -> None:
        asked.was_lost(identifier, reason)
        if asked.sent >= ATTEMPTS:  # each attempt starts a process there, which fails
            self.warnings.append(
                f"node {node} was asked {asked.sent} times who it is: {reason}; "
                "see its log, and start its SuperNode again"
            )
            log.warning("%s", self.warnings[-1])

    def _refuse(self, node: int, reason: str) -> None:
        self._unwelcome.add(node)
        self.warnings.append(reason)
        log.warning("%s", reason)
