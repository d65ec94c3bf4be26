"""The coordinator's side of the agreement on an anchored basis: views up, common coordinates down, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.agreement import agreement_of
from h2tune.federation.h2tune.basis import (
    anchor_texts,
    basis_event,
    check_view,
    coordinate_count,
    get_coordinates,
    view_spec,
)
from h2tune.federation.messages import Update, check_update, payload_bytes
from h2tune.federation.run_store import RunStore
from h2tune.flower.coordinator.channel import Prepare
from h2tune.flower.coordinator.messenger import Messenger
from h2tune.flower.coordinator.queries import ask
from h2tune.flower.coordinator.teaching import Teaching


def frames_before_rounds(messenger: Messenger, store: RunStore) -> Prepare:
    """Agree on coordinates with all enrolled clients; return a function that prepares clients before a round.

    A client computes its frames from Z once; one that joins later gets the same Z.

    Args:
        messenger: Carries the messages.
        store: The run.

    Raises:
        H2TuneError: The texts cannot be read, or fewer than `min_clients` clients sent a view.
    """
    coordinator = messenger.coordinator
    basis, size = coordinator.basis, int(coordinator.server.shared_rank)
    texts = anchor_texts(basis.texts, basis.count, coordinator.seed, coordinator.data.test)
    views: dict[str, Tensor] = {}  # empty after a restart, when Z is stored already

    def gather() -> Mapping[str, Tensor]:
        views.update(_views(messenger, texts))
        return views

    count = coordinate_count(size, coordinator.teaching)
    # members compute those of an encoder
    hostile = coordinator.server.assumed_hostile
    z = None if basis.encoder else get_coordinates(store, gather, count, hostile)
    tensors = {} if z is None else {"z": z}
    framed: set[str] = set()
    teaching = Teaching(messenger, texts, tensors, count, store)

    def prepare(clients: Iterable[str]) -> None:
        present = set(clients)
        heads = {client: {"texts": texts} for client in sorted(present - framed)}
        answered = ask(
            messenger, "frames", heads, lambda *_: True, seconds=coordinator.deadline, tensors=tensors
        )
        framed.update(answered)
        for client in sorted(answered):
            facts, warnings = agreement_of(store, client)
            store.record(f"basis/{client}", [basis_event(client, views.get(client), z) | facts, *warnings])
        if coordinator.teaching != "none":
            teaching.prepare(framed & present)

    return prepare


def _views(messenger: Messenger, texts: Sequence[str]) -> dict[str, Tensor]:
    """Return how the models of enrolled clients read the texts, by client.

    Raises:
        H2TuneError: Fewer than `min_clients` clients sent a view.
    """
    coordinator, cards = messenger.coordinator, messenger.roster.cards
    size, least = int(coordinator.server.shared_rank), coordinator.server.min_clients
    specs = {name: view_spec(card.width, len(texts), size)[0] for name, card in cards.items()}

    def read(client: str, _: Mapping[str, Any], update: Update | None) -> Tensor:
        if update is None:
            raise H2TuneError("it sent no view")
        check_update(update, specs[client], client=client, round_number=0, examples=0)
        check_view(update.tensors["view"])
        return update.tensors["view"]

    views = ask(
        messenger,
        "view",
        {name: {"texts": texts} for name in cards},
        read,
        seconds=coordinator.deadline,
        most=lambda name: payload_bytes(specs[name]),
    )
    if len(views) < least:
        raise H2TuneError(
            f"{len(views)} members sent a view of the public texts; min_clients is {least}",
            where="basis",
            remedy="See the members' logs, and start again",
        )
    return views
