"""Messages between server and clients: enrolments, downloads, updates; their validation and checksums."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor

from h2tune.errors import H2TuneError

Tensors = dict[str, Tensor]
Spec = dict[str, tuple[tuple[int, ...], str]]
"""Name → (shape, dtype) of the tensors of a message."""

WIRE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "uint8": torch.uint8}
WIRE |= {"int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64}

HEAD_BYTES = 2**16
"""Largest safetensors header of an update in bytes; as Python objects it takes many times the memory."""
LARGEST = 1e15
"""Largest magnitude of a value in a message, since larger finite ones can overflow in sums."""


@dataclass(frozen=True)
class Enrolment:
    """What the server knows about a client before the first round.

    Args:
        name: The client's own name.
        model: Its base model; methods that need one common base model group clients by it.
        depth: Number of blocks L.
        rank: r.
        examples: Number of training examples.
        roles: Role → the blocks that have it.
        modules: Adapted module → (d_in, d_out).
    """

    name: str
    model: str
    depth: int
    rank: int
    examples: int
    roles: Mapping[str, tuple[int, ...]]
    modules: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Download:
    """What the server sends a client at the start of a round.

    Args:
        round: Number of the round, from 0.
        tensors: What changed since the client's initial state; empty in the first round.
        digest: Checksum of the shared tensors that the client must have after loading them.
    """

    round: int
    tensors: Tensors
    digest: str


@dataclass(frozen=True)
class Update:
    """What a client sends at the end of a round, besides events.

    Args:
        client: The client's name.
        round: Number of the round, from 0.
        examples: Number of examples it trained on, its weight in the aggregate.
        tensors: The values to aggregate.
    """

    client: str
    round: int
    examples: int
    tensors: Tensors = field(default_factory=dict)


def spec_of(tensors: Mapping[str, Tensor]) -> Spec:
    """Return names, shapes and types."""
    return {name: (tuple(t.shape), _dtype_name(t)) for name, t in tensors.items()}


def payload_bytes(spec: Spec) -> int:
    """Return the bytes of the tensors of a message, without its header."""
    total = 0
    for shape, dtype in spec.values():
        count = 1
        for axis in shape:
            count *= axis
        total += count * WIRE[dtype].itemsize
    return total


def manifest(tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return the wire manifest: name, shape, type, bytes and checksum of every tensor, by name."""
    return [
        {
            "name": name,
            "shape": list(tensors[name].shape),
            "dtype": _dtype_name(tensors[name]),
            "bytes": tensors[name].numel() * tensors[name].element_size(),
            "sha256": digest({name: tensors[name]}),
        }
        for name in sorted(tensors)
    ]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, shapes, types and values."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        state.update(f"{name}|{tuple(tensor.shape)}|{_dtype_name(tensor)}|".encode())
        state.update(tensor.flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()


def check_update(update: Update, spec: Spec, *, client: str, round_number: int, examples: int) -> None:
    """Validate that an update is exactly what this client may send in this round.

    Raises:
        H2TuneError: The message names the reason: another client or round, another example count, missing or
            unexpected names, wrong shapes or types, values that are not finite or huge.
    """
    where = f"update of client '{client}'"
    if update.client != client:
        raise H2TuneError(f"it says it is from '{update.client}'", where=where)
    if update.round != round_number:
        raise H2TuneError(f"it is of round {update.round}, not {round_number}", where=where)
    if update.examples != examples:
        raise H2TuneError(f"it claims {update.examples} examples; {examples} are enrolled", where=where)
    check_tensors(update.tensors, spec, where)


def check_tensors(tensors: Mapping[str, Tensor], spec: Spec, where: str) -> None:
    """Validate names, shapes and types of tensors against a spec, and that values are finite and not huge."""
    actual = spec_of(tensors)
    if missing := sorted(spec.keys() - actual.keys()):
        raise H2TuneError(f"missing '{missing[0]}'", where=where)
    if extra := sorted(actual.keys() - spec.keys()):
        raise H2TuneError(f"unexpected '{extra[0]}'", where=where)
    for name, expected in spec.items():
        if actual[name] != expected:
            raise H2TuneError(f"'{name}' is {actual[name]}, expected {expected}", where=where)
    check_size(tensors, where)


def check_size(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse values that are not finite, or beyond what sums can hold.

    Raises:
        H2TuneError: Some are.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise H2TuneError(f"'{name}' holds values that are not finite", where=where)
        if tensor.is_floating_point() and bool((tensor.abs() > LARGEST).any()):
            raise H2TuneError(f"'{name}' holds values beyond {LARGEST:g}", where=where)


def to_bytes(update: Update) -> bytes:
    """Return the update as a safetensors file."""
    head = {"format": "h2tune-update-1", "client": update.client}
    head |= {"round": str(update.round), "examples": str(update.examples)}
    tensors = {name: t.contiguous() for name, t in update.tensors.items()}
    data: bytes = safetensors_save(tensors, metadata=head)
    return data


def from_bytes(data: bytes, most: int | None = None) -> Update:
    """Return the update in a file of `to_bytes`.

    Args:
        data: The file.
        most: Largest number of bytes of its tensors; None for no limit.

    Raises:
        H2TuneError: The file is malformed or too large.
    """
    if most is not None and len(data) > most + HEAD_BYTES:
        reason = f"{len(data)} bytes are more than the {most} of its tensors and {HEAD_BYTES} for their names"
        raise H2TuneError(reason, where="update")
    length = int.from_bytes(data[:8], "little")
    if HEAD_BYTES < length <= len(data):  # a header longer than the file is refused by safetensors
        raise H2TuneError(f"its head takes {length} bytes, more than {HEAD_BYTES}", where="update")
    tensors = tensors_from_bytes(data, "update")
    head = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    if head.get("format") != "h2tune-update-1":
        raise H2TuneError("no h2tune update", where="update")
    try:
        return Update(head["client"], _count(head["round"]), _count(head["examples"]), tensors)
    except (ValueError, KeyError) as error:
        raise H2TuneError(f"malformed update ({error})", where="update") from None


def _count(text: str) -> int:
    """Return a count that is written as `to_bytes` does; int() would also take "1_0", " 1" and digits of other scripts.

    Raises:
        ValueError: It is not.
    """
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError(f"{text[:20]!r} is no count")
    return int(text)


def tensors_from_bytes(data: bytes, where: str) -> Tensors:
    """Return the tensors of a safetensors file from an untrusted source.

    Raises:
        H2TuneError: The file is malformed.
    """
    try:
        tensors: Tensors = safetensors_load(data)
    # errors of safetensors, and of torch for sizes and types that it does not support
    except (SafetensorError, ValueError, KeyError, TypeError, ArithmeticError, RuntimeError) as error:
        raise H2TuneError(f"malformed {where} ({str(error)[:300]})", where=where) from None
    return tensors


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
