"""Sends messages to members over Flower's grid, again where they are lost, and collects the answers.

Members are known by name, whatever node they come back as.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from h2tune.errors import H2TuneError
from h2tune.federation.messages import Enrolment
from h2tune.flower.coordinator.node_directory import NodeDirectory
from h2tune.flower.coordinator.pending import PendingRequest, silence
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.coordinator.tolerant_grid import Answer, TolerantGrid
from h2tune.flower.files import Coordinator


class Messenger:
    """Sends messages to members and collects their answers; members may enrol at any time.

    Args:
        grid: Flower's grid.
        coordinator: Deadlines, and the settings that travel.
        experiment: Names the members' folders of this run.
        roster: Who may join, and who has.
        poll: Seconds between looks at the grid.
    """

    def __init__(
        self, grid: Grid, coordinator: Coordinator, experiment: str, roster: Roster, *, poll: float = 1.0
    ) -> None:
        self.grid, self.coordinator = TolerantGrid(grid), coordinator
        self.roster, self.poll = roster, poll
        settings = coordinator.settings.model_dump_json()
        self.common_head = {"settings": settings, "experiment": experiment}
        self.directory = NodeDirectory(
            self.grid, roster, settings, coordinator.deadline, coordinator.patience
        )
        self._taking_part: set[str] = set()

    def gather(self, *, begun: bool = False) -> None:
        """Wait until everyone who may join has enrolled; after a while, go on with those who have.

        Args:
            begun: Whether rounds were run before: they go on with who has enrolled then, or without who is missing.

        Raises:
            H2TuneError: Fewer than `min_clients` have enrolled by then; with the reasons of those who were refused.
        """
        seconds = self.coordinator.patience if begun else self.coordinator.gather
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.directory.look()
            self._enrol()
            if len(self.nodes) == len(self.roster.admitted) or (
                begun and self.roster.cards.keys() <= self.nodes.keys()
            ):
                return
            time.sleep(self.poll)
        least = self.coordinator.server.min_clients
        if len(self.roster.cards) < least:
            told = "; ".join(sorted(set(self.directory.warnings)))
            told = f" ({told})" if told else ""
            raise H2TuneError(
                f"{len(self.roster.cards)} members enrolled within {seconds:.0f} s, "
                f"min_clients is {least}{told}",
                where="coordinator",
                remedy="See that the members' SuperNodes are running, and start again",
            )

    def answers(
        self,
        asked: dict[str, PendingRequest[Message]],
        seconds: float,
        tell: Callable[[str, str], None],
        others: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[str, str, Answer | None]]:
        """Ask members, and again who is silent for long; yield who answers, to which message, and what came.

        Lasts until nobody is left in `asked`, from which its user takes out who is done with, or until time is up.
        Who is not there, or whose messages were lost, is yielded without an answer, and must be taken out.

        Args:
            asked: By member.
            seconds: The time there is.
            tell: Called with a member that is asked again, and why.
            others: Messages of earlier rounds, whose answers are yielded as well, without a member's name.
        """
        end, slowest, patience = time.monotonic() + seconds, 0.0, self.coordinator.patience
        while asked and time.monotonic() < end:
            began = time.monotonic()
            self.directory.look()
            self._send(asked, silence(seconds, patience, slowest), tell)
            for client, identifier, answer in self._arrived(asked, others or {}):
                waited = asked[client].waited if client else 0.0
                yield client, identifier, answer
                if client and client not in asked:
                    slowest = max(slowest, waited)
            for client in [c for c, a in asked.items() if a.given_up(patience)]:
                yield client, "", None
            if asked:  # many members take long to look after: rest as long
                time.sleep(max(self.poll, min(time.monotonic() - began, 10 * self.poll)))

    def _arrived(
        self, asked: Mapping[str, PendingRequest[Message]], others: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, Answer]]:
        """Take in who enrols; yield what came in answer to messages of this round and others, one at a time."""
        for identifier in list(others):
            answer = self.grid.pull(identifier) if identifier in others else None
            if answer is not None and answer.certain:
                yield "", identifier, answer
        self._enrol()
        waiting = [(client, i) for client, wanted in asked.items() for i in sorted(wanted.waiting)]
        for client, identifier in waiting:
            if client not in asked:
                continue  # it answered the same twice
            answer = self.grid.pull(identifier)
            if answer is not None and not answer.certain:
                asked[client].doubtful = True
            elif answer is not None:
                yield client, identifier, answer

    @property
    def nodes(self) -> Mapping[str, int]:
        """Member → the node it is at."""
        return self.directory.nodes

    def _send(
        self, asked: Mapping[str, PendingRequest[Message]], silence: float, tell: Callable[[str, str], None]
    ) -> None:
        """Ask those who are there, and again those that were silent for some seconds."""
        for member, wanted in asked.items():
            if member in self.nodes and wanted.due(silence, self.coordinator.patience):
                identifier = self.grid.push(wanted.message(self.nodes[member]))
                if identifier:
                    if wanted.sent:
                        tell(member, wanted.reason)
                    wanted.was_sent(identifier)

    def joined(self) -> Sequence[Enrolment]:
        """Return the members that enrolled since the last call, by name."""
        new = sorted(self.roster.cards.keys() - self._taking_part)
        self._taking_part.update(new)
        return [self.roster.cards[name].enrolment for name in new]

    def _enrol(self) -> None:
        """Take in what nodes say that were asked who they are."""
        for identifier in list(self.directory.queries):
            answer = self.grid.pull(identifier)
            if answer is not None:
                self.directory.enrol(identifier, answer)
