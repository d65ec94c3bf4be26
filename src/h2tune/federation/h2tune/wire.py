"""Wire format of an h2tune update: ΔT in the wire type, packed Ω, and P; pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.federation.messages import WIRE, Spec, Tensors

LEVELS = 127
"""Largest magnitude of an int8 on the wire; −128 is not used, so that the range is symmetric."""


def matrices_spec(kind: str, role: str, shape: tuple[int, int, int], wire_dtype: str) -> Spec:
    """Return names, shapes and types of what `write_matrices` returns for matrices of a shape (n, a, b)."""
    spec: Spec = {f"{kind}.{role}": (shape, wire_dtype)}
    if wire_dtype == "int8":
        spec[f"{kind}_scale.{role}"] = (shape[:1], "float32")
    return spec


def write_matrices(kind: str, role: str, values: Tensor, wire_dtype: str) -> Tensors:
    """Return matrices (n, a, b) in the wire type; int8 has one scale per matrix, its largest magnitude / 127."""
    if wire_dtype != "int8":
        # contiguous, since safetensors refuses slices that share memory
        return {f"{kind}.{role}": values.to(WIRE[wire_dtype]).contiguous()}
    scales = (values.float().abs().amax(dim=(1, 2)) / LEVELS).contiguous()
    steps = torch.where(scales > 0, scales, 1.0)[:, None, None]
    rounded = (values.float() / steps).round().clamp(-LEVELS, LEVELS)
    return {f"{kind}.{role}": rounded.to(torch.int8).contiguous(), f"{kind}_scale.{role}": scales}


def read_matrices(kind: str, role: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return matrices (n, a, b) of a role in float32, from what `write_matrices` returned."""
    values = tensors[f"{kind}.{role}"].float()
    scales = tensors.get(f"{kind}_scale.{role}")
    return values if scales is None else values * scales[:, None, None]


def remainder(values: Tensor) -> Tensor:
    """Return what rounding to int8 removes from matrices (n, a, b)."""
    return values - read_matrices("", "", write_matrices("", "", values, "int8"))


def mask_spec(modules: int, rank: int, size: int) -> tuple[tuple[int, ...], str]:
    """Return shape and type of packed masks: positions or a bitmap, whichever takes fewer bytes."""
    bitmap, width = -(-(size * size) // 8), _position_type(size)
    if rank * rank * (2 if width == "int16" else 4) <= bitmap:
        return (modules, rank * rank), width
    return (modules, bitmap), "uint8"


def pack_masks(masks: list[Tensor], size: int) -> Tensor:
    """Return Ω of some modules (each r² sorted positions below R²), packed as in `mask_spec`."""
    stacked = torch.stack(masks)
    rank = round(stacked.shape[1] ** 0.5)
    _, dtype = mask_spec(len(masks), rank, size)
    if dtype == "int16":
        return (stacked - 2**15).to(torch.int16)
    if dtype == "int32":
        return stacked.to(torch.int32)
    bits = np.zeros((len(masks), size * size), dtype=np.uint8)
    np.put_along_axis(bits, stacked.cpu().numpy(), 1, axis=1)
    return torch.from_numpy(np.packbits(bits, axis=1))


def unpack_masks(packed: Tensor, rank: int, size: int) -> Tensor:
    """Return Ω (modules, r²) from what `pack_masks` returned.

    Raises:
        H2TuneError: A mask is not exactly r² distinct entries of the R × R grid.
    """
    if packed.dtype == torch.uint8:
        bits = np.unpackbits(packed.cpu().numpy(), axis=1)
        if bits[:, size * size :].any():
            raise H2TuneError(f"a mask has bits beyond the {size} × {size} grid", where="mask")
        bits = bits[:, : size * size]
        if (bits.sum(axis=1) != rank * rank).any():
            raise H2TuneError(f"a mask does not keep exactly {rank * rank} entries", where="mask")
        return torch.from_numpy(np.nonzero(bits)[1].reshape(len(bits), rank * rank))
    offset = 2**15 if packed.dtype == torch.int16 else 0
    ordered = bool((packed[:, 1:] > packed[:, :-1]).all())
    # in sorted rows the first and the last position are the extremes
    if not ordered or int(packed[:, 0].min()) < -offset or int(packed[:, -1].max()) >= size * size - offset:
        raise H2TuneError(f"a mask is not {rank * rank} rising positions below {size * size}", where="mask")
    return packed.long().add_(offset)


def update_spec(
    roles: dict[str, int],
    rank: int,
    size: int,
    wire_dtype: str,
    *,
    masks: bool,
    relation: tuple[int, int] | None,
) -> Spec:
    """Return names, shapes and types of an update.

    Args:
        roles: Role → number of modules.
        rank: r.
        size: R.
        wire_dtype: Type of ΔT.
        masks: Whether Ω is sent, which is if scores choose it.
        relation: (D, L) if P is sent, which is if it is learned; else None.
    """
    spec: Spec = {}
    for role, modules in roles.items():
        spec |= matrices_spec("delta", role, (modules, rank, rank), wire_dtype)
        if masks:
            spec[f"mask.{role}"] = mask_spec(modules, rank, size)
    if relation is not None:
        spec["relation"] = (relation, "float32")
    return spec


def _position_type(size: int) -> str:
    return "int16" if size * size <= 2**16 else "int32"
