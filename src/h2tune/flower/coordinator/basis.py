"""The coordinator's part of agreeing on an anchored basis: views up, coordinates down, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.basis import agreed, agreed_event, anchor_texts, coordinate_count, view_spec
from h2tune.federation.messages import Update, check_update, payload_bytes
from h2tune.federation.run_store import RunStore
from h2tune.flower.coordinator.messenger import Messenger
from h2tune.flower.coordinator.queries import ask
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.coordinator.teaching import Teaching
from h2tune.flower.files import Coordinator


def prepare_with(
    messenger: Messenger, coordinator: Coordinator, roster: Roster, store: RunStore
) -> Callable[[Iterable[str]], None]:
    """Agree on coordinates with all who enrolled, and return what gives members their frames before a round.

    Who joins later gets frames of the same coordinates.

    Raises:
        H2TuneError: The texts cannot be read, or fewer than `min_clients` members sent a view.
    """
    basis, size = coordinator.basis, int(coordinator.server.shared_rank)
    texts = anchor_texts(basis.texts, basis.count, coordinator.seed)
    views: dict[str, Tensor] = {}  # none after a restart, when Z is there already

    def gather() -> Mapping[str, Tensor]:
        views.update(_views(messenger, coordinator, roster, texts))
        return views

    taught = coordinator.teaching != "none"
    z = agreed(store, gather, coordinate_count(size, coordinator.teaching))
    framed: set[str] = set()
    teaching = Teaching(messenger, texts, z, store) if taught else None

    def prepare(members: Iterable[str]) -> None:
        members = sorted(members)
        wanted = {m: {"texts": texts} for m in sorted(members) if m not in framed}
        have = ask(
            messenger, "frames", wanted, lambda *_: True, seconds=coordinator.deadline, tensors={"z": z}
        )
        framed.update(have)
        for member in sorted(have):
            store.record(f"basis/{member}", [agreed_event(member, views.get(member), z)])
        if teaching is not None:
            teaching.prepare(members)

    return prepare


def _views(
    messenger: Messenger, coordinator: Coordinator, roster: Roster, texts: Sequence[str]
) -> dict[str, Tensor]:
    """Ask all who enrolled how their models read the texts.

    Raises:
        H2TuneError: Fewer than `min_clients` told.
    """
    size, least = int(coordinator.server.shared_rank), coordinator.server.min_clients
    specs = {name: view_spec(card.width, len(texts), size)[0] for name, card in roster.cards.items()}

    def read(member: str, _: Mapping[str, Any], update: Update | None) -> Tensor:
        if update is None:
            raise H2TuneError("it sent no view")
        check_update(update, specs[member], client=member, round_number=0, examples=0)
        return update.tensors["view"]

    found = ask(
        messenger,
        "view",
        {name: {"texts": texts} for name in roster.cards},
        read,
        seconds=coordinator.deadline,
        most=lambda name: payload_bytes(specs[name]),
    )
    if len(found) < least:
        raise H2TuneError(
            f"{len(found)} members sent how they read the public texts; min_clients is {least}",
            where="basis",
            remedy="See the members' logs, and start again",
        )
    return found
