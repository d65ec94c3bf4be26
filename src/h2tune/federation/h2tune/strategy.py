"""The h2tune strategy: the server's side of equations (3) to (5), and (10)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from h2tune.federation import dp
from h2tune.federation.h2tune import wire
from h2tune.federation.h2tune.adapted_model import H2TuneAdaptedModel
from h2tune.federation.h2tune.codec import FactorCodec, check_enrolments
from h2tune.federation.h2tune.own_rule import own_step
from h2tune.federation.h2tune.protection import protection_of
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.messages import Download, Enrolment, Spec, Tensors, Update, digest
from h2tune.federation.secagg import vector
from h2tune.federation.secagg.masking import RANGE
from h2tune.federation.strategy import Decoded, Strategy
from h2tune.functional import robust
from h2tune.functional.aggregation import Sums, staleness_weight
from h2tune.functional.alignment import TINY
from h2tune.functional.estimators import COVERED
from h2tune.functional.factors import Dense, Factors
from h2tune.functional.relevance import personal_steps, relevance

NAME = "shared"
"""Name of G in the server's state and on the wire."""
Content = Factors | Dense | Tensor
"""Decoded content of an update; see `protection`."""


def own_name(client: str) -> str:
    """Return the name of a client's own G in the server's state; see equation (10)."""
    return f"{NAME}.{client}"


class H2Tune(Strategy[Content]):
    """Shares middle matrices of one common rank; A, B, scores and heads stay with the clients.

    Args:
        enrolments: The clients.
        settings: The settings of the method.

    Raises:
        H2TuneError: A client's rank is above R, or its model is too deep for secure aggregation.
    """

    name = "h2tune"
    largest = 1e4
    """Trained values of T are of the order of 1 or less, and float16, in which G may travel, ends at 65,504."""

    def __init__(self, enrolments: Sequence[Enrolment], settings: H2TuneSettings) -> None:
        if settings.secure_clients:  # all have the same weight, so that no example count is sent
            enrolments = [replace(enrolment, examples=1) for enrolment in enrolments]
        check_enrolments(enrolments, settings, RANGE)
        self.enrolments = {enrolment.name: enrolment for enrolment in enrolments}
        self.settings = settings
        self.codec = FactorCodec(self.enrolments, settings)
        self.protection = protection_of(self.codec)
        self.roles = self.codec.roles

    def with_client(self, enrolment: Enrolment) -> Self:
        return type(self)([*self.enrolments.values(), enrolment], self.settings)

    def start(self) -> Tensors:
        size = self.settings.shared_rank
        return {NAME: torch.zeros(self.settings.slots, len(self.roles), size, size)}

    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """Return G of the client's roles in the wire type; nothing in the first round, in which G is zero."""
        roles, where = self.codec.roles_of(client), self.codec.positions_of(client)
        sent: Tensors = {}
        shared = state.get(own_name(client), state[NAME])
        for role, position in zip(roles, where, strict=True):
            sent |= wire.write_matrices(NAME, role, shared[:, position], self.settings.wire_dtype)
        loaded = torch.stack([wire.read_matrices(NAME, role, sent) for role in roles], dim=1)
        silent = not round_number or not self.settings.shares_middles  # G is zero
        return Download(round_number, {} if silent else sent, digest({NAME: loaded}))

    def download_spec(self, client: str, round_number: int) -> Spec:
        if round_number == 0 or not self.settings.shares_middles:
            return {}
        shape = (self.settings.slots, self.settings.shared_rank, self.settings.shared_rank)
        spec: Spec = {}
        for role in self.codec.roles_of(client):
            spec |= wire.matrices_spec(NAME, role, shape, self.settings.wire_dtype)
        return spec

    def upload_spec(self, client: str, round_number: int) -> Spec:
        return self.protection.spec(client)

    def release(self, client: str, tensors: Tensors) -> Tensors:
        return self.protection.release(client, tensors)

    def decode(self, update: Update) -> Content:
        return self.protection.decode(update)

    def attach(
        self, base: PreTrainedModel, enrolment: Enrolment, *, heads: Sequence[str], seed: int
    ) -> H2TuneAdaptedModel:
        roles = self.codec.roles_of(enrolment.name)
        return H2TuneAdaptedModel(base, enrolment, self.settings, roles=roles, heads=heads, seed=seed)

    def aggregate(
        self, state: Mapping[str, Tensor], updates: Sequence[Decoded[Content]]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Apply equations (4) and (5); updates are sorted by client name, so their order does not matter.

        In a mean, an update of an earlier round has a smaller weight: see `aggregation.staleness_weight`.
        """
        if not self.settings.shares_middles:
            return {NAME: state[NAME]}, self._change(state[NAME], state[NAME])
        updates = sorted(updates, key=lambda update: (update.client, update.round))
        if self.settings.aggregation == "mean":  # a client that nobody can teach says nothing about T
            updates = [update for update in updates if self.size_of(update) != 0] or updates
        shared, facts = self._reduced(state[NAME], updates)
        facts |= self._change(state[NAME], shared)
        if self.settings.increments != "relevance":
            return {NAME: shared}, facts
        personal, relevant = self._personal(state, updates)
        # clients that join later start from the common G
        return {**state, NAME: shared, **personal}, facts | relevant

    def aggregate_sum(
        self, state: Mapping[str, Tensor], total: Tensor, clients: Sequence[str], round_number: int
    ) -> tuple[Tensors, dict[str, Any]]:
        """Apply equation (5) to the sums of secure aggregation.

        Args:
            state: The server's tensors.
            total: Σ N and Σ C of the clients, as integers modulo 2⁶⁴ (2, D, roles, R, R).
            clients: The clients in the sums.
            round_number: Number of the round, from 0.

        Raises:
            H2TuneError: `total` is out of range for that number of clients.
        """
        sums = Sums(state[NAME].shape)
        learned, coverage = vector.unpack(total, self.settings.secure_clients, len(clients))
        sums.add(learned, coverage, 1.0, range(len(self.roles)))
        facts = self._protect(sums, clients, round_number)
        shared = self._step(sums, state[NAME], [1.0])
        return {NAME: shared}, facts | self._change(state[NAME], shared)

    def _reduced(self, shared: Tensor, updates: Sequence[Decoded[Content]]) -> tuple[Tensor, dict[str, Any]]:
        """Return G after a round, by the mean, a robust rule or the user's own, and the rule's facts."""
        if self.settings.own_rule is not None:
            stacked, weights = self._stacked(shared, updates), torch.tensor(self._weights(updates))
            return shared + self.settings.rate * own_step(self.settings.own_rule, *stacked, weights), {}
        return (self._mean if self.settings.aggregation == "mean" else self._robust)(shared, updates)

    def _mean(self, shared: Tensor, updates: Sequence[Decoded[Content]]) -> tuple[Tensor, dict[str, Any]]:
        """Return G after equation (5), and the privacy facts."""
        sums, where = Sums(shared.shape), {role: i for i, role in enumerate(self.roles)}
        newest, weights = max(update.round for update in updates), self._weights(updates)
        for update, weight in zip(updates, weights, strict=True):
            if isinstance(update.content, Factors):
                sums.add_factors(update.content, weight, where)
            else:
                dense = self._dense(update)
                sums.add(dense.learned, dense.coverage, weight, self.codec.positions_of(update.client))
        facts = self._protect(sums, [update.client for update in updates], newest)
        return self._step(sums, shared, weights), facts

    def _weights(self, updates: Sequence[Decoded[Content]]) -> list[float]:
        """Return w of each update: by examples or the same for all, and smaller if it is late."""
        newest = max(update.round for update in updates)
        by_examples = self.settings.weighting == "examples"
        return [
            (float(u.examples) if by_examples else 1.0) * staleness_weight(newest - u.round) for u in updates
        ]

    def _stacked(self, shared: Tensor, updates: Sequence[Decoded[Content]]) -> tuple[Tensor, Tensor]:
        """Return N and C of all updates (clients, D, roles, R, R), zero where a client has nothing."""
        learned, coverage = (torch.zeros(len(updates), *shared.shape) for _ in range(2))
        for i, update in enumerate(updates):
            dense, where = self._dense(update), self.codec.positions_of(update.client)
            learned[i][:, where], coverage[i][:, where] = dense.learned, dense.coverage
        return learned, coverage

    def _robust(self, shared: Tensor, updates: Sequence[Decoded[Content]]) -> tuple[Tensor, dict[str, Any]]:
        """Return G after a robust rule, and the rule's facts."""
        learned, coverage = self._stacked(shared, updates)
        rule, settings = self.settings.aggregation, self.settings
        step = robust.step(rule, learned, coverage, settings.hostile, settings.clip_norm)
        facts = step.facts(self.roles, [update.client for update in updates])
        return step.apply(shared, settings.rate), facts

    def _personal(
        self, state: Mapping[str, Tensor], updates: Sequence[Decoded[Content]]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return G after equation (10) of every client that sent an update, and the relevance matrix."""
        clients, newest = sorted({update.client for update in updates}), max(u.round for u in updates)
        learned = torch.zeros(len(clients), *state[NAME].shape)
        for update in updates:
            alone, _ = self._mean(torch.zeros_like(state[NAME]), [update])  # η U: equation (5) of one client
            learned[clients.index(update.client)] += alone * staleness_weight(newest - update.round)
        relevant = relevance(learned)
        steps = personal_steps(learned, relevant)
        personal = {
            own_name(client): state.get(own_name(client), state[NAME]) + step
            for client, step in zip(clients, steps, strict=True)
        }
        rows = [[round(value, 4) for value in row] for row in relevant.tolist()]
        return personal, {"relevance": {"clients": clients, "weights": rows}}

    def _dense(self, update: Decoded[Content]) -> Dense:
        """Return N and C of an update.

        Raises:
            TypeError: It is masked.
        """
        match update.content:
            case Dense():
                return update.content
            case Factors():
                return Dense.of(update.content, self.codec.roles_of(update.client), self.settings.shared_rank)
            case _:
                raise TypeError("a masked update has no N and C")

    def size_of(self, update: Decoded[Content]) -> float | None:
        """Return the norm of ΔT, or of N; None of an update that is masked or noised."""
        if not self.settings.shares_middles:
            return 0.0
        if isinstance(update.content, Factors):
            return math.hypot(*(float(part.double().norm()) for part in update.content.increments.values()))
        if isinstance(update.content, Dense) and self.settings.mechanism is None:
            return float(update.content.learned.double().norm())
        return None

    def _change(self, before: Tensor, after: Tensor) -> dict[str, Any]:
        moved = {r: float((after[:, i] - before[:, i]).norm()) for i, r in enumerate(self.roles)}
        return {"change": math.hypot(*moved.values()), "change_by_role": moved, "norm": float(after.norm())}

    def _protect(self, sums: Sums, clients: Sequence[str], round_number: int) -> dict[str, Any]:
        """Add the noise of the mechanism, if there is one, to sums, and return the privacy facts of the round."""
        mechanism = self.settings.mechanism
        if mechanism is None:
            return {}
        shares = [sum(role in self.codec.roles_of(client) for client in clients) for role in self.roles]
        held_back = [self.roles[i] for i in dp.protect(sums, mechanism, shares)]
        return {"privacy": dp.spent(mechanism, 1 + round_number) | {"held_back": held_back}}

    def _step(self, sums: Sums, shared: Tensor, weights: Sequence[float]) -> Tensor:
        """Return G after equation (5); under noise, entries with little coverage stay as they are."""
        least = TINY if self.settings.mechanism is None else COVERED
        return sums.step(shared, self.settings.rate, self._over(weights), least)

    def _over(self, weights: Sequence[float]) -> float | None:
        """Return the divisor of a sum of increments: the mean weight, so that weights are relative. None for a mean.

        Deviation: (5) is a mean, which divides a client's own step by the number of clients. The sum applies it in
        full (or less if a model has fewer than D blocks, since N is not divided by C) and adds the others' steps.
        """
        return sum(weights) / len(weights) if self.settings.increments == "sum" and weights else None
