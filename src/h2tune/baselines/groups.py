"""The server's half of every baseline: a rule, applied within groups of clients that can share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from h2tune.baselines.lora import LoraAdaptedModel
from h2tune.federation.messages import Download, Enrolment, Spec, Tensors, Update, digest
from h2tune.federation.strategy import Decoded, Strategy
from h2tune.models import base_seed

Group = Sequence[Enrolment]
"""Clients that share, by name; two or more."""


@dataclass(frozen=True)
class Contribution:
    """What one client of a group sent, and its share of the group's weight; the shares sum to one."""

    enrolment: Enrolment
    weight: float
    tensors: Tensors


def mean(state: Mapping[str, Tensor], contributions: Sequence[Contribution]) -> Tensors:
    """Return the weighted mean of what was sent: FedAvg."""
    return {
        name: torch.stack([c.weight * c.tensors[name] for c in contributions]).sum(0)
        for name in contributions[0].tensors
    }


def whole(state: Mapping[str, Tensor], enrolment: Enrolment) -> Tensors:
    """Return all that the server holds for a group."""
    return dict(state)


def same_model(enrolment: Enrolment) -> Hashable:
    """Clients share if they have one base model and adapt the same modules."""
    return enrolment.model, tuple(sorted(enrolment.modules.items()))


def same_model_and_rank(enrolment: Enrolment) -> Hashable:
    """Clients share if they have one base model, adapt the same modules, and have one rank."""
    return same_model(enrolment), enrolment.rank


@dataclass(frozen=True)
class GroupRule:
    """What a method does within one group.

    Args:
        name: Its name.
        together: Returns what clients must have in common to share.
        alone: What a table says of a client that has that in common with nobody.
        sends: Names, shapes and types of a client's update.
        start: The group and the run's seed → the server's tensors at the start.
        adapted_model: The client's part; built with a base model and an enrolment, α, dropout, heads and a seed.
        merge: The server's tensors and what was sent → the server's tensors after the round.
        fit: The server's tensors and a client → what that client must hold before it trains.
        news: The same → what of it travels to the client; by default all.
        receives: Names, shapes and types of that, after the first round; by default as what it sends.
    """

    name: str
    together: Callable[[Enrolment], Hashable]
    alone: str
    sends: Callable[[Enrolment], Spec]
    start: Callable[[Group, int], Tensors]
    adapted_model: Callable[..., LoraAdaptedModel]
    merge: Callable[[Mapping[str, Tensor], Sequence[Contribution]], Tensors] = mean
    fit: Callable[[Mapping[str, Tensor], Enrolment], Tensors] = whole
    news: Callable[[Mapping[str, Tensor], Enrolment], Tensors] | None = None
    receives: Callable[[Enrolment], Spec] | None = None


class Grouped(Strategy[Tensors]):
    """A strategy that applies a method within groups; a client that is alone in its group trains as `local` does.

    Args:
        method: The method.
        enrolments: The clients.
        alpha: LoRA's α.
        dropout: Dropout on the adapters' inputs.
        weighting: Weight of a client in its group: `"examples"` or `"uniform"`.
        seed: The run's seed.
    """

    def __init__(
        self,
        method: GroupRule,
        enrolments: Sequence[Enrolment],
        *,
        alpha: float,
        dropout: float,
        weighting: str,
        seed: int,
    ) -> None:
        self.name, self.method, self.seed = method.name, method, seed
        self.alpha, self.dropout, self.weighting = alpha, dropout, weighting
        self.enrolments = {e.name: e for e in sorted(enrolments, key=lambda e: e.name)}
        found: dict[Hashable, list[Enrolment]] = {}
        for enrolment in self.enrolments.values():
            found.setdefault(method.together(enrolment), []).append(enrolment)
        self.groups: dict[str, Group] = {group[0].name: group for group in found.values() if len(group) > 1}
        """Groups of two or more, called after their first client."""
        self.group_of = {e.name: name for name, group in self.groups.items() for e in group}

    def note(self, client: str) -> str:
        """Say why a client shares nothing, if it does not."""
        return "" if client in self.group_of else self.method.alone

    def start(self) -> Tensors:
        return {
            f"{name}/{key}": tensor
            for name, group in self.groups.items()
            for key, tensor in self.method.start(group, self.seed).items()
        }

    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """What the client must hold; nothing travels in the first round, when all start alike."""
        if client not in self.group_of:
            return Download(round_number, {}, digest({}))
        part, enrolment = _part(state, self.group_of[client]), self.enrolments[client]
        held = self.method.fit(part, enrolment)
        sent = self.method.news(part, enrolment) if self.method.news else held
        sent = {name: tensor.contiguous() for name, tensor in sent.items()}
        return Download(round_number, sent if round_number else {}, digest(held))

    def download_spec(self, client: str, round_number: int) -> Spec:
        if round_number == 0 or client not in self.group_of:
            return {}
        return (self.method.receives or self.method.sends)(self.enrolments[client])

    def upload_spec(self, client: str, round_number: int) -> Spec:
        return self.method.sends(self.enrolments[client]) if client in self.group_of else {}

    def decode(self, update: Update) -> Tensors:
        return update.tensors

    def aggregate(
        self, state: Mapping[str, Tensor], updates: Sequence[Decoded[Tensors]]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Merge what was sent, group by group and by client name; a group that sent nothing stays as it is."""
        following = dict(state)
        for name in self.groups:
            sent = [u for u in sorted(updates, key=lambda u: u.client) if self.group_of.get(u.client) == name]
            weights = [float(u.examples) if self.weighting == "examples" else 1.0 for u in sent]
            contributions = [
                Contribution(self.enrolments[u.client], weight / sum(weights), u.content)
                for u, weight in zip(sent, weights, strict=True)
            ]
            if contributions:
                merged = self.method.merge(_part(state, name), contributions)
                following |= {f"{name}/{key}": tensor.contiguous() for key, tensor in merged.items()}
        return following, {
            **_movement(state, following),
            "groups": [[e.name for e in group] for group in self.groups.values()],
        }

    def attach(
        self, base: PreTrainedModel, enrolment: Enrolment, *, heads: Sequence[str], seed: int
    ) -> LoraAdaptedModel:
        build = self.method.adapted_model if enrolment.name in self.group_of else LoraAdaptedModel
        return build(base, enrolment, alpha=self.alpha, dropout=self.dropout, heads=heads, seed=seed)


def model_seed(group: Group, seed: int) -> int:
    """Return the seed of what clients with a group's model start with."""
    return base_seed(seed, group[0].model)


def _part(state: Mapping[str, Tensor], group: str) -> Tensors:
    return {k.removeprefix(f"{group}/"): t for k, t in state.items() if k.startswith(f"{group}/")}


def _movement(state: Mapping[str, Tensor], following: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the L2 norms of the change, whole and by kind of tensor, and of what the server now holds."""
    squares: dict[str, float] = {}
    norm = 0.0
    for name, tensor in following.items():
        if tensor.is_floating_point():
            change = tensor.clone()
            if name in state:  # what has grown was zero there
                change[tuple(slice(size) for size in state[name].shape)] -= state[name]
            kind = name.rpartition(".")[2]
            squares[kind] = squares.get(kind, 0.0) + float(change.square().sum())
            norm += float(tensor.square().sum())
    by_kind = {kind: square**0.5 for kind, square in sorted(squares.items())}
    return {"change": sum(squares.values()) ** 0.5, "change_by_role": by_kind, "norm": norm**0.5}
