"""The interface of an engine: sends the server's messages to the clients, and returns their replies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from h2tune.events import Event
from h2tune.federation.messages import Download, Enrolment, Tensors, Update, payload_bytes
from h2tune.federation.strategy import Decoded, Strategy


@dataclass(frozen=True)
class Reply:
    """A client's reply in a round: an update, or the reason why there is none; and its events.

    Args:
        client: The client's name.
        update: Its update, or None.
        events: Its events.
        reason: Why there is no update.
        late: Number of the earlier round of the update, if the channel delivers late updates; else None.
    """

    client: str
    update: Update | None
    events: Sequence[Event]
    reason: str = ""
    late: int | None = None


class Downloads(Mapping[str, Download]):
    """The server's messages of a round, by client; each is built on access, so that not all are in memory at once.

    Args:
        strategy: The method.
        state: The server's tensors.
        clients: The clients of the round.
        round_number: Number of the round, from 0.
    """

    def __init__(
        self, strategy: Strategy[Any], state: Tensors, clients: Sequence[str], round_number: int
    ) -> None:
        self.strategy, self.state, self.round = strategy, state, round_number
        self.clients = dict.fromkeys(clients)

    def __getitem__(self, client: str) -> Download:
        if client not in self.clients:
            raise KeyError(client)
        return self.strategy.download(self.state, client, self.round)

    def __iter__(self) -> Iterator[str]:
        return iter(self.clients)

    def __len__(self) -> int:
        return len(self.clients)

    def only(self, clients: Sequence[str]) -> Downloads:
        """Return the messages to a part of the clients."""
        return Downloads(self.strategy, self.state, clients, self.round)

    def upload_bytes(self, client: str, round_number: int) -> int:
        """Return the bytes of tensors in a client's update of a round."""
        return payload_bytes(self.strategy.upload_spec(client, round_number))


@dataclass(frozen=True)
class Unmasked:
    """The unmasked sum of masked updates.

    Args:
        total: The sum, as an argument of the strategy's `aggregate_sum`.
        facts: Facts of the protocol for the round's event.
    """

    total: Tensor
    facts: dict[str, Any]


class Channel(ABC):
    """Transports messages to clients and back: the local engine, or Flower."""

    @abstractmethod
    def exchange(self, round_number: int, downloads: Downloads) -> Iterable[Reply]:
        """Send each client its download and yield the replies; the reply of a client that failed has a reason."""

    def joined(self) -> Sequence[Enrolment]:
        """Return clients that enrolled since the last call, which take part from now on; by default none."""
        return ()

    def unmask(self, updates: Sequence[Decoded[Any]]) -> Unmasked | None:
        """Return the sum of a round's masked updates; by default None, since updates are not masked."""
        return None
