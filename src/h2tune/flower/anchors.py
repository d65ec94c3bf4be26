"""Agreeing on an anchored basis across machines: views up, coordinates down, once. Both halves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.basis import (
    agreed,
    agreed_event,
    anchor_texts,
    keep_frames,
    own_view,
    view_spec,
)
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.h2tune.reading_cache import kept_readings
from h2tune.federation.local_engine import BaseModels
from h2tune.federation.messages import Tensors, Update, check_update, payload_bytes
from h2tune.federation.run_store import RunStore
from h2tune.flower.coordinator.queries import ask
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.files import Coordinator, Settings
from h2tune.flower.member.round import Joined, addressed, at_work

if TYPE_CHECKING:
    from h2tune.flower.coordinator.channel import GridChannel

MOST_TEXTS, MOST_CHARACTERS = 20_000, 2**22
"""The most public texts that a member reads, and the most characters of all together."""


def prepare_with(
    channel: GridChannel, coordinator: Coordinator, roster: Roster, ledger: RunStore
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
        views.update(_views(channel, coordinator, roster, texts))
        return views

    z = agreed(ledger, gather, size)
    framed: set[str] = set()

    def prepare(members: Iterable[str]) -> None:
        wanted = {m: {"texts": texts} for m in sorted(members) if m not in framed}
        have = ask(channel, "frames", wanted, lambda *_: True, seconds=coordinator.deadline, tensors={"z": z})
        framed.update(have)
        for member in sorted(have):
            ledger.record(f"basis/{member}", [agreed_event(member, views.get(member), z)])

    return prepare


def _views(
    channel: GridChannel, coordinator: Coordinator, roster: Roster, texts: Sequence[str]
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
        channel,
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


def give_view(
    path: Path,
    settings: Settings,
    experiment: str,
    name: str,
    texts: Sequence[str],
    models: BaseModels | None = None,
) -> Update:
    """Return how a member's model reads the coordinator's public texts.

    Raises:
        H2TuneError: The message is not for this member, or not of its federation's basis.
    """
    joined = _reader(path, settings, experiment, name, texts)
    with at_work(joined, settings, experiment, models) as engine:
        # the frames are another process's
        reader = ModelReader(engine.base_of, texts, room=0, kept=kept_readings())
        return Update(name, 0, 0, {"view": own_view(joined.member, reader, engine.ledger)})


def take_frames(
    path: Path,
    settings: Settings,
    experiment: str,
    name: str,
    texts: Sequence[str],
    tensors: Tensors,
    models: BaseModels | None = None,
) -> None:
    """Compute and keep a member's frames of the coordinates that all agreed on.

    Raises:
        H2TuneError: As `give_view`, or the coordinates are none, or others than this member has frames of.
    """
    spec = view_spec(1, len(texts), int(settings.server.shared_rank))[1]
    check_update(Update(name, 0, 0, tensors), spec, client=name, round_number=0, examples=0)
    joined = _reader(path, settings, experiment, name, texts)
    with at_work(joined, settings, experiment, models) as engine:
        reader = ModelReader(engine.base_of, texts, kept=kept_readings())
        keep_frames(joined.member, reader, tensors["z"], engine.ledger)


def texts_of(head: Mapping[str, Any]) -> list[str]:
    """Return the public texts that a message brings.

    Raises:
        H2TuneError: There are none, or too many.
    """
    texts = head.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise H2TuneError("the message brings no texts")
    if not 8 <= len(texts) <= MOST_TEXTS or sum(map(len, texts)) > MOST_CHARACTERS:
        raise H2TuneError(
            f"8 to {MOST_TEXTS} texts of {MOST_CHARACTERS} characters in all are read, not {len(texts)}"
        )
    return texts


def _reader(path: Path, settings: Settings, experiment: str, name: str, texts: Sequence[str]) -> Joined:
    joined = addressed(path, settings, experiment, name)
    if settings.basis.kind != "anchored" or settings.basis.count != len(texts):
        raise H2TuneError("the texts are not those of the settings' basis")
    return joined
