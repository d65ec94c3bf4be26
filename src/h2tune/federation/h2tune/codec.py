"""Layout of a client's factors (ΔT, Ω, P) on the wire, and their decoding on the server; equation (4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from h2tune.adapter.roles import ROLES
from h2tune.errors import H2TuneError
from h2tune.federation.h2tune import wire
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.messages import Enrolment, Spec, Update, check_size
from h2tune.functional.alignment import fixed_relation
from h2tune.functional.factors import Factors, Route
from h2tune.functional.masks import choose_mask


class FactorCodec:
    """Names, shapes and types of the clients' factors in one federation, and their decoding.

    Args:
        enrolments: The clients, by name.
        settings: R, D, masks, alignment and wire type. "leading" masks and a relation by depth are known to both
            sides and are not sent.
    """

    def __init__(self, enrolments: Mapping[str, Enrolment], settings: H2TuneSettings) -> None:
        self.enrolments, self.settings = enrolments, settings
        present = {role for enrolment in enrolments.values() for role in enrolment.roles}
        self.roles = settings.roles or tuple(role for role in ROLES if role in present)
        self._fixed: dict[int, tuple[Tensor, dict[tuple[int, ...], Route]]] = {}  # by depth: P, its routes

    def roles_of(self, client: str) -> tuple[str, ...]:
        """Return the shared roles that a client has, in order."""
        return tuple(role for role in self.roles if role in self.enrolments[client].roles)

    def positions_of(self, client: str) -> list[int]:
        """Return the positions of a client's roles on G's second axis."""
        return [self.roles.index(role) for role in self.roles_of(client)]

    def spec(self, client: str) -> Spec:
        """Return names, shapes and types of ΔT, of Ω if scores choose it, and of P if it is learned."""
        enrolment, settings = self.enrolments[client], self.settings
        return wire.update_spec(
            {role: len(enrolment.roles[role]) for role in self.roles_of(client)},
            enrolment.rank,
            settings.shared_rank,
            settings.wire_dtype,
            masks=settings.mask != "leading" and enrolment.rank < settings.shared_rank,
            relation=(settings.slots, enrolment.depth) if settings.alignment == "learned" else None,
        )

    def decode(self, update: Update) -> Factors:
        """Return the factors in an update.

        Raises:
            H2TuneError: A mask or the relation is not valid, or decoded values are too large.
        """
        enrolment = self.enrolments[update.client]
        rank, blocks = enrolment.rank, {role: enrolment.roles[role] for role in self.roles_of(update.client)}
        masks = self._masks(update, rank, {role: len(some) for role, some in blocks.items()})
        relation, routes = update.tensors.get("relation"), dict[tuple[int, ...], Route]()
        if relation is None:
            relation, routes = self._fixed_relation(enrolment.depth)
        elif bool((relation < 0).any()) or not torch.allclose(relation.sum(0), torch.ones(()), atol=1e-3):
            raise H2TuneError(
                "the relation's columns are not distributions", where=f"update of client '{update.client}'"
            )
        increments = {role: wire.read_matrices("delta", role, update.tensors) for role in blocks}
        if self.settings.wire_dtype == "int8":  # each part was checked, and their product is larger
            check_size(increments, f"update of client '{update.client}'")
        leading = rank if self.settings.mask == "leading" else None
        return Factors(increments, masks, blocks, relation, leading, routes)

    def zeros(self, client: str) -> Factors:
        """Return a client's factors with ΔT = 0; masks and relation must be fixed."""
        nothing = {name: torch.zeros(shape) for name, (shape, _) in self.spec(client).items()}
        return self.decode(Update(client, 0, 0, nothing))

    def _fixed_relation(self, depth: int) -> tuple[Tensor, dict[tuple[int, ...], Route]]:
        if depth not in self._fixed:
            self._fixed[depth] = (fixed_relation(self.settings.slots, depth), {})
        return self._fixed[depth]

    def _masks(self, update: Update, rank: int, counts: Mapping[str, int]) -> dict[str, Tensor | None]:
        """Return by role Ω (blocks, r²), or None if it is the whole grid; `counts` is the number of blocks by role."""
        size = self.settings.shared_rank
        if rank == size:
            return dict.fromkeys(counts)
        if self.settings.mask == "leading":
            index = choose_mask(torch.zeros(size, size), rank, "leading")
            return {role: index.expand(count, -1) for role, count in counts.items()}
        packed = torch.cat([update.tensors[f"mask.{role}"] for role in counts])
        # all roles in one call; int32, as they stay in memory until aggregation
        masks = wire.unpack_masks(packed, rank, size).int()
        return dict(zip(counts, masks.split(list(counts.values())), strict=True))


def check_enrolments(enrolments: Sequence[Enrolment], settings: H2TuneSettings, deepest: float) -> None:
    """Validate the clients against the settings.

    Args:
        enrolments: The clients.
        settings: R, and whether aggregation is secure.
        deepest: Largest number of blocks that secure aggregation can sum.

    Raises:
        H2TuneError: A rank is above R, or a model is too deep for secure aggregation.
    """
    for enrolment in enrolments:
        if enrolment.rank > settings.shared_rank:
            raise H2TuneError(
                f"rank {enrolment.rank} is above the common rank R = {settings.shared_rank}",
                where=f"client '{enrolment.name}'",
                remedy="Raise server.shared_rank or lower the client's rank",
            )
        if settings.secure_clients and enrolment.depth > deepest:
            raise H2TuneError(
                f"{enrolment.depth} blocks are above {deepest:g}, the range of secure aggregation",
                where=f"client '{enrolment.name}'",
            )
