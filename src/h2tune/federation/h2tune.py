"""The h2tune strategy: the server's half of equations (3) to (5), on the wire format of an update."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from h2tune import alignment
from h2tune.adapter import sparsify
from h2tune.adapter.config import Basis
from h2tune.adapter.roles import ROLES
from h2tune.adapter.shared import Alignment
from h2tune.errors import H2TuneError
from h2tune.federation import privacy, robust, wire
from h2tune.federation.aggregate import Place, Sums, contribution, staleness_weight
from h2tune.federation.factors import FactorFormat
from h2tune.federation.participant import H2TuneParticipant
from h2tune.federation.relevance import personal_steps, relevance
from h2tune.federation.secagg import vector
from h2tune.federation.secagg.masking import RANGE
from h2tune.federation.tolerance import Increments, Rule
from h2tune.federation.update import WIRE, Download, Enrolment, Spec, Tensors, Update, digest
from h2tune.training.schedule import Alternation

NAME = "shared"
"""Name of G in the server's state."""
NOISED = "noised"
"""Name of a member's clipped N with its share of the noise, in an update."""


def _own(client: str) -> str:
    """Return the name of a client's own G in the server's state; see equation (10)."""
    return f"{NAME}.{client}"


class H2Tune:
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
        mask: sparsify.Mask = "entry",
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
        mechanism: privacy.Mechanism | None = None,
        secure: int = 0,
    ) -> None:
        if secure:  # all weigh the same, so that no count is needed, and none is sent
            enrolments = [replace(enrolment, examples=1) for enrolment in enrolments]
        self.enrolments = {enrolment.name: enrolment for enrolment in enrolments}
        self.shared_rank, self.slots, self.mask = shared_rank, slots, mask
        self.alignment_mode, self.temperature = alignment_mode, temperature
        self.rate, self.weighting, self.wire_dtype = rate, weighting, wire_dtype
        self.alternation, self.alpha, self.dropout = alternation, alpha, dropout
        self.weights = (size_weight, drift_weight, distillation_weight)
        self.basis, self.basis_scale = basis, basis_scale
        self.start_norm, self.start_blocks = start_norm, start_blocks
        self.increments = increments
        self.aggregation, self.hostile, self.clip_norm = aggregation, hostile, clip_norm
        self.mechanism, self.secure = mechanism, secure
        self.format = FactorFormat(shared_rank, slots, mask, alignment_mode, wire_dtype)
        held = {role for enrolment in enrolments for role in enrolment.roles}
        self.roles = tuple(role for role in ROLES if role in held)
        for enrolment in enrolments:
            if enrolment.rank > shared_rank:
                raise H2TuneError(
                    f"rank {enrolment.rank} is above the common rank R = {shared_rank}",
                    where=f"client '{enrolment.name}'",
                    remedy="Raise server.shared_rank or lower the client's rank",
                )
            if secure and enrolment.depth > RANGE:
                raise H2TuneError(
                    f"{enrolment.depth} blocks are above {RANGE:g}, the range of secure aggregation",
                    where=f"client '{enrolment.name}'",
                )

    def among(self, roles: Sequence[str], secure: int) -> H2Tune:
        """Return this strategy in a federation whose roles are known beforehand; more members may come than enrolled.

        Args:
            roles: Roles that are shared, in order.
            secure: As in the constructor.
        """
        other = copy.copy(self)
        other.roles, other.secure = tuple(roles), secure
        return other

    def roles_of(self, client: str) -> tuple[str, ...]:
        """Return the shared roles that a client has, in order."""
        return tuple(role for role in self.roles if role in self.enrolments[client].roles)

    def start(self) -> Tensors:
        return {NAME: torch.zeros(self.slots, len(self.roles), self.shared_rank, self.shared_rank)}

    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """G of the client's roles in the wire type; nothing in the first round, when G is zero for all."""
        roles = self.roles_of(client)
        sent: Tensors = {}
        shared = state.get(_own(client), state[NAME])
        for role in roles:
            sent |= wire.write_matrices(NAME, role, shared[:, self.roles.index(role)], self.wire_dtype)
        held = torch.stack([wire.read_matrices(NAME, role, sent) for role in roles], dim=1)
        return Download(round_number, sent if round_number else {}, digest({NAME: held}))

    def download_spec(self, client: str, round_number: int) -> Spec:
        if round_number == 0:
            return {}
        shape = (self.slots, self.shared_rank, self.shared_rank)
        spec: Spec = {}
        for role in self.roles_of(client):
            spec |= wire.matrices_spec(NAME, role, shape, self.wire_dtype)
        return spec

    def upload_spec(self, client: str, round_number: int) -> Spec:
        if self.secure:
            size = self.shared_rank
            return {vector.MASKED: ((2, self.slots, len(self.roles), size, size), "int64")}
        if self._noised_by_members:
            shape = (self.slots, self.shared_rank, self.shared_rank)
            return {f"{NOISED}.{role}": (shape, self.wire_dtype) for role in self.roles_of(client)}
        return self.format.spec(self.enrolments[client], self.roles_of(client))

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

    def release(self, client: str, tensors: Tensors) -> Tensors:
        """Return what leaves a member: ΔT, Ω and P; or, where members add the noise, N clipped and noised.

        With secure aggregation it is N (noised or not) and C as integers, on which the protocol then puts masks.

        N is dense. Noise on ΔT would be carried through each member's own map (4), so that an entry which few members
        cover would have few shares of noise; on N, all shares have the same distribution on every entry, and any
        `shares` of them add up to the whole.
        """
        if not self.secure and not self._noised_by_members:
            return tensors
        roles = self.roles_of(client)
        read = self._apart(Update(client, 0, 0, tensors))
        learned, coverage = contribution(*read, roles, self.shared_rank)
        if self.mechanism is not None and self.mechanism.by == "member":
            learned = privacy.noised(privacy.clip(learned, self.mechanism.clip), self.mechanism.deviation)
        if self.secure:
            where = [self.roles.index(role) for role in roles]
            return {vector.PLAIN: vector.pack(learned, coverage, where, len(self.roles), self.secure)}
        wire_type = WIRE[self.wire_dtype]
        return {f"{NOISED}.{role}": learned[:, i].to(wire_type).contiguous() for i, role in enumerate(roles)}

    @property
    def _noised_by_members(self) -> bool:
        return self.mechanism is not None and self.mechanism.by == "member"

    def _contribution(self, update: Update) -> tuple[Tensor, Tensor, list[int]]:
        """Return N and C of an update, N within the mechanism's bound, and where its roles are on G's second axis."""
        roles = self.roles_of(update.client)
        where = [self.roles.index(role) for role in roles]
        if self._noised_by_members:
            learned = torch.stack([update.tensors[f"{NOISED}.{r}"].float() for r in roles], dim=1)
            return learned, self._fixed_coverage(update.client), where
        learned, coverage = contribution(*self.read(update), roles, self.shared_rank)
        if self.mechanism is not None:
            learned = privacy.clip(learned, self.mechanism.clip)
        return learned, coverage, where

    def _fixed_coverage(self, client: str) -> Tensor:
        """Return C of a client whose Ω and P are fixed, so that it is known beforehand."""
        enrolment, roles = self.enrolments[client], self.roles_of(client)
        nothing = {n: torch.zeros(shape) for n, (shape, _) in self.format.spec(enrolment, roles).items()}
        return contribution(*self._apart(Update(client, 0, 0, nothing)), roles, self.shared_rank)[1]

    def _protect(self, sums: Sums, clients: Sequence[str], round_number: int) -> dict[str, Any]:
        """Put the mechanism's noise on sums, if there is one; return what an event says of it."""
        if self.mechanism is None:
            return {}
        shares = [sum(role in self.roles_of(client) for client in clients) for role in self.roles]
        held_back = [self.roles[i] for i in privacy.protect(sums, self.mechanism, shares)]
        told = privacy.spent(self.mechanism, 1 + round_number)
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
            some, _, where = self._contribution(update)
            learned[clients.index(update.client)][:, where] += some * staleness_weight(newest - update.round)
        relevant = relevance(learned)
        steps = personal_steps(learned, relevant)
        personal = {
            _own(client): state.get(_own(client), state[NAME]) + self.rate * step
            for client, step in zip(clients, steps, strict=True)
        }
        rows = [[round(value, 4) for value in row] for row in relevant.tolist()]
        return personal, {"relevance": {"clients": clients, "weights": rows}}

    def _over(self, weights: Sequence[float]) -> float | None:
        """Return what a sum of increments is divided by: the mean weight, so that weights say who counts more.

        Deviation: (5) is a mean, in which a client's own step comes back to it divided by the number of clients. In the
        sum it comes back whole, and what the others learned is added to it.
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

    def read(self, update: Update) -> tuple[dict[Place, Tensor], dict[Place, Tensor], Tensor]:
        """Return ΔT and Ω by (block, role), and P, of an update.

        Raises:
            H2TuneError: A mask or the relation is not what it must be.
        """
        if self.secure or self._noised_by_members:  # there are none in it: names, shapes and types say all
            return {}, {}, alignment.fixed_relation(self.slots, self.enrolments[update.client].depth)
        return self._apart(update)

    def _apart(self, update: Update) -> tuple[dict[Place, Tensor], dict[Place, Tensor], Tensor]:
        enrolment = self.enrolments[update.client]
        return self.format.apart(update, enrolment, self.roles_of(update.client))

    def participant(
        self, base: PreTrainedModel, enrolment: Enrolment, *, heads: Sequence[str], seed: int
    ) -> H2TuneParticipant:
        return H2TuneParticipant(
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
