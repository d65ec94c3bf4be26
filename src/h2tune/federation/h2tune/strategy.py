"""The h2tune strategy: the server's half of equations (3) to (5), on the wire format of an update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from h2tune.adapter.config import Basis
from h2tune.adapter.shared import Alignment
from h2tune.federation import dp
from h2tune.federation.h2tune.adapted_model import H2TuneAdaptedModel
from h2tune.federation.h2tune.codec import NAME, H2TuneCodec, own_name
from h2tune.federation.messages import Enrolment, Tensors, Update
from h2tune.federation.secagg import vector
from h2tune.functional import robust
from h2tune.functional.aggregation import Sums, staleness_weight
from h2tune.functional.masks import Mask
from h2tune.functional.quorum import Increments, Rule
from h2tune.functional.relevance import personal_steps, relevance
from h2tune.training.schedule import Alternation


class H2Tune(H2TuneCodec):
    """Shares middle matrices of one common rank; A, B, scores and heads stay with the clients.

    Args:
        enrolments: The clients.
        shared_rank: R.
        slots: D.
        mask: How Ω is chosen.
        alignment_mode: Whether the relation is learned or by depth.
        temperature: τ of the relation.
        rate: η of equation (5).
        weighting: w_i: `"examples"` or `"uniform"`.
        wire_dtype: Type of ΔT and G on the wire.
        alternation: How the clients' phases take turns.
        alpha: LoRA's α.
        dropout: Dropout on the adapters' inputs.
        size_weight: λ_reg.
        drift_weight: λ_kl.
        distillation_weight: λ_kd.
        basis: Whether T lives between private A and B, or between frames, equation (8).
        basis_scale: s of equation (8).
        start_norm: c of equation (9); 0 starts T from zero.
        start_blocks: Blocks, from the output, in which T starts from labels.
        increments: Whether G moves by the mean of the clients' increments, equation (5), or by their sum, or each
            client has its own, equation (10).
        aggregation: `"mean"`, equation (5) as it is, or a robust rule; see `robust.step`.
        hostile: f, the hostile clients that a robust rule must bear.
        clip_norm: The bound of `"clip"`; by default the median of the clients' norms.
        mechanism: Noise on what is shared, if any.
        secure: With secure aggregation the number of members in the federation, else 0; the server learns sums alone.
    """

    name = "h2tune"

    def __init__(
        self,
        enrolments: Sequence[Enrolment],
        *,
        shared_rank: int,
        slots: int,
        mask: Mask = "entry",
        alignment_mode: Alignment = "learned",
        temperature: float = 1.0,
        rate: float = 1.0,
        weighting: str = "examples",
        wire_dtype: str = "float32",
        alternation: Alternation = "step",
        alpha: float = 16.0,
        dropout: float = 0.0,
        size_weight: float = 0.0,
        drift_weight: float = 0.0,
        distillation_weight: float = 0.0,
        basis: Basis = "free",
        basis_scale: float = 1.0,
        start_norm: float = 0.0,
        start_blocks: int = 1,
        increments: Increments = "mean",
        aggregation: Rule = "mean",
        hostile: int = 0,
        clip_norm: float | None = None,
        mechanism: dp.Mechanism | None = None,
        secure: int = 0,
    ) -> None:
        super().__init__(
            enrolments,
            shared_rank=shared_rank,
            slots=slots,
            mask=mask,
            alignment_mode=alignment_mode,
            wire_dtype=wire_dtype,
            mechanism=mechanism,
            secure=secure,
        )
        self.temperature = temperature
        self.rate, self.weighting = rate, weighting
        self.alternation, self.alpha, self.dropout = alternation, alpha, dropout
        self.weights = (size_weight, drift_weight, distillation_weight)
        self.basis, self.basis_scale = basis, basis_scale
        self.start_norm, self.start_blocks = start_norm, start_blocks
        self.increments = increments
        self.aggregation, self.hostile, self.clip_norm = aggregation, hostile, clip_norm

    def start(self) -> Tensors:
        return {NAME: torch.zeros(self.slots, len(self.roles), self.shared_rank, self.shared_rank)}

    def aggregate(
        self, state: Mapping[str, Tensor], updates: Sequence[Update]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Equations (4) and (5); the updates are taken by client name, so their order means nothing.

        In a mean, an update of an earlier round has a smaller weight: `aggregate.staleness_weight`.
        """
        updates = sorted(updates, key=lambda update: (update.client, update.round))
        reduce = self._mean if self.aggregation == "mean" else self._robust
        shared, facts = reduce(state[NAME], updates)
        facts |= self._change(state[NAME], shared)
        if self.increments != "relevance":
            return {NAME: shared}, facts
        personal, relevant = self._personal(state, updates)
        return {**state, NAME: shared, **personal}, facts | relevant  # G of who comes later moves by the mean

    def aggregate_sum(
        self, state: Mapping[str, Tensor], total: Tensor, clients: Sequence[str], round_number: int
    ) -> tuple[Tensors, dict[str, Any]]:
        """Equation (5) on sums over clients that nobody can take apart.

        Args:
            state: The server's tensors.
            total: Σ N and Σ C of the clients, as integers modulo 2⁶⁴ (2, D, roles, R, R).
            clients: Whose sums they are.
            round_number: Number of the round, from 0.

        Raises:
            H2TuneError: It is no sum of so many clients' values.
        """
        sums = Sums(state[NAME].shape)
        learned, coverage = vector.unpack(total, self.secure, len(clients))
        sums.add(learned, coverage, 1.0, range(len(self.roles)))
        facts = self._protect(sums, clients, round_number)
        shared = sums.step(state[NAME], self.rate, self._over([1.0]))
        return {NAME: shared}, facts | self._change(state[NAME], shared)

    def _change(self, before: Tensor, after: Tensor) -> dict[str, Any]:
        moved = {r: float((after[:, i] - before[:, i]).norm()) for i, r in enumerate(self.roles)}
        return {"change": math.hypot(*moved.values()), "change_by_role": moved, "norm": float(after.norm())}

    def _protect(self, sums: Sums, clients: Sequence[str], round_number: int) -> dict[str, Any]:
        """Put the mechanism's noise on sums, if there is one; return what an event says of it."""
        if self.mechanism is None:
            return {}
        shares = [sum(role in self.roles_of(client) for client in clients) for role in self.roles]
        held_back = [self.roles[i] for i in dp.protect(sums, self.mechanism, shares)]
        told = dp.spent(self.mechanism, 1 + round_number)
        return {"privacy": told | {"held_back": held_back}}

    def _mean(self, shared: Tensor, updates: Sequence[Update]) -> tuple[Tensor, dict[str, Any]]:
        """Return G after equation (5), and what protects it."""
        sums, where = Sums(shared.shape), {role: i for i, role in enumerate(self.roles)}
        newest = max(update.round for update in updates)
        weights = [
            (float(u.examples) if self.weighting == "examples" else 1.0) * staleness_weight(newest - u.round)
            for u in updates
        ]
        for update, weight in zip(updates, weights, strict=True):
            if self.mechanism is None:
                enrolment = self.enrolments[update.client]
                factors = self.format.read(update, enrolment, self.roles_of(update.client))
                sums.add_factors(factors, weight, where)
            else:  # what is clipped or noised is N itself
                learned, coverage, positions = self._contribution(update)
                sums.add(learned, coverage, weight, positions)
        facts = self._protect(sums, [update.client for update in updates], newest)
        return sums.step(shared, self.rate, self._over(weights)), facts

    def _personal(
        self, state: Mapping[str, Tensor], updates: Sequence[Update]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return G of every client that sent an update after equation (10), and who was how relevant to whom."""
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

    def _over(self, weights: Sequence[float]) -> float | None:
        """Return what a sum of increments is divided by: the mean weight, so that weights say who counts more.

        Deviation: (5) is a mean, in which a client's own step comes back to it divided by the number of clients. In the
        sum it comes back whole (less of it where a model has fewer than D blocks, for N is not divided by C), and what
        the others learned is added to it.
        """
        return sum(weights) / len(weights) if self.increments == "sum" and weights else None

    def _robust(self, shared: Tensor, updates: Sequence[Update]) -> tuple[Tensor, dict[str, Any]]:
        """Return G after a robust rule, and what it did: how much of G was left, who was kept or clipped."""
        learned, coverage = (torch.zeros(len(updates), *shared.shape) for _ in range(2))
        for i, update in enumerate(updates):
            some, covered, where = self._contribution(update)
            learned[i][:, where], coverage[i][:, where] = some, covered
        found = robust.step(self.aggregation, learned, coverage, self.hostile, self.clip_norm)
        facts = found.facts(self.roles, [update.client for update in updates])
        return found.apply(shared, self.rate), facts

    def participant(
        self, base: PreTrainedModel, enrolment: Enrolment, *, heads: Sequence[str], seed: int
    ) -> H2TuneAdaptedModel:
        return H2TuneAdaptedModel(
            base,
            rank=enrolment.rank,
            shared_rank=self.shared_rank,
            slots=self.slots,
            roles=self.roles_of(enrolment.name),
            modules=list(enrolment.modules),
            mask=self.mask,
            alignment_mode=self.alignment_mode,
            temperature=self.temperature,
            wire_dtype=self.wire_dtype,
            alternation=self.alternation,
            alpha=self.alpha,
            dropout=self.dropout,
            weights=self.weights,
            basis=self.basis,
            basis_scale=self.basis_scale,
            start_norm=self.start_norm,
            start_blocks=self.start_blocks,
            heads=heads,
            seed=seed,
        )
