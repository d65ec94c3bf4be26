"""Agreeing on an anchored basis, once before the first round: views up, coordinates down, frames at home.

What leaves a client here is its view of public texts (n, at most `DIRECTIONS` numbers a text), never of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.adapter.anchors import common_coordinates, down_frame, up_frame, view
from h2tune.errors import H2TuneError
from h2tune.federation.client import Member
from h2tune.federation.ledger import Event, Ledger
from h2tune.federation.update import Spec, Tensors, manifest, payload_bytes, spec_of
from h2tune.tasks.task import load_task
from h2tune.training.readings import read_texts

GetModel = Callable[[Member], tuple[PreTrainedModel, PreTrainedTokenizerBase]]

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


def agree_on_basis(
    members: Sequence[Member],
    get_model: GetModel,
    texts: Sequence[str],
    size: int,
    ledger: Ledger,
    *,
    notice: Callable[[Event], None] | None = None,
) -> None:
    """Let the members agree on coordinates, and keep each one's frames at `clients/NAME/frames`.

    Args:
        members: The clients.
        get_model: Returns a member's base model and tokenizer.
        texts: The public texts, the same for all.
        size: R.
        ledger: Keeps views, coordinates and frames; what is there is not computed again.
        notice: Called with every event.
    """
    views: Tensors = {}
    for member in sorted(members, key=lambda member: member.name):
        kept, _ = ledger.once(f"clients/{member.name}/view", partial(_view, member, get_model, texts))
        views[member.name] = kept["view"]["view"]
    kept, _ = ledger.once(
        "server/basis", lambda: ({"basis": {"z": common_coordinates(list(views.values()), size)}}, {})
    )
    z = kept["basis"]["z"]
    for member in sorted(members, key=lambda member: member.name):
        compute = partial(_frames, member, get_model, texts, views[member.name], z)
        _, facts = ledger.once(f"clients/{member.name}/frames", compute)
        ledger.record(f"basis/{member.name}", [facts["event"]], notice)


def _view(
    member: Member, get_model: GetModel, texts: Sequence[str]
) -> tuple[dict[str, Tensors], dict[str, Any]]:
    finals, _, _ = _read(member, get_model, texts, [])
    return {"view": {"view": view(finals, DIRECTIONS)}}, {}


def _frames(
    member: Member, get_model: GetModel, texts: Sequence[str], own_view: Tensor, z: Tensor
) -> tuple[dict[str, Tensors], dict[str, Any]]:
    modules = list(member.enrolment.modules)
    _, inputs, outputs = _read(member, get_model, texts, modules)
    frames: Tensors = {}
    for name in modules:
        frames[f"{name}.down"] = down_frame(inputs.pop(name), z)
        frames[f"{name}.up"] = up_frame(outputs.pop(name), z)
    sent, received = {"view": own_view}, {"z": z}
    event = {
        "event": "basis_agreed",
        "client": member.name,
        "sent": manifest(sent),
        "received": manifest(received),
        "bytes_up": payload_bytes(spec_of(sent)),
        "bytes_down": payload_bytes(spec_of(received)),
    }
    return {"frames": frames}, {"event": event}


def _read(
    member: Member, get_model: GetModel, texts: Sequence[str], modules: Sequence[str]
) -> tuple[Tensor, Tensors, Tensors]:
    model, tokenizer = get_model(member)
    return read_texts(
        model,
        tokenizer,
        member.task,
        texts,
        causal=member.causal,
        modules=modules,
        batch_size=member.evaluate_batch_size,
    )
