"""Ranks that fit budgets: what a client of some rank trains and sends."""

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
"""Bytes a trained float32 parameter takes: itself, its gradient, and Adam's two moments."""


def common_rank(federation: FederationConfig, seen: list[ClientInfo]) -> int:
    """Return R: as stated, or the largest stated rank; clients with rank = "auto" fit themselves below it."""
    if isinstance(federation.server.shared_rank, int):
        return federation.server.shared_rank
    stated = [s.client.rank for s in seen if isinstance(s.client.rank, int)]
    if not stated:
        raise H2TuneError(
            'every rank is "auto", so there is no common rank', remedy="Set server.shared_rank, such as 64"
        )
    return max(stated)


def rank_of(seen: ClientInfo, federation: FederationConfig, size: int, slots: int) -> int:
    """Return a client's rank: as stated, or the largest that its budget allows.

    Raises:
        H2TuneError: Its budget allows not even rank 1.
    """
    client = seen.client
    if isinstance(client.rank, int):
        return client.rank
    settings = h2tune_settings(federation, size, slots)
    most = min(size, *(min(p.d_in, p.d_out) for p in seen.placements))
    for rank in range(most, 0, -1):
        up = bytes_up(seen, settings, rank)
        memory = trainable_in(federation, seen, rank, size, slots) * ADAM_BYTES
        if (client.uplink_bytes is None or up <= client.uplink_bytes) and (
            client.memory_bytes is None or memory <= client.memory_bytes
        ):
            return rank
    raise H2TuneError(
        f"its budget is below what rank 1 takes ({up} bytes up, {memory} bytes of memory)",
        where=f"client '{client.name}'",
        remedy="Raise uplink_bytes or memory_bytes",
    )


def bytes_up(seen: ClientInfo, settings: H2TuneSettings, rank: int) -> int:
    """Return the bytes of an h2tune update of a client at some rank."""
    one = enrolment(seen, rank, 0)
    protection = protection_of(FactorCodec({one.name: one}, settings))
    return payload_bytes(protection.spec(one.name))


def trainable_in(federation: FederationConfig, seen: ClientInfo, rank: int, size: int, slots: int) -> int:
    """Return the parameters a client trains; for a baseline those of plain LoRA, though some freeze a part."""
    if federation.server.strategy != "h2tune":
        return sum(rank * (p.d_in + p.d_out) for p in seen.placements) + seen.head_parameters
    experimental = federation.experimental
    return trainable(
        seen,
        rank,
        size,
        slots if experimental.alignment == "learned" else 0,
        scores=experimental.mask != "leading",
    )


def trainable(seen: ClientInfo, rank: int, size: int, slots: int = 0, *, scores: bool = True) -> int:
    """Return the parameters an h2tune client trains: A, B, Δ, S and Z where they can choose, and its head.

    Args:
        seen: The client.
        rank: r.
        size: R.
        slots: D where the relation is learned, else 0.
        scores: Whether scores choose the mask.
    """
    per_module = sum(rank * (p.d_in + p.d_out) + rank * rank for p in seen.placements)
    chosen = len(seen.placements) * size * size if scores and rank < size else 0
    relation = slots * depth(seen.placements) if slots > 1 else 0
    return per_module + chosen + relation + seen.head_parameters
