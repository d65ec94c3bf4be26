"""What the coordinator's messages ask of a member; untrusted. Knows no flwr."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from h2tune.federation.messages import Tensors
from h2tune.flower.files import Settings
from h2tune.flower.member.secure import Masks


@dataclass(frozen=True)
class Request:
    """The part that messages have in common.

    Args:
        settings: The coordinator's settings.
        experiment: Name of the coordinator's run, and of a folder within the member's.
        client: Name of the client that the message is for.
    """

    settings: Settings
    experiment: str
    client: str


@dataclass(frozen=True)
class BasisRequest(Request):
    """A message of the agreement on an anchored basis.

    Args:
        texts: The public texts.
    """

    texts: Sequence[str]


@dataclass(frozen=True)
class RoundRequest(Request):
    """The message of a round.

    Args:
        round: Number of the round.
        digest: Checksum of the shared tensors that the client must have after loading the download.
        tensors: The server's tensors.
        masks: With secure aggregation, the data for the masks of the update.
        taken_back: First round of each taking back of the run, in order.
    """

    round: int
    digest: str
    tensors: Tensors
    masks: Masks | None = None
    taken_back: Sequence[int] = ()
