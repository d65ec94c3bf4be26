"""Ranks that fit a client's budget: the parameters and bytes of a client at a rank."""

from __future__ import annotations

from h2tune.adapter.roles import depth
from h2tune.config import FederationConfig
from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.codec import FactorCodec
from h2tune.federation.h2tune.protection import protection_of
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.messages import payload_bytes
from h2tune.runs.build import h2tune_settings
from h2tune.runs.model_info import ClientInfo, enrolment

ADAM_BYTES = 16
"""Bytes of a trained float32 parameter: its value, its gradient, and Adam's two moments."""


def common_rank(federation: FederationConfig, infos: list[ClientInfo]) -> int:
    """Return R: as stated, or the largest stated rank, which bounds the clients with rank = "auto"."""
    if isinstance(federation.server.shared_rank, int):
        return federation.server.shared_rank
    stated = [info.client.rank for info in infos if isinstance(info.client.rank, int)]
    if not stated:
        raise H2TuneError(
            'every rank is "auto", so there is no common rank', remedy="Set server.shared_rank, such as 64"
        )
    return max(stated)


def rank_of(info: ClientInfo, federation: FederationConfig, size: int, slots: int) -> int:
    """Return a client's rank: as stated, or the largest that its budget allows.

    Raises:
        H2TuneError: Its budget does not allow rank 1.
    """
    client = info.client
    if isinstance(client.rank, int):
        return client.rank
    settings = h2tune_settings(federation, size, slots)
    most = min(size, *(min(p.d_in, p.d_out) for p in info.placements))
    for rank in range(most, 0, -1):
        up = bytes_up(info, settings, rank)
        memory = trainable_in(federation, info, rank, size, slots) * ADAM_BYTES
        if (client.uplink_bytes is None or up <= client.uplink_bytes) and (
            client.memory_bytes is None or memory <= client.memory_bytes
        ):
            return rank
    raise H2TuneError(
        f"its budget does not allow rank 1 ({up} bytes up, {memory} bytes of memory)",
        where=f"client '{client.name}'",
        remedy="Raise uplink_bytes or memory_bytes",
    )


def bytes_up(info: ClientInfo, settings: H2TuneSettings, rank: int) -> int:
    """Return the bytes of a client's h2tune update at a rank."""
    one = enrolment(info, rank, 0)
    protection = protection_of(FactorCodec({one.name: one}, settings))
    return payload_bytes(protection.spec(one.name))


def trainable_in(federation: FederationConfig, info: ClientInfo, rank: int, size: int, slots: int) -> int:
    """Return the number of parameters a client trains; for baselines that of plain LoRA, though some train fewer."""
    if federation.server.strategy != "h2tune":
        return sum(rank * (p.d_in + p.d_out) for p in info.placements) + info.head_parameters
    experimental = federation.experimental
    return trainable(
        info,
        rank,
        size,
        slots if experimental.alignment == "learned" else 0,
        scores=experimental.mask != "leading",
    )


def trainable(info: ClientInfo, rank: int, size: int, slots: int = 0, *, scores: bool = True) -> int:
    """Return the number of parameters an h2tune client trains: A, B, Δ, its head, and S and Z where they are learned.

    Args:
        seen: The client.
        rank: r.
        size: R.
        slots: D where the relation is learned, else 0.
        scores: Whether scores choose the mask.
    """
    per_module = sum(rank * (p.d_in + p.d_out) + rank * rank for p in info.placements)
    chosen = len(info.placements) * size * size if scores and rank < size else 0
    relation = slots * depth(info.placements) if slots > 1 else 0
    return per_module + chosen + relation + info.head_parameters
