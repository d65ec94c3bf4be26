"""What travels between the server and h2tune's clients: G down, what was learned up; specs, noise, reading."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from h2tune.adapter.roles import ROLES
from h2tune.adapter.shared import Alignment
from h2tune.errors import H2TuneError
from h2tune.federation import dp
from h2tune.federation.h2tune import wire
from h2tune.federation.h2tune.factors import FactorFormat
from h2tune.federation.messages import WIRE, Download, Enrolment, Spec, Tensors, Update, digest
from h2tune.federation.secagg import vector
from h2tune.federation.secagg.masking import RANGE
from h2tune.functional import alignment
from h2tune.functional.aggregation import Place, contribution
from h2tune.functional.masks import Mask

NAME = "shared"
"""Name of G in the server's state."""
NOISED = "noised"
"""Name of a member's clipped N with its share of the noise, in an update."""


def own_name(client: str) -> str:
    """Return the name of a client's own G in the server's state; see equation (10)."""
    return f"{NAME}.{client}"


class H2TuneCodec:
    """The tensors of a message each way, and what is in them.

    Args:
        enrolments: The clients.
        shared_rank: R.
        slots: D.
        mask: How Ω is chosen.
        alignment_mode: Whether the relation is learned or by depth.
        wire_dtype: Type of ΔT and G on the wire.
        mechanism: Noise on what is shared, if any.
        secure: With secure aggregation the number of members in the federation, else 0; the server learns sums alone.

    Raises:
        H2TuneError: A rank is above R, or a model too deep for secure aggregation.
    """

    def __init__(
        self,
        enrolments: Sequence[Enrolment],
        *,
        shared_rank: int,
        slots: int,
        mask: Mask,
        alignment_mode: Alignment,
        wire_dtype: str,
        mechanism: dp.Mechanism | None,
        secure: int,
    ) -> None:
        if secure:  # all weigh the same, so that no count is needed, and none is sent
            enrolments = [replace(enrolment, examples=1) for enrolment in enrolments]
        self.enrolments = {enrolment.name: enrolment for enrolment in enrolments}
        self.shared_rank, self.slots, self.mask = shared_rank, slots, mask
        self.alignment_mode, self.wire_dtype = alignment_mode, wire_dtype
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

    def among(self, roles: Sequence[str], secure: int) -> Self:
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

    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """G of the client's roles in the wire type; nothing in the first round, when G is zero for all."""
        roles = self.roles_of(client)
        sent: Tensors = {}
        shared = state.get(own_name(client), state[NAME])
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
            learned = dp.noised(dp.clip(learned, self.mechanism.clip), self.mechanism.deviation)
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
            learned = dp.clip(learned, self.mechanism.clip)
        return learned, coverage, where

    def _fixed_coverage(self, client: str) -> Tensor:
        """Return C of a client whose Ω and P are fixed, so that it is known beforehand."""
        enrolment, roles = self.enrolments[client], self.roles_of(client)
        nothing = {n: torch.zeros(shape) for n, (shape, _) in self.format.spec(enrolment, roles).items()}
        return contribution(*self._apart(Update(client, 0, 0, nothing)), roles, self.shared_rank)[1]

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
