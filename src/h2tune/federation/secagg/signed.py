"""What clients sign, and who checks it: by keys that clients had before the session and no server chose; pure.

Bonawitz et al. 2017 (CCS, figure 4) assume such keys against active adversaries: each client signs its public keys in
AdvertiseKeys, and the survivors in ConsistencyCheck.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from h2tune.federation.secagg.protocol import Keys

VERSION = "h2tune secure aggregation 2"
"""Begins every statement, so that no other signature of a node is one of these."""
SIGNATURE = 104
"""The most bytes of a signature: ECDSA over P-384."""
CHARACTERS = 256
"""The most characters of a signature in a message."""


class Keyring(ABC):
    """The public signing keys of clients, by name."""

    @property
    @abstractmethod
    def names(self) -> Collection[str]:
        """Names of the clients whose keys are known."""

    @abstractmethod
    def is_signed(self, name: str, statement: bytes, signature: str) -> bool:
        """Return whether a client of this name, which must be known, signed a statement."""


class Signer(Keyring):
    """A client's own signing key, and the public keys of all."""

    @abstractmethod
    def sign(self, statement: bytes) -> str:
        """Return the client's signature of a statement."""


def keys_statement(session: bytes, threshold: int, client: str, box: bytes, mask: bytes) -> bytes:
    """Return what a client signs in AdvertiseKeys.

    Args:
        session: Names federation, run, round and attempt.
        threshold: t.
        client: The client.
        box: Its public key for boxes.
        mask: Its public key for masks.
    """
    return _statement("keys", session, [threshold, client, box.hex(), mask.hex()])


def survivors_statement(session: bytes, roster: Mapping[str, Keys], survivors: Collection[str]) -> bytes:
    """Return what a client signs in ConsistencyCheck: U₃, and all of U₁'s keys as it received them.

    Deviation: the paper signs U₃ alone.

    Args:
        session: Names federation, run, round and attempt.
        roster: U₁'s keys.
        survivors: U₃.
    """
    keys = [[name, sent.box.hex(), sent.mask.hex()] for name, sent in sorted(roster.items())]
    digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()
    return _statement("survivors", session, [digest, *sorted(survivors)])


def _statement(kind: str, session: bytes, content: list[str | int]) -> bytes:
    return json.dumps([VERSION, kind, session.decode(), *content]).encode()
