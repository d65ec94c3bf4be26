"""Which client is at which of Flower's nodes. New nodes are asked to identify themselves."""

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
    """The node of each client; a client may come back as another node.

    Args:
        grid: Flower's grid.
        roster: Checks and records who enrols.
        settings: The shared settings as JSON, sent with the query.
        seconds: Time to live of the query.
        patience: Seconds after which the query to a silent node is sent again.
    """

    def __init__(
        self, grid: TolerantGrid, roster: Roster, settings: str, seconds: float, patience: float
    ) -> None:
        self.grid, self.roster, self.settings = grid, roster, settings
        self.seconds, self.patience = seconds, patience
        self.nodes: dict[str, int] = {}  # client → its node, of connected ones
        self.queries: dict[str, int] = {}  # message → node, of queries without an answer
        self.warnings: list[str] = []  # why nodes were refused
        self._known: dict[int, str] = {}  # node → client, of all that enrolled, connected or not
        # of connected nodes; None: the node was identified or refused
        self._pending: dict[int, PendingRequest[Message] | None] = {}
        self._refused: set[int] = set()
        self._keys: dict[int, bytes] = {}  # of connected nodes

    def look(self) -> None:
        """Send the query to new nodes, and remove those that are disconnected."""
        self._keys = {node.node_id: node.public_key for node in self.grid.get_nodes()}
        present = set(self._keys)
        self.nodes = {client: node for client, node in self.nodes.items() if node in present}
        if not self._pending.keys() <= present:
            # a node that was refused may now get the name of one that is gone
            forgotten = (self._pending.keys() - present) | self._refused
            self._pending = {node: p for node, p in self._pending.items() if node not in forgotten}
            self._refused.clear()
        for node in sorted(present):
            client = self._known.get(node)
            if node not in self._pending and client is not None and client not in self.nodes:
                self.nodes[client] = node  # was disconnected for a while; a query would start a process there
                self._pending[node] = None
            pending = self._pending.setdefault(node, PendingRequest(self._query))
            if pending is not None and pending.due(self.patience):
                identifier = self.grid.push(pending.message(node), f"node {node}")
                if identifier:
                    self.queries[identifier] = node
                    pending.was_sent(identifier)

    def _query(self, node: int) -> Message:
        content = pack({"settings": self.settings})
        return Message(content, dst_node_id=node, message_type=ENROL, ttl=self.seconds)

    def enrol(self, identifier: str, answer: Answer) -> Card | None:
        """Return the card of a node that answered, now a client's node; None if it was refused, or its answer lost.

        Args:
            identifier: Identifier of the query.
            answer: The answer.
        """
        if not answer.certain:
            return None
        node = self.queries.pop(identifier)
        if answer.lost:
            pending = self._pending.get(node)
            if pending is not None:
                self._lost(node, pending, identifier, answer.reason)
            return None
        self._pending[node] = None
        try:
            card = self._card(node, answer)
        except H2TuneError as error:
            self._refuse(node, str(error))
            return None
        other = self.nodes.get(card.name)
        if other is not None and other != node:  # the first node keeps the name while it is connected
            self._refuse(node, f"node {node} identifies as '{card.name}', which is at node {other}")
            return None
        self.nodes[card.name], self._known[node] = node, card.name
        return card

    def _card(self, node: int, answer: Answer) -> Card:
        head, _ = answer.read(0, f"node {node}")

        def verify(name: str) -> None:
            answer.check_signature(self.roster.key_of(name), f"'{name}'")

        return self.roster.admit(text(head, "card"), self._keys.get(node, b""), verify)

    def _lost(self, node: int, pending: PendingRequest[Message], identifier: str, reason: str) -> None:
        pending.was_lost(identifier, reason)
        if pending.sent >= ATTEMPTS:  # each attempt starts a process there, which fails
            self.warnings.append(
                f"node {node} was asked {pending.sent} times to identify itself: {reason}; "
                "see its log, and restart its SuperNode"
            )
            log.warning("%s", self.warnings[-1])

    def _refuse(self, node: int, reason: str) -> None:
        self._refused.add(node)
        self.warnings.append(reason)
        log.warning("%s", reason)
