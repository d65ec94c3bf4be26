"""What a client keeps between the messages of a session: its secrets and how far it is, also as JSON; pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from h2tune.federation.secagg import keys
from h2tune.federation.secagg.encoding import bytes_to_json, keys_to_json
from h2tune.federation.secagg.protocol import Keys


@dataclass(frozen=True)
class Secrets:
    """A client's secrets of one session.

    Args:
        box: Private key for boxes (of c).
        mask: Private key for masks (of s).
        seed: Seed of its own mask (b).
    """

    box: bytes
    mask: bytes
    seed: bytes

    @classmethod
    def new(cls) -> Secrets:
        """Return random secrets."""
        return cls(keys.new_private(), keys.new_private(), secrets.token_bytes(keys.SIZE))


@dataclass(frozen=True)
class Progress:
    """How far a client is in the protocol.

    Args:
        state: The next message: "advertise", "share", "mask", "agree", "reveal", or "over".
        secrets: Its secrets; none once it is over.
        signature: Its signature of its public keys.
        roster: U₁'s public keys.
        held: The shares that this client holds, by the client that they are of.
        masked: Checksum of the values under masks; empty before.
        values: Checksum of the values before masks; empty before, and if all are zero.
        survivors: U₃ as this client signed it.
    """

    state: str = "advertise"
    secrets: Secrets = field(default_factory=Secrets.new)
    signature: str = ""
    roster: Mapping[str, Keys] = field(default_factory=dict)
    held: Mapping[str, bytes] = field(default_factory=dict)
    masked: str = ""
    values: str = ""
    survivors: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON, private keys included."""
        own = self.secrets
        return {
            "state": self.state,
            "private": bytes_to_json({"box": own.box, "mask": own.mask, "seed": own.seed}),
            "signature": self.signature,
            "roster": {name: keys_to_json(sent) for name, sent in self.roster.items()},
            "held": bytes_to_json(self.held),
            "masked": self.masked,
            "values": self.values,
            "survivors": list(self.survivors),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Progress:
        """Return the progress whose JSON this is; for a client's own file, so that sizes are not checked.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is not such JSON.
        """
        return cls(
            state=str(content["state"]),
            secrets=Secrets(**{key: bytes.fromhex(value) for key, value in content["private"].items()}),
            signature=str(content["signature"]),
            roster={
                str(name): Keys(
                    bytes.fromhex(sent["box"]), bytes.fromhex(sent["mask"]), str(sent["signature"])
                )
                for name, sent in content["roster"].items()
            },
            held={str(name): bytes.fromhex(share) for name, share in content["held"].items()},
            masked=str(content["masked"]),
            values=str(content["values"]),
            survivors=tuple(str(name) for name in content["survivors"]),
        )
