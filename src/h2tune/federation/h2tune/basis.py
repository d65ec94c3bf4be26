"""Agreeing on an anchored basis, once before the first round: views up, coordinates down, frames at home.

What leaves a client here is its view of public texts (n, at most `DIRECTIONS` numbers a text), never of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Spec, Tensors, digest, manifest, payload_bytes, spec_of
from h2tune.federation.run_store import Commit, RunStore
from h2tune.federation.teaching.knowledge import COORDINATES, KNOWLEDGE
from h2tune.functional.frames import common_coordinates, view
from h2tune.functional.quorum import Teaching
from h2tune.tasks.load import load_task

DIRECTIONS = 128
"""Principal directions in which a member tells how it reads the texts."""


def anchor_texts(sources: Sequence[str], count: int, seed: int) -> list[str]:
    """Return public texts: lines of a file, or training texts (without labels) of built-in tasks, in equal parts.

    A built-in task's test examples are never among them.

    Args:
        sources: Paths of text files (one text a line), or names of built-in tasks.
        count: Number of texts in all.
        seed: Of the draw.

    Raises:
        H2TuneError: A file that is not there, or too few texts.
    """
    texts: list[str] = []
    for i, source in enumerate(sources):
        share = count * (i + 1) // len(sources) - count * i // len(sources)
        path = Path(source)
        if path.suffix in (".txt", ".text") or "/" in source:
            try:
                lines = [
                    line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
                ]
            except (OSError, UnicodeDecodeError) as error:
                raise H2TuneError(f"cannot be read ({error})", where=f"basis.texts, {source}") from None
            found = list(dict.fromkeys(lines))[:share]
        else:
            _, splits = load_task(source, train=share, validation=0, test=1, seed=seed)
            found = [example.text for example in splits.train]
        if len(found) < share:
            raise H2TuneError(
                f"{share} texts are wanted, {len(found)} are there",
                where=f"basis.texts, {source}",
                remedy="Lower basis.count or give more texts",
            )
        texts += found
    return texts


def view_spec(width: int, count: int, size: int) -> tuple[Spec, Spec]:
    """Return what a member sends and gets when the basis is agreed on."""
    return {"view": ((count, min(DIRECTIONS, width, count)), "float32")}, {"z": ((count, size), "float32")}


def coordinate_count(size: int, teaching: Teaching) -> int:
    """Return the number of coordinates to agree on: R for the frames, and more where directions are exchanged."""
    needed = teaching != "none" and KNOWLEDGE[teaching].needs_coordinates
    return max(size, COORDINATES) if needed else size


def agree_on_coordinates(
    clients: Sequence[LocalClient], reader: ModelReader, size: int, store: RunStore
) -> Tensor:
    """Return the coordinates Z (n, size) of the public texts that all clients' models have in common.

    Args:
        clients: The clients.
        reader: Reads the public texts.
        size: Number of coordinates.
        store: Keeps views and coordinates; what is there is not computed again.
    """
    return agreed(store, lambda: {client.name: own_view(client, reader, store) for client in clients}, size)


def agree_on_basis(
    clients: Sequence[LocalClient],
    reader: ModelReader,
    z: Tensor,
    size: int,
    store: RunStore,
    *,
    notice: Callable[[Event], None] | None = None,
) -> None:
    """Compute each client's frames and keep them at `clients/NAME/frames`.

    Args:
        clients: The clients.
        reader: Reads the public texts.
        z: The coordinates that all agreed on; the frames are of the first R.
        size: R.
        store: Keeps views, coordinates and frames; what is there is not computed again.
        notice: Called with every event.
    """
    for client in sorted(clients, key=lambda client: client.name):
        keep_frames(client, reader, z[:, :size].contiguous(), store)
        event = agreed_event(client.name, own_view(client, reader, store), z)
        store.record(f"basis/{client.name}", [event], notice)


def own_view(member: LocalClient, reader: ModelReader, store: RunStore) -> Tensor:
    """Return how a member's model reads the texts (n, k), which is what it sends; computed once."""

    def compute() -> Commit:
        return {"view": {"view": view(reader.finals(member), DIRECTIONS)}}, {}

    kept, _ = store.get_or_compute(f"clients/{member.name}/view", compute)
    return kept["view"]["view"]


def agreed(store: RunStore, views: Callable[[], Mapping[str, Tensor]], size: int) -> Tensor:
    """Return the coordinates Z (n, R) of all views, kept at `server/basis`; the views are asked for only once."""

    def compute() -> Commit:
        given = views()
        return {"basis": {"z": common_coordinates([given[name] for name in sorted(given)], size)}}, {}

    kept, _ = store.get_or_compute("server/basis", compute)
    return kept["basis"]["z"]


def keep_frames(member: LocalClient, reader: ModelReader, z: Tensor, store: RunStore) -> None:
    """Compute a member's frames of Z, once, and keep them at `clients/NAME/frames`.

    Raises:
        H2TuneError: It has frames of other coordinates.
    """
    of = digest({"z": z})
    _, facts = store.get_or_compute(
        f"clients/{member.name}/frames", lambda: ({"frames": reader.frames(member, z)}, {"z": of})
    )
    if facts.get("z") != of:
        raise H2TuneError("this member's frames are of other coordinates than these")


def agreed_event(client: str, sent: Tensor | None, z: Tensor) -> Event:
    """Return the event that a client has its frames; who came later than the others sent no view."""
    up: Tensors = {} if sent is None else {"view": sent}
    return {
        "event": "basis_agreed",
        "client": client,
        "sent": manifest(up),
        "received": manifest({"z": z}),
        "bytes_up": payload_bytes(spec_of(up)),
        "bytes_down": payload_bytes(spec_of({"z": z})),
    }
