"""Protection of updates: none, nothing sent at all, noise from the server or from the clients, or secure aggregation.

A protection wraps the codec. It defines the spec of an update, what a client releases, and what the server decodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from h2tune.federation import dp
from h2tune.federation.h2tune.codec import FactorCodec
from h2tune.federation.messages import WIRE, Spec, Tensors, Update
from h2tune.federation.secagg import vector
from h2tune.functional.factors import Dense, Factors

NOISED = "noised"
"""Name prefix, in an update, of a client's clipped N with its share of the noise."""


class Protection(ABC):
    """Wraps the codec.

    Args:
        codec: Encodes and decodes a client's factors.
    """

    def __init__(self, codec: FactorCodec) -> None:
        self.codec, self.settings = codec, codec.settings

    @abstractmethod
    def spec(self, client: str) -> Spec:
        """Return names, shapes and types of a client's update."""

    @abstractmethod
    def release(self, client: str, tensors: Tensors) -> Tensors:
        """Return what a client sends, from ΔT, Ω and P in the codec's layout."""

    @abstractmethod
    def decode(self, update: Update) -> Factors | Dense | Tensor:
        """Return an update's content for aggregation."""

    def _dense(self, update: Update) -> Dense:
        return self._multiplied(update.client, self.codec.decode(update))

    def _multiplied(self, client: str, factors: Factors) -> Dense:
        return Dense.of(factors, self.codec.roles_of(client), self.settings.shared_rank)


class Unprotected(Protection):
    """Factors are sent unchanged."""

    def spec(self, client: str) -> Spec:
        return self.codec.spec(client)

    def release(self, client: str, tensors: Tensors) -> Tensors:
        return tensors

    def decode(self, update: Update) -> Factors | Dense | Tensor:
        return self.codec.decode(update)


class Private(Protection):
    """Nothing is sent: T stays with the client."""

    def spec(self, client: str) -> Spec:
        return {}

    def release(self, client: str, tensors: Tensors) -> Tensors:
        return {}

    def decode(self, update: Update) -> Tensor:
        return torch.empty(0)


class ServerNoise(Unprotected):
    """Factors are sent unchanged; the server clips N, and adds noise to the sum.

    Args:
        codec: As in `Protection`.
        mechanism: The clipping norm.
    """

    def __init__(self, codec: FactorCodec, mechanism: dp.Mechanism) -> None:
        super().__init__(codec)
        self.mechanism = mechanism

    def decode(self, update: Update) -> Dense:
        dense = self._dense(update)
        return Dense(dp.clip(dense.learned, self.mechanism.clip), dense.coverage)


class ClientNoise(Protection):
    """Every client sends its clipped N with its share of the noise.

    N is dense. Noise on ΔT would go through each client's own map (4), so an entry that few clients cover would get
    few shares of noise. On N every share has the same distribution on every entry, and any `shares` of them sum to
    the full noise.

    Args:
        codec: As in `Protection`; masks and relation are fixed.
        mechanism: The clipping norm and the noise.
    """

    def __init__(self, codec: FactorCodec, mechanism: dp.Mechanism) -> None:
        super().__init__(codec)
        self.mechanism = mechanism

    def spec(self, client: str) -> Spec:
        shape = (self.settings.slots, self.settings.shared_rank, self.settings.shared_rank)
        return {f"{NOISED}.{role}": (shape, self.settings.wire_dtype) for role in self.codec.roles_of(client)}

    def release(self, client: str, tensors: Tensors) -> Tensors:
        dense = self._dense(Update(client, 0, 0, tensors))
        learned = dp.noised(dp.clip(dense.learned, self.mechanism.clip), self.mechanism.deviation)
        wire_type, roles = WIRE[self.settings.wire_dtype], self.codec.roles_of(client)
        return {f"{NOISED}.{role}": learned[:, i].to(wire_type).contiguous() for i, role in enumerate(roles)}

    def decode(self, update: Update) -> Dense:
        parts = [update.tensors[f"{NOISED}.{role}"].float() for role in self.codec.roles_of(update.client)]
        zero = self._multiplied(update.client, self.codec.zeros(update.client))
        return Dense(torch.stack(parts, dim=1), zero.coverage)


class SecureSum(Protection):
    """N (with or without noise) and C are sent as masked integers; the server can decode sums only.

    Args:
        codec: As in `Protection`.
        mechanism: Noise that clients add before masking, if any.
    """

    def __init__(self, codec: FactorCodec, mechanism: dp.Mechanism | None) -> None:
        super().__init__(codec)
        self.mechanism = mechanism

    def spec(self, client: str) -> Spec:
        size = self.settings.shared_rank
        return {vector.MASKED: ((2, self.settings.slots, len(self.codec.roles), size, size), "int64")}

    def release(self, client: str, tensors: Tensors) -> Tensors:
        dense = self._dense(Update(client, 0, 0, tensors))
        learned = dense.learned
        if self.mechanism is not None and self.mechanism.by == "member":
            learned = dp.noised(dp.clip(learned, self.mechanism.clip), self.mechanism.deviation)
        where, count = self.codec.positions_of(client), len(self.codec.roles)
        return {
            vector.PLAIN: vector.pack(learned, dense.coverage, where, count, self.settings.secure_clients)
        }

    def decode(self, update: Update) -> Tensor:
        return update.tensors[vector.MASKED]


def protection_of(codec: FactorCodec) -> Protection:
    """Return the protection that a federation's settings ask for."""
    settings = codec.settings
    if not settings.shares_middles:
        return Private(codec)
    if settings.secure_clients:
        return SecureSum(codec, settings.mechanism)
    if settings.mechanism is None:
        return Unprotected(codec)
    return (ClientNoise if settings.noised_by_clients else ServerNoise)(codec, settings.mechanism)
