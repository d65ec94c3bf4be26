"""Setup of an anchored basis, once before the first round: clients agree on coordinates and compute frames.

Either a client sends its view of public texts (n, at most `DIRECTIONS` numbers per text), never of its own texts, and
receives coordinates; or a public encoder reads them, and each client computes the coordinates without sending anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.h2tune.agreement import agreed, agreement_of
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Spec, Tensors, digest, manifest, payload_bytes, spec_of
from h2tune.federation.run_store import Commit, RunStore
from h2tune.federation.teaching.knowledge import COORDINATES, KNOWLEDGE
from h2tune.functional.frames import view
from h2tune.functional.quorum import Teaching
from h2tune.seeds import derive
from h2tune.tasks.load import unlabelled
from h2tune.tasks.splits import Amount

DIRECTIONS = 128
"""Largest number of principal directions in a client's view."""
LARGEST = 1.001
"""Bound of what is one in exact arithmetic: the norm of a view, the deviation of a coordinate."""


def anchor_texts(sources: Sequence[str], count: int, seed: int, test: Amount = 1) -> list[str]:
    """Return public texts: lines of a file, or training texts (without labels) of built-in tasks, in equal parts.

    A built-in task's test examples are never used, unless a client asks for more than `data.test` of them.

    Args:
        sources: Paths of text files (one text a line), or names of built-in tasks.
        count: Number of texts in all.
        seed: Seed of the draw.
        test: `data.test`, the test examples of each client.

    Raises:
        H2TuneError: A file cannot be read, or there are too few texts.
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
            share_texts = list(dict.fromkeys(lines))[:share]
        else:
            # a seed of its own: with the clients' seed, the first texts would be the clients' own examples
            drawn = derive(seed, "public texts")
            share_texts = unlabelled(source, share, seed=drawn, test=test)
        if len(share_texts) < share:
            raise H2TuneError(
                f"{share} texts are needed, but it has {len(share_texts)}",
                where=f"basis.texts, {source}",
                remedy="Lower basis.count or give more texts",
            )
        texts += share_texts
    return texts


def view_spec(width: int, count: int, size: int) -> tuple[Spec, Spec]:
    """Return the specs of a client's view and of the coordinates that it receives."""
    return {"view": ((count, min(DIRECTIONS, width, count)), "float32")}, {"z": ((count, size), "float32")}


def check_view(sent: Tensor) -> None:
    """Refuse a view that no honest client can send: its columns are orthogonal, centred, and at most of norm one.

    One view of another scale would make up all coordinates by itself.

    Raises:
        H2TuneError: It is larger.
    """
    size = float(torch.linalg.matrix_norm(sent.double(), 2))
    if size > LARGEST:
        raise H2TuneError(
            f"its view has a spectral norm of {size:.3g}; that of an honest client is at most 1"
        )


def check_z(received: Tensor) -> None:
    """Refuse coordinates that no honest server can send: each has mean square one, or zero.

    Raises:
        H2TuneError: They are larger.
    """
    size = float(received.double().square().mean(0).max().sqrt())
    if size > LARGEST:
        raise H2TuneError(f"the common coordinates have a deviation of {size:.3g}; honest ones have 1")


def coordinate_count(size: int, teaching: Teaching) -> int:
    """Return the number of common coordinates: R for the frames, or more if directions are exchanged."""
    needed = teaching != "none" and KNOWLEDGE[teaching].needs_coordinates
    return max(size, COORDINATES) if needed else size


def compute_coordinates(
    clients: Sequence[LocalClient],
    reader: ModelReader,
    size: int,
    store: RunStore,
    encoder: str = "",
    hostile: int = 0,
) -> Tensor:
    """Return the coordinates Z (n, size) of the public texts, from all clients' views or a public encoder.

    Args:
        clients: The clients.
        reader: Reads the public texts.
        size: Number of coordinates.
        store: Caches views and coordinates.
        encoder: The public encoder; "" for none.
        hostile: Number of views that are left out.
    """
    if encoder:
        return encoder_coordinates(encoder, reader, size, store)
    return get_coordinates(
        store, lambda: {client.name: get_view(client, reader, store) for client in clients}, size, hostile
    )


def encoder_coordinates(encoder: str, reader: ModelReader, size: int, store: RunStore) -> Tensor:
    """Return the coordinates Z (n, size) of the public texts: principal directions of an encoder's states.

    They need no message: on every machine the same texts and weights give the same coordinates, up to rounding.

    Raises:
        H2TuneError: The encoder cannot be loaded.
    """
    return get_coordinates(store, lambda: {"": view(reader.states(encoder), DIRECTIONS)}, size)


def compute_frames(
    clients: Sequence[LocalClient],
    reader: ModelReader,
    z: Tensor,
    size: int,
    store: RunStore,
    *,
    encoder: str = "",
    notice: Callable[[Event], None] | None = None,
) -> None:
    """Compute each client's frames and store them at `clients/NAME/frames`.

    Args:
        clients: The clients.
        reader: Reads the public texts.
        z: The common coordinates; frames use the first R.
        size: R.
        store: Caches views, coordinates and frames.
        encoder: The public encoder; "" for none.
        notice: Called with every event.
    """
    for client in sorted(clients, key=lambda client: client.name):
        store_frames(client, reader, z[:, :size].contiguous(), store)
        event = basis_event(
            client.name, None if encoder else get_view(client, reader, store), None if encoder else z
        )
        facts, warnings = agreement_of(store, client.name)
        store.record(f"basis/{client.name}", [event | facts, *warnings], notice)


def get_view(client: LocalClient, reader: ModelReader, store: RunStore) -> Tensor:
    """Return a client's view (n, k) of the texts, which it sends; cached at `clients/NAME/view`."""

    def compute() -> Commit:
        return {"view": {"view": view(reader.finals(client), DIRECTIONS)}}, {}

    stored, _ = store.get_or_compute(f"clients/{client.name}/view", compute)
    return stored["view"]["view"]


def get_coordinates(
    store: RunStore, views: Callable[[], Mapping[str, Tensor]], size: int, hostile: int = 0
) -> Tensor:
    """Return the coordinates Z (n, size) of all views; cached at `server/basis`, without which `views` is called."""

    def compute() -> Commit:
        z, facts = agreed(views(), size, hostile)
        return {"basis": {"z": z}}, facts

    stored, _ = store.get_or_compute("server/basis", compute)
    return stored["basis"]["z"]


def store_frames(client: LocalClient, reader: ModelReader, z: Tensor, store: RunStore) -> None:
    """Compute a client's frames of Z once, and store them at `clients/NAME/frames`.

    Raises:
        H2TuneError: The stored frames belong to other coordinates.
    """
    of = digest({"z": z})
    _, facts = store.get_or_compute(
        f"clients/{client.name}/frames", lambda: ({"frames": reader.frames(client, z)}, {"z": of})
    )
    if facts.get("z") != of:
        raise H2TuneError("the stored frames of this client belong to other coordinates")


def basis_event(client: str, sent: Tensor | None, received: Tensor | None) -> Event:
    """Return the event that a client has its frames.

    Args:
        client: Its name.
        sent: Its view; None of a client that joined later, or where an encoder makes the coordinates.
        received: The coordinates; None where it computed them.
    """
    up: Tensors = {} if sent is None else {"view": sent}
    down: Tensors = {} if received is None else {"z": received}
    return {
        "event": "basis_agreed",
        "client": client,
        "sent": manifest(up),
        "received": manifest(down),
        "bytes_up": payload_bytes(spec_of(up)),
        "bytes_down": payload_bytes(spec_of(down)),
    }
