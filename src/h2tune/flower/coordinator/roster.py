"""Who may join, who has joined, and what is believed of what they say. Knows no flwr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from h2tune import files
from h2tune.errors import H2TuneError, nearest
from h2tune.events import Event
from h2tune.flower.card import Card, read_card
from h2tune.flower.files import Coordinator

KINDS = ("evaluated", "client_trained", "warning")
EVENT_BYTES = 2**22
DEPTH = 8
"""How deep lists and objects of events may be nested; else writing them could fail where reading did not."""


class Roster:
    """The members of a federation, by name; kept in the run folder, so that they are known after a restart.

    Args:
        coordinator: Who may join, and with what.
        file: Where to keep them.
    """

    def __init__(self, coordinator: Coordinator, file: Path) -> None:
        self.coordinator, self.file = coordinator, file
        self.admitted = {member.name: member for member in coordinator.member}
        self.cards: dict[str, Card] = {}
        if file.exists():
            for name, text in _kept(file).items():
                if name not in self.admitted:
                    continue  # was taken out of the coordinator's file, and takes part no more
                card = read_card(json.dumps(text))
                self._check(card)
                self.cards[card.name] = card

    def admit(self, text: str, key: bytes = b"") -> Card:
        """Take a member in, or know it again.

        Args:
            text: Its card as it came over the wire.
            key: Public key that its node authenticated with (PEM); empty without authentication.

        Raises:
            H2TuneError: It may not join, is not what the coordinator's file says, or is not what it was.
        """
        card = read_card(text)
        self._check(card)
        stated = self.admitted[card.name].key
        if stated is not None and key.strip() != pem(stated).strip():
            raise H2TuneError(
                "its node authenticated with another key than its name has", where=f"'{card.name}'"
            )
        known = self.cards.get(card.name)
        if known is not None and known.enrolment != card.enrolment:
            raise H2TuneError(
                "depth, rank, roles or examples are not what it enrolled with",
                where=f"'{card.name}'",
                remedy="Put its model, rank and data back, or let it join under another name",
            )
        if known is None:
            self.cards[card.name] = card
            files.write_json(self.file, {name: c.model_dump() for name, c in sorted(self.cards.items())})
        return self.cards[card.name]

    def _check(self, card: Card) -> None:
        where = f"'{card.name}'"
        admitted = self.admitted.get(card.name)
        if admitted is None:
            names = sorted(self.admitted)
            raise H2TuneError(f"nobody of that name may join{nearest(card.name, names)}", where=where)
        for key in ("rank", "depth"):
            stated = getattr(admitted, key)
            if stated is not None and getattr(card, key) != stated:
                raise H2TuneError(f"{key} {getattr(card, key)} is not the stated {stated}", where=where)
        if admitted.examples is not None and card.examples > admitted.examples:
            raise H2TuneError(
                f"{card.examples} examples are more than the stated {admitted.examples}", where=where
            )
        if card.rank > int(self.coordinator.server.shared_rank):
            raise H2TuneError(
                f"rank {card.rank} is above R = {self.coordinator.server.shared_rank}", where=where
            )
        foreign = sorted(set(card.roles) - set(self.coordinator.roles))
        if foreign:
            raise H2TuneError(f"role '{foreign[0]}' is not shared here", where=where)


def _kept(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise H2TuneError("holds no members", where=str(file), remedy="Put it back from a copy")
    return found


def pem(key: str) -> bytes:
    """Return an OpenSSH public key as PEM, as Flower keeps it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

    try:
        loaded = load_ssh_public_key(key.encode())
    except ValueError:
        raise H2TuneError("is no OpenSSH public key", where="member.key") from None
    return loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_events(text: str, client: str, round_number: int) -> list[Event]:
    """Return a member's events, as far as they are its own, of this round, and of a kind that a member may tell.

    Raises:
        H2TuneError: They are no list of events.
    """
    if len(text) > EVENT_BYTES:
        raise H2TuneError("its events are too long", where=f"'{client}'")
    try:
        events = json.loads(text)
    except (ValueError, RecursionError):
        events = None
    if not isinstance(events, list):
        raise H2TuneError("its events are no list", where=f"'{client}'")
    if _is_deeper(events, DEPTH):
        raise H2TuneError(f"its events are nested deeper than {DEPTH}", where=f"'{client}'")
    return [event for event in events if isinstance(event, dict) and _may_tell(event, client, round_number)]


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(item, levels - 1) for item in inner)


def _may_tell(event: Mapping[str, Any], client: str, round_number: int) -> bool:
    rounds = (round_number, -1) if event.get("event") == "evaluated" else (round_number,)
    own = event.get("client") == client and event.get("round") in rounds
    return own and event.get("event") in KINDS and event.get("stage", "trained") in ("trained", "before")
