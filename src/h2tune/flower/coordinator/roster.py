"""Who may join and who has joined; checks each card against the coordinator's file. Knows no flwr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from h2tune import files
from h2tune.errors import H2TuneError, nearest
from h2tune.flower.card import Card, read_card
from h2tune.flower.files import CoordinatorFile


class Roster:
    """The members of a federation, by name; stored in the run folder for restarts.

    Args:
        coordinator: Who may join, and with what.
        file: The file that stores their cards.
    """

    def __init__(self, coordinator: CoordinatorFile, file: Path) -> None:
        self.coordinator, self.file = coordinator, file
        self.admitted = {member.name: member for member in coordinator.member}
        self.cards: dict[str, Card] = {}
        if file.exists():
            for name, text in _stored(file).items():
                if name not in self.admitted:
                    continue  # was removed from the coordinator's file, and takes part no more
                card = read_card(json.dumps(text))
                self._check(card)
                self.cards[card.name] = card

    def admit(self, text: str, key: bytes = b"", verify: Callable[[str], None] = lambda name: None) -> Card:
        """Check a member's card, store it if it is new, and return it.

        Args:
            text: Its card as it came over the wire.
            key: Public key that its node authenticated with (PEM); empty without authentication.
            verify: Called with its name before the card counts; may raise `H2TuneError`.

        Raises:
            H2TuneError: It may not join, contradicts the coordinator's file, or differs from its stored card.
        """
        card = read_card(text)
        self._check(card)
        where = f"'{card.name}'"
        stated = self.admitted[card.name].key
        if stated is not None and key.strip() != pem(stated).strip():
            raise H2TuneError("its node authenticated with another key than its name has", where=where)
        verify(card.name)
        known = self.cards.get(card.name)
        if known is not None and known.enrolment != card.enrolment:
            raise H2TuneError(
                "depth, rank, roles or examples are not what it enrolled with",
                where=where,
                remedy="Put its model, rank and data back, or let it join under another name",
            )
        if known is None:
            self.cards[card.name] = card
            files.write_json(self.file, {name: c.model_dump() for name, c in sorted(self.cards.items())})
        return self.cards[card.name]

    def key_of(self, name: str) -> bytes:
        """Return the public key (PEM) that the coordinator's file binds to a name; empty if it binds none."""
        admitted = self.admitted.get(name)
        return b"" if admitted is None or admitted.key is None else pem(admitted.key)

    def _check(self, card: Card) -> None:
        """Check a card against the coordinator's file.

        Raises:
            H2TuneError: It may not join, or contradicts the file.
        """
        where = f"'{card.name}'"
        admitted = self.admitted.get(card.name)
        if admitted is None:
            suggestion = nearest(card.name, sorted(self.admitted))
            raise H2TuneError(f"nobody of that name may join{suggestion}", where=where)
        for key in ("rank", "depth"):
            stated = getattr(admitted, key)
            if stated is not None and getattr(card, key) != stated:
                raise H2TuneError(f"{key} {getattr(card, key)} is not the stated {stated}", where=where)
        if admitted.examples is not None and card.examples > admitted.examples:
            raise H2TuneError(
                f"{card.examples} examples are more than the stated {admitted.examples}", where=where
            )
        size = int(self.coordinator.server.shared_rank)
        if card.rank > size:
            raise H2TuneError(f"rank {card.rank} is above R = {size}", where=where)
        foreign = sorted(set(card.roles) - set(self.coordinator.roles))
        if foreign:
            raise H2TuneError(f"role '{foreign[0]}' is not shared here", where=where)


def _stored(file: Path) -> dict[str, Any]:
    try:
        cards = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        cards = None
    if not isinstance(cards, dict):
        raise H2TuneError("contains no cards of members", where=str(file), remedy="Restore it from a copy")
    return cards


def pem(key: str) -> bytes:
    """Return an OpenSSH public key as PEM, the format in which Flower stores it.

    Raises:
        H2TuneError: It is not an OpenSSH public key.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

    try:
        loaded = load_ssh_public_key(key.encode())
    except ValueError:
        raise H2TuneError("not an OpenSSH public key", where="member.key") from None
    return loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
